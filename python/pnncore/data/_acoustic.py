"""The acoustic layer that was measured in a laboratory."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_dtype
from pnncore.data._npz import Layout
from pnncore.data._sets import FolderPath, find_npz, whole_number
from pnncore.errors import DataError

_ACOUSTIC: Layout = {"inputs": ("<f4", (8000, 20)), "outputs": ("<f4", (8000, 20))}


def acoustic(
    path: FolderPath | None = None,
    *,
    test_size: int = 800,
    seed: int = 0,
    dtype: npt.DTypeLike = "float32",
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Load 8000 inputs and outputs of an acoustic layer, as measured in a laboratory.

    Sound of 20 amplitudes goes through a waveguide with a nonlinear membrane, and 20 amplitudes
    come out: the transform of a physical neural network, for twins to be fitted to
    (`pnncore.twins.fit`).

    The file ``acoustic.npz`` is looked for in `path`, then in the folder that the environment
    variable ``PNNCORE_DATA`` names, then in the cache folder (``$XDG_CACHE_HOME/pnncore``, or
    ``~/.cache/pnncore``); in each of them first in the subfolder ``acoustic``, then directly.

    Parameters
    ----------
    path : str or path-like, optional
        Folder to look in first; it must exist.
    test_size : int, optional
        Number of test samples, 0 to 8000. The rest are training samples.
    seed : int, optional
        Seed of the shuffle, 0 or larger.
    dtype : optional
        ``"float32"`` or ``"float64"``.

    Returns
    -------
    x : numpy.ndarray, shape (8000 - test_size, 20)
        Inputs for training, in [0, 1].
    y : numpy.ndarray, shape (8000 - test_size, 20)
        The outputs that were measured.
    x_test, y_test : numpy.ndarray, shape (test_size, 20)
        The same for testing.

    Raises
    ------
    DataError
        The file is not found (the message says what is needed, where it was looked for and how to
        get it), damaged, or holds other arrays.
    ConfigError
        `path` is neither a str nor a path-like object, or a number is out of range.

    Notes
    -----
    A. Momeni, B. Rahmani, M. Malléjac, P. del Hougne and R. Fleury, Science 382, 1297 (2023), MIT
    licence.
    """
    file, raw = find_npz(
        path,
        ("acoustic", "acoustic.npz"),
        _ACOUSTIC,
        1 << 22,
        "the acoustic layer is not found; it needs",
        "To get it: take the data of Science 382, 1297 (2023),\n"
        "  save the arrays {arrays}\n"
        "  in {name}, and name its folder with acoustic(path) or PNNCORE_DATA.",
    )
    x, y = (raw[key].astype(as_dtype(dtype)) for key in ("inputs", "outputs"))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{file}: expected finite numbers")
    order = np.random.Generator(np.random.Philox(whole_number("seed", seed, None))).permutation(
        len(x)
    )
    cut = whole_number("test_size", test_size, len(x))
    return x[order[cut:]], y[order[cut:]], x[order[:cut]], y[order[:cut]]
