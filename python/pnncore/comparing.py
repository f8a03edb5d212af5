"""Comparisons: several methods on equal systems, under one budget of physical passes."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import (
    FloatArray,
    Seed,
    as_progress,
    as_seed,
    as_threads,
    instance,
    positive_int,
    shown,
)
from pnncore._display import html_table, text_table
from pnncore._progress import ProgressLine
from pnncore.errors import ConfigError
from pnncore.methods import Method
from pnncore.optim import Adam, Optimizer
from pnncore.systems import System
from pnncore.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Run:
    """What one method reached.

    Attributes
    ----------
    passes
        Physical passes of training, after every epoch; zero at the start.
    measured
        Samples that the physics was run on, after every epoch.
    operations
        Multiply-adds of the digital computer, after every epoch.
    score
        Accuracy (or R²) on the test data, before the first epoch and after every one. A run that
        diverges ends with the epoch before (``trainer.history.diverged`` tells where), and so do
        its other figures.
    trainer
        The trainer, with the system as it was left.
    """

    passes: npt.NDArray[np.float64]
    measured: npt.NDArray[np.float64]
    operations: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    trainer: Trainer


@dataclass(frozen=True, repr=False)
class Comparison:
    """What several methods reached under one budget of passes.

    Attributes
    ----------
    budget
        The most physical passes of a run.
    runs
        By name.
    """

    budget: int
    runs: dict[str, Run]

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw test scores against physical passes.

        Needs matplotlib. Written to `path` where one is given.
        """
        from pnncore import plot

        return plot.comparison(self, path)

    def _rows(self) -> list[list[str]]:
        return [["", "score", "passes", "measured", "operations", "epochs"]] + [
            [
                name,
                f"{run.score[-1]:.4f}",
                f"{run.passes[-1]:,.0f}",
                f"{run.measured[-1]:,.0f}",
                f"{run.operations[-1]:.3g}",
                f"{len(run.passes) - 1}",
            ]
            for name, run in self.runs.items()
        ]

    def __repr__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())


def compare(
    system: System,
    methods: Mapping[str, Method | tuple[Method, Optimizer]],
    data: tuple[Any, Any, Any, Any],
    *,
    passes: int,
    batch_size: int = 32,
    seed: Seed = 0,
    threads: int | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Train equal systems with several methods under one budget of physical passes.

    Every run has as many whole epochs as fit the budget. A method that never asks the hardware
    (`Backprop` on the twin) gets the epochs that one pass per step would allow.

    Parameters
    ----------
    system
        Where all runs start from; it is left as it is. One with an instrument is trained itself, by
        one method after the other, and brought back to its start each time.
    methods
        By name, each with the optimizer it goes with; `Adam(1e-3)` where there is none.
    data
        Inputs and labels (or targets) for training, then for testing, as the functions of
        `pnncore.data` return them.
    passes
        The most physical passes of a run: runs of the physics on a batch. Scoring is not counted.
    batch_size, seed, threads
        As for `Trainer`.
    progress
        Whether to draw a progress line; None: if standard error is a terminal.

    Raises
    ------
    CapabilityError
        If a method cannot train the system.
    ConfigError
        If the budget is less than a method's first epoch, or the system cannot be copied.
    """
    budget, progress = positive_int(passes, "passes"), as_progress(progress)
    seed, threads = as_seed(seed), as_threads(threads)
    if not isinstance(methods, Mapping) or not methods:
        raise ConfigError(f"methods must be a dictionary of named methods, got {shown(methods)}")
    instance(system, System, "system", "a pnncore System")
    if not isinstance(data, list | tuple) or len(data) != 4:
        raise ConfigError("data must be (x, y, x_test, y_test), as pnncore.data returns them")
    (x, y), (x_test, y_test) = system.as_batch(*data[:2]), system.as_batch(*data[2:])
    trainers = {}
    for name, given in methods.items():
        pair = given if isinstance(given, tuple) else (given, Adam(1e-3))
        if not isinstance(name, str) or len(pair) != 2:
            raise ConfigError(
                "methods must be named by text, each a method or (method, optimizer); got "
                f"{shown(methods)}"
            )
        method, optimizer = pair
        trainers[name] = Trainer(
            _copied(system),
            method,
            optimizer,
            batch_size=batch_size,
            seed=seed,
            threads=threads,
            progress=False,
        )
    line = ProgressLine(len(trainers) * budget, enabled=progress)
    runs = {}
    start = [array.copy() for array in system.lent()]
    try:
        for k, (name, trainer) in enumerate(trainers.items()):
            _set(system, start)
            runs[name] = _run(name, trainer, (x, y), (x_test, y_test), budget, line, k * budget)
    finally:
        line.close()
        _set(system, start)
    return Comparison(budget, runs)


def _copied(system: System) -> System:
    """Return a copy; the system itself where there is but one, for it has an instrument."""
    return system if system.instruments else copy.copy(system)


def _set(system: System, arrays: list[FloatArray]) -> None:
    for own, given in zip(system.lent(), arrays, strict=True):
        own[...] = given


def _run(
    name: str, trainer: Trainer, data: Any, test: Any, budget: int, line: ProgressLine, before: int
) -> Run:
    method, system = trainer.method, trainer.system
    scores = [method.score(system, *test, threads=trainer.threads)]
    steps = -(-len(data[0]) // trainer.batch_size)
    spent = each = 0.0
    # The first epoch shows what one takes.
    while spent + each <= budget:
        trainer.fit(*data, epochs=1)
        if trainer.history.diverged is not None:
            break
        each = trainer.history["passes"][-1] or float(steps)
        spent += each
        if spent > budget:
            raise ConfigError(
                f"an epoch of {name} takes {each:.0f} passes, but the budget is {budget}"
            )
        scores.append(method.score(system, *test, threads=trainer.threads))
        line.update(before + int(spent), f"{name}  score {scores[-1]:.4f}")
    line.log(f"{name}: {scores[-1]:.4f} after {len(scores) - 1} epochs")
    history = trainer.history

    def so_far(key: str) -> npt.NDArray[np.float64]:
        return np.concatenate([[0.0], np.cumsum(history[key])])

    return Run(
        so_far("passes"), so_far("measured"), so_far("operations"), np.array(scores), trainer
    )
