"""What an epoch of a trainer is made with, and checks of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore import _core, methods, optim
from pnncore._convert import FloatArray, as_numbers, instance, shown
from pnncore.callbacks import Callback
from pnncore.errors import ConfigError, DataError, ShapeError
from pnncore.systems import System


@dataclass(frozen=True)
class Epoch:
    """What an epoch is made with: what a callback sets meanwhile holds from the next one on."""

    x: FloatArray
    y: FloatArray
    validation: tuple[FloatArray, FloatArray] | None
    system: System
    method: methods.Method
    # What the core makes its steps of.
    steps_of: Any
    order: npt.NDArray[np.uint64]
    rates: list[float]
    optimizer: str
    batch_size: int
    seed: int
    threads: int | None
    # Whether the core is left after every step: an instrument may fail in one, which is then made
    # again.
    single: bool
    # Epochs of the fit that are done.
    done: int

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return -(-len(self.x) // self.batch_size)


def as_sample_weight(weights: Any, samples: int) -> npt.NDArray[np.float64] | None:
    """Return weights of samples; `DataError` for what cannot be how often they are drawn."""
    if weights is None:
        return None
    found = as_numbers(weights, "sample_weight", np.float64)
    if found.shape != (samples,):
        raise ShapeError(f"sample_weight must have shape ({samples},), got {found.shape}")
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise DataError("sample_weight must be finite, at least 0, and not all zero")
    return found


def order_of(
    samples: int, weights: npt.NDArray[np.float64] | None, seed: int, epoch: int
) -> npt.NDArray[np.uint64]:
    """Return the samples of an epoch in the order of its steps.

    With weights every sample comes as often as n times its share of them says, rounded up or down
    at random (systematic resampling; Kitagawa, J. Comput. Graph. Stat. 5, 1 (1996)): the loss is
    the weighted mean on average over epochs. Equal weights change nothing.
    """
    order = _core.permutation(samples, seed, epoch)
    if weights is None:
        return order
    offset = np.random.Generator(np.random.Philox(key=[seed, epoch])).random()
    sums = np.cumsum(weights / weights.mean())
    drawn = np.searchsorted(sums, np.arange(samples) + offset, side="right")
    # Rounding may leave the last place beyond the last sum.
    last = np.flatnonzero(weights)[-1]
    return np.asarray(np.minimum(drawn, last).astype(np.uint64)[order])


def check_kinds(system: Any, method: Any, optimizer: Any) -> None:
    """Refuse what is no system, method or optimizer of pnncore."""
    for value, kind, name in (
        (system, System, "system"),
        (method, methods.Method, "method"),
        (optimizer, optim.Optimizer, "optimizer"),
    ):
        instance(value, kind, name, f"a pnncore {kind.__name__}")


def as_callbacks(callbacks: Any) -> list[Callback]:
    """Return callbacks as a list; `ConfigError` for anything else."""
    if not isinstance(callbacks, list | tuple):
        raise ConfigError(
            f"callbacks must be a list of pnncore.Callback objects, got {shown(callbacks)}"
        )
    if any(not isinstance(callback, Callback) for callback in callbacks):
        raise ConfigError(f"callbacks must be pnncore.Callback objects, got {shown(callbacks)}")
    return list(callbacks)
