"""Methods that read steady states.

Equilibrium propagation and its relatives, and exact gradients.
"""

from dataclasses import dataclass
from typing import Literal

from pnncore.errors import ConfigError
from pnncore.methods._base import SettlingMethod


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class EquilibriumPropagation(SettlingMethod):
    """Equilibrium propagation: dE/dtheta at a nudged steady state against the free one.

    Let D(beta) be dE/dtheta at the steady state of E + beta C. As beta goes to zero each variant
    tends to the exact gradient.

    Parameters
    ----------
    beta
        The strength of nudging, in units of the stiffness of the outputs; the radius of the circle
        for ``"holomorphic"``. None: 0.2 for Hopfield networks, whose units have stiffness one;
        elsewhere the strength that displaces outputs by a tenth of their error, measured at the
        first step and kept.
    variant
        ``"centered"``: [D(beta) - D(-beta)] / 2 beta, bias O(beta^2). ``"one-sided"``: [D(beta) -
        D(0)] / beta, bias O(beta). ``"holomorphic"``: the first Fourier coefficient of D over
        `points` points of a circle of radius beta in the complex plane, bias O(beta^points); needs
        smooth units.
    sign
        The sign of beta of the one-sided variant: ``"positive"``, ``"negative"``, or ``"random"``
        for every step.
    points
        Points on the circle of the holomorphic variant.

    References
    ----------
    Scellier and Bengio, Front. Comput. Neurosci. 11, 24 (2017); Laborieux et al., Front. Neurosci.
    15, 633674 (2021); Laborieux and Zenke, NeurIPS (2022).
    """

    beta: float | None = None
    variant: Literal["centered", "one-sided", "holomorphic"] = "centered"
    sign: Literal["positive", "negative", "random"] = "positive"
    points: int = 8

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        if self.variant != "holomorphic" and self.points != 8:
            raise ConfigError('points applies to variant="holomorphic" only')


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FrequencyPropagation(SettlingMethod):
    """Frequency propagation: the error is a slow tone, and what swings with it the update.

    What swings is part of dE/dtheta.

    A constant force, minus the gradient of the loss at the free outputs, pulls at the outputs with
    a strength that swings as amplitude * sin(phi), slowly enough that the states follow. The first
    harmonic of dE/dtheta over the amplitude is the gradient of the loss: exactly where the states
    answer linearly to forces (linear circuits), up to O(amplitude²) elsewhere.

    Parameters
    ----------
    amplitude
        The largest strength of the force, in units of the stiffness of the outputs. None: 0.1 for
        Hopfield networks, elsewhere found as the beta of `EquilibriumPropagation` is.
    points
        Points of a period at which dE/dtheta is read; a multiple of 4.

    References
    ----------
    Anisetti, Kandala, Scellier, Schwarz, Neural Comput. 36, 596 (2024), arXiv 2208.08862.
    """

    amplitude: float | None = None
    points: int = 8


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AgnosticEquilibriumPropagation(SettlingMethod):
    """Agnostic equilibrium propagation: parameters on springs relax by themselves.

    They do when outputs are nudged.

    The energy is E(theta, s) + |u - theta|² / (2 softness). The control u is set so that the
    parameters stay where they are in the free phase, and kept while the outputs are nudged: the
    parameters then relax, together with the states, by -softness * beta times the gradient of the
    loss, up to O(softness) and O(beta). Nobody has to know E, or read its derivatives.

    Parameters
    ----------
    beta
        The strength of nudging, in units of the stiffness of the outputs. None: 0.1 for Hopfield
        networks, elsewhere found as the beta of `EquilibriumPropagation` is.
    softness
        The softness of the springs. None: such that none gives way by more than a thousandth of the
        largest parameter of its kind.
    relaxations
        How often the simulation relaxes parameters and states in turn. One is exact as softness
        goes to zero.

    References
    ----------
    Scellier, Mishra, Bengio, Ollivier, "Agnostic physics-driven deep learning", arXiv 2205.15021
    (2022).
    """

    beta: float | None = None
    softness: float | None = None
    relaxations: int = 2


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ContrastiveLearning(SettlingMethod):
    """Contrastive Hebbian learning: outputs clamped to the target, against free.

    Not the gradient of the loss.

    References
    ----------
    Movellan, Connectionist Models (1991).
    """


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CoupledLearning(SettlingMethod):
    """Coupled learning: outputs clamped a fraction of the way to the target, against free.

    Not the gradient of the loss, also for small `eta`: clamping resists through the stiffness of
    the outputs. With a single output it is parallel to the gradient as eta goes to zero.

    Parameters
    ----------
    eta
        The fraction of the way, in (0, 1].
    variant
        ``"positive"``: clamped towards the target against free; ``"negative"``: free against
        clamped away from it; ``"centered"``: one against the other.

    References
    ----------
    Stern et al., Phys. Rev. X 11, 021045 (2021).
    """

    eta: float = 0.1
    variant: Literal["positive", "negative", "centered"] = "positive"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ImplicitDifferentiation(SettlingMethod):
    """The exact gradient of the loss at the free steady state.

    For audits, and as a baseline in silico.
    """


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RecurrentBackprop(SettlingMethod):
    """Recurrent backpropagation: the adjoint of the steady state relaxes for a number of steps.

    The same as backpropagation through that many synchronous steps of settling at the steady state;
    tends to `ImplicitDifferentiation` as `steps` grows.

    Parameters
    ----------
    steps
        Steps of the adjoint.

    References
    ----------
    Almeida, ICNN (1987); Pineda, Phys. Rev. Lett. 59, 2229 (1987).
    """

    steps: int = 20
