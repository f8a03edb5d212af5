"""The optical recognition of handwritten digits."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_dtype
from pnncore.data._npz import Layout
from pnncore.data._sets import FolderPath, find_npz
from pnncore.errors import DataError

_LAYOUT: Layout = {
    "x_train": ("|u1", (3823, 64)),
    "y_train": ("|u1", (3823,)),
    "x_test": ("|u1", (1797, 64)),
    "y_test": ("|u1", (1797,)),
}


def optical_digits(
    path: FolderPath | None = None, *, dtype: npt.DTypeLike = "float32"
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Load handwritten digits of 8 x 8 pixels, by 30 writers for training and 13 for testing.

    The test samples are those that `digits` divides into training and test samples.

    The file ``optdigits.npz`` is looked for in `path`, then in the folder that the environment
    variable ``PNNCORE_DATA`` names, then in the cache folder (``$XDG_CACHE_HOME/pnncore``, or
    ``~/.cache/pnncore``); in each of them first in the subfolder ``optdigits``, then directly.

    Parameters
    ----------
    path : str or path-like, optional
        Folder to look in first; it must exist.
    dtype : optional
        ``"float32"`` or ``"float64"``, of the inputs.

    Returns
    -------
    x : numpy.ndarray, shape (3823, 64)
        Training samples: how much of each pixel is ink, in [0, 1], in steps of 1/16.
    y : numpy.ndarray, int64, shape (3823,)
        Their labels, 0 to 9.
    x_test : numpy.ndarray, shape (1797, 64)
        Test samples, by other writers.
    y_test : numpy.ndarray, int64, shape (1797,)
        Their labels.

    Raises
    ------
    DataError
        The file is not found (the message says what is needed, where it was looked for and how to
        get it), damaged, or holds other arrays.
    ConfigError
        `path` is neither a str nor a path-like object.

    Notes
    -----
    E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998), CC BY 4.0.
    """
    file, raw = find_npz(
        path,
        ("optdigits", "optdigits.npz"),
        _LAYOUT,
        1 << 20,
        "the optical digits are not found; they need",
        "To get them: take optdigits.tra and optdigits.tes of the UCI repository,\n"
        "  save the arrays {arrays}, all uint8,\n"
        "  in {name}, and name its folder with optical_digits(path) or PNNCORE_DATA.",
    )
    if max(raw["x_train"].max(), raw["x_test"].max()) > 16:
        raise DataError(f"{file}: expected pixels from 0 to 16")
    if max(raw["y_train"].max(), raw["y_test"].max()) > 9:
        raise DataError(f"{file}: expected labels from 0 to 9")
    kind = as_dtype(dtype)
    x, x_test = ((raw[key] / 16).astype(kind) for key in ("x_train", "x_test"))
    return x, raw["y_train"].astype(np.int64), x_test, raw["y_test"].astype(np.int64)
