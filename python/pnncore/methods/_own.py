"""Methods of a user's own: what a step is given, and what the core calls."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pnncore import _core, losses
from pnncore._convert import (
    FloatArray,
    as_list,
    as_numbers,
    as_settings,
    has_masked,
    number,
    one_of,
    shown,
)
from pnncore.errors import CapabilityError, ConfigError, DataError, ShapeError
from pnncore.settling import Settling, Status

if TYPE_CHECKING:
    from pnncore.methods._base import Method
    from pnncore.systems import System

Boundary = tuple[Literal["nudged", "clamped", "forced"], float]


@dataclass(frozen=True)
class NewParameters:
    """What a step returns that wants new values of the parameters, and not a gradient.

    Parameters
    ----------
    values
        The values by name, of all parameters.
    """

    values: Mapping[str, npt.ArrayLike]


class SettledPhases:
    """Phases of a batch on a system that settles: the free one, and those that were asked for.

    Attributes
    ----------
    outputs
        The outputs (samples, n_out) of every phase, the free one first; NaN where a sample has no
        steady state.
    usable
        Of which samples (samples,) all phases mean something; the others contribute nothing to
        `read`.
    """

    def __init__(self, experiment: "Experiment", phases: _core.Phases) -> None:
        self._experiment, self._phases = experiment, phases
        found = phases.outputs(experiment.system.core, experiment.x)
        self.outputs: list[FloatArray] = found[0]
        self._status, self._sweeps = found[1], found[2]
        self.usable: npt.NDArray[Any] = np.all(
            ~np.isin(self._status, (Status.DIVERGED, Status.UNBOUNDED)), axis=1
        )

    def states(self, phase: int) -> list[FloatArray]:
        """Return the states (samples, units) of every layer in a phase; 0 is the free one."""
        if phase not in range(len(self.outputs)):
            raise ConfigError(f"phase must be in 0..{len(self.outputs)}, got {shown(phase)}")
        return self._phases.states(phase, self._experiment.x)

    def read(self, weights: Sequence[float]) -> dict[str, FloatArray]:
        """Return the local rule by parameter.

        The sum over phases of weight times dE/dθ, a mean over samples.

        Parameters
        ----------
        weights
            One for each phase, the free one first. Those of a gradient sum to zero.
        """
        own = [number(weight, "every weight") for weight in weights]
        if len(own) != len(self.outputs):
            raise ShapeError(
                f"weights must be {len(self.outputs)}, one for each phase, got {len(own)}"
            )
        experiment = self._experiment
        arrays = self._phases.read(
            experiment.system.core,
            experiment._arrays(),
            experiment.x,
            experiment.y,
            own,
            experiment._threads,
        )
        return dict(zip(experiment.system.names, arrays, strict=True))


class Experiment:
    """What the step of a method of a user's own can ask of the physics: see `Method.step`.

    Attributes
    ----------
    system
        The system.
    params
        The parameters by name: copies, which nobody may write to.
    x
        The inputs (samples, n_in).
    y
        The labels (samples,), or the targets (samples, n_out).
    memory
        The arrays that `Method.memory` began with, by name, to change in place. A step that fails
        or diverges changes nothing.
    step
        How many steps have been made before.
    """

    def __init__(
        self,
        steps: "OwnSteps",
        params: Any,
        kept: Any,
        memory: Any,
        x: FloatArray,
        y: Any,
        step: int,
    ) -> None:
        self._steps, self._method, self._threads = steps, steps.method, steps.threads
        self.system = steps.system
        for array in (*params, x, y):
            array.flags.writeable = False
        self.params: dict[str, FloatArray] = dict(zip(self.system.names, params, strict=True))
        self._kept = list(kept)
        self.memory: dict[str, FloatArray] = dict(
            zip((name for name, _ in steps.shapes), memory, strict=True)
        )
        self.x: FloatArray = x
        self.y: npt.NDArray[Any] = y
        self.step = step
        self._runs, self._counts = 0, [0, 0, 0, 0]
        self._pass: tuple[_core.Pass, list[FloatArray]] | None = None
        self._sent, self._over = 0, False
        # The outputs at the parameters of the step, and how every phase of every sample ended
        # there.
        self._outputs: FloatArray | None = None
        self._ends: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]] = []

    @functools.cached_property
    def targets(self) -> FloatArray:
        """The targets (samples, n_out): of labels, one at the label and zero elsewhere."""
        return self.y if self.y.ndim == 2 else np.eye(self.system.n_out, dtype=self.x.dtype)[self.y]

    @functools.cached_property
    def random(self) -> "np.random.Generator":
        """A generator of random numbers that depends on seed and number of the step alone."""
        return np.random.default_rng(
            np.random.SeedSequence(self._steps.seed, spawn_key=(1, self.step))
        )

    def measure(
        self,
        params: Mapping[str, npt.ArrayLike] | None = None,
        noise: Sequence[npt.ArrayLike | None] | None = None,
    ) -> FloatArray:
        """Run the system once on the batch, and return its outputs (samples, n_out).

        NaN where a sample diverged.

        Parameters
        ----------
        params
            Other values, by name, of some or all parameters.
        noise
            Of a stack: for each layer a signal (samples, outputs of the layer) that is added to
            what it puts out, or None.
        """
        added, arrays = [] if noise is None else self._injected(noise), self._arrays(params)
        run = _core.run_pass(
            self.system.core,
            arrays,
            self.x,
            added,
            self._steps.settling,
            self._steps.seed,
            (self.step, self._next()),
            self._threads,
        )
        outputs, status, sweeps = run.outputs(self.system.core, self.x)
        self._pass, self._sent = (run, arrays), 0
        self._counts[2] += self.system.core.operations() * len(self.x)
        if params is None and noise is None:
            self._note(outputs, status, sweeps)
        return outputs

    def signals(self) -> list[Any]:
        """Return what the last `measure` found after every layer of a stack.

        Arrays (samples, outputs of the layer); None after a layer that gives a field.
        """
        return self._last()[0].signals(self.system.core, self.x)

    def backward(
        self,
        errors: npt.ArrayLike,
        how: Literal["twins", "physics"] = "twins",
        feedback: Sequence[npt.ArrayLike] = (),
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """Send errors of outputs back through a stack, at the signals of the last `measure`.

        The parameters are those of it, too.

        Samples whose outputs are not finite teach nothing.

        Parameters
        ----------
        errors
            dL/d(outputs) (samples, n_out), such as `errors` returns.
        how
            ``"twins"``: by the derivatives of the twins. ``"physics"``: hardware that can be run
            backwards answers itself.
        feedback
            In the place of the transposed weights of the linear maps, matrices (outputs, inputs),
            the first one first.

        Returns
        -------
        gradient, dx
            The gradient by parameter, and dL/dx (samples, n_in).
        """
        one_of(how, "how", ("twins", "physics"))
        own = self._like(errors, (len(self.x), self.system.n_out), "errors")
        matrices = [self._like(matrix, None, f"feedback[{k}]") for k, matrix in enumerate(feedback)]
        run, arrays = self._last()
        # Each time that errors go through hardware is a read of its own, with noise of its own.
        at = (self.step, self._next(0)) if self._sent and how == "physics" else None
        dx, found = _core.send_back(
            run, self.system.core, arrays, own, how == "physics", matrices, at, self._threads
        )
        self._sent += how == "physics"
        self._counts[2] += self.system.core.operations() * len(self.x)
        self._counts[3] += len(self.x) if how == "physics" else 0
        return dict(zip(self.system.names, found, strict=True)), dx

    def settle(
        self, *boundaries: Boundary, start: Sequence[npt.ArrayLike] | None = None
    ) -> SettledPhases:
        """Settle the batch in the free phase, and from there under conditions at the outputs.

        Parameters
        ----------
        boundaries
            ``("nudged", beta)``: the loss, beta strong, is added to the energy. ``("clamped",
            eta)``: outputs are held at o + η (y - o), with o the free outputs. ``("forced",
            strength)``: a constant force of minus strength times dL/do at the free outputs.
        start
            Where the free phase starts: the states (samples, units) of every layer, such as
            `SettledPhases.states` returns; by default at rest, all of them zero. Where there is
            more than one steady state it is what chooses.
        """
        for boundary in boundaries:
            if (
                not isinstance(boundary, tuple)
                or len(boundary) != 2
                or not isinstance(boundary[0], str)
            ):
                raise ConfigError(
                    f'every boundary must be a pair such as ("nudged", 0.2), got {shown(boundary)}'
                )
            number(boundary[1], f"the strength of {boundary[0]!r}")
        if self._steps.own_loss is not None:
            raise CapabilityError(
                "settle() nudges by the squared error or by the cross-entropy: a loss of one's "
                "own acts through "
                "errors(), or as that of a method of pnncore"
            )
        phases = _core.run_phases(
            self.system.core,
            self._arrays(),
            self.x,
            self.y,
            list(boundaries),
            None if start is None else self._layers(start),
            self._steps.loss,
            self._steps.settling,
            self._steps.seed,
            (self.step, self._next(1 + len(boundaries))),
            self._threads,
        )
        settled = SettledPhases(self, phases)
        self._note(settled.outputs[0], settled._status, settled._sweeps)
        return settled

    def _layers(self, start: Sequence[npt.ArrayLike]) -> list[FloatArray]:
        sizes = self.system.core.layers()
        start = as_list(start, "start", "the states of every layer")
        if len(start) != len(sizes):
            raise ShapeError(f"start must be the states of {len(sizes)} layers, got {len(start)}")
        layers = zip(start, sizes, strict=True)
        return [
            self._like(own, (len(self.x), n), f"start[{k}]") for k, (own, n) in enumerate(layers)
        ]

    def losses(self, outputs: npt.ArrayLike) -> FloatArray:
        """Return the loss (samples,) of every sample, for outputs (samples, n_out)."""
        return self._loss(outputs)[0]

    def errors(self, outputs: npt.ArrayLike) -> FloatArray:
        """Return dL/d(outputs) (samples, n_out), with L the mean of the losses over the batch.

        Zero for samples whose outputs are not finite.
        """
        return self._loss(outputs)[1]

    def _loss(self, outputs: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        own = self._like(outputs, (len(self.x), self.system.n_out), "outputs", finite=False)
        kept = np.all(np.isfinite(own), axis=1, keepdims=True)
        values, errors = losses.evaluate(self._method.loss, np.where(kept, own, 0), self.y)
        return np.where(kept[:, 0], values, np.nan), np.where(kept, errors, 0)

    def _next(self, phases: int = 1) -> int:
        """Count an experiment, and return its number."""
        if self._over:
            raise ConfigError("the step of this experiment is over: ask that of the step under way")
        self._runs += 1
        self._counts[0] += phases
        self._counts[1] += phases * len(self.x)
        return self._runs - 1

    def _note(
        self, outputs: FloatArray, status: npt.NDArray[np.uint8], sweeps: npt.NDArray[np.uint32]
    ) -> None:
        """Keep a copy of what the trainer takes losses and counts from."""
        if self._outputs is None:
            self._outputs = outputs.copy()
        self._ends.append((status, sweeps))

    def _last(self) -> tuple[_core.Pass, list[FloatArray]]:
        if self._pass is None:
            self.measure()
        assert self._pass is not None
        return self._pass

    def _like(
        self, value: npt.ArrayLike, shape: tuple[int, ...] | None, name: str, *, finite: bool = True
    ) -> FloatArray:
        """Return an array of the system's dtype.

        A gradient that is not finite is told as a divergence.
        """
        array = np.asarray(value)
        if shape not in (None, array.shape) or array.dtype.kind not in "biuf" or has_masked(value):
            raise ShapeError(
                f"{name} must be real numbers of shape {shape}, got {array.dtype} of {array.shape}"
            )
        with np.errstate(over="ignore"):
            own = np.ascontiguousarray(array, dtype=self.x.dtype)
        if finite and not np.isfinite(own).all():
            raise DataError(f"{name} must be finite in {self.x.dtype}")
        return own

    def _arrays(self, params: Mapping[str, npt.ArrayLike] | None = None) -> list[FloatArray]:
        named = self.params if params is None else self._named(params, "params", self.params)
        return [*named.values(), *self._kept]

    def _named(
        self, values: Any, name: str, others: Mapping[str, FloatArray] | None
    ) -> dict[str, FloatArray]:
        """Return arrays of all parameters; those that are not given are the others, or missing."""
        given = as_settings(values, name)
        unknown = [key for key in given if key not in self.params]
        missing = [key for key in self.params if key not in given] if others is None else []
        if unknown or missing:
            raise ConfigError(
                f"{name} must be of {list(self.params)}; missing {missing}, unknown {unknown}"
            )
        full = given if others is None else {**others, **given}
        return {
            key: self._like(full[key], own.shape, f"{name}[{key!r}]", finite=others is not None)
            for key, own in self.params.items()
        }

    def _injected(self, noise: Sequence[npt.ArrayLike | None]) -> list[FloatArray | None]:
        measured = self.signals()
        if not measured:
            raise CapabilityError(
                f"noise is added to the layers of a Stack; {type(self.system).__name__} has none"
            )
        if len(noise) != len(measured):
            raise ShapeError(
                f"noise must be {len(measured)} signals, one for each layer, got {len(noise)}"
            )
        for place, (added, signal) in enumerate(zip(noise, measured, strict=True), start=1):
            if added is not None and signal is None:
                raise CapabilityError(
                    f"noise of layer {place} must be None: it gives a field, which nothing reaches"
                )
        return [
            None if added is None else self._like(added, signal.shape, f"noise[{place}]")
            for place, (added, signal) in enumerate(zip(noise, measured, strict=True))
        ]

    def _found(self, found: Any) -> "Found":
        """Return what the core takes of a step."""
        if isinstance(found, tuple):
            raise ConfigError(
                "step must return the gradient by parameter, got a tuple: backward returns "
                "(gradient, dx), of which the gradient is the first"
            )
        is_change = isinstance(found, NewParameters)
        name = "the new parameters" if is_change else "the gradient"
        values = list(self._named(found.values if is_change else found, name, None).values())
        if self._outputs is None:
            self.measure()
        assert self._outputs is not None
        if set(self.memory) != {key for key, _ in self._steps.shapes}:
            raise ConfigError(
                f"memory must stay what memory() returned, {self._steps.shapes}, got "
                f"{list(self.memory)}"
            )
        memory = [
            self._like(self.memory[key], tuple(shape), f"memory[{key!r}]", finite=False)
            for key, shape in self._steps.shapes
        ]
        self._over = True
        status, sweeps = (np.concatenate(ends, axis=1) for ends in zip(*self._ends, strict=True))
        return Found(is_change, values, memory, self._outputs, status, sweeps, tuple(self._counts))


@dataclass(frozen=True)
class Found:
    """What a step leaves, as the core reads it."""

    is_change: bool
    values: list[FloatArray]
    memory: list[FloatArray]
    outputs: FloatArray
    status: Any
    sweeps: Any
    counts: tuple[int, ...]


class OwnSteps:
    """The steps of a method of a user's own on one system, as the core calls them."""

    def __init__(self, method: "Method", system: "System", seed: int, threads: int | None) -> None:
        self.method, self.system, self.seed, self.threads = method, system, seed, threads
        self.name, self.needs = type(method).__name__, list(method.needs)
        self.own_loss = (
            losses.Evaluated(method.loss, system.n_out)
            if isinstance(method.loss, losses.Loss)
            else None
        )
        self.loss = json.dumps(method.loss if self.own_loss is None else "squared-error")
        self.settling = getattr(method, "settling", Settling()).to_json()
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        given = as_settings(method.memory(system, random), "what memory() returns")
        self.initial = [
            _kept(array, f"memory()[{name!r}]", system.dtype) for name, array in given.items()
        ]
        self.shapes = [
            (name, list(array.shape)) for name, array in zip(given, self.initial, strict=True)
        ]

    def run(self, params: Any, kept: Any, memory: Any, x: FloatArray, y: Any, step: int) -> Found:
        """Make a step."""
        experiment = Experiment(self, params, kept, memory, x, y, step)
        live = [array for array in self.system.params.values() if array.flags.writeable]
        try:
            # They are lent to the core: what a step wants of them, it returns.
            for array in live:
                array.flags.writeable = False
            return experiment._found(self.method.step(experiment))
        finally:
            for array in live:
                array.flags.writeable = True
            experiment._over = True


def _kept(value: Any, name: str, dtype: np.dtype[Any]) -> FloatArray:
    """Return an array of memory as the system's dtype keeps it; `ConfigError` where it cannot."""
    array = as_numbers(value, name, dtype=None, refusal=ConfigError)
    kept = np.ascontiguousarray(array, dtype=dtype)
    if array.ndim == 0 or (
        array.dtype.kind in "iub" and not np.array_equal(kept.astype(array.dtype), array)
    ):
        raise ConfigError(
            f"{name} must be an array of numbers that {dtype} holds, got {shown(value)}"
        )
    return kept
