"""Checks for systems, layers, methods and losses of one's own."""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import FloatArray, Seed, as_seed, as_system, flag, instance, positive_int
from pnncore.auditing import audit
from pnncore.errors import CapabilityError, PnnError
from pnncore.layers import Layer
from pnncore.losses import Loss, evaluate
from pnncore.methods import Method
from pnncore.optim import SGD
from pnncore.systems import EnergySystem, Stack, System
from pnncore.trainer import Trainer


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


class MethodCheckError(PnnError, AssertionError):
    """A method is not what it says; the message lists what is wrong."""


def check_method(
    method: Method, system: System, *, seed: Seed = 0, raises: bool = True
) -> list[Finding]:
    """Run the steps of a method on a system.

    Whether they can be trusted, and what their gradient is worth.

    Whether the same step finds the same twice, on any number of threads; whether training goes on
    from a file as it would have without; and the cosine to the exact gradient, where there is one:
    it passes above zero. Parameters end as they were.

    Parameters
    ----------
    method
        The method.
    system
        A small system that it trains.
    seed
        Of random inputs and targets, and of the method.
    raises
        Whether to raise when a check fails.

    Returns
    -------
    list of Finding
        One per check.

    Raises
    ------
    MethodCheckError
        If a check fails (and `raises`); the message says in words what is wrong.
    """
    instance(method, Method, "method", "a pnncore Method")
    raises, rng = flag(raises, "raises"), np.random.default_rng(seed := as_seed(seed))
    kept = [array.copy() for array in as_system(system).arrays()]
    x = rng.uniform(0, 1, (8, system.n_in)).astype(system.dtype)
    y = (
        rng.integers(0, system.n_out, 8)
        if system.n_out > 1
        else rng.uniform(0, 1, (8, 1)).astype(system.dtype)
    )

    def trained(path: Path | None, threads: int = 1) -> FloatArray:
        for array, start in zip(system.arrays(), kept, strict=True):
            array[...] = start
        return _trained(method, system, (x, y), seed, path, threads)

    findings, resumes = [], "training goes on from a file as without one"
    try:
        once = trained(None)
        findings.append(_equal("the same steps lead to the same parameters", once, trained(None)))
        findings.append(_equal("threads do not matter", once, trained(None, threads=2)))
        with tempfile.TemporaryDirectory() as folder:
            findings.append(_equal(resumes, once, trained(Path(folder) / "check.pnn")))
    except Exception as error:
        if len(findings) != 2:
            raise
        findings.append(Finding(resumes, False, f"{type(error).__name__}: {error}"))
    finally:
        for array, start in zip(system.arrays(), kept, strict=True):
            array[...] = start
    try:
        found = audit(system, method, x, y)
    except CapabilityError:
        # New parameters and no gradient, or physics without an exact one.
        pass
    else:
        findings.append(
            Finding(
                "the gradient leads down",
                found.cosine > 0,
                f"its cosine to the exact one is {found.cosine:.4f}, its norm "
                f"{found.norm_ratio:.3g} times as large",
            )
        )
    return _judged(findings, method, MethodCheckError if raises else None)


def _trained(
    method: Method,
    system: System,
    data: tuple[FloatArray, npt.NDArray[Any]],
    seed: int,
    path: Path | None,
    threads: int,
) -> FloatArray:
    """Train for two epochs, by way of a file where there is a path; return all parameters."""
    optimizer = SGD(1e-3)
    trainer = Trainer(
        system, method, optimizer, batch_size=4, seed=seed, threads=threads, progress=False
    )
    for _ in range(2):
        trainer.fit(*data, epochs=1)
        if path is not None:
            trainer.save(path)
            # A method of its own: what another keeps beside its memory is in no file.
            again = dataclasses.replace(method)
            trainer = Trainer.load(
                path, system=system, method=again, threads=threads, progress=False
            )
    return np.concatenate([array.ravel() for array in system.arrays()])


def _equal(check: str, once: FloatArray, again: FloatArray) -> Finding:
    differ = int(np.sum(once != again))
    return Finding(
        check, differ == 0, f"{differ} of {once.size} parameters differ" if differ else ""
    )


class LossCheckError(PnnError, AssertionError):
    """A loss is not what it says; the message lists what is wrong."""


def check_loss(loss: Loss, n_out: int, *, seed: Seed = 0, raises: bool = True) -> list[Finding]:
    """Compare the gradient of a loss with finite differences, and its samples with each other.

    Parameters
    ----------
    loss
        The loss.
    n_out
        A number of outputs.
    seed
        Of random outputs and targets.
    raises
        Whether to raise when a check fails.

    Returns
    -------
    list of Finding
        One per check.

    Raises
    ------
    LossCheckError
        If a check fails (and `raises`); the message says in words what is wrong.
    """
    instance(loss, Loss, "loss", "a pnncore.losses.Loss")
    raises, rng, width = (
        flag(raises, "raises"),
        np.random.default_rng(as_seed(seed)),
        positive_int(n_out, "n_out"),
    )
    outputs, targets = rng.normal(size=(6, width)), rng.uniform(size=(6, width))
    values, gradient = evaluate(loss, outputs, targets)
    rows = [evaluate(loss, outputs[i : i + 1], targets[i : i + 1]) for i in range(6)]
    alone = np.concatenate([found[0] for found in rows])
    slopes = np.empty_like(outputs)
    for k in range(width):
        step = _STEP * np.eye(width)[k]
        slopes[:, k] = (
            evaluate(loss, outputs + step, targets)[0] - evaluate(loss, outputs - step, targets)[0]
        )
    findings = [
        _compared("samples do not depend on each other", alone, values, 1e-12),
        _compared(
            "the gradient is the derivative of the value", 6 * gradient, slopes / (2 * _STEP), 1e-5
        ),
    ]
    return _judged(findings, loss, LossCheckError if raises else None)


def check_layer(layer: Layer, *, seed: Seed = 0, raises: bool = True) -> list[Finding]:
    """Compare the derivatives of a layer with finite differences, and its rows with each other.

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
    findings.append(
        _compared(
            "vjp is the derivative by the inputs", np.sum(dx * along), np.sum(dy * change), 1e-5
        )
    )
    for name, array in net.params.items():
        kept, direction = array.copy(), rng.normal(size=array.shape)

        def moved(
            h: float, name: str = name, kept: FloatArray = kept, along: FloatArray = direction
        ) -> FloatArray:
            net.params[name][...] = kept + h * along
            return net.predict(x)

        expected = np.sum(dy * sides(moved))
        array[...] = kept
        got = np.sum(gradients[name] * direction)
        findings.append(_compared(f"vjp is the derivative by {name}", got, expected, 1e-5))
    return _judged(findings, layer, LayerCheckError if raises else None)


def _judged(
    findings: list[Finding], subject: object, error: type[PnnError] | None
) -> list[Finding]:
    """Return what was found, or raise the error with it where a check failed."""
    if error is not None and not all(finding.passed for finding in findings):
        raise error(f"{subject!r}:\n" + "\n".join(str(finding) for finding in findings))
    return findings


#: How far differences go.
_STEP = 1e-5


def _compared(check: str, got: npt.ArrayLike, expected: npt.ArrayLike, tolerance: float) -> Finding:
    got, expected = np.asarray(got), np.asarray(expected)
    for what, values in (("what is checked", got), ("what it is compared with", expected)):
        if not np.isfinite(values).all():
            return Finding(check, False, f"{what} holds NaN or infinity")
    error = float(np.max(np.abs(got - expected)) / (1e-3 + np.max(np.abs(expected))))
    text = f"largest error {error:.1e}"
    size = len(got) if got.ndim else 0
    ratio = float(np.sum(got * expected) / max(float(np.sum(expected * expected)), 1e-300))
    if error > tolerance and abs(ratio + 1) < 1e-3:
        text += "; the sign is wrong"
    elif error > tolerance and min(abs(ratio - 2), abs(ratio - 0.5)) < 1e-3:
        text += "; off by a factor of 2"
    elif error > tolerance and size > 1 and abs(ratio * size - 1) < 1e-3:
        text += "; a mean over samples, where it should be for each by itself?"
    return Finding(check, error <= tolerance, text)


def check_system(system: System, *, seed: Seed = 0, raises: bool = True) -> list[Finding]:
    """Compare everything that a system says with finite differences.

    Energies against their gradients by states and by parameters, the symmetry of the Hessian, the
    independence of rows, whether settling finds a state without forces, whether nudging moves
    outputs towards targets, and whether equilibrium propagation is the gradient of the loss; at the
    present parameters, on a few random samples, in float64. A system that says it is `holomorphic`
    is also compared with its derivatives along the imaginary axis.

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
    return _judged(findings, system, SystemCheckError if raises else None)


def _check_holomorphy(system: EnergySystem, seed: int) -> list[Finding]:
    """Compare both gradients at s + ihv with their Taylor series about real states."""
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
        return [
            Finding("gradients take complex states", False, f"{type(refusal).__name__}: {refusal}")
        ]
    here, up, down = (
        gradients(s, weights),
        gradients(s + h * v, weights),
        gradients(s - h * v, weights),
    )
    findings = []
    for what, got in there.items():
        # f(s + ihv) = f - h^2/2 f'' + i h f' + O(h^3), and f' and f'' by central differences, which
        # err as much.
        expected = (
            here[what]
            - 0.5 * (up[what] - 2 * here[what] + down[what])
            + 0.5j * (up[what] - down[what])
        )
        error = float(np.abs(got - expected).max() / (1 + np.abs(expected).max()))
        passed = error < 1e-6
        message = f"largest error {error:.1e}"
        if not passed:
            message += (
                "; is there an abs, a comparison, a conjugate, or a cast to real numbers in it?"
            )
        findings.append(Finding(f"{what} is analytic", passed, message))
    return findings
