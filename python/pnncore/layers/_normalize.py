"""Normalisation of rows."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Normalize(Layer):
    """Every row scaled to a mean square of one: digital, without a mismatch."""

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "normalise"}
