"""Pulses in nonlinear optical fibres."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pnncore.layers._base import Layer
from pnncore.layers._programmed import as_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Fibre(Layer):
    """A pulse in a nonlinear optical fibre, shaped before by phases of its spectrum.

    The envelope A(t, z) obeys the nonlinear Schrödinger equation i A_z = (β₂ / 2) A_tt - γ |A|² A,
    in a frame that moves with the pulse, solved by the split-step Fourier method in Strang's order.
    Modes of the field are frequencies, in ascending order, that of the carrier in the middle. What
    arrives multiplies the spectrum of the pulse, as data that `Encode` has put into phases do, and
    so does exp(i φ) of the parameter ``phase`` (points), in radians and small at first. The
    spectrum comes out in units in which all of it has an energy of one where all of the pulse goes
    in; `Detect` makes a spectrometer of it.

    A sech pulse of duration t₀ has 99 % of its energy within 0.54 window / t₀ frequencies around
    the carrier: data that are put elsewhere meet no light. Time is a circle: a pulse that leaves
    the window at its end comes in again at its beginning. In hardware with a mismatch m, dispersion
    and nonlinearity are 1 + m ξ of what they should be, with ξ standard normal.

    Parameters
    ----------
    points
        How many points in time there are, and frequencies.
    window
        From the first point to where they begin again.
    length
        Of the fibre.
    dispersion
        β₂, in squares of the unit of time over that of length; negative: anomalous, with solitons.
    nonlinearity
        γ, over the units of power and of length.
    duration, peak_power
        The t₀ of the pulse, and its power at the peak, before its spectrum is shaped.
    pulse
        ``"sech"``: sech(t / t₀). ``"gaussian"``: exp(-t² / 2 t₀²).
    steps
        How many steps the field takes; the error falls with their square.

    References
    ----------
    Oguz et al., Nat. Commun. 15, 9793 (2024). Agrawal, Nonlinear Fiber Optics.

    Examples
    --------
    >>> Fibre(256, window=10.0, length=1.0, dispersion=-1.0, nonlinearity=1.0)
    Fibre(points=256, window=10.0, length=1.0, dispersion=-1.0, nonlinearity=1.0)
    """

    points: int
    window: float
    length: float
    dispersion: float
    nonlinearity: float
    duration: float = 1.0
    peak_power: float = 1.0
    pulse: Literal["sech", "gaussian"] = "sech"
    steps: int = 200

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {
            "kind": "fibre",
            "points": self.points,
            "window": self.window,
            "length": self.length,
            "dispersion": self.dispersion,
            "nonlinearity": self.nonlinearity,
            "pulse": self.pulse,
            "duration": self.duration,
            "peak_power": self.peak_power,
            "steps": self.steps,
        }

    @property
    def frequencies(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The frequencies f (points) of exp(2πi f t), in cycles per unit of time."""
        return np.fft.fftshift(np.fft.fftfreq(self.points, self.window / self.points))

    def plot(self, params: dict[str, Any], x: Any = None) -> "Figure":
        """Draw the power of a pulse on its way through the twin, and spectra; needs matplotlib.

        Parameters
        ----------
        params
            ``phase``, as a stack's `params` have it, without the number of the layer.
        x
            What the spectrum is multiplied by (points,); None: ones.
        """
        from pnncore import _light_plot

        return _light_plot.fibre(self, as_params(params, ("phase",), (self.points,)), x)
