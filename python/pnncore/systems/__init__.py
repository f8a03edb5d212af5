"""Physical systems."""

from typing import Any

from pnncore.errors import ConfigError
from pnncore.systems._base import Outline as Outline
from pnncore.systems._base import System as System
from pnncore.systems._circuit import Circuit as Circuit
from pnncore.systems._elastic import Elastic as Elastic
from pnncore.systems._energy import EnergySystem as EnergySystem
from pnncore.systems._flow import Flow as Flow
from pnncore.systems._hamiltonian_chain import HamiltonianChain as HamiltonianChain
from pnncore.systems._hopfield import Hopfield as Hopfield
from pnncore.systems._instrument import Instrument as Instrument
from pnncore.systems._resistive import DeepResistive as DeepResistive
from pnncore.systems._stack import Stack as Stack


def from_config(config: dict[str, Any]) -> System:
    """Return the system of a `System.to_config` dictionary; `ConfigError` for anything else."""
    kind, settings = System.chosen(config)
    try:
        return kind.from_config(settings)
    except KeyError as missing:
        raise ConfigError(f"the configuration of a {kind.__name__} misses {missing}") from None


def outline(config: dict[str, Any]) -> Outline:
    """Return how large the system of a `System.to_config` dictionary would be."""
    kind, settings = System.chosen(config)
    try:
        return kind.outline(settings)
    except KeyError as missing:
        raise ConfigError(f"the configuration of a {kind.__name__} misses {missing}") from None
