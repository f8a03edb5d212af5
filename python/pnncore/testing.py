"""Checks for systems of one's own."""

from dataclasses import dataclass

import numpy as np

from pnncore._convert import Seed, as_seed
from pnncore.errors import PnnError
from pnncore.systems import System


@dataclass(frozen=True)
class Finding:
    """What one check found: its name, whether it passed, and figures or what is wrong."""

    check: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.check}: {self.message}".rstrip(": ")


class SystemCheckError(PnnError, AssertionError):
    """A system is not what it says; the message lists what is wrong."""


def check_system(system: System, *, seed: Seed = 0, raises: bool = True) -> list[Finding]:
    """Compare everything that a system says with finite differences.

    Energies against their gradients by states and by parameters, the symmetry of the Hessian, the independence of rows,
    whether settling finds a state without forces, whether nudging moves outputs towards targets, and whether
    equilibrium propagation is the gradient of the loss; at the present parameters, on a few random samples, in float64.

    Parameters
    ----------
    system
        The system.
    seed
        Of the random samples and states.
    raises
        Whether to raise when a check fails.

    Returns
    -------
    list of Finding
        One per check.

    Raises
    ------
    SystemCheckError
        If a check fails (and `raises`); the message says in words what is wrong.
    """
    arrays = [np.asarray(array, dtype=np.float64) for array in system.arrays()]
    findings = [Finding(*found) for found in system.core.check(arrays, as_seed(seed))]
    if raises and not all(finding.passed for finding in findings):
        raise SystemCheckError(f"{system!r}:\n" + "\n".join(str(finding) for finding in findings))
    return findings
