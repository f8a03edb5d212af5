"""Losses of a user's own.

Every method takes ``loss="squared-error"``, ``"cross-entropy"``, or an object of a class that
derives from `Loss`.
"""

import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._convert import FloatArray, has_masked, shown
from pnncore.errors import ConfigError, DataError

__all__ = ["Loss"]


class Loss(ABC):
    """Base of losses of a user's own: how far outputs are from targets, sample by sample.

    Methods minimise the mean over samples; `testing.check_loss` compares the gradient with
    differences. Systems that settle see the loss C by a model at the free outputs o, the squared
    error from o - s ∂C/∂o, for which they take one more pass; s makes that as far from the outputs
    as the targets are, and gradients are divided by it: they are those of C where nudges are weak,
    and strengths mean what they mean for the squared error.

    Settings are attributes, numbers, text or arrays of them: files say them, and a loss with others
    is refused on loading.

    Examples
    --------
    >>> import numpy as np
    >>> import pnncore as pnn
    >>> class Absolute(pnn.losses.Loss):
    ...     def value(self, outputs, targets):
    ...         return np.abs(outputs - targets).sum(axis=1)
    ...     def gradient(self, outputs, targets):
    ...         return np.sign(outputs - targets)
    >>> pnn.methods.Backprop(loss=Absolute()).loss
    Absolute()
    """

    @abstractmethod
    def value(self, outputs: FloatArray, targets: FloatArray) -> npt.ArrayLike:
        """Return the loss (samples,), for outputs and targets (samples, n_out).

        Labels are one at theirs, else zero.
        """

    @abstractmethod
    def gradient(self, outputs: FloatArray, targets: FloatArray) -> npt.ArrayLike:
        """Return the derivatives (samples, n_out) of the loss of each sample by its outputs."""

    def to_config(self) -> dict[str, Any]:
        """Return what a file says of the loss.

        The name of its class, by which none is made, and its settings.
        """
        settings = {name: np.asarray(value).tolist() for name, value in vars(self).items()}
        return {"own": type(self).__name__, "settings": settings}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Evaluated:
    """A loss as the core calls it.

    Rows of outputs and targets, one after the other, checked on their way back.
    """

    def __init__(self, loss: Loss, n_out: int) -> None:
        self.loss, self.n_out = loss, n_out

    def evaluate(self, outputs: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the loss of every sample, and the gradients, one after the other."""
        outputs, targets = (array.reshape(-1, self.n_out).view() for array in (outputs, targets))
        # What one function writes is not what the other is to see.
        outputs.flags.writeable = targets.flags.writeable = False
        values = _returned(
            "value", self.loss.value(outputs, targets), (len(outputs),), np.dtype(np.float64)
        )
        gradients = _returned(
            "gradient", self.loss.gradient(outputs, targets), outputs.shape, outputs.dtype
        )
        return values, gradients.ravel()


def check_targets(loss: "str | Loss", y: npt.NDArray[Any], n_out: int) -> None:
    """Refuse targets (samples, n_out) that a loss has no meaning for: `DataError`.

    The cross-entropy is that of distributions over at least two outputs.
    """
    if loss != "cross-entropy":
        return
    if n_out == 1:
        raise DataError(
            "the cross-entropy of one output is always zero: give the system an output for each "
            'class, or take loss="squared-error"'
        )
    if y.ndim == 2 and y.size:
        lowest, off = float(y.min()), float(np.abs(y.sum(axis=1, dtype=np.float64) - 1).max())
        if lowest < 0 or off > 1e-3:
            raise DataError(
                "targets of the cross-entropy are probabilities: every row must be at least 0 and "
                f"sum to 1, got values from {lowest:.3g} on and sums that are off by up to "
                f"{off:.3g}"
            )


def _returned(
    what: str, value: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> FloatArray:
    array = np.asarray(value)
    if array.shape != shape or array.dtype.kind not in "biuf" or has_masked(value):
        got = f"{array.dtype} of shape {array.shape}"
        raise ConfigError(
            f"{what} of a loss must return real numbers of shape {shape}, got {got}: {shown(array)}"
        )
    return np.ascontiguousarray(array, dtype=dtype)


def evaluate(
    loss: "str | Loss", outputs: FloatArray, y: npt.NDArray[Any]
) -> tuple[FloatArray, FloatArray]:
    """Return every sample's loss, and the gradient of their mean by outputs (samples, n_out)."""
    if isinstance(loss, str):
        return _core.loss(outputs, y, json.dumps(loss))
    targets = y if y.ndim == 2 else np.eye(outputs.shape[1], dtype=outputs.dtype)[y]
    values, gradients = Evaluated(loss, outputs.shape[1]).evaluate(outputs, targets)
    return values, gradients.reshape(outputs.shape) / len(outputs)
