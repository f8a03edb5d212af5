"""Layered Hopfield networks."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy.typing as npt

from pnncore import _core
from pnncore._convert import Seed, as_seed
from pnncore.errors import ConfigError
from pnncore.systems._base import System
from pnncore.systems._layers import as_gain, as_layers

Activation = Literal["hard-sigmoid", "tanh", "logistic"]


class Hopfield(System):
    """A layered Hopfield network: units that settle to the minimum of an energy.

    E = sum_l Phi(s_l) - sum_l s_{l-1}ᵀ W_l s_l - sum_l b_lᵀ s_l, with the inputs s_0 held and the outputs linear
    (Phi = s²/2). For hidden units Phi' is the inverse of the activation; for the hard sigmoid Phi = s²/2 in the box
    [0, 1]. Given its neighbours, a layer is at its minimum at rho(W_lᵀ s_{l-1} + W_{l+1} s_{l+1} + b_l).

    Parameters
    ----------
    layers
        The sizes of the layers, inputs first, outputs last.
    activation
        Of hidden units: ``"hard-sigmoid"``, ``"tanh"`` or ``"logistic"``. The last two are smooth, as holomorphic
        equilibrium propagation needs.
    gain
        Couplings start uniform in ±gain/sqrt(fan-in), biases at zero.
    dtype
        ``"float32"``, or ``"float64"`` for reference runs.
    seed
        Of the initial couplings; None draws one, which `seed` then tells.

    Attributes
    ----------
    params
        ``W1`` (n_0, n_1), ``b1`` (n_1,), ``W2``, ``b2``, ...: NumPy arrays, writable in place.

    References
    ----------
    Scellier and Bengio, Front. Comput. Neurosci. 11, 24 (2017).

    Examples
    --------
    >>> net = Hopfield([64, 128, 10], seed=0)
    >>> net
    Hopfield([64, 128, 10], activation='hard-sigmoid', dtype='float32', seed=0)
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        activation: Activation = "hard-sigmoid",
        gain: float = 0.7,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.layers = as_layers(layers)
        if not isinstance(activation, str):
            raise ConfigError(f'activation must be "hard-sigmoid", "tanh" or "logistic", got {activation!r}')
        self.gain = as_gain(gain)
        core = _core.System.hopfield(self.layers, activation)
        super().__init__(core, self.layers[0], dtype)
        self.activation = activation
        self.seed = as_seed(seed)
        core.initialise(self.arrays(), self.seed, self.gain)

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal system, as plain data; checkpoints keep it."""
        return {
            "name": "Hopfield",
            "layers": self.layers,
            "activation": self.activation,
            "gain": self.gain,
            "dtype": str(self.dtype),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Hopfield":
        """Return the network of a `to_config` dictionary, its name left out."""
        return cls(**settings)

    def __repr__(self) -> str:
        return f"Hopfield({self.layers}, activation={self.activation!r}, dtype={str(self.dtype)!r}, seed={self.seed})"
