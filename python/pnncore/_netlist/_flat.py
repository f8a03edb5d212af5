"""Hierarchy of netlists: parameters, models and subcircuits, and what is left when it is flat."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pnncore._netlist._cards import Card
from pnncore._netlist._expressions import ExpressionError, as_number, evaluate

# Subcircuits that hold themselves are told from subcircuits that lie deep.
_DEEPEST = 60
_TOKEN = re.compile(r"""\{[^{}]*\}|'[^']*'|"[^"]*"|=|[()]|[^\s,=(){}'"]+""")
_ASSIGNED = re.compile(r"([^\W\d]\w*)\s*=(?!=)")

NOMINAL_TEMPERATURE = 27.0
"""The temperature that SPICE assumes, in degrees Celsius."""


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Analyses and outputs say nothing of the circuit.
_PASSED_OVER = words(
    ".ac .dc .disto .four .fourier .ic .meas .measure .nodeset .noise .plot .print .probe .pz "
    ".save .sens .step .tf .tran .width .backanno"
)
# What brings solvers near to rounding, or how results are written: not what the circuit is.
_NUMERICAL = words(
    "abstol acct chgtol delmax gminsteps interp itl1 itl2 itl3 itl4 itl5 itl6 keepopinfo klu list "
    "maxord method node noacct noinit nomod nopage noopiter numdgt opts pivrel pivtol reltol "
    "savecurrents sparse srcsteps trtol vntol warn xmu"
)
# A conductance across every junction that no voltage shows.
_LEAST_GMIN = 1e-9


@dataclass
class Fields:
    """The fields of a card: words in order, and settings by name."""

    words: list[str]
    settings: dict[str, str]


@dataclass
class Model:
    """A model: its kind, and its parameters as they are written."""

    kind: str
    settings: dict[str, str]
    card: Card
    scope: "Scope"


@dataclass
class Definition:
    """A subcircuit as it is defined."""

    name: str
    ports: list[str]
    defaults: dict[str, tuple[str, Card]]
    card: Card
    body: list[Card] = field(default_factory=list)
    inner: dict[str, "Definition"] = field(default_factory=dict)


class Scope:
    """Where names mean something: the top of a netlist, or one instance of a subcircuit.

    Names of parameters that are not its own are those of the instance around it, as in ngspice;
    those of models and subcircuits are those of the definition around its own.
    """

    def __init__(self, around: "Scope | None", path: str, ports: dict[str, str]) -> None:
        self.around, self.path, self.ports = around, path, ports
        self.models: dict[str, Model] = {}
        self.definitions: list[dict[str, Definition]] = []
        self.outer_models: list[dict[str, Model]] = []
        self.texts: dict[str, tuple[str, Card, Scope]] = {}
        self._values: dict[str, float] = {}
        self._busy: set[str] = set()

    def parameter(self, name: str) -> float:
        """Return the value of a parameter; `ExpressionError` without one."""
        if name in self.texts:
            if name in self._busy:
                raise ExpressionError(f"parameter {name!r} is defined by itself")
            if name not in self._values:
                self._busy.add(name)
                text, card, scope = self.texts[name]
                try:
                    self._values[name] = evaluate(text, scope.parameter)
                except ExpressionError as error:
                    raise ExpressionError(f"parameter {name!r} ({card.place}): {error}") from None
                finally:
                    self._busy.discard(name)
            return self._values[name]
        if self.around is None:
            raise ExpressionError(f"parameter {name!r} is not defined")
        return self.around.parameter(name)

    def value(self, text: str, card: Card, what: str) -> float:
        """Return the value of a field: a number, an expression, or the name of a parameter."""
        try:
            if text[0] in "{'\"":
                return evaluate(text[1:-1], self.parameter)
            if re.fullmatch(r"[^\W\d]\w*", text):
                return self.parameter(text.lower())
            return as_number(text)
        except ExpressionError as error:
            raise card.refuse(f"{what}: {error}") from None

    def model(self, name: str, card: Card) -> Model:
        """Return a model by its name; `ConfigError` without one."""
        for models in (self.models, *self.outer_models):
            if name.lower() in models:
                return models[name.lower()]
        raise card.refuse(f"there is no .model {name}")

    def definition(self, name: str, card: Card) -> Definition:
        """Return a subcircuit by its name; `ConfigError` without one."""
        for definitions in self.definitions:
            if name.lower() in definitions:
                return definitions[name.lower()]
        raise card.refuse(f"there is no .subckt {name}")


@dataclass
class Placed:
    """An element where it stands: its card, and what names on it mean."""

    card: Card
    scope: Scope

    @property
    def name(self) -> str:
        """The name of the element, with those of the subcircuits around it."""
        return self.scope.path + self.card.text.split(maxsplit=1)[0]


class Flat:
    """A netlist without hierarchy.

    Attributes
    ----------
    elements
        The elements, those of subcircuits among them, in the order of the cards.
    temperature, nominal
        That of the circuit, and the one at which models were measured, in degrees Celsius.
    """

    def __init__(self, cards: list[Card], ignored: Callable[[str, str], None]) -> None:
        self.ignored = ignored
        self.elements: list[Placed] = []
        self.temperature = self.nominal = NOMINAL_TEMPERATURE
        self.globals: set[str] = set()
        top = Scope(None, "", {})
        body, definitions = _parted(cards)
        top.definitions = [definitions]
        for card in body:
            if card.kind == ".global":
                self.globals |= {word.lower() for word in card.text.split()[1:]}
        self._place(body, top, 0)

    def node(self, scope: Scope, name: str) -> str:
        """Return the name of a node at the top; ``"0"`` is ground."""
        if name.lower() in ("0", "gnd"):
            return "0"
        if name.lower() in self.globals:
            return name
        if name.lower() in scope.ports:
            return scope.ports[name.lower()]
        return scope.path + name

    def _place(self, body: list[Card], scope: Scope, depth: int) -> None:
        for card in body:
            if card.kind in (".param", ".params", ".parameter"):
                for name, text in assignments(card).items():
                    scope.texts[name] = (text, card, scope)
            elif card.kind == ".model":
                name, model = _model(card, scope)
                scope.models[name] = model
        for card in body:
            if card.kind.startswith("."):
                self._heed(card, scope)
            elif card.kind == "x":
                self._instance(card, scope, depth)
            else:
                self.elements.append(Placed(card, scope))

    def _heed(self, card: Card, scope: Scope) -> None:
        """Take from a control card what acts at an operating point; pass over what does not."""
        match card.kind:
            case ".param" | ".params" | ".parameter" | ".model" | ".op" | ".title" | ".global":
                pass
            case ".temp":
                words = card.text.split()[1:]
                if len(words) != 1:
                    raise card.refuse("give one temperature")
                self.temperature = scope.value(words[0], card, ".temp")
            case ".option" | ".options" | ".opt":
                self._options(card, scope)
            case kind if kind in _PASSED_OVER:
                self.ignored(kind, card.place)
            case kind:
                raise card.refuse(f"{kind} is not understood")

    def _options(self, card: Card, scope: Scope) -> None:
        given = fields(card)
        for word in given.words[1:]:
            if word.lower() not in _NUMERICAL:
                raise card.refuse(f"option {word} is not understood")
        for name, text in given.settings.items():
            if name in _NUMERICAL:
                continue
            value = scope.value(text, card, name)
            match name:
                case "temp":
                    self.temperature = value
                case "tnom":
                    self.nominal = value
                case "gmin":
                    if value > _LEAST_GMIN:
                        raise card.refuse(f"gmin={value:g} S across every junction is not modelled")
                case _:
                    raise card.refuse(f"option {name} is not understood")

    def _instance(self, card: Card, scope: Scope, depth: int) -> None:
        if depth == _DEEPEST:
            raise card.refuse("subcircuits hold each other")
        given = fields(card)
        words = [word for word in given.words if word.lower() != "params:"]
        if len(words) < 2:
            raise card.refuse("an X card has nodes and the name of a subcircuit")
        definition = scope.definition(words[-1], card)
        nodes = words[1:-1]
        if len(nodes) != len(definition.ports):
            raise card.refuse(
                f"subcircuit {definition.name} has {len(definition.ports)} nodes, got {len(nodes)}"
            )
        ports = {
            port.lower(): self.node(scope, node)
            for port, node in zip(definition.ports, nodes, strict=True)
        }
        inside = Scope(scope, f"{scope.path}{words[0]}.", ports)
        inside.definitions = [definition.inner, *self._around(scope, definition)]
        inside.outer_models = [scope.models, *scope.outer_models]
        own = {name for card in definition.body for name in _own_parameters(card)}
        unknown = sorted(set(given.settings) - set(definition.defaults) - own - {"m"})
        if unknown:
            raise card.refuse(f"subcircuit {definition.name} has no parameters {unknown}")
        if "m" in given.settings and "m" not in definition.defaults:
            raise card.refuse("m= copies of a subcircuit are not modelled")
        for name, (text, place) in definition.defaults.items():
            inside.texts[name] = (text, place, inside)
        for name, text in given.settings.items():
            value = scope.value(text, card, name)
            inside.texts[name] = (repr(value), card, inside)
        self._place(definition.body, inside, depth + 1)

    def _around(self, scope: Scope, definition: Definition) -> list[dict[str, Definition]]:
        """Return the definitions that those of a subcircuit lie in, the nearest first."""
        for k, definitions in enumerate(scope.definitions):
            if definition in definitions.values():
                return scope.definitions[k:]
        return scope.definitions


def fields(card: Card) -> Fields:
    """Return the fields of a card; brackets and commas only part them."""
    tokens = [token for token in _TOKEN.findall(card.text) if token not in "()"]
    words: list[str] = []
    settings: dict[str, str] = {}
    k = 0
    while k < len(tokens):
        if tokens[k] == "=":
            raise card.refuse("there is an = without a name before it")
        if k + 1 < len(tokens) and tokens[k + 1] == "=":
            name = tokens[k].lower()
            if k + 2 >= len(tokens) or tokens[k + 2] == "=":
                raise card.refuse(f"{tokens[k]}= has no value")
            if name in settings:
                raise card.refuse(f"{tokens[k]}= is given twice")
            settings[name] = tokens[k + 2]
            k += 3
        else:
            words.append(tokens[k])
            k += 1
    return Fields(words, settings)


def assignments(card: Card, text: str | None = None) -> dict[str, str]:
    """Return the expressions of a ``.param`` card by name, in lower case."""
    text = card.text.split(maxsplit=1)[1] if text is None and " " in card.text else text or ""
    found: dict[str, str] = {}
    places = list(_ASSIGNED.finditer(text))
    if not places or text[: places[0].start()].strip():
        raise card.refuse(f"{text.strip()!r} is no list of name=value")
    ends = [place.start() for place in places[1:]] + [len(text)]
    for place, end in zip(places, ends, strict=True):
        value = text[place.end() : end].strip().rstrip(",").strip()
        if len(value) > 1 and value[0] + value[-1] in ("{}", "''", '""'):
            value = value[1:-1]
        if not value:
            raise card.refuse(f"{place[1]}= has no value")
        found[place[1].lower()] = value
    return found


def _own_parameters(card: Card) -> Iterable[str]:
    return assignments(card) if card.kind in (".param", ".params", ".parameter") else ()


def _parted(cards: Iterable[Card]) -> tuple[list[Card], dict[str, Definition]]:
    """Return the cards outside subcircuits, and the subcircuits by name."""
    top = Definition("", [], {}, Card(".top", ""))
    open_ones = [top]
    for card in cards:
        if card.kind in (".subckt", ".macro"):
            open_ones.append(_definition(card))
        elif card.kind in (".ends", ".eom"):
            if len(open_ones) == 1:
                raise card.refuse(f"{card.kind} ends nothing")
            done = open_ones.pop()
            open_ones[-1].inner[done.name.lower()] = done
        elif card.kind in (".if", ".elseif", ".else", ".endif"):
            raise card.refuse(f"{card.kind} is not understood")
        else:
            open_ones[-1].body.append(card)
    if len(open_ones) > 1:
        raise open_ones[-1].card.refuse(f"subcircuit {open_ones[-1].name} has no .ends")
    return top.body, top.inner


def _definition(card: Card) -> Definition:
    head = re.split(r"\bparams:|[^\W\d]\w*\s*=", card.text, maxsplit=1, flags=re.IGNORECASE)[0]
    words = head.split()
    if len(words) < 2:
        raise card.refuse(".subckt has a name and nodes")
    rest = re.sub(r"\s*params:", "", card.text[len(head) :], flags=re.IGNORECASE).strip()
    defaults = assignments(card, rest) if rest else {}
    ports = words[2:]
    if len({port.lower() for port in ports}) < len(ports):
        raise card.refuse("a node of a subcircuit is named twice")
    return Definition(
        words[1], ports, {name: (text, card) for name, text in defaults.items()}, card
    )


def _model(card: Card, scope: Scope) -> tuple[str, Model]:
    given = fields(card)
    if len(given.words) < 3:
        raise card.refuse("a .model has a name and a kind")
    # Flags such as NCHAR stand alone: they are refused where the model is used.
    flags = {word.lower(): "" for word in given.words[3:]}
    return given.words[1].lower(), Model(
        given.words[2].lower(), {**given.settings, **flags}, card, scope
    )
