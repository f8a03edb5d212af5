"""How a callable is called.

Here, on a thread that a deadline is kept for, or in a process that can be killed.
"""

import contextlib
import queue
import signal
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from pnncore._records import describe
from pnncore.errors import ConfigError

Function = Callable[..., Any]
Late = Callable[[Any, str], None]


# Seconds that a process may take to start.
_STARTING = 60.0


class LateError(TimeoutError):
    """There was no answer in time."""


class BusyError(RuntimeError):
    """The call before has not returned yet, so that no other can be made."""


class RemoteError(RuntimeError):
    """The callable failed in its process."""


class Channel(ABC):
    """A way to call a function."""

    @abstractmethod
    def call(self, ticket: Any, args: tuple[Any, ...]) -> Any:
        """Return what the function returns, or raise what it raises.

        `LateError` at the deadline.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of threads and processes."""


class Direct(Channel):
    """Calls on the calling thread, as long as it takes."""

    def __init__(self, fn: Function) -> None:
        self._fn = fn

    def call(self, ticket: Any, args: tuple[Any, ...]) -> Any:
        """See `Channel.call`."""
        return self._fn(*args)

    def close(self) -> None:
        """See `Channel.close`."""


class Threaded(Channel):
    """Calls on one daemon thread, which never has more than one call.

    The deadline is kept by the caller.

    A call that hangs cannot be stopped inside a process. The next one waits for it, as long as for
    an answer; what it then answers is given to `late`, and to nobody else.
    """

    def __init__(self, fn: Function, timeout: float | None, late: Late) -> None:
        self._fn = fn
        self._timeout = timeout
        self._late = late
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting: Any = None

    def call(self, ticket: Any, args: tuple[Any, ...]) -> Any:
        """See `Channel.call`; `BusyError` where the call before still hangs."""
        if self._waiting is not None:
            self._drain()
        if self._thread is None:
            arguments = (self._fn, self._requests, self._answers)
            thread = threading.Thread(
                target=_serve, args=arguments, daemon=True, name="pnncore-instrument"
            )
            thread.start()
            # Only one that has started: another is made for the next call.
            self._thread = thread
        self._waiting = ticket
        self._requests.put((ticket, args))
        try:
            answered, error, value = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise LateError(f"no answer within {self._timeout:g} s") from None
        self._waiting = None
        if answered != ticket:
            raise BusyError("an answer to another call came first")
        if error is not None:
            raise error
        return value

    def _drain(self) -> None:
        try:
            ticket, error, _ = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise BusyError("the call before has not returned yet") from None
        self._waiting = None
        self._late(ticket, "it returned" if error is None else describe(error))

    def close(self) -> None:
        """See `Channel.close`.

        A thread whose call hangs stays, and is waited for before the next call.
        """
        if self._waiting is not None:
            with contextlib.suppress(queue.Empty):
                ticket, error, _ = self._answers.get_nowait()
                self._waiting = None
                self._late(ticket, "it returned" if error is None else describe(error))
        if self._thread is not None and self._waiting is None:
            self._requests.put(None)
            self._thread = None


def _serve(
    fn: Function, requests: "queue.SimpleQueue[Any]", answers: "queue.SimpleQueue[Any]"
) -> None:
    while (request := requests.get()) is not None:
        ticket, args = request
        try:
            answers.put((ticket, None, fn(*args)))
        except BaseException as error:
            answers.put((ticket, error, None))


class Isolated(Channel):
    """Calls in a process of its own, which is killed at the deadline.

    The only way to stop a call that hangs.
    """

    def __init__(self, fn: Function, timeout: float | None) -> None:
        # Few programs need them, and they are slow to import.
        import multiprocessing
        import pickle

        try:
            pickle.dumps(fn)
        except Exception as error:
            raise ConfigError(
                'isolation="process" needs a callable that can be pickled, such as a function of '
                "a module; got "
                f"{fn!r}: {error}"
            ) from None
        self._fn = fn
        self._timeout = timeout
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Any = None
        _isolated.add(self)

    def call(self, ticket: Any, args: tuple[Any, ...]) -> Any:
        """See `Channel.call`; the deadline begins when the process is ready."""
        if self._process is None or not self._process.is_alive():
            self._start()
        try:
            self._pipe.send(args)
            if not self._answers(self._process, self._pipe, self._timeout):
                self._kill()
                raise LateError(f"no answer within {self._timeout:g} s; its process was killed")
            kind, value = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            code = self._kill()
            raise ConnectionError(f"its process ended with code {code}") from None
        except BaseException:
            # Whatever is under way must not answer the next call.
            self._kill()
            raise
        if kind == "connection":
            raise ConnectionError(value)
        if kind == "error":
            raise RemoteError(value)
        return value

    @staticmethod
    def _answers(process: Any, pipe: Any, timeout: float | None) -> bool:
        """Whether there is an answer in time; EOFError where the process has ended without one.

        Its end closes the pipe, unless a process that was forked meanwhile holds it open: so it is
        looked at, too.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 1.0 if until is None else min(1.0, max(0.0, until - time.monotonic()))
            if pipe.poll(left):
                return True
            if not process.is_alive():
                if pipe.poll(0):
                    return True
                raise EOFError
            if until is not None and time.monotonic() >= until:
                return False

    def _start(self) -> None:
        """Start a process.

        Where that fails, nothing of it is left, and the next call starts another one.
        """
        self._kill()
        pipe, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve_process, args=(self._fn, theirs), daemon=True)
        try:
            try:
                process.start()
            finally:
                theirs.close()
            self._process, self._pipe = process, pipe
            # Importing takes a while, which is no fault of the instrument.
            if not self._answers(process, pipe, _STARTING):
                raise ConnectionError(f"its process did not start within {_STARTING:g} s")
            pipe.recv()
        except BaseException as error:
            self._kill()
            pipe.close()
            if isinstance(error, EOFError | ConnectionResetError):
                guard = "if __name__ == '__main__':"
                text = f"its process ended while it started; a script needs the guard {guard}"
                raise ConnectionError(text) from None
            raise

    def forget(self) -> None:
        """Let go of the process in a fork of its parent, which would end it when it exits."""
        import multiprocessing.process

        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is not None:
            # Nothing public: the exit of a forked process ends all daemons that it believes to be
            # its own.
            multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
            pipe.close()

    def _kill(self) -> int | None:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is None:
            return None
        process.kill()
        process.join(10)
        pipe.close()
        code: int | None = process.exitcode
        return code

    def close(self) -> None:
        """See `Channel.close`."""
        self._kill()


# Those whose processes a forked process must let go of.
_isolated: "weakref.WeakSet[Isolated]" = weakref.WeakSet()


def forget() -> None:
    """Let go of all processes, in one that was forked."""
    for channel in list(_isolated):
        channel.forget()


def _serve_process(fn: Function, pipe: Any) -> None:
    # A terminal sends Ctrl-C to all processes: the parent decides what becomes of the shot.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send("ready")
    while True:
        try:
            args = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("value", fn(*args))
        except ConnectionError as error:
            answer = ("connection", describe(error))
        except BaseException as error:
            answer = ("error", describe(error))
        try:
            pipe.send(answer)
        except (BrokenPipeError, OSError):
            return
        except Exception as error:
            pipe.send(("error", f"its answer cannot be pickled: {describe(error)}"))
