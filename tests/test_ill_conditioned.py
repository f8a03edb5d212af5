"""Circuits whose conductances differ by many orders: refined to rounding, grounded where cut
off, or said not to be."""

from fractions import Fraction

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pnncore.elements import Cubic, CurrentSource, Diode, Resistor
from pnncore.errors import ConfigError
from pnncore.methods import EquilibriumPropagation, ImplicitDifferentiation
from pnncore.systems import Circuit, Flow


def rational(edges, g, held):
    """Return the exact node voltages of a resistor network, by elimination in rational numbers."""
    free = sorted({node for edge in edges for node in edge} - set(held))
    index = {node: k for k, node in enumerate(free)}
    n = len(free)
    a = [[Fraction(0)] * (n + 1) for _ in range(n)]
    for (u, v), value in zip(edges, g, strict=True):
        value = Fraction(float(value))
        for here, there in ((u, v), (v, u)):
            if here in index:
                a[index[here]][index[here]] += value
                if there in index:
                    a[index[here]][index[there]] -= value
                else:
                    a[index[here]][n] += value * Fraction(float(held[there]))
    for k in range(n):
        pivot = next(r for r in range(k, n) if a[r][k] != 0)
        a[k], a[pivot] = a[pivot], a[k]
        for r in range(n):
            if r != k and a[r][k] != 0:
                factor = a[r][k] / a[k][k]
                a[r] = [x - factor * y for x, y in zip(a[r], a[k], strict=True)]
    return {node: float(a[k][n] / a[k][k]) for node, k in index.items()}


@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("spread", [1e3, 1e6, 1e9])
def test_a_large_conductance_between_small_ones(spread, nonlinear):
    g = [1e-6, 1e-6 * spread**2 if spread < 1e9 else 1e3, 1e-6]
    elements = [Resistor("in", "a", g[0]), Resistor("a", "b", g[1]), Resistor("b", "0", g[2])]
    if nonlinear:
        # A diode that the rest of the circuit does not feel: Newton's method in the place of one
        # linear solve.
        elements += [Resistor("in", "c", 1e-6), Diode("c", "0", saturation=1e-9, ideality=2.0)]
    net = Circuit(elements, inputs=["in"], outputs=["a", "b"])
    settled = net.settle([[1.0]])
    assert settled.converged
    exact = rational([("in", "a"), ("a", "b"), ("b", "0")], g, {"in": 1.0, "0": 0.0})
    np.testing.assert_allclose(settled.outputs[0], [exact["a"], exact["b"]], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 9), st.floats(0, 9))
def test_networks_of_any_spread_are_right_or_say_so(seed, nodes, decades):
    rng = np.random.default_rng(seed)
    edges = [(k, int(rng.integers(k))) for k in range(1, nodes)]
    edges += [(int(a), int(b)) for a, b in rng.integers(nodes, size=(nodes, 2)) if a != b]
    g = 10 ** rng.uniform(-decades, decades, len(edges))
    names = [(f"n{a}", f"n{b}") for a, b in edges]
    try:
        net = Flow(
            names, inputs=["n0"], outputs=[f"n{nodes - 1}"], ground="n1", conductance=g.tolist()
        )
    except ConfigError:
        # The output hangs on one held node alone.
        assume(False)
    net.params["g"][...] = g
    x = float(rng.normal())
    exact = rational(edges, g, {0: x, 1: 0.0})[nodes - 1] if nodes > 2 else 0.0
    settled = net.settle([[x]])
    if settled.converged:
        np.testing.assert_allclose(settled.outputs[0, 0], exact, rtol=1e-9, atol=1e-11 * abs(x))
    beta = float(10 ** rng.uniform(-decades, decades))
    nudged = net.settle([[x]], [[0.5]], beta=beta)
    if nudged.converged:
        pulled = rational([*edges, (nodes - 1, "y")], [*g, beta], {0: x, 1: 0.0, "y": 0.5})[
            nodes - 1
        ]
        np.testing.assert_allclose(nudged.outputs[0, 0], pulled, rtol=1e-8, atol=1e-10 * abs(x))


@pytest.mark.parametrize("nonlinear", [False, True])
def test_nodes_that_zero_conductances_cut_off_are_grounded(nonlinear):
    # Conductances become zero in training, not at construction.
    net = Circuit(
        [
            Resistor("in", "out", 1.0),
            Resistor("out", "0", 3.0),
            Resistor("out", "c", 1.0),
            Cubic("c", "d", 1.0, scale=1.0) if nonlinear else Resistor("c", "d", 1.0),
            Resistor("d", "e", 1.0),
        ],
        inputs=["in"],
        outputs=["out"],
    )
    g = net.params["g"]
    g[...] = [1.0, 3.0, 0.0, 1.0, 1.0]
    settled = net.settle([[1.0], [2.0]])
    assert settled.converged
    np.testing.assert_allclose(settled.outputs[:, 0], [0.25, 0.5], rtol=1e-12)
    assert not net.voltages([[1.0]])["d"].any()
    x, y = np.array([[1.0], [2.0]]), np.array([[0.1], [0.4]])
    exact = ImplicitDifferentiation().gradient(net, x, y)["g"]
    found = EquilibriumPropagation(beta=1e-3).gradient(net, x, y)["g"]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-7)


def test_a_current_into_a_node_that_is_cut_off_has_no_operating_point():
    net = Circuit(
        [
            Resistor("in", "out", 1.0),
            Resistor("out", "0", 3.0),
            Resistor("out", "c", 1.0),
            CurrentSource("0", "c", 0.1),
        ],
        inputs=["in"],
        outputs=["out"],
    )
    net.params["g"][2] = 0.0
    assert net.settle([[1.0]]).counts()["unbounded"] == 1


def test_floating_nodes_are_named():
    refuses(
        ConfigError,
        "no conducting path from c",
        Circuit,
        [Resistor("in", "out", 1.0), Resistor("out", "0", 1.0), CurrentSource("0", "c", 0.1)],
        inputs=["in"],
        outputs=["out"],
    )


def test_conductances_beyond_all_precision_are_not_called_converged():
    net = Circuit(
        [Resistor("in", "a", 1e-12), Resistor("a", "b", 1e12), Resistor("b", "0", 1e-12)],
        inputs=["in"],
        outputs=["a", "b"],
    )
    settled = net.settle([[1.0]])
    if settled.converged:
        np.testing.assert_allclose(settled.outputs[0], 0.5, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("seed", range(5))
def test_implicit_differentiation_of_saturated_networks(activation, dtype, seed):
    """Curvatures of saturated units are up to 1e15 times those of the others: against a dense
    solve in float64."""
    net = pnn.systems.Hopfield([20, 64, 10], activation=activation, dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed)
    x, y = (50 * rng.uniform(0, 1, (4, 20))).astype(dtype), rng.uniform(0, 1, (4, 10)).astype(dtype)
    found = pnn.methods.ImplicitDifferentiation().gradient(net, x, y)
    settled = net.settle(
        x, settling=pnn.Settling(relative_tolerance=1e-12 if dtype == "float64" else 1e-6)
    )
    hidden, outputs = (layer.astype(np.float64) for layer in settled.states)
    weights = net.params["W2"].astype(np.float64)
    wanted = {name: np.zeros(array.shape) for name, array in net.params.items()}
    for k in range(4):
        slope = 1 - hidden[k] ** 2 if activation == "tanh" else hidden[k] * (1 - hidden[k])
        # lambda_h = rho' W lambda_o, lambda_o = dL/do + W^T lambda_h.
        adjoint_out = np.linalg.solve(
            np.eye(10) - weights.T @ (slope[:, None] * weights), outputs[k] - y[k]
        )
        adjoint_hidden = slope * (weights @ adjoint_out)
        wanted["W1"] += np.outer(x[k], adjoint_hidden) / 4
        wanted["b1"] += adjoint_hidden / 4
        wanted["W2"] += (
            np.outer(hidden[k], adjoint_out) + np.outer(adjoint_hidden, outputs[k])
        ) / 4
        wanted["b2"] += adjoint_out / 4
    error = sum(((found[name] - wanted[name]) ** 2).sum() for name in wanted)
    size = sum((part**2).sum() for part in wanted.values())
    assert error < (1e-7 if dtype == "float64" else 1e-3) ** 2 * size
