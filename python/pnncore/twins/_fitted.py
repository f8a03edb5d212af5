"""Twins that are stacks, from inputs and parameters to outputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pnncore._convert import FloatArray
from pnncore.errors import ConfigError
from pnncore.instruments._twin import Params, Twin
from pnncore.systems._stack import Stack


class FittedTwin(Twin):
    """A twin that is a stack from inputs and parameters, side by side, to outputs; `fit` makes one.

    Parameters
    ----------
    stack
        Has n_in + n_params inputs and n_out outputs, all in units of the deviations below.
    centre, scale
        The means and deviations of inputs and parameters, then of outputs, by ``"in"`` and
        ``"out"``.
    quality
        What `fit` measured on shots that it left out.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        centre: Mapping[str, FloatArray],
        scale: Mapping[str, FloatArray],
        quality: Any = None,
    ) -> None:
        for name, width in (("in", stack.n_in), ("out", stack.n_out)):
            for numbers, what in ((centre, "centre"), (scale, "scale")):
                if np.shape(numbers[name]) != (width,):
                    raise ConfigError(
                        f"{what}[{name!r}] must have shape ({width},), got "
                        f"{np.shape(numbers[name])}"
                    )
        self.stack = stack
        self.centre = {name: np.array(values, np.float64) for name, values in centre.items()}
        self.scale = {name: np.array(values, np.float64) for name, values in scale.items()}
        self.quality = quality

    def forward(self, x: FloatArray, params: Params) -> FloatArray:
        """See `Twin.forward`."""
        found = self.stack.measure(self.joined(x, params))[-1]
        return np.asarray((found * self.scale["out"] + self.centre["out"]).astype(x.dtype))

    def vjp(self, x: FloatArray, params: Params, dy: FloatArray) -> tuple[FloatArray, Params]:
        """See `Twin.vjp`."""
        errors = np.ascontiguousarray(dy * self.scale["out"], dtype=self.stack.dtype)
        found, _ = self.stack.vjp(self.joined(x, params), errors)
        found = (found / self.scale["in"]).astype(x.dtype)
        grads, at = {}, x.shape[1]
        for name, array in params.items():
            grads[name] = found[:, at : at + array.size].sum(axis=0).reshape(array.shape)
            at += array.size
        return np.ascontiguousarray(found[:, : x.shape[1]]), grads

    def joined(self, x: FloatArray, params: Params) -> FloatArray:
        """Return what the stack takes for inputs (rows, n_in) and parameters by name."""
        theta = [np.broadcast_to(array.ravel(), (len(x), array.size)) for array in params.values()]
        both = (np.concatenate([x, *theta], axis=1) - self.centre["in"]) / self.scale["in"]
        return np.ascontiguousarray(both, dtype=self.stack.dtype)

    def arrays(self) -> dict[str, FloatArray]:
        """See `Twin.arrays`."""
        moments = {f"centre/{name}": values for name, values in self.centre.items()}
        moments |= {f"scale/{name}": values for name, values in self.scale.items()}
        return moments | dict(self.stack.params)

    def __repr__(self) -> str:
        quality = "" if self.quality is None else f"; {self.quality}"
        return f"FittedTwin({self.stack!r}{quality})"
