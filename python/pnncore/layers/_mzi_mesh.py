"""Meshes of Mach-Zehnder interferometers."""

from dataclasses import dataclass
from typing import Any

from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class MZIMesh(Layer):
    """A rectangular mesh of Mach-Zehnder interferometers: any unitary map of the fields of n modes.

    An interferometer mixes two neighbouring modes by T = B diag(e^{iθ}, 1) B diag(e^{iφ}, 1), with
    the coupler B = [[1, i], [i, 1]] / √2. Light meets n columns of them, which begin in turn at the
    first and at the second mode, and then a phase γ in each mode. Parameters are the phases in
    radians: ``theta`` and ``phi`` (n (n - 1) / 2 each, in the order in which light meets them) and
    ``gamma`` (n), drawn uniform on the circle.

    Fields go in and out: put `Encode` before a chain of meshes, and `Detect` behind. In hardware
    with a mismatch m, the angle π/4 of each coupler is (1 + m ξ) π/4, with ξ standard normal.

    Parameters
    ----------
    n
        The number of modes, at least 2.
    loss
        What each coupler of the hardware loses, in decibels of power; the twin loses nothing.
    drift
        How far heat moves every phase of the hardware from one step of training to the next, in
        radians: the standard deviation of a step of a random walk. The system's `memory` has how
        far it has come: ``theta_drift``, ``phi_drift`` and ``gamma_drift``. The twin does not
        drift.

    References
    ----------
    Clements et al., Optica 3, 1460 (2016).
    """

    n: int
    loss: float = 0.0
    drift: float = 0.0

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {"kind": "mzi-mesh", "modes": self.n, "loss": self.loss, "drift": self.drift}
