"""Circuits against ngspice, and netlists there and back."""

import itertools
import re
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
from pnncore.errors import CapabilityError, ConfigError, NetlistWarning
from pnncore.systems import Circuit
from spice import needs_ngspice, ngspice, read

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
        ground=None,
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
    left = {node: np.zeros(4) for node in net.voltages(x)}
    for k, element in enumerate(net.elements):
        left[element.plus] += flowing[:, k]
        left[element.minus] -= flowing[:, k]
    # Nothing is left anywhere but at what is held from outside.
    supplied = np.stack([left.pop(node) for node in net.inputs], axis=1)
    np.testing.assert_allclose(net.input_currents(x), supplied, rtol=1e-12)
    ground = left.pop("0")
    size = np.abs(flowing).max()
    assert np.abs(np.array(list(left.values()))).max() < 1e-10 * size
    np.testing.assert_allclose(supplied.sum(axis=1), -ground, atol=1e-9 * size)


@needs_ngspice
@pytest.mark.parametrize("kind", KINDS)
def test_currents_of_sources_are_those_of_ngspice(kind, tmp_path):
    net = random_circuit(kind, 30, 2)
    x = [0.8, -0.4]
    sources = [k for k, e in enumerate(net.elements) if isinstance(e, VoltageSource)]
    names = [f"V{k}#branch" for k in sources] + ["Vin0#branch", "Vin1#branch"]
    deck = net.to_spice(x).replace(".op\n.end\n", "")
    table = tmp_path / "out"
    (tmp_path / "deck.cir").write_text(
        f"{deck}.control\nset numdgt=15\nop\nwrdata {table} {' '.join(names)}\n.endc\n.end\n"
    )
    subprocess.run(["ngspice", "-b", tmp_path / "deck.cir"], capture_output=True, check=False)
    expected = np.array(table.read_text().split(), dtype=float)[1::2]
    found = [*net.currents([x])[0][sources], *-net.input_currents([x])[0]]
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


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
        ("R1 a b", "line 2: R1 must have one resistance"),
        ("R1 a b 1k 5", "line 2: R1 must have one resistance"),
        ("R1 a b ten", "line 2: the resistance of R1: parameter 'ten' is not defined"),
        ("R1 a b 4k7", "line 2: the resistance of R1: '4k7' is not a number"),
        ("R1 a b -1k", "line 2: R1 has the negative resistance"),
        ("R1 a b 1k foo=3", "line 2: foo= of R1 is not understood"),
        ("R1 a b {1k*}", "line 2: the resistance of R1: '1k\\*': a value is missing"),
        ("R1 a b {2mil}", "is not told from milli"),
        ("R1 a b {x}\n.param x={y} y={x}", "is defined by itself"),
        ("R1 a b 1k\nr1 b 0 1k", "line 3: r1 is there already, line 2"),
        ("D1 a b nowhere", "line 2: there is no .model nowhere"),
        ("D1 a b m\n.model m NPN(BF=3)", "line 2: model m is of kind NPN, not of a diode"),
        ("D1 a b m\n.model m D(IS=1e-14 IKF=3)", "line 3: IKF of model m is not modelled: it may"),
        ("D1 a b m\n.model m D(IS=0)", "line 2: IS, N and the temperature"),
        ("D1 a b m\n.model m D(IS=1e-30)", "line 2: D1 has a saturation current of"),
        ("D1 a b m temp=-265\n.model m D", "line 2: D1 has a saturation current of"),
        ("D1 a b m\n.model m D(TNOM=-300)", "line 2: IS, N and the temperature"),
        ("D1 a b m\n.model m D(RS=-1)", "line 2: RS=-1 is negative"),
        ("D1 a b m\n.model m D\n.model M D", "line 4: model m is there already, line 3"),
        ("M1 a g b 0 m\nVg g 0 1\n.model m NMOS(KP=1 VTH=1)", "line 4: VTH of model m is not"),
        ("M1 a g b 0 m\nVg g 0 1\n.model m NMOS(TOX=1n)", "line 4: TOX of model m is not"),
        ("R1 a b 1k tc1=1e300 tc2=1e308 temp=1e9", "line 2: R1 has the resistance"),
        ("R1 a b {--3}", "two signs in a row"),
        ("R1 a b {2*-3^2}", "put brackets around a sign and its power"),
        ("R1 a b {-7\\2}", "whole quotients of negative numbers"),
        ("R1 a b " + "{" + "(" * 99 + "1" + ")" * 99 + "}", "nested too deeply"),
        (".param temper=3", "line 2: temper is the temperature"),
        (".param x = 1 + 2", "line 2: put {} around the expression '1 \\+ 2'"),
        (".param x=1 x=2", "line 2: x= is given twice"),
        (".param", "line 2: '' is no list of name=value"),
        ("X1 a b half m=2\n.subckt half a b\nR1 a b 1\n.ends", "line 2: m= copies"),
        ("X1 a b h $ trained\n.subckt h a b\nR1 a b 1\n.ends", "line 2: only elements are tra"),
        (".subckt h a\n.ends\n.subckt H a\n.ends", "line 4: subcircuit H is there already, li"),
        (".model m D(IS=1e-14) $ trained", "line 2: only elements are trained"),
        (".temp {x}", "line 2: .temp: '{x}' is not a number"),
        (".end\nR1 a b 1k", "line 3: there is a card after .end"),
        ("V1 a 0 3 dc=2", "line 2: V1 has two values"),
        ("V1 a 0 DC 3 DC 3", "line 2: V1 has two values"),
        ("V1 a 0 ac=2", "line 2: ac= of V1 is not understood"),
        ("V1 a 0 PULSE(0 1 -1n)", "what PULSE of V1 begins with is not understood: give DC"),
        ("V1 a 0 PWL(-1 0 1 1)", "what PWL of V1 begins with is not understood: give DC"),
        ("V1 a 0 PWL(0 0 1)", "what PWL of V1 begins with is not understood: give DC"),
        ("V1 a 0 SFFM(1 2 3 4)", "what SFFM of V1 begins with is not understood: give DC"),
        ("M1 a g b 0 m\nVg g 0 1\n.model m NMOS(LEVEL=2)", "line 2: LEVEL=2 is not modelled"),
        ("M1 a g b 0 m\nVg g 0 1\n.model m NMOS(LAMBDA=.1)", "line 2: LAMBDA=0.1 is not modelled"),
        ("M1 a g b 0 m\n.model m NMOS(KP=1)", "line 2: no source holds gate 'g'"),
        ("M1 a in b 0 m\n.model m NMOS(KP=1)", "line 2: gate 'in' is an input"),
        ("M1 a g b 0 m\nVg g 0 1\n.model m PMOS(KP=1)", "line 2: model m is of kind PMOS"),
        ("M1 a g b 0 m $ trained\nVg g 0 1\nR2 g b 1\n.model m NMOS", "joined to others"),
        ("C1 a b 1n $ trained", "line 2: C1 has nothing that can be trained"),
        ("X1 a b half", "line 2: there is no .subckt half"),
        (
            "X1 a half\n.subckt half a b\nR1 a b 1\n.ends",
            "line 2: subcircuit half has 2 nodes, got 1",
        ),
        (".subckt half a b\nR1 a b 1", "line 2: subcircuit half has no .ends"),
        ("X1 a x\n.subckt x a\nX2 a x\n.ends", "subcircuits hold each other"),
        ("X1 a x r=2\n.subckt x a\nR1 a 0 1\n.ends", "has no parameters"),
        (".if (1)", "line 2: .if is not understood"),
        (".func f(x) {x}", "line 2: .func is not understood"),
        (".options rshunt=1e6", "line 2: option rshunt is not understood"),
        (".options gmin=1e-11", "line 2: gmin=1e-11 S across every junction"),
        (".include nowhere.lib", "line 2: nowhere.lib cannot be read"),
        (".control\nop", "line 2: .control without .endc"),
        ("B1 a b I=V(a,b)^2", "line 2: a B source must be"),
        ("B1 a b I=1*V(a,b)*(1+(V(b,a)/2)^2)", "line 2: a B source must be"),
        ("V1 a a 3", "line 2: V1 holds a node 3 V over itself"),
        ("V1 a 0 1 2", "line 2: '2' is not understood"),
        ("+ 3", "line 2 continues nothing"),
    ],
)
def test_what_is_not_understood(text, match):
    deck = f"title\n{text}\nRx in out 1\nRy out 0 1\n"
    refuses(ConfigError, match, Circuit.from_spice, deck, inputs=["in"], outputs=["out"])


DIVIDER = "title\nR1 in out 1k\nR2 out 0 1k\n"


@pytest.mark.parametrize(
    "card",
    [
        ".tran 1n 1u",
        ".ac dec 10 1 1k",
        ".dc V1 0 1 .1",
        ".save all",
        ".probe v(out)",
        ".ic v(out)=1",
        ".print op v(out)",
        ".control\nop\nprint all\n.endc",
        "C1 out 0 1n",
        "Vx out free PULSE(0 1 0 1n) AC 1\nRx free 0 1g",
    ],
)
def test_what_does_not_act_is_named_and_passed_over(card):
    word = card.split()[0]
    with pytest.warns(NetlistWarning, match=r"line 4") as caught:
        net = read(DIVIDER + card + "\n")
    assert word.lower() in str(caught[0].message).lower() or "Vx" in str(caught[0].message)
    assert caught[0].filename == read.__code__.co_filename
    assert net.predict([[1.0]])[0, 0] == pytest.approx(0.5, rel=1e-6)


def test_titles_cases_and_marks():
    with pytest.warns(NetlistWarning, match="the title 'R1 in out 1k'"):
        net = read("R1 in out 1k\nR2 IN Out 2k $ untrained\nR3 OUT GND 1k $ trained\n")
    assert net.elements == [
        Resistor("in", "out", 1 / 2000.0, False),
        Resistor("out", "0", 1e-3, True),
    ]
    assert net.params["g"].tolist() == [1e-3]
    for trained, count in ((["r2"], 1), (["R2", "R3"], 2), ([], 0)):
        net = read("t\nR2 in out 2k\nR3 out 0 1k $ trained\n", trained)
        assert sum(array.size for array in net.params.values()) == count
    refuses(ConfigError, "no elements of the netlist", read, DIVIDER, ["R9"])
    with pytest.raises(CapabilityError, match="has no parameters to train"):
        pnn.methods.EquilibriumPropagation().gradient(net, [[1.0]], [[0.5]])


def test_subcircuits_have_names_that_can_be_trained():
    deck = """two halves
    .subckt half a b r=1k
    .param double={2*r}
    R1 a mid {r}
    R2 mid b 'double'
    .ends half
    X1 in out half
    X2 out gnd half r=3k
    """
    net = read(deck, ["X2.R2"])
    assert [(e.plus, e.minus) for e in net.elements] == [
        ("in", "X1.mid"),
        ("X1.mid", "out"),
        ("out", "X2.mid"),
        ("X2.mid", "0"),
    ]
    assert net.params["g"].tolist() == [1 / 6000.0]
    assert net.predict([[1.0]])[0, 0] == pytest.approx(0.75)
    again = read(net.to_spice([1.0]))
    assert again.elements == net.elements


def test_files_are_included(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "values.inc").write_text(".param r=2k\n.lib 'corners.lib' slow\n")
    (tmp_path / "parts" / "corners.lib").write_text(
        ".lib fast\n.param s=1\n.endl\n.lib slow\n.param s=3\n.endl slow\n"
    )
    path = tmp_path / "deck.cir"
    path.write_text('title\n.include "parts/values.inc"\nR1 in out {r}\nR2 out 0 {s*r}\n')
    assert read(path).predict([[1.0]])[0, 0] == pytest.approx(0.75)
    path.write_text("title\n.include deck.cir\n")
    refuses(ConfigError, "files include each other", read, path)
    path.write_text("title\n.include parts/corners.lib\n")
    refuses(ConfigError, "corners.lib, line 1", read, path)
    refuses(ConfigError, "for a file pass a pathlib.Path", read, str(path))
    refuses(ConfigError, "for a file pass a pathlib.Path", read, "my deck.cir")
    (tmp_path / "values.inc").write_text(".param r=9k\n")
    path.write_text("title\n.include parts/nested.inc\n")
    (tmp_path / "parts" / "nested.inc").write_text(".include values.inc\n")
    refuses(ConfigError, "there are two files of this name", read, path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nowhere.cir")


SCALES = {"t": 1e12, "G": 1e9, "meg": 1e6, "MEGohm": 1e6, "K": 1e3, "kOhm": 1e3, "m": 1e-3}
SCALES |= {"M": 1e-3, "u": 1e-6, "µ": 1e-6, "μF": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
SCALES |= {"mil": 25.4e-6, "V": 1.0, "e3": 1e3, "E-3k": 1.0, "": 1.0}


@pytest.mark.parametrize("scale", SCALES)
def test_scales(scale):
    net = read(f"title\nR1 in out 2.5{scale}\nR2 out 0 1\n")
    assert net.elements[0].conductance == pytest.approx(1 / (2.5 * SCALES[scale]), rel=1e-12)


def test_trained_transistors_may_stand_on_ground():
    deck = "t\nM1 out g 0 0 ch $ trained\nVg g 0 2\nR1 in out 1k\n.model ch NMOS(KP=1m VTO=.7)\n"
    net = read(deck)
    assert [type(e) for e in net.elements] == [Transistor, Diode, Resistor]
    assert net.params["gate"].tolist() == [2.0]


def test_nodes_of_the_call():
    for inputs, outputs, match in (
        (["in", "IN"], ["out"], "inputs name one node twice"),
        (["GND"], ["out"], "inputs name 'GND', which is ground"),
        (["in"], ["0"], "outputs name '0', which is ground"),
    ):
        refuses(ConfigError, match, Circuit.from_spice, DIVIDER, inputs=inputs, outputs=outputs)


def test_ideal_diodes_are_those_that_are_written():
    for model, kind in (
        ("IS=1e-12 N=0.001", IdealDiode),
        ("IS=2e-12 N=0.001", Diode),
    ):
        deck = f"t\n.temp 50\nR1 in out 1k\nD1 out 0 ideal0\n.model ideal0 D({model})\n"
        if kind is IdealDiode:
            assert read(deck, []).elements[1] == IdealDiode("out", "0")
        else:
            refuses(ConfigError, "saturation current", read, deck, [])


def test_parameters_that_lie_deep():
    chain = "".join(f".param a{k}={{a{k + 1}}}\n" for k in range(3000))
    deck = f"t\n{chain}.param a3000=1k\nR1 in out {{a0}}\nR2 out 0 1k\n"
    refuses(ConfigError, "lie too deep within each other", read, deck)


def test_names_that_spice_cannot_read():
    for names, match in (
        (("a b", "c"), "no name that SPICE reads"),
        (("a=b", "c"), "no name that SPICE reads"),
        (("n", "N"), "by its case only"),
        (("µ", "c"), "no name that SPICE reads"),
        (("a//b", "c"), "no name that SPICE reads"),
    ):
        a, b = names
        net = Circuit(
            [Resistor("in", a), Resistor(a, b), Resistor(b, "0")], inputs=["in"], outputs=[b]
        )
        refuses(ConfigError, match, net.to_spice, [1.0])


@needs_ngspice
def test_names_that_spice_reads_come_back(tmp_path):
    names = ["12v", "a-b", "a/b", "net<3>", "net[3]", "a#b", "+5v", "/sheet/n", "x.y", "gate_of_9"]
    found = [Resistor("in", names[0], 1e-3)]
    for a, b in itertools.pairwise(names):
        found += [Resistor(a, b, 1e-3), Cubic(a, b, 1e-3, 0.5)]
    found += [Transistor(names[-1], "0", 2.0, 1e-3, 0.5), Resistor(names[-1], "0", 1e-3)]
    net = Circuit(found, inputs=["in"], outputs=[names[-1]])
    text = net.to_spice([1.5])
    assert ngspice(text, ["x.y"], tmp_path)[0] == pytest.approx(
        net.voltages([[1.5]])["x.y"][0], rel=1e-6
    )
    again = Circuit.from_spice(text, inputs=["in"], outputs=[names[-1]])
    np.testing.assert_allclose(again.predict([[1.5]]), net.predict([[1.5]]), rtol=1e-9)


def test_flows_from_netlists():
    net = pnn.systems.Flow.from_spice(DIVIDER, inputs=["in"], outputs=["out"])
    assert net.params["g"].tolist() == [1e-3, 1e-3]
    assert net.predict([[1.0]])[0, 0] == pytest.approx(0.5)
    deck = DIVIDER + "I1 out 0 1m\n"
    refuses(
        ConfigError,
        "pipes are resistors",
        pnn.systems.Flow.from_spice,
        deck,
        inputs=["in"],
        outputs=["out"],
    )


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
