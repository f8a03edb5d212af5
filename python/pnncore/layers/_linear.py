"""Linear maps."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False)
class Linear(Layer):
    """A linear map y = x W + b: digital, or an ideal crossbar.

    Hardware with a mismatch m multiplies every weight by 1 + m xi, and outputs leak into each other
    as I + (m / 2) xi / sqrt(n_out), with xi standard normal.

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs and outputs.
    bias
        Whether b is there.
    """

    n_in: int
    n_out: int
    bias: bool = True

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "linear", "inputs": self.n_in, "outputs": self.n_out, "bias": self.bias}
