"""What the elements of a netlist are here: at an operating point, as SPICE has them."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pnncore._netlist._cards import Card
from pnncore._netlist._flat import Fields, Flat, Model, Placed, Scope, fields, words
from pnncore.elements import (
    THERMAL_VOLTAGE,
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

_KELVIN = 273.15
# k T / q is that of 27 degrees.
_NOMINAL = 300.15

_CUBIC = re.compile(
    r"i\s*=\s*(?P<g>[^*\s]+)\s*\*\s*v\(\s*(?P<a>[^,\s]+)\s*,\s*(?P<b>[^)\s]+)\s*\)\s*\*\s*"
    r"\(\s*1\s*\+\s*\(\s*v\(\s*(?P<c>[^,\s]+)\s*,\s*(?P<d>[^)\s]+)\s*\)\s*/\s*"
    r"(?P<scale>[^)\s]+)\s*\)\s*(?:\^|\*\*)\s*2\s*\)",
    re.IGNORECASE,
)

# What models have that does not act at an operating point: capacitances, transit times, noise.
_DIODE_IDLE = words(
    "cj0 cjo cj cjp cjsw cta ctp ctc fc fcs m mj mjsw vj pb vjsw php tt kf af tlevc jmax imax vpk "
    "mfg type icrating iave ave_current bv_max id_max fv_max pd_max te_max rth0 cth0 nr iss"
)
# What acts only where the temperature is not that at which the model was measured.
_DIODE_WARM = words("trs trs1 trs2 tcv tbv1 tbv2 tm1 tm2 ttt1 ttt2 tikf tlev")
_DIODE = {
    "level": 1.0,
    "is": 1e-14,
    "n": 1.0,
    "rs": 0.0,
    "bv": math.inf,
    "ibv": 1e-3,
    "nbv": math.nan,
    "eg": 1.11,
    "xti": 3.0,
    "tnom": math.nan,
}
_DIODE_NAMES = {"js": "is", "vb": "bv", "ib": "ibv", "pt": "xti", "tref": "tnom"}

_MOS_IDLE = words(
    "cgso cgdo cgbo cbd cbs cj cjsw mj mjsw pb fc kf af tpg nss uexp utra ucrit vmax xj xqc neff "
    "delta phi mfg vds ron qg"
)
_MOS = {
    "level": 1.0,
    "kp": 2e-5,
    "vto": 0.0,
    "lambda": 0.0,
    "gamma": 0.0,
    "is": 1e-14,
    "js": 0.0,
    "rd": 0.0,
    "rs": 0.0,
    "rsh": 0.0,
    "ld": 0.0,
    "tnom": math.nan,
}
_MOS_NAMES = {"vt0": "vto", "vth": "vto", "vth0": "vto"}
# The least saturation current of a junction to the bulk that shows in any voltage.
_LEAST_SATURATION = 1e-40


class Reader:
    """Makes elements of the cards of a flat netlist."""

    def __init__(
        self,
        flat: Flat,
        inputs: Sequence[str],
        is_trained: Callable[[Placed], bool],
        ignored: Callable[[str, str], None],
    ) -> None:
        self.flat, self.is_trained, self.ignored = flat, is_trained, ignored
        self.inputs = {self.key(name) for name in inputs}
        self.found: list[Element] = []
        self.roots: dict[str, str] = {}
        sources = [one for one in flat.elements if one.card.kind in ("v", "i")]
        self.sources = {one.name: self.source(one) for one in sources}
        self.held = self._held()
        self.gates = Counter(
            self.node(one, fields(one.card).words[2])
            for one in flat.elements
            if one.card.kind == "m" and len(fields(one.card).words) > 2
        )
        self.only_gates = self._only_gates()

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
        for one in self.flat.elements:
            if one.card.kind not in makers:
                raise one.card.refuse(
                    f"elements {one.card.kind.upper()} are not understood; R, C, L, V, I, D, M, B "
                    "and X are"
                )
            if (before := seen.setdefault(one.name.lower(), one)) is not one:
                raise one.card.refuse(f"{one.name} is there already, {before.card.place}")
            makers[one.card.kind](one)
        return self.found

    @staticmethod
    def key(node: str) -> str:
        """Return what tells nodes apart: case does not, and gnd is node 0."""
        return "0" if node.lower() == "gnd" else node.lower()

    def node(self, one: Placed, name: str) -> str:
        return self.flat.node(one.scope, name)

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
        value *= 1 + linear * warmer + square * warmer**2
        value *= self.setting(one, given, "scale", 1.0) / self.copies(one, given)
        if value < 0:
            raise one.card.refuse(f"{one.name} has the negative resistance {value:g}")
        if value == 0 or math.isinf(1 / value):
            self.trained(one, can=False)
            self.ignored(f"that {one.name} has no resistance: its nodes are joined", one.card.place)
            self.join(one, a, b)
        else:
            self.add(one, Resistor, a, b, 1 / value, self.trained(one))

    def source(self, one: Placed) -> tuple[str, str, float]:
        """Return the nodes of a source, and its value at an operating point."""
        a, b, given = self.parts(one, ("dc", "m"), ("ac", "noise", "distof1", "distof2"))
        words = [word.lower() for word in given.words[3:]]
        value, begins = self.setting(one, given, "dc", math.nan), 0.0
        k = 0
        while k < len(words):
            word = words[k]
            if word == "dc":
                if k + 1 == len(words):
                    raise one.card.refuse("DC has no value")
                k, value = k + 2, one.scope.value(words[k + 1], one.card, "DC")
            elif word in _BESIDE:
                self.ignored(f"{word.upper()} of {one.name}", one.card.place)
                k += 1
                while k < len(words) and words[k] not in ("dc", *_WAVES):
                    k += 1
            elif word in _WAVES:
                end = next((e for e in range(k + 1, len(words)) if words[e] in _BESIDE), len(words))
                wave = self.wave(one, word, words[k + 1 : end])
                self.ignored(f"{word.upper()} of {one.name} beyond its beginning", one.card.place)
                # What it begins with counts where no DC value is given.
                k, begins = end, wave
            elif k == 0:
                k, value = 1, one.scope.value(given.words[3], one.card, f"the value of {one.name}")
            else:
                raise one.card.refuse(f"{given.words[3 + k]!r} is not understood")
        return a, b, begins if math.isnan(value) else value

    def wave(self, one: Placed, kind: str, words: Sequence[str]) -> float:
        """Return what a transient function begins with."""
        numbers = [one.scope.value(word, one.card, kind.upper()) for word in words]
        if kind == "pwl":
            if len(numbers) < 2:
                raise one.card.refuse("PWL has no points")
            return numbers[1]
        if not numbers:
            raise one.card.refuse(f"{kind.upper()} has no values")
        if kind == "sin" and len(numbers) > 5 and len(numbers) > 1:
            return numbers[0] + numbers[1] * math.sin(math.radians(numbers[5]))
        return numbers[0]

    def voltage_source(self, one: Placed) -> None:
        a, b, value = self.sources[one.name]
        self.trained(one, can=False)
        if self.key(b) in self.inputs and b != "0" and a == "0":
            a, b, value = b, a, -value
        # x takes the place of what holds an input; a gate that nothing else is at is held by its
        # transistor.
        if b == "0" and (self.key(a) in self.inputs or a in self.only_gates):
            return
        if a == "0" and b in self.only_gates:
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
        model = self.model(one, words[0], "d", "a diode", _DIODE, _DIODE_NAMES, _DIODE_IDLE)
        self.check_warm(one, given, words[0], model["tnom"])
        area = self.setting(one, given, "area", 1.0)
        if len(words) == 2:
            area = one.scope.value(words[1], one.card, "area")
        if area <= 0:
            raise one.card.refuse(f"area must be positive, got {area:g}")
        size = area * self.copies(one, given)
        kelvin = self.temperature(one, given) + _KELVIN
        if model["level"] != 1:
            raise one.card.refuse(f"LEVEL={model['level']:g} of a diode is not modelled: only 1 is")
        saturation, ideality = self.saturation(one, model, kelvin)
        saturation *= size
        if words[0].lower().startswith("ideal") and model["n"] == IDEAL.ideality:
            self.add(one, IdealDiode, a, k)
            return
        if model["rs"] > 0:
            inside = f"{one.name}.anode"
            self.add(one, Resistor, a, inside, size / model["rs"], False)
            a = inside
        self.add(one, Diode, a, k, saturation, ideality)
        if math.isfinite(model["bv"]):
            self.breakdown(one, (a, k), model, saturation, size, kelvin)

    def check_warm(self, one: Placed, given: Fields, name: str, tnom: float) -> None:
        """Refuse what models have for other temperatures than that they were measured at."""
        if self.temperature(one, given) == (self.flat.nominal if math.isnan(tnom) else tnom):
            return
        model = one.scope.model(name, one.card)
        for setting in sorted(_DIODE_WARM & set(model.settings)):
            if not self.is_nothing(model.scope, model.settings[setting], model.card):
                raise model.card.refuse(
                    f"{setting.upper()} of model {name} is modelled at the temperature of TNOM only"
                )

    def saturation(
        self, one: Placed, model: Mapping[str, float], kelvin: float
    ) -> tuple[float, float]:
        """Return the saturation current at a temperature, and the ideality over 27 degrees.

        As the diode of SPICE has it (Antognetti and Massobrio, Semiconductor Device Modeling with
        SPICE, 1988).
        """
        if model["is"] <= 0 or model["n"] <= 0 or kelvin <= 0:
            raise one.card.refuse("IS, N and the temperature in kelvins must be positive")
        tnom = self.flat.nominal if math.isnan(model["tnom"]) else model["tnom"]
        ratio = kelvin / (tnom + _KELVIN)
        thermal = THERMAL_VOLTAGE * kelvin / _NOMINAL
        grown = (ratio - 1) * model["eg"] / thermal + model["xti"] * math.log(ratio)
        return model["is"] * math.exp(grown / model["n"]), model["n"] * kelvin / _NOMINAL

    def breakdown(
        self,
        one: Placed,
        ends: tuple[str, str],
        model: Mapping[str, float],
        saturation: float,
        size: float,
        kelvin: float,
    ) -> None:
        """Add the current the other way, from where IBV flows at BV."""
        a, k = ends
        slope = model["n"] if math.isnan(model["nbv"]) else model["nbv"]
        thermal = THERMAL_VOLTAGE * kelvin / _NOMINAL
        current = model["ibv"] * size
        if current < saturation * model["bv"] / thermal:
            at = model["bv"]
        else:
            at = model["bv"] - slope * thermal * math.log1p(current / saturation)
            for _ in range(25):
                beyond = current / saturation + 1 - at / thermal
                at = model["bv"] - slope * thermal * math.log(beyond)
        inside = f"{one.name}.breakdown"
        self.add(one, VoltageSource, k, inside, at)
        self.add(one, Diode, inside, a, saturation, slope * kelvin / _NOMINAL)

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
        model = self.model(one, words[2], "nmos", "an NMOS transistor", _MOS, _MOS_NAMES, _MOS_IDLE)
        self.check_channel(one, given, model)
        length = self.setting(one, given, "l", 1e-4) - 2 * model["ld"]
        width = self.setting(one, given, "w", 1e-4)
        if width <= 0 or length <= 0:
            raise one.card.refuse(f"{one.name} has a channel of {width:g} x {length:g} m")
        m = self.copies(one, given)
        trained = self.trained(one)
        voltage = self.gate_voltage(one, gate)
        if trained and gate not in self.only_gates:
            raise one.card.refuse(f"gate {gate!r} of {one.name} is trained, and joined to others")
        if trained and self.gates[gate] > 1:
            raise one.card.refuse(f"gate {gate!r} is that of several transistors, and trained")
        strength = model["kp"] * m * width / length
        self.add(one, Transistor, drain, source, voltage, strength, model["vto"], trained)
        if model["is"] * m > _LEAST_SATURATION:
            for end in (drain, source):
                self.add(one, Diode, bulk, end, model["is"] * m, 1.0)

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
        if gate not in self.held:
            raise one.card.refuse(f"no source holds gate {gate!r} against node 0")
        return self.held[gate]

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

    # Models and held nodes.

    def model(
        self,
        one: Placed,
        name: str,
        kind: str,
        what: str,
        known: Mapping[str, float],
        names: Mapping[str, str],
        idle: frozenset[str],
    ) -> dict[str, float]:
        """Return the parameters of a model that act at an operating point."""
        model: Model = one.scope.model(name, one.card)
        if model.kind != kind:
            raise one.card.refuse(f"model {name} is of kind {model.kind.upper()}, not of {what}")
        values = dict(known)
        for given, text in model.settings.items():
            own = names.get(given, given)
            if own in known:
                values[own] = model.scope.value(text, model.card, given.upper()) if text else 1.0
            elif given in idle or given in _DIODE_WARM:
                self.ignored(f"{given.upper()} of model {name}", model.card.place)
            elif not text or self.is_nothing(model.scope, text, model.card):
                continue
            else:
                raise model.card.refuse(
                    f"{given.upper()} of model {name} acts at an operating point, and is not "
                    "modelled"
                )
        return values

    @staticmethod
    def is_nothing(scope: Scope, text: str, card: Card) -> bool:
        """Whether a parameter is zero: it is then as good as not there."""
        return scope.value(text, card, "a parameter of a model") == 0

    def _held(self) -> dict[str, float]:
        """Return the voltages of the nodes that voltage sources hold against node 0."""
        over: dict[str, list[tuple[str, float]]] = {}
        for one in self.flat.elements:
            if one.card.kind == "v":
                a, b, value = self.sources[one.name]
                over.setdefault(b, []).append((a, value))
                over.setdefault(a, []).append((b, -value))
        held, rest = {"0": 0.0}, ["0"]
        while rest:
            node = rest.pop()
            for other, drop in over.get(node, []):
                if other not in held and self.key(other) not in self.inputs:
                    held[other] = held[node] + drop
                    rest.append(other)
        return held

    def _only_gates(self) -> set[str]:
        """Return the gates that nothing is at besides, but the source that holds them."""
        uses: Counter[str] = Counter()
        for one in self.flat.elements:
            named = fields(one.card).words
            count = 4 if one.card.kind == "m" else 2
            uses.update(self.node(one, word) for word in named[1 : 1 + count])
        return {node for node, count in self.gates.items() if uses[node] == count + 1}


_BESIDE = ("ac", "distof1", "distof2", "dc")
_WAVES = ("pulse", "sin", "exp", "pwl", "sffm", "am", "trnoise", "trrandom")
