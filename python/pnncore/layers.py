"""Layers of a `pnncore.systems.Stack`: what signals pass through.

Every layer has a twin, the model with known derivatives. Its hardware may differ: `mismatch` puts its constants off,
relatively, and `noise` is the standard deviation of what each measurement of an output adds. Both are set for the
whole stack, or layer by layer.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pnncore._convert import number, positive_int
from pnncore.errors import ConfigError, ShapeError

__all__ = [
    "ElectroOptic",
    "Layer",
    "Linear",
    "Logistic",
    "Relu",
    "SaturableAbsorber",
    "Tanh",
    "from_config",
]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Base of all layers.

    Parameters
    ----------
    noise
        The standard deviation of what a measurement of an output adds; None: as the stack says.
    mismatch
        By how much, relatively, the constants of the hardware are off from those of the twin; None: as the stack says.
    """

    noise: float | None = None
    mismatch: float | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        for setting in dataclasses.fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if setting.type is int:
                object.__setattr__(self, name, positive_int(value, name))
            if setting.type is float or (setting.type == float | None and value is not None):
                object.__setattr__(self, name, number(value, name))

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """Return what the core makes the layer of, given the number of its inputs, and the number of its outputs."""
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        """Return the layer as plain data, as checkpoints keep it."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Linear(Layer):
    """A linear map y = x W + b: digital, or an ideal crossbar.

    Hardware with a mismatch m multiplies every weight by 1 + m xi, and outputs leak into each other as
    I + (m / 2) xi / sqrt(n_out), with xi standard normal.

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs and outputs.
    bias
        Whether b is there.
    """

    n_in: int
    n_out: int
    bias: bool = True

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        if width not in (None, self.n_in):
            raise ShapeError(f"{self!r} takes {self.n_in} inputs, but the layer before has {width} outputs")
        return {"kind": "linear", "inputs": self.n_in, "outputs": self.n_out, "bias": bool(self.bias)}, self.n_out


class _Pointwise(Layer):
    """A function of each signal. Hardware with a mismatch m has f((1 + m) z + m z² / 2) in its place."""

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        if width is None:
            raise ShapeError(f"{self!r} does not say how many inputs it has: begin the stack with a layer that does")
        names = {"Relu": "relu", "Tanh": "tanh", "Logistic": "logistic"}
        names |= {"SaturableAbsorber": "saturable-absorber", "ElectroOptic": "electro-optic"}
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("noise", "mismatch")}
        return {"kind": "pointwise", "width": width, "function": {"function": names[type(self).__name__], **own}}, width


@dataclass(frozen=True, repr=False)
class Relu(_Pointwise):
    """max(z, 0)."""


@dataclass(frozen=True, repr=False)
class Tanh(_Pointwise):
    """The hyperbolic tangent."""


@dataclass(frozen=True, repr=False)
class Logistic(_Pointwise):
    """1 / (1 + exp(-z))."""


@dataclass(frozen=True, kw_only=True, repr=False)
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


@dataclass(frozen=True, kw_only=True, repr=False)
class ElectroOptic(_Pointwise):
    """An amplitude z of which a tapped part drives its own modulator: sqrt(1 - tap) z cos((gain z² + bias) / 2).

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


def from_config(config: dict[str, Any]) -> Layer:
    """Return the layer of a `Layer.to_config` dictionary."""
    kinds = {kind.__name__: kind for kind in (Linear, Relu, Tanh, Logistic, SaturableAbsorber, ElectroOptic)}
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in kinds:
        raise ConfigError(f"unknown layer {name!r}; known: {', '.join(kinds)}")
    return kinds[name](**settings)
