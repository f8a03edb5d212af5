"""Netlists: circuits as SPICE reads them.

What is read is what acts at an operating point, as ngspice has it: R, L, V, I, D, level 1 NMOS
transistors whose gates sources hold, cubic elements as B sources, subcircuits, parameters and
expressions, included files. Nothing is dropped: what is not understood is refused with its line,
and what does not act at an operating point is named in a `NetlistWarning`.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pnncore._convert import as_list, shown
from pnncore._netlist._cards import cards
from pnncore._netlist._elements import Reader
from pnncore._netlist._flat import Flat, Placed
from pnncore._netlist._write import write as write
from pnncore.elements import Current, Difference, Element, nodes_of
from pnncore.errors import ConfigError, NetlistWarning

__all__ = ["named_alike", "read", "write"]


def read(
    source: Any,
    inputs: Sequence[str | Current],
    outputs: Sequence[str | Current | Difference],
    trained: Iterable[str] | None,
    stacklevel: int,
) -> list[Element]:
    """Return the elements of a netlist, without the sources that hold or feed `inputs`.

    Nodes have the names that `inputs` and `outputs` call them by, otherwise those of the netlist;
    ground is ``"0"``.
    """
    held = [one for one in inputs if isinstance(one, str)]
    _check_apart(held, [one for one in outputs if isinstance(one, str)])
    passed_over: dict[str, str] = {}

    def ignored(what: str, place: str) -> None:
        passed_over.setdefault(what, place)

    flat = Flat(cards(_source(source), ignored), ignored)
    fed = [None if isinstance(one, str) else nodes_of(one) for one in inputs]
    reader = Reader(flat, held, fed, _choice(trained, flat), ignored)
    named = [node for end in (*inputs, *outputs) for node in nodes_of(end)]
    elements = _named(reader.read(), named)
    if passed_over:
        said = [f"{what} ({place})" for what, place in passed_over.items()]
        more = f" and {len(said) - 12} more" if len(said) > 12 else ""
        warnings.warn(
            f"passed over, for it does not act at an operating point: {', '.join(said[:12])}{more}",
            NetlistWarning,
            stacklevel=stacklevel + 1,
        )
    return elements


def named_alike(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return inputs and outputs with one name for every node: that of its first mention.

    Ground is ``"0"``, as elements have it.
    """
    spelled = {"0": "0"}
    for end in (*inputs, *outputs):
        for node in nodes_of(end):
            spelled.setdefault(Reader.key(node), node)

    def alike(end: Any) -> Any:
        if isinstance(end, str):
            # Nodes by themselves are checked as they are called.
            return end if Reader.key(end) == "0" else spelled[Reader.key(end)]
        own = {"plus": end.plus, "minus": end.minus}
        names = {side: spelled[Reader.key(node)] for side, node in own.items() if node is not None}
        return dataclasses.replace(end, **names)

    return [alike(end) for end in inputs], [alike(end) for end in outputs]


def _source(source: Any) -> str | Path:
    if isinstance(source, os.PathLike):
        return Path(os.fspath(source))
    if not isinstance(source, str):
        raise ConfigError(f"a netlist is a text or a pathlib.Path, got {shown(source)}")
    if not {"\n", "\r"} & set(source):
        raise ConfigError(f"{source!r} is no netlist: for a file pass a pathlib.Path")
    return source


def _check_apart(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Check that nodes differ by more than their case, and that none is node 0."""
    for what, names in (("inputs", inputs), ("outputs", outputs)):
        keys = [Reader.key(name) for name in names]
        if "0" in keys:
            raise ConfigError(f"{what} name {names[keys.index('0')]!r}, which is ground")
        if doubled := [name for name, key in zip(names, keys, strict=True) if keys.count(key) > 1]:
            raise ConfigError(f"{what} name one node twice: {doubled}; SPICE sees no case")


def _choice(trained: Iterable[str] | None, flat: Flat) -> Callable[[Placed], bool]:
    """Return what tells trained elements: their names, or marks in the netlist."""
    if trained is None:
        return lambda one: one.card.trained
    wanted = as_list(trained, "trained", "a list of names of elements, or None")
    if stray := [name for name in wanted if not isinstance(name, str)]:
        raise ConfigError(f"trained must be names of elements, got {shown(stray[0])}")
    names = {name.lower() for name in wanted}
    if missing := names - {one.name.lower() for one in flat.elements}:
        raise ConfigError(f"trained names {sorted(missing)}, which are no elements of the netlist")
    return lambda one: one.name.lower() in names


def _named(found: Sequence[Element], wanted: Sequence[str]) -> list[Element]:
    """Return the elements with one name for every node, whatever its case."""
    spelled = {Reader.key(name): name for name in wanted} | {"0": "0"}
    kept = []
    for element in found:
        plus, minus = (
            spelled.setdefault(Reader.key(node), node) for node in (element.plus, element.minus)
        )
        kept.append(type(element)(**{**vars(element), "plus": plus, "minus": minus}))
    return kept
