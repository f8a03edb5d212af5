"""Handlers of the signals that would end the process without a word."""

import ctypes
import functools
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_NAMES = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGALRM",
    "SIGVTALRM",
    "SIGPROF",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGPIPE",
    "SIGTERM",
    "SIGUSR1",
    "SIGUSR2",
    "SIGPWR",
    "SIGSTKFLT",
]


@functools.cache
def ending() -> tuple[int, ...]:
    """Return the signals that end a process that has no handler, and that it can handle and go on.

    Not those of faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS): a handler in
    Python never comes to run after them.
    """
    found = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if hasattr(signal, "SIGPOLL") and not hasattr(signal, "SIGINFO"):
        # Systems with a SIGINFO ignore SIGIO unless they are asked to heed it.
        found.append(signal.SIGPOLL)
    if hasattr(signal, "SIGBREAK"):
        found.append(signal.SIGBREAK)
    if hasattr(signal, "SIGRTMIN"):
        found.extend(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
    valid = signal.valid_signals()
    return tuple(int(number) for number in found if number in valid)


class Handlers:
    """One handler for all signals that would end the process, where nobody else handles them.

    Parameters
    ----------
    handle
        Called in the main thread with the number of the signal and the frame.
    """

    def __init__(self, handle: Callable[[int, FrameType | None], Any]) -> None:
        self._handle = handle
        self._numbers: set[int] = set()

    def install(self) -> None:
        """Handle them from now on; only the main thread can, in others nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ending():
            if signal.getsignal(number) is signal.SIG_DFL and not _has_handler_in_c(number):
                self._numbers.add(number)
                try:
                    signal.signal(number, self._handle)
                except (ValueError, OSError):
                    # Another interpreter of the process, or a system that keeps the signal for
                    # itself.
                    self._numbers.discard(number)

    def restore(self) -> None:
        """Handle them no more; one that somebody else handles now stays so."""
        if threading.current_thread() is not threading.main_thread():
            return
        while self._numbers:
            number = self._numbers.pop()
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL)


def _has_handler_in_c(number: int) -> bool:
    """Whether code in C handles the signal unknown to Python, as `faulthandler.register` does."""
    try:
        current = ctypes.pythonapi.PyOS_getsig
    except AttributeError:
        return False
    current.restype, current.argtypes = ctypes.c_void_p, [ctypes.c_int]
    return current(number) is not None
