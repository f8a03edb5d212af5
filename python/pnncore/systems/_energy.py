"""Systems of one's own: an energy, and its gradients, on NumPy batches."""

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._convert import (
    FloatArray,
    as_dtype,
    as_interval,
    as_numbers,
    as_settings,
    flag,
    has_masked,
    positive_int,
    shown,
)
from pnncore._processes import renew_in_children
from pnncore.errors import ConfigError, DataError, ShapeError
from pnncore.systems._base import System


class EnergySystem(System, ABC, listed=False):
    """A system given by its energy E(theta, x, s): subclass it, and methods train it.

    The steady state is the minimum of E over the states s; the core finds it by descent, with as
    many rows at a time as a batch has samples and phases. Call `pnncore.testing.check_system` on an
    object: it compares everything with finite differences and says in words what is wrong.

    Parameters
    ----------
    n_in
        The number of inputs.
    n_states
        The number of states, outputs included: outputs are the last `n_out` of them.
    n_out
        The number of outputs.
    params
        The initial parameters by name; copied.
    bounds
        The interval (lower, upper) that hidden states may take, or None.
    bounded_outputs
        Whether outputs are within the bounds, too.
    dtype
        ``"float64"``, or ``"float32"``.

    Attributes
    ----------
    holomorphic
        Set it to True in a subclass whose energy is an analytic function of the states and whose
        `state_gradient` and `param_gradient` take complex `s` and `weights`, as NumPy expressions
        without ``abs``, comparisons or conjugates do. Holomorphic equilibrium propagation then
        works, too. Not with `bounds`.

    Examples
    --------
    A linear spring network: one output pulled by two springs.

    >>> import numpy as np
    >>> class Springs(EnergySystem):
    ...     def energy(self, params, x, s):
    ...         return 0.5 * ((s - x) ** 2 * params["k"]).sum(axis=1)
    ...     def state_gradient(self, params, x, s):
    ...         return ((s - x) * params["k"]).sum(axis=1, keepdims=True)
    ...     def param_gradient(self, params, x, s, weights):
    ...         return {"k": 0.5 * weights @ (s - x) ** 2}
    >>> springs = Springs(n_in=2, n_states=1, n_out=1, params={"k": np.array([1.0, 3.0])})
    >>> float(springs.predict([[0.0, 1.0]])[0, 0].round(6))
    0.75
    """

    holomorphic: ClassVar[bool] = False

    def __init__(
        self,
        *,
        n_in: int,
        n_states: int,
        n_out: int,
        params: Mapping[str, npt.ArrayLike],
        bounds: tuple[float, float] | None = None,
        bounded_outputs: bool = False,
        dtype: npt.DTypeLike = "float64",
    ) -> None:
        self.n_in = positive_int(n_in, "n_in")
        self.n_states = positive_int(n_states, "n_states")
        self._n_out = positive_int(n_out, "n_out")
        self.n_hidden = self.n_states - self._n_out
        if self.n_hidden < 0:
            raise ConfigError(
                f"n_out = {n_out} outputs are more than the n_states = {n_states} states"
            )
        if bounds is not None:
            bounds = as_interval(bounds, "bounds", infinite=True)
        if bounds is not None and self.holomorphic:
            raise ConfigError("a system with bounds is not holomorphic: its steady state has kinks")
        self.bounds = bounds
        self.bounded_outputs = flag(bounded_outputs, "bounded_outputs")
        flag(self.holomorphic, "holomorphic")
        resolved = as_dtype(dtype)
        values = {
            name: as_numbers(value, f"parameter {name}", resolved, ConfigError)
            for name, value in as_settings(params, "params").items()
        }
        if not values:
            raise ConfigError("params is empty: a system without parameters cannot be trained")
        if scalars := [name for name, value in values.items() if value.ndim == 0]:
            raise ShapeError(f"parameters {scalars} are scalars; make them arrays of shape (1,)")
        self._specs = [(name, list(value.shape)) for name, value in values.items()]
        super().__init__(_core.System.user(self), resolved)
        self.params = values

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the class and what was set on the object; the core's part is made anew."""
        state = {k: v for k, v in vars(self).items() if k not in ("core", "lock")}
        return _made_again, (type(self), state | {"params": copy.deepcopy(self.params)})

    @abstractmethod
    def energy(self, params: dict[str, FloatArray], x: FloatArray, s: FloatArray) -> FloatArray:
        """Return E (rows,) for inputs x (rows, n_in) and states s (rows, n_states)."""

    @abstractmethod
    def state_gradient(
        self, params: dict[str, FloatArray], x: FloatArray, s: FloatArray
    ) -> FloatArray:
        """Return dE/ds (rows, n_states)."""

    @abstractmethod
    def param_gradient(
        self, params: dict[str, FloatArray], x: FloatArray, s: FloatArray, weights: FloatArray
    ) -> dict[str, FloatArray]:
        """Return for every parameter the sum over rows of weights[row] * dE/dtheta.

        Each sum has the shape of its parameter.
        """

    def _checked_energy(
        self, params: dict[str, FloatArray], x: FloatArray, s: FloatArray
    ) -> FloatArray:
        return self._checked("energy", self.energy(params, x, s), (len(s),), np.dtype(np.float64))

    def _checked_state_gradient(
        self, params: dict[str, FloatArray], x: FloatArray, s: FloatArray
    ) -> FloatArray:
        return self._checked("state_gradient", self.state_gradient(params, x, s), s.shape, s.dtype)

    def _complex(self, real: FloatArray, imaginary: FloatArray) -> FloatArray:
        return np.asarray(real + 1j * imaginary)

    def _checked_complex_gradient(
        self, params: dict[str, FloatArray], x: FloatArray, s: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        found = self._checked("state_gradient", self.state_gradient(params, x, s), s.shape, s.dtype)
        return np.ascontiguousarray(found.real), np.ascontiguousarray(found.imag)

    def _checked_param_gradient(
        self, params: dict[str, FloatArray], x: FloatArray, s: FloatArray, weights: FloatArray
    ) -> list[FloatArray]:
        found = self.param_gradient(params, x, s, weights)
        if not isinstance(found, Mapping) or set(found) != set(self.names):
            got = list(found) if isinstance(found, Mapping) else shown(found)
            raise ShapeError(
                f"{type(self).__name__}.param_gradient must return a dictionary of the parameters "
                f"{self.names}, "
                f"got {got}"
            )
        of_complex = np.iscomplexobj(s)
        parts = []
        for name in self.names:
            # The real part of the sum over rows, where states are complex.
            value = np.real(found[name]) if of_complex else found[name]
            parts.append(
                self._checked(
                    f"param_gradient[{name!r}]", value, self.shapes[name], np.dtype(s.real.dtype)
                )
            )
        return parts

    def _checked(
        self, what: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> FloatArray:
        what = f"{type(self).__name__}.{what}"
        if has_masked(value):
            raise DataError(f"{what} returned masked elements")
        array = np.asarray(value)
        if array.shape != shape:
            raise ShapeError(f"{what} must return shape {shape}, got {array.shape}")
        if array.dtype.kind not in ("fiuc" if dtype.kind == "c" else "fiu"):
            raise DataError(
                f"{what} must return {'complex' if dtype.kind == 'c' else 'real'} numbers, got "
                f"{array.dtype}"
            )
        return np.ascontiguousarray(array, dtype=dtype)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        return (
            f"{type(self).__name__}(n_in={self.n_in}, n_states={self.n_states}, "
            f"n_out={self._n_out}; {shapes})"
        )


def _made_again(kind: type[EnergySystem], state: dict[str, Any]) -> EnergySystem:
    """Return the system that was pickled, with a core and a lock of its own."""
    system = kind.__new__(kind)
    vars(system).update(state)
    system.lock, system.core = threading.RLock(), _core.System.user(system)
    renew_in_children(system)
    return system
