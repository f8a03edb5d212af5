"""Layered Hopfield networks."""

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy.typing as npt

from pnncore import _core
from pnncore._convert import Seed, as_dtype, as_seed, as_settings, made, one_of, shown
from pnncore.devices import Algorithm, PulseTrains, Stored, storage
from pnncore.devices import from_config as restore
from pnncore.errors import ConfigError
from pnncore.systems._base import Outline, System, with_arrays
from pnncore.systems._layers import as_gain, as_layers

Activation = Literal["hard-sigmoid", "tanh", "logistic"]
Precision = Literal["bfloat16"]


class Hopfield(System):
    """A layered Hopfield network: units that settle to the minimum of an energy.

    E = sum_l Phi(s_l) - sum_l s_{l-1}ᵀ W_l s_l - sum_l b_lᵀ s_l, with the inputs s_0 held and the
    outputs linear (Phi = s²/2). For hidden units Phi' is the inverse of the activation; for the
    hard sigmoid Phi = s²/2 in the box [0, 1]. Given its neighbours, a layer is at its minimum at
    rho(W_lᵀ s_{l-1} + W_{l+1} s_{l+1} + b_l).

    Parameters
    ----------
    layers
        The sizes of the layers, inputs first, outputs last.
    activation
        Of hidden units: ``"hard-sigmoid"``, ``"tanh"`` or ``"logistic"``. The last two are smooth,
        as holomorphic equilibrium propagation needs.
    gain
        Couplings start uniform in ±gain/sqrt(fan-in), biases at zero.
    device, trains, algorithm
        What couplings are stored in, and how changes become pulses: see `pnncore.layers.Crossbar`.
        Settling sees the couplings as they are stored; converters are not modelled. None: any
        coupling can be had.
    precision
        What couplings and states are rounded to where they are multiplied: ``"bfloat16"`` (eight
        significant bits). Sums and states themselves stay in the dtype, and so does what the local
        rule reads. None: nothing is rounded.
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
        device: Stored | None = None,
        trains: PulseTrains | None = None,
        algorithm: Algorithm | None = None,
        precision: Precision | None = None,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.layers = as_layers(layers)
        if not isinstance(activation, str) or activation not in get_args(Activation):
            raise ConfigError(
                f'activation must be "hard-sigmoid", "tanh" or "logistic", got {shown(activation)}'
            )
        one_of(precision, "precision", get_args(Precision), optional=True)
        self._precision = precision
        self.gain = as_gain(gain)
        self.seed = as_seed(seed)
        self.device, self.trains, self.algorithm = (
            device,
            trains if trains is not None else PulseTrains(),
            algorithm,
        )
        tile = storage(self.device, self.trains, self.algorithm)
        core = _build(self.layers, activation, tile, self.seed, precision)
        super().__init__(core, dtype)
        self.activation = activation
        core.initialise(self.arrays(), self.seed, self.gain)

    @property
    def precision(self) -> Precision | None:
        """What couplings and states are rounded to where they are multiplied."""
        return self._precision

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal system, as plain data; checkpoints keep it."""
        return {
            "name": "Hopfield",
            "layers": self.layers,
            "activation": self.activation,
            "gain": self.gain,
            "device": None if self.device is None else self.device.to_config(),
            "trains": self.trains.spec(),
            "algorithm": None if self.algorithm is None else self.algorithm.to_config(),
            "precision": self.precision,
            "dtype": str(self.dtype),
            "seed": self.seed,
        }

    def in_full_precision(self) -> System:
        """See `System.in_full_precision`."""
        if self.precision is None:
            return self
        settings = {**self.to_config(), "precision": None}
        del settings["name"]
        return with_arrays(Hopfield.from_config(settings), self.params, self.memory)

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Hopfield":
        """Return the network of a `to_config` dictionary, its name left out."""
        parts = {
            name: None if settings[name] is None else restore(settings[name])
            for name in ("device", "algorithm")
        }
        parts["trains"] = made(PulseTrains, as_settings(settings["trains"], "trains"), "trains")
        return made(cls, {**settings, **parts}, "Hopfield")

    @classmethod
    def outline(cls, settings: dict[str, Any]) -> Outline:
        """See `System.outline`; there are as many cells per coupling as the configuration names."""
        core = _build(as_layers(settings["layers"]), "tanh", None, 0)
        return Outline(dict(core.specs()), as_dtype(settings["dtype"]))

    def __repr__(self) -> str:
        stored = (
            "" if self.device is None else f", device={self.device!r}, algorithm={self.algorithm!r}"
        )
        rounded = "" if self.precision is None else f", precision={self.precision!r}"
        own = f"activation={self.activation!r}{stored}{rounded}"
        own = f"{own}, dtype={str(self.dtype)!r}, seed={self.seed}"
        return f"Hopfield({self.layers}, {own})"


def _build(
    layers: list[int],
    activation: Activation,
    tile: dict[str, Any] | None,
    seed: int,
    precision: Precision | None = None,
) -> _core.System:
    spec: dict[str, Any] = {"layers": layers, "activation": activation, "tile": tile, "seed": seed}
    if precision is not None:
        spec["precision"] = precision
    return _core.System.build("Hopfield", json.dumps(spec))
