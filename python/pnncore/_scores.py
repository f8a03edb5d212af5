"""What outputs are worth: labels and scores.

Outputs that are not finite are a miss, wherever they are looked at.
"""

import warnings

import numpy as np
import numpy.typing as npt

from pnncore._convert import FloatArray
from pnncore.errors import SettlingWarning

#: What stands for the label of a sample whose outputs are not all finite.
NO_LABEL = -1


def labels_of(outputs: FloatArray) -> npt.NDArray[np.int64]:
    """Return for each row the place of its largest output.

    `NO_LABEL` where an output is NaN or infinite.
    """
    found = np.asarray(outputs.argmax(axis=1), dtype=np.int64)
    found[~np.isfinite(outputs).all(axis=1)] = NO_LABEL
    return found


def score(outputs: FloatArray, y: FloatArray) -> float:
    """Return the accuracy of outputs for labels, or the coefficient of determination for targets.

    A row that is not finite has no label, and an infinite error: R² is then minus infinity.
    """
    if y.ndim == 1:
        return float((labels_of(outputs) == y).mean())
    if not np.isfinite(outputs).all():
        return float("-inf")
    error = float(((outputs.astype(np.float64) - y) ** 2).sum())
    spread = float(((y - y.mean(axis=0, dtype=np.float64)) ** 2).sum())
    return 1.0 - error / spread if spread > 0 else (1.0 if error == 0 else float("-inf"))


def warn_of_lost(outputs: FloatArray, what: str, stacklevel: int) -> None:
    """Say how many rows of something are not finite, if any; `stacklevel` 1 is the caller."""
    lost = int((~np.isfinite(outputs)).any(axis=1).sum())
    if lost:
        text = (
            f"of {len(outputs)} samples {lost} have {what} that are not finite: they count as "
            "misses"
        )
        warnings.warn(text, SettlingWarning, stacklevel=stacklevel + 1)
