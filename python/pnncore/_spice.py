"""Netlists: circuits as SPICE reads them.

The subset is what `pnncore.elements` has: R, V and I with DC values, D with IS and N of its model,
M with KP and VTO of a level 1 NMOS model whose gate a source to ground holds, and for cubic
elements a B source in the one form that `write` gives it. What training may change is marked with
the comment ``$ trained``.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pnncore._convert import instance
from pnncore.elements import (
    Cubic,
    CurrentSource,
    Diode,
    Element,
    IdealDiode,
    Resistor,
    Transistor,
    VoltageSource,
)
from pnncore.errors import ConfigError

if TYPE_CHECKING:
    from pnncore.systems import Circuit

# An ideal diode as SPICE can have one: a few millivolts where it conducts.
_IDEAL = Diode("plus", "minus", saturation=1e-12, ideality=1e-3)
_SCALES = {
    "t": 1e12,
    "g": 1e9,
    "meg": 1e6,
    "k": 1e3,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
    "": 1.0,
}
_NUMBER = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(meg|[tgkmunpf])?[a-z]*", re.IGNORECASE
)
_CUBIC = re.compile(
    r"i\s*=\s*(?P<g>[^*\s]+)\s*\*\s*v\(\s*(?P<a>[^,\s]+)\s*,\s*(?P<b>[^)\s]+)\s*\)\s*\*\s*"
    r"\(\s*1\s*\+\s*\(\s*v\([^)]*\)\s*/\s*(?P<scale>[^)\s]+)\s*\)\s*(?:\^|\*\*)\s*2\s*\)",
    re.IGNORECASE,
)
OPTIONS = ".options reltol=1e-10 abstol=1e-18 vntol=1e-13 gmin=1e-20 itl1=1000 numdgt=15"
"""What brings ngspice near to rounding errors; without it voltages are good to three digits."""


def write(circuit: "Circuit", x: Sequence[float]) -> str:
    """Return the netlist of a circuit with its inputs held at `x`."""
    names = {circuit.ground: "0"}
    nodes = [node for element in circuit.elements for node in (element.plus, element.minus)]
    for node in dict.fromkeys(nodes):
        if node == circuit.ground:
            continue
        if not re.fullmatch(r"[A-Za-z_][\w.]*|[1-9]\d*", node) or node.lower() == "gnd":
            raise ConfigError(
                f"node {node!r} has no name that SPICE reads: use letters, digits and _"
            )
        if node.lower() in (other.lower() for other in names.values()):
            raise ConfigError(
                f"node {node!r} differs from another by its case only, which SPICE does not see"
            )
        names[node] = node
    # No more than that in the title: ngspice loses count in long lines.
    lines = [f"* a circuit of {len(circuit.elements)} elements"]
    lines += [
        f"Vin{k} {names[node]} 0 DC {float(v)!r}"
        for k, (node, v) in enumerate(zip(circuit.inputs, x, strict=True))
    ]
    values = iter(circuit.values())
    models: dict[tuple[float, float], str] = {}
    channels: dict[tuple[float, float], str] = {}
    for k, element in enumerate(circuit.elements):
        value = float("nan") if isinstance(element, VoltageSource) else float(next(values))
        a, b = names[element.plus], names[element.minus]
        mark = " $ trained" if getattr(element, "trained", False) else ""
        match element:
            case Resistor():
                if value <= 0:
                    continue
                lines.append(f"R{k} {a} {b} {1 / value!r}{mark}")
            case Cubic():
                drop = f"V({a},{b})"
                lines.append(
                    f"B{k} {a} {b} I={value!r}*{drop}*(1+({drop}/{element.scale!r})^2){mark}"
                )
            case CurrentSource():
                lines.append(f"I{k} {a} {b} DC {value!r}{mark}")
            case VoltageSource():
                lines.append(f"V{k} {a} {b} DC {element.voltage!r}")
            case Transistor():
                model = channels.setdefault(
                    (element.strength, element.threshold), f"channel{len(channels)}"
                )
                gate = f"gate_of_{k}"
                lines += [f"M{k} {a} {gate} {b} 0 {model}{mark}", f"V{k} {gate} 0 DC {value!r}"]
            case Diode() | IdealDiode():
                real = element if isinstance(element, Diode) else _IDEAL
                kind = "ideal" if isinstance(element, IdealDiode) else "diode"
                model = models.setdefault((real.saturation, real.ideality), f"{kind}{len(models)}")
                lines.append(f"D{k} {a} {b} {model}")
    lines += [
        f".model {name} D(IS={saturation!r} N={ideality!r})"
        for (saturation, ideality), name in models.items()
    ]
    # No junctions to the bulk, no body effect; a channel is as long as wide where nothing else is
    # said.
    lines += [
        f".model {name} NMOS(LEVEL=1 KP={strength!r} VTO={threshold!r} LAMBDA=0 GAMMA=0 IS=1e-100)"
        for (strength, threshold), name in channels.items()
    ]
    return "\n".join([*lines, OPTIONS, ".op", ".end", ""])


def read(text: str, inputs: Sequence[str]) -> list[Element]:
    """Return the elements of a netlist, without the sources that hold the nodes `inputs`."""
    cards = list(_cards(text))
    models = dict(_models(cards))
    gates = {
        card.split()[2]: number
        for number, card, _ in cards
        if card[0].lower() == "m" and len(card.split()) > 5
    }
    held: dict[str, float] = {}
    for number, card, _ in cards:
        words = [word for word in card.split() if word.lower() != "dc"]
        if card[0].lower() == "v" and len(words) > 3 and words[1] in gates and words[2] == "0":
            held[words[1]] = _number(words[3], number)
    if unheld := sorted(set(gates) - set(held)):
        raise ConfigError(
            f"line {gates[unheld[0]]}: no source holds gate {unheld[0]!r} against node 0"
        )
    found: list[Element] = []
    for number, card, trained in cards:
        if card.startswith("."):
            if not card.lower().startswith(
                (".model", ".options", ".option", ".op", ".end", ".print", ".title")
            ):
                raise ConfigError(f"line {number}: {card.split()[0]} is not understood")
            continue
        words = card.replace("=", " = ").split() if card[0].lower() != "b" else card.split()
        if len(words) < 4:
            raise ConfigError(f"line {number}: {card!r} is no element with two nodes and a value")
        a, b = words[1], words[2]
        rest = [word for word in words[3:] if word.lower() != "dc"]
        match card[0].lower():
            case "r":
                found.append(Resistor(a, b, 1 / _number(rest[0], number), trained))
            case "i":
                found.append(CurrentSource(a, b, _number(rest[0], number), trained))
            case "v" if a in held:
                pass
            case "m":
                kind, settings = (
                    models.get(rest[2].lower(), ("", {})) if len(rest) == 3 else ("", {})
                )
                if kind != "nmos":
                    raise ConfigError(
                        f"line {number}: a transistor is M drain gate source bulk model, of an "
                        "NMOS model"
                    )
                found.append(
                    Transistor(a, rest[0], held[b], settings["kp"], settings["vto"], trained)
                )
            case "v":
                if b != "0" and a == "0":
                    a, b, rest[0] = b, a, f"{-_number(rest[0], number)!r}"
                if b != "0" or a not in inputs:
                    found.append(VoltageSource(a, b, _number(rest[0], number)))
            case "d":
                name = rest[0].lower()
                kind, settings = models.get(name, ("", {}))
                if kind != "d":
                    raise ConfigError(f"line {number}: there is no .model {rest[0]} of a diode")
                saturation, ideality = settings["is"], settings["n"]
                ideal = name.startswith("ideal") and ideality == _IDEAL.ideality
                found.append(IdealDiode(a, b) if ideal else Diode(a, b, saturation, ideality))
            case "b":
                law = _CUBIC.fullmatch(" ".join(words[3:]))
                if law is None or (law["a"], law["b"]) != (a, b):
                    raise ConfigError(
                        f"line {number}: a B source must be I=g*V(a,b)*(1+(V(a,b)/scale)^2) of "
                        "its own nodes"
                    )
                found.append(
                    Cubic(a, b, _number(law["g"], number), _number(law["scale"], number), trained)
                )
            case kind:
                raise ConfigError(
                    f"line {number}: elements {kind.upper()} are not understood; R, V, I, D, M "
                    "and B are"
                )
    return found


def _cards(text: str) -> Iterator[tuple[int, str, bool]]:
    """Give number, text and mark of every line that is no comment, continuations joined."""
    joined: list[tuple[int, str, bool]] = []
    lines = instance(text, str, "text", "the text of a netlist").splitlines()
    inside = False
    for number, line in enumerate(lines, 1):
        body, mark, comment = line.partition("$")
        body = body.partition(";")[0].strip()
        if body.lower() == ".control":
            inside = True
        if inside or not body or body.startswith("*"):
            inside = inside and body.lower() != ".endc"
            continue
        # The first line of a netlist is its title.
        if number == 1 and not re.match(r"[rvidbm]\w*\s+\S+\s+\S+\s+\S+", body, re.IGNORECASE):
            continue
        trained = bool(mark) and "trained" in comment
        if body.startswith("+"):
            if not joined:
                raise ConfigError(f"line {number} continues nothing")
            first, before, was = joined.pop()
            joined.append((first, f"{before} {body[1:].strip()}", was or trained))
        else:
            joined.append((number, body, trained))
        if body.lower() == ".end":
            break
    yield from joined


_KNOWN = {
    "d": {"is": 1e-14, "n": 1.0},
    "nmos": {"level": 1.0, "kp": 2e-5, "vto": 0.0, "lambda": 0.0, "gamma": 0.0, "is": 1e-14},
}
"""The kinds of models, and what their settings are where nothing is said."""


def _models(
    cards: list[tuple[int, str, bool]],
) -> Iterator[tuple[str, tuple[str, dict[str, float]]]]:
    for number, card, _ in cards:
        if not card.lower().startswith(".model"):
            continue
        words = re.sub(r"[()=,]", " ", card).split()
        kind = words[2].lower() if len(words) > 2 else ""
        if kind not in _KNOWN:
            raise ConfigError(
                f"line {number}: only models of diodes (D) and of NMOS transistors are understood"
            )
        settings = {
            name.lower(): _number(value, number)
            for name, value in zip(words[3::2], words[4::2], strict=False)
        }
        if unknown := sorted(set(settings) - set(_KNOWN[kind])):
            known = ", ".join(_KNOWN[kind]).upper()
            raise ConfigError(
                f"line {number}: the {words[2]} model has {unknown}; only {known} are understood"
            )
        settings = _KNOWN[kind] | settings
        if kind == "nmos" and (settings["level"], settings["lambda"], settings["gamma"]) != (
            1.0,
            0.0,
            0.0,
        ):
            raise ConfigError(f"line {number}: transistors must have LEVEL=1, LAMBDA=0 and GAMMA=0")
        yield words[1].lower(), (kind, settings)


def _number(text: str, line: int) -> float:
    found = _NUMBER.fullmatch(text.strip("{}"))
    if found is None:
        raise ConfigError(f"line {line}: {text!r} is not a number")
    return float(found[1]) * _SCALES[(found[2] or "").lower()]
