"""What users pass, as the arrays that the core borrows."""

import math
import numbers
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pnncore.errors import ConfigError, DataError, ShapeError

FloatArray: TypeAlias = npt.NDArray[Any]
Seed: TypeAlias = int | None

_DTYPES = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64; `ConfigError` for anything else."""
    try:
        # NumPy reads None as float64.
        resolved = np.dtype(object if dtype is None else dtype)
    except (TypeError, ValueError, SyntaxError):
        resolved = np.dtype(object)
    if resolved not in _DTYPES.values():
        raise ConfigError(f'dtype must be "float32" or "float64", got {dtype!r}')
    return resolved


def as_seed(seed: Seed) -> int:
    """Return the seed, or a fresh one for None, as an integer of 64 bits."""
    if seed is None:
        return int.from_bytes(os.urandom(6), "little")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ConfigError(f"seed must be an integer or None, got {seed!r}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be in 0..2**64, got {seed}")
    return int(seed)


def as_threads(threads: int | None) -> int | None:
    """Return the number of threads; `ConfigError` unless it is a positive integer or None."""
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise ConfigError(f"threads must be a positive integer or None, got {threads!r}")
    return int(threads)


def flag(value: Any, name: str) -> bool:
    """Return True or False; `ConfigError` for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} must be True or False, got {value!r}")
    return bool(value)


# What timers of operating systems take in any case: eleven days.
_MOST_SECONDS = 1e6


def seconds(value: Any, name: str, *, positive: bool = True) -> float:
    """Return a time in seconds that timers can wait for, above 0 or from 0 on; `ConfigError` otherwise."""
    try:
        result = number(value, name)
    except OverflowError:
        # An integer beyond all floats.
        result = math.inf
    if result <= 0 if positive else result < 0:
        raise ConfigError(f"{name} must be {'a positive number' if positive else 'at least 0'}, got {value!r}")
    if result > _MOST_SECONDS:
        raise ConfigError(f"{name} must be at most {_MOST_SECONDS:g} seconds, got {result:g}")
    return result


def as_progress(progress: bool | None) -> bool | None:
    """Return whether progress is shown, or None; `ConfigError` for anything else."""
    return None if progress is None else flag(progress, "progress")


def as_repeat(repeat: int) -> int:
    """Return the number of a measurement, below 2^31; `ConfigError` otherwise."""
    if isinstance(repeat, bool) or not isinstance(repeat, int | np.integer) or not 0 <= repeat < 2**31:
        raise ConfigError(f"repeat must be an integer from 0 on, got {repeat!r}")
    return int(repeat)


def positive_int(value: Any, name: str) -> int:
    """Return a positive integer of 32 bits; `ConfigError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value < 2**32:
        raise ConfigError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def one_of(value: Any, name: str, choices: Sequence[str]) -> None:
    """Refuse with `ConfigError` what is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        names = ", ".join(f'"{choice}"' for choice in choices)
        raise ConfigError(f"{name} must be one of {names}; got {value!r}")


def number(value: Any, name: str, *, positive: bool = False) -> float:
    """Return a finite number; `ConfigError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}")
    result = float(value)
    if positive and result <= 0:
        raise ConfigError(f"{name} must be a positive number, got {value!r}")
    return result


def as_inputs(x: Any, n_in: int, dtype: np.dtype[Any], name: str = "x") -> FloatArray:
    """Return inputs as a C-contiguous (samples, n_in) array of the system's dtype, all finite.

    Lists are converted; arrays of another dtype are refused, since a silent conversion costs memory and hides mistakes.
    """
    return _as_matrix(x, n_in, dtype, name)


def as_targets(y: Any, samples: int, n_out: int, dtype: np.dtype[Any], name: str = "y") -> FloatArray:
    """Return labels as int64 (samples,), or targets as a (samples, n_out) array of the system's dtype."""
    try:
        array = np.asarray(y)
    except ValueError:
        array = np.asarray(None)
    if array.dtype == object:
        raise DataError(f"{name} must be integer labels or an array of targets, got ragged or mixed values")
    if array.ndim == 1 and array.dtype.kind in "iu":
        if len(array) != samples:
            raise ShapeError(f"{name} must hold {samples} labels, one per sample, got {len(array)}")
        if len(array) and (array.min() < 0 or array.max() >= n_out):
            raise DataError(
                f"{name} must hold labels in 0..{n_out - 1} (the system has {n_out} outputs), "
                f"got values in {array.min()}..{array.max()}"
            )
        return np.ascontiguousarray(array, dtype=np.int64)
    if array.ndim == 1:
        raise ShapeError(
            f"{name} must be integer labels of shape ({samples},) or targets of shape ({samples}, {n_out}); "
            f"got shape {array.shape} of {array.dtype}"
        )
    targets = _as_matrix(y, n_out, dtype, name)
    if len(targets) != samples:
        raise ShapeError(f"{name} must hold {samples} rows, one per sample, got {len(targets)}")
    return targets


def _as_matrix(value: Any, width: int, dtype: np.dtype[Any], name: str) -> FloatArray:
    if isinstance(value, np.ndarray):
        if value.dtype != dtype:
            raise ConfigError(
                f"{name} is {value.dtype}, but the system computes in {dtype}; convert it once with "
                f"{name}.astype(numpy.{dtype}), or make the system with dtype={str(value.dtype)!r}"
                if value.dtype in _DTYPES.values()
                else f"{name} must be {dtype}, got {value.dtype}; convert and scale it once, before training"
            )
        array = value
    else:
        try:
            # A number that is too large becomes infinite, and is refused as that.
            with np.errstate(over="ignore"):
                array = np.asarray(value, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"{name} must be an array of numbers: {error}") from None
    if array.ndim != 2 or array.shape[1] != width:
        raise ShapeError(f"{name} must have shape (samples, {width}), got {array.shape}")
    array = np.require(array, requirements=["C", "ALIGNED"])
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise DataError(f"{name} holds {array[row, column]} at row {row}, column {column}; inputs must be finite")
    return array
