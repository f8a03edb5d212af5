"""What an epoch of a trainer is made with, and checks of it."""

from dataclasses import dataclass
from typing import Any

from pnncore import methods, optim
from pnncore._convert import FloatArray, instance, shown
from pnncore.callbacks import Callback
from pnncore.errors import ConfigError
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
    order: FloatArray
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
