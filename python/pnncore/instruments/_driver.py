"""The driver of an instrument: shots, what is done when they fail, and what is kept of them."""

import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pnncore import _core
from pnncore._convert import FloatArray, as_numbers, shown
from pnncore._interrupt import Interrupt
from pnncore._modelled import Modelled
from pnncore._records import describe, dump, load, message
from pnncore.errors import (
    BudgetError,
    CapabilityError,
    ConfigError,
    DriftWarning,
    HardwareError,
    JournalError,
    ShapeError,
    UnresolvedShot,
)
from pnncore.instruments._answers import measured, reason_of
from pnncore.instruments._channel import Channel
from pnncore.instruments._safety import SHOT, Safe
from pnncore.instruments._settings import Policy, Reference
from pnncore.instruments._state import State
from pnncore.instruments._twin import Twin

# The most bytes of inputs and parameters, or of outputs, that a record of a journal holds, with
# some left for its head.
_LARGEST = (1 << 26) - 4096


class Driver(Modelled, Safe):
    """Makes shots with a callable, one at a time, and keeps a journal of them.

    The core calls `measure`, `model` and `vjp`. See `pnncore.systems.Instrument` for what the
    settings mean.
    """

    is_exact = False

    def __init__(
        self,
        channel: Callable[[Callable[[Any, str], None]], Channel],
        specs: Sequence[tuple[str, tuple[int, ...]]],
        n_in: int,
        n_out: int,
        policy: Policy,
        twin: Twin | None,
        journal: str | None,
    ) -> None:
        super().__init__(policy)
        self.specs = [(name, list(shape)) for name, shape in specs]
        self.n_in = n_in
        self.n_out = n_out
        self.twin = twin
        self.drift: list[tuple[int, float]] = []
        self.run = uuid.uuid4().hex
        self._channel = channel(self._late)
        self.path = journal
        self._spent = [0, 0]  # shots, nanoseconds
        self._cursor: int | None = (
            None  # the next shot of the journal that answers; None: the instrument does
        )
        self._again = False  # whether the next attempt is one of the last shot
        self._owed: tuple[Any, ...] | None = None  # a result that could not be written
        self._unresolved: int | None = None  # a shot of an earlier process that has no answer
        self.running = 0  # whether shots are those of a run, which may be replayed
        self._since = 0  # shots since the last reference
        self._baseline: FloatArray | None = None
        self._open(journal)

    # What the core calls.

    def function(self, name: str) -> Callable[..., Any]:
        """Return that function of the twin; `CapabilityError` without a twin."""
        if self.twin is None:
            raise CapabilityError(
                "the instrument has no twin to take derivatives from: give it one with twin=, for "
                "instance pnncore.twins.fit(instrument), or use a method that only needs outputs"
            )
        function: Callable[..., Any] = getattr(self.twin, name)
        return function

    def measure(self, x: FloatArray, params: list[FloatArray]) -> FloatArray:
        """Return what the instrument answers to inputs (rows, n_in): outputs (rows, n_out)."""
        self.check_process()
        with self.lock, Interrupt():
            try:
                self._heed_halt()
                self._shooter = threading.get_ident()
                if self.state is State.SAFE:
                    self.on_change()
                return self._run_shots(x, params)
            except BaseException:
                # Wherever it came from: handlers of signals raise anywhere.
                if self.state is not State.FAILED:
                    self.rest()
                raise
            finally:
                self._shooter = None
                if self.state is State.SAFE:
                    self.on_change()

    def _run_shots(self, x: FloatArray, params: list[FloatArray]) -> FloatArray:
        if self.policy.batch:
            return self._run_shot(x, params)
        y = np.empty((len(x), self.n_out), x.dtype)
        for r in range(len(x)):
            y[r] = self._run_shot(x[r : r + 1], params)[0]
        return y

    # Shots.

    def _run_shot(self, x: FloatArray, params: list[FloatArray]) -> FloatArray:
        if self.running:
            reference = self.policy.reference
            if reference is not None and (self._baseline is None or self._since >= reference.every):
                self._refer(reference, x.dtype)
            y = self.shoot(x, params, "run")
            self._since += 1
        else:
            y = self.shoot(x, params, "predict")
        self._heed_interrupt()
        return y

    def _heed_interrupt(self) -> None:
        if Interrupt.pending():
            self.rest()
            raise KeyboardInterrupt

    def _refer(self, reference: Reference, dtype: np.dtype[Any]) -> None:
        x = np.array(reference.x, dtype=dtype, order="C").reshape(-1, self.n_in)
        if not self.policy.batch:
            x = x[:1]
        params = [
            np.asarray(reference.params[name], dtype=dtype).reshape(shape)
            for name, shape in self.specs
        ]
        y = self.shoot(x, params, "reference")
        self._since = 0
        if self._baseline is None:
            self._baseline = y
            return
        scale = float(np.sqrt(np.mean(np.square(self._baseline, dtype=np.float64)))) or 1.0
        drift = float(np.sqrt(np.mean(np.square(y - self._baseline, dtype=np.float64)))) / scale
        self.drift.append((self.position, drift))
        if drift <= reference.tolerance:
            return
        self.counts["drifts"] += 1
        if reference.recalibrate is None and reference.refit is None:
            text = (
                f"the reference shot is off by {drift:.3g} of its size (tolerance "
                f"{reference.tolerance:g})"
            )
            warnings.warn(text, DriftWarning, stacklevel=2)
            return
        # Where the journal goes on, the instrument was recalibrated then; a twin must be fitted
        # again.
        if reference.recalibrate is not None and not self._replays():
            reference.recalibrate(drift)
        if reference.refit is not None:
            reference.refit(drift)
        # What it answers from now on is what drifts are measured against.
        self._baseline = None
        self._refer(reference, dtype)

    def shoot(self, x: FloatArray, params: list[FloatArray], purpose: str) -> FloatArray:
        """Return the answer to a shot.

        From the journal while it replays, otherwise from the instrument.

        Raises
        ------
        HardwareError
            If all attempts failed; the instrument is then in its safe state.
        """
        self.check_process()
        data, parts = x.tobytes(), [array.tobytes() for array in params]
        theta, double = b"".join(parts), x.dtype == np.float64
        self._check_usable()
        if (
            max(len(data) + len(theta), len(x) * self.n_out * x.itemsize) > _LARGEST
            and self.journal is not None
        ):
            raise ConfigError(
                f"a shot of {len(x)} rows is too large for a journal (64 MiB); use smaller batches"
            )
        if self._cursor is not None and purpose != "check":
            answer = self._replayed(len(x), double, data, theta, purpose)
            if answer is not None:
                return np.frombuffer(answer, x.dtype).reshape(len(x), self.n_out).copy()
        if self._unresolved is not None and not self.policy.idempotent:
            raise UnresolvedShot(self._unresolved_text(self._unresolved))
        attempt = 0
        while True:
            again, self._again = attempt > 0 or self._again, False
            ticket = self._intend(again, purpose, len(x), double, data, theta)
            args = self._arguments(x, data, parts)
            begin = time.perf_counter_ns()
            try:
                y = measured(self._channel.call(ticket, args), x, self.n_out, self.policy)
            except BaseException as error:
                self._fail(ticket, time.perf_counter_ns() - begin, error)
                if (
                    isinstance(error, Exception)
                    and self.policy.idempotent
                    and attempt < self.policy.retries
                ):
                    try:
                        self._back_off(attempt)
                    except BaseException:
                        self.rest()
                        raise
                    attempt += 1
                    continue
                self.rest()
                if isinstance(error, Exception):
                    raise HardwareError(self._exhausted(error, attempt)) from error
                raise
            self._record(ticket, time.perf_counter_ns() - begin, y, double)
            return y

    def _arguments(self, x: FloatArray, data: bytes, parts: list[bytes]) -> tuple[Any, ...]:
        # Just what the journal holds, whoever changes the arrays meanwhile.
        inputs = _read_only(x.shape if self.policy.batch else x.shape[1:], x.dtype, data)
        if not self.specs:
            return (inputs,)
        held = [
            _read_only(shape, x.dtype, part)
            for (_, shape), part in zip(self.specs, parts, strict=True)
        ]
        return inputs, self._named(held)

    def _check_usable(self) -> None:
        if self.state is State.CLOSED:
            raise HardwareError("the instrument is closed; open() opens it again")
        if self._unsafe:
            raise HardwareError("safe_state failed: look at the instrument, then call reset()")
        self._settle_owed()

    def _settle_owed(self) -> None:
        """Write what was measured, and could not be written then."""
        if self._owed is not None and self.journal is not None:
            try:
                self.journal.result(*self._owed)
            except JournalError:
                # It can never be written: another process has gone on.
                self.counts["unwritten"] += 1
            self._owed = None

    def _intend(
        self, again: bool, purpose: str, rows: int, double: bool, data: bytes, theta: bytes
    ) -> tuple[int, int]:
        budget = self.policy.budget
        if budget is not None and budget.is_spent(*self._spent):
            self.rest()
            raise BudgetError(
                f"{budget} is spent: {self._spent[0]} shots, {self._spent[1] / 3.6e12:.3g} hours"
            )
        self._to(State.ARMED)
        self._spent[0] += 1
        if self.journal is None:
            shot = self.counts["attempts"]
            ticket = (shot, 0)
        else:
            try:
                width = self.n_in
                now = max(time.time_ns(), 0)
                ticket = self.journal.intend(again, purpose, now, rows, width, double, data, theta)
            except BaseException:
                self._spent[0] -= 1
                self._to(State.UNKNOWN)
                self.rest()
                raise
        self.counts["attempts"] += 1
        self._to(State.RUNNING)
        return ticket

    def _record(self, ticket: tuple[int, int], duration: int, y: FloatArray, double: bool) -> None:
        self._spent[1] += duration
        if self.journal is not None:
            record = (*ticket, duration, len(y), self.n_out, double, y.tobytes())
            try:
                self.journal.result(*record)
            except BaseException:
                self._owed = record
                self._to(State.UNKNOWN)
                self.rest()
                raise
        self.counts["results"] += 1
        self.counts["samples"] += len(y)
        # The callable itself may have asked for the safe state.
        if self.state is State.RUNNING:
            self._to(State.IDLE)

    def _fail(self, ticket: tuple[int, int], duration: int, error: BaseException) -> None:
        reason = reason_of(error)
        self.counts[reason] += 1
        self._spent[1] += duration
        if self.state in SHOT:
            self._to(State.UNKNOWN)
        if self.journal is not None:
            try:
                self.journal.fail(
                    *ticket, duration, dump({"reason": reason, "text": describe(error)})
                )
            except BaseException:
                self.rest()
                raise

    def _late(self, ticket: tuple[int, int], text: str) -> None:
        """Write down that an answer came when nobody waited any more. It is thrown away."""
        self.counts["late"] += 1
        if self.journal is not None:
            try:
                self.journal.fail(*ticket, 0, dump({"reason": "late", "text": text}))
            except JournalError:
                # The file was made anew since: it holds no such shot. The shot to come has nothing
                # to do with it.
                self.counts["unwritten"] += 1

    def _back_off(self, attempt: int) -> None:
        self.counts["retries"] += 1
        until = time.monotonic() + min(self.policy.backoff * 2.0 ** min(attempt, 1000), 60.0)
        self._heed_interrupt()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
            self._heed_interrupt()
        if self.policy.reconnect is not None:
            try:
                self.policy.reconnect()
            except Exception as error:
                raise HardwareError(f"reconnect failed: {describe(error)}") from error

    def _exhausted(self, error: Exception, attempt: int) -> str:
        tried = f"after {attempt + 1} attempts" if attempt else "at the first attempt"
        kept = f"; all that was measured is in {self.path}" if self.path else ""
        reason = reason_of(error)
        # The text of a KeyError is the key alone.
        text = describe(error) if reason == "exception" else message(error)
        return f"the instrument failed {tried}: {reason}: {text}{kept}"

    # The journal.

    def _open(self, path: str | None) -> None:
        if path is not None:
            durability = f'"{self.policy.durability}"'
            self.journal, aside = _core.Journal.append_to(path, durability)
            if aside is not None:
                warnings.warn(
                    f"{path} ended in the middle of a record; that end is in {aside}", stacklevel=4
                )
            try:
                self._begin_run(self.journal)
            except BaseException:
                self.journal.close(False)
                self.journal = None
                raise
        self._halt = None
        self._to(State.IDLE)

    def _begin_run(self, journal: _core.Journal) -> None:
        params = [[name, shape] for name, shape in self.specs]
        own = {"n_in": self.n_in, "n_out": self.n_out, "params": params, "batch": self.policy.batch}
        for _, kind, *_, text in journal.notes():
            if kind == "run-start" and (held := load(text).get("instrument")) != own:
                raise JournalError(
                    f"{self.path} holds shots of another instrument: {held}; this one is {own}"
                )
        self._spent = list(journal.spent())
        self._owed = None
        last = journal.shot(len(journal) - 1) if len(journal) else None
        open_end = last is not None and last[0] != "check" and last[4] is None and not last[5]
        self._unresolved = len(journal) - 1 if open_end else None
        start = {
            "run": self.run,
            "pnncore": _core.__version__,
            "instrument": own,
            "policy": self.policy.to_config(),
        }
        journal.note("run-start", dump(start))

    def open(self) -> None:
        """Open the instrument again after `close`."""
        self.check_process()
        with self.lock:
            if self.state is State.CLOSED:
                self._open(self.path)
                self.on_change()

    def close(self) -> None:
        """Bring the instrument to its safe state, and close its journal. It may be called twice."""
        if os.getpid() != self._process:
            return
        if not self.lock.acquire(timeout=self.policy.safe_seconds):
            # A shot hangs on another thread, which owns the journal.
            self.rest()
            return
        try:
            if self.state is State.CLOSED:
                return
            if self.state in SHOT:
                raise HardwareError("the instrument cannot be closed while it makes a shot")
            try:
                self.rest()
            finally:
                self._channel.close()
                self._to(State.CLOSED)
                journal, self.journal = self.journal, None
                if journal is not None:
                    self._close_journal(journal)
        finally:
            self.lock.release()

    def _close_journal(self, journal: _core.Journal) -> None:
        try:
            if self._owed is not None:
                journal.result(*self._owed)
                self._owed = None
            journal.note("run-stop", dump({"run": self.run, "counts": dict(self.counts)}))
        finally:
            journal.close(True)

    @property
    def position(self) -> int:
        """The number of the next shot of the run."""
        if self._cursor is not None:
            return self._cursor
        return len(self.journal) if self.journal is not None else self.counts["attempts"]

    def mark(self) -> dict[str, Any] | None:
        """Flush the journal, and return what a checkpoint keeps of it."""
        self.check_process()
        if self.journal is None:
            if self.path is not None:
                raise HardwareError(
                    "the instrument is closed: save before, or open() it, so that its journal is "
                    "known"
                )
            return None
        with self.lock:
            record, digest = self.journal.mark()
            return {"record": record, "hash": digest, **self.snapshot()}

    def snapshot(self) -> dict[str, Any]:
        """Return where the run is, as `rewind` takes it."""
        baseline = (
            None if self._baseline is None else [str(self._baseline.dtype), self._baseline.tolist()]
        )
        return {
            "shots": self.position,
            "since": self._since,
            "baseline": baseline,
            "drifts": len(self.drift),
        }

    def rewind(self, mark: dict[str, Any]) -> None:
        """Go back to where `mark` or `snapshot` were called.

        What was measured since is not measured again.

        Raises
        ------
        JournalError
            If the journal is not the one of the mark.
        """
        self.check_process()
        if self.journal is None:
            if "record" in mark:
                raise JournalError(
                    "the run was made with a journal: give the instrument that file, journal=..."
                )
            return
        with self.lock:
            if "record" in mark:
                self.journal.check_mark(mark["record"], mark["hash"])
            self._cursor = int(mark["shots"])
            self._since = int(mark["since"])
            self._baseline = None
            if mark["baseline"] is not None:
                dtype, values = mark["baseline"]
                self._baseline = np.array(values, dtype)
            del self.drift[mark["drifts"] :]

    def _replayed(
        self, rows: int, double: bool, data: bytes, theta: bytes, purpose: str
    ) -> bytes | None:
        """Return the answer that the journal holds to the next shot.

        None where it holds no more.
        """
        journal = self.journal
        assert journal is not None
        assert self._cursor is not None
        while self._cursor < len(journal):
            k = self._cursor
            known, _, intent, held, result, failed = journal.shot(k)
            aside = known == "check" or (known == "predict" and purpose != "predict")
            if aside or (result is None and (failed or k + 1 < len(journal))):
                # Shots made by hand, and those that had no answer: the run went on without them.
                self._cursor += 1
                continue
            _, (_, _, was_double, inputs) = journal.intent(intent)
            if (known, was_double, inputs, journal.params(held)) != (purpose, double, data, theta):
                if purpose == "predict":
                    # Not part of the run: it is made now, and the run goes on where it was.
                    return None
                raise JournalError(
                    f"shot {k} of {self.path} was made with other inputs or parameters: the run "
                    "that it holds is not "
                    "this one. Give the instrument another journal, or begin with the settings of "
                    "that run"
                )
            if result is None:
                # The process ended before there was an answer.
                if not self.policy.idempotent:
                    raise UnresolvedShot(self._unresolved_text(k))
                self._again, self._cursor = True, None
                return None
            self._cursor += 1
            self.counts["replayed"] += 1
            _, (_, _, _, answer) = journal.answer(result)
            return answer
        self._cursor = None
        return None

    def _replays(self) -> bool:
        """Whether the journal holds more of the run."""
        return (
            self._cursor is not None
            and self.journal is not None
            and self._cursor < len(self.journal)
        )

    def _unresolved_text(self, k: int) -> str:
        return (
            f"shot {k} of {self.path} was begun, and the process ended before its answer. Whether "
            "the instrument made "
            "it is not known; call resolve(y) with what it measured, or resolve() to make it again"
        )

    def resolve(self, y: Any) -> None:
        """Answer the last shot of the journal, which has no answer, or let it be made again."""
        self.check_process()
        with self.lock:
            journal = self.journal
            last = None if journal is None or len(journal) == 0 else journal.shot(len(journal) - 1)
            if journal is None or last is None or last[4] is not None or last[5]:
                raise ConfigError("there is no unresolved shot")
            shot, attempt = len(journal) - 1, last[1] - 1
            if y is None:
                text = dump({"reason": "unresolved", "text": "it is made again"})
                journal.fail(shot, attempt, 0, text)
            else:
                rows, double = (matrix := journal.intent(last[2])[1])[0], matrix[2]
                y = self._resolved(
                    y, (rows, self.n_out), np.dtype(np.float64 if double else np.float32)
                )
                journal.result(shot, attempt, 0, rows, self.n_out, double, y.tobytes())
            self._unresolved = None

    def _resolved(self, y: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> FloatArray:
        if np.shape(y) != shape and (self.policy.batch or np.shape(y) != shape[1:]):
            raise ShapeError(f"y must have shape {shape}, as the shot's answer, got {np.shape(y)}")
        found = as_numbers(y, "y", None, ConfigError)
        if found.dtype.kind == "b":
            raise ConfigError(f"y must be the numbers that were measured, got {shown(y)}")
        with np.errstate(over="ignore"):
            found = found.astype(dtype).reshape(shape)
        if not np.isfinite(found).all():
            raise ConfigError(f"y must be the numbers that were measured, all finite in {dtype}")
        return found

    def twin_arrays(self) -> dict[str, FloatArray]:
        """Return what of the twin a checkpoint keeps."""
        return {} if self.twin is None else self.twin.arrays()

    def checkpoint_made(self, path: str) -> None:
        """Write into the journal that a checkpoint refers to it."""
        if self.journal is not None:
            self.journal.note("checkpoint-ref", dump({"path": path}))


def _read_only(shape: Sequence[int], dtype: np.dtype[Any], data: bytes) -> FloatArray:
    # A copy: NumPy's results may depend on how arrays are aligned.
    view = np.ndarray(shape, dtype, data).copy().view()
    view.flags.writeable = False
    return view
