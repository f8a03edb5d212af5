"""Examinations of instruments: what a run can expect of one."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pnncore._convert import FloatArray, as_inputs, positive_int
from pnncore.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from pnncore.systems import Instrument


@dataclass(frozen=True)
class Examination:
    """What `Instrument.check` found.

    Attributes
    ----------
    seconds
        How long a shot takes (the median).
    noise
        The deviation of each output from shot to shot (n_out,), for the same inputs.
    signal
        The deviation of each output from input to input (n_out,).
    repeatability
        One minus the ratio of noise to signal, both as root mean squares; 1 is perfect, 0 without
        any signal.
    dead
        The parameters, as (name, flat index), whose move by a tenth of their range (of their size,
        without limits) changes the outputs, all together, by no more than noise does. Where noise
        is large, more `repeats` show smaller effects.
    examined
        How many parameters were moved.
    saturated
        The fraction of outputs at the smallest or the largest value of their column, beyond the one
        that has to be.
    dead_outputs
        The outputs that do not change from input to input.
    """

    seconds: float
    noise: FloatArray
    signal: FloatArray
    repeatability: float
    dead: tuple[tuple[str, int], ...]
    examined: int
    saturated: float
    dead_outputs: tuple[int, ...]

    def __str__(self) -> str:
        noise, signal = (float(np.sqrt(np.mean(v**2))) for v in (self.noise, self.signal))
        lines = [
            f"a shot takes {1e3 * self.seconds:.3g} ms",
            f"noise {noise:.3g}, signal {signal:.3g}: repeatability {self.repeatability:.4f}",
            f"parameters without effect beyond noise: {len(self.dead)} of {self.examined} examined"
            + (f", such as {self.dead[0][0]}[{self.dead[0][1]}]" if self.dead else ""),
            f"dead outputs: {len(self.dead_outputs)} of {len(self.signal)}",
            f"saturated outputs: {100 * self.saturated:.1f} %",
        ]
        return "\n".join(lines)


def examine(
    instrument: "Instrument",
    x: Any,
    *,
    repeats: int,
    parameters: int,
) -> Examination:
    """Examine an instrument: see `Instrument.check`."""
    x = as_inputs(x, instrument.n_in, instrument.dtype)
    if len(x) < 2:
        raise ShapeError("x must hold at least two samples, to tell signal from noise")
    repeats = positive_int(repeats, "repeats")
    if repeats < 2:
        raise ConfigError(f"repeats must be at least 2, got {repeats}")
    driver = instrument.driver
    driver.check_process()
    params = [array.copy() for array in instrument.arrays()]
    times: list[float] = []

    def shoot(params: list[FloatArray]) -> FloatArray:
        rows = [x] if driver.policy.batch else np.split(x, len(x))
        found = []
        for row in rows:
            start = time.perf_counter()
            found.append(driver.shoot(row, params, "check"))
            times.append(time.perf_counter() - start)
        return np.concatenate(found).astype(np.float64)

    with driver.lock:
        same = np.stack([shoot(params) for _ in range(repeats)])
        noise = same.std(axis=0, ddof=1)
        noise = np.sqrt(np.mean(noise**2, axis=0))
        mean = same.mean(axis=0)
        signal = mean.std(axis=0)
        dead, examined = _dead(
            instrument, shoot, params, same, positive_int(parameters, "parameters")
        )
    extremes = ((mean == mean.min(axis=0)) | (mean == mean.max(axis=0))).sum(axis=0)
    tolerance = 1e-9 * np.abs(mean).max() + 3 * noise
    ratio = float(np.sqrt(np.mean(noise**2) / np.mean(signal**2))) if signal.any() else 1.0
    return Examination(
        seconds=float(np.median(times)),
        noise=noise,
        signal=signal,
        repeatability=1 - ratio,
        dead=dead,
        examined=examined,
        saturated=float(np.maximum(extremes - 2, 0).mean() / len(mean)),
        dead_outputs=tuple(int(j) for j in np.flatnonzero(signal <= tolerance)),
    )


def _dead(
    instrument: "Instrument",
    shoot: Any,
    params: list[FloatArray],
    same: FloatArray,
    most: int,
) -> tuple[tuple[tuple[str, int], ...], int]:
    """Move parameters one by one, evenly picked, by a tenth of their range.

    Without limits, of their size. As many shots as those of `same` (repeats, samples, n_out), where
    nothing moved, tell by the means of both what a move does.
    """
    device = instrument.layer.device
    repeats, (samples, n_out) = len(same), same.shape[1:]
    mean, variance = same.mean(axis=0), same.var(axis=0, ddof=1).mean(axis=0)
    # Outputs without noise count by what is above rounding.
    floor = (1e-9 * np.abs(mean).max()) ** 2
    # Squares of differences of two means of noise, in units of their variance, have mean 1 and
    # variance 2, and a little more where that was estimated: five deviations are no accident.
    freedom = samples * n_out
    beyond = 1 + 5 * np.sqrt(2 / freedom * (1 + 1 / (repeats - 1)))
    every = [(k, i) for k, array in enumerate(params) for i in range(array.size)]
    picked = every[:: max(1, -(-len(every) // most))]
    dead = []
    for k, i in picked:
        values = params[k].reshape(-1)
        before = values[i]
        if device.lower is not None and device.upper is not None:
            step = 0.1 * (device.upper - device.lower)
            step = -step if before + step > device.upper else step
        else:
            step = 0.1 * max(float(np.sqrt(np.mean(params[k] ** 2))), 1.0)
        values[i] = before + step
        moved = np.mean([shoot(params) for _ in range(repeats)], axis=0)
        values[i] = before
        differences = np.mean((moved - mean) ** 2 / (2 * variance / repeats + floor))
        if differences <= beyond:
            dead.append((instrument.names[k], i))
    return tuple(dead), len(picked)
