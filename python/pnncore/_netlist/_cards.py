"""Cards: the lines of a netlist, continuations joined, comments cut off, and files included."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pnncore.errors import ConfigError

# Files that include each other are told from files that lie deep.
_DEEPEST = 20


@dataclass(frozen=True)
class Card:
    """One card of a netlist.

    Attributes
    ----------
    text
        The card without comments, its continuations joined.
    place
        Where it begins, as messages say it: ``"line 3"``, ``"models.lib, line 3"``.
    trained
        Whether the comment behind it says ``trained``.
    """

    text: str
    place: str
    trained: bool = False

    @property
    def kind(self) -> str:
        """The letter of an element, or the name of a control card such as ``".model"``."""
        word = self.text.split(maxsplit=1)[0].lower()
        return word if word.startswith(".") else word[0]

    def refuse(self, what: str) -> ConfigError:
        """Return the error that says what is wrong with the card."""
        return ConfigError(f"{self.place}: {what}")


def cards(source: str | Path, ignored: Callable[[str, str], None]) -> list[Card]:
    """Return the cards of a netlist, a text or a file, up to its ``.end``.

    The first line is the title, whatever it looks like. What is passed over and does not act at an
    operating point is told to `ignored`, with its place.

    Raises
    ------
    ConfigError
        If files include each other, or a file or a section of one is not there.
    """
    if isinstance(source, Path):
        name, text, folder = source.name, _text(source, None), source.parent
    else:
        name, text, folder = "", source, Path()
    title, *lines = _lines(text)
    if re.match(r"[rcldvimbx]\w*\d\w*\s+\S+\s+\S+\s+\S", title.strip(), re.IGNORECASE) or re.match(
        r"\.(?!title)\w+", title.strip()
    ):
        ignored(f"the title {title.strip()!r}, which looks like an element or a card", "line 1")
    return list(_included(_joined(lines, name, 2, ignored), (folder, folder), ignored, 0))


def _lines(text: str) -> list[str]:
    """Return the lines of a text; only line feeds and carriage returns end one."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _text(path: Path, card: Card | None) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        # Older libraries have a degree sign or a mu of their code page in a comment.
        return path.read_text(encoding="latin-1")
    except OSError as error:
        if card is None:
            raise
        raise card.refuse(f"{path} cannot be read: {error.strerror}") from None


def _place(name: str, number: int) -> str:
    return f"{name}, line {number}" if name else f"line {number}"


def _joined(
    lines: list[str], name: str, first: int, ignored: Callable[[str, str], None]
) -> Iterator[Card]:
    """Give every card of a text."""
    card: Card | None = None
    control = ended = ""
    for number, line in enumerate(lines, first):
        place = _place(name, number)
        body, comment = _parted(line)
        if control:
            control = "" if body.lower() == ".endc" else control
            continue
        if body and ended:
            raise ConfigError(f"{place}: there is a card after .end ({ended})")
        if not body:
            if card is not None and _says_trained(comment) and line.strip().startswith("+"):
                card = replace(card, trained=True)
            continue
        if body.startswith("+"):
            if card is None:
                raise ConfigError(f"{place} continues nothing")
            text = f"{card.text} {body[1:].strip()}".strip()
            card = replace(card, text=text, trained=card.trained or _says_trained(comment))
            continue
        if card is not None:
            yield card
            card = None
        if body.lower().split()[0] == ".control":
            control = place
            ignored("commands between .control and .endc", place)
        elif body.lower().split()[0] == ".end":
            ended = place
        else:
            card = Card(body, place, _says_trained(comment))
    if control:
        raise ConfigError(f"{control}: .control without .endc")
    if card is not None:
        yield card


def _parted(line: str) -> tuple[str, str]:
    """Return a line without its comment, and the comment."""
    body = line.strip()
    if body.startswith(("*", "#", "$", ";", "//")):
        return "", body
    is_file = re.match(r"\.(inc|include|lib)\b", body, re.IGNORECASE)
    # A dollar within a word is part of the word.
    end = re.search(r"(?:^|(?<=[\s,]))\$|;" + ("" if is_file else "|//"), body)
    if end is None:
        return body, ""
    return body[: end.start()].strip(), body[end.end() :]


def _says_trained(comment: str) -> bool:
    return comment.strip().lower() == "trained"


def _included(
    found: Iterator[Card],
    folders: tuple[Path, Path],
    ignored: Callable[[str, str], None],
    depth: int,
) -> Iterator[Card]:
    """Give cards, those of included files in the place of the cards that include them.

    They are looked for in the folder of the netlist, and in that of the file that includes them.
    """
    for card in found:
        if card.kind not in (".include", ".inc", ".incl", ".lib"):
            yield card
            continue
        words = re.findall(r'"[^"]*"|\'[^\']*\'|\S+', card.text)[1:]
        names = [word.strip("\"'") for word in words]
        if len(names) != (2 if card.kind == ".lib" else 1):
            raise card.refuse(
                ".lib takes a file and a section" if card.kind == ".lib" else "give one file"
            )
        if depth == _DEEPEST:
            raise card.refuse(f"files include each other: {_DEEPEST} levels down")
        places = list(dict.fromkeys(folder / Path(names[0]).expanduser() for folder in folders))
        there = [place for place in places if place.exists()]
        if len(there) > 1 and not there[0].samefile(there[1]):
            raise card.refuse(f"there are two files of this name: {there[0]} and {there[1]}")
        path = there[0] if there else places[-1]
        lines, first = _lines(_text(path, card)), 1
        if card.kind == ".lib":
            lines, first = _section(lines, names[1], card)
        yield from _included(
            _joined(lines, path.name, first, ignored), (folders[0], path.parent), ignored, depth + 1
        )


def _section(lines: list[str], name: str, card: Card) -> tuple[list[str], int]:
    """Return the lines between ``.lib name`` and ``.endl``, and the number of the first."""
    begins = re.compile(rf"\s*\.lib\s+{re.escape(name)}\s*", re.IGNORECASE)
    for number, line in enumerate(lines):
        if begins.fullmatch(line):
            inside = lines[number + 1 :]
            for count, end in enumerate(inside):
                if re.match(r"\s*\.endl\b", end, re.IGNORECASE):
                    return inside[:count], number + 2
            raise card.refuse(f"section {name} has no .endl")
    raise card.refuse(f"the library has no section {name}")
