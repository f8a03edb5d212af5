"""Every way out of a run leads through the safe state, except SIGKILL, a fault and a power cut."""

import atexit
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

from pnncore._interrupt import Interrupt
from pnncore.instruments import _channel
from pnncore.instruments._driver import Driver
from pnncore.instruments._signals import Handlers
from pnncore.instruments._state import State

# Until they are closed, also where nobody else refers to them any more.
_open: set[Driver] = set()

# How often the way to the safe state is tried again where handlers of signals raise.
_TRIES = 10

# The runs under way: the thread, and what it uses.
_runs: list[tuple[int, Driver]] = []


def close_at_exit(driver: Driver) -> None:
    """Close the driver when the interpreter ends, where that is left to do."""
    _follow_forks()
    if driver.path is None and driver.policy.safe_state is None:
        return
    _end_well()
    for closed in [other for other in _open if other.state is State.CLOSED]:
        _open.remove(closed)
    _open.add(driver)
    driver.on_change = update_handlers
    update_handlers()


def _end_well() -> None:
    """Have all closed when the interpreter ends, before what was registered until now."""
    if not _open and not _runs:
        atexit.unregister(_close_all)
        atexit.register(_close_all)


def _close_all() -> None:
    others = _of_other_threads()
    # Threads that go on while the interpreter ends would be stopped in the middle of a shot.
    each_whatever_happens(lambda driver: driver.halt(1), others)
    until = time.monotonic() + max((driver.policy.safe_seconds for driver in others), default=0.0)
    while _of_other_threads() and time.monotonic() < until:
        time.sleep(0.005)
    each_whatever_happens(Driver.close, list(_open))


def each_whatever_happens(run: Callable[[Driver], Any], drivers: Iterable[Driver]) -> None:
    """Run something for each instrument, whatever the others do; raise the first failure."""
    first: BaseException | None = None
    for driver in drivers:
        try:
            run(driver)
        except BaseException as error:
            first = first if first is not None else error
    if first is not None:
        raise first


@contextlib.contextmanager
def guarded(drivers: Sequence[Driver]) -> Iterator[None]:
    """Bring the instruments to their safe states at the end, however it comes.

    Signals then end the process.
    """
    if not drivers:
        yield
        return
    for driver in drivers:
        driver.check_process()
        driver.go_on()
    _follow_forks()
    _end_well()
    run = [(threading.get_ident(), driver) for driver in drivers]
    _runs.extend(run)
    try:
        update_handlers()
        yield
    finally:
        raised, left = None, _TRIES
        # No call comes before the first `try`: the handler of a signal could raise in it, and
        # nothing would be safe.
        while True:
            try:
                each_whatever_happens(Driver.rest, drivers)
                break
            except BaseException as error:
                raised, left = raised if raised is not None else error, left - 1
                if left == 0 or not any(driver.is_unrested for driver in drivers):
                    break
        try:
            if raised is not None:
                raise raised
        finally:
            _forget_run(run)


def _forget_run(run: list[tuple[int, Driver]]) -> None:
    for entry in run:
        # A process that was forked meanwhile has forgotten them.
        with contextlib.suppress(ValueError):
            _runs.remove(entry)
    update_handlers()


@contextlib.contextmanager
def retraced(drivers: Sequence[Driver]) -> Iterator[None]:
    """Where what is done here fails, go back to where the journals were.

    Tried again, it is answered from them.
    """
    marks = [driver.snapshot() for driver in drivers]
    for driver in drivers:
        driver.running += 1
    try:
        yield
    except BaseException:
        for driver, mark in zip(drivers, marks, strict=True):
            if driver.is_here:
                driver.rewind(mark)
        raise
    finally:
        for driver in drivers:
            driver.running -= 1


# Signals.


def update_handlers() -> None:
    """Handle the signals that would end the process while an instrument is in use.

    In use: from when it is opened or used in the main thread to its safe state, and while the main
    thread is in a run. Only the main thread can.
    """
    main = threading.main_thread().ident
    if any(thread == main for thread, _ in _runs) or any(
        driver.is_exposed for driver in list(_open)
    ):
        _handlers.install()
    else:
        _handlers.restore()


def _of_other_threads() -> list[Driver]:
    """Return what the runs of other threads use."""
    own = threading.get_ident()
    return list(dict.fromkeys(driver for thread, driver in list(_runs) if thread != own))


def _end(number: int, frame: FrameType | None) -> None:
    """End the process by SystemExit, which the main thread's own run ends with.

    Runs of other threads are stopped.
    """
    status = 128 + number
    try:
        each_whatever_happens(lambda driver: driver.halt(status), _of_other_threads())
    finally:
        # What is in the middle of a shot in this thread comes to it on the way out.
        each_whatever_happens(
            Driver.rest, [d for d in list(_open) if d.is_exposed and not d.shoots_here]
        )
    sys.exit(status)


_handlers = Handlers(_end)


# Processes.


@functools.cache
def _follow_forks() -> None:
    """Let processes that are forked from now on forget the instruments, which are not theirs."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    _open.clear()
    _runs.clear()
    _handlers.restore()
    Interrupt.forget()
    _channel.forget()
