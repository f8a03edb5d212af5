"""Minima, saddle points and floppy modes of elastic networks."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import Settling
from pnncore.errors import SettlingWarning
from pnncore.settling import Status
from pnncore.systems import Elastic

TIGHT = Settling(tolerance=1e-13, max_sweeps=100_000)


def column(dtype="float64", scale=1.0, stiffness=1.0, tilt=0.0, side=0.0):
    """Two springs in a row, pressed together; springs of stiffness `side` hold the middle."""
    at = np.array([[0, 0], [1, tilt], [2, 0], [1, 1], [1, -1]], dtype=float) * scale
    springs = [[0, 1], [1, 2], [1, 3], [1, 4]]
    return Elastic(
        at,
        springs if side else springs[:2],
        inputs=[(2, 0), (2, 1)],
        outputs=[(1, 0), (1, 1)],
        fixed=[0, 3, 4],
        stiffness=[stiffness] * 2 + [stiffness * side] * (2 if side else 0),
        dtype=dtype,
    ), scale


def status(net, x, settling=TIGHT):
    return Status(net.settle([[x, 0.0]], settling=settling).status[0])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("stiffness", [1e-6, 1.0, 1e6])
def test_a_column_buckles(dtype, scale, stiffness):
    """Two unit springs between ends that are 2 - d apart: straight, the middle has the stiffness
    -2 k (l0 - l) / l across, and 2 c more by springs of stiffness c to its sides."""
    settling = Settling(relative_tolerance=1e-6)
    net, unit = column(dtype, scale, stiffness)
    assert status(net, 0.1 * unit, settling) == Status.CONVERGED
    assert status(net, -0.1 * unit, settling) == Status.SADDLE
    assert status(net, 0.0, settling) == Status.FLOPPY
    held, unit = column(dtype, scale, stiffness, side=0.2)
    for pressed in np.linspace(0.02, 0.6, 9):
        half = 1 - pressed / 2
        across = -2 * (1 - half) / half + 2 * 0.2
        wanted = Status.CONVERGED if across > 0 else Status.SADDLE
        assert status(held, -pressed * unit, settling) == wanted, pressed
    bent, unit = column(dtype, scale, stiffness, tilt=0.3)
    assert status(bent, -0.1 * unit, settling) == Status.CONVERGED


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("seed", range(6))
def test_slack_chains_are_floppy_at_any_settling(dtype, seed):
    """Chains longer than the way between their ends: what is left of forces is no tension."""
    rng = np.random.default_rng(seed)
    n = 5
    at = np.column_stack([np.linspace(0, 2, n), rng.normal(scale=0.3, size=n)])
    at[-1] = [2, 0]
    at[0] = [0, 0]
    lengths = np.linalg.norm(np.diff(at, axis=0), axis=1)
    net = Elastic(
        at,
        [[k, k + 1] for k in range(n - 1)],
        inputs=[(n - 1, 0), (n - 1, 1)],
        outputs=[(2, 0), (2, 1)],
        fixed=[0],
        stiffness=rng.uniform(0.5, 2.0, n - 1),
        rest_length=1.1 * lengths,
        dtype=dtype,
    )
    for settling in (Settling(), Settling(relative_tolerance=1e-4), TIGHT):
        found = net.settle([[-0.2, 0.0], [-0.1, 0.05]], settling=settling)
        told = set(found.status) - {int(Status.UNCONVERGED)}
        assert told <= {int(Status.FLOPPY)}, settling
    assert status(net, -0.2, Settling()) == Status.FLOPPY
    # Pulled beyond its length a chain is stiff.
    assert status(net, 0.5 * lengths.sum(), Settling()) == Status.CONVERGED


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
@pytest.mark.parametrize("beta", [0.02, 0.2, 1.0, 3.0, -0.1])
def test_nudged_phases_are_judged_with_their_loss(beta, loss):
    """A straight chain under compression is a saddle point, until a nudge holds its nodes."""
    n = 4
    at = np.column_stack([np.arange(n + 1.0), np.zeros(n + 1)])
    net = Elastic(
        at,
        [[k, k + 1] for k in range(n)],
        inputs=[(n, 0), (n, 1)],
        outputs=[(1, 1), (2, 1), (3, 1)],
        fixed=[0],
    )
    x, y = np.array([[-0.5, 0.0]]), np.zeros((1, 3))
    if loss == "cross-entropy":
        y = np.full((1, 3), 1 / 3)
    assert status(net, -0.5) == Status.SADDLE
    nudged = net.settle(x, y, beta=beta, loss=loss, settling=TIGHT)
    free = hessian(net, net.settle(x, settling=TIGHT), x[0])
    # The state is the free one, where the gradient of the loss is zero; outputs are every other
    # coordinate.
    curvature = np.eye(3) if loss == "squared-error" else (np.eye(3) - 1 / 3) / 3
    free[1::2, 1::2] += beta * curvature
    softest = np.linalg.eigvalsh(free)[0]
    assert abs(softest) > 1e-3
    wanted = Status.CONVERGED if softest > 0 else Status.SADDLE
    assert Status(nudged.status[0]) == wanted


def test_clamped_phases_are_judged_without_what_is_held():
    """A training by clamps: outputs that are held cannot buckle."""
    net, _ = column()
    method = pnn.methods.CoupledLearning(eta=1.0, settling=TIGHT)
    with pytest.warns(SettlingWarning, match="1 unconverged"):
        method.gradient(net, [[-0.1, 0.0]], np.array([[0.0, 0.2]]))
    # Pulled, it is a minimum in both phases.
    method.gradient(net, [[0.1, 0.0]], np.array([[0.0, 0.2]]))


def test_saddles_are_told_wherever_samples_settle():
    net, _ = column()
    x = [[0.1, 0.0], [-0.1, 0.0]]
    settled = net.settle(x)
    assert settled.counts()["saddle"] == 1
    assert not settled.converged
    assert "1 saddle" in repr(settled)
    with pytest.warns(SettlingWarning, match="'saddle': 1"):
        net.predict(x)
    method = pnn.methods.ImplicitDifferentiation()
    with pytest.warns(SettlingWarning, match="1 unconverged"):
        method.gradient(net, x, np.zeros((2, 2)))


def hessian(net, settled, x, h=1e-5):
    """The stiffness matrix by differences of the energy, from lengths alone."""
    moved = net.positions.copy()
    free = [
        (node, axis)
        for node in range(len(moved))
        for axis in range(moved.shape[1])
        if node not in net.fixed and (node, axis) not in net.inputs
    ]
    for at, value in zip(net.inputs, x, strict=True):
        moved[at] += value
    hidden = [at for at in free if at not in net.outputs]
    for at, value in zip([*hidden, *net.outputs], np.hstack(settled.states)[0], strict=True):
        moved[at] += value

    def energy(change):
        at = moved.copy()
        for place, value in change:
            at[place] += value
        return 0.5 * (net.params["k"] * (net.lengths(at) - net.params["l0"]) ** 2).sum()

    n = len(free)
    found = np.zeros((n, n))
    for i, a in enumerate(free):
        for j, b in enumerate(free):
            signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            found[i, j] = sum(p * q * energy([(a, p * h), (b, q * h)]) for p, q in signs)
    return found / (4 * h * h)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_statuses_are_what_the_eigenvalues_of_a_plain_hessian_say(dimensions, seed):
    rng = np.random.default_rng(seed)
    at = rng.normal(size=(9, dimensions))
    pairs = [
        (a, b) for a in range(9) for b in range(a) if rng.random() < (0.35 if seed % 2 else 0.8)
    ]
    net = Elastic(
        at,
        pairs,
        inputs=[(7, 0)],
        outputs=[(8, 0)],
        fixed=range(dimensions),
        stiffness=rng.uniform(0.5, 2, len(pairs)),
        rest_length=np.maximum(
            0.1,
            np.linalg.norm(at[[p[0] for p in pairs]] - at[[p[1] for p in pairs]], axis=1)
            + 0.2 * rng.normal(size=len(pairs)),
        ),
    )
    settled = net.settle([[0.0]], settling=TIGHT)
    if settled.status[0] == Status.UNCONVERGED:
        pytest.skip("no steady state to judge")
    softest = np.linalg.eigvalsh(hessian(net, settled, [0.0]))[0]
    if settled.status[0] == Status.CONVERGED:
        assert softest > 1e-7
    elif settled.status[0] == Status.FLOPPY:
        assert abs(softest) < 1e-4
    else:
        assert softest < -1e-7
