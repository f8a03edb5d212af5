"""The base of layers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from pnncore._config import Config, Registered


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Layer(Registered, Config, ABC, family="layer"):
    """Base of all layers.

    Parameters
    ----------
    noise
        The standard deviation of what a measurement of an output adds; None: as the stack says.
    mismatch
        By how much, relatively, the constants of the hardware are off from those of the twin; None:
        as the stack says.
    """

    noise: float | None = None
    mismatch: float | None = None

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Return what the core makes the layer of."""
