"""What journals say in words: JSON that every reader takes, whatever was said.

JSON has no infinite numbers, and no text that is not Unicode: an infinite number or NaN becomes an
object such as ``{"float": "-inf"}``, which `load` turns back; what is no Unicode (lone surrogates)
becomes its escape sequence.
"""

import json
import math
from typing import Any

# Characters of a text that are kept: at four bytes each a record holds them.
LONGEST = 1 << 22

_NUMBERS = ("inf", "-inf", "nan")


def dump(value: dict[str, Any]) -> str:
    """Return an object as JSON."""
    return json.dumps(_portable(value), ensure_ascii=False, allow_nan=False)


def load(text: str) -> dict[str, Any]:
    """Return what `dump` was given."""
    found = json.loads(text, object_hook=_number)
    # Numbers are parts of what is told, never all of it.
    whole: dict[str, Any] = found if isinstance(found, dict) else json.loads(text)
    return whole


def describe(error: BaseException) -> str:
    """Return the type and the text of an exception, whatever its text is."""
    return f"{type(error).__name__}: {message(error)}"


def message(error: BaseException) -> str:
    """Return the text of an exception as Unicode; where it cannot be told, why."""
    try:
        text = str.__str__(str(error))
    except Exception as second:
        return f"(its text cannot be told: {type(second).__name__})"
    return _unicode(text)


def _unicode(text: str) -> str:
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... ({len(text)} characters)"
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _portable(value: Any) -> Any:
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}
    if isinstance(value, dict):
        return {_unicode(key): _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return value


def _number(found: dict[str, Any]) -> Any:
    text = found.get("float")
    return float(text) if len(found) == 1 and text in _NUMBERS else found
