"""Pictures of meshes of interferometers as circuits."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_complex

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pnncore.layers._mesh import Circuit, Mesh

ComplexArray = npt.NDArray[np.complex128]

# The share of a column that an interferometer takes.
_WIDTH = 0.5


def draw(
    mesh: "Mesh", params: dict[str, npt.NDArray[np.float64]], x: Any, axes: "Axes | None"
) -> "Figure":
    """Draw waveguides coloured by their powers, and interferometers by their phases theta."""
    from matplotlib.collections import LineCollection, PatchCollection
    from matplotlib.patches import Circle, Rectangle

    from pnncore import plot

    circuit = mesh.circuit()
    columns = len(circuit.columns)
    # Waveguides that meet no neighbour are those that attenuators lose light to: not drawn.
    shown = 1 + max(
        *circuit.inputs,
        *circuit.outputs,
        *(b for column in circuit.columns for a, b in column if b == a + 1),
    )
    size = (float(np.clip(0.6 * columns + 4, 6, 16)), float(np.clip(0.5 * shown + 1.2, 3, 9)))
    axes = plot.axes_of(axes, size)
    powers = np.abs(_fields(mesh, circuit, params, x)) ** 2
    lines, colors, boxes, shifters = [], [], [], []
    for c, column in enumerate(circuit.columns):
        partner = {a: b for pair in column for a, b in (pair, pair[::-1]) if abs(a - b) == 1}
        for w in range(shown):
            lines.append([(c, w), (c + 1 - _WIDTH, w)])
            lines.append([(c + 1 - _WIDTH, w), (c + 1, partner.get(w, w))])
            colors += [powers[c, w], powers[c, w]]
        for a, b in column:
            # An attenuator sits on its own waveguide.
            top, height = (a, 1.0) if b == a + 1 else (a - 0.3, 0.6)
            boxes.append(Rectangle((c + 1 - _WIDTH, top), _WIDTH, height))
            shifters.append(Circle((c + 0.25, a), 0.13))
    for k, w in enumerate(circuit.outputs):
        lines.append([(columns, w), (columns + 1, w)])
        colors.append(powers[columns, w])
        shifters.append(Circle((columns + 0.5, circuit.outputs[k]), 0.13))
    phases = _phases(mesh, params)
    drawn = LineCollection(lines, array=np.array(colors), cmap="viridis", linewidths=2, zorder=1)
    drawn.set_clim(0, max(float(powers.max()), np.finfo(float).tiny))
    axes.add_collection(drawn)
    turned = np.concatenate([phases["theta"], phases["phi"], phases["gamma"]])
    parts = (
        PatchCollection(boxes, alpha=0.75, zorder=2),
        PatchCollection(shifters, edgecolor="black", linewidth=0.5, zorder=3),
    )
    for part, own in zip(parts, np.split(turned, [len(boxes)]), strict=True):
        part.set(array=own % (2 * np.pi), cmap="twilight", clim=(0, 2 * np.pi))
        axes.add_collection(part)
    axes.set(
        xlim=(-0.1, columns + 1.1),
        ylim=(shown - 0.5, -0.5),
        xlabel="column of interferometers",
        ylabel="waveguide",
        title=f"{type(mesh).__name__}: θ in boxes, φ and γ in circles",
        aspect="equal" if columns < 30 else "auto",
    )
    axes.set_xticks(np.arange(columns) + 1 - _WIDTH / 2, np.arange(1, columns + 1))
    axes.set_yticks(range(shown))
    figure: Figure = axes.figure  # type: ignore[assignment]
    figure.set_layout_engine("constrained")
    figure.colorbar(drawn, ax=axes, label="power |E|²", pad=0.03)
    bar = figure.colorbar(parts[1], ax=axes, ticks=[0, np.pi, 2 * np.pi], label="phase, rad")
    bar.ax.set_yticklabels(["0", "π", "2π"])
    return figure


def _phases(
    mesh: "Mesh", params: dict[str, npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the phases that settings make."""
    if mesh.half_wave_voltage is None:
        return params
    return {name: np.pi * (own / mesh.half_wave_voltage) ** 2 for name, own in params.items()}


def _fields(
    mesh: "Mesh", circuit: "Circuit", params: dict[str, npt.NDArray[np.float64]], x: Any
) -> ComplexArray:
    """Return the fields of all waveguides in front of each column, and behind the last one."""
    field = np.zeros(circuit.waveguides, dtype=complex)
    if x is None:
        field[circuit.inputs[0]] = 1.0
    else:
        field[circuit.inputs] = as_complex(x, "x", (len(circuit.inputs),))
    phases = _phases(mesh, params)
    known = mesh.coupler_error if isinstance(mesh.coupler_error, tuple) else None
    found, counted = [field.copy()], itertools.count()
    for column in circuit.columns:
        for a, b in column:
            k = next(counted)
            off = (0.0, 0.0) if known is None else known[k]
            pair = field[[a, b]]
            for name, error in (("phi", off[0]), ("theta", off[1])):
                pair[0] *= np.exp(1j * phases[name][k])
                c, s = np.cos(np.pi / 4 + error), np.sin(np.pi / 4 + error)
                pair = np.array([[c, 1j * s], [1j * s, c]]) @ pair
            field[[a, b]] = pair
        found.append(field.copy())
    return np.array(found)
