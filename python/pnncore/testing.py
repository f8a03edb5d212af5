"""Checks for systems and layers of one's own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pnncore._convert import FloatArray, Seed, as_seed, as_system, flag
from pnncore.errors import PnnError
from pnncore.layers import Layer
from pnncore.systems import EnergySystem, Stack, System


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


class LayerCheckError(PnnError, AssertionError):
    """A layer is not what it says; the message lists what is wrong."""


def check_layer(layer: Layer, *, seed: Seed = 0, raises: bool = True) -> list[Finding]:
    """Compare the derivatives of a layer with finite differences, in float64, and its rows with each other.

    Parameters
    ----------
    layer
        The layer, with derivatives.
    seed
        Of the random inputs and directions.
    raises
        Whether to raise when a check fails.

    Returns
    -------
    list of Finding
        One per check.

    Raises
    ------
    LayerCheckError
        If a check fails (and `raises`); the message says in words what is wrong.
    """
    raises, rng = flag(raises, "raises"), np.random.default_rng(as_seed(seed))
    net = Stack([layer], noise=0.0, mismatch=0.0, dtype="float64", seed=0, numbered=False)
    x, dy = rng.uniform(-1, 1, (4, net.n_in)), rng.normal(size=(4, net.n_out))
    y = net.predict(x)
    alone = np.concatenate([net.predict(row[None]) for row in x])
    findings = [
        _compared("equal inputs give equal outputs", net.predict(x), y, 0.0),
        _compared("rows do not depend on each other", alone, y, 1e-12),
    ]
    dx, gradients = net.vjp(x, dy)
    along = rng.normal(size=x.shape)

    def sides(move: Callable[[float], FloatArray]) -> FloatArray:
        return np.asarray((move(_STEP) - move(-_STEP)) / (2 * _STEP))

    change = sides(lambda h: net.predict(x + h * along))
    findings.append(_compared("vjp is the derivative by the inputs", np.sum(dx * along), np.sum(dy * change), 1e-5))
    for name, array in net.params.items():
        kept, direction = array.copy(), rng.normal(size=array.shape)

        def moved(h: float, name: str = name, kept: FloatArray = kept, along: FloatArray = direction) -> FloatArray:
            net.params[name][...] = kept + h * along
            return net.predict(x)

        expected = np.sum(dy * sides(moved))
        array[...] = kept
        got = np.sum(gradients[name] * direction)
        findings.append(_compared(f"vjp is the derivative by {name}", got, expected, 1e-5))
    if raises and not all(finding.passed for finding in findings):
        raise LayerCheckError(f"{layer!r}:\n" + "\n".join(str(finding) for finding in findings))
    return findings


#: How far differences go.
_STEP = 1e-5


def _compared(check: str, got: npt.ArrayLike, expected: npt.ArrayLike, tolerance: float) -> Finding:
    got, expected = np.asarray(got), np.asarray(expected)
    error = float(np.max(np.abs(got - expected)) / (1e-3 + np.max(np.abs(expected))))
    text = f"largest error {error:.1e}"
    ratio = float(np.sum(got * expected) / max(float(np.sum(expected * expected)), 1e-300))
    if error > tolerance and abs(ratio + 1) < 1e-3:
        text += "; the sign is wrong"
    elif error > tolerance and min(abs(ratio - 2), abs(ratio - 0.5)) < 1e-3:
        text += "; off by a factor of 2"
    return Finding(check, error <= tolerance, text)


def check_system(system: System, *, seed: Seed = 0, raises: bool = True) -> list[Finding]:
    """Compare everything that a system says with finite differences.

    Energies against their gradients by states and by parameters, the symmetry of the Hessian, the independence of rows,
    whether settling finds a state without forces, whether nudging moves outputs towards targets, and whether
    equilibrium propagation is the gradient of the loss; at the present parameters, on a few random samples, in float64.
    A system that says it is `holomorphic` is also compared with its derivatives along the imaginary axis.

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
    arrays = [np.asarray(array, dtype=np.float64) for array in as_system(system).arrays()]
    raises = flag(raises, "raises")
    findings = [Finding(*found) for found in system.core.check(arrays, as_seed(seed))]
    if isinstance(system, EnergySystem) and system.holomorphic:
        findings += _check_holomorphy(system, as_seed(seed))
    if raises and not all(finding.passed for finding in findings):
        raise SystemCheckError(f"{system!r}:\n" + "\n".join(str(finding) for finding in findings))
    return findings


def _check_holomorphy(system: EnergySystem, seed: int) -> list[Finding]:
    """Compare both gradients at s + ihv with their Taylor series, whose terms are derivatives at real states."""
    rng = np.random.default_rng(seed)
    rows, h = 4, 1e-3
    params = {name: np.asarray(value, dtype=np.float64) for name, value in system.params.items()}
    x = rng.uniform(0, 1, (rows, system.n_in))
    s, v = rng.uniform(-0.5, 0.5, (2, rows, system.n_states))
    weights = rng.uniform(-1, 1, rows)

    def gradients(states: FloatArray, along: FloatArray) -> dict[str, FloatArray]:
        found = {"state_gradient": np.asarray(system.state_gradient(params, x, states))}
        for name, value in system.param_gradient(params, x, states, along).items():
            found[f"param_gradient for {name}"] = np.asarray(value)
        return found

    try:
        there = gradients(s + 1j * h * v, weights.astype(np.complex128))
    except (TypeError, ValueError) as refusal:
        return [Finding("gradients take complex states", False, f"{type(refusal).__name__}: {refusal}")]
    here, up, down = gradients(s, weights), gradients(s + h * v, weights), gradients(s - h * v, weights)
    findings = []
    for what, got in there.items():
        # f(s + ihv) = f - h^2/2 f'' + i h f' + O(h^3), and f' and f'' by central differences, which err as much.
        expected = here[what] - 0.5 * (up[what] - 2 * here[what] + down[what]) + 0.5j * (up[what] - down[what])
        error = float(np.abs(got - expected).max() / (1 + np.abs(expected).max()))
        passed = error < 1e-6
        message = f"largest error {error:.1e}"
        if not passed:
            message += "; is there an abs, a comparison, a conjugate, or a cast to real numbers in it?"
        findings.append(Finding(f"{what} is analytic", passed, message))
    return findings
