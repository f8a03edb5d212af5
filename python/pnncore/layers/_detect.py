"""Photodetectors."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Detect(Layer):
    """Photodetectors: the intensity |E|² of every mode of a field.

    In hardware with a mismatch m, responsivities are |1 + m ξ|, with ξ standard normal.
    """

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "detect"}
