"""Optimizers and schedules: how a gradient becomes a change of parameters."""

import inspect
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pnncore import _core
from pnncore._config import Registered
from pnncore._convert import as_settings, made, number, positive_int, shown
from pnncore.errors import ConfigError

__all__ = [
    "SGD",
    "Adam",
    "CosineDecay",
    "ExponentialDecay",
    "Optimizer",
    "Schedule",
    "StepDecay",
    "from_config",
]

Rate = float | Sequence[float] | Mapping[str, float]


@runtime_checkable
class Schedule(Protocol):
    """A factor on all rates, by epoch (0 is the first)."""

    def factor(self, epoch: int) -> float:
        """Return the factor of an epoch."""
        ...


def _check_factor(value: float, name: str) -> None:
    if number(value, name) < 0:
        raise ConfigError(f"{name} must be at least 0, got {shown(value)}")


def _check_decay(gamma: float) -> None:
    _check_factor(gamma, "gamma")
    if gamma > 1:
        raise ConfigError(f"gamma must be at most 1, for rates to decay, got {shown(gamma)}")


@dataclass(frozen=True)
class ExponentialDecay:
    """Rates times ``gamma ** epoch``."""

    gamma: float

    def __post_init__(self) -> None:
        """Validate at once."""
        _check_decay(self.gamma)

    def factor(self, epoch: int) -> float:
        """Return the factor of an epoch."""
        return float(self.gamma**epoch)


@dataclass(frozen=True)
class StepDecay:
    """Rates times `gamma` after every `every` epochs."""

    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Validate at once."""
        positive_int(self.every, "every")
        _check_decay(self.gamma)

    def factor(self, epoch: int) -> float:
        """Return the factor of an epoch."""
        return float(self.gamma ** (epoch // self.every))


@dataclass(frozen=True)
class CosineDecay:
    """Rates fall along half a cosine, from 1 to `floor` after `epochs` epochs."""

    epochs: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Validate at once."""
        positive_int(self.epochs, "epochs")
        _check_factor(self.floor, "floor")

    def factor(self, epoch: int) -> float:
        """Return the factor of an epoch."""
        done = min(epoch / self.epochs, 1.0)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


_SCHEDULES: dict[str, type] = {
    kind.__name__: kind for kind in (ExponentialDecay, StepDecay, CosineDecay)
}


class Optimizer(Registered, family="optimizer"):
    """Base of optimizers: rates and their schedule.

    Parameters
    ----------
    learning_rate
        One learning rate; or one per layer (a sequence: the first for ``W1`` and ``b1``, ...); or
        one per parameter (a mapping from names; those left out do not change).
    schedule
        A `Schedule`: a factor on all rates, by epoch.
    """

    def __init__(self, learning_rate: Rate, *, schedule: Schedule | None = None) -> None:
        values: list[float]
        if isinstance(learning_rate, Mapping):
            self.learning_rate: Rate = {
                str(name): number(value, f"learning rate of {name}")
                for name, value in learning_rate.items()
            }
            values = list(self.learning_rate.values())
        elif isinstance(learning_rate, Sequence) and not isinstance(learning_rate, str):
            self.learning_rate = [number(value, "every learning rate") for value in learning_rate]
            values = self.learning_rate
        elif isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool):
            self.learning_rate = number(learning_rate, "learning_rate")
            values = [self.learning_rate]
        else:
            raise ConfigError(
                "learning_rate must be a number, a sequence per layer or a mapping by parameter, "
                f"got {shown(learning_rate)}"
            )
        if not values or min(values) < 0:
            raise ConfigError(
                f"learning rates must be finite and at least 0, got {shown(learning_rate)}"
            )
        if schedule is not None and not isinstance(schedule, Schedule):
            raise ConfigError(f"schedule needs a method factor(epoch), got {shown(schedule)}")
        self.schedule = schedule
        _core.check_optimizer(json.dumps(self.settings()))

    def settings(self) -> dict[str, Any]:
        """Return what the core reads: the name and the settings that do not depend on the epoch."""
        raise TypeError("use a concrete optimizer, such as SGD or Adam")

    def rates(self, names: Sequence[str], epoch: int) -> list[float]:
        """Return the rate of every parameter in an epoch.

        `ConfigError` if the rates do not fit the parameters.
        """
        factor = self.schedule.factor(epoch) if self.schedule is not None else 1.0
        if not (math.isfinite(factor) and factor >= 0):
            raise ConfigError(f"the schedule gave a factor of {factor} for epoch {epoch}")
        if isinstance(self.learning_rate, Mapping):
            unknown = sorted(set(self.learning_rate) - set(names))
            if unknown:
                raise ConfigError(
                    f"rates for unknown parameters {unknown}; the system has {list(names)}"
                )
            return [self.learning_rate.get(name, 0.0) * factor for name in names]
        if isinstance(self.learning_rate, Sequence):
            layers = {name: int(name[1:]) for name in names if name[1:].isdigit()}
            if len(layers) != len(names) or len(self.learning_rate) != max(layers.values()):
                raise ConfigError(
                    f"{len(self.learning_rate)} rates by layer do not fit the parameters "
                    f"{list(names)}; "
                    "give one rate per layer, or a mapping by parameter"
                )
            return [self.learning_rate[layers[name] - 1] * factor for name in names]
        return [self.learning_rate * factor for _ in names]

    def to_config(self) -> dict[str, Any]:
        """Return the configuration as plain data, as checkpoints keep it."""
        schedule: dict[str, Any] | None = None
        if self.schedule is not None:
            kind = type(self.schedule).__name__
            schedule = {"name": kind, **(vars(self.schedule) if kind in _SCHEDULES else {})}
        return {**self.settings(), "learning_rate": self.learning_rate, "schedule": schedule}

    def __repr__(self) -> str:
        parts = [
            f"{'' if name == 'learning_rate' else f'{name}='}{getattr(self, name)!r}"
            for name, setting in inspect.signature(type(self)).parameters.items()
            if getattr(self, name) != setting.default
        ]
        return f"{type(self).__name__}({', '.join(parts)})"


class SGD(Optimizer):
    """Stochastic gradient descent.

    v <- momentum v + g + weight_decay theta, then theta <- theta - rate v.

    Without momentum the gradient stays factored and goes into the parameters in one product.

    Parameters
    ----------
    learning_rate, schedule
        See `Optimizer`.
    momentum
        The fraction of the velocity that is kept, in [0, 1).
    weight_decay
        The pull of all parameters towards zero.
    """

    def __init__(
        self,
        learning_rate: Rate,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        self.momentum = number(momentum, "momentum")
        self.weight_decay = number(weight_decay, "weight_decay")
        super().__init__(learning_rate, schedule=schedule)

    def settings(self) -> dict[str, Any]:
        """Return what the core reads."""
        return {"name": "SGD", "momentum": self.momentum, "weight_decay": self.weight_decay}


class Adam(Optimizer):
    """Adam, with decoupled weight decay.

    Parameters
    ----------
    learning_rate, schedule
        See `Optimizer`.
    betas
        The decays of the mean of gradients and of squared gradients, in [0, 1).
    epsilon
        What keeps the denominator from zero.
    weight_decay
        The pull of all parameters towards zero, not scaled by the moments.

    References
    ----------
    Kingma and Ba, ICLR (2015); Loshchilov and Hutter, ICLR (2019).
    """

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        if not isinstance(betas, list | tuple) or len(betas) != 2:
            raise ConfigError(f"betas must be a pair of numbers, got {shown(betas)}")
        self.betas = (number(betas[0], "beta1"), number(betas[1], "beta2"))
        self.epsilon = number(epsilon, "epsilon")
        self.weight_decay = number(weight_decay, "weight_decay")
        super().__init__(learning_rate, schedule=schedule)

    def settings(self) -> dict[str, Any]:
        """Return what the core reads."""
        beta1, beta2 = self.betas
        return {
            "name": "Adam",
            "beta1": beta1,
            "beta2": beta2,
            "epsilon": self.epsilon,
            "weight_decay": self.weight_decay,
        }


def from_config(config: dict[str, Any]) -> Optimizer:
    """Return the optimizer of an `Optimizer.to_config` dictionary.

    A schedule of the user's own cannot be restored.
    """
    kind, settings = Optimizer.chosen(config)
    if settings.get("schedule") is not None:
        settings["schedule"] = _schedule(settings["schedule"])
    if kind is Adam and {"beta1", "beta2"} <= set(settings):
        settings["betas"] = (settings.pop("beta1"), settings.pop("beta2"))
    return made(kind, settings, kind.__name__)


def _schedule(config: Any) -> Schedule:
    arguments = as_settings(config, "a schedule")
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in _SCHEDULES:
        raise ConfigError(
            f"schedule {shown(name)} is not part of pnncore; pass the optimizer when loading"
        )
    schedule: Schedule = made(_SCHEDULES[name], arguments, name)
    return schedule
