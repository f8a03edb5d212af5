"""Detectors of regions of a plane."""

import math
from dataclasses import dataclass
from typing import Any

from pnncore._convert import is_integer, pair_of_sizes
from pnncore.errors import ConfigError
from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class DetectorRegions(Layer):
    """Detectors that each gather the light of a region of a plane: one to a class, or two.

    Outputs are the share of each detector in the light that all of them gather, times `gain`; or,
    for ``differential`` detection, the contrast (I₊ - I₋) / (I₊ + I₋) of the two regions of each
    class, times `gain`. A softmax of these tells classes. The twin is exact; hardware counts
    photons, and converts what it counted before shares are taken: as `Detect`. In hardware with a
    mismatch m, responsivities are |1 + m ξ|, with ξ standard normal.

    Parameters
    ----------
    classes
        The number of outputs.
    shape
        The numbers of pixels (height, width) of the plane.
    size
        The pixels along an edge of a square region, or (height, width); None: a quarter of what a
        class has of the plane.
    differential
        Whether a class has two regions, side by side.
    gain
        What shares or contrasts are multiplied by. None: outputs are the powers of the regions, or
        their differences, as they are.
    photons, dark_counts, bits, full_scale
        As those of `Detect`, for the power of a region.

    References
    ----------
    Lin et al., Science 361, 1004 (2018). Li et al., Adv. Photonics 1, 046001 (2019).

    Examples
    --------
    >>> DetectorRegions(2, (6, 12), size=2).regions
    ((2, 2, 4, 4), (2, 8, 4, 10))
    """

    classes: int
    shape: Any
    size: Any = None
    differential: bool = False
    gain: float | None = 10.0
    photons: float | None = None
    dark_counts: float = 0.0
    bits: int | None = None
    full_scale: float | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        object.__setattr__(self, "shape", pair_of_sizes(self.shape, "shape"))
        if self.size is not None:
            given = (self.size, self.size) if is_integer(self.size) else self.size
            object.__setattr__(self, "size", pair_of_sizes(given, "size"))
        tall, wide = self.size or (1, 1)
        most_tall, most_wide = (int(room) for room in self._room())
        if tall > most_tall or wide > most_wide:
            raise ConfigError(
                f"shape leaves {most_tall} x {most_wide} pixels for a region, got {tall} x {wide}: "
                "give a larger shape, a smaller size, or fewer classes"
            )

    def _room(self) -> tuple[float, float]:
        """How many pixels there are for each region, along both axes."""
        rows = self._rows()
        wide = max(rows) * (2 if self.differential else 1)
        return self.shape[0] / len(rows), self.shape[1] / wide

    def _rows(self) -> list[int]:
        """How many classes there are in each row: about as many as rows, more in the middle."""
        count = max(1, round(math.sqrt(self.classes * self.shape[0] / self.shape[1])))
        count = min(count, self.classes)
        most, rest = divmod(self.classes, count)
        first = (count - rest) // 2
        return [most + (first <= row < first + rest) for row in range(count)]

    @property
    def regions(self) -> tuple[tuple[int, int, int, int], ...]:
        """The regions (top, left, bottom, right), without the last two; in pairs if differential.

        Classes are in rows, from the left and from above.
        """
        (height, width), rows = self.shape, self._rows()
        square = max(1, int(min(self._room()) / 4))
        tall, wide = self.size or (square, square)
        found = []
        for i, count in enumerate(rows):
            top = int((i + 0.5) * height / len(rows) - tall / 2)
            for j in range(count):
                middle = (j + 0.5) * width / count
                # Those of a pair are half of their size apart, where there is room.
                apart = min(1.5 * wide, width / (2 * count)) if self.differential else 0.0
                for side in (-0.5, 0.5) if self.differential else (0.0,):
                    left = int(middle + side * apart - wide / 2)
                    found.append((top, left, top + tall, left + wide))
        return tuple(found)

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {
            "kind": "detector-regions",
            "shape": self.shape,
            "regions": self.regions,
            "differential": self.differential,
            "gain": self.gain,
            "photons": self.photons,
            "dark_counts": self.dark_counts,
            "bits": self.bits,
            "full_scale": self.full_scale,
        }
