"""Cells that pulses move."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_list, as_numbers, made, number, positive_int, shown
from pnncore.devices._config import DeviceConfig, from_config
from pnncore.devices._response import PulseResponse
from pnncore.errors import ConfigError


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Cells(DeviceConfig, PulseResponse, listed=False):
    """Base of cells: a weight w between two bounds, which every pulse moves by a step up or down.

    Constants with a spread differ from cell to cell: they are times 1 + spread ξ, with ξ standard
    normal. After every pulse w is kept within its bounds.

    Parameters
    ----------
    step
        The mean step Δ of a pulse, before the law of the device.
    up_down
        By which part of a step pulses up are larger than those down; the smaller of the two is
        reduced.
    lower, upper
        The bounds; zero must lie within.
    step_spread, lower_spread, upper_spread
        Relative deviations among cells.
    up_down_spread
        That of `up_down`, absolute.
    cycle_noise
        The deviation of a step from one pulse to the next, relative to it.
    additive_noise
        Whether that is relative to Δ instead.
    write_noise
        The deviation of what an update adds to what is seen of a cell that it moved, in units of Δ.
        The state itself is not changed by it.
    lifetime
        In every update a cell loses one part in so many of its state: all but 1/e of it in as many,
        where these are many; None: it loses nothing.
    lifetime_spread
        Its relative deviation among cells.
    diffusion
        The deviation by which a state wanders in every update, in units of Δ.
    stuck
        The fraction of cells that do not move from where they are, anywhere in their range.

    References
    ----------
    Gokmen, Vlasov, Front. Neurosci. 10, 333 (2016); the models and their names are those of Rasch
    et al., AICAS (2021).
    """

    step: float = 0.001
    up_down: float = 0.0
    lower: float = -0.6
    upper: float = 0.6
    step_spread: float = 0.3
    up_down_spread: float = 0.01
    lower_spread: float = 0.3
    upper_spread: float = 0.3
    cycle_noise: float = 0.3
    additive_noise: bool = False
    write_noise: float = 0.0
    lifetime: float | None = None
    lifetime_spread: float = 0.0
    diffusion: float = 0.0
    stuck: float = 0.0

    def parts(self) -> tuple["Cells", dict[str, Any]]:
        """See `PulseResponse.parts`."""
        return self, {"unit": "single"}

    def law(self) -> dict[str, Any]:
        """Return how steps depend on the state, as the core reads it."""
        raise TypeError("use concrete cells, such as ConstantStep or SoftBounds")

    def spec(self) -> dict[str, Any]:
        """Return the settings as the core reads them."""
        spread = {
            "step": self.step_spread,
            "up_down": self.up_down_spread,
            "lower": self.lower_spread,
            "upper": self.upper_spread,
            "lifetime": self.lifetime_spread,
        }
        own = ("step", "up_down", "lower", "upper", "write_noise", "lifetime", "diffusion", "stuck")
        return {
            **{name: getattr(self, name) for name in own},
            "law": self.law(),
            "spread": spread,
            "cycle": self.cycle_noise,
            "additive": self.additive_noise,
        }

    def without_spread(self) -> Self:
        """Return the same device with equal cells that all move, and without noise."""
        names = [f.name for f in dataclasses.fields(self) if f.name.endswith(("_spread", "_noise"))]
        zeros: dict[str, Any] = {name: 0.0 for name in names if name != "additive_noise"}
        zeros |= {"diffusion": 0.0, "stuck": 0.0}
        return dataclasses.replace(self, **zeros)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ConstantStep(Cells):
    """Steps of the same size everywhere: w ← w ± Δ (1 + σ ξ)."""

    def law(self) -> dict[str, Any]:
        """See `Cells.law`."""
        return {"law": "constant"}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LinearStep(Cells):
    """Steps that shrink towards the bound that they go to: Δ (1 - γ w / bound) (1 + σ ξ).

    Parameters
    ----------
    gamma_up, gamma_down
        γ of pulses up and down.
    gamma_spread
        The relative deviation of both among cells.
    mean_bound
        Whether the bound in the formula is `upper` or `lower`, and not that of the cell.
    """

    gamma_up: float = 0.1
    gamma_down: float = 0.1
    gamma_spread: float = 0.05
    mean_bound: bool = False

    def law(self) -> dict[str, Any]:
        """See `Cells.law`."""
        gamma = {"up": self.gamma_up, "down": self.gamma_down, "spread": self.gamma_spread}
        return {"law": "linear", **gamma, "mean_bound": self.mean_bound}

    def symmetric_point(self) -> float:
        """Return the state where steps up and down of a device without spread are equal."""
        up, down = (
            self.step * (1 + min(self.up_down, 0.0)),
            self.step * (1 - max(self.up_down, 0.0)),
        )
        # A slope of zero has no bound to shrink towards, which may then be zero.
        parts = ((up * self.gamma_up, self.upper), (-down * self.gamma_down, self.lower))
        slopes = sum(slope / bound for slope, bound in parts if slope != 0)
        if slopes == 0:
            raise ConfigError(f"{self!r} has no symmetric point: its steps are the same everywhere")
        return (up - down) / slopes


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SoftBounds(LinearStep):
    """Steps that vanish at the bound that they go to: a `LinearStep` with γ = 1."""

    gamma_up: float = 1.0
    gamma_down: float = 1.0
    gamma_spread: float = 0.0


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ExpStep(Cells):
    """Steps that shrink exponentially with the state.

    They are Δ max(1 - A exp(± γ z), 0) (1 + σ ξ), with z = 2 a w / (upper - lower) + b.

    Parameters
    ----------
    amplitude_up, amplitude_down
        A of pulses up and down.
    gamma_up, gamma_down
        γ of pulses up and down.
    a, b
        What makes z of w.
    """

    amplitude_up: float = 0.00081
    amplitude_down: float = 0.36833
    gamma_up: float = 12.44625
    gamma_down: float = 12.78785
    a: float = 0.244
    b: float = 0.2425

    def law(self) -> dict[str, Any]:
        """See `Cells.law`."""
        up, down = (self.amplitude_up, self.gamma_up), (self.amplitude_down, self.gamma_down)
        return {"law": "exponential", "up": up, "down": down, "a": self.a, "b": self.b}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PowerStep(Cells):
    """Steps by a power of the distance from the bound that they go to.

    Δ (distance / (upper - lower))^γ (1 + σ ξ).

    Parameters
    ----------
    gamma_up, gamma_down
        γ of pulses up and down.
    """

    gamma_up: float = 1.0
    gamma_down: float = 1.0

    def law(self) -> dict[str, Any]:
        """See `Cells.law`."""
        return {"law": "power", "up": self.gamma_up, "down": self.gamma_down}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TableStep(Cells):
    """Steps from tables.

    Δ times factors at places that are evenly spaced from the lower bound to the upper.

    Between places they are interpolated. `measured` makes tables of measured steps, `of` of
    functions.

    Parameters
    ----------
    up, down
        The factors of pulses up and down: at least two each, none negative.
    """

    up: Sequence[float] = (1.0, 1.0)
    down: Sequence[float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting; ranges are checked by the core."""
        super().__post_init__()
        for name in ("up", "down"):
            value = getattr(self, name)
            factors = as_list(value, name, "a sequence of factors")
            object.__setattr__(
                self, name, tuple(number(factor, f"every factor of {name}") for factor in factors)
            )

    def law(self) -> dict[str, Any]:
        """See `Cells.law`."""
        return {"law": "table", "up": list(self.up), "down": list(self.down)}

    @classmethod
    def of(
        cls,
        up: Callable[[Any], Any],
        down: Callable[[Any], Any],
        *,
        places: int = 257,
        **settings: Any,
    ) -> Self:
        """Return cells whose steps are functions of the state.

        Parameters
        ----------
        up, down
            Functions of an array of states from `lower` to `upper` that return the sizes of steps,
            none negative.
        places
            How many states the functions are asked for.
        settings
            Those of `Cells`; `step` is the mean of the steps at zero.
        """
        for name, function in (("up", up), ("down", down)):
            if not callable(function):
                raise ConfigError(
                    f"{name} must be a function of an array of states, got {shown(function)}"
                )
        plain = made(cls, {"lower": cls.lower, "upper": cls.upper, **settings}, cls.__name__)
        states = np.linspace(plain.lower, plain.upper, positive_int(places, "places"))
        try:
            steps = up(states), down(states)
        except TypeError as error:
            raise ConfigError(
                f"up and down must be functions of an array of states: {error}"
            ) from None
        return cls.measured(states, *steps, places=places, **settings)

    @classmethod
    def measured(
        cls,
        states: npt.ArrayLike,
        up: npt.ArrayLike,
        down: npt.ArrayLike,
        *,
        places: int = 257,
        **settings: Any,
    ) -> Self:
        """Return cells with measured steps.

        Parameters
        ----------
        states
            Where steps were measured: an increasing array. Its ends are the bounds, unless `lower`
            and `upper` say otherwise.
        up, down
            The sizes of the mean steps there, none negative.
        places
            How many evenly spaced states the steps are interpolated to.
        settings
            Those of `Cells`; `step` is the mean of the steps at zero.
        """
        positive_int(places, "places")
        given = (states, up, down)
        at, rises, falls = (
            as_numbers(values, "states, up and down", refusal=ConfigError) for values in given
        )
        if at.ndim != 1 or len(at) < 2 or at.shape != rises.shape or at.shape != falls.shape:
            raise ConfigError(
                f"states, up and down must be arrays of one length, got {at.shape}, "
                f"{rises.shape}, {falls.shape}"
            )
        if not (np.diff(at) > 0).all():
            raise ConfigError("states must increase")
        settings = {"lower": float(at[0]), "upper": float(at[-1]), **settings}
        grid = np.linspace(settings["lower"], settings["upper"], places)
        step = settings.setdefault("step", float(np.interp(0.0, at, (rises + falls) / 2)))
        if not step > 0:
            raise ConfigError(f"the mean of the steps at zero must be positive, got {step}")
        tables = {
            name: np.interp(grid, at, values) / step
            for name, values in (("up", rises), ("down", falls))
        }
        return cls(**settings, **tables)


@dataclass(frozen=True, repr=False, eq=False)
class Unit(DeviceConfig, PulseResponse, listed=False):
    """Base of what makes a weight of several cells."""

    cells: Cells

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, as checkpoints keep them."""
        return {**super().to_config(), "cells": self.cells.to_config()}

    @classmethod
    def restore(cls, settings: dict[str, Any]) -> Self:
        """Return what `to_config` told, less the name."""
        return super().restore({**settings, "cells": from_config(settings.get("cells", {}))})

    def without_spread(self) -> Self:
        """Return the same of cells that are equal and without noise."""
        return dataclasses.replace(self, cells=self.cells.without_spread())

    def parts(self) -> tuple[Cells, dict[str, Any]]:
        """See `PulseResponse.parts`."""
        return self.cells, self.unit()

    @abstractmethod
    def unit(self) -> dict[str, Any]:
        """Return which cells a weight is made of, as the core reads it."""


@dataclass(frozen=True, repr=False, eq=False)
class Pair(Unit):
    """Weights that are the difference of two cells which only move up (phase-change memory).

    Pulses down go to the second cell. Where one of the two is beyond a part of its range, both lose
    what they have in common.

    Parameters
    ----------
    cells
        The cells, with `lower` = 0.
    refresh
        That part.
    """

    refresh: float = 0.8

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting; ranges are checked by the core."""
        super().__post_init__()
        if not isinstance(self.cells, Cells):
            raise ConfigError(f"cells must be Cells, got {shown(self.cells)}")

    def unit(self) -> dict[str, Any]:
        """See `Unit.unit`."""
        return {"unit": "pair", "refresh": self.refresh}


@dataclass(frozen=True, repr=False, eq=False)
class MultiCell(Unit):
    """Weights that are sums of several cells, each times what it counts by.

    Parameters
    ----------
    cells
        The cells, all of the same kind; each has constants of its own.
    significance
        What each cell counts by, such as (1, 1, 1), or (1, 1/8) for two slices of a number.
    choice
        Which cells an update goes to: ``"cyclic"`` (one after the other), ``"random"`` (one drawn
        anew for every update), or ``"all"`` (every one, with the same pulses).

    References
    ----------
    Boybat et al., Nat. Commun. 9, 2514 (2018).

    Examples
    --------
    >>> MultiCell(ConstantStep(), (1.0, 1.0, 1.0))
    MultiCell(cells=ConstantStep(), significance=(1.0, 1.0, 1.0))
    """

    significance: tuple[float, ...] = (1.0, 1.0)
    choice: Literal["cyclic", "random", "all"] = "cyclic"

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting; ranges are checked by the core."""
        super().__post_init__()
        if not isinstance(self.cells, Cells):
            raise ConfigError(f"cells must be Cells, got {shown(self.cells)}")
        if not isinstance(self.significance, tuple | list):
            raise ConfigError(
                f"significance must be a number for each cell, got {shown(self.significance)}"
            )
        own = tuple(number(value, "every significance") for value in self.significance)
        object.__setattr__(self, "significance", own)

    def unit(self) -> dict[str, Any]:
        """See `Unit.unit`."""
        return {"unit": "multi", "significance": self.significance, "choice": self.choice}
