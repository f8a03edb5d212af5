"""Hamiltonian chains."""

import json
from typing import Any

import numpy.typing as npt

from pnncore import _core
from pnncore._convert import FloatArray, as_dtype, made, non_negative, number, positive_int
from pnncore.systems._base import System


class HamiltonianChain(System):
    """A Hamiltonian chain: anharmonic oscillators, released from the inputs and watched.

    They stand side by side, and are watched for a time.

    H = sum_i p_i²/2 + a_i q_i²/2 + c_i q_i⁴/4 - b_i q_i + sum_i k_i (q_{i+1} - q_i)²/2. The first
    masses begin at q = x, the others at zero, all at rest; the outputs are the places of the last
    masses after the time. The motion is computed by leapfrog, which keeps the energy to the second
    order of its steps and runs backwards exactly, but for the damping p' = -damping p.

    It does not settle: `settle` returns momenta and places at the end, as ``completed``.

    Parameters
    ----------
    masses
        How many masses there are.
    n_in, n_out
        How many of the first are released from the inputs, and how many of the last are watched.
    time, steps
        The time, in units of one over the frequency of a mass with a = 1, and the steps that it is
        cut into.
    damping
        The rate at which momenta decay.
    stiffness, quartic, bond
        The initial a, c and k of all masses and bonds; b begins at zero. c and k are at least zero,
        and stay so.
    dtype
        ``"float32"`` or ``"float64"`` for parameters and outputs; the motion itself is computed in
        float64.

    References
    ----------
    After the nonlinear waves of Lopez-Pastor and Marquardt, Phys. Rev. X 13, 031020 (2023).

    Examples
    --------
    Half a period of one oscillator takes it to the other side.

    >>> chain = HamiltonianChain(1, n_in=1, n_out=1, time=3.141592653589793, steps=400, quartic=0.0)
    >>> chain
    HamiltonianChain(1, n_in=1, n_out=1, time=3.141592653589793, steps=400)
    >>> float(chain.predict([[0.5]])[0, 0].round(4))
    -0.5
    """

    def __init__(
        self,
        masses: int,
        *,
        n_in: int,
        n_out: int,
        time: float = 5.0,
        steps: int = 100,
        damping: float = 0.0,
        stiffness: float = 1.0,
        quartic: float = 0.5,
        bond: float = 1.0,
        dtype: npt.DTypeLike = "float64",
    ) -> None:
        self.spec: dict[str, Any] = {
            "masses": positive_int(masses, "masses"),
            "inputs": positive_int(n_in, "n_in"),
            "outputs": positive_int(n_out, "n_out"),
            "time": number(time, "time", positive=True),
            "steps": positive_int(steps, "steps"),
            "damping": non_negative(damping, "damping"),
        }
        resolved = as_dtype(dtype)
        super().__init__(_core.System.build("HamiltonianChain", json.dumps(self.spec)), resolved)
        self.params["a"][...] = number(stiffness, "stiffness")
        self.params["c"][...] = non_negative(quartic, "quartic")
        self.params["k"][...] = non_negative(bond, "bond")

    def _signals(self, x: FloatArray) -> tuple[str, list[tuple[str, FloatArray | None]]]:
        """See `System._signals`: momenta and places at the end, and places that are watched."""
        momenta, inner, watched = self.settle(x).states
        return "place, momentum", [("momenta", momenta), ("places", inner), ("outputs", watched)]

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal chain, as plain data; checkpoints keep it."""
        names = {"inputs": "n_in", "outputs": "n_out"}
        own = {names.get(name, name): value for name, value in self.spec.items()}
        return {"name": "HamiltonianChain", **own, "dtype": str(self.dtype)}

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "HamiltonianChain":
        """Return the chain of a `to_config` dictionary, its name left out."""
        return made(cls, settings, "HamiltonianChain")

    def __repr__(self) -> str:
        damped = f", damping={self.spec['damping']!r}" if self.spec["damping"] else ""
        return (
            f"HamiltonianChain({self.spec['masses']}, n_in={self.n_in}, n_out={self.n_out}, "
            f"time={self.spec['time']!r}, steps={self.spec['steps']}{damped})"
        )
