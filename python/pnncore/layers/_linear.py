"""Linear maps."""

from dataclasses import dataclass
from typing import Any, Literal

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
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
    precision
        What signals, weights and, on their way back, errors are rounded to where they are
        multiplied: ``"bfloat16"`` (eight significant bits; Kalamkar et al. 2019, arXiv 1905.12322).
        Sums, weights and biases stay in the system's dtype; derivatives are those of the map
        without rounding, of rounded numbers. None: nothing is rounded.
    """

    n_in: int
    n_out: int
    bias: bool = True
    precision: Literal["bfloat16"] | None = None

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        spec = {"kind": "linear", "inputs": self.n_in, "outputs": self.n_out, "bias": self.bias}
        return spec if self.precision is None else {**spec, "precision": self.precision}
