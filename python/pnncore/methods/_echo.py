"""Methods that run a motion backwards."""

from dataclasses import dataclass

from pnncore.methods._base import Method


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class HamiltonianEcho(Method):
    """Hamiltonian echo backpropagation: run, turn round, kick by the error, run again.

    Turned momenta are kicked by ``±kick`` dL/dq, and dL/dθ is the difference of the integrals of
    ∂H/∂θ along the two echoes, over ``-2 kick``: with a bias of O(``kick``²). The physics
    computes its own adjoint, as long as it runs backwards; damping spoils it.

    Parameters
    ----------
    kick
        How hard errors kick: a momentum per dL/dq.

    References
    ----------
    Lopez-Pastor and Marquardt, Phys. Rev. X 13, 031020 (2023).
    """

    kick: float = 1e-2
