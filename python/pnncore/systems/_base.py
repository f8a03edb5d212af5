"""What all systems share: parameters, settling, prediction."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore import _core, _signal_plot
from pnncore._config import Registered
from pnncore._convert import (
    FloatArray,
    as_dtype,
    as_fields,
    as_inputs,
    as_repeat,
    as_targets,
    as_threads,
    instance,
    number,
    one_of,
    shown,
)
from pnncore._processes import renew_in_children
from pnncore._scores import labels_of, score
from pnncore.errors import CapabilityError, ConfigError, ShapeError
from pnncore.losses import check_targets
from pnncore.settling import Settled, Settling, Status, warn_of_unsettled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pnncore.instruments._driver import Driver


@dataclass(frozen=True)
class Outline:
    """How large a system would be.

    Attributes
    ----------
    shapes
        Those of its parameters, by name.
    dtype
        Theirs.
    constants
        How many numbers are drawn from its seed beside them, such as the elements of a scattering
        medium.
    """

    shapes: dict[str, list[int]]
    dtype: np.dtype[Any]
    constants: int = 0


class System(Registered, family="system"):
    """Base of all systems: the physics, with its parameters.

    Attributes
    ----------
    params
        The parameters by name: NumPy arrays of the system's dtype, writable in place.
    memory
        What the physics keeps from one step of training to the next, by name, such as how far
        phases have drifted; zero at first, and empty for most systems. Steps of training change it;
        experiments read it, and checkpoints hold it.
    n_in
        The number of inputs.
    takes_fields
        Whether inputs are complex amplitudes of a field.
    core
        The physics, as the compiled core knows it.
    lock
        Held during every experiment: several threads may use a system, one at a time.
    """

    params: dict[str, FloatArray]
    memory: dict[str, FloatArray]

    def __init__(self, core: _core.System, dtype: npt.DTypeLike) -> None:
        self.core = core
        self.n_in, self.takes_fields = core.takes()
        # Parameters are lent to the core for one experiment at a time.
        self.lock = threading.RLock()
        self.dtype = as_dtype(dtype)
        specs = core.specs()
        self.names = [name for name, _ in specs]
        self.shapes = {name: tuple(shape) for name, shape in specs}
        self.params = {name: np.zeros(shape, self.dtype) for name, shape in specs}
        self.memory_shapes = {name: tuple(shape) for name, shape in core.memory()}
        self.memory = {
            name: np.zeros(shape, self.dtype) for name, shape in self.memory_shapes.items()
        }
        renew_in_children(self)

    def _renew(self) -> None:
        # Free, or held by the thread that forked, for it can be acquired again.
        if self.lock.acquire(blocking=False):
            self.lock.release()
            return
        self.lock = threading.RLock()
        # The old ones count as lent to the thread that is gone.
        self.params = {name: np.array(array) for name, array in self.params.items()}
        self.memory = {name: np.array(array) for name, array in self.memory.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as configuration, parameters and memory.

        `CapabilityError` for a system that has no configuration.
        """
        return restore, (self.to_config(), *self.copied_arrays())

    def copied_arrays(self) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Return copies of parameters and memory by name, checked as `arrays` does."""
        params = zip(self.names, self.arrays(), strict=True)
        memory = zip(self.memory_shapes, self.kept(), strict=True)
        return {k: v.copy() for k, v in params}, {k: v.copy() for k, v in memory}

    @property
    def n_out(self) -> int:
        """The number of outputs."""
        return int(self.core.layers()[-1])

    @property
    def n_params(self) -> int:
        """The number of parameters, all arrays together."""
        return sum(array.size for array in self.params.values())

    @property
    def instruments(self) -> "list[Driver]":
        """The drivers of what is no simulation."""
        return []

    def methods(self) -> list[str]:
        """Return the methods that can train this system."""
        return list(self.core.methods())

    def arrays(self) -> list[FloatArray]:
        """Return the parameters in the order of the core, checked.

        Raises
        ------
        ConfigError, ShapeError
            If a parameter was removed, or replaced by an array of another dtype, shape or memory
            layout.
        """
        return _checked(self.params, "params", "parameter", self.shapes, self.dtype)

    def kept(self) -> list[FloatArray]:
        """Return the arrays of `memory` in the order of the core, checked as `arrays` does."""
        return _checked(self.memory, "memory", "memory", self.memory_shapes, self.dtype)

    def lent(self) -> list[FloatArray]:
        """Return what an experiment borrows: the parameters, then the memory."""
        return self.arrays() + self.kept()

    def clip(self) -> None:
        """Bring parameters that were set from outside into the ranges of their cells."""
        with self.lock:
            _core.clip(self.core, self.arrays())

    def as_rows(self, x: Any, name: str = "x") -> FloatArray:
        """Return inputs as the core borrows them, a row to a sample: all finite, of `dtype`.

        Where the system takes fields, they are complex numbers of that precision.
        """
        convert = as_fields if self.takes_fields else as_inputs
        return convert(x, self.n_in, self.dtype, name)

    def as_sample(self, x: Any) -> FloatArray:
        """Return one sample (n_in,) as `as_rows` does; `ShapeError` for several."""
        if np.shape(x) != (self.n_in,):
            raise ShapeError(f"x must be one sample ({self.n_in},), got shape {np.shape(x)}")
        return self.as_rows([x])

    def as_batch(
        self, x: Any, y: Any, *, names: tuple[str, str] = ("x", "y")
    ) -> tuple[FloatArray, FloatArray]:
        """Return inputs and targets as the core borrows them.

        The errors of the conversion say what to do, and call the arrays by these names.
        """
        x = self.as_rows(x, names[0])
        if len(x) == 0:
            raise ShapeError(f"{names[0]} holds no samples")
        return x, as_targets(y, len(x), self.n_out, self.dtype, names[1])

    def settle(
        self,
        x: Any,
        y: Any = None,
        *,
        beta: float | None = None,
        loss: str = "squared-error",
        settling: Settling | None = None,
        threads: int | None = None,
    ) -> Settled:
        """Settle a batch, and return its steady states.

        Parameters
        ----------
        x
            Inputs (samples, n_in).
        y, beta
            Labels or targets, and the strength with which `loss` nudges the outputs towards them,
            from the free state. Both or none.
        loss
            ``"squared-error"`` or ``"cross-entropy"``.
        settling
            How to settle; by default each sample to 1e-4 of its largest state; nudged, to 0.25 % of
            its displacement.
        threads
            Threads to use; the result does not depend on it.

        Returns
        -------
        Settled
            States, energy, residual, sweeps and status of every sample. Samples that diverge, or
            whose nudged energy has no minimum (beta <= -1 for the squared error on a Hopfield
            network), are reported by their status, not by an exception.
        """
        if (y is None) != (beta is None):
            raise ConfigError(
                "y and beta go together: both for a nudged phase, none for the free one"
            )
        beta = None if beta is None else number(beta, "beta")
        x = self.as_rows(x)
        if y is not None:
            y = as_targets(y, len(x), self.n_out, self.dtype)
        name, how, threads = _name(loss), _json(settling), as_threads(threads)
        if y is not None:
            check_targets(loss, y, self.n_out)
        with self.lock:
            found = _core.settle(self.core, self.lent(), x, y, beta, name, how, threads)
        for name in ("energy", "residual"):
            if found[name] is None:
                found[name] = np.full(len(x), np.nan)
        return Settled(**found)

    def plot(self, x: Any, axes: "Axes | None" = None) -> "Figure":
        """Draw what one sample does: inputs, what every layer makes of them, and outputs.

        Needs matplotlib. Notebooks show the figure; ``.savefig("it.png")`` writes it.

        Parameters
        ----------
        x
            The inputs (n_in,).
        axes
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.figure.Figure
            What was drawn on.
        """
        row = self.as_sample(x)
        quantity, signals = self._signals(row)
        shown = [("inputs", None if self.takes_fields else row), *signals]
        strips = [(name, None if values is None else values[0]) for name, values in shown]
        return _signal_plot.draw(type(self).__name__, quantity, strips, axes)

    def _signals(self, x: FloatArray) -> tuple[str, list[tuple[str, FloatArray | None]]]:
        """Return what is drawn of samples: its name, and the values of every layer by name."""
        states = self.settle(x).states
        names = [f"layer {k}" for k in range(1, len(states))]
        return "state", list(zip([*names, "outputs"], states, strict=True))

    def predict(
        self,
        x: Any,
        *,
        settling: Settling | None = None,
        repeat: int = 0,
        threads: int | None = None,
    ) -> FloatArray:
        """Return outputs (samples, n_out): of the free steady state, or of a pass through a stack.

        Samples that do not settle are reported by a `SettlingWarning`; the outputs of those that
        diverge are NaN.

        Parameters
        ----------
        x
            Inputs (samples, n_in).
        settling
            How to settle; by default each sample to 1e-4 of its largest state.
        repeat
            The number of the measurement: simulated noise is that of the same row at the same
            number, always, and another at each number. 0, 1, 2, ... measure again and again.
        threads
            Threads to use; the result does not depend on it.
        """
        x = self.as_rows(x)
        how, repeat, threads = _json(settling), as_repeat(repeat), as_threads(threads)
        with self.lock:
            outputs, status = _core.predict(self.core, self.lent(), x, how, repeat, threads)
        warn_of_unsettled(status, stacklevel=3)
        return outputs

    def _at_rest(self, x: Any, threads: int | None = None) -> Settled:
        """Settle as `settle` does, warn of samples that do not, and make lost states NaN."""
        settled = self.settle(x, threads=threads)
        warn_of_unsettled(settled.status, stacklevel=4)
        lost = np.isin(settled.status, (Status.DIVERGED, Status.UNBOUNDED))
        for layer in settled.states:
            layer[lost] = np.nan
        return settled

    def classify(
        self,
        x: Any,
        *,
        settling: Settling | None = None,
        repeat: int = 0,
        threads: int | None = None,
    ) -> npt.NDArray[np.int64]:
        """Return for each sample the label of its largest output, as `predict` finds it.

        A sample whose outputs are not finite has no label: -1 stands for it, and a
        `SettlingWarning` counts them.
        """
        return labels_of(self.predict(x, settling=settling, repeat=repeat, threads=threads))

    def score(
        self,
        x: Any,
        y: Any,
        *,
        settling: Settling | None = None,
        repeat: int = 0,
        threads: int | None = None,
    ) -> float:
        """Return accuracy (labels) or the coefficient of determination R² (targets) of `predict`.

        R² is one minus the squared error over that of the best constant; 1 is perfect. A sample
        whose outputs are not finite is a miss, and R² with one is minus infinity; a
        `SettlingWarning` counts them.
        """
        x, y = self.as_batch(x, y)
        return score(self.predict(x, settling=settling, repeat=repeat, threads=threads), y)

    def in_full_precision(self) -> "System":
        """Return a system that rounds nothing where it multiplies, with these parameters.

        The system itself, where it rounds nothing.
        """
        return self

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal system, as plain data; checkpoints keep it."""
        raise CapabilityError(
            f"{type(self).__name__} cannot be rebuilt from a file; pass system= when loading"
        )

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "System":
        """Return the system of a `to_config` dictionary, its name left out."""
        raise CapabilityError(
            f"{cls.__name__} cannot be rebuilt from a file; pass system= when loading"
        )

    @classmethod
    def outline(cls, settings: dict[str, Any]) -> Outline:
        """Return how large the system of a `to_config` dictionary would be, its name left out.

        As it stands, it makes the system: its configuration lists every parameter, and is as large
        as the system.
        """
        made = cls.from_config(settings)
        return Outline({name: list(shape) for name, shape in made.shapes.items()}, made.dtype)


def from_config(config: dict[str, Any]) -> System:
    """Return the system of a `System.to_config` dictionary; `ConfigError` for anything else."""
    kind, settings = System.chosen(config)
    try:
        return kind.from_config(settings)
    except KeyError as missing:
        raise ConfigError(f"the configuration of a {kind.__name__} misses {missing}") from None


def outline(config: dict[str, Any]) -> Outline:
    """Return how large the system of a `System.to_config` dictionary would be."""
    kind, settings = System.chosen(config)
    try:
        return kind.outline(settings)
    except KeyError as missing:
        raise ConfigError(f"the configuration of a {kind.__name__} misses {missing}") from None


def restore(
    config: dict[str, Any], params: dict[str, FloatArray], memory: dict[str, FloatArray]
) -> System:
    """Return the system of a configuration with these parameters and this memory."""
    return with_arrays(from_config(config), params, memory)


def with_arrays(
    system: System, params: dict[str, FloatArray], memory: dict[str, FloatArray]
) -> System:
    """Return a system, with these parameters and this memory written into it."""
    for own, given in ((system.params, params), (system.memory, memory)):
        for name, array in given.items():
            own[name][...] = array
    return system


def _checked(
    values: Any, attribute: str, kind: str, shapes: dict[str, tuple[int, ...]], dtype: np.dtype[Any]
) -> list[FloatArray]:
    """Return arrays in the order of their shapes.

    An error names the first that the core cannot borrow.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{attribute} must be a dictionary of arrays, got {shown(values)}")
    missing = [name for name in shapes if name not in values]
    unknown = [name for name in values if name not in shapes]
    if missing or unknown:
        raise ConfigError(
            f"{attribute} must be of {list(shapes)}; missing {missing}, unknown {unknown}"
        )
    for name, shape in shapes.items():
        array = values[name]
        if isinstance(array, np.ma.MaskedArray):
            raise ConfigError(f"{kind} {name} must be a {dtype} array, got a masked one")
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise ConfigError(f"{kind} {name} must be a {dtype} array, got {got}")
        if array.shape != shape:
            raise ShapeError(f"{kind} {name} must have shape {shape}, got {array.shape}")
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ConfigError(
                f"{kind} {name} must be C-contiguous and aligned; set it with "
                f"{attribute}[{name!r}][...] = values"
            )
    return [values[name] for name in shapes]


def _name(loss: str) -> str:
    one_of(loss, "loss", ("squared-error", "cross-entropy"))
    return f'"{loss}"'


def _json(settling: Settling | None) -> str:
    if settling is None:
        return Settling().to_json()
    return instance(settling, Settling, "settling", "a pnncore.Settling").to_json()
