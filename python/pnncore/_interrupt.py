"""Ctrl-C that stops between two steps instead of anywhere."""

import signal
import threading
from types import FrameType, TracebackType
from typing import ClassVar


class Interrupt:
    """While active, the first Ctrl-C only sets `requested`; a second one raises KeyboardInterrupt at once.

    Only in the main thread and where Python's own handler is in place: a program with a handler of its own keeps it.
    Call `end` whatever happened in `begin`: a signal may raise anywhere in it.
    """

    current: ClassVar["Interrupt | None"] = None

    def __init__(self) -> None:
        self.requested = False
        self._active = False

    def begin(self) -> None:
        """Take the handler over, unless another one that is active has it."""
        if Interrupt.current is not None and Interrupt.current._active:
            return
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            Interrupt.current, self._active = self, True
            signal.signal(signal.SIGINT, self._handle)

    def end(self) -> None:
        """Give the handler back."""
        if self._active:
            self._active = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
            Interrupt.current = None

    def __enter__(self) -> "Interrupt":
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @classmethod
    def pending(cls) -> bool:
        """Whether Ctrl-C was pressed in what the main thread is in, and has not been answered yet."""
        return cls.current is not None and cls.current._active and cls.current.requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._active:
            # Left over: an exception came in the middle of `end`.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
