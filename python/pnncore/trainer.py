"""The training loop."""

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnncore import _checkpoint, _core, methods, optim
from pnncore._convert import (
    FloatArray,
    Seed,
    as_path,
    as_progress,
    as_seed,
    as_threads,
    instance,
    positive_int,
    shown,
)
from pnncore._interrupt import Interrupt
from pnncore._progress import ProgressLine
from pnncore.callbacks import Callback
from pnncore.errors import ConfigError, SettlingWarning, ShapeError
from pnncore.history import History
from pnncore.instruments._guard import guarded, retraced
from pnncore.systems import System

# The core works this long between two looks at signals, callbacks and the clock.
_LEG_SECONDS = 0.05


class Trainer:
    """Trains a system with a method and an optimizer.

    The order of samples and all random choices follow from `seed` and the number of the epoch alone: training in one
    go, in pieces, or resumed from a file gives the same bytes.

    Parameters
    ----------
    system
        What to train; its parameters change in place.
    method
        How a batch becomes a gradient.
    optimizer
        How a gradient becomes a change.
    batch_size
        The most samples per step. The steps of an epoch differ by one sample at most: a short last batch would move the
        parameters as far as a full one, on the word of a few samples.
    seed
        Of the order of samples and random choices; None draws one, which `seed` then tells.
    threads
        Threads to use (None: ``PNNCORE_NUM_THREADS``, otherwise all cores); the result does not depend on it.
    callbacks
        `Callback` objects, such as `Checkpoint` and `EarlyStopping`.
    progress
        Whether to draw a progress line; None: if standard error is a terminal.

    Attributes
    ----------
    epoch
        Finished epochs.
    step
        Steps done of the epoch under way.
    history
        What was measured, epoch by epoch.

    Raises
    ------
    CapabilityError
        If the method cannot train the system; the message lists the methods that can.
    """

    def __init__(
        self,
        system: System,
        method: methods.Method,
        optimizer: optim.Optimizer,
        *,
        batch_size: int = 32,
        seed: Seed = None,
        threads: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ) -> None:
        callbacks = _as_callbacks(callbacks)
        memory = self.memory_shapes(system, method, optimizer)
        optimizer.rates(system.names, 0)
        self.system = system
        self.method = method
        self.optimizer = optimizer
        self.batch_size = positive_int(batch_size, "batch_size")
        self.seed = as_seed(seed)
        self.threads = as_threads(threads)
        self.callbacks = callbacks
        self.progress = as_progress(progress)
        self.epoch = 0
        self.step = 0
        self.history = History()
        self.memory = {name: np.zeros(shape, system.dtype) for name, shape in memory.items()}
        own = [array for name, array in self.memory.items() if name.startswith("method/")]
        if own:
            _core.initialise_memory(system.core, method.to_json(), own, self.seed)
        self._sums: dict[str, float] = {}
        self._steps_before = 0
        self._stopping = False

    @staticmethod
    def memory_shapes(system: System, method: methods.Method, optimizer: optim.Optimizer) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the arrays that optimizer, cells and method keep; they are in `memory`.

        Raises
        ------
        CapabilityError
            If the method cannot train the system.
        ConfigError
            If one of them is something else.
        """
        for value, kind, name in (
            (system, System, "system"),
            (method, methods.Method, "method"),
            (optimizer, optim.Optimizer, "optimizer"),
        ):
            instance(value, kind, name, f"a pnncore {kind.__name__}")
        settings = json.dumps(optimizer.settings())
        kept = _core.check_pair(system.core, str(system.dtype), method.to_json(), settings)
        return {name: tuple(shape) for name, shape in kept}

    def stop(self) -> None:
        """End the fit under way after the current step; for callbacks."""
        self._stopping = True

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int,
        validation: tuple[Any, Any] | None = None,
    ) -> History:
        """Train for so many more epochs.

        Ctrl-C ends the training after the step under way and raises KeyboardInterrupt; everything learned is kept, and
        calling `fit` again goes on from there, in the middle of the epoch.

        Parameters
        ----------
        x
            Inputs (samples, n_in) of the system's dtype, finite.
        y
            Labels (samples,) of any integer type, or targets (samples, n_out).
        epochs
            Epochs to make; an epoch that was begun counts as one.
        validation
            Inputs and targets to score after every epoch.

        Returns
        -------
        History
            The history of all epochs so far.
        """
        epochs = positive_int(epochs, "epochs")
        x, y = self.system.as_batch(x, y)
        if validation is not None:
            if not isinstance(validation, tuple | list) or len(validation) != 2:
                raise ConfigError("validation must be a pair (inputs, targets)")
            validation = self.system.as_batch(*validation)
        for name, array in zip(self.system.names, self.system.arrays(), strict=True):
            if not array.flags.writeable:
                raise ConfigError(f"parameter {name} is read-only; training changes it in place: make it writable")
            if np.may_share_memory(x, array) or np.may_share_memory(y, array):
                raise ConfigError(f"the data share memory with parameter {name}, which training changes; pass a copy")
        steps = -(-len(x) // self.batch_size)
        # A checkpoint made after the last step of an epoch has all its steps: only its end is missing.
        if self.step > steps:
            raise ShapeError(f"the epoch under way is at step {self.step}, but these data make {steps} steps")
        line = ProgressLine(epochs * steps, enabled=self.progress)
        last = self.epoch + epochs
        self._stopping = False
        self._call(lambda callback: callback.on_start(self))
        try:
            with Interrupt() as interrupt, guarded(self.system.instruments):
                while self.epoch < last and not self._stopping:
                    self._epoch(x, y, steps, validation, interrupt, line, steps * (epochs - (last - self.epoch)))
        finally:
            line.close()
            self._call(lambda callback: callback.on_end(self))
        if interrupt.requested:
            raise KeyboardInterrupt
        return self.history

    def _call(self, run: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            run(callback)

    def _epoch(
        self,
        x: FloatArray,
        y: FloatArray,
        steps: int,
        validation: tuple[FloatArray, FloatArray] | None,
        interrupt: Interrupt,
        line: ProgressLine,
        done: int,
    ) -> None:
        """Finish the epoch under way, or stop between two of its steps."""
        order = _core.permutation(len(x), self.seed, self.epoch)
        rates = self.optimizer.rates(self.system.names, self.epoch)
        method, optimizer = self.method.to_json(), json.dumps(self.optimizer.settings())
        instruments = self.system.instruments
        # A step that an instrument fails in is made again from its beginning.
        single = bool(instruments) or any(type(c).on_step is not Callback.on_step for c in self.callbacks)
        start = time.perf_counter()
        while self.step < steps:
            with retraced(instruments):
                found = self._leg(x, y, order, method, optimizer, rates, 1 if single else steps - self.step)
            self.step += found.pop("steps")
            self._sums["loss"] = found.pop("loss")
            for key, value in found.items():
                self._sums[key] = self._sums.get(key, 0) + value
            if single:
                self._call(lambda callback: callback.on_step(self))
            self._call(lambda callback: callback.on_pause(self))
            line.update(done + self.step, f"epoch {self.epoch + 1}  loss {self._mean('loss'):.4f}")
            if (interrupt.requested or self._stopping) and self.step < steps:
                self._stopping = True
                return
        self._finish_epoch(steps, time.perf_counter() - start, y.ndim == 1, validation, line)
        self._stopping = self._stopping or interrupt.requested

    def _leg(
        self,
        x: FloatArray,
        y: FloatArray,
        order: FloatArray,
        method: str,
        optimizer: str,
        rates: list[float],
        steps: int,
    ) -> dict[str, Any]:
        """Make steps for a while, and return what they found."""
        # Other threads may look at the system between two legs.
        with self.system.lock:
            return _core.train(
                self.system.core,
                self.system.arrays(),
                list(self.memory.values()),
                x,
                y,
                order,
                method=method,
                optimizer=optimizer,
                rates=rates,
                batch_size=self.batch_size,
                first=self.step,
                before=self._steps_before,
                steps=steps,
                seconds=_LEG_SECONDS,
                loss=self._sums.get("loss", 0.0),
                seed=self.seed,
                threads=self.threads,
            )

    def _mean(self, key: str, over: str = "usable") -> float:
        count = self._sums[over]
        return self._sums[key] / count if count else float("nan")

    def _finish_epoch(
        self,
        steps: int,
        seconds: float,
        labels: bool,
        validation: tuple[FloatArray, FloatArray] | None,
        line: ProgressLine,
    ) -> None:
        score = float("nan")
        if validation is not None:
            with retraced(self.system.instruments):
                score = self.method.score(self.system, *validation, threads=self.threads)
        rates = zip(self.system.names, self.optimizer.rates(self.system.names, self.epoch), strict=True)
        written = sum(self.system.params[name].size for name, rate in rates if rate > 0)
        # Local losses leave no outputs to count hits by.
        has_accuracy = labels and (self._sums["scored"] > 0 or self._sums["usable"] == 0)
        self.epoch += 1
        self.step = 0
        self._steps_before += steps
        self.history.append(
            epoch=self.epoch,
            loss=self._mean("loss"),
            accuracy=self._mean("correct", "samples") if has_accuracy else float("nan"),
            validation=score,
            free_sweeps=self._mean("free_sweeps", "samples"),
            other_sweeps=self._mean("other_sweeps", "samples"),
            unconverged=self._sums["unconverged"],
            diverged=self._sums["diverged"],
            unbounded=self._sums["unbounded"],
            passes=self._sums["passes"],
            measured=self._sums["measured"],
            writes=steps * written,
            operations=self._sums["operations"],
            pulses=self._sums["pulses"],
            reversed=self._sums["reversed"],
            seconds=seconds,
        )
        blank = int(self._sums["diverged"] + self._sums["unbounded"])
        rate = self._sums["samples"] / seconds if seconds > 0 else float("nan")
        self._sums = {}
        parts = [f"epoch {self.epoch:3d}", f"loss {self.history['loss'][-1]:.4f}"]
        if has_accuracy:
            parts.append(f"accuracy {100 * self.history['accuracy'][-1]:.2f} %")
        if validation is not None:
            parts.append(f"validation {100 * score:.2f} %" if labels else f"validation {score:.4f}")
        parts += [text for callback in self.callbacks if (text := callback.describe(self)) is not None]
        line.log("  ".join([*parts, f"{rate:,.0f} samples/s"]))
        self._call(lambda callback: callback.on_epoch(self))
        # Last, since a program may turn warnings into errors.
        if blank:
            warnings.warn(
                f"in epoch {self.epoch} {blank} phases diverged or had no minimum; their samples taught nothing. "
                "Smaller rates or beta may help",
                SettlingWarning,
                stacklevel=4,
            )

    def save(self, path: str | Path) -> None:
        """Write everything that training goes on from to one file.

        The file is written beside the target, flushed, and renamed: a kill at any moment leaves either the old or the
        new file. The old one is kept with ``.prev`` added to its name. Wall times are left out, so that equal runs give
        equal files.

        Where there is a file, the new one has its permissions and, as far as allowed, its owner. A symbolic link is
        followed: the file that it points to is written, and the old one kept beside that.

        Raises
        ------
        OSError
            If the file cannot be written (a full disk, say), or something else than a file is there, such as a
            directory, a pipe or a device; what is there is untouched.
        DataError
            If a parameter, or an array of optimizer or method, holds NaN or infinity; what is there is untouched.
        """
        path = as_path(path)
        _checkpoint.write(self, path)
        for instrument in self.system.instruments:
            instrument.checkpoint_made(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        system: System | None = None,
        optimizer: optim.Optimizer | None = None,
        threads: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ) -> "Trainer":
        """Return the trainer that `save` wrote, to go on exactly where it was.

        Parameters
        ----------
        path
            The file.
        system
            For a system of the user's own, which no file can hold: an equal one, whose parameters are overwritten.
        optimizer
            For an optimizer with a schedule of the user's own.
        threads, callbacks, progress
            As for `Trainer`; files do not keep them.

        Raises
        ------
        CheckpointError
            If the file is damaged, truncated, no checkpoint, does not fit the system, holds NaN or infinity in a
            parameter, or says anything that a trainer would not say of itself; it says which.
        FileNotFoundError
            If there is no file.
        """
        path = as_path(path)
        if system is not None:
            instance(system, System, "system", "a pnncore System or None")
        if optimizer is not None:
            instance(optimizer, optim.Optimizer, "optimizer", "a pnncore Optimizer or None")
        return _checkpoint.read(
            cls,
            path,
            system=system,
            optimizer=optimizer,
            threads=as_threads(threads),
            callbacks=_as_callbacks(callbacks),
            progress=as_progress(progress),
        )

    def __repr__(self) -> str:
        under_way = f" + {self.step} steps" if self.step else ""
        return (
            f"Trainer({self.system!r}, {self.method!r}, {self.optimizer!r}, batch_size={self.batch_size}, "
            f"seed={self.seed}; {self.epoch} epochs{under_way} done)"
        )


def _as_callbacks(callbacks: Any) -> list[Callback]:
    if not isinstance(callbacks, list | tuple):
        raise ConfigError(f"callbacks must be a list of pnncore.Callback objects, got {shown(callbacks)}")
    if any(not isinstance(callback, Callback) for callback in callbacks):
        raise ConfigError(f"callbacks must be pnncore.Callback objects, got {shown(callbacks)}")
    return list(callbacks)
