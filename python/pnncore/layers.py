"""Layers of a `pnncore.systems.Stack`: what signals pass through.

Every layer has a twin, the model with known derivatives. Its hardware may differ: `mismatch` puts its constants off,
relatively, and `noise` is the standard deviation of what each measurement of an output adds. Both are set for the
whole stack, or layer by layer.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from pnncore import devices
from pnncore._config import Config, Registered
from pnncore._convert import FloatArray, as_numbers, as_settings, made, one_of, positive_int, shown
from pnncore.analog import AnalogIO, Wires
from pnncore.devices import Algorithm, Device, PulseTrains, Stored
from pnncore.errors import CapabilityError, ConfigError, ShapeError

__all__ = [
    "AnalogIO",
    "Crossbar",
    "Custom",
    "ElectroOptic",
    "Layer",
    "Linear",
    "Logistic",
    "Normalize",
    "Pendula",
    "Plate",
    "ReLU",
    "SaturableAbsorber",
    "SecondHarmonic",
    "Speckle",
    "Tanh",
    "TransistorCircuit",
    "Wires",
    "from_config",
]


@dataclass(frozen=True, kw_only=True, repr=False)
class Layer(Registered, Config, ABC, family="layer"):
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

    @abstractmethod
    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """Return what the core makes the layer of, given the number of its inputs, and the number of its outputs."""


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
        _fits(self, self.n_in, width)
        return {"kind": "linear", "inputs": self.n_in, "outputs": self.n_out, "bias": self.bias}, self.n_out


@dataclass(frozen=True, repr=False)
class Crossbar(Layer):
    """A linear map that is read from an analog array of conductances; its bias is digital.

    The twin is the linear map itself. `methods.InSituBackprop` sends errors back through the array, by a read of its
    transpose; other methods use the twin.

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs and outputs.
    bias
        Whether a bias is added.
    tile
        The most rows and columns of an array: larger matrices are cut into several, each with converters of its own,
        whose outputs are summed digitally. None: one array.
    io
        How the arrays are read: by default through converters of 7 and 9 bits, and with noise, as `AnalogIO` says;
        `AnalogIO.ideal()` reads the product itself.
    backward
        How its transpose is read; None: as `io` says, each sample scaled by its largest error where inputs have a
        learned range.
    wires
        What is between the cells; None: nothing. Derivatives of the hardware are exact, by a second solve; with
        ``exact=False`` they are of first order, as the read is.
    device
        The cells that weights are stored in, such as `devices.ReRamSB()`, or `devices.Pair` or `devices.MultiCell`
        of them: training then sends pulses to these. None: any weight can be had.
    trains
        How outer products become pulses.
    algorithm
        How wanted changes become pulses: None (as they come), `devices.MixedPrecision` or `devices.TikiTaka`.
    remap
        What shares a digital scale by which weights are brought to -1 to 1 before an array holds them: ``"array"``,
        ``"columns"``, or None: they are held as they are. Noise and bounds are then in units of the largest weight.
    clip
        Within how many of their standard deviations weights are kept by every update; None: they are not. Few large
        weights then do not set the scale of all.

    References
    ----------
    Training for noise with `AnalogIO.weight_noise`, `remap`, `clip` and learned ranges: Rasch et al., Nat. Commun.
    14, 5282 (2023).
    """

    n_in: int
    n_out: int
    bias: bool = True
    tile: tuple[int, int] | None = None
    io: AnalogIO = dataclasses.field(default_factory=AnalogIO)
    backward: AnalogIO | None = None
    wires: Wires | None = None
    device: Stored | None = None
    trains: PulseTrains = dataclasses.field(default_factory=PulseTrains)
    algorithm: Algorithm | None = None
    remap: Literal["array", "columns"] | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        kinds = {"io": (AnalogIO,), "backward": (AnalogIO,), "wires": (Wires,)}
        for name, choices in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, choices) and (value is not None or name == "io"):
                known = " or ".join(f"{kind.__module__.partition('._')[0]}.{kind.__name__}" for kind in choices)
                raise ConfigError(f"{name} must be {known}, got {shown(value)}")
        if self.tile is not None:
            sizes = self.tile if isinstance(self.tile, tuple | list) and len(self.tile) == 2 else None
            if sizes is None:
                raise ConfigError(f"tile must be a pair of numbers of rows and columns, got {shown(self.tile)}")
            object.__setattr__(self, "tile", tuple(positive_int(size, "every size of tile") for size in sizes))
        if self.remap is not None:
            one_of(self.remap, "remap", ("array", "columns"))
        for name in ("remap", "clip"):
            if self.device is not None and getattr(self, name) is not None:
                raise ConfigError(f"cells hold weights as they are: leave {name} out, or device")
        self._tile()

    def _tile(self) -> dict[str, Any] | None:
        return devices.storage(self.device, self.trains, self.algorithm)

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        _fits(self, self.n_in, width)
        hardware = {
            "most": self.tile if self.tile is not None else (self.n_in, self.n_out),
            "io": self.io.spec(),
            "backward": self.backwards().spec(),
            "wires": None if self.wires is None else self.wires.spec(),
            "remap": self.remap,
        }
        own = {"inputs": self.n_in, "outputs": self.n_out, "bias": self.bias, "clip": self.clip}
        return {"kind": "crossbar", **own, "hardware": hardware, "tile": self._tile()}, self.n_out

    def backwards(self) -> AnalogIO:
        """Return how the transpose is read."""
        if self.backward is not None:
            return self.backward
        return dataclasses.replace(self.io, scale=None) if self.io.scale == "learned" else self.io

    def to_config(self) -> dict[str, Any]:
        """Return the layer as plain data, as checkpoints keep it."""
        config = super().to_config()
        for name in ("device", "algorithm"):
            part = getattr(self, name)
            config[name] = None if part is None else part.to_config()
        return config

    @classmethod
    def restore(cls, settings: dict[str, Any]) -> Self:
        """Return what `to_config` told, less the name."""
        settings = dict(settings)
        for name, make in {"io": AnalogIO, "backward": AnalogIO, "wires": Wires, "trains": PulseTrains}.items():
            if settings.get(name) is not None:
                settings[name] = made(make, as_settings(settings[name], name), name)
        for name in ("device", "algorithm"):
            if settings.get(name) is not None:
                settings[name] = devices.from_config(settings[name])
        return super().restore(settings)


class _Pointwise(Layer, listed=False):
    """A function of each signal. Hardware with a mismatch m has f((1 + m) z + m z² / 2) in its place."""

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        if width is None:
            raise ShapeError(f"{self!r} does not say how many inputs it has: begin the stack with a layer that does")
        names = {"ReLU": "relu", "Tanh": "tanh", "Logistic": "logistic"}
        names |= {"SaturableAbsorber": "saturable-absorber", "ElectroOptic": "electro-optic"}
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("noise", "mismatch")}
        return {"kind": "pointwise", "width": width, "function": {"function": names[type(self).__name__], **own}}, width


@dataclass(frozen=True, repr=False)
class ReLU(_Pointwise):
    """max(z, 0)."""


@dataclass(frozen=True, repr=False)
class Tanh(_Pointwise):
    """The hyperbolic tangent."""


@dataclass(frozen=True, repr=False)
class Logistic(_Pointwise):
    """1 / (1 + exp(-z))."""


@dataclass(frozen=True, repr=False)
class Normalize(Layer):
    """Every row scaled to a mean square of one: digital, without a mismatch."""

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        if width is None:
            raise ShapeError(f"{self!r} does not say how many inputs it has: begin the stack with a layer that does")
        return {"kind": "normalise", "width": width}, width


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


@dataclass(frozen=True, repr=False)
class Speckle(Layer):
    """Light through a random scattering medium: intensities |T (x e^{i phase}) + b|².

    T has independent complex normal elements of variance 1 / n_in; the phases, one per input, are parameters. Hardware
    with a mismatch m has T + m T', with T' another such medium.

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs (amplitudes) and outputs (intensities).
    reference
        The mean intensity of a reference beam b, complex normal, too.
    """

    n_in: int
    n_out: int
    reference: float = 0.0

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        _fits(self, self.n_in, width)
        return {"kind": "speckle", "inputs": self.n_in, "outputs": self.n_out, "reference": self.reference}, self.n_out


@dataclass(frozen=True, repr=False)
class SecondHarmonic(Layer):
    """Second-harmonic generation of a shaped pulse: powers |sum over w1 of A(w1) A(2w - w1)|².

    The spectrum A has the n_in inputs, then the n_params parameters ``theta``; there are 2 (n_in + n_params) - 1
    outputs. In hardware with a mismatch, the amplitudes that arrive and the efficiencies of conversion are off.

    References
    ----------
    Wright et al., Nature 601, 549 (2022).
    """

    n_in: int
    n_params: int

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        _fits(self, self.n_in, width)
        spec = {"kind": "second-harmonic", "inputs": self.n_in, "parameters": self.n_params}
        return spec, 2 * (self.n_in + self.n_params) - 1


@dataclass(frozen=True, repr=False)
class Pendula(Layer):
    """Coupled pendula, released at rest from the angles x: q_i'' = -sin q_i + sum_j J_ji (sin q_j - sin q_i) + e_i.

    Outputs are the angles after a time. The couplings ``J`` (from, to) and the torques ``e`` are parameters; in
    hardware with a mismatch, restoring forces and couplings are off.

    Parameters
    ----------
    n
        The number of pendula.
    time
        The time that they swing, in units of one over the angular frequency of small swings.
    steps
        Steps of the fourth-order Runge-Kutta method in that time.

    References
    ----------
    Wright et al., Nature 601, 549 (2022), with this network as an example of mechanics.
    """

    n: int
    time: float = 5.0
    steps: int = 50

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        _fits(self, self.n, width)
        return {"kind": "pendula", "inputs": self.n, "time": self.time, "steps": self.steps}, self.n


@dataclass(frozen=True, repr=False)
class Plate(Layer):
    """A driven oscillating plate: modes q'' + c q' + W² q + a q³ = g u(t), read as a weighted sum of the q.

    The drive u is each input, then each of the n_params parameters ``theta``, for one unit of time each; after each
    the plate is read: there are n_in + n_params outputs. Frequencies W lie between 0.3 and 3 radians per unit of time.

    Parameters
    ----------
    n_in, n_params
        The numbers of inputs and parameters.
    modes
        How many modes.
    damping, cubic
        c, and the hardening a.

    References
    ----------
    Wright et al., Nature 601, 549 (2022).
    """

    n_in: int
    n_params: int
    modes: int = 16
    damping: float = 0.1
    cubic: float = 0.3

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        _fits(self, self.n_in, width)
        own = {"modes": self.modes, "damping": self.damping, "cubic": self.cubic}
        return {"kind": "plate", "inputs": self.n_in, "parameters": self.n_params, **own}, self.n_in + self.n_params


@dataclass(frozen=True, repr=False)
class TransistorCircuit(Layer):
    """An analog circuit: a driven resonator whose voltage a transistor reads and loads.

    The source voltage is each input, then each of the n_params parameters ``theta``, for one unit of time each; after
    each the transistor's current is read: there are n_in + n_params outputs.

    References
    ----------
    After the electronic network of Wright et al., Nature 601, 549 (2022).
    """

    n_in: int
    n_params: int

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        _fits(self, self.n_in, width)
        return {"kind": "transistor", "inputs": self.n_in, "parameters": self.n_params}, self.n_in + self.n_params


@dataclass(frozen=True, repr=False, eq=False)
class Custom(Layer, listed=False):
    """A layer of one's own, from functions of NumPy arrays: a simulation that is its own twin.

    Methods that only need outputs train it as it is; with `vjp` those that send errors back do, too. The functions are
    called with all samples at once, on the calling thread. `pnncore.testing.check_layer` compares the derivatives with
    differences. (A callable with failures and a journal is a `pnncore.systems.Instrument`.)

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs and outputs.
    forward
        ``forward(x, params)`` returns outputs (rows, n_out) for inputs (rows, n_in) and a dict of parameters. Rows do
        not see each other.
    vjp
        ``vjp(x, params, dy)`` returns ``dx`` (rows, n_in) and a dict of gradients, summed over rows.
    jvp
        ``jvp(x, params, dx, along)`` returns the change of the outputs with inputs along ``dx`` and parameters along
        ``along``; `ForwardGradient` asks for it.
    params
        The initial parameters by name.

    Examples
    --------
    >>> import numpy as np
    >>> from pnncore.systems import Stack
    >>> gain = Custom(2, 2, lambda x, params: x * params["gain"], params={"gain": np.array([2.0, 3.0])})
    >>> Stack([gain], dtype="float64", seed=0).predict([[1.0, 1.0]])
    array([[2., 3.]])
    """

    n_in: int
    n_out: int
    forward: Callable[[FloatArray, dict[str, FloatArray]], Any]
    vjp: Callable[[FloatArray, dict[str, FloatArray], FloatArray], tuple[Any, Mapping[str, Any]]] | None = None
    jvp: Callable[[FloatArray, dict[str, FloatArray], FloatArray, dict[str, FloatArray]], Any] | None = None
    params: Mapping[str, npt.ArrayLike] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        for name, function in (("forward", self.forward), ("vjp", self.vjp), ("jvp", self.jvp)):
            if not callable(function) and (function is not None or name == "forward"):
                raise ConfigError(f"{name} must be a function, got {shown(function)}")
        if self.mismatch:
            raise ConfigError("mismatch is for layers whose constants the core knows; a Custom layer has none")
        given = as_settings(self.params, "params").items()
        initial = {name: as_numbers(value, f"params[{name!r}]", refusal=ConfigError) for name, value in given}
        object.__setattr__(self, "initial", initial)
        object.__setattr__(self, "called", _Functions(self, initial))

    def spec(self, width: int | None) -> tuple[dict[str, Any], int]:
        """See `Layer.spec`."""
        _fits(self, self.n_in, width)
        return {"kind": "foreign", "device": Device().to_config()}, self.n_out

    def to_config(self) -> dict[str, Any]:
        """Refuse: what a function does is in no file."""
        raise CapabilityError("a Custom layer cannot be rebuilt from a file; pass system= when loading")

    def __repr__(self) -> str:
        return f"Custom({self.n_in}, {self.n_out})"


class _Functions:
    """What the core asks of a layer that is given by functions, checked before the core sees it."""

    is_exact = True

    def __init__(self, layer: Custom, initial: Mapping[str, FloatArray]) -> None:
        self.layer, self.n_in, self.n_out = layer, layer.n_in, layer.n_out
        self.specs = [(name, list(array.shape)) for name, array in initial.items()]
        # The core takes a layer with a twin for one with derivatives.
        self.twin = layer.vjp

    def model(self, x: FloatArray, params: list[FloatArray]) -> FloatArray:
        """Return the outputs."""
        return _returned("forward", self.layer.forward(x, self._named(params)), (len(x), self.n_out), x)

    def vjp(self, x: FloatArray, params: list[FloatArray], dy: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        """Return errors of the inputs and of the parameters."""
        if self.layer.vjp is None:
            raise CapabilityError("a Custom layer without vjp= has no derivatives")
        dx, found = self.layer.vjp(x, self._named(params), dy)
        if set(found) != {name for name, _ in self.specs}:
            raise ConfigError(f"vjp must return gradients by {[name for name, _ in self.specs]}, got {list(found)}")
        own = [_returned(f"vjp[{name!r}]", found[name], tuple(shape), x) for name, shape in self.specs]
        return _returned("vjp", dx, x.shape, x), own

    def jvp(self, x: FloatArray, params: list[FloatArray], dx: FloatArray, along: list[FloatArray]) -> FloatArray:
        """Return how the outputs change with inputs along `dx` and parameters along `along`."""
        if self.layer.jvp is None:
            raise CapabilityError("a Custom layer without jvp= has no forward derivatives")
        found = self.layer.jvp(x, self._named(params), dx, self._named(along))
        return _returned("jvp", found, (len(x), self.n_out), x)

    def _named(self, params: list[FloatArray]) -> dict[str, FloatArray]:
        return {name: array for (name, _), array in zip(self.specs, params, strict=True)}


def _returned(what: str, value: Any, shape: tuple[int, ...], x: FloatArray) -> FloatArray:
    array = np.asarray(value)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise ConfigError(f"{what} must return real numbers of shape {shape}, got {array.dtype} of {array.shape}")
    return np.ascontiguousarray(array, dtype=x.dtype)


def _fits(layer: Layer, n_in: int, width: int | None) -> None:
    if width not in (None, n_in):
        raise ShapeError(f"{layer!r} takes {n_in} inputs, but the layer before has {width} outputs")


def from_config(config: dict[str, Any]) -> Layer:
    """Return the layer of a `Layer.to_config` dictionary."""
    kind, settings = Layer.chosen(config)
    return kind.restore(settings)
