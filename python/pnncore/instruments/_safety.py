"""Safe states: what brings an instrument to its own, whatever happens meanwhile."""

import _thread
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from pnncore import _core
from pnncore._records import describe, dump
from pnncore.errors import HardwareError, JournalError
from pnncore.instruments._settings import Policy
from pnncore.instruments._state import TRANSITIONS, State

# The states of a shot.
SHOT = (State.ARMED, State.RUNNING)

# How often the safe state is tried again where the handler of a signal raises before it was called.
_TRIES = 10


class Safe:
    """The states of an instrument, and the way to the safe one.

    Parameters
    ----------
    policy
        The settings of the instrument.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.lock = threading.RLock()
        self.state = State.CLOSED
        self.counts: Counter[str] = Counter()
        self.journal: _core.Journal | None = None
        self.on_change: Callable[[], None] = lambda: (
            None
        )  # called where the instrument may be exposed, or no more
        self._process = os.getpid()
        self._unsafe = False  # whether safe_state failed, and nobody has looked
        self._raised: BaseException | None = (
            None  # by the handler of a signal on the way to the safe state
        )
        self._halt: int | None = None  # the status that the run of another thread is to end with
        self._shooter: int | None = None  # the thread that makes a shot

    @property
    def is_here(self) -> bool:
        """Whether this is the process that made the instrument, not one that was forked from it."""
        return os.getpid() == self._process

    def check_process(self) -> None:
        """Refuse a process that was forked from the one that made it: the instrument has one user.

        To be called before any lock is taken.
        """
        if not self.is_here:
            raise HardwareError(
                "the instrument belongs to the process that made it; make another one here"
            )

    def halt(self, status: int) -> None:
        """Bring the instrument to its safe state; end another thread's run before its next shot."""
        self._halt = status
        self.rest()

    @property
    def shoots_here(self) -> bool:
        """Whether this very thread is in the middle of a shot."""
        return self._shooter == threading.get_ident()

    def go_on(self) -> None:
        """Forget that the run was to end: another one begins."""
        self._halt = None

    def _heed_halt(self) -> None:
        status = self._halt
        if status is not None and threading.current_thread() is not threading.main_thread():
            self._halt = None
            raise SystemExit(status)

    def _to(self, state: State, why: str | None = None) -> None:
        before = self.state
        if state not in TRANSITIONS[before]:
            raise HardwareError(f"the instrument cannot go from {before.value} to {state.value}")
        self.state = state
        # Intents and results stand for the others.
        if state in SHOT or (before in SHOT and state is State.IDLE) or state is before:
            return
        if self.journal is not None:
            note = {"from": before.value, "to": state.value} | ({"why": why} if why else {})
            try:
                self.journal.note("state", dump(note))
            except (OSError, JournalError):
                # The disk is full, or the file was lost: safety comes first.
                self.counts["unwritten"] += 1

    def rest(self) -> bool:
        """Bring the instrument to its safe state.

        Returns whether that worked. It may be called at any time.

        Where the handler of a signal raises meanwhile, that is raised when `safe_state` has been
        called. A process that was forked from the one that made the instrument leaves it alone.
        """
        if not self.is_here:
            return False
        for left in reversed(range(_TRIES)):
            called = self.counts["safe_states"]
            try:
                found = self._rest()
                break
            except BaseException as error:
                self._raised = self._raised if self._raised is not None else error
                if self.counts["safe_states"] > called or not left:
                    found = False
                    break
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        return found

    def _rest(self) -> bool:
        if not self.lock.acquire(timeout=self.policy.safe_seconds):
            # A shot hangs on another thread. The state stays what that thread says.
            self.counts["overtaken"] += 1
            return self._call_safe_state() is None
        try:
            if self.state in (State.CLOSED, State.SAFE):
                return True
            if self.state in SHOT:
                self._to(State.UNKNOWN)
            error = self._call_safe_state()
            if error is not None:
                self.counts["unsafe"] += 1
                self._unsafe = True
                self._to(State.FAILED, error)
                warnings.warn(f"safe_state failed: {error}", RuntimeWarning, stacklevel=2)
                return False
            self._to(State.SAFE)
            self.on_change()
            return True
        finally:
            self.lock.release()

    def _call_safe_state(self) -> str | None:
        """Call `safe_state`, and return what went wrong."""
        if self.policy.safe_state is None:
            return None
        found, raised = call_within(self.policy.safe_state, self.policy.safe_seconds)
        self.counts["safe_states"] += 1
        self._raised = self._raised if self._raised is not None else raised
        return found

    @property
    def is_exposed(self) -> bool:
        """Whether the instrument has to be brought to its safe state before the process ends."""
        used = self._shooter is not None or self.state not in (State.SAFE, State.CLOSED)
        return used and self.policy.safe_state is not None

    @property
    def is_unrested(self) -> bool:
        """Whether the instrument has not been brought to its safe state since its last shot."""
        return self.is_here and self.state not in (State.SAFE, State.CLOSED, State.FAILED)

    def reset(self) -> None:
        """Say that somebody has looked at the instrument, and that it can be used again."""
        self.check_process()
        with self.lock:
            self._unsafe = False
            if self.state is State.FAILED:
                self._to(State.IDLE, "reset")


def call_within(fn: Callable[[], Any], seconds: float) -> tuple[str | None, BaseException | None]:
    """Call a function on a thread of its own and wait for so long.

    Returns
    -------
    str or None
        What went wrong with it.
    BaseException or None
        What the handler of a signal raised meanwhile: it does not end the wait.
    """
    done: list[BaseException | None] = []
    # A bare lock: an Event whose wait is broken off may keep a lock of its own for ever.
    ended = _thread.allocate_lock()
    ended.acquire()

    def run() -> None:
        try:
            fn()
            done.append(None)
        except BaseException as error:
            done.append(error)
        finally:
            ended.release()

    until, raised = time.monotonic() + seconds, None
    try:
        # Not `threading.Thread`, whose start the handler of a signal can break off half-way.
        _thread.start_new_thread(run, ())
    except RuntimeError:
        # No thread is started any more when the interpreter ends.
        run()
    while True:
        try:
            if done or (left := until - time.monotonic()) <= 0 or ended.acquire(timeout=left):
                break
        except BaseException as error:
            raised = raised if raised is not None else error
    if not done:
        return f"it did not return within {seconds:g} s", raised
    return None if done[0] is None else describe(done[0]), raised
