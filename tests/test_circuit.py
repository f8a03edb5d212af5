"""Circuits, flow and elastic networks: closed forms, methods, errors, files. (Against ngspice:
test_spice.)"""

import numpy as np
import pnncore as pnn
import pytest
from helpers import flat, refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from pnncore.devices import Device
from pnncore.elements import (
    THERMAL_VOLTAGE,
    Cubic,
    CurrentSource,
    Diode,
    IdealDiode,
    Resistor,
    Transistor,
    VoltageSource,
)
from pnncore.errors import ConfigError, DataError, ShapeError
from pnncore.methods import (
    AgnosticEquilibriumPropagation,
    ContrastiveLearning,
    CoupledLearning,
    EquilibriumPropagation,
    FrequencyPropagation,
    ImplicitDifferentiation,
)
from pnncore.systems import Circuit, Elastic, Flow


def cubic_network(nodes=24, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    names = ["0", "in0", "in1"] + [f"n{i}" for i in range(nodes)]
    found = [Resistor("in0", "n0", 1.0), Resistor("in1", "n1", 1.0)]
    for k in range(3, len(names)):
        for kind in (Resistor, Cubic):
            found.append(kind(names[k], names[rng.integers(k)], rng.uniform(0.3, 1.5)))
    return Circuit(found, inputs=["in0", "in1"], outputs=names[-outputs:])


def test_closed_forms():
    divider = Circuit(
        [Resistor("in", "out", 2.0), Resistor("out", "0", 6.0)], inputs=["in"], outputs=["out"]
    )
    assert divider.predict([[4.0]])[0, 0] == pytest.approx(1.0, rel=1e-14)
    assert divider.power([[4.0]])[0] == pytest.approx(4.0 * 1.5 * 4.0, rel=1e-14)
    # A diode fed by a current: v = slope ln(1 + i / saturation).
    fed = Circuit(
        [
            Diode("out", "0", 1e-12, 1.5),
            CurrentSource("0", "out", 1e-3),
            Resistor("in", "out", 1e-15),
        ],
        inputs=["in"],
        outputs=["out"],
    )
    assert fed.predict([[0.0]])[0, 0] == pytest.approx(
        1.5 * THERMAL_VOLTAGE * np.log1p(1e9), rel=1e-9
    )
    # Two equal cubic elements in series halve the voltage.
    pair = Circuit(
        [Cubic("in", "out", 1.0, 0.3), Cubic("out", "0", 1.0, 0.3)], inputs=["in"], outputs=["out"]
    )
    assert pair.predict([[1.7]])[0, 0] == pytest.approx(0.85, rel=1e-13)
    held = Circuit(
        [VoltageSource("supply", "0", 5.0), Resistor("supply", "out"), Resistor("out", "in")],
        inputs=["in"],
        outputs=["out"],
    )
    assert held.predict([[1.0]])[0, 0] == pytest.approx(3.0, rel=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 30), st.integers(0, 10_000))
def test_linear_circuits_against_a_dense_solve(nodes, seed):
    rng = np.random.default_rng(seed)
    edges = [(k, int(rng.integers(k))) for k in range(1, nodes)] + [
        (int(a), int(b)) for a, b in rng.integers(nodes, size=(nodes, 2)) if a != b
    ]
    edges += [(nodes - 1, 0), (nodes - 1, 1)]
    net = Flow(
        [(f"n{a}", f"n{b}") for a, b in edges],
        inputs=["n0"],
        outputs=[f"n{nodes - 1}"],
        ground="n1",
    )
    net.params["g"][...] = rng.uniform(0.1, 3, len(edges))
    laplacian = np.zeros((nodes, nodes))
    for (a, b), g in zip(edges, net.params["g"], strict=True):
        laplacian[[a, b, a, b], [a, b, b, a]] += [g, g, -g, -g]
    x = rng.normal(size=(4, 1))
    expected = np.linalg.solve(laplacian[2:, 2:], -laplacian[2:, :1] @ x.T)[-1]
    np.testing.assert_allclose(net.predict(x)[:, 0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 3])
def test_audits(outputs):
    net = cubic_network(outputs=outputs)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(6, outputs))
    assert pnn.audit(net, EquilibriumPropagation(beta=1e-4), x, y).relative_error < 1e-6
    assert pnn.audit(net, FrequencyPropagation(amplitude=1e-4), x, y).relative_error < 1e-6
    assert (
        pnn.audit(
            net, AgnosticEquilibriumPropagation(beta=1e-5, softness=1e-5), x, y
        ).relative_error
        < 1e-3
    )
    # One sample: with many, each is clamped with a stiffness of its own.
    one = pnn.audit(net, CoupledLearning(eta=1e-4, variant="centered"), x[:1], y[:1])
    assert (one.cosine > 1 - 1e-9) == (outputs == 1)
    # Clamping to the target is another rule, and the audit says so.
    assert 0.1 < pnn.audit(net, ContrastiveLearning(), x, y).cosine < 1 - 1e-4


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
def test_gradients_against_differences(loss):
    net = cubic_network(10, 3)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(3, 2)), rng.dirichlet(np.ones(3), 3)
    found = ImplicitDifferentiation(loss=loss).gradient(net, x, y)["g"]

    def value():
        o = net.predict(x)
        if loss == "squared-error":
            return 0.5 * ((o - y) ** 2).sum() / 3
        return -(y * (o - np.log(np.exp(o).sum(axis=1, keepdims=True)))).sum() / 3

    for k in range(0, net.params["g"].size, 5):
        start = net.params["g"][k]
        sides = []
        for h in (1e-6, -1e-6):
            net.params["g"][k] = start + h
            sides.append(value())
        net.params["g"][k] = start
        assert found[k] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_conformance():
    pnn.testing.check_system(cubic_network(8))
    pnn.testing.check_system(
        Flow(
            [("a", "b"), ("b", "c"), ("c", "d"), ("b", "d")],
            inputs=["a"],
            outputs=["c"],
            ground="d",
        )
    )


def test_ideal_diodes_are_walls_and_carry_what_is_left():
    net = Circuit(
        [
            Resistor("in", "out", 1.0),
            Resistor("out", "0", 1.0),
            IdealDiode("0", "out"),
            IdealDiode("out", "top"),
            VoltageSource("top", "0", 2.0),
        ],
        inputs=["in"],
        outputs=["out"],
    )
    x = np.array([[-3.0], [1.0], [7.0]])
    assert net.predict(x)[:, 0] == pytest.approx([0.0, 0.5, 2.0])
    flowing = net.currents(x)
    assert flowing[:, 2] == pytest.approx([3.0, 0.0, 0.0])
    assert flowing[:, 3] == pytest.approx([0.0, 0.0, 3.0])


def test_ideal_diodes_between_free_nodes_carry_what_joins_them():
    # A bridge: the diode joins its middle nodes where the left one would be higher.
    bridge = [
        Resistor("in", "l"),
        Resistor("l", "0"),
        Resistor("in", "r", 0.5),
        Resistor("r", "0", 1.5),
    ]
    net = Circuit([*bridge, IdealDiode("l", "r")], inputs=["in"], outputs=["l", "r"])
    outputs = net.predict([[1.0], [-1.0]])
    np.testing.assert_allclose(outputs, [[0.375, 0.375], [-0.5, -0.25]], rtol=1e-12)
    np.testing.assert_allclose(net.currents([[1.0], [-1.0]])[:, -1], [0.25, 0.0], rtol=1e-12)
    assert net.settle([[1.0], [-1.0]]).residual.max() < 1e-12
    for x in ([[1.0]], [[-1.0]]):
        report = pnn.audit(net, EquilibriumPropagation(beta=1e-3), x, [[0.1, 0.3]])
        assert report.cosine > 1 - 1e-9


@pytest.mark.parametrize("x", [10.0, -10.0])
def test_a_grid_of_ideal_diodes_satisfies_every_inequality(x):
    side, rng = 20, np.random.default_rng(1)
    found = [Resistor("in", "n0_0", 1e-2), Resistor(f"n{side - 1}_{side - 1}", "0", 1e-2)]
    for i in range(side):
        for j in range(side):
            for a, b in ((i + 1, j), (i, j + 1)):
                if max(a, b) < side:
                    found.append(Resistor(f"n{i}_{j}", f"n{a}_{b}", 10 ** rng.uniform(-4, -2)))
                    if rng.random() < 0.5:
                        found.append(IdealDiode(f"n{i}_{j}", f"n{a}_{b}"))
    net = Circuit(found, inputs=["in"], outputs=[f"n{side - 1}_{side - 1}"])
    settled = net.settle([[x]])
    assert settled.converged
    assert settled.residual[0] < 1e-12
    at, flowing = net.voltages([[x]]), net.currents([[x]])[0]
    left = dict.fromkeys(net.nodes, 0.0)
    for element, current in zip(found, flowing, strict=True):
        for node, sign in ((element.plus, 1.0), (element.minus, -1.0)):
            if node in left:
                left[node] += sign * current
        if isinstance(element, IdealDiode):
            v = at[element.plus][0] - at[element.minus][0]
            assert v < 1e-10
            assert current >= 0.0
            assert v > -1e-9 or current == 0.0
    assert max(map(abs, left.values())) < 1e-10 * np.abs(flowing).max()


def transistor_network(nodes=12, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    names = ["0", "in0", "in1"] + [f"n{i}" for i in range(nodes)]
    found = [Transistor("in0", "n0", 3.0, 0.8, 0.7), Transistor("in1", "n1", 3.0, 0.8, 0.7)]
    for k in range(3, len(names)):
        for _ in range(2):
            found.append(
                Transistor(names[k], names[rng.integers(k)], rng.uniform(2.0, 4.0), 0.8, 0.7)
            )
    return Circuit(found, inputs=["in0", "in1"], outputs=names[-outputs:])


def test_transistors_have_no_energy_and_an_exact_gradient():
    net = transistor_network()
    x, y = [[0.4, -0.2], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.1]]
    settled = net.settle(x)
    assert settled.converged
    assert np.isnan(settled.energy).all()
    assert pnn.testing.check_system(net)
    # The local rule is near, and does not become exact as beta falls.
    reports = [pnn.audit(net, EquilibriumPropagation(beta=beta), x, y) for beta in (1e-2, 1e-4)]
    for report in reports:
        assert 0.9 < report.cosine < 1 - 1e-6
    assert pnn.audit(net, ImplicitDifferentiation(), x, y).cosine > 1 - 1e-12
    assert "ImplicitDifferentiation" in net.methods()


def test_transistors_that_block_cut_nodes_off():
    edges = [Transistor("in", "a", 2.0), Transistor("a", "out", 2.0), Resistor("in", "a", 1e-3)]
    net = Circuit([*edges, Resistor("out", "0", 1.0)], inputs=["in"], outputs=["out"])
    assert net.settle([[0.5]]).converged
    # Below threshold nothing flows: the output is at ground.
    net.params["gate"][1] = -1.0
    assert net.predict([[0.5]])[0, 0] == 0.0
    cut = Circuit(
        [Transistor("in", "out", -1.0), Resistor("in", "0")], inputs=["in"], outputs=["out"]
    )
    assert cut.settle([[0.5]]).counts()["unbounded"] == 1
    with pytest.warns(pnn.errors.SettlingWarning, match="no operating point"):
        assert np.isnan(cut.currents([[0.5]])).all()


def test_transistors_learn():
    net = transistor_network(outputs=1)
    x, y = np.array([[0.4, 0.0], [0.0, 0.4], [0.4, 0.4]]), np.array([[0.1], [0.05], [0.15]])
    trainer = pnn.Trainer(net, CoupledLearning(eta=0.1), pnn.optim.SGD(5.0), batch_size=3, seed=0)
    losses = trainer.fit(x, y, epochs=200)["loss"]
    assert losses[-1] < 1e-2 * losses[0]


def test_floating_sources_shift():
    cells = [
        Resistor("in", "a"),
        VoltageSource("b", "a", 1.5),
        Resistor("b", "c"),
        VoltageSource("c", "out", 0.25),
    ]
    net = Circuit(
        [*cells, Resistor("out", "0"), Resistor("c", "0", 0.5)], inputs=["in"], outputs=["out"]
    )
    at = {node: float(v[0]) for node, v in net.voltages([[1.0]]).items()}
    assert at["b"] - at["a"] == pytest.approx(1.5)
    assert at["c"] - at["out"] == pytest.approx(0.25)
    assert 1.0 - at["a"] == pytest.approx(at["b"] - at["c"])
    assert at["b"] - at["c"] == pytest.approx(at["out"] + 0.5 * at["c"])
    assert net.nodes == ["a", "out"]


def test_steep_diodes_far_from_rest_converge():
    chain = [Resistor("in", "n0", 1.0)]
    for k in range(6):
        chain += [Diode(f"n{k}", f"n{k + 1}", 1e-15), Resistor(f"n{k + 1}", "0", 1e-3)]
    net = Circuit(chain, inputs=["in"], outputs=["n6"])
    found = net.settle(np.array([[0.1], [1.0], [100.0], [1e4], [-1e4]]))
    assert found.converged
    assert found.sweeps.max() < 200


def test_trains_to_divide_voltages():
    rng = np.random.default_rng(0)
    nodes = [f"n{i}" for i in range(6)]
    edges = [(a, b) for i, a in enumerate(nodes) for b in nodes[:i]] + [
        (f"in{k}", n) for k in (0, 1) for n in nodes[:3]
    ]
    net = Flow(edges, inputs=["in0", "in1"], outputs=["n5"])
    x = rng.uniform(0, 1, (60, 2))
    y = x @ [[0.25], [0.75]]
    for method in (
        EquilibriumPropagation(beta=0.1),
        CoupledLearning(eta=0.1),
        FrequencyPropagation(),
    ):
        net.params["g"][...] = 1.0
        pnn.Trainer(net, method, pnn.optim.Adam(0.05), batch_size=20, seed=0).fit(x, y, epochs=60)
        assert net.score(x, y) > 0.99, method


def test_trained_sources_and_files(tmp_path):
    net = Circuit(
        [
            Resistor("in", "out", 1.0),
            Diode("out", "0"),
            CurrentSource("0", "out", 0.1, trained=True),
        ],
        inputs=["in"],
        outputs=["out"],
        device=Device(lower=0.1, upper=2.0),
    )
    assert net.shapes == {"g": (1,), "i": (1,)}
    x, y = np.linspace(0, 1, 20)[:, None], np.linspace(0.3, 0.6, 20)[:, None]
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(beta=0.1), pnn.optim.Adam(0.01), batch_size=7, seed=0
    )
    trainer.fit(x, y, epochs=3)
    trainer.save(tmp_path / "run.pnn")
    again = pnn.Trainer.load(tmp_path / "run.pnn")
    assert again.system.elements == net.elements
    assert again.system.device == net.device
    for t in (trainer, again):
        t.fit(x, y, epochs=3)
    assert flat(again.system.params).tobytes() == flat(net.params).tobytes()


def test_from_a_networkx_graph():
    nx = pytest.importorskip("networkx")
    graph = nx.grid_2d_graph(3, 3)
    graph.edges[(0, 0), (0, 1)]["conductance"] = 4.0
    net = Circuit.from_graph(graph, inputs=["(0, 0)"], outputs=["(2, 2)"], ground="(0, 2)")
    assert net.params["g"].sum() == graph.number_of_edges() + 3


RESISTORS = [Resistor("in", "out"), Resistor("out", "0")]


@pytest.mark.parametrize(
    ("elements", "settings", "match"),
    [
        ([*RESISTORS, Resistor("a", "b")], {}, "no conducting path from a, b to an input"),
        ([*RESISTORS, CurrentSource("out", "x")], {}, "no conducting path from x"),
        (RESISTORS, {"inputs": ["nowhere"]}, "input 'nowhere' is no node"),
        (RESISTORS, {"outputs": ["nowhere"]}, "output 'nowhere' is no node"),
        (RESISTORS, {"outputs": ["in"]}, "output 'in' is held"),
        (RESISTORS, {"inputs": ["0"]}, "input '0' is held by ground"),
        (RESISTORS, {"inputs": []}, "inputs is empty"),
        (RESISTORS, {"inputs": "in"}, "inputs must be a list of names"),
        (RESISTORS, {"outputs": ["out", "out"]}, "more than once"),
        ([*RESISTORS, VoltageSource("in", "0", 1.0)], {}, "loop of sources"),
        (
            [*RESISTORS, VoltageSource("s", "0", 1.0), VoltageSource("s", "0", 2.0)],
            {},
            "loop of sources",
        ),
        (
            [*RESISTORS, VoltageSource("out", "in", 1.0)],
            {},
            "output 'out' is held by an input or a source",
        ),
        (
            [*RESISTORS, VoltageSource("a", "b", 1.0), VoltageSource("b", "a", 1.0)],
            {},
            "loop of sources",
        ),
        (
            [*RESISTORS, Resistor("p", "out"), VoltageSource("out", "p", 1.0)],
            {"outputs": ["out", "p"]},
            "output 'p' is held by a source and another output|output 'out' is held by a source "
            "and another output",
        ),
        (
            [*RESISTORS, Resistor("p", "q"), VoltageSource("q", "p", 1.0)],
            {},
            "no conducting path from p",
        ),
        ([*RESISTORS, IdealDiode("in", "0")], {}, "terminal that no source holds"),
        (RESISTORS, {"device": Device()}, "conductances cannot be negative"),
        ([*RESISTORS, "R3"], {}, "must come from pnncore.elements, got 'R3'"),
    ],
)
def test_impossible_circuits(elements, settings, match):
    refuses(
        ConfigError, match, Circuit, elements, **{"inputs": ["in"], "outputs": ["out"], **settings}
    )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Resistor("a", "a"), "both terminals are at node 'a'"),
        (lambda: Resistor("a", 3.0), "minus must be the name of a node"),
        (lambda: Resistor("a", "b", 0.0), "conductance must be a positive number"),
        (lambda: Resistor("a", "b", -1.0), "conductance must be a positive number"),
        (lambda: Diode("a", "b", float("nan")), "saturation must be a finite number"),
        (lambda: Cubic("a", "b", 1.0, 0.0), "scale must be a positive number"),
        (lambda: Resistor("a", "b", 1.0, "yes"), "trained must be True or False"),
    ],
)
def test_impossible_elements(make, match):
    refuses(ConfigError, match, make)


def test_values_out_of_range_and_nodes_cut_off():
    net = Circuit(RESISTORS, inputs=["in"], outputs=["out"])
    net.params["g"][0] = -1.0
    refuses(DataError, "g holds -1", net.predict, [[1.0]])
    net.params["g"][...] = 0.0
    assert net.settle([[1.0]]).counts()["unbounded"] == 1


def test_elastic_closed_form_and_learning():
    positions = [[0, 0], [2, 0], [1, 1.0]]
    net = Elastic(positions, [[0, 2], [1, 2]], inputs=[(1, 0), (1, 1)], outputs=[(2, 1)], fixed=[0])
    # The two feet move apart by 2 d: the top goes to where both springs keep their length.
    found = net.shape([[0.4, 0.0]])[0]
    np.testing.assert_allclose(found[2], [1.2, np.sqrt(2 - 1.2**2)], atol=1e-4)
    rng = np.random.default_rng(0)
    grid = np.array([[i, j] for i in range(4) for j in range(4)]) + rng.uniform(-0.2, 0.2, (16, 2))
    apart = np.linalg.norm(grid[:, None] - grid[None], axis=-1)
    sheet = Elastic(
        grid,
        np.argwhere(np.triu(apart < 1.5, 1)),
        inputs=[(15, 0)],
        outputs=[(3, 1)],
        fixed=[0, 12],
    )
    x = np.linspace(-0.1, 0.1, 8)[:, None]
    y = 0.3 * x
    untrained = sheet.score(x, y)
    pnn.Trainer(
        sheet, EquilibriumPropagation(beta=0.05), pnn.optim.Adam(0.03), batch_size=8, seed=0
    ).fit(x, y, epochs=200)
    assert sheet.score(x, y) > 0.95 > untrained
    assert (sheet.params["k"] >= 0).all()


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"positions": [0.0, 1.0]}, ShapeError, "positions must have shape"),
        ({"springs": [[0, 1, 2]]}, ShapeError, "springs must be integers of shape"),
        ({"springs": [[0, 9]]}, ConfigError, "does not exist"),
        ({"springs": [[0, -1]]}, ConfigError, "from 0 on"),
        ({"outputs": [(0, 0)]}, ConfigError, "named twice"),
        ({"outputs": [3]}, ConfigError, "pairs"),
        ({"outputs": []}, ConfigError, "needs springs and outputs"),
        ({"positions": [[0, 0], [0, 0], [1, 1]]}, ConfigError, "has no length"),
        ({"positions": [[0, 0], [np.inf, 0], [1, 1]]}, ConfigError, "finite"),
        ({"device": Device()}, ConfigError, "stiffness cannot be negative"),
    ],
)
def test_impossible_elastic_networks(kwargs, error, match):
    good = {
        "positions": [[0, 0], [1, 0], [1, 1]],
        "springs": [[0, 1], [1, 2]],
        "inputs": [(2, 0)],
        "outputs": [(1, 0)],
        "fixed": [0],
    }
    refuses(error, match, Elastic, **{**good, **kwargs})


def test_a_flow_that_cannot_depend_on_its_pipes_is_refused():
    pipes = [("s", "a"), ("a", "t"), ("t", "0")]
    words = "joined to one held node only, 's'"
    refuses(ConfigError, words, Flow, pipes, inputs=["s"], outputs=["t"])
    apart = [*pipes, ("u", "v"), ("v", "w")]
    refuses(ConfigError, "one held node only", Flow, apart, inputs=["s", "u"], outputs=["t", "v"])
    net = Flow(pipes, inputs=["s"], outputs=["t"], ground="0")
    np.testing.assert_allclose(net.predict([[3.0]]), 1.0)


def test_ground_is_a_node():
    divider = [Resistor("in", "out", 1.0), Resistor("out", "gnd", 3.0)]
    refuses(ConfigError, "ground '0' is no node", Circuit, divider, inputs=["in"], outputs=["out"])
    for wrong in ("GND", 0, "vss"):
        refuses(
            ConfigError,
            f"ground '{wrong}' is no node of any element",
            Circuit,
            divider,
            inputs=["in"],
            outputs=["out"],
            ground=wrong,
        )
    both = [*divider, Resistor("in", "0", 1.0)]
    refuses(
        ConfigError,
        "node 'gnd' is not ground, which is '0'",
        Circuit,
        both,
        inputs=["in"],
        outputs=["out"],
    )
    net = Circuit(divider, inputs=["in"], outputs=["out"], ground="gnd")
    np.testing.assert_allclose(net.predict([[1.0]]), 0.25)
    between = Circuit(divider, inputs=["in", "gnd"], outputs=["out"], ground=None)
    np.testing.assert_allclose(between.predict([[1.0, 3.0]]), 2.5)
    assert set(between.voltages([[1.0, 3.0]])) == {"in", "gnd", "out"}
    again = pnn.systems.from_config(between.to_config())
    assert again.ground is None


def test_nodes_and_edges_of_graphs():
    graph = pytest.importorskip("networkx").Graph()
    graph.add_weighted_edges_from([(0, 1, 2.0), (1, 2, 6.0)])
    graph.add_edge(1, 3)
    net = Circuit.from_graph(graph, inputs=[2], outputs=[1], ground=0, conductance="weight")
    assert (net.inputs, net.outputs, net.ground) == (["2"], ["1"], "0")
    np.testing.assert_allclose(net.predict([[1.0]]), 0.75)
    flow = Flow.from_graph(graph, inputs=[2, 0], outputs=[1], conductance="weight")
    assert flow.params["g"].tolist() == [2.0, 6.0, 1.0]
    np.testing.assert_allclose(flow.predict([[1.0, 0.0]]), 0.75)
    refuses(ConfigError, "must be a networkx graph", Flow.from_graph, 3, inputs=[2], outputs=[1])


def test_what_is_joined_without_resistance_carries_no_voltage():
    found = [
        Resistor("in", "a", 1.0),
        VoltageSource("a", "out", 0.0),
        Resistor("a", "out", 5.0),
        Diode("a", "out", 1e-12),
        Resistor("out", "0", 1.0),
    ]
    net = Circuit(found, inputs=["in"], outputs=["out"])
    np.testing.assert_allclose(net.predict([[1.0]]), 0.5)
    assert net.currents([[1.0]])[0].tolist() == [0.5, 0.5, 0.0, 0.0, 0.5]
    exact = ImplicitDifferentiation().gradient(net, [[1.0]], [[0.0]])["g"]
    np.testing.assert_allclose(exact, [0.125, 0.0, -0.125], atol=1e-15)
