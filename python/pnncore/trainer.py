"""The training loop."""

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnncore import _core, methods, optim, systems
from pnncore._convert import FloatArray, Seed, as_progress, as_seed, as_threads, positive_int
from pnncore._interrupt import Interrupt
from pnncore._progress import ProgressLine
from pnncore.callbacks import Callback
from pnncore.errors import CheckpointError, ConfigError, SettlingWarning, ShapeError
from pnncore.history import History
from pnncore.instruments._guard import guarded, retraced
from pnncore.systems import System

# The core works this long between two looks at signals, callbacks and the clock.
_LEG_SECONDS = 0.05
_SCHEMA = 3


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
        for value, kind, name in (
            (system, System, "system"),
            (method, methods.Method, "method"),
            (optimizer, optim.Optimizer, "optimizer"),
        ):
            if not isinstance(value, kind):
                raise ConfigError(f"{name} must be a pnncore {kind.__name__}, got {value!r}")
        if not isinstance(callbacks, Sequence):
            raise ConfigError(f"callbacks must be a list of pnncore.Callback objects, got {callbacks!r}")
        callbacks = list(callbacks)
        if any(not isinstance(callback, Callback) for callback in callbacks):
            raise ConfigError(f"callbacks must be pnncore.Callback objects, got {callbacks!r}")
        kept = _core.check_pair(system.core, str(system.dtype), method.to_json(), json.dumps(optimizer.settings()))
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
        self.memory = {
            f"{kind}/{name}": np.zeros(system.shapes[name], system.dtype)
            for kind in optimizer.memory_names
            for name in system.names
        }
        if kept:
            self.memory |= {name: np.zeros(shape, system.dtype) for name, shape in kept}
            own = [self.memory[name] for name, _ in kept if name.startswith("method/")]
            if own:
                _core.initialise_memory(system.core, method.to_json(), own, self.seed)
        self._sums: dict[str, float] = {}
        self._steps_before = 0
        self._stopping = False

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

        Raises
        ------
        OSError
            If the file cannot be written (a full disk, say); the old file is untouched.
        """
        try:
            system: dict[str, Any] | None = self.system.to_config()
        except TypeError:
            system = None
        metadata = {
            "schema": _SCHEMA,
            "pnncore": _core.__version__,
            "system": system,
            "system_class": type(self.system).__name__,
            "method": self.method.to_config(),
            "optimizer": self.optimizer.to_config(),
            "trainer": {
                "batch_size": self.batch_size,
                "seed": self.seed,
                "epoch": self.epoch,
                "step": self.step,
                "steps_before": self._steps_before,
                "sums": self._sums,
            },
            "journals": [instrument.mark() for instrument in self.system.instruments],
        }
        tensors = {f"params/{name}": array for name, array in zip(self.system.names, self.system.arrays(), strict=True)}
        tensors |= {f"memory/{name}": array for name, array in self.memory.items()}
        tensors |= {f"history/{name}": array for name, array in self.history.to_tensors().items()}
        for k, instrument in enumerate(self.system.instruments):
            tensors |= {f"instrument/{k}/{name}": array for name, array in instrument.twin_arrays().items()}
        _core.save(str(path), json.dumps(metadata), tensors)
        for instrument in self.system.instruments:
            instrument.checkpoint_made(str(path))

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
            If the file is damaged, truncated, no checkpoint, or does not fit the system; it says which.
        FileNotFoundError
            If there is no file.
        """
        text, tensors = _core.load(str(path))
        metadata = json.loads(text)
        if metadata.get("schema") != _SCHEMA:
            raise CheckpointError(f"{path} has schema {metadata.get('schema')!r}; this pnncore reads {_SCHEMA}")
        try:
            state = metadata["trainer"]
            if system is None:
                system = _rebuild(metadata, path)
            trainer = cls(
                system,
                methods.from_config(metadata["method"]),
                optimizer if optimizer is not None else optim.from_config(metadata["optimizer"]),
                batch_size=state["batch_size"],
                seed=state["seed"],
                threads=threads,
                callbacks=callbacks,
                progress=progress,
            )
            marks = metadata.get("journals", ())
            if len(marks) != len(system.instruments):
                raise CheckpointError(
                    f"{path} was made with {len(marks)} instruments; the system has {len(system.instruments)}"
                )
            targets = {f"params/{name}": array for name, array in system.params.items()}
            targets |= {f"memory/{name}": array for name, array in trainer.memory.items()}
            for k, instrument in enumerate(system.instruments):
                twin = instrument.twin_arrays().items()
                targets |= {f"instrument/{k}/{name}": array for name, array in twin}
            for name, array in targets.items():
                saved = tensors.get(name)
                if saved is None or saved.shape != array.shape or saved.dtype != array.dtype:
                    got = "nothing" if saved is None else f"{saved.dtype} {saved.shape}"
                    raise CheckpointError(
                        f"{path} holds {got} for {name}, but the system needs {array.dtype} {array.shape}"
                    )
            for instrument, mark in zip(system.instruments, marks, strict=True):
                if mark is not None:
                    instrument.rewind(mark)
            for name, array in targets.items():
                array[...] = tensors[name]
            trainer.history = History.from_tensors(
                {name.removeprefix("history/"): array for name, array in tensors.items() if name.startswith("history/")}
            )
            trainer.epoch, trainer.step = state["epoch"], state["step"]
            trainer._steps_before, trainer._sums = state["steps_before"], state["sums"]
        except (KeyError, TypeError, ConfigError) as error:
            raise CheckpointError(f"{path} is no checkpoint that this trainer can go on from: {error!r}") from error
        return trainer

    def __repr__(self) -> str:
        under_way = f" + {self.step} steps" if self.step else ""
        return (
            f"Trainer({self.system!r}, {self.method!r}, {self.optimizer!r}, batch_size={self.batch_size}, "
            f"seed={self.seed}; {self.epoch} epochs{under_way} done)"
        )


def _rebuild(metadata: dict[str, Any], path: str | Path) -> System:
    config = metadata["system"]
    if config is None:
        raise CheckpointError(
            f"{path} was made with a system of the user's own, {metadata['system_class']}; "
            "make an equal one and pass it: Trainer.load(path, system=...)"
        )
    try:
        return systems.from_config(config)
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a system that this pnncore cannot make: {error}") from None
