"""How a callable is called: here, on a thread that a deadline is kept for, or in a process that can be killed."""

import contextlib
import multiprocessing
import pickle
import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from pnncore.errors import ConfigError

Function = Callable[..., Any]
Late = Callable[[Any, str], None]


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
        """Return what the function returns, or raise what it raises; `LateError` at the deadline."""

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
    """Calls on one daemon thread, which never has more than one call; the deadline is kept by the caller.

    A call that hangs cannot be stopped inside a process. The next one waits for it, as long as for an answer; what it
    then answers is given to `late`, and to nobody else.
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
            self._thread = threading.Thread(target=_serve, args=arguments, daemon=True, name="pnncore-instrument")
            self._thread.start()
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
        self._late(ticket, "it returned" if error is None else repr(error))

    def close(self) -> None:
        """See `Channel.close`; a thread whose call hangs stays, and is waited for before the next call."""
        if self._waiting is not None:
            with contextlib.suppress(queue.Empty):
                ticket, error, _ = self._answers.get_nowait()
                self._waiting = None
                self._late(ticket, "it returned" if error is None else repr(error))
        if self._thread is not None and self._waiting is None:
            self._requests.put(None)
            self._thread = None


def _serve(fn: Function, requests: "queue.SimpleQueue[Any]", answers: "queue.SimpleQueue[Any]") -> None:
    while (request := requests.get()) is not None:
        ticket, args = request
        try:
            answers.put((ticket, None, fn(*args)))
        except BaseException as error:
            answers.put((ticket, error, None))


class Isolated(Channel):
    """Calls in a process of its own, which is killed at the deadline: the only way to stop a call that hangs."""

    def __init__(self, fn: Function, timeout: float | None) -> None:
        try:
            pickle.dumps(fn)
        except Exception as error:
            raise ConfigError(
                f'isolation="process" needs a callable that can be pickled, such as a function of a module; got '
                f"{fn!r}: {error}"
            ) from None
        self._fn = fn
        self._timeout = timeout
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Any = None

    def call(self, ticket: Any, args: tuple[Any, ...]) -> Any:
        """See `Channel.call`; the deadline begins when the process is ready."""
        if self._process is None or not self._process.is_alive():
            self._start()
        try:
            self._pipe.send(args)
            if not self._pipe.poll(self._timeout):
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

    def _start(self) -> None:
        self._kill()
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve_process, args=(self._fn, theirs), daemon=True)
        self._process.start()
        theirs.close()
        # Importing takes a while, which is no fault of the instrument.
        if not self._pipe.poll(60):
            self._kill()
            raise ConnectionError("its process did not start within 60 s")
        try:
            self._pipe.recv()
        except EOFError:
            self._kill()
            guard = "if __name__ == '__main__':"
            raise ConnectionError(f"its process ended while it started; a script needs the guard {guard}") from None

    def _kill(self) -> int | None:
        if self._process is None:
            return None
        self._process.kill()
        self._process.join(10)
        code: int | None = self._process.exitcode
        self._pipe.close()
        self._process = self._pipe = None
        return code

    def close(self) -> None:
        """See `Channel.close`."""
        self._kill()


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
            answer = ("connection", f"{type(error).__name__}: {error}")
        except BaseException as error:
            answer = ("error", f"{type(error).__name__}: {error}")
        try:
            pipe.send(answer)
        except (BrokenPipeError, OSError):
            return
        except Exception as error:
            pipe.send(("error", f"its answer cannot be pickled: {error}"))
