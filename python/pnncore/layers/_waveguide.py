"""Slabs of glass whose refractive index is programmed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pnncore.layers._base import Layer
from pnncore.layers._programmed import as_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Waveguide(Layer):
    """A programmable waveguide: light on its way through a slab whose index is set, pixel by pixel.

    The envelope A(x, z) of a field obeys the paraxial wave equation i A_z = -A_xx / 2 k - k₀ Δn A
    with k = n k₀, solved by the split-step Fourier method in Strang's order. Modes of the field are
    its values at points across the slab. Near either edge light is absorbed, so that it does not
    come in again at the other: of the power of light that crosses both, at half of the steepest
    angle that points resolve, a ten thousandth is left. The parameter ``logit`` (sections, pixels),
    near zero at first, raises the index by index_range / (1 + exp(-s)).

    Light that is sent back meets the same medium: `InSituBackprop` reads the fields of signals and
    of errors at all points, and is exact, whatever is absorbed. In hardware with a mismatch m, a
    pixel raises the index by 1 + m ξ of what it should, with ξ standard normal.

    Parameters
    ----------
    points
        How many points of the field there are across.
    width, length, wavelength
        From edge to edge, from end to end, and of the light in vacuum: lengths in the same unit,
        whichever it is.
    index
        The refractive index n where nothing is programmed.
    index_range
        By how much, at most, it is raised.
    steps
        How many steps the field takes; the error falls with their square, for the same sections.
    sections, pixels
        Of the map of the index, along the way and across: they divide steps and points. None: as
        many as these.
    absorber
        The share of the width in which either edge absorbs.

    References
    ----------
    Onodera et al., arXiv:2402.17750. Agrawal, Applications of Nonlinear Fiber Optics.

    Examples
    --------
    >>> Waveguide(256, width=256e-6, length=5e-3, wavelength=1.55e-6, index=2.2)
    Waveguide(points=256, width=0.000256, length=0.005, wavelength=1.55e-06, index=2.2)
    """

    points: int
    width: float
    length: float
    wavelength: float
    index: float = 1.5
    index_range: float = 5e-3
    steps: int = 200
    sections: int | None = None
    pixels: int | None = None
    absorber: float = 0.1

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        sections, pixels = self._map_shape()
        return {
            "kind": "waveguide",
            "points": self.points,
            "width": self.width,
            "length": self.length,
            "wavelength": self.wavelength,
            "index": self.index,
            "index_range": self.index_range,
            "steps": self.steps,
            "sections": sections,
            "pixels": pixels,
            "absorber": self.absorber,
        }

    def _map_shape(self) -> tuple[int, int]:
        return self.sections or self.steps, self.pixels or self.points

    def index_change(self, params: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return by how much the pixels of the twin raise the index (sections, pixels).

        Parameters
        ----------
        params
            ``logit``, as a stack's `params` have it, without the number of the layer.
        """
        given = as_params(params, ("logit",), self._map_shape())["logit"]
        return np.asarray(self.index_range / (1 + np.exp(-given)))

    def plot(self, params: dict[str, Any], x: Any) -> "Figure":
        """Draw the map of the index, and a field on its way through the twin; needs matplotlib.

        Parameters
        ----------
        params
            As those of `index_change`.
        x
            The field that goes in (points,).
        """
        from pnncore import _light_plot

        return _light_plot.waveguide(self, params, x)
