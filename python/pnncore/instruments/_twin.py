"""Twins: models with known derivatives, of instruments that have none."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from pnncore._convert import FloatArray, shown
from pnncore.errors import ConfigError

Params = dict[str, FloatArray]


class Twin(ABC):
    """A model of an instrument.

    It says what the instrument answers, and how that changes with inputs and parameters.
    """

    @abstractmethod
    def forward(self, x: FloatArray, params: Params) -> FloatArray:
        """Return outputs (rows, n_out) for inputs (rows, n_in) and parameters by name."""

    @abstractmethod
    def vjp(self, x: FloatArray, params: Params, dy: FloatArray) -> tuple[FloatArray, Params]:
        """Return dy times the Jacobians.

        By the inputs (rows, n_in), and by each parameter, summed over rows.
        """

    def jvp(self, x: FloatArray, params: Params, dx: FloatArray, along: Params) -> FloatArray:
        """Return how outputs (rows, n_out) change.

        Inputs move along `dx` (rows, n_in), and parameters along `along`.

        As it stands it asks `vjp` for every output of every row by itself.
        """
        outputs = np.zeros_like(self.forward(x, params))
        rows, n_out = outputs.shape
        for r in range(rows):
            for k in range(n_out):
                only = np.zeros((1, n_out), outputs.dtype)
                only[0, k] = 1
                back, grads = self.vjp(x[r : r + 1], params, only)
                outputs[r, k] = np.vdot(back, dx[r]) + sum(
                    np.vdot(grads[name], along[name]) for name in params
                )
        return outputs

    def arrays(self) -> dict[str, FloatArray]:
        """Return what of the model may change while an instrument is trained.

        Checkpoints keep it.
        """
        return {}


class Analytic(Twin):
    """A twin from two functions.

    Parameters
    ----------
    forward
        ``forward(x, params)`` returns outputs (rows, n_out) for inputs (rows, n_in) and a dict of
        parameters.
    vjp
        ``vjp(x, params, dy)`` returns ``dx`` (rows, n_in) and a dict of gradients, summed over
        rows.

    Examples
    --------
    >>> import numpy as np
    >>> twin = Analytic(lambda x, params: x * params["gain"], lambda x, params, dy: (
    ...     dy * params["gain"], {"gain": (dy * x).sum(axis=0)}))
    >>> twin.forward(np.ones((1, 2)), {"gain": np.array([2.0, 3.0])})
    array([[2., 3.]])
    """

    def __init__(
        self,
        forward: Callable[[FloatArray, Params], Any],
        vjp: Callable[[FloatArray, Params, FloatArray], tuple[Any, dict[str, Any]]],
    ) -> None:
        for name, function in (("forward", forward), ("vjp", vjp)):
            if not callable(function):
                raise ConfigError(f"{name} must be callable, got {shown(function)}")
        self._forward = forward
        self._vjp = vjp

    def forward(self, x: FloatArray, params: Params) -> FloatArray:
        """See `Twin.forward`."""
        found: FloatArray = self._forward(x, params)
        return found

    def vjp(self, x: FloatArray, params: Params, dy: FloatArray) -> tuple[FloatArray, Params]:
        """See `Twin.vjp`."""
        return self._vjp(x, params, dy)
