"""Light that real signals are put on."""

from dataclasses import dataclass
from typing import Any, Literal

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Encode(Layer):
    """Real signals, put on light.

    A field of as many modes, with amplitudes x, or with amplitudes exp(i x).

    The field is complex, and nothing measures it: layers of optics take it, and `Detect` ends their
    chain. In hardware with a mismatch m, modulators answer to (1 + m ξ) x, with ξ standard normal.

    Parameters
    ----------
    n_in
        The number of signals; None: as many as the layer before has outputs.
    carrier
        ``"amplitude"``, or ``"phase"``.
    """

    n_in: int | None = None
    carrier: Literal["amplitude", "phase"] = "amplitude"

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "encode", "inputs": self.n_in, "carrier": self.carrier}
