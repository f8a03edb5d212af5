"""Examinations of instruments: what a run can expect of one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pnncore._convert import FloatArray, as_inputs, as_list, instance, positive_int
from pnncore.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from pnncore.methods import Method
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
        The parameters, as (name, flat index), that change no output by more than its noise does.
    examined
        How many parameters were moved.
    saturated
        The fraction of outputs at the smallest or the largest value of their column, beyond the one
        that has to be.
    dead_outputs
        The outputs that do not change from input to input.
    hours
        By method, the hours of shots that the planned run takes.
    """

    seconds: float
    noise: FloatArray
    signal: FloatArray
    repeatability: float
    dead: tuple[tuple[str, int], ...]
    examined: int
    saturated: float
    dead_outputs: tuple[int, ...]
    hours: dict[str, float]

    def __str__(self) -> str:
        noise, signal = (float(np.sqrt(np.mean(v**2))) for v in (self.noise, self.signal))
        lines = [
            f"a shot takes {1e3 * self.seconds:.3g} ms",
            f"noise {noise:.3g}, signal {signal:.3g}: repeatability {self.repeatability:.4f}",
            f"dead parameters: {len(self.dead)} of {self.examined} examined"
            + (f", such as {self.dead[0][0]}[{self.dead[0][1]}]" if self.dead else ""),
            f"dead outputs: {len(self.dead_outputs)} of {len(self.signal)}",
            f"saturated outputs: {100 * self.saturated:.1f} %",
        ]
        lines += [f"{name}: {hours:.3g} hours" for name, hours in self.hours.items()]
        return "\n".join(lines)


def examine(
    instrument: "Instrument",
    x: Any,
    *,
    repeats: int = 8,
    parameters: int = 32,
    methods: "Sequence[Method]" = (),
    samples: int | None = None,
    epochs: int = 1,
    batch_size: int = 32,
) -> Examination:
    """Examine an instrument: see `Instrument.check`."""
    x = as_inputs(x, instrument.n_in, instrument.dtype)
    if len(x) < 2:
        raise ShapeError("x must hold at least two samples, to tell signal from noise")
    methods = _timed(methods, samples)
    samples = None if samples is None else positive_int(samples, "samples")
    epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
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
        # What a shot without a change differs from the mean by, and five deviations of that more.
        expected = noise * np.sqrt((1 + 1 / repeats) * (1 + 5 * np.sqrt(2 / len(x))))
        dead, examined = _dead(
            instrument, shoot, params, mean, expected, positive_int(parameters, "parameters")
        )
    extremes = ((mean == mean.min(axis=0)) | (mean == mean.max(axis=0))).sum(axis=0)
    tolerance = 1e-9 * np.abs(mean).max() + 3 * noise
    ratio = float(np.sqrt(np.mean(noise**2) / np.mean(signal**2))) if signal.any() else 1.0
    seconds = float(np.median(times))
    return Examination(
        seconds=seconds,
        noise=noise,
        signal=signal,
        repeatability=1 - ratio,
        dead=dead,
        examined=examined,
        saturated=float(np.maximum(extremes - 2, 0).mean() / len(mean)),
        dead_outputs=tuple(int(j) for j in np.flatnonzero(signal <= tolerance)),
        hours={
            type(one).__name__: _hours(instrument, one, samples or 0, epochs, batch_size, seconds)
            for one in methods
        },
    )


def _timed(methods: "Sequence[Method]", samples: int | None) -> "list[Method]":
    """Return the methods to time, which need a planned run."""
    from pnncore.methods import Method

    methods = as_list(methods, "methods", "a list of pnncore methods")
    checked = [instance(one, Method, "a method to time", "a pnncore method") for one in methods]
    if checked and samples is None:
        raise ConfigError(
            "methods are timed for a planned run: give samples, and perhaps epochs and batch_size"
        )
    return checked


def _dead(
    instrument: "Instrument",
    shoot: Any,
    params: list[FloatArray],
    mean: FloatArray,
    expected: FloatArray,
    most: int,
) -> tuple[tuple[tuple[str, int], ...], int]:
    """Move parameters one by one, evenly picked, by a tenth of their range.

    Without limits, of their size.
    """
    device = instrument.layer.device
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
        moved = np.sqrt(np.mean((shoot(params) - mean) ** 2, axis=0))
        values[i] = before
        if (moved <= expected + 1e-9 * np.abs(mean).max()).all():
            dead.append((instrument.names[k], i))
    return tuple(dead), len(picked)


def _hours(
    instrument: "Instrument",
    method: "Method",
    samples: int,
    epochs: int,
    batch_size: int,
    seconds: float,
) -> float:
    """Let a stand-in of the same shape count the shots of one step."""
    from pnncore.optim import SGD
    from pnncore.systems import Instrument
    from pnncore.trainer import Trainer

    n_out = instrument.n_out
    rows = min(batch_size, samples)
    random = np.random.default_rng(0)

    def stand_in(x: FloatArray, *params: Any) -> FloatArray:
        return random.normal(size=(len(x), n_out))

    start = dict(zip(instrument.names, instrument.arrays(), strict=True))
    layer = instrument.layer
    other = Instrument(
        stand_in,
        instrument.n_in,
        n_out,
        params=start,
        device=layer.device,
        twin=instrument.twin,
        dtype=instrument.dtype,
    )
    trainer = Trainer(other, method, SGD(0.01), batch_size=rows, seed=0, progress=False)
    x = np.zeros((rows, instrument.n_in), instrument.dtype)
    trainer.fit(x, np.arange(rows) % n_out, epochs=1)
    measured = float(trainer.history["measured"][-1])
    passes = float(trainer.history["passes"][-1])
    steps = epochs * -(-samples // batch_size)
    shots = passes if instrument.driver.policy.batch else measured
    return steps * shots * seconds / 3600
