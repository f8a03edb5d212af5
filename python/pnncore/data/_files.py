"""Data of the user's own, from files."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_dtype, instance, is_integer, number, shown
from pnncore._tables import is_number, read_table
from pnncore.data._idx import as_path
from pnncore.data._sets import Split, split
from pnncore.errors import ConfigError, DataError

# How the arrays of an archive are called: training inputs and labels, test inputs and labels.
_NAMES = (("x", "y", "x_test", "y_test"), ("x_train", "y_train", "x_test", "y_test"))

_VALUES = "networks are trained on values in Python, by Trainer.fit with an array of them"
# What tables have where there is no label.
_MISSING = ("", "nan", "n/a", "na", "null", "none", "?")


def from_file(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    test_size: float = 0.25,
    seed: int = 0,
    dtype: npt.DTypeLike = "float32",
) -> Split:
    """Load samples with labels from a ``.npz`` or a ``.csv`` file.

    An archive has the arrays ``x`` and ``y``, or ``x_train`` and ``y_train``, and may have
    ``x_test`` and ``y_test``. Samples of several axes become rows; bytes become 0 to 1, as in
    `mnist`. A table has a column for every input and one for the label; its first row may name
    them. Labels may be whole numbers or words: they are numbered in their order from 0 on.

    Parameters
    ----------
    path : str or path
        The file.
    target : str, optional
        The column of the label; the last one by default. Of tables alone.
    test_size : float, optional
        The fraction of the samples, or the whole number of them, that become test samples where
        the file has none of its own.
    seed : int, optional
        Seed of the shuffle before that.
    dtype : str or numpy.dtype, optional
        ``"float32"`` or ``"float64"``, of the inputs.

    Returns
    -------
    tuple
        ``(x, y, x_test, y_test)``, as of `digits`.

    Raises
    ------
    DataError
        If something in the file is not understood, or left over.
    ConfigError
        If a setting is out of range.
    """
    file, resolved = as_path(path), as_dtype(dtype)
    if target is not None:
        instance(target, str, "target", "the name of a column")
    if file.suffix.lower() not in (".npz", ".csv"):
        raise ConfigError(f"{file} must be a .npz or a .csv file")
    if file.suffix.lower() == ".csv":
        x, labels = _table(file, target)
        parts = [x], [labels]
    else:
        if target is not None:
            raise ConfigError("target is the column of a .csv file; an archive has its y")
        parts = _archive(file)
    for x, labels in zip(*parts, strict=True):
        if len(x) != len(labels):
            raise DataError(f"{file}: {len(x)} samples have {len(labels)} labels")
        if not np.isfinite(x).all():
            raise DataError(f"{file}: inputs must be finite")
    found, classes = [], _classes(file, np.concatenate(parts[1]))
    for x, labels in zip(*parts, strict=True):
        found.append((x.astype(resolved), np.searchsorted(classes, labels).astype(np.int64)))
    if len(found) == 2:
        return (*found[0], *found[1])
    x, y = found[0]
    return split(x, y, _count(test_size, len(x)), seed)


def _count(test_size: float, samples: int) -> int:
    """Return the number of test samples."""
    if is_integer(test_size):
        count = int(test_size)
    else:
        count = round(number(test_size, "test_size") * samples)
    if not 0 < count < samples:
        raise ConfigError(
            f"test_size must leave training and test samples of {samples}, got {shown(test_size)}"
        )
    return count


def _classes(file: Path, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the classes; labels that can be none are refused."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(f"{file}: all samples have the label {classes[0].item()!r}")
    if 2 * len(classes) > len(labels):
        raise DataError(
            f"{file}: {len(labels)} samples have {len(classes)} labels, which are no classes but "
            f"values; {_VALUES}"
        )
    return classes


def _archive(file: Path) -> tuple[list[Any], list[Any]]:
    if not file.is_file():
        raise DataError(f"{file}: there is no such file")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except ValueError as error:
        objects = "Object arrays" in str(error)
        raise DataError(
            f"{file} holds Python objects: save arrays of numbers, and of texts as labels"
            if objects
            else f"{file} is no archive of arrays, as numpy.savez writes them"
        ) from None
    except (OSError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is no archive of arrays: {error}") from None
    for names in _NAMES:
        if set(arrays) in (set(names), set(names[:2])):
            own = [arrays[name] for name in names if name in arrays]
            return [_inputs(file, x) for x in own[::2]], [_labels(file, y) for y in own[1::2]]
    known = "; ".join(", ".join(names) for names in _NAMES)
    raise DataError(
        f"{file} has the arrays {', '.join(sorted(arrays)) or 'none'}; needed are {known} (the "
        "last two may be left out)"
    )


def _inputs(file: Path, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if x.dtype.kind not in "biuf" or x.ndim < 2 or not x.size:
        raise DataError(
            f"{file}: inputs must be numbers (samples, ...), got {x.dtype} of shape {x.shape}"
        )
    rows = x.reshape(len(x), -1).astype(np.float64)
    return rows / 255 if x.dtype == np.uint8 else rows


def _labels(file: Path, y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    labels = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if labels.ndim != 1 or not _are_labels(labels):
        raise DataError(
            f"{file}: labels must be whole numbers or words (samples,), got {y.dtype} of shape "
            f"{y.shape}"
        )
    return labels


def _are_labels(labels: npt.NDArray[Any]) -> bool:
    return labels.dtype.kind in "biuU" or (
        labels.dtype.kind == "f" and bool((labels == np.round(labels)).all())
    )


def _table(file: Path, target: str | None) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    rows = read_table(file)
    if len(rows) < 2:
        raise DataError(f"{file} has no samples")
    width = len(rows[0][1])
    if width < 2:
        raise DataError(f"{file} has {width} column: it needs inputs and a label")
    names = _names(file, rows[0][1])
    column = width - 1 if target is None else _place(file, names, target)
    samples, labels = [], []
    for line, row in rows if names is None else rows[1:]:
        if len(row) != width:
            raise DataError(
                f"{file}, row {line}: {len(row)} fields, where the first row has {width}"
            )
        for place, field in enumerate(row):
            if place != column and not (is_number(field) and np.isfinite(float(field))):
                name = f"column {place + 1}" if names is None else f"column {names[place]!r}"
                raise DataError(f"{file}, row {line}: the input {field!r} of {name} is no number")
        if row[column].lower() in _MISSING:
            what = f"the label {row[column]!r} says nothing" if row[column] else "there is no label"
            raise DataError(f"{file}, row {line}: {what}")
        samples.append([float(field) for place, field in enumerate(row) if place != column])
        labels.append(row[column])
    if all(is_number(label) for label in labels):
        numbers = np.array([float(label) for label in labels])
        if not _are_labels(numbers):
            raise DataError(f"{file}: labels must be whole numbers or words; {_VALUES}")
        return np.array(samples), numbers
    return np.array(samples), np.array(labels)


def _names(file: Path, first: list[str]) -> list[str] | None:
    """Return the names of columns, where the first row has them."""
    if first == [str(k) for k in range(len(first))]:
        raise DataError(
            f"{file}: the first row counts columns, {', '.join(first[:3])}, ...: name them, or "
            "leave the row out"
        )
    if all(is_number(field) for field in first[:-1]):
        return None
    if not all(first):
        raise DataError(
            f"{file}: column {first.index('') + 1} has no name; if it numbers rows, leave it out"
        )
    return first


def _place(file: Path, names: list[str] | None, target: str) -> int:
    """Return which column is the label."""
    if names is None or target not in names:
        known = "its first row names no columns" if names is None else ", ".join(names)
        raise DataError(f"{file} has no column {target!r}: {known}")
    if names.count(target) > 1:
        raise DataError(f"{file} has {names.count(target)} columns {target!r}")
    return names.index(target)
