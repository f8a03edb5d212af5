"""Circuits as netlists that ngspice runs."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pnncore._netlist._elements import IDEAL
from pnncore._netlist._models import LEAST_SATURATION
from pnncore.elements import (
    Cubic,
    CurrentSource,
    Diode,
    IdealDiode,
    Resistor,
    Transistor,
    VoltageSource,
    nodes_of,
)
from pnncore.errors import ConfigError

if TYPE_CHECKING:
    from pnncore.systems import Circuit

# What parts the words of a card, quotes or begins a comment, is no part of a name.
_NAME = re.compile(r"(?!.*//)[^\s,;=(){}'\"$*][^\s,;=(){}'\"]*", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z_]\w*|[1-9]\d*", re.ASCII)
OPTIONS = ".options reltol=1e-10 abstol=1e-18 vntol=1e-13 gmin=1e-20 itl1=1000 numdgt=15"
"""What brings ngspice near to rounding errors; without it voltages are good to three digits."""


def write(circuit: "Circuit", x: Sequence[float]) -> str:
    """Return the netlist of a circuit with its inputs held at `x`."""
    return "\n".join([*_Writer(circuit).lines(x), OPTIONS, ".op", ".end", ""])


class _Writer:
    def __init__(self, circuit: "Circuit") -> None:
        self.circuit = circuit
        self.names = _names(circuit)
        self.taken = {name.lower() for name in self.names.values()}
        self.models: dict[tuple[float, float], str] = {}
        self.channels: dict[tuple[float, float], str] = {}
        # Nodes by names that expressions read, too.
        self.plain: dict[str, str] = {}

    def lines(self, x: Sequence[float]) -> Iterator[str]:
        circuit = self.circuit
        # No more than that in the title: ngspice loses count in long lines.
        yield f"* a circuit of {len(circuit.elements)} elements"
        for k, (end, v) in enumerate(zip(circuit.inputs, x, strict=True)):
            a, b = [self.names[node] for node in nodes_of(end)] + ["0"] * isinstance(end, str)
            yield f"{'V' if isinstance(end, str) else 'I'}in{k} {a} {b} DC {float(v)!r}"
        values = iter(circuit.values())
        for k, element in enumerate(circuit.elements):
            if isinstance(element, VoltageSource):
                a, b = self.names[element.plus], self.names[element.minus]
                yield f"V{k} {a} {b} DC {element.voltage!r}"
            else:
                yield from self.element(k, element, float(next(values)))
        for k, (node, alias) in enumerate(self.plain.items()):
            if node != alias:
                yield f"Vplain{k} {node} {alias} DC 0"
        for (saturation, ideality), name in self.models.items():
            yield f".model {name} D(IS={saturation!r} N={ideality!r})"
        for (strength, threshold), name in self.channels.items():
            # No junctions to the bulk, no body effect; a channel is as long as wide where nothing
            # else is said.
            yield (
                f".model {name} NMOS(LEVEL=1 KP={strength!r} VTO={threshold!r} LAMBDA=0 GAMMA=0 "
                "IS=1e-100)"
            )

    def element(self, k: int, element: object, value: float) -> Iterator[str]:
        a, b = self.names[element.plus], self.names[element.minus]  # type: ignore[attr-defined]
        mark = " $ trained" if getattr(element, "trained", False) else ""
        match element:
            case Resistor():
                # What training has brought to zero conductance is not there.
                if value > 0:
                    yield f"R{k} {a} {b} {1 / value!r}{mark}"
            case Cubic():
                a, b = self.expressed(a), self.expressed(b)
                drop = f"V({a},{b})"
                yield f"B{k} {a} {b} I={value!r}*{drop}*(1+({drop}/{element.scale!r})^2){mark}"
            case CurrentSource():
                yield f"I{k} {a} {b} DC {value!r}{mark}"
            case Transistor():
                key = (element.strength, element.threshold)
                model = self.channels.setdefault(key, f"channel{len(self.channels)}")
                gate = self.new(f"gate_of_{k}")
                yield f"M{k} {a} {gate} {b} 0 {model}{mark}"
                yield f"V{k} {gate} 0 DC {value!r}"
            case Diode() | IdealDiode():
                real = element if isinstance(element, Diode) else IDEAL
                if real.saturation < LEAST_SATURATION:
                    raise ConfigError(
                        f"element {k} has a saturation current of {real.saturation:g} A, and SPICE "
                        f"takes none below {LEAST_SATURATION:g} A"
                    )
                kind = "ideal" if isinstance(element, IdealDiode) else "diode"
                key = (real.saturation, real.ideality)
                model = self.models.setdefault(key, f"{kind}{len(self.models)}")
                yield f"D{k} {a} {b} {model}"

    def new(self, name: str) -> str:
        """Return a name that no node has."""
        while name.lower() in self.taken:
            name += "_"
        self.taken.add(name.lower())
        return name

    def expressed(self, node: str) -> str:
        """Return a node's name as expressions read it: that of a node that is joined to it."""
        if node not in self.plain:
            plain = node == "0" or _PLAIN.fullmatch(node)
            self.plain[node] = node if plain else self.new(f"node{len(self.plain)}")
        return self.plain[node]


def _names(circuit: "Circuit") -> dict[str, str]:
    """Return the nodes by the names that SPICE knows them by; `ConfigError` for those it cannot."""
    names = {} if circuit.ground is None else {circuit.ground: "0"}
    nodes = [node for element in circuit.elements for node in (element.plus, element.minus)]
    seen = {"0": circuit.ground}
    for node in dict.fromkeys(nodes):
        if node == circuit.ground:
            continue
        if not (_NAME.fullmatch(node) and node.isascii()) or node.lower() in ("0", "gnd"):
            raise ConfigError(
                f"node {node!r} has no name that SPICE reads: spaces, commas, quotes, brackets, =, "
                "; and // part words, letters are those of ASCII, and 0 and gnd are ground"
            )
        if (other := seen.setdefault(node.lower(), node)) != node:
            raise ConfigError(
                f"node {node!r} differs from {other!r} by its case only, which SPICE does not see"
            )
        names[node] = node
    return names
