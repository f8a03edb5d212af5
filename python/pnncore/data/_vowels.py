"""The vowel task of the physics-aware-training study."""

import numpy.typing as npt

from pnncore._convert import as_dtype
from pnncore.data._npz import Layout
from pnncore.data._sets import FolderPath, Split, find_npz
from pnncore.errors import DataError

VOWEL_CLASSES: tuple[str, ...] = ("ae", "ah", "aw", "uw", "er", "iy", "ih")
"""Names of the labels 0 to 6 of `vowels`: had, hod, hawed, who'd, heard, heed, hid."""

_VOWELS: Layout = {
    "train_dataset_x": ("<f4", (210, 12)),
    "train_dataset_y": ("<i8", (210,)),
    "test_dataset_x": ("<f4", (49, 12)),
    "test_dataset_y": ("<i8", (49,)),
}


def vowels(path: FolderPath | None = None, *, dtype: npt.DTypeLike = "float32") -> Split:
    """Load the vowel task of the physics-aware-training study.

    7 vowels, 12 formant frequencies, 48 speakers.

    The file ``pat_vowels.npz`` is looked for in `path`, then in the folder that the environment
    variable ``PNNCORE_DATA`` names, then in the cache folder (``$XDG_CACHE_HOME/pnncore``, or
    ``~/.cache/pnncore``); in each of them first in the subfolder ``vowel``, then directly.

    Parameters
    ----------
    path : str or path-like, optional
        Folder to look in first; it must exist.
    dtype : optional
        ``"float32"`` or ``"float64"``, of the inputs.

    Returns
    -------
    x : numpy.ndarray, shape (210, 12)
        Training samples: the formants F1, F2, F3 at steady state, then at 20 %, 50 % and 80 % of
        the vowel's duration. Each column is divided by its largest value, over training and test
        samples together; all lie in (0, 1].
    y : numpy.ndarray, int64, shape (210,)
        Their labels, 0 to 6, named by `VOWEL_CLASSES`.
    x_test : numpy.ndarray, shape (49, 12)
        Test samples.
    y_test : numpy.ndarray, int64, shape (49,)
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
    L. G. Wright, T. Onodera et al., Nature 601, 549 (2022), CC BY 4.0; recordings of women by J.
    Hillenbrand et al., J. Acoust. Soc. Am. 97, 3099 (1995). The split is that of the study. It is
    no test on new speakers: every speaker of a test sample also has training samples.
    """
    file, raw = find_npz(
        path,
        ("vowel", "pat_vowels.npz"),
        _VOWELS,
        1 << 20,
        "the vowel task is not found; it needs",
        "To get it: take the data from https://github.com/mcmahon-lab/Physics-Aware-Training,\n"
        "  save the arrays {arrays}\n"
        "  (x as float32, y as int64) in {name}, and name its folder with vowels(path) or "
        "PNNCORE_DATA.",
    )
    x, y, x_test, y_test = (raw[key] for key in _VOWELS)
    for key in ("train_dataset_x", "test_dataset_x"):
        # Written so that NaN fails as well.
        if not (raw[key].min() >= 0 and raw[key].max() <= 1):
            raise DataError(f"{file}: {key}: expected numbers in [0, 1]")
    for key in ("train_dataset_y", "test_dataset_y"):
        if raw[key].min() < 0 or raw[key].max() >= len(VOWEL_CLASSES):
            raise DataError(f"{file}: {key}: expected labels 0 to {len(VOWEL_CLASSES) - 1}")
    own = as_dtype(dtype)
    return x.astype(own), y, x_test.astype(own), y_test
