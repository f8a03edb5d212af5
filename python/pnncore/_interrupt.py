"""Ctrl-C that stops between two steps instead of anywhere."""

import signal
import threading
from types import FrameType, TracebackType
from typing import ClassVar


class Interrupt:
    """While active, the first Ctrl-C only sets `requested`; a second one raises KeyboardInterrupt at once.

    Only in the main thread and where Python's own handler is in place: a program with a handler of its own keeps it.
    """

    current: ClassVar["Interrupt | None"] = None

    def __init__(self) -> None:
        self.requested = False
        self._active = False

    def __enter__(self) -> "Interrupt":
        if Interrupt.current is not None:
            return self
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._active = True
            Interrupt.current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._release()

    def _release(self) -> None:
        self._active = False
        Interrupt.current = None
        # A handler that the program has set meanwhile stays.
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @classmethod
    def pending(cls) -> bool:
        """Whether Ctrl-C was pressed in what the main thread is in, and has not been answered yet."""
        return cls.current is not None and cls.current.requested

    @classmethod
    def forget(cls) -> None:
        """Give Ctrl-C back to Python, in a process that was forked: the steps are those of its parent."""
        if cls.current is not None:
            cls.current._release()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
