"""Layers that were programmed to make a matrix."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._convert import as_numbers, positive_int, shown
from pnncore.errors import ConfigError, DataError, ShapeError
from pnncore.layers._base import Layer

FloatArray = npt.NDArray[np.float64]


def as_params(
    params: Any, names: Sequence[str], shape: tuple[int, ...] | None = None
) -> dict[str, FloatArray]:
    """Return the settings of a layer; `ConfigError` where some are missing or unknown.

    `ShapeError` where they do not all have the `shape`, if there is one.
    """
    if not isinstance(params, dict) or set(params) != set(names):
        wanted = " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) or "nothing"
        numbered = isinstance(params, dict) and any(
            str(name).rstrip("0123456789") in names for name in params
        )
        first = next(iter(names), "")
        advice = f', such as {{"{first}": net.params["{first}2"]}} of layer 2'
        raise ConfigError(
            f"params must be a dictionary of {wanted}, without the number of a layer"
            f"{advice if numbered else ''}; got {shown(params)}"
        )
    found = {name: as_numbers(params[name], name) for name in names}
    for name, values in found.items():
        if shape is not None and values.shape != shape:
            raise ShapeError(f"{name} must have shape {shape}, got {values.shape}")
    return found


def alone(chain: list[Layer], params: dict[str, FloatArray]) -> tuple[_core.System, Any]:
    """Return a chain of layers whose first one has parameters, and these, in double precision."""
    entries = [{"layer": layer.spec(), "noise": 0.0, "mismatch": 0.0} for layer in chain]
    settings = {"layers": entries, "noise": 0.0, "mismatch": 0.0, "seed": 0, "numbered": False}
    core = _core.System.build("Stack", json.dumps(settings))
    arrays = []
    for name, shape in core.specs():
        if params[name].shape != tuple(shape):
            raise ShapeError(f"{name} must have shape {tuple(shape)}, got {params[name].shape}")
        arrays.append(params[name])
    return core, arrays


@dataclass(frozen=True, repr=False, eq=False)
class ProgrammedLayer:
    """The settings of a layer that was programmed, and what they make.

    Attributes
    ----------
    layer
        What was programmed.
    params
        Parameters by name, without the number of the layer.
    matrix
        What the twin makes of signals at these settings (outputs, inputs).
    wanted
        What it was to make.
    scale
        What the wanted matrix was divided by, so that the layer can make it: outputs are to be
        multiplied by that.
    """

    layer: Layer
    params: dict[str, npt.NDArray[np.float64]]
    matrix: npt.NDArray[Any]
    wanted: npt.NDArray[Any]
    scale: float = 1.0

    @property
    def fidelity(self) -> float:
        """|tr(W^H M)|² / (tr(W^H W) tr(M^H M)): one where M is W times a number."""
        # Of their largest elements, first: squares of what is tiny or huge are none.
        wanted, made = (own / np.abs(own).max() for own in (self.wanted, self.matrix))
        power = np.linalg.norm(wanted) * np.linalg.norm(made)
        return float(np.abs(np.vdot(wanted, made) / power) ** 2)

    @property
    def error(self) -> float:
        """The largest element, in magnitude, of scale M - W, over the largest one of W."""
        off = np.abs(self.scale * self.matrix - self.wanted).max()
        return float(off / np.abs(self.wanted).max())

    def write(self, net: Any, place: int) -> None:
        """Set layer number `place` of a `systems.Stack`, counted from 1, to these settings."""
        place = positive_int(place, "place")
        if not hasattr(type(net), "group_ends"):
            raise ConfigError(f"net must be a Stack, got {shown(net)}")
        found = net.layers[place - 1] if place <= len(net.layers) else None
        if type(found) is not type(self.layer) or _physics(found) != _physics(self.layer):
            raise ConfigError(
                f"layer {place} is not the one that these settings are for: {self.layer}, got "
                f"{shown(found)}"
            )
        for name, values in self.params.items():
            net.params[net.parameter(name, place)][...] = values

    def __repr__(self) -> str:
        rows, columns = self.matrix.shape
        return (
            f"ProgrammedLayer({rows} x {columns}, fidelity={self.fidelity:.12g}, "
            f"error={self.error:.1e}, scale={self.scale:.6g})"
        )


def _physics(layer: Layer) -> dict[str, Any]:
    """Return the settings that say what parameters do, but for what is imperfect."""
    names = ("layout", "inputs", "outputs", "half_wave_voltage", "spacing", "finesse")
    return {name: own for name, own in layer.spec().items() if name in names}


def check_size(matrix: npt.NDArray[Any]) -> float:
    """Return the largest magnitude; `DataError` where it cannot be divided by."""
    largest = float(np.abs(matrix).max())
    if not 1e-300 <= largest <= 1e300:
        raise DataError(
            "the largest element of matrix must be from 1e-300 to 1e300 in magnitude, got "
            f"{largest:.3g}"
        )
    return largest
