"""What the core asks of layers outside it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pnncore._convert import FloatArray, shown
from pnncore.errors import ConfigError


class Modelled(ABC):
    """A layer outside the core: outputs and derivatives by functions of NumPy arrays.

    What these return is checked before the core sees it.
    """

    #: Whether the functions are the layer itself, not a model of an instrument.
    is_exact: bool

    specs: list[tuple[str, list[int]]]
    n_out: int

    @abstractmethod
    def function(self, name: str) -> Callable[..., Any]:
        """Return ``forward``, ``vjp`` or ``jvp``.

        `CapabilityError` where there is none.
        """

    def model(self, x: FloatArray, params: list[FloatArray]) -> FloatArray:
        """Return outputs (rows, n_out) for inputs (rows, n_in)."""
        y = self.function("forward")(_read_only(x), self._named(params))
        return self._returned("forward", y, (len(x), self.n_out), x)

    def vjp(
        self, x: FloatArray, params: list[FloatArray], dy: FloatArray
    ) -> tuple[FloatArray, list[FloatArray]]:
        """Return the errors of inputs and of parameters."""
        returned = self.function("vjp")(_read_only(x), self._named(params), _read_only(dy))
        names = [name for name, _ in self.specs]
        if not (
            isinstance(returned, tuple | list)
            and len(returned) == 2
            and isinstance(returned[1], Mapping)
        ):
            raise ConfigError(
                f"{self._called('vjp')} must return a pair: dx, and a dictionary of gradients by "
                f"parameter; got {shown(returned)}"
            )
        dx, found = returned
        if set(found) != set(names):
            raise ConfigError(
                f"{self._called('vjp')} must return gradients by {names}, got {list(found)}"
            )
        own = [
            self._returned(f"vjp[{name!r}]", found[name], tuple(shape), x)
            for name, shape in self.specs
        ]
        return self._returned("vjp", dx, x.shape, x), own

    def jvp(
        self, x: FloatArray, params: list[FloatArray], dx: FloatArray, along: list[FloatArray]
    ) -> FloatArray:
        """Return how outputs change with inputs along `dx` and parameters along `along`."""
        function = self.function("jvp")
        found = function(_read_only(x), self._named(params), _read_only(dx), self._named(along))
        return self._returned("jvp", found, (len(x), self.n_out), x)

    def _named(self, params: list[FloatArray]) -> dict[str, FloatArray]:
        named = zip(self.specs, params, strict=True)
        return {name: _read_only(array) for (name, _), array in named}

    def _called(self, what: str) -> str:
        return what if self.is_exact else f"{what} of the twin"

    def _returned(self, what: str, value: Any, shape: tuple[int, ...], x: FloatArray) -> FloatArray:
        array = np.asarray(value)
        if array.shape != shape or array.dtype.kind not in "biuf":
            raise ConfigError(
                f"{self._called(what)} must return real numbers of shape {shape}, got "
                f"{array.dtype} of {array.shape}"
            )
        return np.ascontiguousarray(array, dtype=x.dtype)


def _read_only(array: FloatArray) -> FloatArray:
    # What one function writes is not what the next is to see.
    array.flags.writeable = False
    return array
