"""Circuits against ngspice, and netlists there and back."""

import re
import shutil
import subprocess

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore.elements import (
    Cubic,
    CurrentSource,
    Diode,
    IdealDiode,
    Resistor,
    Transistor,
    VoltageSource,
)
from pnncore.errors import ConfigError
from pnncore.systems import Circuit

needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed (apt install ngspice)"
)

KINDS = ["linear", "diode", "cubic", "transistor"]


def random_circuit(kind, nodes, seed):
    """Every node joins earlier ones by a resistor and, according to `kind`, by other elements."""
    rng = np.random.default_rng(seed)
    names = ["0", "in0", "in1", "supply"] + [f"n{i}" for i in range(nodes)]
    found = [
        VoltageSource("supply", "0", 1.5),
        Resistor("in0", "n0", 1e-3),
        Resistor("in1", "n1", 2e-3),
    ]
    for k in range(4, len(names)):
        found.append(Resistor(names[k], names[rng.integers(k)], 10 ** rng.uniform(-4, -2)))
        a, b = names[k], names[rng.integers(k)]
        match kind:
            case "linear":
                found.append(Resistor(a, b, 10 ** rng.uniform(-4, -2)))
                if k % 7 == 0:
                    found.append(CurrentSource(a, b, rng.normal() * 1e-4))
            case "diode":
                found.append(
                    Diode(
                        *((a, b) if rng.random() < 0.5 else (b, a)),
                        10 ** rng.uniform(-15, -12),
                        rng.uniform(1, 2),
                    )
                )
            case "cubic":
                found.append(Cubic(a, b, 10 ** rng.uniform(-4, -2), rng.uniform(0.2, 2.0)))
            case "transistor":
                # Some conduct, some saturate, some block.
                found.append(
                    Transistor(
                        a,
                        b,
                        rng.uniform(0.0, 3.0),
                        10 ** rng.uniform(-4, -2),
                        rng.uniform(0.3, 0.9),
                    )
                )
                if k % 5 == 0:
                    found += [VoltageSource(b, f"below{k}", 0.3), Cubic(f"below{k}", a, 1e-3, 0.5)]
    return Circuit(found, inputs=["in0", "in1"], outputs=[names[-1]])


def ngspice(netlist, nodes, tmp_path):
    """Run ngspice; return the voltages of the nodes."""
    deck = tmp_path / "deck.cir"
    names = " ".join(f"v({node})" for node in nodes)
    control = f".control\nset numdgt=15\nop\nwrdata {tmp_path / 'out'} {names}\n.endc\n.end\n"
    deck.write_text(netlist.replace(".op\n.end\n", control))
    ran = subprocess.run(
        ["ngspice", "-b", deck], capture_output=True, text=True, check=False, timeout=120
    )
    table = tmp_path / "out"
    assert table.exists(), ran.stdout + ran.stderr
    # Every value comes after its abscissa.
    return np.array(table.read_text().split(), dtype=float)[1::2]


@needs_ngspice
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("nodes", "seed"), [(3, 0), (10, 1), (30, 2), (60, 3), (100, 4), (300, 5), (1200, 6)]
)
def test_voltages_agree_with_ngspice(kind, nodes, seed, tmp_path):
    net = random_circuit(kind, nodes, seed)
    x = np.array([0.8, -0.4])
    expected = ngspice(net.to_spice(x), net.nodes, tmp_path)
    at = net.voltages([x])
    found = np.array([at[node][0] for node in net.nodes])
    assert net.settle([x]).converged
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


@needs_ngspice
def test_many_inputs_reach_ngspice(tmp_path):
    rng = np.random.default_rng(0)
    inputs = [f"input{k}" for k in range(600)]
    net = Circuit(
        [Resistor(node, "out", g) for node, g in zip(inputs, rng.uniform(1, 2, 600), strict=True)],
        inputs=inputs,
        outputs=["out"],
    )
    x = rng.normal(size=600)
    assert ngspice(net.to_spice(x), net.nodes, tmp_path)[0] == pytest.approx(
        net.predict([x])[0, 0], rel=1e-9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_kirchhoffs_law(kind):
    net = random_circuit(kind, 200, 8)
    x = np.random.default_rng(0).normal(size=(4, 2))
    flowing = net.currents(x)
    # A node below another by a source is one with it.
    above = {
        e.minus: e.plus for e in net.elements if isinstance(e, VoltageSource) and e.minus != "0"
    }
    left = {node: np.zeros(4) for node in net.nodes}
    for k, element in enumerate(e for e in net.elements if not isinstance(e, VoltageSource)):
        for node, sign in ((element.plus, 1.0), (element.minus, -1.0)):
            if above.get(node, node) in left:
                left[above.get(node, node)] += sign * flowing[:, k]
    assert np.abs(np.array(list(left.values()))).max() < 1e-10 * np.abs(flowing).max()


@pytest.mark.parametrize("kind", KINDS)
def test_netlist_there_and_back(kind):
    net = random_circuit(kind, 20, 3)
    for array in net.params.values():
        array *= 1.3
    x = [0.3, 0.9]
    again = Circuit.from_spice(net.to_spice(x), inputs=["in0", "in1"], outputs=["n19"])
    np.testing.assert_allclose(again.predict([x]), net.predict([x]), rtol=1e-12)
    for name, array in net.params.items():
        np.testing.assert_allclose(again.params[name], array, rtol=1e-15)
    assert (
        again.to_spice(x).split()
        == Circuit.from_spice(again.to_spice(x), inputs=["in0", "in1"], outputs=["n19"])
        .to_spice(x)
        .split()
    )


def test_a_netlist_written_by_hand():
    text = """a divider with a clamp
    Vsup sup 0 DC 5
    R1 in out 1k $ trained
    R2 out
    + 0 2.2K        ; the lower half
    * an ideal diode keeps it above ground
    D1 0 out ideal0
    D2 out sup clamp
    Ib 0 out 1u
    .model ideal0 D(IS=1e-12 N=0.001)
    .model clamp D (IS=2e-14, N=1.05)
    .end
    R9 this is not read
    """
    net = Circuit.from_spice(text, inputs=["in"], outputs=["out"])
    assert net.elements == [
        VoltageSource("sup", "0", 5.0),
        Resistor("in", "out", 1e-3, True),
        Resistor("out", "0", 1 / 2200.0, False),
        IdealDiode("0", "out"),
        Diode("out", "sup", 2e-14, 1.05),
        CurrentSource("0", "out", 1e-6),
    ]
    assert net.params["g"].tolist() == [1e-3]
    assert net.predict([[-3.0]])[0, 0] == 0.0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("Q1 a b c model", "line 2: elements Q are not understood"),
        ("R1 a b", "line 2: 'R1 a b' is no element"),
        ("R1 a b ten", "line 2: 'ten' is not a number"),
        ("D1 a b nowhere", "line 2: there is no .model nowhere"),
        (".model m NPN(BF=3)", "line 2: only models of diodes"),
        ("M1 a g b 0 m\nVg g 0 1\n.model m NMOS(LEVEL=2)", "line 4: transistors must have LEVEL=1"),
        ("M1 a g b 0 m\n.model m NMOS(KP=1)", "line 2: no source holds gate 'g'"),
        (
            "M1 a g b 0 m W=2\nVg g 0 1\n.model m NMOS(KP=1)",
            "line 2: a transistor is M drain gate source bulk model",
        ),
        (".model m D(IS=1 RS=3)", r"line 2: the D model has \['rs'\]; only IS, N"),
        (".subckt x", "line 2: .subckt is not understood"),
        ("B1 a b I=V(a,b)^2", "line 2: a B source must be"),
        ("+ 3", "line 2 continues nothing"),
    ],
)
def test_what_is_not_understood(text, match):
    refuses(
        ConfigError, match, Circuit.from_spice, f"title\n{text}\n", inputs=["in"], outputs=["out"]
    )


def test_names_that_spice_cannot_read():
    for names, match in (
        (("a b", "c"), "no name that SPICE reads"),
        (("n", "N"), "by its case only"),
    ):
        a, b = names
        net = Circuit(
            [Resistor("in", a), Resistor(a, b), Resistor(b, "0")], inputs=["in"], outputs=[b]
        )
        refuses(ConfigError, match, net.to_spice, [1.0])


def test_numbers_survive():
    rng = np.random.default_rng(1)
    net = Circuit(
        [Resistor("in", "out", 1.0), Resistor("out", "0", 1.0)], inputs=["in"], outputs=["out"]
    )
    for _ in range(20):
        net.params["g"][...] = 10 ** rng.uniform(-9, 3, 2)
        resistances = [
            float(word)
            for word in re.findall(r"^R\d+ \S+ \S+ (\S+)", net.to_spice([1.0]), re.MULTILINE)
        ]
        np.testing.assert_allclose(1 / np.array(resistances), net.params["g"], rtol=3e-16)
    assert pnn.systems.Circuit is Circuit
