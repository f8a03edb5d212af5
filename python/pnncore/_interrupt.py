"""Ctrl-C that stops between two steps instead of anywhere."""

import signal
import threading
import weakref
from types import FrameType, TracebackType
from typing import ClassVar


class Interrupt:
    """While active, the first Ctrl-C only sets `requested`; a second one raises KeyboardInterrupt at once.

    Only in the main thread and where Python's own handler is in place: a program with a handler of its own keeps it.
    """

    # Weak: where the handler of another signal raises in the middle of `__exit__`, Ctrl-C is not kept from anybody.
    _current: ClassVar["weakref.ref[Interrupt] | None"] = None

    def __init__(self) -> None:
        self.requested = False
        self._active = False

    def __enter__(self) -> "Interrupt":
        if Interrupt.current() is not None:
            return self
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _handle):
            self._active = True
            Interrupt._current = weakref.ref(self)
            signal.signal(signal.SIGINT, _handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._active = False
            Interrupt.forget()

    @classmethod
    def current(cls) -> "Interrupt | None":
        """Return the one that is active, if any."""
        return None if cls._current is None else cls._current()

    @classmethod
    def pending(cls) -> bool:
        """Whether Ctrl-C was pressed in what the main thread is in, and has not been answered yet."""
        active = cls.current()
        return active is not None and active.requested

    @classmethod
    def forget(cls) -> None:
        """Give Ctrl-C back to Python: at the end, or in a process that was forked, where the steps are not its own."""
        cls._current = None
        # A handler that the program has set meanwhile stays.
        if signal.getsignal(signal.SIGINT) is _handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _handle(number: int, frame: FrameType | None) -> None:
    active = Interrupt.current()
    if active is None:
        Interrupt.forget()
        raise KeyboardInterrupt
    if active.requested:
        raise KeyboardInterrupt
    active.requested = True
