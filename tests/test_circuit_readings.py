"""Currents and differences of voltages as outputs of circuits, and currents as inputs."""

import itertools
import json

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import methods
from pnncore.elements import (
    Cubic,
    Current,
    CurrentSource,
    Difference,
    Diode,
    IdealDiode,
    Resistor,
    Transistor,
    VoltageSource,
)
from pnncore.errors import CapabilityError, ConfigError
from pnncore.systems import Circuit, Flow
from spice import needs_ngspice, ngspice

KINDS = {
    "linear": lambda a, b, rng: Resistor(a, b, rng.uniform(0.5, 1.5)),
    "diode": lambda a, b, rng: Diode(a, b, 1e-3, 8.0),
    "sharp diode": lambda a, b, rng: Diode(a, b, 1e-12),
    "cubic": lambda a, b, rng: Cubic(a, b, rng.uniform(0.5, 1.5), 0.4),
    "ideal diode": lambda a, b, rng: IdealDiode(a, b),
    "transistor": lambda a, b, rng: Transistor(a, b, 1.2, 0.7, 0.2),
}
READINGS = {
    "current": [Current("column", "0")],
    "difference": [Difference("n1", "n4")],
    "both": [Current("column", "0"), Difference("n1", "n4"), "n5"],
    "into held nodes": [Current("in0"), Current("0"), Current("low")],
    "through a source": [Current("supply", "n3"), Difference("n5", "in0")],
}


def network(kind="linear", readings="both", *, scale=1.0, seed=0, dtype="float64"):
    """A ladder with elements of a kind across, and everything that can be read or fed in."""
    rng = np.random.default_rng(seed)
    nodes = [f"n{k}" for k in range(6)]
    make = KINDS[kind]

    def scaled(element):
        settings = vars(element)
        for name in ("conductance", "saturation", "strength", "current"):
            if name in settings:
                settings = {**settings, name: settings[name] * scale}
        return type(element)(**settings)

    found = [Resistor("in0", "n0", 1.0), Resistor("n5", "column", 0.7)]
    for a, b in itertools.pairwise(nodes):
        found.append(Resistor(a, b, rng.uniform(0.5, 1.5)))
    for k, node in enumerate(nodes):
        other = "column" if k % 2 else "0"
        found.append(make(*((node, other) if k % 3 else (other, node)), rng))
    found += [Resistor("n2", "low", 0.4), Resistor("supply", "n1", 0.3)]
    found += [CurrentSource("0", "n4", 0.05, True)]
    found = [scaled(element) for element in found]
    found += [VoltageSource("column", "0", 0.0), VoltageSource("supply", "n3", 0.4)]
    inputs = ["in0", "low", Current("0", "n2")]
    return Circuit(found, inputs=inputs, outputs=READINGS[readings], dtype=dtype)


def samples(count=4, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 3)) * [1.0, 0.5, 0.3]


def targets(net, count=4, seed=2):
    return np.random.default_rng(seed).normal(size=(count, net.n_out)) * 0.3


@pytest.mark.parametrize("readings", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_readings_are_what_currents_and_voltages_say(kind, readings):
    net = network(kind, readings)
    x = samples()
    found = net.predict(x)
    at, through, into = net.voltages(x), net.currents(x), net.input_currents(x)
    column, supply = (net.elements.index(e) for e in net.elements if isinstance(e, VoltageSource))
    leaving = {node: np.zeros(4) for node in at}
    for k, element in enumerate(net.elements):
        leaving[element.plus] += through[:, k]
        leaving[element.minus] -= through[:, k]
    leaving["0"] += x[:, 2]
    leaving["n2"] -= x[:, 2]
    expected = {
        "i(column,0)": through[:, column],
        "v(n1,n4)": at["n1"] - at["n4"],
        "n5": at["n5"],
        "i(in0)": -into[:, 0],
        "i(low)": -into[:, 1],
        "i(0)": -leaving["0"],
        "i(supply,n3)": through[:, supply],
        "v(n5,in0)": at["n5"] - x[:, 0],
    }
    for k, output in enumerate(net.outputs):
        np.testing.assert_allclose(found[:, k], expected[str(output)], atol=1e-11)
    # Kirchhoff's law, at every node that nothing holds.
    for node in set(leaving) - {"0", "in0", "low"}:
        assert np.abs(leaving[node]).max() < 1e-11, node
    np.testing.assert_allclose(into[:, 2], x[:, 2])


@pytest.mark.parametrize("readings", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_another_way_to_ask_is_the_same_operating_point(kind, readings):
    """Meters change nothing: the circuit without them, solved by Cholesky factors, agrees."""
    net = network(kind, readings)
    plain = Circuit(net.elements, inputs=net.inputs, outputs=["n5"])
    x = samples()
    for node, v in plain.voltages(x).items():
        np.testing.assert_allclose(net.voltages(x)[node], v, atol=1e-10)
    settled = net.settle(x)
    assert settled.converged
    assert settled.residual.max() < 1e-10
    if kind != "transistor":
        np.testing.assert_allclose(settled.energy, plain.settle(x).energy, atol=1e-10)


@needs_ngspice
@pytest.mark.parametrize("kind", ["linear", "sharp diode", "cubic", "transistor"])
def test_readings_agree_with_ngspice(kind, tmp_path):
    net = network(kind)
    x = samples()
    for row in x:
        deck = net.to_spice(row)
        # An ammeter with a resistor behind it shows its current as a voltage.
        column = next(k for k, e in enumerate(net.elements) if isinstance(e, VoltageSource))
        sensed = deck.replace(
            f"V{column} column 0", f"Hsense sense 0 V{column} 1\nV{column} column 0"
        )
        i, v1, v4, v5 = ngspice(sensed, ["sense", "n1", "n4", "n5"], tmp_path)
        np.testing.assert_allclose(net.predict([row])[0], [i, v1 - v4, v5], atol=1e-6)
        again = Circuit.from_spice(
            deck, inputs=net.inputs, outputs=net.outputs, trained=["R0", "R1"]
        )
        np.testing.assert_allclose(again.predict([row]), net.predict([row]), atol=1e-9)


def numerical(net, x, y, loss):
    """Return the derivatives of the loss by central differences."""
    found = {}
    for name, array in net.params.items():
        found[name] = np.zeros_like(array)
        for k in range(array.size):
            start = array[k]
            sides = []
            for h in (1e-6, -1e-6):
                array[k] = start + h * max(1.0, abs(start))
                sides.append(loss(net.predict(x), y))
            array[k] = start
            found[name][k] = (sides[0] - sides[1]) / (2e-6 * max(1.0, abs(start)))
    return found


def squared(outputs, y):
    return 0.5 * ((outputs - y) ** 2).sum(axis=1).mean()


@pytest.mark.parametrize("readings", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_exact(kind, readings):
    net = network(kind, readings)
    x, y = samples(), targets(net)
    expected = numerical(net, x, y, squared)
    size = max(np.abs(g).max() for g in expected.values())
    exact = methods.ImplicitDifferentiation().gradient(net, x, y)
    for name, g in expected.items():
        np.testing.assert_allclose(exact[name], g, atol=1e-6 * size)
    if kind == "transistor":
        return
    # Parts where all diodes hold nodes at zero sit at a kink.
    order = 1 if kind == "ideal diode" else 2
    errors = []
    for beta in (2e-3, 1e-3):
        contrast = methods.EquilibriumPropagation(beta=beta).gradient(net, x, y)
        errors.append(max(np.abs(contrast[name] - exact[name]).max() for name in exact))
    # The bias is of the second order in beta.
    assert errors[1] <= 1.2 * 0.5**order * errors[0] or errors[1] < 1e-8 * size
    assert errors[1] <= 1e-2 * size


@pytest.mark.parametrize("kind", ["linear", "diode", "cubic"])
def test_which_methods_teach_readings(kind):
    x, y = samples(), targets(network(kind))
    refused = {
        "current": ["ContrastiveLearning", "CoupledLearning", "RecurrentBackprop"],
        "difference": ["RecurrentBackprop"],
        "both": ["ContrastiveLearning", "CoupledLearning", "RecurrentBackprop"],
    }
    plain = set(
        Circuit([Resistor("a", "b"), Resistor("b", "0")], inputs=["a"], outputs=["b"]).methods()
    )
    for readings, names in refused.items():
        net = network(kind, readings)
        assert plain - set(net.methods()) == set(names)
        with pytest.raises(CapabilityError, match="RecurrentBackprop"):
            methods.RecurrentBackprop().gradient(net, x, y[:, : net.n_out])
        for method in (
            methods.EquilibriumPropagation(),
            methods.EquilibriumPropagation(variant="one-sided", beta=1e-4),
            methods.FrequencyPropagation(amplitude=1e-3),
            methods.FiniteDifference(epsilon=1e-4),
        ):
            report = pnn.audit(net, method, x, y[:, : net.n_out])
            assert report.cosine > 0.999, (readings, method)
    # Clamping a current lowers the co-content: the contrast would climb.
    net = network(kind, "current")
    with pytest.raises(CapabilityError, match="clamping raises the energy"):
        methods.CoupledLearning().gradient(net, x, y[:, :1])
    net = network(kind, "difference")
    report = pnn.audit(net, methods.CoupledLearning(eta=1e-3), x, y[:, :1])
    assert report.cosine > 0.99


@pytest.mark.parametrize("readings", READINGS)
def test_linear_circuits_are_exact_at_any_strength(readings):
    """A nudge is the force of the free state: no strength meets a pole, of either sign."""
    net = network("linear", readings)
    x, y = samples(), targets(net)
    exact = methods.ImplicitDifferentiation().gradient(net, x, y)
    for beta in (0.1, 1.0, 2.5, 7.0, 1e3):
        found = methods.EquilibriumPropagation(beta=beta).gradient(net, x, y)
        for name, g in exact.items():
            np.testing.assert_allclose(found[name], g, atol=1e-9 * np.abs(g).max(), rtol=1e-7)
        for sign in (1, -1):
            settled = net.settle(x, y=y, beta=sign * beta)
            assert settled.converged
            assert settled.residual.max() < 1e-10 * max(1.0, beta)


def test_a_nudged_ammeter_is_in_series_with_a_fixed_voltage():
    """One resistor R from x to an ammeter, I = x / R. A nudge that followed the current, beta (I -
    y) in series with it, would divide by R - beta."""
    net = Circuit(
        [Resistor("in", "column", 0.5), VoltageSource("column", "0", 0.0)],
        inputs=["in"],
        outputs=[Current("column", "0")],
    )
    x, y = np.array([[3.0]]), np.array([[1.0]])
    for beta in (-2.5, 1.9, 2.0, 2.1, 50.0):
        # I = (x + beta (I0 - y)) / R: against the error, where beta is negative.
        shown = net.settle(x, y=y, beta=beta).states[-1][0, 0]
        assert shown == pytest.approx(0.5 * (3.0 + beta * 0.5), rel=1e-12)
    across = Circuit(
        [Resistor("in", "a", 0.5), Resistor("a", "0", 2.0)],
        inputs=["in"],
        outputs=[Difference("a", "0")],
    )
    free = across.predict(x)[0, 0]
    for beta in (-2.5, -2.4, 3.0):
        shown = across.settle(x, y=y, beta=beta).states[-1][0, 0]
        assert shown == pytest.approx(free - beta * (free - 1.0) / 2.5, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_units_do_not_matter(kind):
    x = samples()
    plain, small = network(kind), network(kind, scale=1e-6)
    x_small = x * [1, 1, 1e-6]
    found, other = plain.predict(x), small.predict(x_small)
    np.testing.assert_allclose(other, found * [1e-6, 1, 1], rtol=1e-8, atol=1e-16)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e3, 1e9, 1e15])
def test_circuits_settle_in_any_unit_of_conductances(scale):
    for kind in ("linear", "cubic", "diode", "transistor"):
        net = network(kind, scale=scale)
        x = samples() * [1, 1, scale]
        assert net.settle(x).converged, kind
        np.testing.assert_allclose(
            net.predict(x) * [1 / scale, 1, 1], network(kind).predict(samples()), rtol=1e-6
        )


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("readings", ["current", "both", "into held nodes"])
def test_strengths_that_nobody_gives_suit_all_units(readings, scale, loss):
    for kind in ("cubic", "diode"):
        net = network(kind, readings, scale=scale)
        x, y = samples() * [1, 1, scale], targets(net)
        units = [scale if isinstance(end, Current) else 1.0 for end in net.outputs]
        target = y * units if loss == "squared-error" else np.arange(4) % net.n_out
        if loss == "cross-entropy" and net.n_out == 1:
            continue
        report = pnn.audit(net, methods.EquilibriumPropagation(loss=loss), x, target)
        assert report.cosine > 0.999, kind
        assert report.relative_error < 0.05, kind


@pytest.mark.parametrize("kind", KINDS)
def test_ammeters_agree_with_currents_at_any_voltage(kind):
    net = network(kind, "current")
    place = len(net.elements) - 2
    for size in (0.1, 1.0, 10.0, 40.0):
        x = size * samples(16)
        shown, through = net.predict(x)[:, 0], net.currents(x)[:, place]
        assert net.settle(x).converged
        np.testing.assert_allclose(shown, through, rtol=1e-7, atol=1e-9 * np.abs(shown).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_those_of_one_thread(kind, dtype):
    net = network(kind, dtype=dtype)
    x = samples(70)
    for method in (methods.EquilibriumPropagation(beta=0.01), methods.ImplicitDifferentiation()):
        found = [
            method.gradient(net, x, targets(net, 70), threads=threads) for threads in (1, 2, 3, 8)
        ]
        for other in found[1:]:
            assert all(other[name].tobytes() == g.tobytes() for name, g in found[0].items())


def crossbar(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    cells = [
        Resistor(f"row{i}", f"column{j}", rng.uniform(0.1, 1))
        for i in range(rows)
        for j in range(columns)
    ]
    ammeters = [VoltageSource(f"column{j}", "0", 0.0) for j in range(columns)]
    return Circuit(
        [*cells, *ammeters],
        inputs=[f"row{i}" for i in range(rows)],
        outputs=[Current(f"column{j}", "0") for j in range(columns)],
    )


def test_a_crossbar_multiplies_and_learns():
    net = crossbar(5, 3)
    x = np.random.default_rng(3).normal(size=(64, 5))
    g = net.params["g"].reshape(5, 3)
    np.testing.assert_allclose(net.predict(x), x @ g, rtol=1e-12)
    wanted = np.random.default_rng(4).uniform(0.2, 0.9, (5, 3))
    trainer = pnn.Trainer(
        net, methods.EquilibriumPropagation(), pnn.optim.SGD(0.3), batch_size=16, seed=0
    )
    trainer.fit(x, x @ wanted, epochs=200)
    np.testing.assert_allclose(net.params["g"].reshape(5, 3), wanted, atol=1e-3)


def test_differences_learn_what_single_nodes_cannot():
    """Passive voltages lie between those of the sources: a difference has either sign."""
    rng = np.random.default_rng(0)
    nodes = ["a", "b", "c", "plus", "minus"]
    found = [Resistor(u, v, rng.uniform(0.5, 1.5)) for k, u in enumerate(nodes) for v in nodes[:k]]
    net = Circuit(found, inputs=["a", "b", "c"], outputs=[Difference("plus", "minus")], ground=None)
    x = rng.normal(size=(64, 3))
    y = (0.3 * (x[:, :1] - x[:, 1:2])) - 0.1 * (x[:, 2:] - x[:, :1])
    for method in (methods.EquilibriumPropagation(), methods.CoupledLearning()):
        trainer = pnn.Trainer(net, method, pnn.optim.SGD(1.0), batch_size=16, seed=0)
        history = trainer.fit(x, y, epochs=100)
        assert history["loss"][-1] < 1e-3 * max(history["loss"][0], 0.01)


def test_flows_out_of_networks():
    net = Flow([("a", "b"), ("b", "c")], inputs=["a"], outputs=[Current("c")], ground="c")
    assert net.predict([[3.0]])[0, 0] == pytest.approx(1.5)
    fed = Flow([("a", "b"), ("b", "c")], inputs=[Current("c", "a")], outputs=["a"], ground="c")
    assert fed.predict([[3.0]])[0, 0] == pytest.approx(6.0)


def test_flows_with_meters_are_kept(tmp_path):
    net = Flow(
        [("a", "b"), ("b", "c"), ("b", "d"), ("d", "c")],
        inputs=["a", Current("c", "d")],
        outputs=[Difference("b", "d"), Current("c")],
        ground="c",
    )
    x = np.array([[3.0, 0.2], [1.0, -0.4]])
    config = json.loads(json.dumps(net.to_config()))
    again = pnn.systems.from_config(config)
    assert again.outputs == net.outputs
    assert again.inputs == net.inputs
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    trainer = pnn.Trainer(net, methods.EquilibriumPropagation(), pnn.optim.SGD(0.01), seed=0)
    trainer.fit(x, net.predict(x) + 0.1, epochs=1)
    trainer.save(tmp_path / "flow.pnn")
    loaded = pnn.Trainer.load(tmp_path / "flow.pnn")
    np.testing.assert_array_equal(loaded.system.predict(x), net.predict(x))


DECK = """Two sources between one pair
R1 a 0 1
R2 a b 2
R3 b 0 1
{}
"""


def test_only_the_source_of_an_input_is_left_out():
    def read(*sources, **settings):
        ends = {"inputs": [Current("gnd", "a")], "outputs": ["b"]} | settings
        return Circuit.from_spice(DECK.format("\n".join(sources)), **ends)

    x = [[0.3], [-0.2]]
    bare = read().predict(x)
    np.testing.assert_allclose(read("Isrc 0 a 5").predict(x), bare)
    # The other one is a bias.
    biased = read("Iin0 0 a 5", "Ibias gnd a 0.4").predict(x)
    np.testing.assert_allclose(biased, read().predict(np.add(x, 0.4)))
    reverse = read("Ibias a 0 0.4", "IIN0 0 a 5").predict(x)
    np.testing.assert_allclose(reverse, read().predict(np.subtract(x, 0.4)))
    refuses(ConfigError, "line 6: Ix, Iy feed one pair of nodes", read, "Ix 0 a 1", "Iy 0 a 2")
    refuses(ConfigError, "is trained, and input 0 takes its place", read, "I1 0 a 1 $ trained")
    refuses(
        ConfigError,
        "hold one node",
        read,
        "V1 a 0 1",
        "V2 0 a 2",
        inputs=["a"],
    )
    measured = read("Vm b 0 0", inputs=["a"], outputs=[Current("b", "GND")])
    assert measured.predict([[2.0]])[0, 0] == pytest.approx(1.0)
    cased = read("Vm B 0 0", inputs=["A"], outputs=[Current("a"), Current("b", "0")])
    np.testing.assert_allclose(cased.predict([[2.0]]), [[-3.0, 1.0]])
    written = read("Iin0 0 a 5", "Ibias 0 a 0.4").to_spice([0.1])
    again = Circuit.from_spice(written, inputs=[Current("0", "a")], outputs=["b"])
    np.testing.assert_allclose(again.predict(x), biased)


def test_files_and_copies(tmp_path):
    net = network()
    config = net.to_config()
    again = type(net).from_config({name: config[name] for name in config if name != "name"})
    x = samples()
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert again.outputs == net.outputs
    assert again.inputs == net.inputs
    trainer = pnn.Trainer(net, methods.EquilibriumPropagation(), pnn.optim.SGD(0.01), seed=0)
    trainer.fit(x, targets(net), epochs=2)
    trainer.save(tmp_path / "run.pnn")
    loaded = pnn.Trainer.load(tmp_path / "run.pnn")
    np.testing.assert_array_equal(loaded.system.predict(x), net.predict(x))
    assert "Current(plus='column', minus='0')" in repr(net)
    pytest.importorskip("matplotlib")
    assert net.plot(x[0]).axes[0].get_title()


def test_nodes_that_training_cuts_off():
    """A voltmeter between parts that nothing joins measures nothing; within one part it does."""

    def cut(*open_ones):
        found = [Resistor(*pair, trained=True) for pair in ("ab", "bc", "c0", "bd")]
        net = Circuit(found, inputs=["a"], outputs=[Difference("b", "d")])
        for k in open_ones:
            net.params["g"][k] = 0.0
        return net

    assert cut().settle([[1.0]]).converged
    assert not cut(3).settle([[1.0]]).converged
    floating = cut(0, 2)
    assert floating.settle([[1.0]]).converged
    assert floating.predict([[1.0]])[0, 0] == 0.0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"outputs": [Current("a", "b")]}, "there are 0: one of 0 V is an ammeter"),
        ({"outputs": [Current("b")]}, "neither x nor ground holds 'b'"),
        ({"outputs": [Difference("s", "0")]}, "is fixed by inputs and sources"),
        ({"outputs": [Difference("a", "0")]}, "is fixed by inputs and sources"),
        ({"outputs": [Difference("b", "nowhere")]}, "output 'nowhere' is no node"),
        ({"outputs": [Current("s", "0"), "s"]}, "'s' is held by a source"),
        ({"outputs": [Current("s", "0"), Current("0", "s")]}, "a loop of sources"),
        ({"outputs": [Current("s", "0"), Current("s", "0")]}, "more than once"),
        ({"inputs": [Current("b")]}, "needs a second node"),
        ({"inputs": [Difference("a", "b")]}, "names of nodes, or Current"),
        ({"inputs": [Current("0", "nowhere")]}, "input 'nowhere' is no node"),
    ],
)
def test_readings_that_are_not_there(settings, match):
    found = [Resistor("a", "b"), Resistor("b", "s"), Resistor("b", "0"), VoltageSource("s", "0", 1)]
    settings = {"inputs": ["a"], "outputs": ["b"]} | settings
    refuses(ConfigError, match, Circuit, found, **settings)


def test_ends_are_checked():
    for make in (Current, Difference):
        refuses(ConfigError, "both ends are at node 'a'", make, "a", "a")
        refuses(ConfigError, "plus must be the name of a node", make, 1.5, "a")
        assert make(3, 4) == make("3", "4")
    refuses(ConfigError, "minus must be the name of a node", Difference, "a", None)
    assert str(Current("a")) == "i(a)"
