"""Every way out of a run leads through the safe state, except SIGKILL and a power cut."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

from pnncore.instruments._driver import Driver
from pnncore.instruments._state import State

# Until they are closed, also where nobody else refers to them any more.
_open: set[Driver] = set()


def close_at_exit(driver: Driver) -> None:
    """Close the driver when the interpreter ends, if there is anything to do and nobody has done it before."""
    if driver.path is None and driver.policy.safe_state is None:
        return
    if not _open:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    for closed in [other for other in _open if other.state is State.CLOSED]:
        _open.remove(closed)
    _open.add(driver)


def _close_all() -> None:
    each_whatever_happens(Driver.close, list(_open))


def each_whatever_happens(run: Callable[[Driver], Any], drivers: Iterable[Driver]) -> None:
    """Run something for all instruments, each whatever the others do, and raise the first failure at the end."""
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
    """Bring the instruments to their safe states at the end, however it comes; SIGTERM then ends the process."""
    if not drivers:
        yield
        return
    with _terminable():
        try:
            yield
        finally:
            each_whatever_happens(Driver.rest, drivers)


@contextlib.contextmanager
def retraced(drivers: Sequence[Driver]) -> Iterator[None]:
    """Where what is done here fails, go back to where the journals were: tried again, it is answered from them."""
    marks = [driver.snapshot() for driver in drivers]
    for driver in drivers:
        driver.running += 1
    try:
        yield
    except BaseException:
        for driver, mark in zip(drivers, marks, strict=True):
            driver.rewind(mark)
        raise
    finally:
        for driver in drivers:
            driver.running -= 1


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit; only in the main thread, and where no other handler is in place."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    pid = os.getpid()

    def end(number: int, frame: FrameType | None) -> Any:
        if os.getpid() == pid:
            sys.exit(128 + number)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
