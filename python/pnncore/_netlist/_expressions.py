"""Numbers and expressions of netlists."""

import math
import operator
import re
from collections.abc import Callable
from typing import Any

_SCALES = {
    "t": 1e12,
    "g": 1e9,
    "meg": 1e6,
    "k": 1e3,
    "mil": 25.4e-6,
    "m": 1e-3,
    "u": 1e-6,
    "µ": 1e-6,  # the micro sign
    "μ": 1e-6,  # the Greek letter
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
}
_DIGITS = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
# Letters after the scale are a unit; a digit there (4k7) is no number of SPICE.
_NUMBER = re.compile(
    rf"(?P<digits>[+-]?{_DIGITS})(?P<scale>meg|mil|[tgkmuµμnpf])?(?P<unit>[^\W\d_]*)",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_DIGITS}[^\W\d_]*)|(?P<name>[^\W\d][\w.]*)"
    r"|(?P<operator>\*\*|==|!=|<=|>=|&&|\|\||[-+*/%\\^()<>!?:,]))",
    re.IGNORECASE,
)


class ExpressionError(ValueError):
    """What is wrong with a number or an expression, in words."""


def as_number(text: str) -> float:
    """Return the number that a field of a card is: digits, a scale, a unit.

    `ExpressionError` for anything else.
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ExpressionError(f"{text!r} is not a number")
    value = float(found["digits"]) * _SCALES.get((found["scale"] or "").lower(), 1.0)
    return _finite(value, text)


def evaluate(text: str, value_of: Callable[[str], float]) -> float:
    """Return the value of an expression; `value_of` gives those of parameters, in lower case.

    Operators and functions are those of ngspice: powers bind from the left, ``log`` is natural.

    Raises
    ------
    ExpressionError
        If it is none, or its value is not finite.
    """
    parser = _Parser(text, value_of)
    value = parser.choice()
    if parser.tokens:
        raise ExpressionError(f"{text!r}: {parser.tokens[0][1]!r} is not expected there")
    return _finite(value, text)


def _finite(value: float, text: str) -> float:
    if not math.isfinite(value):
        raise ExpressionError(f"{text!r} is not finite")
    return value


def _power(base: float, exponent: float) -> float:
    """Return the power of the magnitude, as ngspice has it for ``^``, ``**`` and ``pwr``."""
    return float(abs(base) ** exponent)


def _quotient(a: float, b: float) -> float:
    if a < 0 or b < 0:
        raise ExpressionError("whole quotients of negative numbers are not understood")
    return float(math.trunc(a / b))


def _truth(test: Callable[[Any, Any], bool]) -> Callable[[float, float], float]:
    return lambda a, b: float(test(a, b))


# By how tightly they bind.
_LEVELS: tuple[dict[str, Callable[[float, float], float]], ...] = (
    {"||": _truth(lambda a, b: a != 0 or b != 0)},
    {"&&": _truth(lambda a, b: a != 0 and b != 0)},
    # One level, from the left, as in ngspice.
    {
        "==": _truth(operator.eq),
        "!=": _truth(operator.ne),
        "<": _truth(operator.lt),
        ">": _truth(operator.gt),
        "<=": _truth(operator.le),
        ">=": _truth(operator.ge),
    },
    {"+": operator.add, "-": operator.sub},
    {
        "*": operator.mul,
        "/": operator.truediv,
        "%": math.fmod,
        "\\": _quotient,
    },
)
_PLAIN = "sqrt sin cos tan asin acos atan sinh cosh tanh exp log10"
_FUNCTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    **{name: (1, getattr(math, name)) for name in _PLAIN.split()},
    "log": (1, math.log),
    "ln": (1, math.log),
    "arctan": (1, math.atan),
    "abs": (1, abs),
    "int": (1, lambda x: float(math.trunc(x))),
    "floor": (1, lambda x: float(math.floor(x))),
    "ceil": (1, lambda x: float(math.ceil(x))),
    "sgn": (1, lambda x: float((x > 0) - (x < 0))),
    "sqr": (1, lambda x: x * x),
    "min": (2, min),
    "max": (2, max),
    "pow": (2, math.pow),
    "pwr": (2, _power),
    "ternary_fcn": (3, lambda test, yes, no: yes if test != 0 else no),
}


# Brackets within brackets.
_DEEPEST = 60


class _Parser:
    """Recursive descent, from what binds loosest on."""

    def __init__(self, text: str, value_of: Callable[[str], float]) -> None:
        self.text, self.value_of = text, value_of
        self.depth, self.powered = 0, False
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise ExpressionError(f"{text!r}: {text[at:].strip()[0]!r} is not understood")
            self.tokens.append((found.lastgroup or "", found[found.lastgroup or 0]))
            at = found.end()
        # Deep nesting would end in an error of Python's own.
        if len(self.tokens) > 1000:
            raise ExpressionError(f"an expression of {len(self.tokens)} parts is too long")

    def takes(self, *operators: str) -> str | None:
        """Take the next token, if it is one of these."""
        if self.tokens and self.tokens[0][0] == "operator" and self.tokens[0][1] in operators:
            return self.tokens.pop(0)[1]
        return None

    def expect(self, token: str) -> None:
        if self.takes(token) is None:
            raise ExpressionError(f"{self.text!r}: a {token!r} is missing")

    def choice(self, *, begins: bool = True) -> float:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ExpressionError(f"{self.text!r} is nested too deeply")
        test = self.level(0, begins)
        if self.takes("?") is not None:
            yes = self.choice(begins=False)
            self.expect(":")
            no = self.choice(begins=False)
            test = yes if test != 0 else no
        self.depth -= 1
        return test

    def level(self, k: int, begins: bool) -> float:
        if k == len(_LEVELS):
            return self.signed(begins)
        value = self.level(k + 1, begins)
        while (sign := self.takes(*_LEVELS[k])) is not None:
            value = self.applied(_LEVELS[k][sign], value, self.level(k + 1, begins=False))
        return value

    def signed(self, begins: bool) -> float:
        """Return a power with a sign before it.

        In ngspice a sign binds looser than a power at the beginning, and tighter behind an
        operator: brackets say what is meant.
        """
        sign = self.takes("+", "-", "!")
        if sign is None:
            return self.powers()
        if self.tokens and self.tokens[0] in (("operator", s) for s in "+-!"):
            raise ExpressionError(f"{self.text!r}: two signs in a row are not understood")
        value = self.powers()
        if self.powered and (not begins or sign == "!"):
            raise ExpressionError(f"{self.text!r}: put brackets around a sign and its power")
        return {"-": -value, "!": float(value == 0), "+": value}[sign]

    def powers(self) -> float:
        value = self.atom()
        self.powered = False
        while self.takes("^", "**") is not None:
            sign = self.takes("+", "-")
            exponent = self.atom()
            value = self.applied(_power, value, -exponent if sign == "-" else exponent)
            self.powered = True
        return value

    def atom(self) -> float:
        if self.takes("(") is not None:
            value = self.choice()
            self.expect(")")
            return value
        if not self.tokens or self.tokens[0][0] == "operator":
            got = repr(self.tokens[0][1]) if self.tokens else "its end"
            raise ExpressionError(f"{self.text!r}: a value is missing before {got}")
        kind, token = self.tokens.pop(0)
        if kind == "number":
            if token.lower().endswith("mil"):
                # A thousandth of an inch as a value, and a thousandth in an expression.
                raise ExpressionError(f"{token!r} in an expression is not told from milli: write m")
            return as_number(token)
        if self.takes("(") is None:
            return self.value_of(token.lower())
        if token.lower() not in _FUNCTIONS:
            raise ExpressionError(f"function {token!r} is not understood")
        count, function = _FUNCTIONS[token.lower()]
        given = [self.choice()]
        while self.takes(",") is not None:
            given.append(self.choice())
        self.expect(")")
        if len(given) != count:
            raise ExpressionError(f"{token} takes {count} values, got {len(given)}")
        return self.applied(function, *given)

    def applied(self, function: Callable[..., float], *given: float) -> float:
        try:
            return float(function(*given))
        except (ArithmeticError, ValueError) as error:
            if isinstance(error, ExpressionError):
                raise
            raise ExpressionError(f"{self.text!r}: {error}") from None
