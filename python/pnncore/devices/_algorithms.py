"""How wanted changes become pulses."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

from pnncore._convert import as_settings, made, shown
from pnncore.analog import AnalogIO
from pnncore.devices import _cells
from pnncore.devices._config import DeviceConfig, from_config
from pnncore.errors import ConfigError


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Algorithm(DeviceConfig, listed=False):
    """Base of algorithms."""

    def spec(self) -> dict[str, Any]:
        """Return the settings as the core reads them."""
        raise TypeError("use a concrete algorithm, such as MixedPrecision or TikiTaka")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class MixedPrecision(Algorithm):
    """Changes are summed digitally, and a cell gets a pulse for every whole step of its sum.

    Parameters
    ----------
    threshold
        How many steps of the device make one of the sum: above 1 weights change by so much less
        than the rate says.

    References
    ----------
    Le Gallo et al., Nat. Electron. 1, 246 (2018); Nandakumar et al., Front. Neurosci. 14, 406
    (2020).
    """

    threshold: float = 1.0

    def spec(self) -> dict[str, Any]:
        """See `Algorithm.spec`."""
        return {"algorithm": "mixed-precision", "threshold": self.threshold}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TikiTaka(Algorithm):
    """Changes go to a fast array, which is read by lines and transferred to the one that computes.

    Up and down steps of real cells differ, which pulls a cell under random changes to where they do
    not. Here that only offsets the fast array; and versions differ in what they make of such
    offsets.

    Parameters
    ----------
    version
        ``"v1"``: what was read of a line changes the slow array. ``"v2"``: it is summed digitally,
        and the slow array gets a pulse for every whole step of the sum. ``"chopped"``: the same,
        and lines go to the fast array with alternating signs. ``"agad"``: the same, and what was
        read at the end of the last period is subtracted.
    fast
        The cells of the fast array; None: those of the slow one.
    fast_rate
        The rate at which changes go to it; None: that of the optimizer.
    rate
        By how much the slow array (or the sum) changes per unit that is read.
    every
        Samples per transfer of a line.
    threshold
        How many steps of the slow array make one of the sum.
    momentum
        What is left of the part of the sum that became pulses.
    period
        Transfers of a line between two changes of its sign.
    io
        How lines of the fast array are read, each once: bound management does not repeat what is
        clipped.

    References
    ----------
    Gokmen, Haensch, Front. Neurosci. 14, 103 (2020); Gokmen, Front. Artif. Intell. 4, 699148
    (2021); Rasch et al., Nat. Commun. 15, 7133 (2024).
    """

    version: Literal["v1", "v2", "chopped", "agad"] = "v2"
    fast: _cells.Cells | None = None
    fast_rate: float | None = None
    rate: float = 0.1
    every: float = 1.0
    threshold: float = 1.0
    momentum: float = 0.0
    period: int = 50
    io: AnalogIO = dataclasses.field(default_factory=AnalogIO.ideal)

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting; ranges are checked by the core."""
        super().__post_init__()
        for name, kind, empty in (("fast", _cells.Cells, True), ("io", AnalogIO, False)):
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or not empty):
                raise ConfigError(f"{name} must be {kind.__name__}, got {shown(value)}")

    def spec(self) -> dict[str, Any]:
        """See `Algorithm.spec`."""
        names = ("version", "fast_rate", "rate", "every", "threshold", "momentum", "period")
        own = {name: getattr(self, name) for name in names}
        fast = None if self.fast is None else self.fast.spec()
        return {"algorithm": "transfer", **own, "fast": fast, "io": self.io.spec()}

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, as checkpoints keep them."""
        return {**super().to_config(), "fast": None if self.fast is None else self.fast.to_config()}

    @classmethod
    def restore(cls, settings: dict[str, Any]) -> Self:
        """Return what `to_config` told, less the name."""
        settings = dict(settings)
        if settings.get("fast") is not None:
            settings["fast"] = from_config(settings["fast"])
        if "io" in settings:
            settings["io"] = made(AnalogIO, as_settings(settings["io"], "io"), "io")
        return super().restore(settings)
