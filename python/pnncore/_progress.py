"""A progress line for terminals and notebooks; silent elsewhere."""

import sys
import time
from typing import TextIO

_WIDTH = 24


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _is_watched(stream: TextIO) -> bool:
    """Return whether somebody sees how lines are rewritten: in a terminal, or in a notebook."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel.")


class ProgressLine:
    """One line that is rewritten in place, with what is done and the time that is left.

    Parameters
    ----------
    total
        Units of work in all.
    enabled
        None: only if the stream is a terminal or a notebook.
    """

    def __init__(
        self, total: int, *, enabled: bool | None = None, stream: TextIO | None = None
    ) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.enabled = _is_watched(self.stream) if enabled is None else enabled
        self.total = max(total, 1)
        self._start = time.monotonic()
        self._drawn = 0.0
        self._first: int | None = None
        self._length = 0

    def update(self, done: int, text: str) -> None:
        """Redraw, at most ten times a second."""
        now = time.monotonic()
        if not self.enabled or now - self._drawn < 0.1:
            return
        if self._first is None:
            self._first, self._start = done, now
        self._drawn = now
        filled = _WIDTH * done // self.total
        bar = "#" * filled + "." * (_WIDTH - filled)
        rate = (done - self._first) / (now - self._start) if now > self._start else 0.0
        left = f"ETA {_clock((self.total - done) / rate)}" if rate > 0 else "ETA -"
        self._write(f"[{bar}] {100 * done // self.total:3d} %  {text}  {left}")

    def close(self) -> None:
        """Erase the line."""
        if self.enabled and self._length:
            self._write("")
            self.stream.write("\r")
            self.stream.flush()

    def log(self, text: str) -> None:
        """Print a line that stays, above the progress line."""
        if self.enabled:
            self._write(text)
            self.stream.write("\n")
            self._length = 0
            self._drawn = 0.0

    def _write(self, text: str) -> None:
        self.stream.write("\r" + text.ljust(self._length))
        self._length = len(text)
        self.stream.flush()
