"""Physical systems."""

from typing import Any

from pnncore.devices import Device
from pnncore.errors import ConfigError
from pnncore.systems._base import System as System
from pnncore.systems._energy import EnergySystem as EnergySystem
from pnncore.systems._hopfield import Hopfield as Hopfield
from pnncore.systems._resistive import DeepResistive as DeepResistive


def from_config(config: dict[str, Any]) -> System:
    """Return the system of a `System.to_config` dictionary."""
    kinds = {kind.__name__: kind for kind in (Hopfield, DeepResistive)}
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in kinds:
        raise ConfigError(f"unknown system {name!r}; known: {', '.join(kinds)}")
    if "device" in settings:
        settings["device"] = Device(**settings["device"])
    return kinds[name](settings.pop("layers"), **settings)
