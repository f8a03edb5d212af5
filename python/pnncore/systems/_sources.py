"""Voltage sources of circuits: what they fix, and what flows through them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore.elements import Element, VoltageSource
from pnncore.errors import ConfigError


class Sources:
    """What voltage sources fix.

    The node that stands for each node, and the voltage of the one over the other.

    Sources that are `ammeters` join no nodes to one: what flows through them is an unknown.

    Raises `ConfigError` where sources form a loop, with those that hold ground and inputs.
    """

    def __init__(
        self,
        elements: list[Element],
        inputs: list[str],
        outputs: list[str],
        ground: str | None,
        ammeters: Sequence[VoltageSource] = (),
    ) -> None:
        self.mentioned = dict.fromkeys(
            node for element in elements for node in (element.plus, element.minus)
        )
        self._above: dict[str, tuple[str, float]] = {}
        held = {*inputs, *([] if ground is None else [ground])}
        if ground in inputs:
            raise ConfigError(f"input {ground!r} is held by ground: a loop of sources")
        for node in outputs:
            if node in held:
                raise ConfigError(
                    f"output {node!r} is held by an input or a source: its voltage cannot be an "
                    "output"
                )
        sources = [element for element in elements if isinstance(element, VoltageSource)]
        for source in (one for one in sources if not any(one is other for other in ammeters)):
            (plus, up), (minus, down) = self.at(source.plus), self.at(source.minus)
            if plus == minus or (plus in held and minus in held):
                raise ConfigError(
                    f"{source}: its nodes are held against each other already: a loop of sources"
                )
            # V(plus) - V(minus), for the nodes that stand for others.
            drop = source.voltage - up + down
            if plus in held or (plus in outputs and minus not in held):
                plus, minus, drop = minus, plus, -drop
            if plus in outputs:
                reason = "an input or a source" if minus in held else "a source and another output"
                raise ConfigError(
                    f"output {plus!r} is held by {reason}: its voltage cannot be an output"
                )
            self._above[plus] = (minus, drop)
        # Held nodes are one group, of no name.
        roots = {node: self.at(node)[0] for node in self.mentioned}
        self._groups = {node: "" if root in held else root for node, root in roots.items()}
        self._check_ammeters(ammeters, outputs)
        self._elements = elements
        self._index = {node: k for k, node in enumerate(self.mentioned)}
        self._order = self._leaves(held)

    def _leaves(self, held: set[str]) -> list[tuple[int, str, str]]:
        """Return sources from the outside in, each with its outer node and its inner one.

        They make a forest, in which held nodes are roots. What leaves an outer node through
        everything else, leaves it through its source the other way.
        """
        at: dict[str, set[int]] = {}
        for k, element in enumerate(self._elements):
            if isinstance(element, VoltageSource):
                at.setdefault(element.plus, set()).add(k)
                at.setdefault(element.minus, set()).add(k)
        order, ends = [], [node for node in at if len(at[node]) == 1 and node not in held]
        while ends:
            node = ends.pop()
            if not at[node]:
                continue
            (k,) = at.pop(node)
            source = self._elements[k]
            other = source.minus if source.plus == node else source.plus
            order.append((k, node, other))
            at[other].discard(k)
            at[node] = set()
            if len(at[other]) == 1 and other not in held:
                ends.append(other)
        return order

    def _check_ammeters(self, ammeters: Sequence[VoltageSource], outputs: Sequence[str]) -> None:
        """Join the nodes of ammeters to groups; refuse loops, and outputs that are held."""
        for source in ammeters:
            if self.is_fixed(source.plus, source.minus):
                raise ConfigError(
                    f"{source}: its nodes are held against each other already: a loop of sources"
                )
            old, new = self._groups[source.plus], self._groups[source.minus]
            self._groups = {
                node: new if group == old else group for node, group in self._groups.items()
            }
        groups = [self._groups[node] for node in outputs]
        for node, group in zip(outputs, groups, strict=True):
            if group == "" or groups.count(group) > 1:
                raise ConfigError(
                    f"output {node!r} is held by a source: its voltage cannot be an output"
                )

    def is_fixed(self, a: str, b: str) -> bool:
        """Whether sources and inputs alone say what the voltage between two nodes is."""
        return self._groups[a] == self._groups[b]

    def currents(
        self,
        flowing: npt.NDArray[np.float64],
        fed: Iterable[tuple[str, str, npt.NDArray[Any]]] = (),
    ) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
        """Return the current through every element, and what leaves every node through all.

        The latter is not zero at held nodes: that is what holds them.

        Parameters
        ----------
        flowing
            The currents (samples, elements) through all elements but voltage sources.
        fed
            Currents (samples,) that are inputs, with the nodes that they flow from and to.
        """
        found = np.zeros((len(flowing), len(self._elements)))
        others = [k for k, e in enumerate(self._elements) if not isinstance(e, VoltageSource)]
        found[:, others] = flowing
        leaving = np.zeros((len(self._index), len(flowing)))
        for ends, sign in (("plus", 1.0), ("minus", -1.0)):
            nodes = [self._index[getattr(self._elements[k], ends)] for k in others]
            np.add.at(leaving, nodes, sign * flowing.T)
        for plus, minus, current in fed:
            leaving[self._index[plus]] += current
            leaving[self._index[minus]] -= current
        for k, node, other in self._order:
            outer, inner = self._index[node], self._index[other]
            # Out of the outer node through the source.
            current = -leaving[outer]
            found[:, k] = current if self._elements[k].plus == node else -current
            leaving[outer] = 0.0
            leaving[inner] -= current
        return found, {node: leaving[k] for node, k in self._index.items()}

    def at(self, node: str) -> tuple[str, float]:
        """Return the node that stands for `node`, and the voltage of `node` over it."""
        over = 0.0
        while node in self._above:
            node, drop = self._above[node]
            over += drop
        return node, over
