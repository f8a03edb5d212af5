"""Layers of a user's own, from functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from pnncore._convert import FloatArray, as_numbers, as_settings, shown
from pnncore._modelled import Modelled
from pnncore.devices import Device
from pnncore.errors import CapabilityError, ConfigError
from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Custom(Layer, listed=False):
    """A layer of one's own, from functions of NumPy arrays: a simulation that is its own twin.

    Methods that only need outputs train it as it is; with `vjp` those that send errors back do,
    too. The functions are called with all samples at once, on the calling thread.
    `pnncore.testing.check_layer` compares the derivatives with differences. (A callable with
    failures and a journal is a `pnncore.systems.Instrument`.)

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs and outputs.
    forward
        ``forward(x, params)`` returns outputs (rows, n_out) for inputs (rows, n_in) and a dict of
        parameters. Rows do not see each other.
    vjp
        ``vjp(x, params, dy)`` returns ``dx`` (rows, n_in) and a dict of gradients, summed over
        rows.
    jvp
        ``jvp(x, params, dx, along)`` returns the change of the outputs with inputs along ``dx`` and
        parameters along ``along``; `ForwardGradient` asks for it.
    params
        The initial parameters by name.

    Examples
    --------
    >>> import numpy as np
    >>> from pnncore.systems import Stack
    >>> initial = {"gain": np.array([2.0, 3.0])}
    >>> gain = Custom(2, 2, lambda x, params: x * params["gain"], params=initial)
    >>> Stack([gain], dtype="float64", seed=0).predict([[1.0, 1.0]])
    array([[2., 3.]])
    """

    n_in: int
    n_out: int
    forward: Callable[[FloatArray, dict[str, FloatArray]], Any]
    vjp: (
        Callable[[FloatArray, dict[str, FloatArray], FloatArray], tuple[Any, Mapping[str, Any]]]
        | None
    ) = None
    jvp: (
        Callable[[FloatArray, dict[str, FloatArray], FloatArray, dict[str, FloatArray]], Any] | None
    ) = None
    params: Mapping[str, npt.ArrayLike] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        for name, function in (("forward", self.forward), ("vjp", self.vjp), ("jvp", self.jvp)):
            if not callable(function) and (function is not None or name == "forward"):
                raise ConfigError(f"{name} must be a function, got {shown(function)}")
        if self.mismatch:
            raise ConfigError(
                "mismatch is for layers whose constants the core knows; a Custom layer has none"
            )
        given = as_settings(self.params, "params").items()
        initial = {
            name: as_numbers(value, f"params[{name!r}]", refusal=ConfigError)
            for name, value in given
        }
        object.__setattr__(self, "initial", initial)
        object.__setattr__(self, "called", _Functions(self, initial))

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {
            "kind": "foreign",
            "inputs": self.n_in,
            "outputs": self.n_out,
            "device": Device().to_config(),
        }

    def to_config(self) -> dict[str, Any]:
        """Refuse: what a function does is in no file."""
        raise CapabilityError(
            "a Custom layer cannot be rebuilt from a file; pass system= when loading"
        )

    def __repr__(self) -> str:
        return f"Custom({self.n_in}, {self.n_out})"


class _Functions(Modelled):
    """What the core asks of a layer that is given by functions."""

    is_exact = True

    def __init__(self, layer: Custom, initial: Mapping[str, FloatArray]) -> None:
        self.layer, self.n_in, self.n_out = layer, layer.n_in, layer.n_out
        self.specs = [(name, list(array.shape)) for name, array in initial.items()]
        # The core takes a layer with a twin for one with derivatives.
        self.twin = layer.vjp

    def function(self, name: str) -> Callable[..., Any]:
        """See `Modelled.function`."""
        function: Callable[..., Any] | None = getattr(self.layer, name)
        if function is None:
            raise CapabilityError(
                f"a Custom layer without {name}= has no {name}, which this method asks for"
            )
        return function
