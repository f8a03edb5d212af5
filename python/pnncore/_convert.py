"""What users pass, as the arrays that the core borrows."""

import contextlib
import inspect
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pnncore.errors import ConfigError, DataError, PnnError, ShapeError

FloatArray: TypeAlias = npt.NDArray[Any]
Seed: TypeAlias = int | None

T = TypeVar("T")

_DTYPES = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}

# As many as the core starts: no machine has more cores.
_MOST_THREADS = 1024

# More of a value than this makes a message no clearer.
_MOST_SHOWN = 200


def shown(value: Any) -> str:
    """Return a value as messages show it: its `repr`, cut where it is long."""
    try:
        text = repr(value)
    except Exception as error:
        # A foreign `repr`, or an integer of more digits than Python prints.
        text = f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64; `ConfigError` for anything else."""
    try:
        # NumPy reads None as float64.
        resolved = np.dtype(object if dtype is None else dtype)
    except Exception:
        # NumPy asks foreign objects for their dtype, and raises whatever they raise.
        resolved = np.dtype(object)
    if resolved not in _DTYPES.values():
        low = ""
        if isinstance(dtype, str) and dtype in ("bfloat16", "int8"):
            low = f'; precision="{dtype}" is a setting of layers and of Hopfield'
        raise ConfigError(f'dtype must be "float32" or "float64", got {shown(dtype)}{low}')
    return resolved


def as_path(path: Any, name: str = "path") -> str:
    """Return the name of a file as text.

    `ConfigError` unless it is a `str` or a path object, and can name one.
    """
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise ConfigError(
            f"{name} must be the path of a file, as a str or pathlib.Path; got {shown(path)}"
        )
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b""
    if not encoded or b"\0" in encoded:
        raise ConfigError(f"{name} must be the path of a file, got {shown(path)}")
    return text


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python or NumPy; truth values and spans of time are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def integer(value: Any, name: str, low: int, high: int, wanted: str) -> int:
    """Return an integer from `low` to below `high`.

    `ConfigError`, which says what is `wanted`, otherwise.
    """
    if not is_integer(value) or not low <= value < high:
        raise ConfigError(f"{name} must be {wanted}, got {shown(value)}")
    return int(value)


def as_seed(seed: Seed) -> int:
    """Return the seed, or a fresh one for None, as an integer of 64 bits."""
    if seed is None:
        return int.from_bytes(os.urandom(6), "little")
    if not is_integer(seed):
        raise ConfigError(f"seed must be an integer or None, got {shown(seed)}")
    return integer(seed, "seed", 0, 2**64, "in 0..2**64")


def as_threads(threads: int | None) -> int | None:
    """Return the number of threads; `ConfigError` unless it is a positive integer or None."""
    if threads is None:
        return None
    found = integer(threads, "threads", 1, 2**32, "a positive integer or None")
    if found > _MOST_THREADS:
        raise ConfigError(f"threads must be at most {_MOST_THREADS}, got {found}")
    return found


def flag(value: Any, name: str) -> bool:
    """Return True or False; `ConfigError` for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


# What timers of operating systems take in any case: eleven days.
_MOST_SECONDS = 1e6


def seconds(value: Any, name: str, *, positive: bool = True) -> float:
    """Return a time in seconds that timers can wait for, above 0 or from 0 on.

    `ConfigError` otherwise.
    """
    result = number(value, name)
    if result <= 0 if positive else result < 0:
        raise ConfigError(
            f"{name} must be {'a positive number' if positive else 'at least 0'}, got {value!r}"
        )
    if result > _MOST_SECONDS:
        raise ConfigError(f"{name} must be at most {_MOST_SECONDS:g} seconds, got {result:g}")
    return result


def as_progress(progress: Any) -> bool | None:
    """Return whether to draw a progress line; `ConfigError` unless that is True, False or None."""
    return None if progress is None else flag(progress, "progress")


def as_repeat(repeat: int) -> int:
    """Return the number of a measurement, below 2^31; `ConfigError` otherwise."""
    return integer(repeat, "repeat", 0, 2**31, "an integer from 0 on")


def positive_int(value: Any, name: str) -> int:
    """Return a positive integer of 32 bits; `ConfigError` otherwise."""
    return integer(value, name, 1, 2**32, "a positive integer")


def one_of(value: Any, name: str, choices: Sequence[str], *, optional: bool = False) -> None:
    """Refuse with `ConfigError` what is none of the choices, and not None where that is one."""
    if optional and value is None:
        return
    if not isinstance(value, str) or value not in choices:
        names = ", ".join(f'"{choice}"' for choice in choices)
        known = f"one of {names}" if len(choices) > 1 else names
        raise ConfigError(
            f"{name} must be {known}{' or None' if optional else ''}; got {shown(value)}"
        )


def number(value: Any, name: str, *, positive: bool = False) -> float:
    """Return a finite number; `ConfigError` otherwise."""
    result = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.timedelta64):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
    if not math.isfinite(result):
        raise ConfigError(f"{name} must be a finite number, got {shown(value)}")
    if positive and result <= 0:
        raise ConfigError(f"{name} must be a positive number, got {shown(value)}")
    return result


def non_negative(value: Any, name: str) -> float:
    """Return a finite number of at least zero; `ConfigError` otherwise."""
    result = number(value, name)
    if result < 0:
        raise ConfigError(f"{name} must be at least 0, got {shown(value)}")
    return result


def node_name(value: Any) -> Any:
    """Return whole numbers, which graphs have for nodes, as text, and anything else as it is."""
    return str(value) if is_integer(value) and abs(value) < 2**63 else value


def instance(value: Any, kind: type[T] | tuple[type[T], ...], name: str, wanted: str) -> T:
    """Return a value of a kind; `ConfigError`, which says what is `wanted`, otherwise."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be {wanted}, got {shown(value)}")
    return value


def as_system(system: Any) -> Any:
    """Return a system; `ConfigError` for anything else."""
    # Systems themselves need this module.
    if not hasattr(type(system), "as_batch"):
        raise ConfigError(f"system must be a pnncore System, got {shown(system)}")
    return system


def as_list(value: Any, name: str, wanted: str) -> list[Any]:
    """Return what can be gone through as a list.

    `ConfigError` for anything else, text and bytes among it.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} must be {wanted}, got {shown(value)}")
    try:
        return list(value)
    except TypeError:
        raise ConfigError(f"{name} must be {wanted}, got {shown(value)}") from None


def pair_of_sizes(value: Any, name: str) -> tuple[int, int]:
    """Return the numbers of rows and columns; `ConfigError` for anything but two of them."""
    given = as_list(value, name, "(height, width)")
    if len(given) != 2:
        raise ConfigError(f"{name} must be (height, width), got {shown(value)}")
    height, width = (integer(n, name, 1, 2**32, "a pair of positive integers") for n in given)
    return height, width


def as_interval(value: Any, name: str, *, infinite: bool = False) -> tuple[float, float]:
    """Return the ends (lower, upper) of an interval.

    `ConfigError` unless these are numbers, the first the smaller one.

    Ends may be infinite where `infinite`.
    """
    ends = as_list(value, name, "(lower, upper)")
    if len(ends) != 2:
        raise ConfigError(f"{name} must be (lower, upper), got {shown(value)}")
    lower, upper = (
        float(end)
        if infinite and isinstance(end, float) and math.isinf(end)
        else number(end, f"every end of {name}")
        for end in ends
    )
    if not lower < upper:
        raise ConfigError(f"{name} must be (lower, upper) with lower < upper, got {shown(value)}")
    return lower, upper


def made(kind: Callable[..., T], settings: Mapping[str, Any], what: str) -> T:
    """Return `kind` made with settings by name; `ConfigError` where some are missing or unknown."""
    signature = inspect.signature(kind)
    try:
        signature.bind(**settings)
    except TypeError as error:
        known = ", ".join(signature.parameters)
        name = getattr(kind, "__name__", what)
        raise ConfigError(f"{what}: {error}; the settings of {name} are {known}") from None
    return kind(**settings)


def as_settings(config: Any, what: str) -> dict[str, Any]:
    """Return a copy of settings by name.

    `ConfigError` unless they are a dictionary with text for keys.
    """
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise ConfigError(f"{what} must be a dictionary whose keys are text, got {shown(config)}")
    return dict(config)


def as_inputs(x: Any, n_in: int, dtype: np.dtype[Any], name: str = "x") -> FloatArray:
    """Return inputs as a C-contiguous (samples, n_in) array of the system's dtype, all finite.

    Numbers of other types are converted: a copy, made once for every call.
    """
    return _as_matrix(x, n_in, dtype, name)


def as_fields(x: Any, n_in: int, dtype: np.dtype[Any], name: str = "x") -> npt.NDArray[Any]:
    """Return complex amplitudes as a C-contiguous (samples, n_in) array, all finite.

    Their parts are of the system's dtype.
    """
    array = _as_array(x, name)
    if array.dtype.kind != "c":
        raise DataError(
            f"{name} must be complex amplitudes, for the first layer takes a field; got "
            f"{array.dtype}: make it complex, or put Encode in front of that layer"
        )
    return _as_rows(array, n_in, np.result_type(dtype, np.complex64), name)


def as_targets(
    y: Any, samples: int, n_out: int, dtype: np.dtype[Any], name: str = "y"
) -> FloatArray:
    """Return labels as int64 (samples,), or targets (samples, n_out) of the system's dtype.

    Numbers (samples,) are targets where there is one output.
    """
    array = _as_array(y, name)
    if n_out == 1 and array.ndim == 1 and array.dtype.kind in "biuf":
        y = array = array[:, None]
    if array.dtype == object:
        raise DataError(
            f"{name} must be integer labels or an array of targets, got "
            + ("None" if y is None else "ragged or mixed values")
        )
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
        whole = (
            array.dtype.kind == "f"
            and np.isfinite(array).all()
            and (array == np.trunc(array)).all()
        )
        named = array.dtype.kind in "US"
        whole = whole or array.dtype.kind == "b"
        raise ShapeError(
            f"{name} must be integer labels of shape ({samples},) or targets of shape ({samples}, "
            f"{n_out}); "
            f"got shape {array.shape} of {array.dtype}"
            + (f"; labels are made integers by {name}.astype(int)" if whole else "")
            + (f"; numpy.unique({name}, return_inverse=True)[1] numbers names" if named else "")
        )
    if array.ndim == 2 and array.shape[1] == 1 != n_out and array.dtype.kind in "iu":
        raise ShapeError(
            f"{name} is a column of integers; labels of shape ({samples},) are {name}[:, 0]"
        )
    targets = _as_matrix(y, n_out, dtype, name)
    if len(targets) != samples:
        raise ShapeError(f"{name} must hold {samples} rows, one per sample, got {len(targets)}")
    return targets


def as_numbers(
    value: Any,
    name: str,
    dtype: np.dtype[Any] | type | None = np.float64,
    refusal: type[PnnError] = DataError,
) -> FloatArray:
    """Return a C-contiguous copy of an array of real, finite numbers of any shape.

    It has this dtype or, for None, its own.

    The `refusal` for anything else: text, complex numbers, objects, ragged lists, masked elements.
    """
    try:
        array = _as_array(value, name)
    except DataError as error:
        raise refusal(str(error)) from None
    if array.dtype.kind not in "biuf":
        raise refusal(f"{name} must be an array of numbers, got {shown(value)}")
    with np.errstate(over="ignore"):
        array = np.array(array, dtype=dtype, order="C")
    if not np.isfinite(array).all():
        raise refusal(f"{name} must be finite, got {shown(value)}")
    return array


def as_complex(value: Any, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.complex128]:
    """Return a C-contiguous copy of an array of finite numbers, real or complex, of this shape."""
    array = _as_array(value, name)
    if array.dtype.kind not in "biufc":
        raise DataError(f"{name} must be an array of numbers, got {shown(value)}")
    array = np.array(array, dtype=np.complex128, order="C")
    if array.shape != shape:
        raise ShapeError(f"{name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{name} must be finite, got {shown(value)}")
    return array


def _as_array(value: Any, name: str) -> npt.NDArray[Any]:
    """Return what NumPy makes of a value, of dtype object where it makes nothing of it."""
    if type(value) is np.ndarray:
        return value
    array, masked = np.asarray(None), False
    # Foreign objects are asked for their elements, and raise whatever they raise.
    with contextlib.suppress(Exception):
        masked = has_masked(value)
        array = np.asanyarray(value)
    if masked or has_masked(array):
        raise DataError(
            f"{name} has masked elements; leave those samples out, or fill them in with filled()"
        )
    return np.asarray(array)


def has_masked(value: Any) -> bool:
    """Whether an array, or one in a sequence of sequences, has masked elements."""
    seen: set[int] = set()
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, np.ma.MaskedArray):
            if np.ma.getmaskarray(part).any():
                return True
        elif (
            isinstance(part, Sequence)
            and not isinstance(part, str | bytes)
            and id(part) not in seen
        ):
            # A list may hold itself.
            seen.add(id(part))
            rest.extend(part)
    return False


def _as_matrix(value: Any, width: int, dtype: np.dtype[Any], name: str) -> FloatArray:
    array = _as_array(value, name)
    if array.dtype.kind == "c":
        raise DataError(
            f"{name} must be an array of numbers without imaginary parts, got {array.dtype}: a "
            "stack takes complex ones where its first layer takes a field, such as MZIMesh"
        )
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} must be an array of numbers, got {shown(value)}")
    return _as_rows(array, width, dtype, name)


def _as_rows(
    array: npt.NDArray[Any], width: int, dtype: np.dtype[Any], name: str
) -> npt.NDArray[Any]:
    """Return numbers as a C-contiguous (samples, width) array of this dtype, all finite."""
    # A number that is too large becomes infinite, and is refused as that.
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    if array.ndim != 2 or array.shape[1] != width:
        raise ShapeError(f"{name} must have shape (samples, {width}), got {array.shape}")
    array = np.require(array, requirements=["C", "ALIGNED"])
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise DataError(
            f"{name} holds {array[row, column]} at row {row}, column {column}: it must be finite"
        )
    return array
