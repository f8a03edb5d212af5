"""What the elements of a netlist are here: at an operating point, as SPICE has them."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pnncore._netlist._flat import Fields, Flat, Placed, fields
from pnncore._netlist._models import (
    DIODE,
    KELVIN,
    MOS,
    NOMINAL,
    breakdown,
    check_warm,
    parameters,
    saturation,
)
from pnncore._netlist._sources import at_operating_point
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

IDEAL = Diode("plus", "minus", saturation=1e-12, ideality=1e-3)
"""An ideal diode as SPICE can have one: a few millivolts where it conducts."""
_IDEAL_MODEL = {**DIODE.defaults, "is": IDEAL.saturation, "n": IDEAL.ideality}

_CUBIC = re.compile(
    r"i\s*=\s*(?P<g>[^*\s]+)\s*\*\s*v\(\s*(?P<a>[^,\s]+)\s*,\s*(?P<b>[^)\s]+)\s*\)\s*\*\s*"
    r"\(\s*1\s*\+\s*\(\s*v\(\s*(?P<c>[^,\s]+)\s*,\s*(?P<d>[^)\s]+)\s*\)\s*/\s*"
    r"(?P<scale>[^)\s]+)\s*\)\s*(?:\^|\*\*)\s*2\s*\)",
    re.IGNORECASE,
)

# The least saturation current of a junction to the bulk that shows in any voltage.
_LEAST_SATURATION = 1e-40


class Reader:
    """Makes elements of the cards of a flat netlist."""

    def __init__(
        self,
        flat: Flat,
        inputs: Sequence[str],
        fed: Sequence[Sequence[str] | None],
        is_trained: Callable[[Placed], bool],
        ignored: Callable[[str, str], None],
    ) -> None:
        self.flat, self.is_trained, self.ignored = flat, is_trained, ignored
        self.inputs = {self.key(name) for name in inputs}
        self.fed = [None if ends is None else {self.key(node) for node in ends} for ends in fed]
        self.found: list[Element] = []
        self.holding: dict[frozenset[str], Placed] = {}
        self.roots: dict[str, str] = {}
        sources = [one for one in flat.elements if one.card.kind in ("v", "i")]
        self.sources = {one.name: self.source(one) for one in sources}
        self.held = self._held()
        self.gates = Counter(
            self.key(self.node(one, fields(one.card).words[2]))
            for one in flat.elements
            if one.card.kind == "m" and len(fields(one.card).words) > 2
        )
        uses = self._uses()
        self.taken = set(uses)
        # Nothing is at them besides, but the source that holds them.
        self.only_gates = {node for node, count in self.gates.items() if uses[node] == count + 1}

    def read(self) -> list[Element]:
        """Return the elements that all cards are."""
        makers = {
            "r": self.resistor,
            "c": self.idle,
            "l": self.inductor,
            "k": self.idle,
            "v": self.voltage_source,
            "i": self.current_source,
            "d": self.diode,
            "m": self.transistor,
            "b": self.behavioural,
        }
        seen: dict[str, Placed] = {}
        feeding = self._feeding()
        for one in self.flat.elements:
            if one.card.kind not in makers:
                raise one.card.refuse(
                    f"elements {one.card.kind.upper()} are not understood; R, C, L, V, I, D, M, B "
                    "and X are"
                )
            if (before := seen.setdefault(one.name.lower(), one)) is not one:
                raise one.card.refuse(f"{one.name} is there already, {before.card.place}")
            if one not in feeding:
                makers[one.card.kind](one)
        return self.found

    def _feeding(self) -> list[Placed]:
        """Return the current sources that x takes the place of."""
        left_out = []
        for k, ends in enumerate(self.fed):
            found = [
                one
                for one in self.flat.elements
                if one.card.kind == "i"
                and {self.key(node) for node in self.sources[one.name][:2]} == ends
            ]
            named = [one for one in found if one.name.lower() == f"iin{k}"]
            if len(found) > 1 and not named:
                names = ", ".join(one.name for one in found)
                raise found[-1].card.refuse(
                    f"{names} feed one pair of nodes: call the one that input {k} takes the place "
                    f"of Iin{k}"
                )
            for one in named or found:
                if self.trained(one):
                    raise one.card.refuse(f"{one.name} is trained, and input {k} takes its place")
                left_out.append(one)
        return left_out

    @staticmethod
    def key(node: str) -> str:
        """Return what tells nodes apart: case does not, and gnd is node 0."""
        return "0" if node.lower() == "gnd" else node.lower()

    def node(self, one: Placed, name: str) -> str:
        return self.flat.node(one.scope, name)

    def new(self, name: str) -> str:
        """Return the name of a node that the netlist does not have."""
        while self.key(name) in self.taken:
            name += "_"
        self.taken.add(self.key(name))
        return name

    def add(self, one: Placed, make: Callable[..., Element], *settings: Any) -> None:
        """Add an element; both its ends at one node are no element, unless it is a mistake."""
        a, b, *_ = settings
        if self.key(a) != self.key(b):
            self.found.append(make(*settings))
        elif self.trained(one):
            raise one.card.refuse(f"{one.name} is trained, and both its ends are at {a!r}")

    def join(self, one: Placed, a: str, b: str) -> None:
        """Join two nodes by nothing, unless they are joined already."""

        def root(key: str) -> str:
            while self.roots.setdefault(key, key) != key:
                key = self.roots[key]
            return key

        first, second = root(self.key(a)), root(self.key(b))
        if first != second:
            self.roots[second] = first
            self.add(one, VoltageSource, a, b, 0.0)

    def parts(
        self, one: Placed, settings: Sequence[str], idle: Sequence[str] = ()
    ) -> tuple[str, str, Fields]:
        """Return the two nodes of an element, and its fields; refuse settings that are not known.

        Those that are `idle` do not act at an operating point.
        """
        given = fields(one.card)
        if len(given.words) < 3:
            raise one.card.refuse(f"{one.card.text!r} is no element with two nodes")
        for name in given.settings:
            if name in idle:
                self.ignored(f"{name}= of {one.name}", one.card.place)
            elif name not in settings:
                raise one.card.refuse(f"{name}= of {one.name} is not understood")
        return self.node(one, given.words[1]), self.node(one, given.words[2]), given

    def setting(self, one: Placed, given: Fields, name: str, default: float) -> float:
        text = given.settings.get(name)
        return default if text is None else one.scope.value(text, one.card, name)

    def copies(self, one: Placed, given: Fields) -> float:
        m = self.setting(one, given, "m", 1.0)
        if m <= 0:
            raise one.card.refuse(f"m must be positive, got {m:g}")
        return m

    def temperature(self, one: Placed, given: Fields) -> float:
        """Return that of an element, in degrees Celsius."""
        if "temp" in given.settings:
            return self.setting(one, given, "temp", 0.0)
        return self.flat.temperature + self.setting(one, given, "dtemp", 0.0)

    def trained(self, one: Placed, *, can: bool = True) -> bool:
        trained = self.is_trained(one)
        if trained and not can:
            raise one.card.refuse(f"{one.name} has nothing that can be trained")
        return trained

    # Elements.

    def idle(self, one: Placed) -> None:
        """Pass over what lets no current flow at an operating point, or couples what does not."""
        self.trained(one, can=False)
        self.ignored(one.name, one.card.place)

    def inductor(self, one: Placed) -> None:
        """Join the nodes of an inductor: to a direct current it is a wire."""
        idle = ("l", "ic", "m", "scale", "temp", "dtemp", "tc1", "tc2", "nt")
        a, b, _ = self.parts(one, (), idle)
        self.trained(one, can=False)
        self.join(one, a, b)

    def resistor(self, one: Placed) -> None:
        known = ("r", "resistance", "m", "scale", "tc1", "tc2", "tc", "temp", "dtemp")
        a, b, given = self.parts(one, known, ("ac", "noisy", "noise"))
        texts = given.words[3:] + [
            given.settings[name] for name in ("r", "resistance") if name in given.settings
        ]
        if len(texts) != 1:
            raise one.card.refuse(f"{one.name} must have one resistance, got {texts}")
        value = one.scope.value(texts[0], one.card, f"the resistance of {one.name}")
        linear = self.setting(one, given, "tc1", self.setting(one, given, "tc", 0.0))
        square = self.setting(one, given, "tc2", 0.0)
        warmer = self.temperature(one, given) - self.flat.nominal
        value *= 1 + linear * warmer + square * warmer * warmer
        value *= self.setting(one, given, "scale", 1.0) / self.copies(one, given)
        if value < 0:
            raise one.card.refuse(f"{one.name} has the negative resistance {value:g}")
        if not math.isfinite(value):
            raise one.card.refuse(f"{one.name} has the resistance {value:g}")
        if value == 0 or math.isinf(1 / value):
            self.trained(one, can=False)
            self.ignored(
                f"that {one.name} has no resistance: its nodes are joined, where ngspice takes "
                "1 mOhm",
                one.card.place,
            )
            self.join(one, a, b)
        else:
            self.add(one, Resistor, a, b, 1 / value, self.trained(one))

    def source(self, one: Placed) -> tuple[str, str, float]:
        """Return the nodes of a source, and its value at an operating point."""
        a, b, given = self.parts(one, ("dc", "m"))
        return a, b, at_operating_point(one, given, self.ignored)

    def voltage_source(self, one: Placed) -> None:
        a, b, value = self.sources[one.name]
        self.trained(one, can=False)
        # x takes the place of what holds an input; a gate that nothing else is at is held by its
        # transistor.
        ends = {self.key(a), self.key(b)}
        if "0" in ends and ends & (self.inputs | self.only_gates):
            other = self.holding.setdefault(frozenset(ends), one)
            if other is not one:
                raise one.card.refuse(f"{one.name} and {other.name} hold one node")
            return
        if self.key(a) == self.key(b) and value != 0:
            raise one.card.refuse(f"{one.name} holds a node {value:g} V over itself")
        self.add(one, VoltageSource, a, b, value)

    def current_source(self, one: Placed) -> None:
        a, b, value = self.sources[one.name]
        value *= self.copies(one, fields(one.card))
        self.add(one, CurrentSource, a, b, value, self.trained(one))

    def diode(self, one: Placed) -> None:
        known = ("area", "m", "temp", "dtemp")
        a, k, given = self.parts(one, known, ("ic", "pj", "w", "l"))
        self.trained(one, can=False)
        words = [word for word in given.words[3:] if word.lower() != "off"]
        if not words or len(words) > 2 or (len(words) == 2 and "area" in given.settings):
            raise one.card.refuse(f"{one.name} must be D anode cathode model [area]")
        model = parameters(one, words[0], DIODE, self.ignored)
        area = self.setting(one, given, "area", 1.0)
        if len(words) == 2:
            area = one.scope.value(words[1], one.card, "area")
        if area <= 0:
            raise one.card.refuse(f"area must be positive, got {area:g}")
        size = area * self.copies(one, given)
        if words[0].lower().startswith("ideal") and size == 1 and model == _IDEAL_MODEL:
            self.add(one, IdealDiode, a, k)
            return
        if model["level"] != 1:
            raise one.card.refuse(f"LEVEL={model['level']:g} of a diode is not modelled: only 1 is")
        temperature = self.temperature(one, given)
        if temperature != (self.flat.nominal if math.isnan(model["tnom"]) else model["tnom"]):
            check_warm(one, words[0])
        kelvin = temperature + KELVIN
        current, ideality = saturation(one, model, self.flat.nominal, kelvin)
        current *= size
        if model["rs"] < 0:
            raise one.card.refuse(f"RS={model['rs']:g} is negative")
        if model["rs"] > 0:
            inside = self.new(f"{one.name}.anode")
            self.add(one, Resistor, a, inside, size / model["rs"], False)
            a = inside
        self.add(one, Diode, a, k, current, ideality)
        if math.isfinite(model["bv"]) and self.key(a) != self.key(k):
            at, current, ideality = breakdown(model, current, size, kelvin)
            inside = self.new(f"{one.name}.breakdown")
            self.add(one, VoltageSource, k, inside, at)
            self.add(one, Diode, inside, a, current, ideality)

    def transistor(self, one: Placed) -> None:
        drain, gate, given = self.parts(
            one,
            ("w", "l", "m", "temp", "dtemp"),
            ("ad", "as", "pd", "ps", "nrd", "nrs", "ic"),
        )
        words = [word for word in given.words[3:] if word.lower() != "off"]
        if len(words) != 3:
            raise one.card.refuse(f"{one.name} must be M drain gate source bulk model")
        source, bulk = (self.node(one, word) for word in words[:2])
        model = parameters(one, words[2], MOS, self.ignored)
        self.check_channel(one, given, model)
        length = self.setting(one, given, "l", 1e-4) - 2 * model["ld"]
        width = self.setting(one, given, "w", 1e-4)
        if width <= 0 or length <= 0:
            raise one.card.refuse(f"{one.name} has a channel of {width:g} x {length:g} m")
        m = self.copies(one, given)
        trained = self.trained(one)
        voltage = self.gate_voltage(one, gate)
        if trained and self.key(gate) not in self.only_gates:
            raise one.card.refuse(f"gate {gate!r} of {one.name} is trained, and joined to others")
        if trained and self.gates[self.key(gate)] > 1:
            raise one.card.refuse(f"gate {gate!r} is that of several transistors, and trained")
        strength = model["kp"] * m * width / length
        self.add(one, Transistor, drain, source, voltage, strength, model["vto"], trained)
        if model["is"] * m > _LEAST_SATURATION:
            ideality = (self.temperature(one, given) + KELVIN) / NOMINAL
            for end in (drain, source):
                if self.key(end) != self.key(bulk):
                    self.add(one, Diode, bulk, end, model["is"] * m, ideality)

    def check_channel(self, one: Placed, given: Fields, model: Mapping[str, float]) -> None:
        """Refuse what the channel of a transistor here does not have."""
        for name in ("lambda", "gamma", "js", "rd", "rs", "rsh"):
            if model[name] != 0:
                raise one.card.refuse(f"{name.upper()}={model[name]:g} is not modelled: only 0 is")
        if model["level"] != 1:
            raise one.card.refuse(f"LEVEL={model['level']:g} is not modelled: only 1 is")
        tnom = self.flat.nominal if math.isnan(model["tnom"]) else model["tnom"]
        if self.temperature(one, given) != tnom:
            raise one.card.refuse("transistors are modelled at the temperature of TNOM only")

    def gate_voltage(self, one: Placed, gate: str) -> float:
        if self.key(gate) in self.inputs:
            raise one.card.refuse(
                f"gate {gate!r} is an input: gates that change with x are not modelled"
            )
        if self.key(gate) not in self.held:
            raise one.card.refuse(f"no source holds gate {gate!r} against node 0")
        return self.held[self.key(gate)]

    def behavioural(self, one: Placed) -> None:
        """Add a cubic element, as `write` has it."""
        words = one.card.text.split(maxsplit=3)
        law = _CUBIC.fullmatch(words[3]) if len(words) == 4 else None
        if law is None or any(
            (law[p].lower(), law[q].lower()) != (words[1].lower(), words[2].lower())
            for p, q in ("ab", "cd")
        ):
            raise one.card.refuse(
                "a B source must be I=g*V(a,b)*(1+(V(a,b)/scale)^2) of its own nodes"
            )
        a, b = self.node(one, words[1]), self.node(one, words[2])
        g, scale = (one.scope.value(law[name], one.card, name) for name in ("g", "scale"))
        self.add(one, Cubic, a, b, g, scale, self.trained(one))

    # Held nodes.

    def _held(self) -> dict[str, float]:
        """Return the voltages of the nodes that voltage sources hold against node 0."""
        over: dict[str, list[tuple[str, float]]] = {}
        for one in self.flat.elements:
            if one.card.kind == "v":
                *ends, value = self.sources[one.name]
                a, b = map(self.key, ends)
                over.setdefault(b, []).append((a, value))
                over.setdefault(a, []).append((b, -value))
        held, rest = {"0": 0.0}, ["0"]
        while rest:
            node = rest.pop()
            for other, drop in over.get(node, []):
                if other not in held and other not in self.inputs:
                    held[other] = held[node] + drop
                    rest.append(other)
        return held

    def _uses(self) -> Counter[str]:
        """Return how often elements name every node."""
        uses: Counter[str] = Counter()
        for one in self.flat.elements:
            named = fields(one.card).words
            count = 4 if one.card.kind == "m" else 2
            uses.update(self.key(self.node(one, word)) for word in named[1 : 1 + count])
        return uses
