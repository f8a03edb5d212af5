"""Hierarchy of netlists: parameters, models and subcircuits, and what is left when it is flat."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pnncore._netlist._cards import Card
from pnncore._netlist._expressions import ExpressionError, as_number, evaluate

# Subcircuits that hold themselves are told from subcircuits that lie deep.
_DEEPEST = 60
_TOKEN = re.compile(r"""\{[^{}]*\}|'[^']*'|"[^"]*"|=|[()]|[^\s,=(){}'"]+""")
_QUOTED = re.compile(r"""\{[^{}]*\}|'[^']*'|"[^"]*\"""")
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
    "brief ingold plotwinsize post probe savecurrents sparse srcsteps trtol vntol warn xmu"
)
# A conductance across every junction that no voltage shows.
_MOST_GMIN = 1e-12


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
    defaults: dict[str, str]
    card: Card
    body: list[Card] = field(default_factory=list)
    inner: dict[str, "Definition"] = field(default_factory=dict)


class Scope:
    """Where names mean something: the top of a netlist, or one instance of a subcircuit.

    Names of parameters that are not its own are those of the instance around it, as in ngspice;
    those of models and subcircuits are those of the definition around its own.
    """

    def __init__(
        self,
        path: str = "",
        around: "Scope | None" = None,
        home: "Scope | None" = None,
        ports: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.around, self.home, self.ports = path, around, home, ports or {}
        self.models: dict[str, Model] = {}
        self.definitions: dict[str, Definition] = {}
        self.texts: dict[str, tuple[str, Card]] = {}
        self.given: dict[str, float] = {}
        self._values: dict[str, float] = {}
        self._busy: list[str] = []

    def parameter(self, name: str) -> float:
        """Return the value of a parameter; `ExpressionError` without one."""
        if name in self.given:
            return self.given[name]
        # The default r={r} takes the value around.
        if name in self.texts and not (self.around and self._busy[-1:] == [name]):
            if name in self._busy:
                raise ExpressionError(f"parameter {name!r} is defined by itself")
            if name not in self._values:
                self._busy.append(name)
                text, card = self.texts[name]
                try:
                    self._values[name] = evaluate(text, self.parameter)
                except ExpressionError as error:
                    raise ExpressionError(f"parameter {name!r} ({card.place}): {error}") from None
                finally:
                    self._busy.pop()
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
        except RecursionError:
            raise card.refuse(f"{what}: parameters lie too deep within each other") from None

    def model(self, name: str, card: Card) -> Model:
        """Return a model by its name; `ConfigError` without one."""
        scope: Scope | None = self
        while scope is not None:
            if name.lower() in scope.models:
                return scope.models[name.lower()]
            scope = scope.home
        raise card.refuse(f"there is no .model {name}")

    def definition(self, name: str, card: Card) -> "tuple[Definition, Scope]":
        """Return a subcircuit by its name, and where it is defined; `ConfigError` without one."""
        scope: Scope | None = self
        while scope is not None:
            if name.lower() in scope.definitions:
                return scope.definitions[name.lower()], scope
            scope = scope.home
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
        self._temp: float | None = None
        self.globals = {
            word.lower()
            for card in cards
            if card.kind == ".global"
            for word in card.text.split()[1:]
        }
        top = Scope()
        body, top.definitions = _parted(cards)
        self._place(body, top, 0)
        if self._temp is not None:
            self.temperature = self._temp

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
                scope.texts |= {name: (text, card) for name, text in assignments(card).items()}
            elif card.kind == ".model":
                name, model = _model(card, scope)
                if (before := scope.models.setdefault(name, model)) is not model:
                    raise card.refuse(f"model {name} is there already, {before.card.place}")
        for card in body:
            if card.trained and (card.kind.startswith(".") or card.kind == "x"):
                raise card.refuse("only elements are trained: mark those, or name them in trained=")
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
                self._temp = _plain_number(words[0], card, ".temp")
            case ".option" | ".options" | ".opt":
                self._options(card)
            case kind if kind in _PASSED_OVER:
                self.ignored(kind, card.place)
            case kind:
                raise card.refuse(f"{kind} is not understood")

    def _options(self, card: Card) -> None:
        given = fields(card)
        for word in given.words[1:]:
            if word.lower() not in _NUMERICAL:
                raise card.refuse(f"option {word} is not understood")
        for name, text in given.settings.items():
            if name in _NUMERICAL:
                continue
            value = _plain_number(text, card, name)
            match name:
                case "temp":
                    self.temperature = value
                case "tnom":
                    self.nominal = value
                case "gmin":
                    if value > _MOST_GMIN:
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
        definition, home = scope.definition(words[-1], card)
        nodes = words[1:-1]
        if len(nodes) != len(definition.ports):
            raise card.refuse(
                f"subcircuit {definition.name} has {len(definition.ports)} nodes, got {len(nodes)}"
            )
        ports = {
            port.lower(): self.node(scope, node)
            for port, node in zip(definition.ports, nodes, strict=True)
        }
        inside = Scope(f"{scope.path}{words[0]}.", scope, home, ports)
        inside.definitions = definition.inner
        own = {name for card in definition.body for name in _own_parameters(card)}
        unknown = sorted(set(given.settings) - set(definition.defaults) - own - {"m"})
        if unknown:
            raise card.refuse(f"subcircuit {definition.name} has no parameters {unknown}")
        inside.texts = {name: (text, definition.card) for name, text in definition.defaults.items()}
        inside.given = {
            name: scope.value(text, card, name) for name, text in given.settings.items()
        }
        if "m" not in definition.defaults and inside.given.pop("m", 1.0) != 1:
            raise card.refuse("m= copies of a subcircuit are not modelled")
        self._place(definition.body, inside, depth + 1)


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
    if text is None:
        text = "".join(card.text.split(maxsplit=1)[1:])
    found: dict[str, str] = {}
    places = list(_ASSIGNED.finditer(text))
    if not places or text[: places[0].start()].strip():
        raise card.refuse(f"{text.strip()!r} is no list of name=value")
    ends = [place.start() for place in places[1:]] + [len(text)]
    for place, end in zip(places, ends, strict=True):
        name, value = place[1].lower(), text[place.end() : end].strip().rstrip(",").strip()
        if _QUOTED.fullmatch(value):
            value = value[1:-1]
        elif len(value.split()) > 1:
            raise card.refuse(f"put {{}} around the expression {value!r}")
        if not value.strip():
            raise card.refuse(f"{place[1]}= has no value")
        if name in found:
            raise card.refuse(f"{place[1]}= is given twice")
        if name == "temper":
            raise card.refuse("temper is the temperature, and no name of a parameter")
        found[name] = value
    return found


def _plain_number(text: str, card: Card, what: str) -> float:
    try:
        return as_number(text)
    except ExpressionError as error:
        raise card.refuse(f"{what}: {error}") from None


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
            before = open_ones[-1].inner.setdefault(done.name.lower(), done)
            if before is not done:
                raise done.card.refuse(
                    f"subcircuit {done.name} is there already, {before.card.place}"
                )
        elif card.kind in (".if", ".elseif", ".else", ".endif"):
            raise card.refuse(f"{card.kind} is not understood")
        else:
            open_ones[-1].body.append(card)
    if len(open_ones) > 1:
        raise open_ones[-1].card.refuse(f"subcircuit {open_ones[-1].name} has no .ends")
    return top.body, top.inner


def _definition(card: Card) -> Definition:
    head = re.split(r"\bparams:|[^\W\d]\w*\s*=", card.text, maxsplit=1, flags=re.IGNORECASE)[0]
    words = re.split(r"[\s,()]+", head.strip(" ,()\t"))
    if len(words) < 2:
        raise card.refuse(".subckt has a name and nodes")
    rest = re.sub(r"\s*params:", "", card.text[len(head) :], flags=re.IGNORECASE).strip()
    defaults = assignments(card, rest) if rest else {}
    ports = words[2:]
    if len({port.lower() for port in ports}) < len(ports):
        raise card.refuse("a node of a subcircuit is named twice")
    return Definition(words[1], ports, defaults, card)


def _model(card: Card, scope: Scope) -> tuple[str, Model]:
    given = fields(card)
    if len(given.words) < 3:
        raise card.refuse("a .model has a name and a kind")
    # Flags such as NCHAR stand alone: they are refused where the model is used.
    flags = {word.lower(): "" for word in given.words[3:]}
    return given.words[1].lower(), Model(
        given.words[2].lower(), {**given.settings, **flags}, card, scope
    )
