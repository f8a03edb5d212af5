"""Physical systems."""

from typing import Any

from pnncore.errors import ConfigError
from pnncore.systems._base import System as System
from pnncore.systems._circuit import Circuit as Circuit
from pnncore.systems._elastic import Elastic as Elastic
from pnncore.systems._energy import EnergySystem as EnergySystem
from pnncore.systems._flow import Flow as Flow
from pnncore.systems._hopfield import Hopfield as Hopfield
from pnncore.systems._instrument import Instrument as Instrument
from pnncore.systems._resistive import DeepResistive as DeepResistive
from pnncore.systems._stack import Stack as Stack


def from_config(config: dict[str, Any]) -> System:
    """Return the system of a `System.to_config` dictionary."""
    kinds = (Hopfield, DeepResistive, Circuit, Flow, Elastic, Stack)
    settings = dict(config)
    name = settings.pop("name", None)
    for kind in kinds:
        if kind.__name__ == name:
            return kind.from_config(settings)
    raise ConfigError(f"unknown system {name!r}; known: {', '.join(kind.__name__ for kind in kinds)}")
