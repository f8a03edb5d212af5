"""Driven oscillating plates."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Plate(Layer):
    """A driven oscillating plate.

    Modes q'' + c q' + W² q + a q³ = g u(t), read as a weighted sum of the q.

    The drive u is each input, then each of the n_params parameters ``theta``, for one unit of time
    each; after each the plate is read: there are n_in + n_params outputs. Frequencies W lie between
    0.3 and 3 radians per unit of time.

    Parameters
    ----------
    n_in, n_params
        The numbers of inputs and parameters.
    modes
        How many modes.
    damping, cubic
        c, and the hardening a.

    References
    ----------
    Wright et al., Nature 601, 549 (2022).
    """

    n_in: int
    n_params: int
    modes: int = 16
    damping: float = 0.1
    cubic: float = 0.3

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        own = {"modes": self.modes, "damping": self.damping, "cubic": self.cubic}
        return {"kind": "plate", "inputs": self.n_in, "parameters": self.n_params, **own}
