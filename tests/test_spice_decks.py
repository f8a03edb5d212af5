"""Decks that ngspice reads: expressions, hierarchy that is easily misread, and random ones."""

import itertools

import numpy as np
import pytest
from pnncore._netlist._write import OPTIONS
from pnncore.errors import NetlistWarning
from pnncore.systems import Circuit
from spice import needs_ngspice, ngspice, read

EXPRESSIONS = (
    "2+3*4 2^3 -2^2 (-2)^2+1 2^3^2 2**-1 7/2 7%4 7\\4 (-3)^3 pwr(-2,3) 1<2==1 -3 3-2^2 "
    "sqrt(2) log(10) ln(10) log10(100) "
    "exp(1) abs(-3) min(2,3) max(2,3) pow(2,3) pwr(2,3) int(2.7) floor(2.7) ceil(2.2) sgn(3) "
    "atan(1) arctan(1) sin(1) cos(1) tanh(1) cosh(1) asin(.5) sqr(3) 1k+1 1meg/1k 5>3 1?2:3 "
    "0?2:3 ternary_fcn(1,2,3) 2*-3+10 1e3k 1f*1e15 2<=2 1==2||2&&3 !0+1 (1+2)*3 .5 5. "
)


@needs_ngspice
@pytest.mark.parametrize("expression", EXPRESSIONS.split())
def test_expressions_are_those_of_ngspice(expression, tmp_path):
    deck = f"title\n.param p={{{expression}}}\nR1 in out {{p+20}}\nR2 out 0 1k\n"
    found = read(deck).predict([[1.0]])[0, 0]
    expected = ngspice(f"{deck}Vin in 0 1\n{OPTIONS}\n.op\n.end\n", ["out"], tmp_path)
    assert found == pytest.approx(expected[0], rel=1e-9)


# Scopes, cases and names, in ways that other readers get wrong.
DECKS = {
    "models are those of the definition": """t
    .subckt clamp a
    D1 a 0 m
    .ends
    .subckt outer a
    .model m D(IS=1n)
    X1 a clamp
    .ends
    .model m D(IS=1f)
    R1 in out 1k
    X1 out outer""",
    "an instance has its own values": """t
    .subckt half (a, b) params: r=1k
    .param s={r*2} r={r}
    R1 a b {s}
    .ends
    .param r=3k
    X1 in out half r={r} m=1
    R2 out 0 1k""",
    "a default takes the value around": """t
    .param r=3k
    .subckt half a b r={r}
    R1 a b {r}
    .ends
    X1 in out half
    R2 out 0 1k""",
    "the last card of a parameter": """t
    .param r=3k
    R1 in out {r}
    .param r=2k
    R2 out 0 1k""",
    "parameters are dynamic": """t
    .subckt inner a b
    R1 a b {r}
    .ends
    .subckt outer a b r=5k
    X1 a b inner
    .ends
    .param r=1k
    X1 in out outer
    R2 out 0 1k""",
    "a global node inside": """t
    .subckt pull a
    .global VDD
    R1 a vdd 1k
    .ends
    V1 Vdd 0 2
    X1 out pull
    R2 out in 1k""",
    "gates in another case": """t
    M1 out Gate 0 0 ch
    Vg 0 gATE -2
    R1 in out 1k
    .model ch NMOS(KP=1m VTO=.7)""",
    "two gates in two cases": """t
    M1 out Gate x 0 ch
    M2 x GATE 0 0 ch L=2u W=4u
    Vg gATE 0 2
    R1 in out 1k
    .model ch NMOS(KP=1m VTO=.7 TOX=1n)""",
    "a junction in the warm": """t
    .options tnom=70
    .temp 70
    M1 out g 0 low ch
    Vg g 0 0
    Vlow low 0 0.5
    R1 low out 1k
    R2 out in 10k
    .model ch NMOS(KP=1m VTO=.7 IS=1p)""",
    "a breakdown": """t
    R1 in out 10
    D1 0 out z
    .model z D(IS=1n BV=.8 IBV=10m NBV=2)""",
    "a breakdown from a small current": """t
    R1 in out 10
    D1 0 out z
    .model z D(IS=1u BV=.3 IBV=1p)""",
    "two temperatures": """t
    .temp 60
    .options temp=10
    R1 in out 1k tc1=1m
    R2 out 0 1k""",
    "names inside are new": """t
    R1 in D1.anode 1k
    D1 d1.anode out m
    R2 out 0 1k
    .model m D(RS=1k)""",
    "a wave begins before its delay": """t
    I1 0 out PULSE(1m 2m 1 1n 1n 1 2)
    I2 0 out SIN(1m 2m 1k 0 0 30)
    I3 0 out PWL(1 2m 2 3m)
    I4 0 out DC 1m SFFM(1 2 3 4)
    R1 in out 1k
    R2 out 0 1k""",
    "a tab behind .param": """t
    .param\tr=2k
    R1 in out {r}
    R2 out 0 1k""",
}


@needs_ngspice
@pytest.mark.filterwarnings("ignore::pnncore.errors.NetlistWarning")
@pytest.mark.parametrize("deck", DECKS)
def test_decks_that_are_easily_misread(deck, tmp_path):
    text = DECKS[deck]
    found = read(text + "\n", []).predict([[1.5]])[0, 0]
    more = f"\n.save all\nVin in 0 1.5\n{OPTIONS}\n.op\n.end\n"
    assert found == pytest.approx(ngspice(text + more, ["out"], tmp_path)[0], rel=2e-5)


def random_deck(seed):
    """A deck with what people write: every kind of card, in the ways that SPICE has for them."""
    rng = np.random.default_rng(seed)
    nodes = [f"n{k}" for k in range(8)]

    def node():
        return str(rng.choice([*nodes, "0", "GND", "N3", "sup"]))

    def resistance():
        value = float(10 ** rng.uniform(2, 4))
        return str(
            rng.choice(
                [
                    f"{value:.6g}",
                    f"{value / 1e3:.6g}k",
                    f"r={value:.6g}",
                    f"{{{value / 2:.6g}*two}}",
                    f"'{value:.6g}+half*0'",
                    f"{value:.6g} m=2",
                    f"{value:.6g} scale=.5",
                    f"{value:.6g} tc1=1e-3 tc2=2e-5",
                    f"{value:.6g} tc1=1e-3 dtemp=7",
                    f"{value:.6g} tc1=1e-3 temp=50",
                    f"{value:.6g} AC=3",
                ]
            )
        )

    lines = ["Vsup sup 0 DC 2 AC 1", "Vlow low gnd dc=-1.5", ".param half={two/4} two=2"]
    lines += [f"Rchain{k} {a} {b} {resistance()}" for k, (a, b) in enumerate(pairs(nodes))]
    lines += ["Rground n7 0 1k", "Rsup n0 sup 2.2K", "Rlow n4 low 470 ; to minus", "Rq n5 q 1k"]
    for k in range(6):
        a, b = node(), node()
        kind = rng.integers(8)
        match kind:
            case 0:
                lines.append(f"r_{k} {a} {b} {resistance()}")
            case 1:
                lines.append(f"I{k} {a} {b} {rng.normal() * 1e-3:.6g} m=2")
            case 2:
                lines.append(f"D{k} {a} {b} plain area=2 m=3")
            case 3:
                lines.append(f"D{k} {a} {b} Vendor")
            case 4:
                lines.append(f"Dbreak{k} {a} {b} zener temp=60")
            case 5:
                lines += [f"M{k} {a} gate {b} 0 ch W={rng.uniform(5, 50):.4g}u L=2u"]
            case 6:
                lines.append(f"X{k} {a} {b} Pad r={rng.uniform(100, 1000):.5g}")
            case 7:
                lines += [f"L{k} {a} tap{k} 1u", f"Rtap{k} tap{k} {b} 330", f"C{k} {a} {b} 1n"]
    lines += [
        "Vgate gate 0 1.8",
        "Rgate gate 0 1meg",
        "Iq q 0 SIN(1m 2 1k)",
        ".subckt pad a b r=100",
        ".model plain D(IS=1e-10 N=1.2)",
        "R1 a c {r}",
        "D1 c b plain",
        "R2 c 0 {r*10}",
        ".ends pad",
        ".model Plain D IS=1e-13",
        ".model vendor D(IS=2.52n RS=.568 N=1.752 CJO=4p M=.4 TT=20n BV=100 IBV=.1u)",
        ".model zener D(IS=1e-12 RS=5 BV=1.1 IBV=1m N=1.1 EG=.9 XTI=2)",
        "+ VJ=.7",
        ".model ch NMOS(LEVEL=1 KP=50u VTO=.7 TOX=0 CGSO=1p)",
        ".model nobody PNP(BF=100)",
        ".tran 1n 1u",
        str(rng.choice(["", ".temp 40", ".options temp=10 tnom=25"])) if kind_free(lines) else "",
    ]
    return "\n".join(["a deck", *lines])


def pairs(nodes):
    return list(itertools.pairwise(nodes))


def kind_free(lines):
    """Transistors are modelled at their own temperature alone."""
    return not any(line.startswith("M") for line in lines)


@needs_ngspice
@pytest.mark.parametrize("seed", range(60))
def test_random_decks_have_the_operating_point_of_ngspice(seed, tmp_path):
    deck = random_deck(seed)
    nodes = [f"n{k}" for k in range(8)]
    expected = ngspice(f"{deck}\n{OPTIONS}\n.op\n.end\n", nodes, tmp_path)
    with pytest.warns(NetlistWarning):
        net = Circuit.from_spice(
            f"{deck}\nRidle idle 0 1\n", inputs=["idle"], outputs=["q"], trained=[]
        )
    at = net.voltages([[0.0]])
    found = np.array([at[node][0] for node in nodes])
    assert net.settle([[0.0]]).converged
    # Constants of nature of 2014, behind exponents of some 40, are those of ngspice.
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
