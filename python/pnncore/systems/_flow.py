"""Flow networks: linear resistor networks as the literature of coupled learning has them."""

import numbers
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy.typing as npt

from pnncore._convert import as_list, made, shown
from pnncore.devices import Device
from pnncore.elements import Current, Difference, Resistor
from pnncore.errors import ConfigError
from pnncore.systems._circuit import (
    Circuit,
    edges_of,
    end_from_config,
    end_to_config,
    ends_of,
)
from pnncore.systems._unknowns import Input, Output

# Of the smallest initial conductance: pipes that are narrower are as good as closed.
_NARROWEST = 1e-6


class Flow(Circuit):
    """A flow network: pipes between nodes, whose conductances learn.

    Pressures take the place of voltages.

    A `Circuit` of trained resistors, and solved like one, but that no node is `ground` unless one
    is named. Inputs are held at pressures
    x; one node, `ground`, is at pressure zero; the pressures at the outputs are the answer.

    Parameters
    ----------
    edges
        The pipes: pairs of names of nodes.
    inputs, outputs, ground
        Names of nodes, or flows and differences of pressures, as for `Circuit`. `ground` may be
        None: then inputs alone set the pressures.
    conductance
        The initial conductance of all pipes, or one per pipe.
    device
        What conductances are stored in. By default they stay above a millionth of the smallest
        initial one, so that no node is cut off.
    dtype
        ``"float64"``, or ``"float32"`` for parameters and states.

    References
    ----------
    Stern, Hexner, Rocks, Liu, Phys. Rev. X 11, 021045 (2021).

    Examples
    --------
    >>> net = Flow([("a", "b"), ("b", "c"), ("c", "d")], inputs=["a", "d"], outputs=["b", "c"])
    >>> net.predict([[3.0, 0.0]]).round(6).tolist()
    [[2.0, 1.0]]
    """

    quantities = "pressure", "flow"

    def __init__(
        self,
        edges: Iterable[tuple[str, str]],
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        ground: str | None = None,
        conductance: float | Sequence[float] = 1.0,
        device: Device | None = None,
        dtype: npt.DTypeLike = "float64",
    ) -> None:
        wanted = "pairs of names of nodes"
        pairs = [tuple(as_list(edge, "edges", wanted)) for edge in as_list(edges, "edges", wanted)]
        if bad := [pair for pair in pairs if len(pair) != 2]:
            raise ConfigError(f"edges must be {wanted}, got {shown(bad[0])}")
        one = isinstance(conductance, numbers.Real)
        each = (
            [conductance] * len(pairs)
            if one
            else as_list(conductance, "conductance", "a number, or one per edge")
        )
        if len(each) != len(pairs):
            raise ConfigError(
                f"conductance must be one number, or one per edge: {len(pairs)}, got {len(each)}"
            )
        resistors = [Resistor(u, v, g) for (u, v), g in zip(pairs, each, strict=True)]
        if device is None:
            device = Device(lower=_NARROWEST * min((r.conductance for r in resistors), default=1.0))
        super().__init__(
            resistors, inputs=inputs, outputs=outputs, ground=ground, device=device, dtype=dtype
        )
        named = [output for output in self.outputs if isinstance(output, str)]
        around = [self._held_around(output) for output in named]
        fed = any(isinstance(one, Current) for one in [*self.inputs, *self.outputs])
        if around and not fed and all(len(held) < 2 for held in around):
            raise ConfigError(
                f"output {self.outputs[0]!r} is joined to one held node only, "
                f"{around[0].pop()!r}, and has its pressure whatever the conductances are: give "
                "ground=, or another input"
            )

    def _held_around(self, output: str) -> set[str]:
        """Return the held nodes that an output is joined to by free ones."""
        held = {*self.inputs, *([] if self.ground is None else [self.ground])}
        seen, rest = {output}, [output]
        neighbours: dict[str, list[str]] = {}
        for pipe in self.elements:
            neighbours.setdefault(pipe.plus, []).append(pipe.minus)
            neighbours.setdefault(pipe.minus, []).append(pipe.plus)
        while rest:
            for node in neighbours[rest.pop()]:
                if node not in seen:
                    seen.add(node)
                    if node not in held:
                        rest.append(node)
        return seen & held

    @classmethod
    def from_graph(
        cls,
        graph: Any,
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        conductance: str = "conductance",
        **settings: Any,
    ) -> "Flow":
        """Return the network of pipes along the edges of a graph: see `Circuit.from_graph`."""
        edges = edges_of(graph, conductance)
        pipes, each = [(u, v) for u, v, _ in edges], [g for _, _, g in edges]
        return cls(pipes, inputs=inputs, outputs=outputs, conductance=each, **settings)

    @classmethod
    def from_spice(
        cls,
        source: str | PathLike[str],
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        trained: Iterable[str] | None = None,
        **settings: Any,
    ) -> "Flow":
        """Return the network of a netlist of resistors, all of which are pipes that learn.

        `ConfigError` for any other element; see `Circuit.from_spice` for the rest.
        """
        if trained is not None:
            raise ConfigError("all pipes of a Flow are trained: leave trained out")
        from pnncore import _netlist

        inputs, outputs = _netlist.named_alike(
            ends_of(inputs, "inputs", Current), ends_of(outputs, "outputs", Current, Difference)
        )
        found = _netlist.read(source, inputs, outputs, None, stacklevel=2)
        if other := [element for element in found if not isinstance(element, Resistor)]:
            raise ConfigError(f"pipes are resistors, and the netlist has {shown(other[0])}")
        pipes = [(pipe.plus, pipe.minus) for pipe in found]
        each = [pipe.conductance for pipe in found if isinstance(pipe, Resistor)]
        settings = {"ground": "0" if any("0" in pipe for pipe in pipes) else None} | settings
        return cls(pipes, inputs=inputs, outputs=outputs, conductance=each, **settings)

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal network, as plain data; checkpoints keep it."""
        return {
            "name": "Flow",
            "edges": [(element.plus, element.minus) for element in self.elements],
            "conductance": [
                element.conductance for element in self.elements if isinstance(element, Resistor)
            ],
            "inputs": [end_to_config(one) for one in self.inputs],
            "outputs": [end_to_config(one) for one in self.outputs],
            "ground": self.ground,
            "device": self.device.to_config(),
            "dtype": str(self.dtype),
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Flow":
        """Return the network of a `to_config` dictionary, its name left out."""
        settings = {**settings, "device": Device.from_config(settings["device"])}
        for ends in ("inputs", "outputs"):
            settings[ends] = [end_from_config(one) for one in as_list(settings[ends], ends, "ends")]
        return made(cls, settings, "Flow")
