"""What configurations of devices have in common."""

from typing import Any

from pnncore._config import Config, Registered


class DeviceConfig(Registered, Config, family="device"):
    """Base of cells, of what makes a weight of several, and of the algorithms that write them."""


def from_config(config: dict[str, Any]) -> Any:
    """Return the cells or the algorithm of a `to_config` dictionary."""
    kind, settings = DeviceConfig.chosen(config)
    return kind.restore(settings)
