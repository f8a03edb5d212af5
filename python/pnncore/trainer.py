"""The training loop."""

import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore import _checkpoint, _core, losses, methods, optim
from pnncore._convert import (
    FloatArray,
    Seed,
    as_path,
    as_progress,
    as_seed,
    as_threads,
    instance,
    positive_int,
)
from pnncore._epoch import Epoch, as_callbacks, as_sample_weight, check_kinds, order_of
from pnncore._interrupt import Interrupt
from pnncore._processes import renew_in_children
from pnncore._progress import ProgressLine
from pnncore.callbacks import Callback
from pnncore.errors import ConfigError, SettlingWarning, ShapeError
from pnncore.history import History
from pnncore.instruments._guard import guarded, retraced
from pnncore.systems import System

# The core works this long between two looks at signals, callbacks and the clock.
_LEG_SECONDS = 0.05
# A validation score (R²) below minus this means outputs that have left all units of the problem.
_FARTHEST_SCORE = 1e9
# Quantities of the history that are sums over the steps of an epoch.
_SUMMED = (
    "unconverged",
    "diverged",
    "unbounded",
    "passes",
    "measured",
    "operations",
    "pulses",
    "reversed",
    "reads",
)


class Trainer:
    """Trains a system with a method and an optimizer.

    The order of samples and all random choices follow from `seed` and the number of the epoch
    alone: training in one go, in pieces, or resumed from a file gives the same bytes.

    Parameters
    ----------
    system
        What to train; its parameters change in place.
    method
        How a batch becomes a gradient.
    optimizer
        How a gradient becomes a change.
    batch_size
        The most samples per step. The steps of an epoch differ by one sample at most: a short last
        batch would move the parameters as far as a full one, on the word of a few samples.
    seed
        Of the order of samples and random choices; None draws one, which `seed` then tells.
    threads
        Threads to use (None: ``PNNCORE_NUM_THREADS``, otherwise all cores); the result does not
        depend on it.
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
    finished
        Whether the last fit came to its end: not by an exception or Ctrl-C.
    validates
        Whether the last fit scores validation data.

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
        callbacks = as_callbacks(callbacks)
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
        self.memory: dict[str, FloatArray] = {}
        self._kept_for: type[methods.Method] | None = None
        self._fit_memory(memory)
        self._sums: dict[str, float] = {}
        self._steps_before = 0
        self._stopping = False
        self._fitting: int | None = None
        renew_in_children(self)
        self._divergence = ""
        self.finished = self.validates = False

    def _renew(self) -> None:
        if self._fitting is not None and self._fitting != threading.get_ident():
            # They count as lent to the thread that is gone.
            self.memory = {name: array.copy() for name, array in self.memory.items()}
            self._fitting = None

    @staticmethod
    def memory_shapes(
        system: System, method: methods.Method, optimizer: optim.Optimizer
    ) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the arrays that optimizer, cells and method keep.

        They are in `memory`.

        Raises
        ------
        CapabilityError
            If the method cannot train the system.
        ConfigError
            If one of them is something else.
        """
        check_kinds(system, method, optimizer)
        settings = json.dumps(optimizer.settings())
        kept = _core.check_pair(system.core, str(system.dtype), method.for_core(system), settings)
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
        sample_weight: Any = None,
    ) -> History:
        """Train for so many more epochs.

        Ctrl-C ends the training after the step under way and raises KeyboardInterrupt; everything
        learned is kept, and calling `fit` again goes on from there, in the middle of the epoch. So
        it is after any exception: `step` always counts what is in the parameters.

        A step that diverges is not made, and ends the fit with a `SettlingWarning`;
        `History.diverged` tells where. The parameters are those before it. A step diverges if no
        sample has finite outputs, if its mean loss is beyond 10⁹ times that of outputs of zero and
        that of the first epoch, or if it would leave parameters or moments that are not finite.

        What callbacks set (`batch_size`, `seed`, `method`, `optimizer`) holds from the next epoch
        on; what another optimizer or method keeps from step to step begins anew with it.

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
        sample_weight
            How much each sample counts (samples,), at least 0: how often an epoch draws it, on
            average, relative to the others. None: all alike.

        Returns
        -------
        History
            The history of all epochs so far.
        """
        if self._is_fitting():
            raise ConfigError(
                "a fit of this trainer is under way: a callback or another thread cannot begin "
                "one more"
            )
        epochs = positive_int(epochs, "epochs")
        check_kinds(self.system, self.method, self.optimizer)
        self.callbacks = as_callbacks(self.callbacks)
        x, y = self.system.as_batch(x, y)
        losses.check_targets(self.method.loss, y, self.system.n_out)
        if validation is not None:
            if not isinstance(validation, tuple | list) or len(validation) != 2:
                raise ConfigError("validation must be a pair (inputs, targets)")
            validation = self.system.as_batch(*validation, names=("validation x", "validation y"))
        weights = as_sample_weight(sample_weight, len(x))
        for name, array in zip(self.system.names, self.system.arrays(), strict=True):
            if not array.flags.writeable:
                raise ConfigError(
                    f"parameter {name} is read-only; training changes it in place: make it writable"
                )
            if np.may_share_memory(x, array) or np.may_share_memory(y, array):
                raise ConfigError(
                    f"the data share memory with parameter {name}, which training changes; pass a "
                    "copy"
                )
        steps = -(-len(x) // positive_int(self.batch_size, "batch_size"))
        self._check_epoch_under_way(len(x), steps)
        line = ProgressLine(epochs * steps, enabled=self.progress)
        first, last = self.epoch, self.epoch + epochs
        self._stopping, self.finished, self.history.diverged = False, False, None
        self.validates = validation is not None
        self._call(lambda callback: callback.on_start(self))
        interrupt = Interrupt()
        try:
            self._fitting = threading.get_ident()
            interrupt.begin()
            with guarded(self.system.instruments):
                while self.epoch < last and not self._stopping:
                    epoch = self._begin_epoch(x, y, validation, weights, self.epoch - first)
                    self._epoch(epoch, interrupt, line)
            self.finished = not interrupt.requested
        finally:
            interrupt.end()
            self._fitting = None
            line.close()
            self._call(lambda callback: callback.on_end(self))
        if self.history.diverged is not None:
            self._warn_of_divergence()
        if interrupt.requested:
            raise KeyboardInterrupt
        return self.history

    def _is_fitting(self) -> bool:
        """Whether a fit is under way that this one would be in the way of.

        An exception in the middle of the end of a fit may leave the mark of its thread: what counts
        is whether that thread still is in `fit`.
        """
        frame = None if self._fitting is None else sys._current_frames().get(self._fitting)
        own = sys._getframe(1)
        while frame is not None:
            if (
                frame is not own
                and frame.f_code is own.f_code
                and frame.f_locals.get("self") is self
            ):
                return True
            frame = frame.f_back
        return False

    def _check_epoch_under_way(self, samples: int, steps: int) -> None:
        """Refuse data or a batch size that the epoch under way was not begun with."""
        # A checkpoint made after the last step of an epoch has all its steps: only its end is
        # missing.
        if self.step > steps:
            raise ShapeError(
                f"the epoch under way is at step {self.step}, but these data make {steps} steps"
            )
        seen = self._sums.get("samples", 0)
        if self.step and seen != self.step * samples // steps:
            raise ShapeError(
                f"the epoch under way has seen {seen:.0f} samples in {self.step} steps, but these "
                "data and batch_size "
                f"would have made it {self.step * samples // steps}: go on with those that it was "
                "begun with"
            )

    def _fit_memory(self, wanted: dict[str, tuple[int, ...]]) -> None:
        """Make the arrays that optimizer, cells and method keep.

        Those that are there and fit stay.
        """
        # What another kind of method kept under the same names is none of this one's.
        same, self._kept_for = self._kept_for is type(self.method), type(self.method)
        if same and {name: array.shape for name, array in self.memory.items()} == wanted:
            return
        held = {
            name: array
            for name, array in self.memory.items()
            if array.shape == wanted.get(name) and (same or not name.startswith("method/"))
        }
        self.memory = {
            name: held.get(name, np.zeros(shape, self.system.dtype))
            for name, shape in wanted.items()
        }
        own = [name for name in self.memory if name.startswith("method/")]
        if not held.keys() >= set(own):
            arrays = [self.memory[name] for name in own]
            _core.initialise_memory(
                self.system.core,
                self.method.for_core(self.system, seed=self.seed),
                arrays,
                self.seed,
            )

    def _call(self, run: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            run(callback)

    def _begin_epoch(
        self,
        x: FloatArray,
        y: FloatArray,
        validation: tuple[FloatArray, FloatArray] | None,
        weights: npt.NDArray[np.float64] | None,
        done: int,
    ) -> Epoch:
        check_kinds(self.system, self.method, self.optimizer)
        self.seed = as_seed(self.seed)
        self._fit_memory(self.memory_shapes(self.system, self.method, self.optimizer))
        return Epoch(
            x=x,
            y=y,
            validation=validation,
            system=self.system,
            method=self.method,
            steps_of=self.method.for_core(self.system, seed=self.seed, threads=self.threads),
            order=order_of(len(x), weights, self.seed, self.epoch),
            rates=self.optimizer.rates(self.system.names, self.epoch),
            optimizer=json.dumps(self.optimizer.settings()),
            batch_size=positive_int(self.batch_size, "batch_size"),
            seed=self.seed,
            threads=as_threads(self.threads),
            single=bool(self.system.instruments)
            or any(type(c).on_step is not Callback.on_step for c in self.callbacks),
            done=done,
        )

    def _epoch(self, epoch: Epoch, interrupt: Interrupt, line: ProgressLine) -> None:
        """Finish the epoch under way, or stop between two of its steps."""
        steps, instruments = epoch.steps, epoch.system.instruments
        start = time.perf_counter()
        while self.step < steps:
            with retraced(instruments):
                divergence = self._leg(epoch)
            if divergence is not None:
                self.history.diverged = self.epoch, self.step
                self._divergence = (
                    f"training diverged in step {self.step + 1} of epoch {self.epoch + 1}: "
                    f"{divergence}. "
                    "The parameters are those before that step"
                )
                self._stopping = True
                return
            if epoch.single:
                self._call(lambda callback: callback.on_step(self))
            self._call(lambda callback: callback.on_pause(self))
            line.update(
                epoch.done * steps + self.step,
                f"epoch {self.epoch + 1}  loss {self._mean('loss'):.4f}",
            )
            if (interrupt.requested or self._stopping) and self.step < steps:
                self._stopping = True
                return
        self._finish_epoch(epoch, time.perf_counter() - start, line)
        self._stopping = self._stopping or interrupt.requested

    def _leg(self, epoch: Epoch) -> str | None:
        """Make steps for a while, which the core counts in `step` and `_sums`.

        Return why the next diverges, if so.
        """
        # Other threads may look at the system between two legs.
        with epoch.system.lock:
            return _core.train(
                epoch.system.core,
                epoch.system.lent(),
                list(self.memory.values()),
                epoch.x,
                epoch.y,
                epoch.order,
                method=epoch.steps_of,
                optimizer=epoch.optimizer,
                rates=epoch.rates,
                batch_size=epoch.batch_size,
                record=vars(self),
                before=self._steps_before,
                steps=1 if epoch.single else epoch.steps - self.step,
                seconds=_LEG_SECONDS,
                first_epoch=self._first_loss(),
                seed=epoch.seed,
                threads=epoch.threads,
            )

    def _first_loss(self) -> float:
        """Return the mean loss of the first epoch; 0 where there was none."""
        loss = abs(self.history.rows[0]["loss"]) if self.history.rows else 0.0
        return loss if np.isfinite(loss) else 0.0

    def _mean(self, key: str, over: str = "usable") -> float:
        count = self._sums[over]
        return self._sums[key] / count if count else float("nan")

    def _finish_epoch(self, epoch: Epoch, seconds: float, line: ProgressLine) -> None:
        score, labels = float("nan"), epoch.y.ndim == 1
        if epoch.validation is not None:
            with retraced(epoch.system.instruments):
                score = epoch.method.score(epoch.system, *epoch.validation, threads=epoch.threads)
        sums, names = self._sums, epoch.system.names
        written = sum(
            epoch.system.params[name].size
            for name, rate in zip(names, epoch.rates, strict=True)
            if rate > 0
        )
        # Local losses leave no outputs to count hits by.
        has_accuracy = labels and (sums["scored"] > 0 or sums["usable"] == 0)
        row = self.history.row(
            epoch=self.epoch + 1,
            loss=self._mean("loss"),
            accuracy=self._mean("correct", "samples") if has_accuracy else float("nan"),
            validation=score,
            free_sweeps=self._mean("free_sweeps", "samples"),
            other_sweeps=self._mean("other_sweeps", "samples"),
            writes=epoch.steps * written,
            seconds=seconds,
            **{key: sums[key] for key in _SUMMED},
        )
        changes = {
            "epoch": self.epoch + 1,
            "step": 0,
            "_steps_before": self._steps_before + epoch.steps,
            "_sums": {},
        }
        # At once: an exception finds the epoch either under way or finished.
        _core.finish_epoch(vars(self), changes, self.history.rows, row)
        rate = sums["samples"] / seconds if seconds > 0 else float("nan")
        parts = [f"epoch {self.epoch:3d}", f"loss {row['loss']:.4f}"]
        if has_accuracy:
            parts.append(f"accuracy {100 * row['accuracy']:.2f} %")
        if epoch.validation is not None:
            parts.append(f"validation {100 * score:.2f} %" if labels else f"validation {score:.4f}")
        parts += [
            text for callback in self.callbacks if (text := callback.describe(self)) is not None
        ]
        line.log("  ".join([*parts, f"{rate:,.0f} samples/s"]))
        # No next step sees what the last one of an epoch has done, if this was the last epoch.
        if np.isfinite(score) and score < -_FARTHEST_SCORE:
            self.history.diverged, self._stopping = (self.epoch, 0), True
            self._divergence = (
                f"training diverged by the end of epoch {self.epoch}: validation finds R² = "
                f"{score:.1e}"
            )
        self._call(lambda callback: callback.on_epoch(self))
        # Last, since a program may turn warnings into errors.
        if blank := int(row["diverged"] + row["unbounded"]):
            warnings.warn(
                f"in epoch {self.epoch} {blank} phases diverged or had no minimum; their samples "
                "taught nothing. "
                "Smaller rates or beta may help",
                SettlingWarning,
                stacklevel=4,
            )

    def _warn_of_divergence(self) -> None:
        warnings.warn(
            f"{self._divergence}. Lower the rate of {self.optimizer!r}, and begin anew or from a "
            "checkpoint",
            SettlingWarning,
            stacklevel=3,
        )

    def save(self, path: str | Path) -> None:
        """Write everything that training goes on from to one file.

        The file is written beside the target, flushed, and renamed: a kill at any moment leaves
        either the old or the new file. The old one is kept with ``.prev`` added to its name. Wall
        times are left out, so that equal runs give equal files.

        Where there is a file, the new one has its permissions and, as far as allowed, its owner. A
        symbolic link is followed: the file that it points to is written, and the old one kept
        beside that.

        Raises
        ------
        OSError
            If the file cannot be written (a full disk, say), or something else than a file is
            there, such as a directory, a pipe or a device; what is there is untouched.
        DataError
            If a parameter, or an array of optimizer or method, holds NaN or infinity, or another
            optimizer or method was set within an epoch: it holds from the next one on. What is
            there is untouched.
        """
        path = as_path(path)
        # Between two legs of a fit that another thread is in: parameters, memory and counts are
        # then of one step.
        check_kinds(self.system, self.method, self.optimizer)
        with self.system.lock:
            if self.step == 0:
                self._fit_memory(self.memory_shapes(self.system, self.method, self.optimizer))
            _checkpoint.write(self, path)
        for instrument in self.system.instruments:
            instrument.checkpoint_made(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        system: System | None = None,
        method: methods.Method | None = None,
        loss: losses.Loss | None = None,
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
            For a system of the user's own, which no file can hold: an equal one, whose parameters
            are overwritten. One of pnncore must be as the file says.
        method
            For a method of the user's own, which no file can hold: an equal one.
        loss
            For a method of pnncore with a loss of the user's own: an equal one.
        optimizer
            For an optimizer with a schedule of the user's own.
        threads, callbacks, progress
            As for `Trainer`; files do not keep them.

        Raises
        ------
        CheckpointError
            If the file is damaged, truncated, no checkpoint, does not fit the system, holds NaN or
            infinity in a parameter, or says anything that a trainer would not say of itself; it
            says which.
        FileNotFoundError
            If there is no file.
        """
        path = as_path(path)
        if system is not None:
            instance(system, System, "system", "a pnncore System or None")
        if method is not None:
            instance(method, methods.Method, "method", "a pnncore Method or None")
        if method is not None and loss is not None:
            raise ConfigError("a method that is passed has its loss: leave loss out")
        if loss is not None:
            instance(loss, losses.Loss, "loss", "a pnncore.losses.Loss or None")
        if optimizer is not None:
            instance(optimizer, optim.Optimizer, "optimizer", "a pnncore Optimizer or None")
        return _checkpoint.read(
            cls,
            path,
            system=system,
            method=method,
            loss=loss,
            optimizer=optimizer,
            threads=as_threads(threads),
            callbacks=as_callbacks(callbacks),
            progress=as_progress(progress),
        )

    def __repr__(self) -> str:
        under_way = f" + {self.step} steps" if self.step else ""
        return (
            f"Trainer({self.system!r}, {self.method!r}, {self.optimizer!r}, "
            f"batch_size={self.batch_size}, "
            f"seed={self.seed}; {self.epoch} epochs{under_way} done)"
        )
