"""Electrical circuits: any graph of two-terminal elements."""

import dataclasses
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore import _core, _network_plot, elements
from pnncore._convert import (
    FloatArray,
    as_dtype,
    as_list,
    as_threads,
    instance,
    made,
    node_name,
    shown,
)
from pnncore.devices import Device
from pnncore.elements import (
    Cubic,
    Current,
    CurrentSource,
    Difference,
    Element,
    Resistor,
    Transistor,
    VoltageSource,
)
from pnncore.errors import ConfigError, SettlingWarning
from pnncore.systems._base import System
from pnncore.systems._unknowns import Input, Output, Unknowns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONDUCTANCES = Device(lower=0.0)


class Circuit(System):
    """An electrical circuit: any graph of two-terminal elements.

    The states are the voltages of all nodes that no source holds. They settle to the minimum of the
    co-content, the sum over elements of the integral of I dV, at which the currents into every node
    cancel (Kirchhoff's law). A trained conductance learns from its own voltage: the derivative of
    the co-content by it is V²/2. The squared-error nudge of equilibrium propagation is a current
    ``beta * (y - v)`` into each output.

    Linear circuits are solved by one sparse Cholesky factorisation per boundary condition, shared
    by all samples; others by damped Newton steps, with ideal diodes as walls. The analysis of the
    graph is done once, here. Operating points are exact to rounding whatever the `Settling` asks
    for; a sweep is a Newton step.

    With outputs that are currents or differences, operating points are stationary points of the
    co-content and no minima: Newton steps on Kirchhoff's laws with LU factors (modified nodal
    analysis), and every method but `RecurrentBackprop`.

    Circuits with a `Transistor` have no co-content, and `Settled.energy` is NaN: Newton steps on
    Kirchhoff's law itself with LU factors. A floating voltage source makes one unknown of the two
    nodes that it joins.

    Parameters
    ----------
    elements
        The elements, from `pnncore.elements`; nodes are whatever names they mention.
    inputs
        The nodes that are held at the voltages x; or `pnncore.elements.Current`, fed by x.
    outputs
        The nodes whose voltages are the outputs; or `pnncore.elements.Difference` of two nodes, or
        `pnncore.elements.Current` through a source or into a held node.
    ground
        The node at zero volts; None where inputs alone set the voltages.
    device
        What trained conductances are stored in: a `pnncore.devices.Device` with `lower` at least 0.
    dtype
        ``"float64"``, or ``"float32"`` for parameters and states; the solvers compute in float64.

    Attributes
    ----------
    params
        ``g``, the conductances of trained `Resistor` and `Cubic` elements, ``i``, the currents of
        trained sources, and ``gate``, the gate voltages of trained transistors, in the order of
        `elements`; one that would be empty does not exist.
    nodes
        The names of the free nodes, outputs last. Of nodes joined by voltage sources one stands for
        all.

    Raises
    ------
    ConfigError
        If a node has no conducting path to a held one (the message names it), sources contradict
        each other, or a setting is out of range.

    References
    ----------
    Millar, Phil. Mag. 42, 1150 (1951): content and co-content. Kendall et al., arXiv 2006.01981:
    equilibrium propagation in circuits.

    Examples
    --------
    A voltage divider that learns.

    >>> import pnncore as pnn
    >>> from pnncore.elements import Resistor
    >>> divider = [Resistor("in", "out", 1.0), Resistor("out", "0", 3.0)]
    >>> net = Circuit(divider, inputs=["in"], outputs=["out"])
    >>> net
    Circuit(2 elements, inputs=['in'], outputs=['out'], 1 free nodes; g (2,))
    >>> float(net.predict([[1.0]])[0, 0])
    0.25
    """

    # What pictures call what nodes have, and what edges carry.
    quantities = "voltage", "current"

    def __init__(
        self,
        elements: Iterable[Element],
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        ground: str | None = "0",
        device: Device = _CONDUCTANCES,
        dtype: npt.DTypeLike = "float64",
    ) -> None:
        self.elements = as_list(elements, "elements", "a list of pnncore.elements")
        self.inputs: list[Any] = ends_of(inputs, "inputs", Current)
        self.outputs: list[Any] = ends_of(outputs, "outputs", Current, Difference)
        self.ground = None if ground is None else _names([ground], "ground")[0]
        if not isinstance(device, Device):
            raise ConfigError(f"device must be a pnncore.devices.Device, got {shown(device)}")
        self.device = device
        resolved = as_dtype(dtype)
        if stray := [element for element in self.elements if not isinstance(element, Element)]:
            raise ConfigError(f"elements must come from pnncore.elements, got {shown(stray[0])}")
        self._unknowns = Unknowns(self.elements, self.inputs, self.outputs, self.ground)
        self._sources = self._unknowns.sources
        self.nodes = self._unknowns.free
        terminal = self._unknowns.terminal
        self._joined = [
            element for element in self.elements if not isinstance(element, VoltageSource)
        ]
        spec = {
            **self._unknowns.spec,
            "elements": [
                {**element.law(), "from": terminal(element.plus), "to": terminal(element.minus)}
                for element in self._joined
            ],
            "device": device.to_config(),
        }
        super().__init__(_core.System.build("Circuit", json.dumps(spec)), resolved)
        for name, array in self.params.items():
            array[...] = [
                getattr(e, _SETTINGS[type(e)][1]) for e in self._joined if _parameter(e) == name
            ]

    @classmethod
    def from_graph(
        cls,
        graph: Any,
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        conductance: str = "conductance",
        **settings: Any,
    ) -> "Circuit":
        """Return the circuit of trained resistors along the edges of a networkx graph.

        Parameters
        ----------
        graph
            A networkx graph; nodes are named by ``str``.
        inputs, outputs
            The names of nodes.
        conductance
            The attribute of edges that is their conductance, such as ``"weight"``; 1 where an edge
            has none.
        settings
            What `Circuit` takes besides.
        """
        resistors = [Resistor(u, v, g) for u, v, g in edges_of(graph, conductance)]
        return cls(resistors, inputs=inputs, outputs=outputs, **settings)

    def plot(
        self,
        x: Any,
        axes: "Axes | None" = None,
        *,
        layout: Mapping[str, tuple[float, float]] | None = None,
    ) -> "Figure":
        """Draw voltages (colours of nodes) and currents (widths of lines) at one operating point.

        Needs matplotlib.

        Parameters
        ----------
        x
            The voltages of the inputs (n_in,).
        axes
            Where to draw; None makes a figure.
        layout
            Where to draw each node; None places joined nodes near each other.

        Returns
        -------
        matplotlib.figure.Figure
            What was drawn on; notebooks show it.
        """
        return _network_plot.circuit(self, self.as_sample(x)[0], axes, layout=layout)

    def to_spice(self, x: Any) -> str:
        """Return a netlist that ngspice runs.

        The circuit at its present parameters, with its inputs held at `x`.

        Ideal diodes become diodes with a drop of some millivolts; resistors that training has
        brought to zero conductance are left out.

        Parameters
        ----------
        x
            The voltages of the inputs (n_in,).

        Raises
        ------
        ConfigError
            If the name of a node is none that SPICE reads.
        """
        from pnncore import _netlist

        return _netlist.write(self, self.as_sample(x)[0].tolist())

    @classmethod
    def from_spice(
        cls,
        source: str | PathLike[str],
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        trained: Iterable[str] | None = None,
        **settings: Any,
    ) -> "Circuit":
        """Return the circuit of a netlist, at its operating point.

        It may have R, V, I, L (a wire) and C (nothing), diodes with the series resistance and the
        breakdown of their model, level 1 NMOS transistors whose gates sources hold, the B sources
        of `to_spice`, subcircuits, parameters, expressions and included files. As in SPICE the
        first line is the title, case does not matter, and ``gnd`` is node 0.

        Parameters
        ----------
        source
            The text of the netlist, or the path of its file as a `pathlib.Path`.
        inputs, outputs
            As for `Circuit`. The source that holds an input, or feeds it, is left out: x takes its
            place. Where several feed input k, it is the one called ``Iin<k>``, as `to_spice` has
            it.
        trained
            The names of the elements that are trained, such as ``"R1"`` or ``"X1.R2"``; None: those
            whose line ends in the comment ``$ trained``.
        settings
            What `Circuit` takes besides.

        Raises
        ------
        ConfigError
            If a line is not understood; the message says which. What does not act at an operating
            point is named in a `NetlistWarning`.
        """
        from pnncore import _netlist

        inputs, outputs = _netlist.named_alike(
            ends_of(inputs, "inputs", Current), ends_of(outputs, "outputs", Current, Difference)
        )
        found = _netlist.read(source, inputs, outputs, trained, stacklevel=2)
        grounded = any("0" in (element.plus, element.minus) for element in found)
        settings = {"ground": "0" if grounded else None} | settings
        return cls(found, inputs=inputs, outputs=outputs, **settings)

    def values(self) -> FloatArray:
        """Return the present value of every element, `VoltageSource` left out; NaN for diodes."""
        trained = {name: iter(array) for name, array in self.params.items()}

        def value(element: Element) -> float:
            name = _parameter(element)
            if name is not None:
                return float(next(trained[name]))
            return (
                float(getattr(element, _SETTINGS[type(element)][1]))
                if type(element) in _SETTINGS
                else np.nan
            )

        return np.array([value(element) for element in self._joined], dtype=np.float64)

    def voltages(self, x: Any, *, threads: int | None = None) -> dict[str, FloatArray]:
        """Return the voltage (samples,) of every node at the free operating point.

        Held nodes are among them.
        """
        settled = self._at_rest(x, threads)
        unknowns = np.hstack(settled.states).T
        at = {node: unknowns[k] for node, k in self._unknowns.numbers.items()}
        fed = zip(self.inputs, self.as_rows(x).T, strict=True)
        at |= {node: v for node, v in fed if isinstance(node, str)}
        if self.ground is not None:
            at[self.ground] = np.zeros(len(settled.status), self.dtype)
        found = {}
        for node in self._sources.mentioned:
            root, offset = self._sources.at(node)
            found[node] = at[root] + self.dtype.type(offset)
        return found

    def currents(self, x: Any, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Return the current (samples, elements) through every element, from plus to minus.

        The elements are those of `elements`, in order. A `VoltageSource` of zero volts is an
        ammeter. The current of an ideal diode is what Kirchhoff's law leaves to it, shared evenly
        where several hold one node. NaN for samples without an operating point.
        """
        flowing = self._flowing(x, threads)
        if lost := int(np.isnan(flowing).any(axis=1).sum()):
            warnings.warn(
                f"of {len(flowing)} samples {lost} have no operating point",
                SettlingWarning,
                stacklevel=2,
            )
        return self._sources.currents(flowing, self._fed(x))[0]

    def input_currents(self, x: Any, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Return the current (samples, n_in) that flows into the circuit out of every input."""
        leaving = self._sources.currents(self._flowing(x, threads), self._fed(x))[1]
        rows = self.as_rows(x).T
        found = [
            leaving[one] if isinstance(one, str) else row
            for one, row in zip(self.inputs, rows, strict=True)
        ]
        return np.stack(found, axis=1).astype(np.float64)

    def _fed(self, x: Any) -> list[tuple[str, str, FloatArray]]:
        """Return the inputs that are currents, with the nodes that they flow from and to."""
        rows = zip(self.inputs, self.as_rows(x).T, strict=True)
        return [(one.plus, str(one.minus), row) for one, row in rows if isinstance(one, Current)]

    def _flowing(self, x: Any, threads: int | None) -> npt.NDArray[np.float64]:
        return _core.currents(self.core, self.lent(), self.as_rows(x), as_threads(threads))

    def power(self, x: Any, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Return the power (samples,) that resistive elements and diodes dissipate.

        It is that at the free operating point.

        The sum of V I, sources left out: in watts for volts and amperes. Times the time that a
        circuit takes to settle it is the energy of an inference.
        """
        at = self.voltages(x, threads=threads)
        flowing = self._flowing(x, threads)
        total = np.zeros(len(flowing))
        for k, element in enumerate(self._joined):
            if not isinstance(element, CurrentSource):
                total += flowing[:, k] * (at[element.plus] - at[element.minus])
        return total

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal circuit, as plain data; checkpoints keep it."""
        return {
            "name": "Circuit",
            "elements": [element.to_config() for element in self.elements],
            "inputs": [end_to_config(one) for one in self.inputs],
            "outputs": [end_to_config(one) for one in self.outputs],
            "ground": self.ground,
            "device": self.device.to_config(),
            "dtype": str(self.dtype),
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Circuit":
        """Return the circuit of a `to_config` dictionary, its name left out."""
        found = [
            elements.from_config(one)
            for one in as_list(settings["elements"], "elements", "a list of elements")
        ]
        settings = {**settings, "elements": found, "device": Device.from_config(settings["device"])}
        for ends in ("inputs", "outputs"):
            settings[ends] = [end_from_config(one) for one in as_list(settings[ends], ends, "ends")]
        return made(cls, settings, "Circuit")

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        return (
            f"{type(self).__name__}({len(self.elements)} elements, inputs={_few(self.inputs)}, "
            f"outputs={_few(self.outputs)}, {len(self.nodes)} free nodes; "
            f"{shapes or 'nothing is trained'})"
        )


_SETTINGS = {
    Resistor: ("g", "conductance"),
    Cubic: ("g", "conductance"),
    CurrentSource: ("i", "current"),
    Transistor: ("gate", "gate"),
}
"""The parameter that a trained element's value goes to, and the setting it comes from."""


def _parameter(element: Element) -> str | None:
    return _SETTINGS[type(element)][0] if getattr(element, "trained", False) else None


def _names(names: Any, what: str) -> list[str]:
    return ends_of(names, what)


def ends_of(ends: Any, what: str, *kinds: type) -> list[Any]:
    """Return names of nodes, and what else there may be of these kinds."""
    if isinstance(ends, list | tuple):
        ends = [node_name(end) for end in ends]
    if not isinstance(ends, list) or not all(isinstance(end, (str, *kinds)) for end in ends):
        more = "".join(f", or {kind.__name__}" for kind in kinds)
        raise ConfigError(f"{what} must be a list of names of nodes{more}, got {shown(ends)}")
    if not ends:
        raise ConfigError(f"{what} is empty")
    if repeated := {str(end) for end in ends if ends.count(end) > 1}:
        raise ConfigError(f"{what} names {sorted(repeated)} more than once")
    return list(ends)


def end_to_config(end: Any) -> Any:
    """Return an input or output as plain data."""
    if isinstance(end, str):
        return end
    return {"name": type(end).__name__, **dataclasses.asdict(end)}


def end_from_config(end: Any) -> Any:
    """Return the input or output of `end_to_config`."""
    if isinstance(end, str):
        return end
    settings = dict(instance(end, dict, "an end of a circuit", "a name or settings"))
    kind = {"Current": Current, "Difference": Difference}.get(settings.pop("name", ""))
    if kind is None:
        raise ConfigError(f"an input or output must be a node, Current or Difference, got {end}")
    return made(kind, settings, kind.__name__)


def edges_of(graph: Any, attribute: str) -> list[tuple[str, str, float]]:
    """Return the edges of a networkx graph: two nodes, and an attribute, 1 where there is none."""
    edges = getattr(graph, "edges", None)
    if not callable(edges):
        raise ConfigError(f"graph must be a networkx graph, got {shown(graph)}")
    instance(attribute, str, "conductance", "the name of an attribute of edges")
    return [(str(u), str(v), g) for u, v, g in edges(data=attribute, default=1.0)]


def _few(ends: list[Any]) -> str:
    return repr(ends) if len(ends) <= 4 else f"[{ends[0]!r}, ..., {ends[-1]!r}]"
