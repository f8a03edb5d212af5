"""Crossbars with resistive wires: against a dense solve of all nodes, and what must hold of any
network."""

import numpy as np
import pnncore as pnn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pnncore.analog import AnalogIO, Wires, solve
from pnncore.errors import ConfigError, DataError, ShapeError
from pnncore.layers import Crossbar, Tanh
from pnncore.methods import Backprop, InSituBackprop, PhysicsAware
from pnncore.optim import SGD
from pnncore.systems import Stack
from test_own_loss import Scaled

RANDOM = np.random.default_rng(0)


def every(r):
    """The same resistance for a piece of any wire."""
    return {"row_resistance": r, "column_resistance": r}


def dense(g, x, side="rows", *, row=1.0, column=1.0, driver=0.0, sense=0.0):
    """All nodes by modified nodal analysis, where a piece of wire has a current of its own: the
    currents out of grounded ends, and both voltages."""
    n, m = g.shape
    nodes, ground = 2 * n * m, -1
    at = lambda kind, i, j: kind * n * m + i * m + j  # noqa: E731
    # The pieces: from, to, resistance, and the voltage of the end at the first of a line.
    pieces = [(at(0, i, j), at(0, i, j + 1), row) for i in range(n) for j in range(m - 1)]
    pieces += [(at(1, i, j), at(1, i + 1, j), column) for i in range(n - 1) for j in range(m)]
    rows, columns = len(pieces), len(pieces) + n
    pieces += [(ground, at(0, i, 0), row + driver) for i in range(n)]
    pieces += [(ground, at(1, n - 1, j), column + sense) for j in range(m)]
    size = nodes + len(pieces)
    matrix, right = np.zeros((size, size)), np.zeros((size, len(x)))
    for i in range(n):
        for j in range(m):
            a, b = at(0, i, j), at(1, i, j)
            matrix[[a, b, a, b], [a, b, b, a]] += g[i, j] * np.array([1, 1, -1, -1])
    for k, (a, b, r) in enumerate(pieces, nodes):
        matrix[k, k] = -r
        for node, sign in ((a, 1.0), (b, -1.0)):
            if node != ground:
                matrix[node, k] += sign
                matrix[k, node] += sign
    driven = rows if side == "rows" else columns
    right[nodes + driven : nodes + driven + x.shape[1]] = -x.T
    found = np.linalg.solve(matrix, right)
    u, v = found[:nodes].T.reshape(len(x), 2, n, m).swapaxes(0, 1)
    out = columns if side == "rows" else rows
    return -found[nodes + out : nodes + out + (m if side == "rows" else n)].T, u, v


ZERO_OR_SOME = st.one_of(st.just(0.0), st.floats(-4, 0.5).map(lambda e: 10**e))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 10),
    st.integers(1, 10),
    st.integers(1, 20),
    st.fixed_dictionaries(dict.fromkeys(("row", "column", "driver", "sense"), ZERO_OR_SOME)),
    st.sampled_from(["rows", "columns"]),
    st.integers(0, 999),
)
def test_all_nodes_are_those_of_a_dense_solve(n, m, samples, resistances, side, seed):
    random = np.random.default_rng(seed)
    g = random.uniform(0, 1, size=(n, m)) * (random.random((n, m)) < 0.8)
    x = random.normal(size=(samples, n if side == "rows" else m))
    own = {f"{name}_resistance": r for name, r in resistances.items()}
    found = solve(g, x, side=side, **own)
    currents, u, v = dense(g, x, side, **resistances)
    scale = np.abs(x).max()
    np.testing.assert_allclose(found.rows, u, atol=1e-10 * scale)
    np.testing.assert_allclose(found.columns, v, atol=1e-10 * scale)
    np.testing.assert_allclose(
        found.currents, currents, atol=1e-10 * max(1, np.abs(currents).max())
    )
    # Neither the unit of conductances nor that of voltages matters.
    micro = solve(g * 1e-6, 1e3 * x, side=side, **{name: 1e6 * r for name, r in own.items()})
    np.testing.assert_allclose(micro.rows, 1e3 * found.rows, rtol=1e-9, atol=1e-8 * scale)
    np.testing.assert_allclose(
        micro.currents, 1e-3 * found.currents, atol=1e-12 * max(1, np.abs(currents).max())
    )


def test_ideal_wires_are_a_product():
    g, x = RANDOM.uniform(0, 1, size=(30, 20)), RANDOM.normal(size=(4, 30))
    found = solve(g, x, row_resistance=0, column_resistance=0)
    np.testing.assert_allclose(found.currents, x @ g, rtol=1e-13)
    assert found.iterations == 0
    assert not found.columns.any()
    # Only drivers and amplifiers: a row is one node, and a column too.
    found = solve(
        g, x, row_resistance=0, column_resistance=0, driver_resistance=0.3, sense_resistance=0.2
    )
    assert np.ptp(found.rows, axis=2).max() == 0
    assert np.ptp(found.columns, axis=1).max() == 0
    np.testing.assert_allclose(found.currents, found.columns[:, 0] / 0.2, rtol=1e-10)


def array(n, m, drop=0.3):
    """Conductances whose wires take about this part of the voltage."""
    return RANDOM.uniform(0.1, 1.0, size=(n, m)) * drop / (n * m) ** 0.5 / max(n, m)


def test_currents_obey_kirchhoff_and_reciprocity():
    g, r = array(70, 90, 3.0), 1.0
    x, y = RANDOM.normal(size=(5, 70)), RANDOM.normal(size=(5, 90))
    there, back = solve(g, x, **every(r)), solve(g, y, **every(r), side="columns")
    # What flows in flows out: at every node, and in all.
    through = g * (there.rows - there.columns)
    drop = np.diff(there.rows, axis=2, prepend=x[:, :, None])
    leaving = np.diff(np.pad(-drop / r, ((0, 0), (0, 0), (0, 1))), axis=2)
    np.testing.assert_allclose(-leaving - through, 0, atol=1e-12)
    np.testing.assert_allclose(-drop[:, :, 0].sum(1) / r, there.currents.sum(1), rtol=1e-10)
    # Sources and meters may change places.
    np.testing.assert_allclose((there.currents * y).sum(1), (back.currents * x).sum(1), rtol=1e-10)


def test_limits_and_closed_forms():
    g, x = RANDOM.uniform(0, 1, size=(30, 20)), RANDOM.normal(size=(4, 30))
    errors = [np.abs(solve(g, x, **every(r)).currents - x @ g).max() for r in (1e-6, 1e-7)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=1e-2)
    # A row of n cells to grounded columns is a ladder: cosh and sinh of a length per cell.
    n, cell, r = 50, 0.02, 1.3
    found = solve(np.full((1, n), cell), np.ones((1, 1)), **every(r))
    shunt = 1 / (1 / cell + r)
    k = np.arccosh(1 + r * shunt / 2)
    nodes = np.cosh(k * (n + 0.5 - np.arange(1, n + 1))) / np.cosh(k * (n + 0.5))
    np.testing.assert_allclose(found.rows[0, 0], nodes, rtol=1e-10)
    np.testing.assert_allclose(found.currents[0], shunt * nodes, rtol=1e-10)
    # Nothing in, nothing out; and other samples do not matter.
    some = solve(g, np.vstack([x[:1], np.zeros((1, 30))]))
    assert not some.currents[1].any()
    np.testing.assert_allclose(some.currents[0], solve(g, x).currents[0], rtol=1e-10)


def test_few_iterations_even_where_most_of_the_voltage_is_lost():
    g, x = np.full((128, 128), 1.0), RANDOM.uniform(0, 1, size=(3, 128))
    r = 2e-4
    found = solve(g, x, **every(r), tolerance=1e-8)
    lost = 1 - found.currents.sum() / (x @ g).sum()
    assert 0.5 < lost < 0.9
    assert found.iterations <= 10


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_what_comes_out_is_proportional_to_what_goes_in(size):
    g, x = RANDOM.uniform(0, 1, size=(9, 7)), RANDOM.normal(size=(5, 9))
    one = solve(g, x, **every(0.3))
    other = solve(g, size * x, **every(0.3))
    np.testing.assert_allclose(other.currents / size, one.currents, rtol=1e-12)
    np.testing.assert_allclose(other.columns / size, one.columns, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_small_errors_go_back_as_large_ones_do(dtype):
    """Errors are as small as targets and the loss make them: here that of a bias on an output."""
    layer = Crossbar(8, 5, bias=False, io=AnalogIO.ideal(), wires=Wires(**every(2000.0)))
    net = Stack([layer], dtype=dtype, seed=0)
    x = RANDOM.normal(size=(6, 8)).astype(dtype)
    found = {}
    for size in (1.0, 1e-25):
        # One over the size of the loss: own losses are what the user makes them.
        method = Backprop(model="hardware", loss=Scaled(size))
        found[size] = method.gradient(net, x, np.zeros((6, 5), dtype))["W1"] / size
    np.testing.assert_allclose(found[1e-25], found[1.0], rtol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("n", [16, 128])
@pytest.mark.parametrize("place", ["row", "column", "driver", "sense"])
def test_wires_that_let_little_through_are_solved_or_refused(place, n):
    g = RANDOM.uniform(0.1, 1, size=(n, n))
    x = RANDOM.normal(size=(2, n))
    own = {"row_resistance": 0.01, "column_resistance": 0.01, f"{place}_resistance": 1e6}
    found = solve(g, x, **own)
    back = solve(g, x[:1], side="columns", **own)
    # Kirchhoff at every row, and reciprocity.
    through = (g * (found.rows - found.columns)).sum(axis=1)
    np.testing.assert_allclose(through, found.currents, atol=1e-7 * np.abs(found.currents).max())
    np.testing.assert_allclose(
        (found.currents[0] * x[0]).sum(), (back.currents[0] * x[0]).sum(), rtol=1e-6
    )
    with pytest.raises(ConfigError, match=f"{place}_resistance must be at most"):
        solve(g, x, **{f"{place}_resistance": 2e6 / g.max()})
    with pytest.raises(ConfigError, match=f"{place}_resistance must be at most"):
        Wires(on=1e-4, **{f"{place}_resistance": 2e6})
    # A layer reads what arrays give.
    limit = {f"{name}_resistance": 1.0 for name in ("row", "column")}
    limit |= {f"{place}_resistance": 100 / 1e-4}
    wires = Wires(on=1e-4, off=1e-6, weight=1.0, tolerance=1e-9, **limit)
    net = Stack(
        [Crossbar(n, n, bias=False, io=AnalogIO.ideal(), wires=wires)], dtype="float64", seed=0
    )
    w = net.params["W1"]
    sides = [1e-6 + 9.9e-5 * np.maximum(sign * w, 0) for sign in (1, -1)]
    wanted = [solve(side, x, tolerance=1e-13, **limit).currents for side in sides]
    scale = np.abs(wanted).max() / 9.9e-5
    np.testing.assert_allclose(net.predict(x), (wanted[0] - wanted[1]) / 9.9e-5, atol=1e-6 * scale)


def test_threads_do_not_matter():
    g, x = array(64, 48), RANDOM.normal(size=(40, 64))
    one = solve(g, x, threads=1)
    for threads in (2, 3, 8):
        assert solve(g, x, threads=threads).columns.tobytes() == one.columns.tobytes()


@pytest.mark.parametrize("n", [64, 128, 256])
def test_badcrossbar_agrees(n):
    badcrossbar = pytest.importorskip("badcrossbar")
    g, x = RANDOM.uniform(1e-5, 1e-4, size=(n, n)), RANDOM.uniform(0, 1, size=(3, n))
    wanted = badcrossbar.compute(x.T, 1 / g, 2.0).currents.output
    np.testing.assert_allclose(solve(g, x, **every(2.0)).currents, wanted, rtol=1e-8)


STRONG = Wires(
    row_resistance=40.0,
    column_resistance=20.0,
    driver_resistance=100.0,
    on=1e-4,
    off=2e-6,
    weight=1.0,
    tolerance=1e-13,
)


def network(wires, dtype="float64", seed=0):
    io = AnalogIO.ideal()
    first, last = (Crossbar(n, m, io=io, wires=wires) for n, m in ((12, 9), (9, 5)))
    return Stack([first, Tanh(), last], dtype=dtype, seed=seed)


def test_a_layer_reads_the_difference_of_two_arrays():
    net = Stack(
        [Crossbar(12, 9, bias=False, io=AnalogIO.ideal(), wires=STRONG)], dtype="float64", seed=0
    )
    w, x = net.params["W1"], RANDOM.normal(size=(20, 12))
    plus, minus = (2e-6 + 9.8e-5 * np.maximum(sign * w, 0) for sign in (1, -1))
    wanted = (
        sum(
            sign * dense(g, x, row=40.0, column=20.0, driver=100.0, sense=0.0)[0]
            for g, sign in ((plus, 1), (minus, -1))
        )
        / 9.8e-5
    )
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-8, atol=1e-10)
    assert np.abs(wanted - x @ w).max() > 0.03 * np.abs(wanted).max()
    # To first order in the resistance: an error of the second.
    errors = []
    for r in (4.0, 0.4):
        both = [
            Stack(
                [
                    Crossbar(
                        12,
                        9,
                        bias=False,
                        io=AnalogIO.ideal(),
                        wires=Wires(**every(r), weight=1.0, exact=exact, tolerance=1e-13),
                    )
                ],
                dtype="float64",
                seed=0,
            )
            for exact in (True, False)
        ]
        errors.append(np.abs(both[0].predict(x) - both[1].predict(x)).max())
    assert 80 < errors[0] / errors[1] < 120


def test_derivatives_of_the_hardware_are_exact():
    net, x, y = network(STRONG), RANDOM.normal(size=(18, 12)), RANDOM.normal(size=(18, 5))
    found = Backprop(model="hardware").gradient(net, x, y)
    loss = lambda: ((net.predict(x) - y) ** 2).sum() / 2 / len(x)  # noqa: E731
    for name, values in net.params.items():
        for index in RANDOM.integers(values.size, size=12):
            at = values.reshape(-1)
            kept, h = at[index], 1e-5
            sides = []
            for sign in (1, -1):
                at[index] = kept + sign * h
                sides.append(loss())
            at[index] = kept
            slope = (sides[0] - sides[1]) / (2 * h)
            assert found[name].reshape(-1)[index] == pytest.approx(slope, rel=1e-5, abs=1e-9), (
                name,
                index,
            )


def test_errors_go_back_through_the_wires():
    net, x = network(STRONG), RANDOM.normal(size=(18, 12))
    y = RANDOM.normal(size=(18, 5))
    exact = Backprop(model="hardware").gradient(net, x, y)
    reverse, twin = InSituBackprop().gradient(net, x, y), PhysicsAware().gradient(net, x, y)
    cosine = lambda a, b: (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    # The first layer hears errors that passed the second: by its wires, or by the twin that has
    # none.
    assert cosine(reverse["W1"], exact["W1"]) > 0.95
    off = {
        name: np.linalg.norm(found["b1"] - exact["b1"])
        for name, found in (("reverse", reverse), ("twin", twin))
    }
    assert off["reverse"] < 1e-9
    assert off["twin"] > 0.02 * np.linalg.norm(exact["b1"])


def test_training_through_wires_makes_up_for_them():
    x, y, x_test, y_test = pnn.data.digits()
    wires = Wires(**every(60.0), on=1e-4, off=1e-6, weight=0.6)
    scores = {}
    for name, method in {
        "twin": Backprop(loss="cross-entropy"),
        "hardware": Backprop(model="hardware", loss="cross-entropy"),
    }.items():
        net = Stack(
            [
                Crossbar(64, 32, io=AnalogIO.ideal(), wires=wires),
                Tanh(),
                Crossbar(32, 10, io=AnalogIO.ideal(), wires=wires),
            ],
            seed=0,
        )
        pnn.Trainer(net, method, SGD(0.2), batch_size=32, seed=0, progress=False).fit(
            x, y, epochs=20
        )
        scores[name] = net.score(x_test, y_test)
    assert scores["hardware"] > scores["twin"] + 0.04


def test_bad_input_is_refused(tmp_path):
    for name in ("row", "column", "driver", "sense"):
        own = f"{name}_resistance"
        for junk in (-1.0, np.nan, np.inf):
            with pytest.raises(ConfigError, match=f"{own} must be a"):
                Wires(**{own: junk})
            with pytest.raises(ConfigError, match=f"{own} must be a"):
                solve(np.ones((3, 2)), np.ones((1, 3)), **{own: junk})
    with pytest.raises(ConfigError, match="off must be at least 0 and below on"):
        Wires(off=1.0)
    with pytest.raises(ShapeError, match="samples, rows"):
        solve(np.ones((3, 2)), np.ones((1, 2)))
    with pytest.raises(DataError, match="at least 0"):
        solve(-np.ones((3, 2)), np.ones((1, 3)))
    with pytest.raises(ConfigError, match=r"wires must be pnncore.analog.Wires"):
        Crossbar(3, 2, wires=1.0)
    net = network(STRONG)
    trainer = pnn.Trainer(net, Backprop(), SGD(0.1), seed=0, progress=False)
    trainer.save(tmp_path / "a.pnn")
    assert pnn.Trainer.load(tmp_path / "a.pnn").system.layers == net.layers


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_weight_scales_all_conductances(sign):
    # Where no weight is given for the largest conductance, the largest one is: its derivative goes
    # through all cells.
    rng = np.random.default_rng(0)
    layer = Crossbar(
        6, 5, bias=False, io=AnalogIO.ideal(), wires=Wires(**every(20.0), tolerance=1e-13)
    )
    net = Stack([layer], seed=0, dtype="float64")
    weights = net.params["W1"]
    weights[...] = sign * rng.normal(size=(6, 5))
    x, target = rng.normal(size=(7, 6)), rng.normal(size=(7, 5))
    gradient = Backprop(model="hardware").gradient(net, x, target)["W1"]

    def loss():
        return 0.5 * ((net.predict(x) - target) ** 2).sum() / len(x)

    for place in np.ndindex(6, 5):
        was = weights[place]
        found = []
        for step in (1e-5, -1e-5):
            weights[place] = was + step
            found.append(loss())
        weights[place] = was
        assert gradient[place] == pytest.approx((found[0] - found[1]) / 2e-5, rel=1e-6, abs=1e-7)
