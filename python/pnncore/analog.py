"""How analog arrays are read: converters, noise, and what wires do."""

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._config import Config
from pnncore._convert import (
    as_numbers,
    as_system,
    as_threads,
    non_negative,
    number,
    one_of,
    positive_int,
    shown,
)
from pnncore.errors import CapabilityError, ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from pnncore.systems import Stack

__all__ = ["AnalogIO", "NodalVoltages", "Wires", "calibrate", "solve"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AnalogIO(Config):
    """How an analog array is read: converters and noise.

    Inputs are divided by a scale a, rounded and clipped, and get input noise. Products get weight
    noise, pass an output stage y / (1 + |s y|), get offsets and output noise, are rounded and
    clipped, and are multiplied by a. Deviations and bounds are in units of the largest input and of
    the weights. The defaults are those of a typical array: converters of 7 and 9 bits, and output
    noise of 0.06; `ideal` has none of it.

    Parameters
    ----------
    input_bits, output_bits
        Of the converters, which have 2^bits - 1 levels between their bounds; None: no rounding.
    input_bound, output_bound
        What they clip at; None: nothing is clipped (and rounded: give both or none).
    input_noise, output_noise
        Standard deviations.
    output_offset
        The standard deviation of what outputs are off by, each for good: converters differ.
    passes
        How inputs are put on lines: ``"one"``, as they are; ``"signs"``, positive ones first, then
        negative ones; or ``"bits"``, bit by bit, each as nothing or plus or minus the largest
        input. Every pass is converted; results are added digitally.
    weight_noise
        The standard deviation of every weight in every read, times sqrt(|w|) for phase-change
        memory.
    weight_noise_kind
        ``"additive"`` or ``"phase-change"``.
    s_shape
        s of the output stage.
    stochastic_rounding
        Whether converters round at random, so that the mean is the value.
    scale
        a; None: the largest magnitude of each sample's inputs; ``"learned"``: a parameter of the
        layer (``A1``, ...), beyond which inputs are cut. Methods with gradients train it;
        `calibrate` sets it to what inputs are like.
    bound_management
        Whether a sample some of whose outputs are clipped is read again at half the input scale, up
        to ten times.

    References
    ----------
    Gokmen, Onen, Haensch, Front. Neurosci. 11, 538 (2017); Rasch et al., AICAS (2021), arXiv
    2104.02184; learned ranges: Choi et al. (2018), arXiv 1805.06085; bit by bit: Shafiee et al.,
    ISCA (2016).
    """

    input_bits: int | None = 7
    input_bound: float | None = 1.0
    input_noise: float = 0.0
    output_bits: int | None = 9
    output_bound: float | None = 12.0
    output_noise: float = 0.06
    output_offset: float = 0.0
    passes: Literal["one", "signs", "bits"] = "one"
    weight_noise: float = 0.0
    weight_noise_kind: Literal["additive", "phase-change"] = "additive"
    s_shape: float = 0.0
    stochastic_rounding: bool = False
    scale: float | Literal["learned"] | None = None
    bound_management: bool = True

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting.

        Ranges are checked by the core when a stack is made.
        """
        super().__post_init__()
        one_of(self.weight_noise_kind, "weight_noise_kind", ("additive", "phase-change"))
        one_of(self.passes, "passes", ("one", "signs", "bits"))
        if self.scale is not None and not (isinstance(self.scale, str) and self.scale == "learned"):
            object.__setattr__(self, "scale", number(self.scale, "scale"))
        for side in ("input", "output"):
            bits, bound = getattr(self, f"{side}_bits"), getattr(self, f"{side}_bound")
            if bits is not None and not 2 <= positive_int(bits, f"{side}_bits") <= 24:
                raise ConfigError(f"{side}_bits must be 2 to 24, got {shown(bits)}")
            if bits is not None and bound is None:
                raise ConfigError(f"{side}_bits need an {side}_bound that their levels lie between")

    @property
    def reads(self) -> int:
        """How often an array is read for one product: the number of passes."""
        bits = self.input_bits if self.input_bits is not None else 2
        return {"one": 1, "signs": 2, "bits": bits - 1}[self.passes]

    @classmethod
    def ideal(cls) -> "AnalogIO":
        """Return a read without converters and noise."""
        return cls(
            input_bits=None,
            input_bound=None,
            output_bits=None,
            output_bound=None,
            output_noise=0.0,
            bound_management=False,
        )

    def spec(self) -> dict[str, Any]:
        """Return the settings as the core reads them."""
        own = dataclasses.asdict(self)
        named = self.scale is None or self.scale == "learned"
        own["scale"] = (self.scale or "absmax") if named else {"constant": self.scale}
        for side in ("input", "output"):
            bits = own.pop(f"{side}_bits")
            own[f"{side}_steps"] = 0 if bits is None else 2**bits - 2
        return own


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Wires(Config):
    """Weights as pairs of conductances between wires that have a resistance.

    A weight w is the difference of two arrays: off + (on - off) |w| / weight in the one of its
    sign, off in the other. Rows are driven at their left ends, columns are grounded at their
    bottoms, and a piece of wire lies before every cell of a row and after every cell of a column.
    Every resistance may be zero. The nodal equations are solved by conjugate gradients with exact
    solves along the lines.

    Parameters
    ----------
    row_resistance, column_resistance
        Of a piece of wire along a row and along a column, in ohms.
    driver_resistance, sense_resistance
        In series at the driven end of every row (the output of its driver, its switch), and at the
        grounded end of every column (the input of its amplifier), in ohms. In a transposed read,
        from columns to rows, they stay at their lines. None of the four may be more than 100 times
        the resistance of the most conductive cell.
    on, off
        The largest and the smallest conductance, in siemens.
    weight
        The weight that is the largest conductance: larger ones are cut; None: the largest weight
        of every tile.
    exact
        False: what is right to first order in the resistances, in one pass, and so are its
        derivatives.
    tolerance
        Of the error of voltages, weighted by conductances, over those across cells.

    Examples
    --------
    >>> Wires(row_resistance=2.0, sense_resistance=50.0, on=1e-4)
    Wires(row_resistance=2.0, sense_resistance=50.0)
    """

    row_resistance: float = 1.0
    column_resistance: float = 1.0
    driver_resistance: float = 0.0
    sense_resistance: float = 0.0
    on: float = 1e-4
    off: float = 1e-6
    weight: float | None = None
    exact: bool = True
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        _core.check_wires(json.dumps(self.spec()))

    def spec(self) -> dict[str, Any]:
        """Return the settings as the core reads them."""
        own = dataclasses.asdict(self)
        places = ("row", "column", "driver", "sense")
        own["resistances"] = {place: own.pop(f"{place}_resistance") for place in places}
        return own


@dataclass(frozen=True)
class NodalVoltages:
    """What `solve` returns.

    Attributes
    ----------
    currents
        Out of the grounded ends (samples, lines), in amperes.
    rows, columns
        Voltages of the nodes of rows and columns (samples, rows, columns), in volts.
    iterations
        Those that the slowest sample took.
    """

    currents: npt.NDArray[np.float64]
    rows: npt.NDArray[np.float64]
    columns: npt.NDArray[np.float64]
    iterations: int

    def __repr__(self) -> str:
        samples, n, m = self.rows.shape
        return (
            f"NodalVoltages({samples} samples of {n} rows and {m} columns; {self.iterations} "
            "iterations)"
        )


def solve(
    conductances: npt.ArrayLike,
    voltages: npt.ArrayLike,
    *,
    row_resistance: float = 1.0,
    column_resistance: float = 1.0,
    driver_resistance: float = 0.0,
    sense_resistance: float = 0.0,
    side: Literal["rows", "columns"] = "rows",
    tolerance: float = 1e-12,
    threads: int | None = None,
) -> NodalVoltages:
    """Return the currents of a crossbar with resistive wires, and the voltages of all its nodes.

    Parameters
    ----------
    conductances
        Of the cells (rows, columns), in siemens, none negative.
    voltages
        At the driven ends (samples, lines), in volts: those of rows at the left, or of columns at
        the bottom. The other lines are grounded there.
    row_resistance, column_resistance
        Of a piece of wire along a row and along a column, in ohms; zero is an ideal wire.
    driver_resistance, sense_resistance
        In series at the left ends of rows and at the bottoms of columns, in ohms, whichever of them
        are driven. None of the four may be more than a million times the resistance of the most
        conductive cell.
    side
        Which lines are driven.
    tolerance
        Of the error of voltages, weighted by conductances, over those across cells.
    threads
        Threads to use; the result does not depend on it.

    Raises
    ------
    ShapeError, DataError, ConfigError
        For arrays that do not fit each other, conductances that are negative, numbers that are not
        finite.
    """
    one_of(side, "side", ("rows", "columns"))
    # Complex ones are no numbers here: wires have a resistance, and nothing else.
    cells, drive = as_numbers(conductances, "conductances"), as_numbers(voltages, "voltages")
    lines = 0 if side == "rows" else 1
    if (
        cells.ndim != 2
        or 0 in cells.shape
        or drive.ndim != 2
        or drive.shape[1] != cells.shape[lines]
    ):
        raise ShapeError(
            f"conductances must be (rows, columns) and voltages (samples, {side}), got "
            f"{cells.shape} and {drive.shape}"
        )
    if cells.min() < 0:
        raise DataError("conductances must be at least 0")
    resistances = (
        non_negative(row_resistance, "row_resistance"),
        non_negative(column_resistance, "column_resistance"),
        non_negative(driver_resistance, "driver_resistance"),
        non_negative(sense_resistance, "sense_resistance"),
    )
    tolerance, threads = number(tolerance, "tolerance", positive=True), as_threads(threads)
    currents, rows, columns, iterations = _core.solve_wires(
        cells, drive, resistances, lines == 1, tolerance, threads
    )
    return NodalVoltages(currents, rows, columns, iterations)


def calibrate(net: "Stack", x: npt.ArrayLike, *, quantile: float | None = None) -> dict[str, float]:
    """Set the learned input ranges of a network's crossbars to what their inputs are like.

    The first layer comes first.

    Parameters
    ----------
    net
        A `Stack` with crossbars whose `AnalogIO.scale` is ``"learned"``; its parameters ``A1``, ...
        are changed.
    x
        Samples (samples, inputs).
    quantile
        Of all magnitudes, such as .999; None: the average over samples of the largest magnitude of
        each.

    Returns
    -------
    dict
        The ranges, by the names of their parameters.

    Raises
    ------
    CapabilityError
        If no input range of the network is learned.
    DataError, ShapeError, ConfigError
        If the samples are not inputs of the network, or there are none.
    """
    if quantile is not None and not 0 < number(quantile, "quantile") <= 1:
        raise ConfigError(f"quantile must be above 0 and at most 1, got {quantile}")
    found: dict[str, float] = {}
    for place, layer in enumerate(as_system(net).layers if hasattr(net, "layers") else (), start=1):
        if getattr(getattr(layer, "io", None), "scale", None) != "learned":
            continue
        name = net.parameter("A", place)
        arrived = net.as_rows(x) if place == 1 else net.measure(x)[place - 2]
        if not len(arrived):
            raise DataError("x must hold at least one sample, got none")
        sizes = np.abs(arrived)
        own_range = float(
            sizes.max(axis=1).mean() if quantile is None else np.quantile(sizes, quantile)
        )
        if own_range > 0:
            net.params[name][...] = own_range
        found[name] = float(net.params[name][0])
    if not found:
        raise CapabilityError(f'{shown(net)} has no crossbars with AnalogIO(scale="learned")')
    return found
