"""Training methods: how a batch becomes a gradient.

A method is plain configuration; the core runs it. `method.gradient(system, x, y)` gives the gradients that a step of
training would use.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np

from pnncore import _core
from pnncore._convert import FloatArray, Seed, as_inputs, as_seed, as_threads, number, one_of, positive_int
from pnncore.errors import CapabilityError, ConfigError
from pnncore.settling import Settling
from pnncore.systems._base import score
from pnncore.systems._stack import Stack

if TYPE_CHECKING:
    from pnncore.systems import System

__all__ = [
    "CMAES",
    "SPSA",
    "AgnosticEquilibriumPropagation",
    "Backprop",
    "ContrastiveLearning",
    "CoordinateDescent",
    "CoupledLearning",
    "DirectFeedbackAlignment",
    "EquilibriumPropagation",
    "EvolutionStrategy",
    "FeedbackAlignment",
    "FiniteDifference",
    "ForwardForward",
    "FrequencyPropagation",
    "GeneticAlgorithm",
    "ImplicitDifferentiation",
    "Method",
    "ParameterShift",
    "PhysicalLocalLearning",
    "PhysicsAware",
    "RecurrentBackprop",
    "RidgeReadout",
    "SettlingMethod",
    "from_config",
]

Loss = Literal["squared-error", "cross-entropy"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods: a loss, "squared-error" or "cross-entropy"."""

    loss: Loss = "squared-error"

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        for setting in dataclasses.fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if get_origin(setting.type) is Literal:
                one_of(value, name, get_args(setting.type))
            if setting.type is float:
                object.__setattr__(self, name, number(value, name))
            if setting.type is int or (setting.type == int | None and value is not None):
                object.__setattr__(self, name, positive_int(value, name))
            if setting.type is Settling and not isinstance(value, Settling):
                raise ConfigError(f"settling must be a pnncore.Settling, got {value!r}")
        _core.check_method(self.to_json())

    def to_config(self) -> dict[str, Any]:
        """Return the configuration as plain data, as the core reads it and checkpoints keep it."""
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if isinstance(settling := config.get("settling"), Settling):
            config["settling"] = settling.to_config()
        return {"name": type(self).__name__, **config}

    def to_json(self) -> str:
        """Return `to_config` as JSON text."""
        return json.dumps(self.to_config())

    def gradient(
        self, system: "System", x: Any, y: Any, *, seed: Seed = 0, step: int = 0, threads: int | None = None
    ) -> dict[str, FloatArray]:
        """Return the gradient that a step of training on this batch would use, by parameter, in float64.

        Parameters
        ----------
        system
            The system, with its present parameters.
        x
            Inputs (samples, n_in).
        y
            Labels (samples,) or targets (samples, n_out).
        seed, step
            What random choices of the method depend on.
        threads
            Threads to use; the result does not depend on it.

        Raises
        ------
        CapabilityError
            If the system lacks what the method needs; the message lists the methods that train it.
        """
        if not hasattr(system, "as_batch"):
            raise ConfigError(f"system must be a pnncore System, got {system!r}")
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 0 <= step < 2**64:
            raise ConfigError(f"step must be an integer in 0..2**64, got {step!r}")
        x, y = system.as_batch(x, y)
        seed, threads = as_seed(seed), as_threads(threads)
        with system.lock:
            gradient, _ = _core.gradient(system.core, system.arrays(), x, y, self.to_json(), seed, step, threads)
        return dict(zip(system.names, gradient, strict=True))

    def predict(self, system: "System", x: Any, *, threads: int | None = None) -> FloatArray:
        """Return the outputs (samples, n_out) that the method teaches: those of the system, as a rule."""
        return system.predict(x, threads=threads)

    def score(self, system: "System", x: Any, y: Any, *, threads: int | None = None) -> float:
        """Return the accuracy for labels, or the coefficient of determination R² for targets, of `predict`."""
        return system.score(x, y, threads=threads)


@dataclass(frozen=True, kw_only=True)
class SettlingMethod(Method):
    """Base of the methods that may let a system settle: how phases are settled."""

    settling: Settling = field(default_factory=Settling)


@dataclass(frozen=True, kw_only=True)
class EquilibriumPropagation(SettlingMethod):
    """Equilibrium propagation: dE/dtheta at a nudged steady state against the free one.

    Let D(beta) be dE/dtheta at the steady state of E + beta C. As beta goes to zero each variant tends to the exact
    gradient.

    Parameters
    ----------
    beta
        The strength of nudging; the radius of the circle for ``"holomorphic"``.
    variant
        ``"centered"``: [D(beta) - D(-beta)] / 2 beta, bias O(beta^2). ``"one-sided"``: [D(beta) - D(0)] / beta, bias
        O(beta). ``"holomorphic"``: the first Fourier coefficient of D over `points` points of a circle of radius beta
        in the complex plane, bias O(beta^points); needs smooth units.
    sign
        The sign of beta of the one-sided variant: ``"positive"``, ``"negative"``, or ``"random"`` for every step.
    points
        Points on the circle of the holomorphic variant.

    References
    ----------
    Scellier and Bengio, Front. Comput. Neurosci. 11, 24 (2017); Laborieux et al., Front. Neurosci. 15, 633674 (2021);
    Laborieux and Zenke, NeurIPS (2022).
    """

    beta: float = 0.2
    variant: Literal["centered", "one-sided", "holomorphic"] = "centered"
    sign: Literal["positive", "negative", "random"] = "positive"
    points: int = 8


@dataclass(frozen=True, kw_only=True)
class FrequencyPropagation(SettlingMethod):
    """Frequency propagation: the error acts as a slow tone, and what of dE/dtheta swings with it is the update.

    A constant force, minus the gradient of the loss at the free outputs, pulls at the outputs with a strength that
    swings as amplitude * sin(phi), slowly enough that the states follow. The first harmonic of dE/dtheta over the
    amplitude is the gradient of the loss: exactly where the states answer linearly to forces (linear circuits), up to
    O(amplitude²) elsewhere.

    Parameters
    ----------
    amplitude
        The largest strength of the force.
    points
        Points of a period at which dE/dtheta is read; a multiple of 4.

    References
    ----------
    Anisetti, Kandala, Scellier, Schwarz, Neural Comput. 36, 596 (2024), arXiv 2208.08862.
    """

    amplitude: float = 0.1
    points: int = 8


@dataclass(frozen=True, kw_only=True)
class AgnosticEquilibriumPropagation(SettlingMethod):
    """Agnostic equilibrium propagation: parameters on springs, which relax by themselves when outputs are nudged.

    The energy is E(theta, s) + |u - theta|² / (2 epsilon). The control u is set so that the parameters stay where
    they are in the free phase, and kept while the outputs are nudged: the parameters then relax, together with the
    states, by -epsilon * beta times the gradient of the loss, up to O(epsilon) and O(beta). Nobody has to know E, or
    read its derivatives.

    Parameters
    ----------
    beta
        The strength of nudging.
    epsilon
        The softness of the springs.
    relaxations
        How often the simulation relaxes parameters and states in turn. One is exact as epsilon goes to zero.

    References
    ----------
    Scellier, Mishra, Bengio, Ollivier, "Agnostic physics-driven deep learning", arXiv 2205.15021 (2022).
    """

    beta: float = 0.1
    epsilon: float = 1e-3
    relaxations: int = 2


@dataclass(frozen=True, kw_only=True)
class ContrastiveLearning(SettlingMethod):
    """Contrastive Hebbian learning: outputs clamped to the target, against free. Not the gradient of the loss.

    References
    ----------
    Movellan, Connectionist Models (1991).
    """


@dataclass(frozen=True, kw_only=True)
class CoupledLearning(SettlingMethod):
    """Coupled learning: outputs clamped a fraction of the way to the target, against free.

    Not the gradient of the loss, also for small `eta`: clamping resists through the stiffness of the outputs. With a
    single output it is parallel to the gradient as eta goes to zero.

    Parameters
    ----------
    eta
        The fraction of the way, in (0, 1].
    variant
        ``"positive"``: clamped towards the target against free; ``"negative"``: free against clamped away from it;
        ``"centered"``: one against the other.

    References
    ----------
    Stern et al., Phys. Rev. X 11, 021045 (2021).
    """

    eta: float = 0.1
    variant: Literal["positive", "negative", "centered"] = "positive"


@dataclass(frozen=True, kw_only=True)
class ImplicitDifferentiation(SettlingMethod):
    """The exact gradient of the loss at the free steady state: for audits, and as a baseline in silico."""


@dataclass(frozen=True, kw_only=True)
class RecurrentBackprop(SettlingMethod):
    """Recurrent backpropagation: the adjoint of the steady state relaxes for a number of steps.

    The same as backpropagation through that many synchronous steps of settling at the steady state; tends to
    `ImplicitDifferentiation` as `steps` grows.

    Parameters
    ----------
    steps
        Steps of the adjoint.

    References
    ----------
    Almeida, ICNN (1987); Pineda, Phys. Rev. Lett. 59, 2229 (1987).
    """

    steps: int = 20


@dataclass(frozen=True, kw_only=True)
class Backprop(Method):
    """Backpropagation through a model of the layers: training in silico.

    Parameters
    ----------
    model
        ``"twin"``: signals pass through the twins, and the hardware is never asked. ``"hardware"``: through the
        hardware itself, without its noise: the exact gradient, which only a simulation has; for audits.
    noise
        The standard deviation of noise that is added to the outputs of every layer of the twin.
    vaccination
        By how much, relatively, the twin's constants are off, drawn anew for every batch, so that what is learned does
        not depend on them.
    """

    model: Literal["twin", "hardware"] = "twin"
    noise: float = 0.0
    vaccination: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PhysicsAware(Method):
    """Physics-aware training: forward on the hardware, back through the twins' Jacobians at the measured signals.

    The same as backpropagation where the twin is exact and nothing is noisy.

    References
    ----------
    Wright et al., Nature 601, 549 (2022).
    """


@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment(Method):
    """Feedback alignment: errors come back through matrices other than the transposed weights.

    Parameters
    ----------
    feedback
        ``"random"``: fixed matrices. ``"sign-symmetric"``: the signs of the weights, times their initial deviation.
        ``"kolen-pollack"``: matrices that change as the weights do; both decay, and so meet. That needs `SGD` without
        momentum and with ``weight_decay`` above zero.

    References
    ----------
    Lillicrap et al., Nat. Commun. 7, 13276 (2016); Liao, Leibo, Poggio, AAAI (2016); Akrout et al., NeurIPS (2019).
    """

    feedback: Literal["random", "sign-symmetric", "kolen-pollack"] = "random"


@dataclass(frozen=True, kw_only=True)
class DirectFeedbackAlignment(Method):
    """Direct feedback alignment: the output error goes to every layer through a fixed random matrix of its own.

    Parameters
    ----------
    slope
        How layers that act on each signal by itself answer: ``"twin"`` by the slope of the twin; ``"one"``, ``"box"``
        (one where |z| < 1) or ``"triangle"`` (1 - |z| / 2): augmented direct feedback alignment, which need not know
        the physics.

    References
    ----------
    Nøkland, NeurIPS (2016); Nakajima et al., Nat. Commun. 13, 7847 (2022).
    """

    slope: Literal["twin", "one", "box", "triangle"] = "twin"


@dataclass(frozen=True, kw_only=True)
class ForwardForward(Method):
    """Forward-forward: every layer learns by itself to tell rows with true labels from rows with wrong ones.

    The last `classes` inputs carry the label, one of them at one; what data hold there is overwritten. The goodness of
    a group of layers (a linear map and what follows it) is the sum of squares of its outputs: it rises above the
    threshold for true labels, and falls below it for wrong ones. Put a `layers.Normalize` before the next linear map,
    or it would find the goodness ready-made. Labels are predicted by trying all: `predict` returns the goodness of
    each, summed over groups.

    Parameters
    ----------
    classes
        How many of the last inputs carry the label.
    threshold
        The goodness per output that lies between true and wrong.

    References
    ----------
    Hinton, "The forward-forward algorithm", arXiv 2212.13345 (2022).
    """

    classes: int = 10
    threshold: float = 0.2

    def predict(self, system: "System", x: Any, *, threads: int | None = None) -> FloatArray:
        """Return the goodness (samples, classes) of every label."""
        if not isinstance(system, Stack):
            raise CapabilityError(f"ForwardForward needs a Stack, got {system!r}")
        x = as_inputs(x, system.n_in, system.dtype)
        ends = system.group_ends()
        goodness = np.zeros((len(x), self.classes), system.dtype)
        for label in range(self.classes):
            tried = x.copy()
            tried[:, -self.classes :] = np.eye(self.classes, dtype=system.dtype)[label]
            signals = system.measure(tried, threads=threads)
            goodness[:, label] = sum((signals[end] ** 2).sum(axis=1) for end in ends)
        return goodness

    def score(self, system: "System", x: Any, y: Any, *, threads: int | None = None) -> float:
        """Return the accuracy of the labels of largest goodness."""
        x, y = system.as_batch(x, y)
        return score(self.predict(system, x, threads=threads), y)


@dataclass(frozen=True, kw_only=True)
class PhysicalLocalLearning(Method):
    """Physical local learning: every linear map has a loss of its own, and nothing goes back through the physics.

    The pair-contrastive form: with i and `same` two samples of a class, `other` one of another, and a the outputs of a
    linear map, its loss is softplus(tau [cos(a_i, a_other) - cos(a_i, a_same)]). The last linear map is a readout, and
    learns from the loss of the outputs. Only linear maps learn; the transforms between them may be unknown.

    Parameters
    ----------
    tau
        How steep the comparison is.

    References
    ----------
    Momeni, Rahmani, Malléjac, del Hougne, Fleury, Science 382, 1297 (2023).
    """

    tau: float = 10.0


@dataclass(frozen=True, kw_only=True)
class FiniteDifference(SettlingMethod):
    """Central differences of the loss, one parameter after the other: two passes per parameter, error O(epsilon²).

    Parameters
    ----------
    epsilon
        How far parameters are moved.
    """

    epsilon: float = 1e-2


@dataclass(frozen=True, kw_only=True)
class SPSA(SettlingMethod):
    """Simultaneous perturbation: central differences of the loss along random directions of signs.

    The mean over directions is the gradient; from q directions in D dimensions an estimate has the root-mean-square
    cosine sqrt(q / (q + D - 1)) with it.

    Parameters
    ----------
    epsilon
        How far every parameter is moved.
    directions
        Directions per step, two passes each.

    References
    ----------
    Spall, IEEE Trans. Autom. Control 37, 332 (1992).
    """

    epsilon: float = 1e-2
    directions: int = 1


@dataclass(frozen=True, kw_only=True)
class EvolutionStrategy(SettlingMethod):
    """Evolution strategies: the gradient of the mean loss of Gaussian candidates, tried in pairs to either side.

    Parameters
    ----------
    sigma
        The standard deviation of candidates; with adaptation, at first.
    pairs
        Pairs of candidates per step.
    adaptation
        How fast the deviation of every parameter adapts (PEPG); 0: not at all.

    References
    ----------
    Salimans et al., arXiv 1703.03864 (2017); Sehnke et al., Neural Netw. 23, 551 (2010).
    """

    sigma: float = 0.1
    pairs: int = 16
    adaptation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CoordinateDescent(SettlingMethod):
    """One parameter after the other moves to the bottom of the parabola through three losses.

    Where the parabola has no bottom, it moves by epsilon to the better side; it never moves by more than twice that.
    The optimizer's rates do not matter, except that a rate of zero leaves a parameter where it is.

    Parameters
    ----------
    epsilon
        How far parameters are moved to either side to try.
    coordinates
        Parameters tried per step, two passes each.
    """

    epsilon: float = 0.3
    coordinates: int = 16


@dataclass(frozen=True, kw_only=True)
class CMAES(SettlingMethod):
    """Covariance matrix adaptation: candidates from a normal distribution that learns its mean, width and shape.

    Keeps the covariances of all pairs of parameters: for up to 500 of them. The optimizer's rates do not matter,
    except that a rate of zero leaves a parameter where it is.

    Parameters
    ----------
    sigma
        The standard deviation of candidates at first.
    population
        Candidates per step; None: 4 + 3 ln D.

    References
    ----------
    Hansen, "The CMA evolution strategy: a tutorial", arXiv 1604.00772 (2016).
    """

    sigma: float = 0.3
    population: int | None = None


@dataclass(frozen=True, kw_only=True)
class GeneticAlgorithm(SettlingMethod):
    """A genetic algorithm: the best two survive, the others are mixed and mutated winners of tournaments of three.

    The optimizer's rates do not matter, except that a rate of zero leaves a parameter where it is.

    Parameters
    ----------
    population
        Candidates per step.
    mutation
        The standard deviation of mutations.
    """

    population: int = 32
    mutation: float = 0.05


@dataclass(frozen=True, kw_only=True)
class RidgeReadout(Method):
    """Ridge regression of the last linear layer on what the layers before it put out: reservoir computing.

    Recursive least squares, batch by batch: without forgetting, one epoch is ridge regression on all samples. The
    regression is to the targets, or to one at the label and zero elsewhere. The optimizer's rates do not matter,
    except that a rate of zero leaves a parameter where it is.

    Parameters
    ----------
    regularization
        What is added to the squares of features; the bias has no penalty.
    forgetting
        By what earlier batches are multiplied, in (0, 1].

    References
    ----------
    Lukoševičius and Jaeger, Comput. Sci. Rev. 3, 127 (2009).
    """

    regularization: float = 1e-2
    forgetting: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ParameterShift(Method):
    """Parameter shift: intensities at phases a quarter turn to either side give their exact derivatives.

    For stacks whose only parameters are the phases of a last `layers.Speckle`: each measured intensity is a sinusoidal
    function of each phase. Two passes per phase; the chain rule goes through the loss on the computer.

    References
    ----------
    Mitarai et al., Phys. Rev. A 98, 032309 (2018); Schuld et al., Phys. Rev. A 99, 032331 (2019).
    """


_KINDS: tuple[type[Method], ...] = (
    EquilibriumPropagation,
    FrequencyPropagation,
    AgnosticEquilibriumPropagation,
    ContrastiveLearning,
    CoupledLearning,
    ImplicitDifferentiation,
    RecurrentBackprop,
    Backprop,
    PhysicsAware,
    FeedbackAlignment,
    DirectFeedbackAlignment,
    ForwardForward,
    PhysicalLocalLearning,
    FiniteDifference,
    SPSA,
    EvolutionStrategy,
    CoordinateDescent,
    CMAES,
    GeneticAlgorithm,
    RidgeReadout,
    ParameterShift,
)


def from_config(config: dict[str, Any]) -> Method:
    """Return the method of a `Method.to_config` dictionary."""
    kinds = {kind.__name__: kind for kind in _KINDS}
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in kinds:
        raise ConfigError(f"unknown method {name!r}; known: {', '.join(kinds)}")
    if "settling" in settings:
        settings["settling"] = Settling.from_config(settings["settling"])
    return kinds[name](**settings)
