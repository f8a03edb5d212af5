"""Sources of netlists: what they are at an operating point."""

import math
from collections.abc import Callable, Sequence

from pnncore._netlist._flat import Fields, Placed

_BESIDE = ("ac", "distof1", "distof2", "dc")
_WAVES = ("pulse", "sin", "exp", "pwl", "sffm", "am", "trnoise", "trrandom")
# Where the delays of a wave are: it begins with what it has before them.
_DELAYS = {"pulse": (2,), "sin": (3,), "exp": (2, 4)}


def at_operating_point(one: Placed, given: Fields, ignored: Callable[[str, str], None]) -> float:
    """Return the value of a source at an operating point: DC, or what its wave begins with.

    Raises
    ------
    ConfigError
        If it cannot be told.
    """
    words = [word.lower() for word in given.words[3:]]
    texts = [given.settings["dc"]] if "dc" in given.settings else []
    waves: list[tuple[str, Sequence[str]]] = []
    k = 0
    while k < len(words):
        word = words[k]
        end = next((e for e in range(k + 1, len(words)) if words[e] in _BESIDE), len(words))
        if word == "dc":
            if k + 1 == len(words):
                raise one.card.refuse("DC has no value")
            texts.append(words[k + 1])
            k += 2
        elif word in _BESIDE:
            ignored(f"{word.upper()} of {one.name}", one.card.place)
            k += 1
            while k < len(words) and words[k] not in ("dc", *_WAVES):
                k += 1
        elif word in _WAVES:
            waves.append((word, words[k + 1 : end]))
            ignored(f"{word.upper()} of {one.name} beyond its beginning", one.card.place)
            k = end
        elif k == 0:
            texts.append(word)
            k = 1
        else:
            raise one.card.refuse(f"{given.words[3 + k]!r} is not understood")
    if len(texts) > 1 or len(waves) > 1:
        raise one.card.refuse(f"{one.name} has two values")
    if texts:
        return one.scope.value(texts[0], one.card, f"the value of {one.name}")
    return _beginning(one, *waves[0]) if waves else 0.0


def _beginning(one: Placed, kind: str, words: Sequence[str]) -> float:
    """Return what a wave begins with."""
    numbers = [one.scope.value(word, one.card, kind.upper()) for word in words]
    delays = [numbers[k] for k in _DELAYS.get(kind, ()) if k < len(numbers)]
    if kind == "pwl":
        delays = numbers[:1]
        is_known = len(numbers) >= 2 and len(numbers) % 2 == 0
    else:
        is_known = kind in _DELAYS and len(numbers) >= 2
    if not is_known or min(delays, default=0.0) < 0:
        raise one.card.refuse(
            f"what {kind.upper()} of {one.name} begins with is not understood: give DC"
        )
    if kind == "pwl":
        return numbers[1]
    if kind == "sin" and len(numbers) > 5:
        return numbers[0] + numbers[1] * math.sin(math.radians(numbers[5]))
    return numbers[0]
