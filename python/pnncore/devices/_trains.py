"""Trains of pulses."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from pnncore._config import Config
from pnncore.errors import ConfigError


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PulseTrains(Config):
    """How an outer product of inputs x and errors d becomes pulses.

    Every row and column of the array sends a train of pulses with the probabilities A |x| and B |d|
    per slot; a cell moves where both have one. With A B = rate / (Δ slots) its mean change is -rate
    x d, as long as no probability is above one and no bound near.

    Parameters
    ----------
    kind
        ``"stochastic"``; ``"deterministic"`` (trains without chance: coincidences are the product,
        rounded), or ``"mean-count"`` (each cell gets the mean number of pulses, rounded at random,
        for itself).
    slots
        The most slots of a train: 1 to 31.
    manage_length
        Whether trains have just as many slots as the largest product needs, sample by sample.
    balance
        Whether A and B are such that the largest input and the largest error have the same
        probability.
    at_once
        Whether pulses of a sample to a cell are summed at once, where steps are linear in the state
        and no bound is near: mean and variance are the same, and it is several times faster.

    References
    ----------
    Gokmen, Vlasov, Front. Neurosci. 10, 333 (2016); Gokmen, Onen, Haensch, Front. Neurosci. 11, 538
    (2017).
    """

    kind: Literal["stochastic", "deterministic", "mean-count"] = "stochastic"
    slots: int = 31
    manage_length: bool = True
    balance: bool = True
    at_once: bool = True

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        if self.slots > 31:
            raise ConfigError(f"slots must be 1 to 31, got {self.slots}")

    def spec(self) -> dict[str, Any]:
        """Return the settings as the core reads them."""
        return dataclasses.asdict(self)
