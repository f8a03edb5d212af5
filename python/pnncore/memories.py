"""Networks whose weights are written once to a memory that drifts, and read for a year.

A `Memory` is the statistics of a kind of cell: how far off a conductance is when it was programmed,
how it drifts, and how it fluctuates. `program` writes the weights of a network to such cells, and
returns what can be asked at any time after.

>>> import pnncore as pnn
>>> net = pnn.systems.Stack([pnn.layers.Crossbar(64, 10)], seed=0)
>>> programmed = program(net, PhaseChange(), seed=0)
>>> after_a_day = programmed.at(86400.0)
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pnncore import systems
from pnncore._convert import (
    Seed,
    as_list,
    as_repeat,
    as_seed,
    flag,
    instance,
    integer,
    number,
    one_of,
    positive_int,
    shown,
)
from pnncore._display import html_table, text_table
from pnncore.errors import CapabilityError, ConfigError
from pnncore.layers import Crossbar, Linear
from pnncore.systems import Stack
from pnncore.systems._base import restore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Mapping", "Memory", "PhaseChange", "Programmed", "Resistive", "Scores", "program"]

Array = npt.NDArray[np.float64]

#: Times from the reference time of phase-change memory to a year, in seconds.
YEAR = (20.0, 60.0, 3600.0, 86400.0, 2.6e6, 3.15e7)


# Numbers that are drawn between two looks at signals.
_PIECE = 1 << 20


def _normals(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return standard normal numbers, those of one draw, made piece by piece."""
    drawn = np.empty(shape)
    flat = drawn.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        random.standard_normal(out=flat[start : start + _PIECE])
    return drawn


@dataclass(frozen=True, kw_only=True)
class Memory(ABC):
    """Base of memories. Conductances are in units of the largest that is written.

    Parameters
    ----------
    scale
        A factor on all noise and drift: 0 is an ideal memory, 1 the measured one.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        if number(self.scale, "scale") < 0:
            raise ConfigError(f"scale must be at least 0, got {self.scale}")

    @abstractmethod
    def programming_deviation(self, g: Array) -> Array:
        """Return by how much conductances are off when they were programmed to g.

        It is a standard deviation.
        """

    def write(self, g: Array, random: np.random.Generator) -> Array:
        """Return what one pulse of programming leaves of wanted conductances g.

        No conductance is negative.
        """
        return np.maximum(
            g + self.scale * self.programming_deviation(g) * _normals(random, g.shape), 0.0
        )

    def drift(self, g: Array, random: np.random.Generator) -> Array:
        """Return the drift exponents of cells that were programmed to g.

        They are zero for cells that do not drift.
        """
        return np.zeros_like(g)

    def at(self, g: Array, exponents: Array, seconds: float) -> Array:
        """Return what conductances, g as programmed, have become."""
        return g

    def read(self, g: Array, drifted: Array, seconds: float, random: np.random.Generator) -> Array:
        """Return what is read of cells, g as programmed, that have drifted."""
        return drifted


@dataclass(frozen=True, kw_only=True)
class PhaseChange(Memory):
    """Phase-change memory of 25 µS: programming noise, drift as a power of time, 1/f noise.

    With g = G / 25 µS: programmed with σ = .26348 + 1.9650 g - 1.1731 g² µS; g(t) = g (t / 20
    s)^-ν, ν = |µ + s ξ| with µ = -.0155 ln g + .0244 within .049 and .1, and s = -.0125 ln g -
    .0059 within .008 and .045; read with σ = g(t) Q sqrt(ln((t + t_r) / (2 t_r))), Q = .0088 /
    g^.65 below .2, t_r = 250 ns.

    References
    ----------
    Joshi et al., Nat. Commun. 11, 2473 (2020); Nandakumar et al., ICECS (2019).
    """

    #: Seconds from programming to the first read, by which times of drift are measured.
    REFERENCE: ClassVar[float] = 20.0
    _FULL: ClassVar[float] = 25.0
    _LEAST: ClassVar[float] = 1e-9

    def programming_deviation(self, g: Array) -> Array:
        """See `Memory.programming_deviation`."""
        return np.asarray(np.maximum(0.26348 + 1.9650 * g - 1.1731 * g**2, 0.0) / self._FULL)

    def drift(self, g: Array, random: np.random.Generator) -> Array:
        """See `Memory.drift`."""
        log = np.log(np.maximum(g, self._LEAST))
        mean = np.clip(-0.0155 * log + 0.0244, 0.049, 0.1)
        spread = np.clip(-0.0125 * log - 0.0059, 0.008, 0.045)
        return self.scale * np.abs(mean + spread * _normals(random, g.shape))

    def at(self, g: Array, exponents: Array, seconds: float) -> Array:
        """See `Memory.at`; before the reference time nothing drifts."""
        return np.asarray(g * (max(seconds, self.REFERENCE) / self.REFERENCE) ** -exponents)

    def read(self, g: Array, drifted: Array, seconds: float, random: np.random.Generator) -> Array:
        """See `Memory.read`."""
        q = np.minimum(0.0088 / np.maximum(g, self._LEAST) ** 0.65, 0.2)
        width = 250e-9
        deviation = (
            drifted * q * np.sqrt(np.log((max(seconds, self.REFERENCE) + width) / (2 * width)))
        )
        return np.asarray(drifted + self.scale * deviation * _normals(random, g.shape))


@dataclass(frozen=True, kw_only=True)
class Resistive(Memory):
    """Resistive memory of 40 µS, one second after programming.

    The deviation is σ = .348 + 16.03 g - 43.85 g² + 45.39 g³ - 16.82 g⁴ µS.

    References
    ----------
    Wan et al., Nature 608, 504 (2022).
    """

    _FULL: ClassVar[float] = 40.0

    def programming_deviation(self, g: Array) -> Array:
        """See `Memory.programming_deviation`."""
        deviation = 0.348 + 16.030 * g - 43.853 * g**2 + 45.393 * g**3 - 16.815 * g**4
        return np.asarray(np.maximum(deviation, 0.0) / self._FULL)


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """How weights become conductances: each is the difference of two, one of which is the least.

    Parameters
    ----------
    per_column
        Whether every column has a digital scale of its own, so that its largest weight is the
        largest conductance; otherwise each layer.
    levels
        Conductances that a cell can be brought to, evenly spaced; None: any, or 16 where a weight
        has several cells.
    on_off
        The ratio of the largest conductance to the smallest, which a cell at zero weight has; None:
        cells can be switched off.
    slices
        Cells per conductance: 1, or the digits of a number to the base `levels`, the most
        significant first.
    verify
        How often a cell that is off by more than `tolerance` is written again; the best attempt is
        kept.
    tolerance
        In units of the largest conductance.
    """

    per_column: bool = True
    levels: int | None = None
    on_off: float | None = None
    slices: int = 1
    verify: int = 0
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        object.__setattr__(self, "per_column", flag(self.per_column, "per_column"))
        positive_int(self.slices, "slices")
        if self.levels is not None:
            integer(self.levels, "levels", 2, 2**24 + 1, "an integer from 2 to 2^24, or None")
        if self.base**self.slices > 2**24:
            raise ConfigError(
                f"levels to the power of slices must be at most 2^24, got {self.base} and "
                f"{self.slices}"
            )
        if self.on_off is not None and number(self.on_off, "on_off") <= 1:
            raise ConfigError(f"on_off must be above 1, got {shown(self.on_off)}")
        integer(self.verify, "verify", 0, 2**32, "an integer of at least 0")
        number(self.tolerance, "tolerance", positive=True)

    @property
    def base(self) -> int:
        """The base of the digits of several slices."""
        return 16 if self.levels is None else self.levels

    def digits(self, u: Array) -> list[tuple[float, Array]]:
        """Return the wanted conductances of the slices, each with the factor that it counts by.

        `u` are the parts of the largest weight, from 0 to 1. What a cell at zero weight conducts is
        in both conductances of a pair, and cancels.
        """
        low = 0.0 if self.on_off is None else 1 / self.on_off
        span = 1 - low
        if self.slices == 1 and self.levels is None:
            return [(1 / span, low + span * u)]
        base = self.base
        left = np.rint(u * (base**self.slices - 1)).astype(np.int64)
        parts: list[tuple[float, Array]] = []
        for k in range(self.slices):
            weight = base ** (self.slices - 1 - k)
            digit, left = left // weight, left % weight
            factor = weight * (base - 1) / (base**self.slices - 1)
            parts.append((factor / span, low + span * (digit / (base - 1))))
        return parts


@dataclass
class _Cells:
    """Cells that were written: as programmed, how they drift, by which factor they count."""

    factor: Array
    g: Array
    exponents: Array


@dataclass(frozen=True)
class Scores:
    """What `Programmed.scores` returns.

    Attributes
    ----------
    times
        In seconds after programming.
    scores
        By compensation, (times, repeats).
    """

    times: Array
    scores: dict[str, Array]

    def _rows(self) -> list[list[str]]:
        return [["seconds", *(f"{t:.3g}" for t in self.times)]] + [
            [name, *(f"{v:.4f}" for v in s.mean(1))] for name, s in self.scores.items()
        ]

    def __repr__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw scores against time, with their deviations.

        Needs matplotlib. Written to `path` where one is given.
        """
        from pnncore import plot

        return plot.over_time(self.times, self.scores, path)


class Programmed:
    """A network whose weights were written to a memory.

    Parameters
    ----------
    net
        The network: a `Stack` with crossbars or linear maps. It is not changed.
    memory, mapping
        What the weights are written to, and how.
    seed
        Of everything that is random; None draws one.
    """

    def __init__(self, net: Stack, memory: Memory, mapping: Mapping, seed: Seed) -> None:
        if not isinstance(net, Stack):
            raise CapabilityError(
                f"only the weights of a Stack can be written to a memory, got {shown(net)}"
            )
        self.net, self.seed = net, as_seed(seed)
        self.memory = instance(memory, Memory, "memory", "a pnncore.memories.Memory")
        self.mapping = instance(mapping, Mapping, "mapping", "a pnncore.memories.Mapping")
        self.attempts = 0
        random = np.random.default_rng([self.seed, 0])
        self._cells: dict[str, list[_Cells]] = {}
        for place, layer in enumerate(net.layers, start=1):
            if isinstance(layer, Crossbar | Linear):
                name = net.parameter("W", place)
                self._cells[name] = self._write(net.params[name].astype(np.float64), random)
        if not self._cells:
            raise CapabilityError(
                f"{net!r} has no crossbars or linear maps whose weights could be written"
            )
        self._fresh = {name: self._weights(name, 0.0, None) for name in self._cells}

    def _write(self, w: Array, random: np.random.Generator) -> list[_Cells]:
        scale = np.abs(w).max(axis=0 if self.mapping.per_column else None, keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
        cells = []
        for sign in (1.0, -1.0):
            for factor, wanted in self.mapping.digits(np.maximum(sign * w / scale, 0.0)):
                g = self._program(wanted, random)
                cells.append(_Cells(sign * factor * scale, g, self.memory.drift(g, random)))
        return cells

    def _program(self, wanted: Array, random: np.random.Generator) -> Array:
        """Write, look, and write again what is off."""
        best = self.memory.write(wanted, random)
        self.attempts += wanted.size
        for _ in range(self.mapping.verify):
            off = np.abs(best - wanted) > self.mapping.tolerance
            if not off.any():
                break
            again = self.memory.write(wanted, random)
            self.attempts += int(off.sum())
            better = off & (np.abs(again - wanted) < np.abs(best - wanted))
            best = np.where(better, again, best)
        return best

    def _weights(self, name: str, seconds: float, random: np.random.Generator | None) -> Array:
        total: Any = 0.0
        for cells in self._cells[name]:
            g = self.memory.at(cells.g, cells.exponents, seconds)
            if random is not None:
                g = self.memory.read(cells.g, g, seconds, random)
            total = total + cells.factor * g
        return np.asarray(total)

    def at(
        self,
        seconds: float,
        *,
        compensation: Literal["none", "global", "column"] = "global",
        repeat: int = 0,
    ) -> systems.System:
        """Return the network as it is read once, some time after programming.

        Parameters
        ----------
        seconds
            After programming.
        compensation
            Of drift, by a digital factor: the mean magnitude of a calibration read (a unit input on
            each row, in turn), when programmed and now; of all outputs of a layer, or of each
            column.
        repeat
            The number of the read: each has noise of its own.
        """
        one_of(compensation, "compensation", ("none", "global", "column"))
        if number(seconds, "seconds") < 0:
            raise ConfigError(f"seconds must be at least 0, got {seconds}")
        repeat = as_repeat(repeat)
        random = np.random.default_rng(
            [self.seed, 1, repeat, *np.frombuffer(np.float64(seconds).tobytes(), np.uint32)]
        )
        net = restore(self.net.to_config(), self.net.params, self.net.memory)
        axis = 0 if compensation == "column" else None
        for name, fresh in self._fresh.items():
            weights = self._weights(name, seconds, random)
            if compensation != "none":
                now = np.abs(self._weights(name, seconds, random)).mean(axis=axis)
                weights *= np.abs(fresh).mean(axis=axis) / np.maximum(now, np.finfo(float).tiny)
            net.params[name][...] = weights
        return net

    def scores(
        self,
        x: Any,
        y: Any,
        *,
        times: Sequence[float] = YEAR,
        compensations: Sequence[Literal["none", "global", "column"]] = ("none", "global", "column"),
        repeats: int = 5,
    ) -> Scores:
        """Return `System.score` at some times after programming.

        Parameters
        ----------
        x, y
            Samples, and their labels or targets.
        times
            In seconds.
        compensations
            Those of `at`.
        repeats
            Reads at each time.
        """
        positive_int(repeats, "repeats")
        times = [
            number(time, "every one of times")
            for time in as_list(times, "times", "a list of seconds")
        ]
        compensations = as_list(compensations, "compensations", "a list of those of `at`")
        if not times or not compensations:
            raise ConfigError("times and compensations must be lists of at least one")
        for name in compensations:
            one_of(name, "every one of compensations", ("none", "global", "column"))
        found: dict[str, Array] = {
            name: np.array(
                [
                    [
                        self.at(t, compensation=name, repeat=k).score(x, y, repeat=k)
                        for k in range(repeats)
                    ]
                    for t in times
                ]
            )
            for name in compensations
        }
        return Scores(np.array(times, dtype=np.float64), found)

    def __repr__(self) -> str:
        layers = ", ".join(self._cells)
        return f"Programmed({layers} of {self.net!r} in {self.memory!r}; {self.attempts} writes)"


def program(
    net: Stack, memory: Memory | None = None, *, mapping: Mapping | None = None, seed: Seed = None
) -> Programmed:
    """Write the weights of a network to a memory, and return what can be asked of it.

    Parameters
    ----------
    net
        A `Stack` with crossbars or linear maps; it is not changed.
    memory
        None: `PhaseChange`.
    mapping
        How weights become conductances; None: `Mapping`.
    seed
        Of everything that is random; None draws one.
    """
    memory = memory if memory is not None else PhaseChange()
    mapping = mapping if mapping is not None else Mapping()
    return Programmed(net, memory, mapping, seed)
