"""Instruments: callables as layers, or as whole networks."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pnncore import journal as journals
from pnncore._convert import (
    FloatArray,
    as_dtype,
    as_numbers,
    as_path,
    as_settings,
    flag,
    is_integer,
    one_of,
    positive_int,
    seconds,
    shown,
)
from pnncore.devices import Device
from pnncore.errors import CapabilityError, ConfigError, ShapeError
from pnncore.instruments._channel import Channel, Direct, Isolated, Threaded
from pnncore.instruments._driver import Driver
from pnncore.instruments._guard import close_at_exit, guarded
from pnncore.instruments._report import Examination, examine
from pnncore.instruments._settings import Budget, Policy, Reference
from pnncore.instruments._state import State
from pnncore.instruments._twin import Twin
from pnncore.layers import Layer
from pnncore.systems._layer_twin import LayerTwin
from pnncore.systems._stack import Stack


@dataclass(frozen=True, repr=False)
class InstrumentLayer(Layer, listed=False):
    """The layer that an instrument is.

    Parameters
    ----------
    driver
        Makes the shots.
    device
        What its parameters are stored in.
    initial
        What they are at first.
    """

    driver: Driver
    device: Device
    initial: Mapping[str, FloatArray]

    @property
    def called(self) -> Driver:
        """What the core calls in the place of a layer of its own."""
        return self.driver

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        sizes = {"inputs": self.driver.n_in, "outputs": self.driver.n_out}
        return {"kind": "foreign", **sizes, "device": self.device.to_config()}

    def to_config(self) -> dict[str, Any]:
        """Refuse: what a callable does is in no file."""
        raise CapabilityError(
            "an instrument cannot be rebuilt from a file; pass system= when loading"
        )

    def __repr__(self) -> str:
        return f"Instrument({self.driver.n_in}, {self.driver.n_out})"


class Instrument(Stack, listed=False):
    """A callable as a layer of a `Stack`, or as a whole network.

    It may be a lab instrument or another simulator.

    Every call is a shot. Where there is a journal, its intent is written before it is made, and its
    result before anybody sees it. A shot that fails (the callable raises, hangs, returns NaN,
    another shape or dtype, values out of range, the answer to another shot) is no data: it is
    written down, counted, tried again where that is allowed, and at last ends in a `HardwareError`,
    with the instrument in its safe state and everything measured kept.

    Parameters
    ----------
    fn
        ``fn(x, params)`` returns the outputs (rows, n_out) for inputs (rows, n_in) and a dict of
        parameters; without parameters it is called as ``fn(x)``. With ``batch=False`` it takes one
        sample: (n_in,) to (n_out,). What it is given is read-only.
    n_in, n_out
        The numbers of inputs and outputs.
    params
        The initial parameters by name.
    device
        What they are stored in: limits and quantisation, for instance ``Device(lower=0, upper=5,
        levels=4096)``.
    batch
        Whether `fn` takes all samples at once.
    twin
        A model with known derivatives: a `pnncore.twins` object, or a layer with the same
        parameters. Without one, the methods that only need outputs train it.
    dtype
        What `fn` is given. In a stack, that of the stack.
    seed
        Of what methods draw.
    timeout
        Seconds that a call may take, at most a million. None: as long as it takes.
    isolation
        ``"none"`` calls in the calling thread, ``"thread"`` on another (the default with a
        timeout): a call that hangs is left behind, and no other can be made before it returns.
        ``"process"`` calls in a process of its own, which is killed at the deadline: `fn` must be
        picklable, is imported anew, and each call costs some 0.15 ms.
    idempotent
        Whether a shot may be made twice: only then a failed one is tried again.
    retries, backoff
        How often, and the seconds before the first retry; they double from one to the next, up to a
        minute.
    reconnect
        Called before every retry.
    output_range
        The smallest and the largest output that can be right; infinite where there is no end.
    echo
        For an instrument that tells what it answers to: `fn` then returns ``(outputs, e)``, and
        ``e`` must equal ``echo(x)``, for instance a checksum. Answers to other shots are told by
        it.
    safe_state
        Brings the instrument to a state that it can be left in. Called at the end of every
        `Trainer.fit` and ``with`` block, at a `HardwareError`, at `close` and at exit, after
        Ctrl-C, and after SIGTERM and all other signals that would end the process. It must be
        harmless at any time, also while a call hangs. It is not an interlock: nothing calls it
        after SIGKILL, a fault such as SIGSEGV, or a power cut.
    safe_seconds
        How long it may take.
    budget
        A `pnncore.instruments.Budget` of shots or hours.
    journal
        The file of all shots; one that exists is appended to.
    durability
        What a power cut may lose: ``"group"`` 64 shots or, while shots come, 50 ms; ``"shot"``
        nothing (about 0.5 ms a shot); ``"none"`` everything since the last checkpoint. The death of
        the process loses nothing in any.
    reference
        A `pnncore.instruments.Reference` shot, by which drifts are seen.

    Attributes
    ----------
    counts
        How often what happened: results, samples, replayed, retries, and failures by reason
        (exception, timeout, busy, late, disconnect, nan, infinite, range, shape, dtype, stale).
    state
        What is known of the instrument now.

    Raises
    ------
    JournalError
        If the journal is damaged, in use, or of another instrument.

    Examples
    --------
    >>> import numpy as np
    >>> def lab(x, params):
    ...     return np.tanh(x @ params["gain"])
    >>> bench = Instrument(lab, 2, 1, params={"gain": np.ones((2, 1))}, seed=0)
    >>> float(bench.predict([[0.5, 0.5]])[0, 0].round(4))
    0.7616
    >>> bench.counts["results"]
    1
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        n_in: int,
        n_out: int,
        *,
        params: Mapping[str, npt.ArrayLike] | None = None,
        device: Device | None = None,
        batch: bool = True,
        twin: Twin | Layer | None = None,
        dtype: npt.DTypeLike = "float64",
        seed: int | None = None,
        timeout: float | None = None,
        isolation: Literal["none", "thread", "process"] | None = None,
        idempotent: bool = False,
        retries: int = 0,
        backoff: float = 0.1,
        reconnect: Callable[[], Any] | None = None,
        output_range: tuple[float, float] | None = None,
        echo: Callable[[FloatArray], Any] | None = None,
        safe_state: Callable[[], Any] | None = None,
        safe_seconds: float = 5.0,
        budget: Budget | None = None,
        journal: str | os.PathLike[str] | None = None,
        durability: Literal["group", "shot", "none"] = "group",
        reference: Reference | None = None,
    ) -> None:
        for what, name in (
            (fn, "fn"),
            (reconnect, "reconnect"),
            (echo, "echo"),
            (safe_state, "safe_state"),
        ):
            if not callable(what) and (what is not None or name == "fn"):
                raise ConfigError(f"{name} must be callable, got {what!r}")
        one_of(durability, "durability", ("group", "shot", "none"))
        _check_kinds(device, budget, reference)
        n_in, n_out = positive_int(n_in, "n_in"), positive_int(n_out, "n_out")
        batch = flag(batch, "batch")
        initial = _initial(params, dtype)
        shapes = [(name, value.shape) for name, value in initial.items()]
        if reference is not None:
            _check_reference(reference, n_in, shapes, batch)
        if not is_integer(retries) or retries < 0:
            raise ConfigError(f"retries must be an integer, at least 0, got {retries!r}")
        if retries and not flag(idempotent, "idempotent"):
            raise ConfigError(
                "retries need idempotent=True: only a shot that may be made twice is made again "
                "where it failed"
            )
        policy = Policy(
            batch=batch,
            retries=int(retries),
            backoff=seconds(backoff, "backoff", positive=False),
            idempotent=flag(idempotent, "idempotent"),
            output_range=None if output_range is None else _interval(output_range),
            echo=echo,
            safe_state=safe_state,
            safe_seconds=seconds(safe_seconds, "safe_seconds"),
            reconnect=reconnect,
            budget=budget,
            durability=durability,
            reference=reference,
        )
        limit = None if timeout is None else seconds(timeout, "timeout")
        driver = Driver(
            _channel(fn, limit, isolation),
            shapes,
            n_in,
            n_out,
            policy,
            _as_twin(twin, dict(shapes)),
            None if journal is None else _path(journal),
        )
        close_at_exit(driver)
        self.driver = driver
        self._blocks: list[contextlib.ExitStack] = []
        self.layer = InstrumentLayer(driver, device if device is not None else Device(), initial)
        super().__init__([self.layer], dtype=dtype, seed=seed, numbered=False)

    @classmethod
    def replay(cls, path: str | os.PathLike[str], **settings: Any) -> "Instrument":
        """Return an instrument that answers from a journal, without the hardware.

        See `pnncore.journal.answer`.

        Parameters
        ----------
        path
            The journal.
        settings
            Those of `Instrument`, such as `twin`; `params` are by default those of the first shot.
        """
        held = journals.read(path)
        of = held.instrument
        first = next(held.answered(), None)
        if first is None:
            raise ConfigError(f"{os.fspath(path)} holds no answered shot")
        settings = {"params": first.params, "batch": of["batch"], "dtype": first.x.dtype} | settings
        return cls(journals.answer(path), of["n_in"], of["n_out"], **settings)

    @property
    def counts(self) -> dict[str, int]:
        """How often what happened."""
        return dict(self.driver.counts)

    @property
    def state(self) -> State:
        """What is known of the instrument now."""
        return self.driver.state

    @property
    def drift(self) -> FloatArray:
        """The drifts seen by reference shots: (number of the shot, drift), one row each."""
        return np.array(self.driver.drift, np.float64).reshape(-1, 2)

    @property
    def twin(self) -> Twin | None:
        """The model that derivatives are taken from; set it to another one at any time."""
        return self.driver.twin

    @twin.setter
    def twin(self, twin: Twin | Layer | None) -> None:
        self.driver.twin = _as_twin(twin, self.shapes)

    def rewind(self) -> None:
        """Answer from the beginning of the journal.

        A run that died goes on where it was, without a checkpoint.

        The same script, started again with the same seeds, is answered from the journal up to where
        it died, and by the instrument from there on.
        """
        if self.driver.journal is None:
            raise ConfigError(
                "there is no journal to answer from: give journal=, and open() the instrument if "
                "it is closed"
            )
        self.driver.rewind({"shots": 0, "since": 0, "baseline": None, "drifts": 0})

    def resolve(self, y: npt.ArrayLike | None = None) -> None:
        """Say what the unresolved shot at the end of the journal measured.

        None: it is made again.
        """
        self.driver.resolve(y)

    def reset(self) -> None:
        """Use the instrument again after `safe_state` failed, and somebody has looked at it."""
        self.driver.reset()

    def safe(self) -> bool:
        """Bring the instrument to its safe state now; give whether that worked."""
        self.driver.check_process()
        return self.driver.rest()

    def open(self) -> "Instrument":
        """Open the instrument again after `close`; that alone changes nothing in it."""
        self.driver.open()
        return self

    def close(self) -> None:
        """Bring the instrument to its safe state, and close its journal."""
        self.driver.close()

    def check(self, x: Any, *, repeats: int = 8, parameters: int = 32) -> Examination:
        """Examine the instrument: see `pnncore.instruments.Examination`.

        `pnncore.costs.hours` tells how long a run would take.

        Parameters
        ----------
        x
            Inputs (samples, n_in) that are typical of what it is used for.
        repeats
            Shots of the same, for noise.
        parameters
            How many parameters are moved, to find dead ones.

        Raises
        ------
        ShapeError
            For fewer than two samples.
        """
        return examine(self, x, repeats=repeats, parameters=parameters)

    def __enter__(self) -> "Instrument":
        with contextlib.ExitStack() as block:
            block.callback(self.close)
            block.enter_context(guarded([self.driver]))
            self.open()
            self._blocks.append(block.pop_all())
        return self

    def __exit__(self, *error: Any) -> None:
        self._blocks.pop().__exit__(*error)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        twin = f", twin={self.twin!r}" if self.twin is not None else ""
        return (
            f"Instrument({self.driver.n_in}, {self.driver.n_out}; "
            f"{shapes or 'no parameters'}{twin}; "
            f"{self.state.value}, {self.driver.counts['results']} results)"
        )


def _channel(
    fn: Callable[..., Any], timeout: float | None, isolation: str | None
) -> Callable[[Callable[[Any, str], None]], Channel]:
    if isolation is None:
        isolation = "none" if timeout is None else "thread"
    one_of(isolation, "isolation", ("none", "thread", "process"))
    if isolation == "none":
        if timeout is not None:
            raise ConfigError('a timeout needs isolation="thread" or "process"')
        return lambda _: Direct(fn)
    if isolation == "thread":
        return functools.partial(Threaded, fn, timeout)
    return lambda _: Isolated(fn, timeout)


def _as_twin(twin: Any, shapes: Mapping[str, tuple[int, ...]]) -> Twin | None:
    if isinstance(twin, Layer):
        twin = LayerTwin(twin)
        if twin.shapes != dict(shapes):
            raise ShapeError(
                f"the twin {twin.layer!r} has parameters {twin.shapes}, the instrument "
                f"{dict(shapes)}"
            )
    if twin is not None and not isinstance(twin, Twin):
        raise ConfigError(f"twin must be a pnncore.twins object or a layer, got {shown(twin)}")
    return twin


def _check_reference(
    reference: Reference, n_in: int, shapes: Sequence[tuple[str, tuple[int, ...]]], batch: bool
) -> None:
    shape = np.shape(reference.x)
    if shape != (n_in,) and not (batch and len(shape) == 2 and shape[1] == n_in):
        raise ShapeError(f"x of the reference must have shape ({n_in},), got {shape}")
    own = {name: np.shape(value) for name, value in reference.params.items()}
    if own != dict(shapes):
        raise ShapeError(f"params of the reference must be {dict(shapes)}, got {own}")


def _check_kinds(device: Device | None, budget: Budget | None, reference: Reference | None) -> None:
    for value, kind, name in (
        (device, Device, "device"),
        (budget, Budget, "budget"),
        (reference, Reference, "reference"),
    ):
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{name} must be a pnncore {kind.__name__}, got {value!r}")


def _initial(
    params: Mapping[str, npt.ArrayLike] | None, dtype: npt.DTypeLike
) -> dict[str, FloatArray]:
    """Return initial parameters by name, of at least one dimension."""
    given = {} if params is None else params
    if isinstance(given, Mapping):
        _check_names(list(given))
    initial = {
        name: as_numbers(value, f"parameter {name}", as_dtype(dtype), ConfigError)
        for name, value in as_settings(given, "params").items()
    }
    if scalars := [name for name, value in initial.items() if value.ndim == 0]:
        raise ShapeError(f"parameters {scalars} are scalars; make them arrays of shape (1,)")
    return initial


def _check_names(names: list[Any]) -> None:
    """Refuse names of parameters that a journal, or a file of its arrays, cannot hold."""
    for name in names:
        if (
            not isinstance(name, str)
            or not name
            or name.encode("utf-8", "replace").decode() != name
        ):
            raise ConfigError(
                f"parameters must be named by text, not empty and of Unicode alone, got {name!r}"
            )
    if {"x", "y"} & set(names):
        raise ConfigError("parameters cannot be named x or y: these are the inputs and outputs")


def _path(journal: Any) -> str:
    return as_path(os.fsdecode(journal) if isinstance(journal, bytes) else journal, "journal")


def _interval(value: Any) -> tuple[float, float]:
    try:
        lower, upper = (float(end) for end in value)
    except (TypeError, ValueError, OverflowError):
        lower, upper = 0.0, 0.0
    if not lower < upper:
        raise ConfigError(f"output_range must be (lower, upper) with lower < upper, got {value!r}")
    return lower, upper
