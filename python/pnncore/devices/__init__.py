"""Devices: what the material does with a wanted change of a parameter.

A `Device` is written: every element is brought to the wanted value, as near as it can. `Cells` are moved by pulses,
each in its own way; an `Algorithm` says which pulses come.
"""

from typing import Any

from pnncore.devices._algorithms import Algorithm, MixedPrecision, TikiTaka
from pnncore.devices._cells import Cells, ConstantStep, ExpStep, LinearStep, Pair, PowerStep, SoftBounds, TableStep
from pnncore.devices._presets import PCM, PRESETS, Capacitor, EcRam, EcRamMO, GokmenVlasov, Idealized, ReRamES, ReRamSB
from pnncore.devices._trains import Trains
from pnncore.devices._written import Device
from pnncore.errors import ConfigError

__all__ = [
    "PCM",
    "PRESETS",
    "Algorithm",
    "Capacitor",
    "Cells",
    "ConstantStep",
    "Device",
    "EcRam",
    "EcRamMO",
    "ExpStep",
    "GokmenVlasov",
    "Idealized",
    "LinearStep",
    "MixedPrecision",
    "Pair",
    "PowerStep",
    "ReRamES",
    "ReRamSB",
    "SoftBounds",
    "TableStep",
    "TikiTaka",
    "Trains",
    "from_config",
]


def from_config(config: dict[str, Any]) -> Any:
    """Return the cells or the algorithm of a `to_config` dictionary."""
    kinds = (ConstantStep, LinearStep, SoftBounds, ExpStep, PowerStep, TableStep, MixedPrecision, TikiTaka, Pair)
    by_name = {kind.__name__: kind for kind in kinds}
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in by_name:
        raise ConfigError(f"unknown device {name!r}; known: {', '.join(by_name)}")
    return by_name[name].restore(settings)
