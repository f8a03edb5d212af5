"""What the core asks the twin of an instrument."""

from typing import Any

import numpy as np

from pnncore._convert import FloatArray
from pnncore.errors import CapabilityError, ConfigError
from pnncore.instruments._twin import Twin


class Modelled:
    """An instrument's side of its twin: derivatives, checked before the core sees them."""

    #: Whether it is its own twin.
    is_exact = False

    specs: list[tuple[str, list[int]]]
    n_out: int
    twin: Twin | None

    def model(self, x: FloatArray, params: list[FloatArray]) -> FloatArray:
        """Return what the twin says that the instrument answers."""
        y = self._twin().forward(x, self._named(params))
        return _checked("forward", y, (len(x), self.n_out), x.dtype)

    def vjp(
        self, x: FloatArray, params: list[FloatArray], dy: FloatArray
    ) -> tuple[FloatArray, list[FloatArray]]:
        """Return errors of the inputs, and of the parameters, through the twin."""
        dx, found = self._twin().vjp(x, self._named(params), dy)
        if set(found) != {name for name, _ in self.specs}:
            raise ConfigError(
                f"vjp of the twin must return {[name for name, _ in self.specs]}, got {list(found)}"
            )
        own = [
            _checked(f"vjp[{name!r}]", found[name], tuple(shape), x.dtype)
            for name, shape in self.specs
        ]
        return _checked("vjp", dx, x.shape, x.dtype), own

    def jvp(
        self, x: FloatArray, params: list[FloatArray], dx: FloatArray, along: list[FloatArray]
    ) -> FloatArray:
        """Return how the twin's outputs change along `dx` of inputs and `along` of parameters."""
        found = self._twin().jvp(x, self._named(params), dx, self._named(along))
        return _checked("jvp", found, (len(x), self.n_out), x.dtype)

    def _twin(self) -> Twin:
        if self.twin is None:
            raise CapabilityError(
                "the instrument has no twin to take derivatives from: give it one with twin=, for "
                "instance "
                "pnncore.twins.fit(instrument), or use a method that only needs outputs"
            )
        return self.twin

    def _named(self, params: list[FloatArray]) -> dict[str, FloatArray]:
        return {name: array for (name, _), array in zip(self.specs, params, strict=True)}


def _checked(what: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
    array = np.asarray(value)
    if array.shape != shape:
        raise ConfigError(f"{what} of the twin must return shape {shape}, got {array.shape}")
    return np.ascontiguousarray(array, dtype=dtype)
