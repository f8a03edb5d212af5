"""Pictures of networks.

Voltages and currents on the graph of a circuit, springs of an elastic network.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore.elements import VoltageSource, nodes_of
from pnncore.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pnncore.systems import Circuit, Elastic

FloatArray = npt.NDArray[Any]
_INK, _FAINT, _STRONG = "#222222", "#BBBBBB", "#D55E00"


def _places(
    circuit: "Circuit", layout: Mapping[str, tuple[float, float]] | None
) -> dict[str, FloatArray]:
    """Return where every node is drawn.

    As given, or by springs between joined nodes, inputs left and outputs right.
    """
    pairs = [(e.plus, e.minus) for e in circuit.elements]
    names = list(dict.fromkeys(node for pair in pairs for node in pair))
    if layout is not None:
        if missing := [name for name in names if name not in layout]:
            raise ConfigError(f"layout has no place for the nodes {missing[:5]}")
        return {name: np.asarray(layout[name], dtype=float) for name in names}
    # Spectral: the two slowest modes of the graph, after one that is constant. Deterministic, and
    # near nodes stay near.
    index = {name: k for k, name in enumerate(names)}
    laplacian = np.zeros((len(names), len(names)))
    for a, b in pairs:
        i, j = index[a], index[b]
        laplacian[[i, j, i, j], [i, j, j, i]] += [1, 1, -1, -1]
    degree = np.sqrt(np.maximum(laplacian.diagonal(), 1e-9))
    modes = np.linalg.eigh(laplacian / degree[:, None] / degree)[1][:, 1:3] / degree[:, None]
    if modes.shape[1] < 2:
        modes = np.column_stack([np.arange(len(names)), np.zeros(len(names))])
    # The ends of a mode crowd together: ranks spread them.
    ranks = modes.argsort(axis=0).argsort(axis=0) / max(len(names) - 1, 1)
    scaled = (modes - modes.min(axis=0)) / np.maximum(np.ptp(modes, axis=0), 1e-12)
    return {name: 0.5 * (ranks[k] + scaled[k]) for name, k in index.items()}


def _ends(ends: list[Any]) -> list[str]:
    """Return the nodes that inputs and outputs name."""
    return [node for end in ends for node in nodes_of(end)]


def _nodes(axes: "Axes", net: "Circuit", places: dict[str, Any], at: dict[str, float]) -> Any:
    """Draw the nodes, coloured by their voltages `at`; return what was drawn last."""
    names = list(places)
    points = np.array([places[name] for name in names])
    voltages = np.array([at[name] for name in names])
    reach = max(np.abs(voltages).max(), 1e-300)
    # Around zero if there are both signs; otherwise what there is.
    both = voltages.min() < 0 < voltages.max()
    colors, low, high = (
        ("RdBu_r", -reach, reach) if both else ("viridis", voltages.min(), voltages.max())
    )
    special = dict.fromkeys(_ends(net.inputs), "s") | dict.fromkeys(_ends(net.outputs), "D")
    special |= {} if net.ground is None else {net.ground: "v"}
    size = float(np.clip(2400 / len(names), 12, 90))
    shown = None
    for marker in ("o", "s", "D", "v"):
        chosen = np.array([special.get(name, "o") == marker for name in names])
        if not chosen.any():
            continue
        big = size if marker == "o" else 1.8 * size
        shown = axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            c=voltages[chosen],
            s=big,
            marker=marker,
            cmap=colors,
            vmin=low,
            vmax=high,
            edgecolors=_INK,
            linewidths=0.6 if marker == "o" else 1.2,
            zorder=2,
        )
    return shown


def circuit(
    net: "Circuit",
    x: Any,
    axes: "Axes | None" = None,
    *,
    layout: Mapping[str, tuple[float, float]] | None = None,
) -> "Figure":
    """Draw the voltages of nodes and the currents along elements of one sample.

    See `Circuit.plot`.
    """
    from pnncore import plot

    axes = plot.axes_of(axes, (7, 5.5))
    from matplotlib.collections import LineCollection

    row = np.asarray([x], dtype=net.dtype)
    at = {node: float(v[0]) for node, v in net.voltages(row).items()}
    through = net.currents(row)[0]
    kinds = [isinstance(element, VoltageSource) for element in net.elements]
    flowing = np.abs(through[~np.array(kinds)])
    places = _places(net, layout)
    lines = [(places[e.plus], places[e.minus]) for e in net.elements]
    sources = [line for line, is_source in zip(lines, kinds, strict=True) if is_source]
    joined = [line for line, is_source in zip(lines, kinds, strict=True) if not is_source]
    widths = 0.4 + 4.6 * flowing / max(flowing.max(), 1e-300)
    axes.add_collection(LineCollection(joined, linewidths=widths, colors=_FAINT, zorder=1))
    axes.add_collection(
        LineCollection(sources, linewidths=1.2, linestyles="dashed", colors=_INK, zorder=1)
    )
    shown = _nodes(axes, net, places, at)
    for name in dict.fromkeys((*_ends(net.inputs), *_ends(net.outputs), net.ground)):
        if name is not None and name in places and len(net.inputs) + len(net.outputs) <= 24:
            axes.annotate(
                name,
                tuple(places[name]),
                (7, 5),
                textcoords="offset points",
                fontsize=8,
                color=_INK,
            )
    if shown is not None:
        axes.figure.colorbar(shown, ax=axes, label=net.quantities[0], shrink=0.8)
    axes.set_title(
        "squares: inputs, diamonds: outputs, triangle: ground"
        f"{', dashed: voltage sources' if sources else ''}\n"
        f"widest line: a {net.quantities[1]} of {flowing.max():.3g}",
        fontsize=9,
        color=_INK,
    )
    axes.set_axis_off()
    axes.margins(0.08)
    return axes.figure  # type: ignore[return-value]


def elastic(net: "Elastic", x: Any, axes: "Axes | None" = None) -> "Figure":
    """Draw a strained network of one sample; see `Elastic.plot`."""
    from pnncore import plot

    axes = plot.axes_of(axes, (6, 6))
    from matplotlib.collections import LineCollection

    if net.positions.shape[1] != 2:
        raise ConfigError("only networks in two dimensions are drawn")
    shape = net.shape(np.asarray([x], dtype=net.dtype))[0]
    k = np.asarray(net.params["k"], dtype=float)
    widths = 0.3 + 2.7 * k / max(k.max(), 1e-300)
    rest = net.positions[net.springs]
    axes.add_collection(LineCollection(list(rest), linewidths=0.6, colors="#E3E3E3", zorder=1))
    strain = net.lengths(shape) / net.params["l0"] - 1
    reach = max(float(np.abs(strain).max()), 1e-12)
    springs = LineCollection(list(shape[net.springs]), linewidths=widths, cmap="coolwarm", zorder=2)
    springs.set_array(strain)
    springs.set_clim(-reach, reach)
    axes.add_collection(springs)
    marks = [
        ([node for node, _ in net.inputs], "s", _STRONG, "pulled"),
        ([node for node, _ in net.outputs], "D", "#009E73", "answers"),
        (net.fixed, "^", _INK, "fixed"),
    ]
    for nodes, marker, color, label in marks:
        if nodes:
            chosen = sorted(set(nodes))
            axes.scatter(
                shape[chosen, 0],
                shape[chosen, 1],
                marker=marker,
                s=60,
                color=color,
                label=label,
                zorder=3,
            )
            for start, end in zip(net.positions[chosen], shape[chosen], strict=True):
                if np.hypot(*(end - start)) > 0:
                    axes.annotate(
                        "", end, start, arrowprops={"arrowstyle": "-|>", "color": color}, zorder=4
                    )
    axes.figure.colorbar(springs, ax=axes, label="strain", shrink=0.8)
    axes.legend(loc="upper left", fontsize=8, frameon=False, ncols=3, bbox_to_anchor=(0, 1.07))
    axes.set_title("widths: stiffness; thin grey: as placed", fontsize=9, color=_INK, y=1.06)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.autoscale_view()
    return axes.figure  # type: ignore[return-value]
