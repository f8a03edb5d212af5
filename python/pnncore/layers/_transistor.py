"""Analog transistor circuits."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class TransistorCircuit(Layer):
    """An analog circuit: a driven resonator whose voltage a transistor reads and loads.

    The source voltage is each input, then each of the n_params parameters ``theta``, for one unit
    of time each; after each the transistor's current is read: there are n_in + n_params outputs.

    References
    ----------
    After the electronic network of Wright et al., Nature 601, 549 (2022).
    """

    n_in: int
    n_params: int

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "transistor", "inputs": self.n_in, "parameters": self.n_params}
