"""What is done with an instrument, and what is not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pnncore._convert import FloatArray, number, positive_int
from pnncore.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much an instrument may be used: no attempt is begun beyond.

    Parameters
    ----------
    shots
        Attempts, calls of the callable; those in its journal count, too.
    hours
        Hours spent in them.
    """

    shots: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        if self.shots is None and self.hours is None:
            raise ConfigError("give shots, hours, or both")
        if self.shots is not None:
            object.__setattr__(self, "shots", positive_int(self.shots, "shots"))
        if self.hours is not None:
            object.__setattr__(self, "hours", number(self.hours, "hours", positive=True))

    def is_spent(self, shots: int, nanoseconds: int) -> bool:
        """Whether no more may be begun after so many attempts and so much time."""
        spent = self.hours is not None and nanoseconds >= self.hours * 3.6e12
        return spent or (self.shots is not None and shots >= self.shots)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A shot that is made again and again, to see whether the instrument drifts.

    The drift is the root-mean-square change of its answer, over the root mean square of the first
    one.

    Parameters
    ----------
    x
        Its inputs (n_in,), or (rows, n_in) for an instrument that takes batches.
    params
        Its parameters by name.
    every
        So many shots of the run lie between two of them.
    tolerance
        The drift beyond which something is done.
    recalibrate
        Called with the drift: it sets the instrument right. Not while a run is answered from its
        journal: it was called then.
    refit
        Called with the drift, and also while a run is answered from its journal: it fits the twin
        anew. After either of both the next reference shot is the first again; without both, a
        `DriftWarning` is given.
    """

    x: Any
    params: Mapping[str, Any] = field(default_factory=dict)
    every: int = 100
    tolerance: float = 0.05
    recalibrate: Callable[[float], Any] | None = None
    refit: Callable[[float], Any] | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        object.__setattr__(self, "every", positive_int(self.every, "every"))
        object.__setattr__(self, "tolerance", number(self.tolerance, "tolerance", positive=True))
        for name in ("recalibrate", "refit"):
            if (hook := getattr(self, name)) is not None and not callable(hook):
                raise ConfigError(f"{name} must be callable, got {hook!r}")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The settings of an instrument that its driver follows."""

    batch: bool
    retries: int
    backoff: float
    idempotent: bool
    output_range: tuple[float, float] | None
    echo: Callable[[FloatArray], Any] | None
    safe_state: Callable[[], Any] | None
    safe_seconds: float
    reconnect: Callable[[], Any] | None
    budget: Budget | None
    durability: Literal["group", "shot", "none"]
    reference: Reference | None

    def to_config(self) -> dict[str, Any]:
        """Return what a journal says of it."""
        return {
            "retries": self.retries,
            "idempotent": self.idempotent,
            "durability": self.durability,
            "output_range": self.output_range,
            "reference": None if self.reference is None else np.shape(self.reference.x),
        }
