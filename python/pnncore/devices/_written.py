"""Devices: what the material does with a wanted change of a parameter."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

from pnncore import _core
from pnncore._convert import as_settings, integer, made, number, positive_int

__all__ = ["Device"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """The elements that a parameter is stored in: conductances, say.

    A write brings an element to the wanted value, as near as the device can: within its range, on
    one of its levels, with noise. Defective elements stay at an end of the range. Every step of
    training writes every element once.

    Parameters
    ----------
    lower, upper
        The smallest and the largest value; None: there is none.
    levels
        How many values there are, evenly spaced from the smallest to the largest; None: a
        continuum. Wanted values are rounded at random to one of the two next to them, so that the
        mean is the wanted value.
    write_noise
        The standard deviation of what a write adds to the wanted value, in units of the value.
    open, shorted
        The fractions of elements that are stuck at the smallest and at the largest value.
    seed
        Which elements are defective, and what noise and rounding draw.

    Examples
    --------
    >>> Device(lower=0.0, upper=1.0, levels=32, open=0.01)
    Device(lower=0.0, upper=1.0, levels=32, write_noise=0.0, open=0.01, shorted=0.0, seed=0)
    """

    lower: float | None = None
    upper: float | None = None
    levels: int | None = None
    write_noise: float = 0.0
    open: float = 0.0
    shorted: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        for name in ("lower", "upper", "write_noise", "open", "shorted"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, number(value, name))
        if self.levels is not None:
            object.__setattr__(self, "levels", positive_int(self.levels, "levels"))
        object.__setattr__(
            self, "seed", integer(self.seed, "seed", 0, 2**64, "an integer in 0..2**64")
        )
        _core.check_device(self.to_json())

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, as the core reads them and checkpoints keep them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the device of a `to_config` dictionary; `ConfigError` for anything else."""
        return made(cls, as_settings(config, "a device"), "device")

    def to_json(self) -> str:
        """Return `to_config` as JSON text."""
        return json.dumps(self.to_config())
