"""Diffractive layers: masks in free space."""

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pnncore import _core
from pnncore._convert import pair_of_sizes
from pnncore.layers._base import Layer
from pnncore.layers._programmed import as_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# The most of the light that any field sends from one plane of area A to the next is A² / (λz)²,
# where that is little (Miller, Appl. Opt. 39, 1681 (2000)).
LEAST_ARRIVING = 0.1


@dataclass(frozen=True, repr=False, eq=False)
class Diffraction(Layer):
    """A diffractive layer: a mask of pixels, and the free space behind it.

    The field at the pixels of one plane is multiplied by the mask, and goes on to the pixels of the
    next plane: the modes of the field are its pixels, row by row. A layer without a mask is free
    space. Light that leaves the planes at their sides is lost; fields are padded, so that none of
    it comes back (`padded_shape`).

    What a pixel sends to the next plane is its angular spectrum, cut to the waves that pixels
    resolve, integrated to rounding; where pixels are smaller than 0.71 wavelengths, or planes far
    apart, it is the first Rayleigh-Sommerfeld integral of a point. Smooth fields cannot tell these
    apart. Planes whose pixels do not resolve light from one edge to the other are refused.

    Parameters of the layer, both (height, width): ``phase``, in radians, uniform at first, and
    ``logit`` s of amplitudes 1 / (1 + exp(-s)), near 2 at first.

    In hardware with a mismatch m, the mask is moved by m ξ pixels along either axis and turned
    about its middle until the middle of an edge has moved by m ξ pixels, and the next plane is m ξ
    pitches off along the beam, though no nearer than pixels resolve, with ξ standard normal,
    another one each time. Pixels that overlap share light by area.

    Parameters
    ----------
    shape
        The numbers of pixels (height, width).
    distance, wavelength, pitch
        From the mask to the next plane, of the light, and from one pixel to the next: lengths in
        the same unit, whichever it is.
    mask
        What of the light it changes: ``"phase"``, ``"amplitude"``, or ``"complex"``, both. None:
        there is no mask.
    absorption
        Of a mask with phases φ: its material leaves exp(-absorption φ) of the amplitude, with φ
        taken in [0, 2π); for a relief in a material of index n + i κ that is κ / (n - 1).
    bits
        The hardware has 2^bits phases in a turn, and amplitudes from 0 to 1; None: any.

    References
    ----------
    Lin et al., Science 361, 1004 (2018). Goodman, Introduction to Fourier Optics. Matsushima,
    Shimobaba, Opt. Express 17, 19662 (2009).

    Examples
    --------
    >>> Diffraction((200, 200), distance=30e-3, wavelength=0.75e-3, pitch=0.4e-3)
    Diffraction(shape=(200, 200), distance=0.03, wavelength=0.00075, pitch=0.0004)
    """

    shape: Any
    distance: float
    wavelength: float
    pitch: float
    mask: Literal["phase", "amplitude", "complex"] | None = "phase"
    absorption: float = 0.0
    bits: int | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        object.__setattr__(self, "shape", pair_of_sizes(self.shape, "shape"))
        if min(self.distance, self.wavelength, self.pitch) > 0:
            self._warn_of_light_that_misses()

    def _warn_of_light_that_misses(self) -> None:
        height, width = self.shape
        pitches = (self.pitch / self.wavelength) * (self.pitch / self.distance)
        arrives = (height * width * pitches) ** 2
        if arrives < LEAST_ARRIVING:
            warnings.warn(
                f"at most {arrives:.1g} of the light can reach the next plane, whatever the mask "
                "does: are distance, wavelength and pitch in the same unit?",
                UserWarning,
                stacklevel=4,
            )

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "diffraction", **self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "distance": self.distance,
            "wavelength": self.wavelength,
            "pitch": self.pitch,
            "mask": self.mask,
            "absorption": self.absorption,
            "bits": self.bits,
        }

    @property
    def padded_shape(self) -> tuple[int, int]:
        """The numbers of pixels that fields are padded to."""
        height, width = _core.padded_shape(json.dumps(self._settings()))
        return height, width

    def transmission(self, params: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.complex128]]:
        """Return what the pixels of the twin's mask multiply fields by (height, width).

        Parameters
        ----------
        params
            ``phase`` and ``logit``, those that the mask has, as a stack's `params` have them,
            without the number of the layer.
        """
        names = {"phase": ("phase",), "amplitude": ("logit",), "complex": ("phase", "logit")}
        given = as_params(params, names[self.mask] if self.mask else (), self.shape)
        phase = given.get("phase", np.zeros(self.shape))
        amplitude = 1 / (1 + np.exp(-given["logit"])) if "logit" in given else 1.0
        absorbed = np.exp(-self.absorption * np.mod(phase, 2 * np.pi))
        return np.asarray(amplitude * absorbed * np.exp(1j * phase))

    def plot(self, params: dict[str, Any]) -> "Figure":
        """Draw the mask of the twin, its phases and its amplitudes; needs matplotlib.

        Parameters
        ----------
        params
            As those of `transmission`.
        """
        from pnncore import _light_plot

        return _light_plot.mask(self, params)
