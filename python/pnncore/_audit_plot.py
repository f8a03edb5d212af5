"""The picture of a table of audits."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pnncore import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pnncore.auditing import AuditTable

_INK, _NOTHING, _WRONG = "#222222", "#EEEEEE", "#D55E00"


def draw(table: "AuditTable", path: str | Path | None) -> "Figure":
    """Draw the cosines, methods against systems; what was not expected is framed."""
    systems = list(dict.fromkeys(row.system for row in table.rows))
    methods = list(dict.fromkeys(row.method for row in table.rows))
    cosines = np.full((len(methods), len(systems)), np.nan)
    for row in table.rows:
        cosines[methods.index(row.method), systems.index(row.system)] = row.cosine
    size = (3.4 + 0.75 * len(systems), 1.6 + 0.33 * len(methods))
    figure = plot.require()(figsize=size, layout="constrained")
    from matplotlib.patches import Rectangle

    axes = figure.subplots()
    axes.set_facecolor(_NOTHING)
    image = axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for row in table.rows:
        i, j = methods.index(row.method), systems.index(row.system)
        text = f"{row.cosine:.2f}" if abs(row.cosine) < 0.9995 else f"{row.cosine:.0f}"
        color = "white" if abs(row.cosine) > 0.6 else _INK
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
        if not row.holds:
            corner = (j - 0.5, i - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=_WRONG, linewidth=2))
    axes.set_xticks(range(len(systems)), systems, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.set_title("cosine to the exact gradient\ngrey: not trained by it", fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.6)
    bar.ax.tick_params(labelsize=8)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
