"""Methods that look at outputs alone."""

from dataclasses import dataclass

from pnncore.methods._base import Method, SettlingMethod


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FiniteDifference(SettlingMethod):
    """Central differences of the loss, one parameter after the other.

    Two passes per parameter, error O(epsilon²).

    Parameters
    ----------
    epsilon
        How far parameters are moved. None: 0.01, for networks whose
        parameters are plain numbers; elsewhere it has their units, and must be given.
    """

    epsilon: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SPSA(SettlingMethod):
    """Simultaneous perturbation: central differences of the loss along random directions of signs.

    The mean over directions is the gradient; from q directions in D dimensions an estimate has the
    root-mean-square cosine sqrt(q / (q + D - 1)) with it.

    Parameters
    ----------
    epsilon
        How far every parameter is moved. None: 0.01, for networks whose
        parameters are plain numbers; elsewhere it has their units, and must be given.
    directions
        Directions per step, two passes each.

    References
    ----------
    Spall, IEEE Trans. Autom. Control 37, 332 (1992).
    """

    epsilon: float | None = None
    directions: int = 1


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class EvolutionStrategy(SettlingMethod):
    """Evolution strategies: the gradient of the mean loss of Gaussian candidates.

    They are tried in pairs, to either side of the parameters.

    Parameters
    ----------
    sigma
        The standard deviation of candidates; with adaptation, at first.
        None: 0.1, for networks whose parameters are plain numbers;
        elsewhere it has their units, and must be given.
    directions
        Pairs of candidates per step, one to either side.
    adaptation
        How fast the deviation of every parameter adapts (PEPG); 0: not at all.

    References
    ----------
    Salimans et al., arXiv 1703.03864 (2017); Sehnke et al., Neural Netw. 23, 551 (2010).
    """

    sigma: float | None = None
    directions: int = 16
    adaptation: float = 0.0


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CoordinateDescent(SettlingMethod):
    """One parameter after the other moves to the bottom of the parabola through three losses.

    Where the parabola has no bottom, it moves by epsilon to the better side; it never moves by more
    than twice that. The optimizer's rates do not matter, except that a rate of zero leaves a
    parameter where it is.

    Parameters
    ----------
    epsilon
        How far parameters are moved to either side to try. None: 0.3, for networks whose parameters
        are plain numbers; elsewhere it has their units, and must be given.
    coordinates
        Parameters tried per step, two passes each.
    """

    epsilon: float | None = None
    coordinates: int = 16


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CMAES(SettlingMethod):
    """Covariance matrix adaptation: a normal distribution of candidates learns its shape.

    It learns its mean and width, too.

    Keeps the covariances of all pairs of parameters: for up to 500 of them. The optimizer's rates
    do not matter, except that a rate of zero leaves a parameter where it is.

    Parameters
    ----------
    sigma
        The standard deviation of candidates at first. None: 0.3, for networks whose parameters are
        plain numbers; elsewhere it has their units, and must be given.
    population
        Candidates per step; None: 4 + 3 ln D.

    References
    ----------
    Hansen, "The CMA evolution strategy: a tutorial", arXiv 1604.00772 (2016).
    """

    sigma: float | None = None
    population: int | None = None


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GeneticAlgorithm(SettlingMethod):
    """A genetic algorithm: the best survive, winners of tournaments are mixed and mutated.

    Two survive; a tournament is one of three.

    The optimizer's rates do not matter, except that a rate of zero leaves a parameter where it is.

    Parameters
    ----------
    population
        Candidates per step.
    mutation
        The standard deviation of mutations. None: 0.05, for networks whose
        parameters are plain numbers; elsewhere it has their units, and must be given.
    """

    population: int = 32
    mutation: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SurrogateOptimization(Method):
    """Surrogate optimization: a model that is fitted online is asked for the gradient.

    It is a model of the outputs, and measured against.

    Every step measures the batch with the present parameters and, `explorers` times, with
    parameters around them; fits a network from inputs and parameters to outputs to the latest
    `samples` measured samples; and takes the gradient of the loss at the measured outputs back
    through the network to the parameters. For systems with few parameters: their number is that of
    the network's inputs.

    Parameters
    ----------
    hidden
        Units of each of its two hidden layers.
    samples
        Measured samples that are kept.
    fits, learning_rate
        Steps of fitting per step, with 64 samples each, and their learning rate.
    exploration
        The standard deviation of what is added to parameters to see what they do. None: 0.2, for
        networks whose parameters are plain numbers; elsewhere it has their units, and must be
        given.
    explorers
        Passes per step with such parameters.

    References
    ----------
    After the digital twins that dual adaptive training fits beside its hardware: Zheng et al., Nat.
    Mach. Intell. 5, 1119 (2023).
    """

    hidden: int = 64
    samples: int = 8192
    fits: int = 40
    learning_rate: float = 1e-3
    exploration: float | None = None
    explorers: int = 1


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ParameterShift(Method):
    """Parameter shift: exact derivatives from phases a quarter turn to either side.

    They are derivatives of intensities.

    For stacks whose only parameters are the phases of a last `layers.Speckle`: each measured
    intensity is a sinusoidal function of each phase. Two passes per phase; the chain rule goes
    through the loss on the computer.

    References
    ----------
    Mitarai et al., Phys. Rev. A 98, 032309 (2018); Schuld et al., Phys. Rev. A 99, 032331 (2019).
    """
