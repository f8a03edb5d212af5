"""Deep resistive networks."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._convert import FloatArray, Seed, as_dtype, as_seed, made, number, shown
from pnncore.devices import Device
from pnncore.errors import ConfigError
from pnncore.systems._base import Outline, System
from pnncore.systems._layers import as_gain, as_layers

_CONDUCTANCES = Device(lower=0.0)


class DeepResistive(System):
    """A deep resistive network: layers of nodes joined by conductances, with ideal diodes.

    The states are the voltages of the nodes. They settle to the minimum of E = sum over resistors
    of g_ij (v_i - v_j)²/2 - sum b_j v_j, half the power that the conductances g dissipate less what
    the current sources b feed in: Kirchhoff's laws, under the constraints of the diodes. Inputs are
    pairs of voltage sources at ``±input_gain * x``, since conductances cannot be negative. A diode
    to ground at every hidden node keeps the first half of each hidden layer at v >= 0 and the
    second half at v <= 0; outputs are free. Given its neighbours a node settles to their mean,
    weighted by the conductances, within its walls. The squared-error nudge of equilibrium
    propagation is a current ``beta * (y - v)`` into each output, and each conductance learns from
    its own voltage drop: dE/dg_ij = (v_i - v_j)²/2.

    Parameters
    ----------
    layers
        The sizes of the layers: inputs (each a pair of sources) first, outputs last.
    input_gain
        The voltage of the sources at x = 1. Each layer divides voltages, so that deep networks want
        hundreds.
    gain
        Conductances start at the magnitudes of numbers uniform in ±gain/sqrt(fan-in), current
        sources at zero.
    device
        What conductances are stored in: a `pnncore.devices.Device` with `lower` at least 0. By
        default any g >= 0.
    dtype
        ``"float32"``, or ``"float64"`` for reference runs.
    seed
        Of the initial conductances; None draws one, which `seed` then tells.

    Attributes
    ----------
    params
        ``g1`` (2 n_0, n_1), first a row for +x of every input, then one for -x of every input;
        ``b1`` (n_1,); ``g2`` (n_1, n_2), ``b2``, ...: NumPy arrays, writable in place. Conductances
        in siemens if voltages are in volts and currents in amperes.

    References
    ----------
    Scellier, "A fast algorithm to simulate nonlinear resistive networks", ICML (2024), arXiv
    2402.11674.

    Examples
    --------
    >>> net = DeepResistive([64, 32, 10], input_gain=50.0, seed=0)
    >>> net
    DeepResistive([64, 32, 10], input_gain=50.0, dtype='float32', seed=0)
    >>> net.params["g1"].shape
    (128, 32)
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        input_gain: float = 100.0,
        gain: float = 1.0,
        device: Device = _CONDUCTANCES,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.layers = as_layers(layers)
        self.input_gain = number(input_gain, "input_gain")
        self.gain = as_gain(gain)
        if not isinstance(device, Device):
            raise ConfigError(f"device must be a pnncore.devices.Device, got {shown(device)}")
        self.device = device
        resolved = as_dtype(dtype)
        core = _build(self.layers, self.input_gain, device)
        super().__init__(core, resolved)
        self.seed = as_seed(seed)
        core.initialise(self.arrays(), self.seed, self.gain)

    def power(self, x: Any, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Return the power (samples,) that the conductances dissipate at the free steady state.

        That is the sum of g ΔV², in watts for volts and siemens. Times the time that the circuit
        takes to settle it is the energy of an inference. NaN for samples without a steady state.
        """
        settled = self._at_rest(x, threads)
        # The energy is half of it, less the work of the current sources.
        fed = [
            layer.astype(np.float64) @ self.params[f"b{k + 1}"].astype(np.float64)
            for k, layer in enumerate(settled.states)
        ]
        return np.asarray(2 * (settled.energy + sum(fed)))

    def _signals(self, x: FloatArray) -> tuple[str, list[tuple[str, FloatArray | None]]]:
        """See `System._signals`."""
        return "voltage", super()._signals(x)[1]

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal system, as plain data; checkpoints keep it."""
        return {
            "name": "DeepResistive",
            "layers": self.layers,
            "input_gain": self.input_gain,
            "gain": self.gain,
            "device": self.device.to_config(),
            "dtype": str(self.dtype),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "DeepResistive":
        """Return the network of a `to_config` dictionary, its name left out."""
        return made(
            cls, {**settings, "device": Device.from_config(settings["device"])}, "DeepResistive"
        )

    @classmethod
    def outline(cls, settings: dict[str, Any]) -> Outline:
        """See `System.outline`."""
        layers, gain = as_layers(settings["layers"]), number(settings["input_gain"], "input_gain")
        core = _build(layers, gain, Device.from_config(settings["device"]))
        return Outline(dict(core.specs()), as_dtype(settings["dtype"]))

    def __repr__(self) -> str:
        device = "" if self.device == _CONDUCTANCES else f", device={self.device!r}"
        return (
            f"DeepResistive({self.layers}, input_gain={self.input_gain!r}{device}, "
            f"dtype={str(self.dtype)!r}, "
            f"seed={self.seed})"
        )


def _build(layers: list[int], input_gain: float, device: Device) -> _core.System:
    spec = {"layers": layers, "input_gain": input_gain, "device": device.to_config()}
    return _core.System.build("DeepResistive", json.dumps(spec))
