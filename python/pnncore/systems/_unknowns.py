"""What circuits are solved for: voltages of free nodes, and what meters show."""

from collections.abc import Sequence
from typing import Any

from pnncore.elements import Current, Difference, Element, VoltageSource, nodes_of
from pnncore.errors import ConfigError
from pnncore.systems._sources import Sources

Input = str | Current
Output = str | Difference | Current


class Unknowns:
    """The unknowns of a circuit, and where every terminal is.

    Attributes
    ----------
    sources
        What voltage sources fix that are no ammeters.
    numbers
        The number of the unknown of every free node; of nodes that sources join, of one.
    spec
        What the core reads of terminals, branches and inputs that are currents.

    Raises
    ------
    ConfigError
        If a node is not there, a source is missing or one too many, or what is to be an output is
        fixed by sources.
    """

    def __init__(
        self,
        elements: Sequence[Element],
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        ground: str | None,
    ) -> None:
        self.inputs, self.outputs, self.ground = inputs, outputs, ground
        self.held: dict[str, dict[str, float]] = {
            one: {"input": k} for k, one in enumerate(inputs) if isinstance(one, str)
        }
        self._check_nodes({node for one in elements for node in (one.plus, one.minus)})
        voltages = [one for one in outputs if isinstance(one, str)]
        ammeters = {
            one: _ammeter(elements, one)
            for one in outputs
            if isinstance(one, Current) and one.minus is not None
        }
        self.sources = Sources(
            list(elements), list(self.held), voltages, ground, list(ammeters.values())
        )
        self._check_readings()
        self._places: dict[str, dict[str, float]] = dict(self.held)
        if ground is not None:
            self._places[ground] = {"fixed": 0.0}
        self._number(outputs)
        self.spec = self._spec(ammeters)

    def _check_nodes(self, mentioned: set[str]) -> None:
        ends: list[tuple[str, Output]] = [("input", end) for end in self.inputs] + [
            ("output", end) for end in self.outputs
        ]
        for what, end in ends:
            if unknown := [node for node in nodes_of(end) if node not in mentioned]:
                raise ConfigError(f"{what} {unknown[0]!r} is no node of any element")
        if self.ground is not None and self.ground not in mentioned:
            raise ConfigError(
                f"ground {self.ground!r} is no node of any element: name the one at zero volts "
                "with ground=, or say ground=None where inputs alone set the voltages"
            )
        others = [node for node in mentioned if node.lower() in ("gnd", "ground")]
        if self.ground is not None and others and self.ground not in others:
            raise ConfigError(
                f"node {others[0]!r} is not ground, which is {self.ground!r}: give it one name, or "
                "another"
            )
        for one in self.inputs:
            if isinstance(one, Current) and one.minus is None:
                raise ConfigError(f"input {one} needs a second node: the one that x is fed into")

    def _check_readings(self) -> None:
        for one in self.outputs:
            if isinstance(one, Current) and one.minus is None and one.plus not in self._roots():
                raise ConfigError(
                    f"output {one}: neither x nor ground holds {one.plus!r}; name the two nodes of "
                    "a VoltageSource"
                )
            if isinstance(one, Difference) and self.sources.is_fixed(one.plus, one.minus):
                raise ConfigError(f"output {one} is fixed by inputs and sources")

    def _roots(self) -> set[str]:
        return {*self.held, *([] if self.ground is None else [self.ground])}

    def _number(self, outputs: Sequence[Output]) -> None:
        """Give numbers to unknowns: free nodes, currents of voltmeters, then the outputs."""
        metered = [one.plus for one in outputs if isinstance(one, Current) and one.minus is None]
        roots = dict.fromkeys(self.sources.at(node)[0] for node in self.sources.mentioned)
        self.free = [node for node in roots if node not in self._roots()]
        inner = [node for node in self.free if node not in outputs]
        self.free = [*inner, *(node for node in outputs if isinstance(node, str))]
        self.voltmeters = [one for one in outputs if isinstance(one, Difference)]
        names = [*inner, *metered, *(f"current of {one}" for one in self.voltmeters)]
        self.names = [*names, *(str(one) for one in outputs)]
        self.numbers = {node: k for k, node in enumerate([*inner, *metered])}
        self.first_output = len(names)
        self.numbers |= {
            one: self.first_output + k for k, one in enumerate(outputs) if isinstance(one, str)
        }

    def terminal(self, node: str) -> dict[str, float]:
        """Return where a terminal at a node is: a place, and the voltage over it."""
        root, offset = self.sources.at(node)
        place = {"node": self.numbers[root]} if root in self.numbers else self._places[root]
        return {**place, "offset": offset}

    def _spec(self, ammeters: dict[Current, VoltageSource]) -> dict[str, Any]:
        branches: list[dict[str, Any]] = []
        for k, one in enumerate(self.outputs, self.first_output):
            if isinstance(one, Difference):
                current = self.first_output - len(self.voltmeters) + self.voltmeters.index(one)
                ends = {"from": self.terminal(one.plus), "to": self.terminal(one.minus)}
                branches.append({**ends, "current": current, "across": k})
            elif isinstance(one, Current) and one.minus is None:
                ends = {"from": {"node": self.numbers[one.plus]}, "to": self._places[one.plus]}
                branches.append({**ends, "current": k})
            elif isinstance(one, Current):
                source = ammeters[one]
                to = self.terminal(str(one.minus))
                to["offset"] += source.voltage * (1 if source.plus == one.plus else -1)
                branches.append({"from": self.terminal(one.plus), "to": to, "current": k})
        fed = [
            {"input": k, "from": self.terminal(one.plus), "to": self.terminal(str(one.minus))}
            for k, one in enumerate(self.inputs)
            if isinstance(one, Current)
        ]
        return {
            "inputs": len(self.inputs),
            "outputs": len(self.outputs),
            "nodes": self.names,
            "branches": branches,
            "input_currents": fed,
        }


def _ammeter(elements: Sequence[Element], one: Current) -> VoltageSource:
    """Return the voltage source between two nodes."""
    found = [
        element
        for element in elements
        if isinstance(element, VoltageSource)
        and {element.plus, element.minus} == set(nodes_of(one))
    ]
    if len(found) != 1:
        raise ConfigError(
            f"output {one} is the current through a VoltageSource between {one.plus!r} and "
            f"{one.minus!r}, and there are {len(found)}: one of 0 V is an ammeter"
        )
    return found[0]
