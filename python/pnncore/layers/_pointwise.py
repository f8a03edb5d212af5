"""Functions of each signal by itself: digital activations, and those of optics."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


class _Pointwise(Layer, listed=False):
    """A function of each signal.

    Hardware with a mismatch m has f((1 + m) z + m z² / 2) in its place.
    """

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        names = {"ReLU": "relu", "Tanh": "tanh", "Logistic": "logistic"}
        names |= {"SaturableAbsorber": "saturable-absorber", "ElectroOptic": "electro-optic"}
        own = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("noise", "mismatch")
        }
        return {"kind": "pointwise", "function": {"function": names[type(self).__name__], **own}}


@dataclass(frozen=True, repr=False, eq=False)
class ReLU(_Pointwise):
    """max(z, 0)."""


@dataclass(frozen=True, repr=False, eq=False)
class Tanh(_Pointwise):
    """The hyperbolic tangent."""


@dataclass(frozen=True, repr=False, eq=False)
class Logistic(_Pointwise):
    """1 / (1 + exp(-z))."""


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SaturableAbsorber(_Pointwise):
    """An amplitude z after a saturable absorber: z exp(-(depth / 2) / (1 + z² / saturation)).

    Parameters
    ----------
    depth
        The optical depth at low intensity.
    saturation
        The intensity at which it is halved.
    """

    depth: float = 2.0
    saturation: float = 1.0


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ElectroOptic(_Pointwise):
    """An amplitude z of which a tapped part drives its own modulator.

    The output is sqrt(1 - tap) z cos((gain z² + bias) / 2).

    Parameters
    ----------
    gain
        The phase per intensity, in radians.
    bias
        The phase at rest, in radians.
    tap
        The fraction of power that is tapped off.

    References
    ----------
    Williamson et al., IEEE J. Sel. Top. Quantum Electron. 26, 7700412 (2020).
    """

    gain: float = 1.0
    bias: float = 3.141592653589793
    tap: float = 0.1
