"""Light through random scattering media."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Speckle(Layer):
    """Light through a random scattering medium: intensities |T (x e^{i phase}) + b|².

    T has independent complex normal elements of variance 1 / n_in; the phases, one per input, are
    parameters. Hardware with a mismatch m has T + m T', with T' another such medium.

    Parameters
    ----------
    n_in, n_out
        The numbers of inputs (amplitudes) and outputs (intensities).
    reference
        The mean intensity of a reference beam b, complex normal, too.
    """

    n_in: int
    n_out: int
    reference: float = 0.0

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {
            "kind": "speckle",
            "inputs": self.n_in,
            "outputs": self.n_out,
            "reference": self.reference,
        }
