"""Analog crossbars."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

from pnncore import devices
from pnncore._convert import as_settings, made, positive_int, shown
from pnncore.analog import AnalogIO, Wires
from pnncore.devices import Algorithm, PulseTrains, Stored
from pnncore.errors import ConfigError
from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Crossbar(Layer):
    """A linear map that is read from an analog array of conductances; its bias is digital.

    The twin is the linear map itself. `methods.InSituBackprop` sends errors back through the array,
    by a read of its transpose; other methods use the twin.

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs and outputs.
    bias
        Whether a bias is added.
    tile
        The most rows and columns of an array: larger matrices are cut into several, each with
        converters of its own, whose outputs are summed digitally. None: one array.
    io
        How the arrays are read: by default through converters of 7 and 9 bits, and with noise, as
        `AnalogIO` says; `AnalogIO.ideal()` reads the product itself.
    backward
        How its transpose is read; None: as `io` says, each sample scaled by its largest error where
        inputs have a learned range.
    wires
        What is between the cells; None: nothing. Derivatives of the hardware are exact, by a second
        solve; with ``exact=False`` they are of first order, as the read is.
    device
        The cells that weights are stored in, such as `devices.ReRamSB()`, or `devices.Pair` or
        `devices.MultiCell` of them: training then sends pulses to these. None: any weight can be
        had.
    trains
        How outer products become pulses.
    algorithm
        How wanted changes become pulses: None (as they come), `devices.MixedPrecision` or
        `devices.TikiTaka`.
    remap
        What shares a digital scale by which weights are brought to -1 to 1 before an array holds
        them: ``"array"``, ``"columns"``, or None: they are held as they are. Noise and bounds are
        then in units of the largest weight.
    precision
        ``"int8"``: weights are read as integers of seven bits and a sign, of which the largest is
        the largest weight of an array, and inputs as those that their converters make of them (of 8
        bits or fewer, without `AnalogIO.input_noise`, forward and backward; not with wires).
        Products are then exact, and fast. None: weights are read as they are held.
    clip
        Within how many of their standard deviations weights are kept by every update; None: they
        are not. Few large weights then do not set the scale of all.

    References
    ----------
    Training for noise with `AnalogIO.weight_noise`, `remap`, `clip` and learned ranges: Rasch et
    al., Nat. Commun. 14, 5282 (2023).
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
    precision: Literal["int8"] | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        kinds = {"io": (AnalogIO,), "backward": (AnalogIO,), "wires": (Wires,)}
        for name, choices in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, choices) and (value is not None or name == "io"):
                known = " or ".join(
                    f"{kind.__module__.partition('._')[0]}.{kind.__name__}" for kind in choices
                )
                raise ConfigError(f"{name} must be {known}, got {shown(value)}")
        if self.tile is not None:
            sizes = (
                self.tile if isinstance(self.tile, tuple | list) and len(self.tile) == 2 else None
            )
            if sizes is None:
                raise ConfigError(
                    f"tile must be a pair of numbers of rows and columns, got {shown(self.tile)}"
                )
            object.__setattr__(
                self, "tile", tuple(positive_int(size, "every size of tile") for size in sizes)
            )
        for name in ("remap", "clip"):
            if self.device is not None and getattr(self, name) is not None:
                raise ConfigError(f"cells hold weights as they are: leave {name} out, or device")
        if self.precision is not None:
            self._check_integers()
        self._tile()

    def _check_integers(self) -> None:
        if self.wires is not None:
            raise ConfigError(
                'precision="int8" is of arrays without wires, whose cells do not answer by whole '
                "numbers: leave precision out, or wires"
            )
        for name, io in (("io", self.io), ("backward", self.backwards())):
            bits = io.input_bits
            if bits is None or bits > 8 or io.input_noise > 0:
                raise ConfigError(
                    'precision="int8" needs input converters of 2 to 8 bits and no input_noise: '
                    f"{name} has input_bits={bits}, input_noise={io.input_noise}; give it "
                    "AnalogIO(input_bits=8, ...), or leave precision out"
                )

    def _tile(self) -> dict[str, Any] | None:
        return devices.storage(self.device, self.trains, self.algorithm)

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        hardware = {
            "most": self.tile if self.tile is not None else (self.n_in, self.n_out),
            "io": self.io.spec(),
            "backward": self.backwards().spec(),
            "wires": None if self.wires is None else self.wires.spec(),
            "remap": self.remap,
            "precision": self.precision,
        }
        own = {"inputs": self.n_in, "outputs": self.n_out, "bias": self.bias, "clip": self.clip}
        return {"kind": "crossbar", **own, "hardware": hardware, "tile": self._tile()}

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
        for name, make in {
            "io": AnalogIO,
            "backward": AnalogIO,
            "wires": Wires,
            "trains": PulseTrains,
        }.items():
            if settings.get(name) is not None:
                settings[name] = made(make, as_settings(settings[name], name), name)
        for name in ("device", "algorithm"):
            if settings.get(name) is not None:
                settings[name] = devices.from_config(settings[name])
        return super().restore(settings)
