"""Pictures: histories, and the demo's.

Needs matplotlib, which is imported only when something is drawn.
"""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import instance
from pnncore.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from pnncore.comparing import Comparison
    from pnncore.history import History

__all__ = [
    "Curves",
    "Demo",
    "Trajectory",
    "comparison",
    "demo",
    "endurance",
    "history",
    "over_time",
    "require",
]

FloatArray = npt.NDArray[Any]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#767676"
_INK, _FAINT = "#222222", "#DDDDDD"
_DPI, _SCREEN_DPI = 150, 100


@dataclass(frozen=True)
class Curves:
    """Learning curves of one method.

    Its name, and the test accuracy after every epoch for every seed.
    """

    name: str
    accuracy: Sequence[FloatArray]


@dataclass(frozen=True)
class Trajectory:
    """How one sample settles, sweep by sweep.

    Free, then nudged from there with +beta and with -beta.

    The outputs are arrays (sweeps, n_out). `excess` is the energy above its value at the steady
    state of the phase, with the nudge included; `residual` the largest force on a unit.
    """

    label: int
    beta: float
    free_outputs: FloatArray
    nudged_outputs: tuple[FloatArray, FloatArray]
    free_excess: FloatArray
    nudged_excess: FloatArray
    free_residual: FloatArray
    nudged_residual: FloatArray


@dataclass(frozen=True)
class Demo:
    """What the demo's picture shows."""

    title: str
    subtitle: str
    curves: Sequence[Curves]
    trajectory: Trajectory
    weights: FloatArray
    images: FloatArray
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]


def require() -> "type[Figure]":
    """Return a `Figure` of matplotlib that notebooks show.

    `ConfigError` that says what to install where there is none.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install pnncore[plot]") from None
    return _shown(Figure)


def axes_of(axes: Any, size: tuple[float, float]) -> "Axes":
    """Return where to draw: the axes that are given, or those of a new figure."""
    figure = require()
    if axes is None:
        return figure(figsize=size, layout="constrained").subplots()
    from matplotlib.axes import Axes

    return instance(
        axes, Axes, "axes", "those of matplotlib; to a file goes plot(...).savefig('it.png')"
    )


@functools.cache
def _shown(figure: "type[Figure]") -> "type[Figure]":
    class Picture(figure):  # type: ignore[misc,valid-type]
        """A figure that shows itself as the result of a cell, also where no pyplot is."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=_SCREEN_DPI)
            return buffer.getvalue()

    return Picture


def check_format(path: str | Path) -> None:
    """Refuse a file whose ending is no format of pictures: `ConfigError` lists those that are."""
    kinds = require()().canvas.get_supported_filetypes()
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in kinds:
        raise ConfigError(
            f"{path} is no picture: its name must end in one of {', '.join(sorted(kinds))}"
        )


def endurance(memory: dict[str, FloatArray], path: str | Path | None = None) -> "Figure":
    """Draw how many cells had how many pulses, from `Trainer.memory`; needs matplotlib.

    Raises
    ------
    ConfigError
        If nothing there counts pulses.
    """
    counted = {
        name: array
        for name, array in memory.items()
        if name.startswith("cells/") and name.endswith("pulses")
    }
    if not counted:
        raise ConfigError("no array of cells was trained: memory has no pulses")
    figure = require()(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    most = max(float(array.max()) for array in counted.values())
    edges = np.unique(np.round(np.logspace(0, np.log10(max(most, 10.0)) + 0.05, 50)))
    for colour, (name, array) in zip(
        (_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY, _INK) * 9, counted.items(), strict=False
    ):
        share, _ = np.histogram(array, edges)
        label = name.removeprefix("cells/").replace("/", ", ").replace("_", " ")
        axes.stairs(100 * share / array.size, edges, color=colour, label=label, linewidth=1.5)
    axes.set(xscale="log", xlabel="pulses that a cell had", ylabel="cells, %", title="Endurance")
    axes.grid(color=_FAINT)
    axes.legend(frameon=False)
    if path is not None:
        figure.savefig(path, dpi=_DPI)
    return figure


def over_time(
    times: FloatArray, scores: dict[str, FloatArray], path: str | Path | None = None
) -> "Figure":
    """Draw scores (times, repeats) by name against the time since programming.

    Means, and deviations of reads.
    """
    figure = require()(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(scores, (_GREY, _BLUE, _GREEN, _ORANGE, _PURPLE), strict=False))
    for name, found in scores.items():
        mean, spread = 100 * found.mean(1), 100 * found.std(1)
        axes.plot(times, mean, "o-", color=colours.get(name, _INK), label=name, markersize=4)
        axes.fill_between(
            times,
            mean - spread,
            mean + spread,
            color=colours.get(name, _INK),
            alpha=0.15,
            linewidth=0,
        )
    marks = [
        (1, "1 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (86400, "1 day"),
        (2.6e6, "1 month"),
        (3.15e7, "1 year"),
    ]
    shown = [(t, text) for t, text in marks if times.min() <= t * 1.01 and t <= times.max() * 1.01]
    axes.set(
        xscale="log",
        xlabel="time since programming",
        ylabel="score, %",
        title="Inference over time",
    )
    axes.set_xticks([t for t, _ in shown], [text for _, text in shown])
    axes.minorticks_off()
    axes.grid(color=_FAINT)
    axes.legend(title="compensation of drift", frameon=False)
    if path is not None:
        figure.savefig(path, dpi=_DPI)
    return figure


def history(history: "History", path: str | Path | None = None) -> "Figure":
    """Draw loss, accuracy and sweeps over epochs.

    Parameters
    ----------
    history
        What `Trainer.fit` returned; at least one epoch.
    path
        Where to write the picture, in the format of its extension; None writes nothing.

    Returns
    -------
    matplotlib.figure.Figure
        The picture, for further changes.
    """
    if not history.epochs:
        raise ConfigError("the history holds no epochs yet: there is nothing to draw")
    figure = require()(figsize=(11, 3.4), layout="constrained")
    losses, scores, sweeps = figure.subplots(1, 3)
    epoch = history["epoch"]
    settles = bool((history["free_sweeps"] > 0).any())
    _losses(losses, history, "mean loss at the free state" if settles else "mean loss")
    _scores(scores, history)
    (_sweeps if settles else _cost)(sweeps, history)
    sweeps.set_ylim(0, 1.15 * max(sweeps.get_ylim()[1], 1.0))
    troubles = {key: int(history[key].sum()) for key in ("unconverged", "diverged", "unbounded")}
    if any(troubles.values()):
        text = ", ".join(f"{number:,} {key}" for key, number in troubles.items() if number)
        title = f"{'settling' if settles else 'cost'} ({text})"
        sweeps.set_title(title, loc="left", color=_INK, fontsize=12)
    for axes in (losses, scores, sweeps):
        axes.set_xlabel("epoch")
        axes.set_xlim(epoch[0] - 0.5, epoch[-1] + 0.5)
        axes.locator_params(axis="x", integer=True)
        axes.grid(color=_FAINT, lw=0.6)
        axes.set_axisbelow(True)
    return _write(figure, path)


def _line(axes: "Axes", history: "History", values: FloatArray, color: str, name: str = "") -> None:
    """Draw a quantity over epochs, with markers where there are few."""
    epoch = history["epoch"]
    marker = "o" if len(epoch) < 3 else ""
    axes.plot(epoch, values, color=color, marker=marker, label=name or None)


def _losses(axes: "Axes", history: "History", name: str) -> None:
    loss = history["loss"]
    finite = loss[np.isfinite(loss)]
    # Within a factor of three a logarithmic axis has hardly a tick, and shows nothing more.
    logarithmic = len(finite) > 0 and finite.min() > 0 and finite.max() > 3 * finite.min()
    _line(axes, history, loss, _BLUE)
    _label(axes, "training loss", f"{name}, log scale" if logarithmic else name)
    if not logarithmic:
        return
    axes.set_yscale("log")
    low, high = np.log10(axes.get_ylim())
    if high - low < 3:
        every = (1, 2, 5) if high - low > 1 else range(1, 10)
        decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
        ticks = [digit * 10.0**decade for decade in decades for digit in every]
        axes.yaxis.set_major_locator(_fixed(ticks))
        axes.yaxis.set_minor_locator(_fixed([]))
        axes.yaxis.set_major_formatter("{x:.4g}")


def _scores(axes: "Axes", history: "History") -> None:
    labels = bool(np.isfinite(history["accuracy"]).any())
    parts = [
        ("training, before each step", "accuracy", _BLUE),
        ("validation, after the epoch", "validation", _ORANGE),
    ]
    for name, key, color in parts:
        if np.isfinite(history[key]).any():
            _line(axes, history, (100.0 if labels else 1.0) * history[key], color, name)
    title, unit = ("accuracy", "accuracy (%)") if labels else ("R² of the outputs", "R²")
    _label(axes, title, unit)
    if axes.lines:
        axes.margins(y=0.1)
        axes.legend(frameon=False, loc="best")
        return
    text, place = "no validation data", axes.transAxes
    axes.text(0.5, 0.5, text, ha="center", va="center", color=_INK, transform=place)
    axes.set_yticks([])


def _sweeps(axes: "Axes", history: "History") -> None:
    _line(axes, history, history["free_sweeps"], _BLUE, "free phase")
    if (history["other_sweeps"] > 0).any():
        _line(axes, history, history["other_sweeps"], _ORANGE, "all other phases")
    axes.legend(frameon=False, loc="best")
    _label(axes, "settling", "sweeps per sample (mean)")


def _cost(axes: "Axes", history: "History") -> None:
    _line(axes, history, np.cumsum(history["passes"]), _BLUE)
    _label(axes, "cost", "physical passes so far")


def comparison(found: "Comparison", path: str | Path | None = None) -> "Figure":
    """Draw the test scores of all runs against the physical passes that they took.

    Runs without any pass (in silico) are drawn as a level, where they ended.

    Parameters
    ----------
    found
        What `compare` returned.
    path
        Where to write the picture, in the format of its extension; None writes nothing.

    Returns
    -------
    matplotlib.figure.Figure
        The picture, for further changes.
    """
    figure = require()(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    colors = (_BLUE, _ORANGE, _GREEN, _PURPLE, "#E69F00", "#56B4E9", "#000000", _GREY)
    styles = ("-", "--", ":")
    for k, (name, run) in enumerate(found.runs.items()):
        color, style = colors[k % len(colors)], styles[k // len(colors) % len(styles)]
        label = f"{name}: {run.score[-1]:.3f}"
        if run.passes[-1] > 0:
            # The start, at zero passes, has no place on a logarithmic axis.
            marker = "o" if len(run.passes) < 5 else ""
            axes.plot(
                run.passes[1:], run.score[1:], style, color=color, marker=marker, ms=4, label=label
            )
        else:
            axes.axhline(run.score[-1], ls=(0, (1, 2)), color=color, label=f"{label} (no passes)")
    axes.set_xscale("log")
    _label(axes, "score on test data", "score")
    axes.set_xlabel("physical passes")
    axes.grid(color=_FAINT, lw=0.6)
    axes.set_axisbelow(True)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return _write(figure, path)


def demo(content: Demo, path: str | Path | None = None) -> "Figure":
    """Draw the demo's picture.

    Learning curves, one sample settling, what hidden units learned, test digits.

    Parameters
    ----------
    content
        What to show.
    path
        Where to write the picture, in the format of its extension; None writes nothing.
    """
    kind = require()
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = kind(
        figsize=(13, 9.6), layout=ConstrainedLayoutEngine(rect=(0.008, 0.008, 0.984, 0.984))
    )
    figure.suptitle(f"{content.title}\n", fontsize=17, color=_INK)
    figure.text(0.5, 0.954, content.subtitle, ha="center", va="center", fontsize=11, color=_GREY)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.04])[:, 0]
    left, right = top.subfigures(1, 2, width_ratios=[1, 1])
    _learning(left.subplots(), content.curves)
    _settling(right, content.trajectory)
    left, right = bottom.subfigures(1, 2, width_ratios=[1.18, 1])
    _weights(left, content.weights)
    _digits(right, content.images, content.labels, content.predictions)
    return _write(figure, path)


def _learning(axes: "Axes", curves: Sequence[Curves]) -> None:
    styles = [(_BLUE, 1.4), (_GREEN, 1.0), (_ORANGE, 1.0), (_PURPLE, 1.0)]
    last = 1
    for (color, width), curve in zip(styles, curves, strict=False):
        for i, accuracy in enumerate(curve.accuracy):
            epochs = np.arange(1, len(accuracy) + 1)
            last = max(last, len(accuracy))
            mean = 100 * float(np.mean([values[-1] for values in curve.accuracy]))
            axes.plot(
                epochs,
                100 * (1 - np.asarray(accuracy)),
                color=color,
                lw=width,
                alpha=0.8,
                marker="o",
                ms=4,
                markevery=[len(accuracy) - 1],
                label=f"{curve.name}: {100 - mean:.1f} %" if i == 0 else None,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.95, 1.08 * max(last, 2))
    axes.set_ylim(1.5, 100)
    for axis, ticks in (
        (axes.xaxis, (1, 3, 10, 30, 100, 300, 1000)),
        (axes.yaxis, (2, 3, 5, 10, 20, 50, 100)),
    ):
        axis.set_major_locator(
            _fixed([tick for tick in ticks if axis is axes.yaxis or tick <= max(last, 2)])
        )
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(_fixed([]))
    _label(axes, "Learning curves, one line per seed", "test error (%)")
    axes.set_xlabel("epoch")
    axes.grid(color=_FAINT, lw=0.6)
    axes.legend(
        frameon=True,
        framealpha=0.95,
        edgecolor="none",
        loc="upper right",
        title="test error after the last epoch",
    )


def _settling(figure: "SubFigure", trajectory: Trajectory) -> None:
    outputs, forces = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
    free = np.arange(1, len(trajectory.free_outputs) + 1)
    start = len(free)
    nudged = start + np.arange(len(trajectory.nudged_outputs[0]) + 1)
    rival = int(np.argsort(trajectory.free_outputs[-1])[-1])
    if rival == trajectory.label:
        rival = int(np.argsort(trajectory.free_outputs[-1])[-2])
    styles = {trajectory.label: (_BLUE, 2.0), rival: (_ORANGE, 2.0)}
    for unit in sorted(range(trajectory.free_outputs.shape[1]), key=lambda unit: unit in styles):
        color, width = styles.get(unit, ("#BBBBBB", 0.9))
        outputs.plot(free, trajectory.free_outputs[:, unit], color=color, lw=width)
        for states, dashes in zip(trajectory.nudged_outputs, ("-", (0, (1.5, 1.2))), strict=True):
            if dashes == "-" or unit in styles:
                values = np.append(trajectory.free_outputs[-1, unit], states[:, unit])
                outputs.plot(nudged, values, color=color, lw=width, ls=dashes)
    end = float(nudged[-1])
    places = _apart([float(trajectory.nudged_outputs[0][-1, unit]) for unit in styles], 0.13)
    for (unit, (color, _)), place in zip(styles.items(), places, strict=True):
        what = "its label" if unit == trajectory.label else "its rival"
        outputs.text(end + 0.5, place, f"{unit}, {what}", color=color, va="center", fontsize=10)
    wrong = trajectory.free_outputs[-1, rival] > trajectory.free_outputs[-1, trajectory.label]
    reads = (
        f"a {trajectory.label} that the network reads as a {rival}"
        if wrong
        else f"a {trajectory.label}"
    )
    _label(outputs, f"One test digit settles: {reads}", "outputs")
    outputs.plot([], [], color=_INK, lw=1.5, label=f"nudged, β = +{trajectory.beta:g}")
    outputs.plot(
        [], [], color=_INK, lw=1.5, ls=(0, (1.5, 1.2)), label=f"nudged, β = −{trajectory.beta:g}"
    )
    outputs.legend(frameon=False, loc="lower left", fontsize=9)

    parts = (
        ("largest force on a unit", trajectory.free_residual, trajectory.nudged_residual, _PURPLE),
        ("energy above its minimum", trajectory.free_excess, trajectory.nudged_excess, _GREEN),
    )
    for name, first, second, color in parts:
        forces.plot(free, _positive(first), color=color, marker="o", ms=3.5, lw=1.2, label=name)
        forces.plot(nudged[1:], _positive(second), color=color, marker="o", ms=3.5, lw=1.2)
    forces.set_yscale("log")
    forces.set_ylim(top=1e4)
    forces.legend(frameon=False, loc="upper right", bbox_to_anchor=(0.5, 1.05), fontsize=9)
    _label(forces, "", "force, energy\n(model units)")
    forces.set_xlabel("sweep over the network")
    forces.locator_params(axis="x", integer=True)
    for axes in (outputs, forces):
        axes.axvline(start + 0.5, color=_GREY, lw=0.8, ls="--")
        axes.grid(color=_FAINT, lw=0.6)
    outputs.set_xlim(0.5, end + 0.4)
    low, high = outputs.get_ylim()
    top = high + 0.14 * (high - low)
    outputs.set_ylim(low - 0.2 * (high - low), top)
    outputs.text(start + 0.2, top, "free ", ha="right", va="top", color=_GREY, fontsize=10)
    outputs.text(start + 0.8, top, " nudged", ha="left", va="top", color=_GREY, fontsize=10)


def _weights(figure: "SubFigure", weights: FloatArray) -> None:
    side = round(weights.shape[0] ** 0.5)
    order = np.argsort(-np.linalg.norm(weights, axis=0))
    columns = 16
    rows = -(-len(order) // columns)
    canvas = np.full((rows * (side + 1) - 1, columns * (side + 1) - 1), np.nan)
    for place, unit in enumerate(order):
        top, left = (place // columns) * (side + 1), (place % columns) * (side + 1)
        canvas[top : top + side, left : left + side] = weights[:, unit].reshape(side, side)
    axes = figure.subplots()
    limit = float(np.quantile(np.abs(weights), 0.995))
    image = axes.imshow(canvas, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(
        f"What the {len(order)} hidden units look for: their input weights W1",
        loc="left",
        color=_INK,
        fontsize=12,
    )
    bar = figure.colorbar(
        image, ax=axes, orientation="horizontal", fraction=0.035, aspect=45, pad=0.02, extend="both"
    )
    bar.set_label(
        "weight from a pixel: ink there switches the unit on (red) or off (blue)", color=_INK
    )
    bar.outline.set_visible(False)


def _digits(
    figure: "SubFigure", images: FloatArray, labels: FloatArray, predictions: FloatArray
) -> None:
    rows, columns = 4, 7
    wrong = np.flatnonzero(labels != predictions)
    right = np.flatnonzero(labels == predictions)
    shown_wrong = wrong[: rows * columns // 2]
    # Correct ones in the order of their labels' turns, so that all classes appear.
    turns = sorted(
        range(len(right)),
        key=lambda i: (int((labels[right[:i]] == labels[right[i]]).sum()), labels[right[i]]),
    )
    shown = [*shown_wrong, *right[turns[: rows * columns - len(shown_wrong)]]]
    side = round(images.shape[1] ** 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(
        f"Test digits: all {len(wrong)} errors and some of {len(right)} correct ones"
        if len(shown_wrong) == len(wrong)
        else f"Test digits: {len(shown_wrong)} of {len(wrong)} errors and some of {len(right)} "
        "correct ones",
        fontsize=12,
        color=_INK,
        x=0.01,
        ha="left",
    )
    for place, axes in enumerate(grid.flat):
        axes.set_xticks([])
        axes.set_yticks([])
        if place >= len(shown):
            axes.set_axis_off()
            continue
        sample = shown[place]
        error = labels[sample] != predictions[sample]
        axes.imshow(
            images[sample].reshape(side, side),
            cmap="gray_r",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        for spine in axes.spines.values():
            spine.set(color=_ORANGE if error else _FAINT, linewidth=2.4 if error else 0.8)
        text = (
            f"✗ {predictions[sample]}, is {labels[sample]}" if error else f"{predictions[sample]}"
        )
        axes.set_title(text, fontsize=10, color=_ORANGE if error else _INK, pad=3)


def _label(axes: "Axes", title: str, y: str) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=12)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def _fixed(ticks: Sequence[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(list(ticks))


def _apart(places: list[float], gap: float) -> list[float]:
    """Return two places, moved away from each other where their labels would touch."""
    low, high = sorted(places)
    lack = max(gap - (high - low), 0.0) / 2
    moved = {low: low - lack, high: high + lack}
    return [moved[place] for place in places] if low != high else [low - lack, high + lack]


def _positive(values: FloatArray) -> FloatArray:
    """Blank what comes after the values have fallen into the rounding errors."""
    return np.where(np.minimum.accumulate(values) > 1e-14, values, np.nan)


def _write(figure: "Figure", path: str | Path | None) -> "Figure":
    if path is not None:
        try:
            figure.savefig(path, dpi=_DPI)
        except ValueError as error:
            raise ConfigError(f"cannot write {path}: {error}") from None
    return figure
