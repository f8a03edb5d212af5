"""Pictures of what one sample does, layer by layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[Any]

# Units that are told apart by lines between them.
_FEW = 40


def draw(
    title: str,
    quantity: str,
    signals: Sequence[tuple[str, FloatArray | None]],
    axes: "Axes | None",
) -> "Figure":
    """Draw a strip for every layer, one colour per unit, all on one scale.

    Parameters
    ----------
    title
        What the picture shows.
    quantity
        What the colours are.
    signals
        The names of layers and their values (units,); None for what nothing measures.
    axes
        Where to draw; None makes a figure.
    """
    from pnncore import plot

    axes = plot.axes_of(axes, (float(np.clip(1.2 * len(signals) + 2.5, 5, 14)), 4.4))
    values = np.concatenate([row for _, row in signals if row is not None])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    colors = "viridis"
    if low < 0 < high:
        # Around zero, where there are both signs.
        high = max(high, -low)
        colors, low = "RdBu_r", -high
    drawn = None
    for place, (_, row) in enumerate(signals):
        if row is None:
            axes.text(place, 0.5, "a field:\nnot measured", ha="center", va="center", fontsize=8)
            continue
        drawn = axes.pcolormesh(
            [place - 0.35, place + 0.35],
            np.linspace(0, 1, len(row) + 1),
            row[::-1, None],
            cmap=colors,
            vmin=low,
            vmax=high,
            edgecolors="white" if len(row) <= _FEW else "none",
            linewidth=0.5 if len(row) <= _FEW else 0.0,
        )
    names = [name if row is None else f"{name}\n({len(row)})" for name, row in signals]
    axes.set_xticks(range(len(signals)), names, fontsize=8)
    axes.set_yticks([])
    axes.set_ylabel("units, the first at the top")
    axes.set_xlim(-0.6, len(signals) - 0.4)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, fontsize=9)
    if drawn is not None:
        axes.figure.colorbar(drawn, ax=axes, label=quantity, shrink=0.9)
    return axes.figure  # type: ignore[return-value]
