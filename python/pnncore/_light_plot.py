"""Pictures of light: masks, fields on their way, and the spectra of rings."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore import _core, plot
from pnncore._convert import as_complex
from pnncore.errors import CapabilityError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pnncore.layers._coupled_modes import CoupledModes
    from pnncore.layers._diffraction import Diffraction
    from pnncore.layers._fibre import Fibre
    from pnncore.layers._microring_bank import MicroringBank
    from pnncore.layers._waveguide import Waveguide

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complexfloating[Any, Any]]

_PHASE: dict[str, Any] = {"cmap": "twilight", "vmin": 0, "vmax": 2 * np.pi}
# Colours that the colour-blind can tell apart.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
_POWER: dict[str, Any] = {"cmap": "inferno", "vmin": 0}


def _figure(rows: int, columns: int, size: tuple[float, float]) -> "tuple[Figure, Any]":
    figure = plot.require()(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _image(axes: "Axes", values: FloatArray, style: dict[str, Any], label: str) -> None:
    """Draw values with a bar that says what they are; phases in units of pi."""
    shown = axes.imshow(values, **style)
    bar = axes.figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    if style["cmap"] == _PHASE["cmap"]:
        bar.set_ticks([0, np.pi, 2 * np.pi], labels=["0", "π", "2π"])


def mask(layer: "Diffraction", params: dict[str, Any]) -> "Figure":
    """Draw what the pixels of a mask do to amplitudes and phases."""
    made = layer.transmission(params)
    parts: list[tuple[str, FloatArray, dict[str, Any]]] = []
    if layer.mask in ("phase", "complex"):
        parts.append(("phase, rad", np.mod(np.angle(made), 2 * np.pi), _PHASE))
    if layer.mask in ("amplitude", "complex") or layer.absorption:
        style = {"cmap": "gray", "vmin": 0, "vmax": 1}
        parts.append(("amplitude", np.abs(made), style))
    if not parts:
        raise CapabilityError("a layer without a mask has nothing to draw")
    figure, axes = _figure(1, len(parts), (4.2 * len(parts), 3.6))
    for own, (label, values, style) in zip(axes.flat, parts, strict=True):
        _image(own, values, style, label)
        own.set(xlabel="pixel", ylabel="pixel")
    return figure


def planes(shown: list[tuple[str, ComplexArray]]) -> "Figure":
    """Draw the intensities and the phases of fields in planes, each with what it is."""
    count = len(shown)
    figure, axes = _figure(2, count, (2.1 * count + 0.8, 4.6))
    for column, (title, plane) in enumerate(shown):
        upper, lower = axes[:, column]
        power = upper.imshow(np.abs(plane) ** 2, **_POWER)
        # What is dark has no phase.
        bright = np.abs(plane) > 1e-3 * np.abs(plane).max()
        phase = np.where(bright, np.mod(np.angle(plane), 2 * np.pi), np.nan)
        turned = lower.imshow(phase, **_PHASE)
        upper.set_title(title)
        figure.colorbar(power, ax=upper, location="bottom", shrink=0.8)
        for own in (upper, lower):
            own.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("intensity")
    axes[1, 0].set_ylabel("phase, rad")
    bar = figure.colorbar(turned, ax=axes[1, :], location="bottom", shrink=0.3)
    bar.set_ticks([0, np.pi, 2 * np.pi], labels=["0", "π", "2π"])
    return figure


def waveguide(layer: "Waveguide", params: dict[str, Any], x: Any) -> "Figure":
    """Draw the map of the index, and the intensity and the phase of a field on its way."""
    change = layer.index_change(params)
    field = as_complex(x, "x", (layer.points,))
    spec = layer.spec()
    spec.pop("kind")
    logits = np.ravel(params["logit"]).astype(float).tolist()
    found = _core.waveguide_field(json.dumps(spec), logits, field)
    light = found.reshape(layer.steps, layer.points).T
    reach = (0.0, layer.length, -layer.width / 2, layer.width / 2)
    shape: dict[str, Any] = {"extent": reach, "aspect": "auto", "origin": "lower"}
    figure, axes = _figure(3, 1, (8, 7.5))
    _image(axes[0, 0], change.T, {"cmap": "viridis", **shape}, "index change")
    level = 20 * np.log10(np.maximum(np.abs(light) / np.abs(light).max(), 1e-9))
    decibels = {"cmap": "inferno", "vmin": -40, "vmax": 0, **shape}
    _image(axes[1, 0], level, decibels, "intensity, dB")
    phase = {**_PHASE, **shape}
    _image(axes[2, 0], np.mod(np.angle(light), 2 * np.pi), phase, "phase, rad")
    for own in axes.flat:
        own.set_ylabel("x")
    axes[2, 0].set_xlabel("z, in the unit of the lengths that were given")
    return figure


def fibre(layer: "Fibre", params: dict[str, Any], x: Any) -> "Figure":
    """Draw the power of a pulse in time on its way, and its spectra at both ends."""
    spectrum = as_complex(np.ones(layer.points) if x is None else x, "x", (layer.points,))
    spec = layer.spec()
    spec.pop("kind")
    phases = np.ravel(params["phase"]).astype(float).tolist()
    found = _core.fibre_field(json.dumps(spec), phases, spectrum)
    light = np.fft.fftshift(found.reshape(layer.steps, layer.points), axes=1)
    figure, axes = _figure(1, 2, (9, 3.8))
    reach = (0.0, layer.length, -layer.window / 2, layer.window / 2)
    style = {**_POWER, "extent": reach, "aspect": "auto", "origin": "lower"}
    _image(axes[0, 0], np.abs(light).T ** 2, style, "power")
    axes[0, 0].set(xlabel="z, in the unit of the length", ylabel="time, in the unit of the window")
    for name, own, color in (("first step", 0, "#767676"), ("last step", -1, "#D55E00")):
        power = np.abs(np.fft.fftshift(np.fft.fft(light[own]))) ** 2
        axes[0, 1].semilogy(
            layer.frequencies, power / max(power.max(), 1e-300), color=color, label=name
        )
    axes[0, 1].set(xlabel="frequency, cycles per unit of time", ylabel="power, of the largest")
    axes[0, 1].set_ylim(1e-8, 2)
    axes[0, 1].legend(frameon=False)
    return figure


def spectra(layer: "MicroringBank", params: dict[str, FloatArray]) -> "Figure":
    """Draw what the rings of every bus let through, by wavelength, and where channels are."""
    places = np.linspace(-0.5 * layer.spacing, (layer.n_in - 0.5) * layer.spacing, 2000)
    figure, axes = _figure(layer.n_out, 1, (8, 1.3 * layer.n_out + 1))
    channels = layer.spacing * np.arange(layer.n_in)
    for own, detunings in zip(axes.flat, params["detuning"], strict=True):
        off = places[:, None] - channels - detunings
        off -= layer.finesse * np.round(off / layer.finesse)
        passed = np.prod(1 - 1 / (1 + 4 * off**2), axis=1)
        own.vlines(channels, 0, 1, color=_COLOURS[1], linewidth=1, label="channels")
        own.plot(places, passed, color=_COLOURS[0], linewidth=1)
        own.set(ylim=(0, 1.02), ylabel="through")
    axes[0, 0].legend(frameon=False, loc="lower right")
    axes[-1, 0].set_xlabel("wavelength from the first channel, linewidths")
    return figure


def scattering(layer: "CoupledModes", params: dict[str, Any], x: FloatArray) -> "Figure":
    """Draw powers and phases of elements of a scattering matrix by frequency."""
    detunings = np.asarray(params["detuning"], float)
    # Couplings move resonances by about the root of the sum of their squares at a mode.
    reach = np.sqrt(2 * (np.asarray(params["coupling"], float) ** 2).sum() / len(detunings))
    reach += np.abs(detunings).max() + 3 * layer.decay
    frequencies = layer.frequency + np.linspace(-reach, reach, 601)
    found = layer.scattering(params, x, frequencies)[:, 0, : len(_COLOURS)] / layer.probe
    figure, axes = _figure(2, 1, (8, 5))
    power, phase = axes[:, 0]
    pairs = layer.spec()["outputs"][: len(_COLOURS)]
    for (to, source), element, colour in zip(pairs, found.T, _COLOURS, strict=False):
        power.plot(frequencies, np.abs(element) ** 2, color=colour, label=f"$S_{{{to},{source}}}$")
        phase.plot(frequencies, np.unwrap(np.angle(element)) / np.pi, color=colour)
    for own in (power, phase):
        own.axvline(layer.frequency, color="0.6", linewidth=1)
        own.margins(x=0)
    power.set(ylabel="power, of what is sent in", ylim=(0, None), xticklabels=[])
    power.legend(frameon=False, ncols=3)
    phase.set(ylabel="phase, π rad", xlabel="frequency, in the unit of decay rates")
    return figure
