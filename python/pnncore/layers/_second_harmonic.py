"""Second-harmonic generation."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class SecondHarmonic(Layer):
    """Second-harmonic generation of a shaped pulse: powers |sum over w1 of A(w1) A(2w - w1)|².

    The spectrum A has the n_in inputs, then the n_params parameters ``theta``; there are 2 (n_in +
    n_params) - 1 outputs. In hardware with a mismatch, the amplitudes that arrive and the
    efficiencies of conversion are off.

    References
    ----------
    Wright et al., Nature 601, 549 (2022).
    """

    n_in: int
    n_params: int

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "second-harmonic", "inputs": self.n_in, "parameters": self.n_params}
