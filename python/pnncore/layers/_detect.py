"""Photodetectors."""

from dataclasses import dataclass
from typing import Any, Literal

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Detect(Layer):
    """Photodetectors of all modes of a field, with the noise of light.

    The twin is exact. Hardware counts photons, where it is said how many there are: of an intensity
    I it detects a Poisson number with the mean photons I + dark_counts, and tells (number -
    dark_counts) / photons. Quadratures have the noise of the vacuum, of variance 1 / (4 photons),
    or 1 / (2 photons) for both at once. In hardware with a mismatch m, responsivities are
    |1 + m ξ|, with ξ standard normal.

    Parameters
    ----------
    quantity
        ``"intensity"``: |E|² of every mode. ``"balanced"``: the difference of the intensities of
        each pair of modes, first less second. ``"real"`` or ``"imaginary"``: a quadrature of every
        mode, by interference with a strong field (homodyne detection). ``"quadratures"``: the real
        parts and then the imaginary parts, each of half of the light.
    photons
        The photons that are detected of an intensity of one: the mean photons of a sample whose
        amplitudes have squares that add up to one and of which nothing is lost. None: so many that
        noise does not matter.
    dark_counts
        How many counts of a detector, in a sample's time, come without light.
    bits, full_scale
        Converters have 2^bits levels up to full_scale, from zero or, where signals have a sign,
        from -full_scale; what is beyond is clipped. None: they are exact. The `noise` of a layer
        or of a stack comes behind them.
    """

    quantity: Literal["intensity", "balanced", "real", "imaginary", "quadratures"] = "intensity"
    photons: float | None = None
    dark_counts: float = 0.0
    bits: int | None = None
    full_scale: float | None = None

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {
            "kind": "detect",
            "quantity": self.quantity,
            "photons": self.photons,
            "dark_counts": self.dark_counts,
            "bits": self.bits,
            "full_scale": self.full_scale,
        }
