"""Banks of microring resonators."""

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pnncore import _core
from pnncore._convert import as_numbers
from pnncore.errors import ShapeError
from pnncore.layers._base import Layer
from pnncore.layers._programmed import ProgrammedLayer, alone, as_params, check_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class MicroringBank(Layer):
    """A bank of microring resonators: weights of wavelength channels that share a bus.

    Inputs are the powers of n_in channels on one waveguide. It is split over n_out buses, each with
    a ring for every channel: ring j drops the share D = 1 / (1 + (2 δ)²) of a channel that is δ
    linewidths away from its resonance, and lets the rest through. Balanced detectors tell, for each
    bus, what all rings dropped less what all let through: the weight of channel k is
    1 - 2 ∏_j (1 - D_kj), over n_out. The parameter ``detuning`` (n_out, n_in) is how far each ring
    is from its own channel, in linewidths; at zero, where a channel is dropped entirely, weights
    have no slope. Skirts of resonances reach the other channels.

    In hardware with a mismatch m, linewidths are |1 + m ξ| of what they should be, with ξ standard
    normal.

    Parameters
    ----------
    n_in, n_out
        The numbers of channels and of buses.
    spacing
        From one channel to the next, in linewidths, at least 1.
    finesse
        From one resonance of a ring to its next, in linewidths: all channels must fit in between.
    resonance_error
        The standard deviation of what resonances of the hardware are off by, in linewidths.
    crosstalk
        The share of a ring's detuning that each neighbour on its bus gets, in the hardware: heat.
    bits
        Detunings of the hardware are set in steps of spacing / 2^bits; None: as they are.
    drift
        How far every resonance of the hardware moves from one step of training to the next, in
        linewidths: the standard deviation of a step of a random walk, which the system's `memory`
        has as ``detuning_drift``.

    References
    ----------
    Tait et al., Sci. Rep. 7, 7430 (2017).
    """

    n_in: int
    n_out: int
    spacing: float = 10.0
    finesse: float = 400.0
    resonance_error: float = 0.0
    crosstalk: float = 0.0
    bits: int | None = None
    drift: float = 0.0

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "microring-bank", **self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {
            "inputs": self.n_in,
            "outputs": self.n_out,
            "spacing": self.spacing,
            "finesse": self.finesse,
            "resonance_error": self.resonance_error,
            "crosstalk": self.crosstalk,
            "bits": self.bits,
            "drift": self.drift,
        }

    def program(self, matrix: Any) -> ProgrammedLayer:
        """Return the detunings that make a matrix, divided by `ProgrammedLayer.scale`.

        Each ring makes up for the skirts of the others. The scale leaves room for them: weights of
        a bank reach from little above -1 / n_out, where a ring is halfway to the next channel, to
        1 / n_out.

        Parameters
        ----------
        matrix
            Real weights (n_out, n_in), not all zero: outputs are its product with inputs, over the
            scale.
        """
        wanted = as_numbers(matrix, "matrix")
        if wanted.shape != (self.n_out, self.n_in):
            raise ShapeError(
                f"matrix must have shape {(self.n_out, self.n_in)}, got {wanted.shape}"
            )
        largest = check_size(wanted)
        # What a ring halfway to the next channel still drops, and its neighbours do.
        room = max(0.1, 1 - 4 / (1 + self.spacing**2))
        relative = wanted / largest * (room / self.n_out)
        found = _core.program_rings(json.dumps(self._settings()), relative.ravel().tolist())
        params = {"detuning": np.reshape(found, wanted.shape)}
        made = self.matrix(params)
        return ProgrammedLayer(self, params, made, wanted, largest * self.n_out / room)

    def matrix(self, params: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the weights (n_out, n_in) that the twin has at these settings.

        Parameters
        ----------
        params
            ``detuning``, as a stack's `params` have it, without the number of the layer.
        """
        ideal = dataclasses.replace(self, resonance_error=0.0, crosstalk=0.0, bits=None, drift=0.0)
        core, arrays = alone([ideal], as_params(params, ("detuning",)))
        found = _core.measure(core, arrays, np.eye(self.n_in), 0, None)[0]
        return np.ascontiguousarray(found.T)

    def plot(self, params: dict[str, Any]) -> "Figure":
        """Draw what the rings of every bus of the twin let through; needs matplotlib.

        Parameters
        ----------
        params
            As those of `matrix`.
        """
        from pnncore import _light_plot

        self.matrix(params)
        return _light_plot.spectra(self, as_params(params, ("detuning",)))
