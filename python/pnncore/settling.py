"""How systems settle, and what comes out."""

import enum
import json
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pnncore._convert import FloatArray, as_settings, made, number, one_of, shown
from pnncore.errors import ConfigError, SettlingWarning


class Status(enum.IntEnum):
    """How the settling of a sample ended."""

    CONVERGED = 0
    """The stopping rule was met."""
    UNCONVERGED = 1
    """The sweeps ran out before the tolerance was met."""
    DIVERGED = 2
    """A state became NaN or infinite; the row is blank."""
    UNBOUNDED = 3
    """The nudged energy has no minimum; the row is blank."""
    COMPLETED = 4
    """The phase went on for as long as it was to: layers and motions have nothing to converge."""
    SADDLE = 5
    """The stopping rule was met at a saddle point (`Elastic`): what disturbs the state moves it
    away."""
    FLOPPY = 6
    """The stopping rule was met at one of many states (`Elastic`): a mode costs no energy."""

    @property
    def is_settled(self) -> bool:
        """Whether there was nothing left to settle."""
        return self in (Status.CONVERGED, Status.COMPLETED, Status.FLOPPY)


@dataclass(frozen=True, kw_only=True)
class Settling:
    """When a phase ends, and in which order units move.

    By default each sample stops by itself, when its states are as near to steady as 0.4 % of the
    displacement that the phase is to measure: |beta| times the output error of the sample, over the
    stiffness of the outputs. (A fixed tolerance is wrong for small errors: at tolerance 1e-3 and
    beta 0.2, a sample with an output error of .01 gets a gradient 27 % off.) The distance is
    estimated from the last two sweeps: if they moved units by c' and then by c = q c', what is left
    is c q / (1 - q). Networks with several hidden layers extrapolate their sweeps near rest, unless
    their number is given; an extrapolation that raises the energy is taken back. Inference stops at
    1e-4 of the largest state (of 1 in Hopfield networks), whatever the units of the states.

    A nudged phase that moves more in each of five sweeps than in the one before is leaving the
    basin of the free state, and is stopped: its end would say nothing about a derivative. It counts
    as unconverged.

    Parameters
    ----------
    sweeps
        A fixed number of sweeps instead, for parity with published protocols: (free, nudged), or
        one number for both.
    tolerance
        A fixed tolerance instead: the largest change of a unit in a sweep, in the units of the
        states.
    relative_tolerance
        The fraction of the displacement, if not 0.004 (0.0025 where the free states are part of the
        contrast); inference: of the largest state, if not 1e-4.
    max_sweeps
        The most sweeps of a phase that stops by tolerance: (free, any other), or one number for
        both. Systems that settle by descent (`Elastic`, `EnergySystem`) take up to ten steps for
        each.
    order
        ``"asynchronous"``: every other layer, then the layers between; each moves to its exact
        minimum, so the energy never rises. ``"synchronous"``: all layers at once; may oscillate.
    output_update
        ``"exact"``: nudged outputs move to their minimum. ``"explicit"``: a - beta dC/do at the
        previous outputs, as published code does; the same fixed point.
    """

    sweeps: tuple[int, int] | int | None = None
    tolerance: float | None = None
    relative_tolerance: float | None = None
    max_sweeps: tuple[int, int] | int = (10_000, 200)
    order: Literal["asynchronous", "synchronous"] = "asynchronous"
    output_update: Literal["exact", "explicit"] = "exact"

    def __post_init__(self) -> None:
        """Refuse two stopping rules at once, and unknown names."""
        rules = [self.sweeps, self.tolerance, self.relative_tolerance]
        if sum(rule is not None for rule in rules) > 1:
            raise ConfigError("give one of sweeps, tolerance and relative_tolerance, not several")
        one_of(self.order, "order", ("asynchronous", "synchronous"))
        one_of(self.output_update, "output_update", ("exact", "explicit"))
        for name in ("sweeps", "max_sweeps"):
            value = getattr(self, name)
            if value is None:
                continue
            pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
            if len(pair) != 2 or not all(type(n) is int and 1 <= n < 2**32 for n in pair):
                raise ConfigError(
                    f"{name} must be a positive integer or a pair (free, nudged), got "
                    f"{shown(value)}"
                )
            object.__setattr__(self, name, pair)
        for name in ("tolerance", "relative_tolerance"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, number(value, name, positive=True))

    def to_config(self) -> dict[str, Any]:
        """Return the settings as the core reads them."""
        stop: Any = "automatic"
        if self.sweeps is not None:
            stop = {"sweeps": list(_pair(self.sweeps))}
        elif self.tolerance is not None:
            stop = {"absolute": float(self.tolerance)}
        elif self.relative_tolerance is not None:
            stop = {"relative": float(self.relative_tolerance)}
        return {
            "stop": stop,
            "max-sweeps": list(_pair(self.max_sweeps)),
            "order": self.order,
            "output-update": self.output_update,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Settling":
        """Return the settling of a `to_config` dictionary."""
        settings = {
            name.replace("-", "_"): value for name, value in as_settings(config, "settling").items()
        }
        stop = settings.pop("stop", "automatic")
        if stop != "automatic":
            rules = {"sweeps": "sweeps", "absolute": "tolerance", "relative": "relative_tolerance"}
            kind, *others = as_settings(stop, "the stopping rule")
            if others or kind not in rules:
                raise ConfigError(
                    f"the stopping rule must be one of {', '.join(rules)}, got {shown(stop)}"
                )
            settings[rules[kind]] = stop[kind]
        return made(cls, settings, "Settling")

    def to_json(self) -> str:
        """Return `to_config` as JSON text."""
        return json.dumps(self.to_config())


def _pair(value: tuple[int, int] | int) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


@dataclass(frozen=True)
class Settled:
    """The steady states of a batch.

    Attributes
    ----------
    states
        One array (samples, units) per layer; the last holds the outputs.
    energy
        E of every sample, without the loss; NaN for systems that have none (circuits with
        transistors, motions, layers).
    residual
        The largest force |dF/ds| on a unit that no wall holds, per sample: zero at the steady
        state; NaN where nothing settles.
    sweeps
        Sweeps that every sample took in the last phase.
    status
        One `Status` number per sample. Rows that diverged or are unbounded are blank.
    """

    states: list[FloatArray]
    energy: npt.NDArray[np.float64]
    residual: npt.NDArray[np.float64]
    sweeps: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8] = field(repr=False)

    @property
    def outputs(self) -> FloatArray:
        """The states of the last layer."""
        return self.states[-1]

    @property
    def converged(self) -> bool:
        """Whether all samples converged to minima, or had nothing to converge."""
        return not _unsettled(self.status)

    def counts(self) -> dict[str, int]:
        """Return how many samples ended with each status."""
        return _counts(self.status)

    def __repr__(self) -> str:
        sizes = ", ".join(str(layer.shape[1]) for layer in self.states)
        ends = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        finite = self.residual[np.isfinite(self.residual)]
        residual = f"{finite.max():.2g}" if len(finite) else "-"
        mean = f"{self.sweeps.mean():.1f}" if len(self.sweeps) else "-"
        return (
            f"Settled({len(self.status)} samples: {ends}; layers [{sizes}]; mean sweeps {mean}; "
            f"residual <= {residual})"
        )


def _counts(statuses: npt.NDArray[np.uint8]) -> dict[str, int]:
    # Counted by number: where NumPy looks into a member of an enumeration, an exception of a
    # handler of signals would be lost.
    found = np.bincount(statuses, minlength=len(Status)).tolist()
    return {status.name.lower(): found[status.value] for status in Status}


def _unsettled(statuses: npt.NDArray[np.uint8]) -> dict[str, int]:
    """Return how many samples ended with each status that is none of a settled sample."""
    return {
        name: count
        for name, count in _counts(statuses).items()
        if count and not Status[name.upper()].is_settled
    }


def warn_of_unsettled(statuses: npt.NDArray[np.uint8], stacklevel: int) -> None:
    """Count the samples that did not settle in a `SettlingWarning`, if there are any."""
    if ends := _unsettled(statuses):
        warnings.warn(
            f"of {len(statuses)} samples some did not settle: {ends}",
            SettlingWarning,
            stacklevel=stacklevel,
        )
