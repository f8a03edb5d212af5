"""Cells fitted to measured trains of pulses."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_numbers, number, one_of, shown
from pnncore._tables import is_number, read_table
from pnncore.devices._cells import (
    Cells,
    ConstantStep,
    ExpStep,
    LinearStep,
    PowerStep,
    SoftBounds,
    TableStep,
)
from pnncore.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

# What is fitted of every law: its settings, whether each must be positive, and where the search
# begins, the steps being 1. Bounds that no pulse reaches are fitted as multiples of those seen.
_STEPS = {"step": (True, 1.0), "up_down": (False, 0.0)}
_BOUNDS = {"lower": (True, 1.1), "upper": (True, 1.1)}
_LAWS: dict[type[Cells], dict[str, tuple[bool, float]]] = {
    ConstantStep: _STEPS,
    LinearStep: _STEPS | {"gamma_up": (False, 0.5), "gamma_down": (False, 0.5)},
    SoftBounds: _STEPS | _BOUNDS,
    PowerStep: _STEPS | _BOUNDS | {"gamma_up": (True, 1.0), "gamma_down": (True, 1.0)},
    # A exp(2 a γ w / range + b γ) is A exp(γ w / range) with another A and γ.
    ExpStep: _STEPS
    | {
        "amplitude_up": (False, 0.1),
        "amplitude_down": (False, 0.1),
        "gamma_up": (False, 1.0),
        "gamma_down": (False, 1.0),
    },
}
# Places of a fitted table, and rounds of fitting it and the gains of cells in turn.
_PLACES = 17
_ROUNDS = 5


@dataclass(frozen=True, repr=False)
class DeviceFit:
    """What `fit` has found.

    Attributes
    ----------
    device
        The cells, in units of weights.
    up, down
        The measured responses in units of weights (pulses + 1, repetitions).
    unit
        A weight w is a conductance of unit[0] + unit[1] w, in the unit of what was measured.
    r_squared
        The part of the variance of the mean responses that the device without noise and spread
        has.
    """

    device: Cells
    up: Array
    down: Array
    unit: tuple[float, float]
    r_squared: float

    def response(self) -> tuple[Array, Array]:
        """Return the mean responses of the device, in units of weights: up and down."""
        return _responses(self.device, _mean(self.up), _mean(self.down))

    def plot(self, axes: "Axes | None" = None) -> "Figure":
        """Draw what was measured, and the response of the device.

        Needs matplotlib.
        """
        from pnncore import plot

        axes = plot.axes_of(axes, (7, 4))
        offset, slope = self.unit
        first = 0
        for measured, fitted, name in zip(
            (self.up, self.down), self.response(), ("up", "down"), strict=True
        ):
            pulses = first + np.arange(len(measured))
            axes.plot(
                pulses,
                offset + slope * measured,
                ".",
                color="#999999",
                markersize=3,
                label=["measured", *[None] * (measured.shape[1] - 1)] if name == "up" else None,
            )
            axes.plot(
                pulses,
                offset + slope * fitted,
                color="#D55E00",
                linewidth=1.8,
                label=type(self.device).__name__ if name == "up" else None,
            )
            first += len(measured) - 1
        axes.axvline(len(self.up) - 1, color="#CCCCCC", linewidth=0.8, zorder=0)
        axes.set_xlabel("pulses: up, then down")
        axes.set_ylabel("conductance, as measured")
        axes.set_title(f"R² of the mean response {self.r_squared:.4f}", fontsize=10)
        axes.legend(frameon=False)
        return axes.figure  # type: ignore[return-value]

    def __repr__(self) -> str:
        pulses = f"{len(self.up) - 1} pulses up and {len(self.down) - 1} down"
        settings = ", ".join(
            f"{f.name}={getattr(self.device, f.name):.4g}"
            for f in dataclasses.fields(self.device)
            if isinstance(value := getattr(self.device, f.name), float) and value != f.default
        )
        return (
            f"DeviceFit({type(self.device).__name__}({settings}), {pulses} x {self.up.shape[1]}, "
            f"r_squared={self.r_squared:.4f})"
        )


def fit(
    measured: "str | PathLike[str] | tuple[npt.ArrayLike, npt.ArrayLike]",
    cells: type[Cells] = SoftBounds,
    *,
    bounds: tuple[float, float] = (-1.0, 1.0),
    columns: Literal["cycles", "cells"] = "cycles",
) -> DeviceFit:
    """Return cells fitted to measured trains of pulses up and down.

    Steps and bounds are fitted to the mean responses by least squares. What single increments
    scatter by besides is noise: errors of writing and reading show with opposite signs in
    increments next to each other, and become `write_noise`; the rest is `cycle_noise`. Needs SciPy,
    but for a `TableStep`.

    Parameters
    ----------
    measured
        The responses up and down: two arrays (pulses + 1,) or (pulses + 1, repetitions) of what was
        read before the first pulse and after every one. Or a CSV file whose columns are called
        ``up`` and ``down``, with numbers behind if there are several (``up1``, ``up_2``), and units
        in parentheses; another, ``pulse``, may count them from 0 on.
    cells
        The law: `ConstantStep`, `LinearStep`, `SoftBounds`, `PowerStep`, `ExpStep` or `TableStep`.
    bounds
        The weights that the least and the largest mean conductance become.
    columns
        What repetitions are: ``"cycles"`` of one cell, or ``"cells"``, every one of which is then
        fitted to by itself, with a step of its own: these have the spread `step_spread`.

    Raises
    ------
    DataError
        If there are no responses, or they do not go up and down.
    ConfigError
        If a setting is out of range.

    References
    ----------
    Rasch et al., AICAS (2021); Gong et al., Nat. Commun. 9, 2102 (2018).

    Examples
    --------
    >>> made = SoftBounds(step=0.05, lower=-1.0, upper=1.0).without_spread()
    >>> up = made.pulse(-0.9, 100)
    >>> found = fit((up, made.pulse(up[-1], -100)), SoftBounds, bounds=(-0.9, 0.98))
    >>> round(found.device.step, 3)
    0.05
    """
    laws: list[type[Cells]] = [*_LAWS, TableStep]
    if not isinstance(cells, type) or cells not in laws:
        known = ", ".join(kind.__name__ for kind in laws)
        raise ConfigError(f"cells must be one of {known}, got {shown(cells)}")
    one_of(columns, "columns", ("cycles", "cells"))
    low, high = _bounds(bounds)
    up, down = _read(Path(measured)) if isinstance(measured, str | PathLike) else _arrays(measured)
    if columns == "cells" and up.shape[1] != down.shape[1]:
        raise DataError(
            f"every cell must go up and down, got {up.shape[1]} responses up and {down.shape[1]} "
            "down"
        )
    seen = np.concatenate([_mean(up), _mean(down)])
    if not _mean(up)[-1] > _mean(up)[0] or not _mean(down)[-1] < _mean(down)[0]:
        raise DataError("pulses up must raise the mean conductance, and pulses down lower it")
    if max(_mean(up).min(), _mean(down).min()) >= min(_mean(up).max(), _mean(down).max()):
        raise DataError("the responses up and down have nothing in common: are they of one cell?")
    slope = (seen.max() - seen.min()) / (high - low)
    unit = (float(seen.min() - slope * low), float(slope))
    up, down = ((one - unit[0]) / slope for one in (up, down))
    of_cells = columns == "cells" and up.shape[1] > 1
    if of_cells:
        # Single cells may go farther than their mean.
        low, high = (min(low, up.min(), down.min()), max(high, up.max(), down.max()))
    if cells is TableStep:
        device = _table(up, down, (low, high), of_cells)
    else:
        device = _search(cells, up, down, (low, high), of_cells)
    device = dataclasses.replace(device, **_noise(device, up, down, of_cells))
    fitted = np.concatenate(_responses(device, _mean(up), _mean(down)))
    weights = np.concatenate([_mean(up), _mean(down)])
    left = ((weights - fitted) ** 2).sum() / ((weights - weights.mean()) ** 2).sum()
    return DeviceFit(device, up, down, unit, float(1 - left))


def _bounds(bounds: Any) -> tuple[float, float]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ConfigError(f"bounds must be a pair of weights, got {shown(bounds)}")
    low, high = (number(bound, "bounds") for bound in bounds)
    if not low < 0 < high:
        raise ConfigError(f"bounds must be below and above zero, got {low} and {high}")
    return low, high


def _read(path: Path) -> tuple[Array, Array]:
    """Return the responses of a CSV file; shorter columns end in empty fields."""
    rows = read_table(path)
    if not rows:
        raise DataError(f"{path} is empty")
    names = rows[0][1]
    if "pulse" in names:
        counted = _column(path, rows, names.index("pulse"))
        if counted != list(range(len(counted))):
            raise DataError(f"{path}: the column 'pulse' must count from 0 on, got {counted[:4]}")
    kinds = [re.fullmatch(r"(up|down)[ _]?\d*( ?[(\[].*[)\]])?", name.lower()) for name in names]
    unknown = [n for n, kind in zip(names, kinds, strict=True) if kind is None and n != "pulse"]
    places = {
        kind: [k for k, found in enumerate(kinds) if found and found[1] == kind]
        for kind in ("up", "down")
    }
    if (
        unknown
        or not places["up"]
        or len(set(names)) < len(names)
        or len({*map(len, places.values())}) > 1
    ):
        raise DataError(
            f"{path} must have as many columns up, up1, up_2, up (unit) as columns down, and no "
            f"others, got {', '.join(names)}"
        )
    units = {found[2] for found in kinds if found}
    if len(units) > 1:
        raise DataError(f"{path} has responses in several units: {', '.join(names)}")
    found = []
    for kind, own in places.items():
        columns = [_column(path, rows, k) for k in own]
        if len({len(column) for column in columns}) > 1:
            raise DataError(f"{path}: columns {kind!r} have different lengths")
        found.append(np.array(columns, dtype=np.float64).T)
    return _arrays(tuple(found))


def _column(path: Path, rows: list[tuple[int, list[str]]], k: int) -> list[float]:
    for line, row in rows:
        if len(row) > len(rows[0][1]):
            raise DataError(f"{path}, row {line}: more fields than columns")
    fields = [(line, row[k] if k < len(row) else "") for line, row in rows[1:]]
    while fields and not fields[-1][1]:
        fields.pop()
    for line, field in fields:
        if not is_number(field):
            raise DataError(f"{path}, row {line}: {field!r} is no number")
    return [float(field) for _, field in fields]


def _arrays(measured: Any) -> tuple[Array, Array]:
    if not isinstance(measured, tuple | list) or len(measured) != 2:
        raise ConfigError(
            f"measured must be a file, or responses up and down, got {shown(measured)}"
        )
    found = []
    for name, values in zip(("up", "down"), measured, strict=True):
        array = as_numbers(values, f"the response {name}", np.float64)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2 or len(array) < 4 or not array.shape[1]:
            raise DataError(
                f"the response {name} must have shape (pulses + 1,) or (pulses + 1, repetitions) "
                f"with at least 3 pulses, got {array.shape}"
            )
        found.append(array)
    return found[0], found[1]


def _mean(response: Array) -> Array:
    return np.asarray(response.mean(axis=1))


def _responses(device: Cells, up: Array, down: Array) -> tuple[Array, Array]:
    """Return where a device without noise goes from the first states of two trains."""
    plain = device.without_spread()
    return (
        plain.pulse(up[0], len(up) - 1)[:, 0],
        plain.pulse(down[0], -(len(down) - 1))[:, 0],
    )


def _made(cells: type[Cells], values: Iterable[float], low: float, high: float) -> Cells:
    """Return the cells of what a search varies."""
    own: dict[str, Any] = {
        name: float(np.exp(value) if positive else value)
        for (name, (positive, _)), value in zip(_LAWS[cells].items(), values, strict=True)
    }
    own["up_down"] = float(np.tanh(own["up_down"]))
    own["lower"], own["upper"] = low * own.get("lower", 1.0), high * own.get("upper", 1.0)
    if cells is ExpStep:
        own |= {"a": 0.5, "b": 0.0}
    return cells(**own).without_spread()


def _search(
    cells: type[Cells], up: Array, down: Array, bounds: tuple[float, float], of_cells: bool
) -> Cells:
    """Return the cells whose responses are nearest to the measured ones.

    Those are the mean responses; or, `of_cells`, the increments of every cell by itself: the mean
    of cells is like none of them, for those whose steps are large reach their bounds first.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError as error:
        raise ImportError("fitting cells needs SciPy: pip install 'pnncore[fit]'") from error
    rise, fall = _mean(up), _mean(down)
    scale = 0.5 * ((rise[-1] - rise[0]) / (len(rise) - 1) + (fall[0] - fall[-1]) / (len(fall) - 1))

    def left(values: Array) -> Array:
        fitted = _responses(_made(cells, values, *bounds), rise, fall)
        return np.asarray(np.concatenate(fitted) - np.concatenate([rise, fall]))

    def left_of_cells(values: Array) -> Array:
        steps = _steps(_made(cells, values, *bounds), up, down)
        gains = _gains(steps, up, down)
        return np.asarray((steps * (gains / gains.mean()) - _increments(up, down)).ravel())

    starts = np.array(
        [np.log(start) if positive else start for positive, start in _LAWS[cells].values()]
    )
    step = np.array([name == "step" for name in _LAWS[cells]])
    best = None
    # Steps that shrink are larger at first than on average.
    for larger in (1.0, 3.0):
        start = starts + np.log(larger * scale) * step
        around = (start - 8.0, start + 8.0)
        found = least_squares(left, start, bounds=around, x_scale=0.3)
        if of_cells:
            found = least_squares(left_of_cells, found.x, bounds=around, x_scale=0.3)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return _made(cells, best.x, *bounds)


def _increments(up: Array, down: Array) -> Array:
    return np.concatenate([np.diff(up, axis=0), np.diff(down, axis=0)])


def _steps(device: Cells, up: Array, down: Array) -> Array:
    """Return the increments of a device without noise from where every cell was."""
    plain, found = device.without_spread(), []
    for response, sign in ((up, 1), (down, -1)):
        start = np.clip(response[:-1], device.lower, device.upper).ravel()
        found.append((plain.pulse(start, sign)[1] - start).reshape(len(response) - 1, -1))
    return np.concatenate(found)


def _gains(steps: Array, up: Array, down: Array) -> Array:
    """Return how much larger the increments of every cell are than those of the device."""
    size = np.maximum((steps**2).sum(axis=0), 1e-300)
    return np.asarray((steps * _increments(up, down)).sum(axis=0) / size)


def _table(up: Array, down: Array, bounds: tuple[float, float], of_cells: bool) -> Cells:
    """Return cells with tables: increments are fitted by hats over the states they began at."""
    if not of_cells:
        return _hats(_mean(up)[:, None], _mean(down)[:, None], bounds, np.ones(1))
    device = _hats(up, down, bounds, np.ones(up.shape[1]))
    # Faster cells are sooner where steps are small: their gains and the table follow in turn.
    for _ in range(_ROUNDS):
        gains = _gains(_steps(device, up, down), up, down)
        device = _hats(up, down, bounds, gains / gains.mean())
    return device


def _hats(up: Array, down: Array, bounds: tuple[float, float], gains: Array) -> Cells:
    """Return the cells whose steps, times the gain of each, are nearest to increments."""
    places = np.linspace(*bounds, _PLACES)
    width = places[1] - places[0]
    tables = []
    for response, sign in ((up, 1.0), (down, -1.0)):
        states = np.clip(response[:-1], *bounds)
        hats = np.maximum(1 - np.abs(states[..., None] - places) / width, 0.0) * gains[:, None]
        steps = sign * np.diff(response, axis=0)
        # Where nothing was measured, as between what was.
        bend = np.diff(np.eye(_PLACES), 2, axis=0) * 1e-3 * np.sqrt(len(gains))
        rows = np.vstack([hats.reshape(-1, _PLACES), bend])
        wanted = np.concatenate([steps.ravel(), np.zeros(len(bend))])
        tables.append(np.maximum(np.linalg.lstsq(rows, wanted, rcond=None)[0], 0.0))
    return TableStep.measured(places, *tables, places=_PLACES).without_spread()


def _noise(device: Cells, up: Array, down: Array, of_cells: bool) -> dict[str, Any]:
    """Return the noise that scatter of increments around the mean steps says."""
    if of_cells:
        steps = _steps(device, up, down)
        gains = _gains(steps, up, down)
        steps = steps * gains
        each = [steps[: len(up) - 1], steps[len(up) - 1 :]]
    else:
        fitted = _responses(device, _mean(up), _mean(down))
        gains, each = np.ones(1), [np.diff(one)[:, None] for one in fitted]
    scatter = [np.diff(one, axis=0) - own for one, own in zip((up, down), each, strict=True)]
    # Errors of reading e_k add e_(k+1) - e_k to an increment: covariance -e^2 with the next.
    together = sum(float((one[1:] * one[:-1]).sum()) for one in scatter)
    pairs = sum(one[1:].size for one in scatter)
    write = max(-together / pairs, 0.0)
    variance = sum(float((one**2).sum()) for one in scatter) / sum(one.size for one in scatter)
    size = sum(float((step**2).sum()) for step in each) / sum(step.size for step in each)
    found = {
        "cycle_noise": float(np.sqrt(max(variance - 2 * write, 0.0) / size)) if size > 0 else 0.0,
        "write_noise": float(np.sqrt(write) / device.step),
    }
    if of_cells:
        found["step_spread"] = float(gains.std(ddof=1) / gains.mean())
    return found
