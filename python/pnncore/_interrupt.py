"""Ctrl-C that stops between two steps instead of anywhere."""

import signal
import threading
import weakref
from types import FrameType, TracebackType
from typing import ClassVar


class Interrupt:
    """While active, the first Ctrl-C only sets `requested`.

    A second one raises KeyboardInterrupt at once.

    Only in the main thread and where Python's own handler is in place: a program with a handler of
    its own keeps it. The handler is given back by `end`; where an exception came before that, by
    the next Ctrl-C.
    """

    # Weak: where the handler of another signal raises in the middle of `end`, Ctrl-C is not kept
    # from anybody.
    _current: ClassVar["weakref.ref[Interrupt] | None"] = None

    def __init__(self) -> None:
        self.requested = False
        self._active = False

    @classmethod
    def current(cls) -> "Interrupt | None":
        """Return the one that is active, if any."""
        found = cls._current() if cls._current is not None else None
        return found if found is not None and found._active else None

    @classmethod
    def pending(cls) -> bool:
        """Whether a Ctrl-C in what the main thread is in has not been answered yet."""
        current = cls.current()
        return current is not None and current.requested

    @classmethod
    def forget(cls) -> None:
        """Give Ctrl-C back to Python.

        At the end, or in a process that was forked, where the steps are not its own.
        """
        cls._current = None
        # A handler that the program has set meanwhile stays.
        if signal.getsignal(signal.SIGINT) is _answer:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def begin(self) -> None:
        """Take the handler over, unless another one that is active has it."""
        if Interrupt.current() is not None:
            return
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _answer):
            Interrupt._current, self._active = weakref.ref(self), True
            signal.signal(signal.SIGINT, _answer)

    def end(self) -> None:
        """Give the handler back."""
        if self._active:
            self._active = False
            Interrupt.forget()

    def __enter__(self) -> "Interrupt":
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


def _answer(number: int, frame: FrameType | None) -> None:
    active = Interrupt.current()
    if active is None:
        Interrupt.forget()
        raise KeyboardInterrupt
    if active.requested:
        raise KeyboardInterrupt
    active.requested = True
