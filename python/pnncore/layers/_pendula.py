"""Coupled pendula."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Pendula(Layer):
    """Coupled pendula, released at rest from the angles x.

    They move by q_i'' = -sin q_i + sum_j J_ji (sin q_j - sin q_i) + e_i.

    Outputs are the angles after a time. The couplings ``J`` (from, to) and the torques ``e`` are
    parameters; in hardware with a mismatch, restoring forces and couplings are off.

    Parameters
    ----------
    n
        The number of pendula.
    time
        The time that they swing, in units of one over the angular frequency of small swings.
    steps
        Steps of the fourth-order Runge-Kutta method in that time.

    References
    ----------
    Wright et al., Nature 601, 549 (2022), with this network as an example of mechanics.
    """

    n: int
    time: float = 5.0
    steps: int = 50

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "pendula", "inputs": self.n, "time": self.time, "steps": self.steps}
