"""Elastic networks: nodes joined by springs, in two or three dimensions."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore import _core, _network_plot
from pnncore._convert import (
    FloatArray,
    as_dtype,
    as_list,
    as_numbers,
    integer,
    made,
    shown,
)
from pnncore.devices import Device
from pnncore.errors import ConfigError, ShapeError
from pnncore.systems._base import System

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STIFFNESS = Device(lower=0.0)


class Elastic(System):
    """An elastic network: nodes joined by springs, in two or three dimensions.

    The states are displacements of coordinates from where the nodes were placed. They settle to a
    minimum of E = sum over springs of k (l - l0)²/2. Inputs are coordinates that are displaced by
    x, outputs are displacements of other coordinates. A spring learns from its own extension: dE/dk
    = (l - l0)²/2, dE/dl0 = -k (l - l0). The squared-error nudge is a force ``beta * (y - u)`` on
    each output.

    Geometry makes it nonlinear, and there may be several minima: settling descends from where the
    nodes were placed. `settle` tells what that has found: a sample is `Status.SADDLE` where the
    forces vanish at a saddle point (a straight column under compression), which disturbances leave,
    and `Status.FLOPPY` where a mode costs no energy, so that the state is one of many.

    Parameters
    ----------
    positions
        Where the nodes are placed (nodes, 2) or (nodes, 3).
    springs
        The nodes that each spring joins (springs, 2).
    inputs, outputs
        Coordinates: pairs (node, axis).
    fixed
        Nodes that cannot move.
    stiffness
        The initial stiffness: a number, or one per spring.
    rest_length
        The initial rest lengths; None: as long as the springs are where the nodes were placed, so
        that nothing is strained.
    device
        What stiffnesses are stored in: a `pnncore.devices.Device` with `lower` at least 0.
    dtype
        ``"float64"``, or ``"float32"``.

    Attributes
    ----------
    params
        ``k``, the stiffness, and ``l0``, the rest length of every spring. To train one of the two,
        give the optimizer rates by parameter: ``SGD({"k": 0.1})``.

    References
    ----------
    Rocks et al., PNAS 114, 2520 (2017); Stern et al., Phys. Rev. X 11, 021045 (2021).

    Examples
    --------
    Two springs in a row: the node between moves half as far as the end.

    >>> chain = [[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 2]]
    >>> net = Elastic(*chain, inputs=[(2, 0), (2, 1)], outputs=[(1, 0)], fixed=[0])
    >>> net
    Elastic(3 nodes in 2 dimensions, 2 springs, 2 inputs, 1 outputs)
    >>> float(net.predict([[0.2, 0.0]])[0, 0].round(4))
    0.1
    """

    def __init__(
        self,
        positions: npt.ArrayLike,
        springs: npt.ArrayLike,
        *,
        inputs: Sequence[tuple[int, int]],
        outputs: Sequence[tuple[int, int]],
        fixed: Sequence[int] = (),
        stiffness: npt.ArrayLike = 1.0,
        rest_length: npt.ArrayLike | None = None,
        device: Device = _STIFFNESS,
        dtype: npt.DTypeLike = "float64",
    ) -> None:
        self.positions = as_numbers(positions, "positions", refusal=ConfigError)
        self.springs = as_numbers(springs, "springs", None, ConfigError)
        if self.positions.ndim != 2:
            raise ShapeError(
                f"positions must have shape (nodes, 2) or (nodes, 3), got {self.positions.shape}"
            )
        if (
            self.springs.ndim != 2
            or self.springs.shape[1] != 2
            or self.springs.dtype.kind not in "iu"
        ):
            raise ShapeError(
                f"springs must be integers of shape (springs, 2), got {self.springs.shape}"
            )
        if len(self.springs) and self.springs.min() < 0:
            raise ConfigError("springs must name nodes from 0 on")
        if not isinstance(device, Device):
            raise ConfigError(f"device must be a pnncore.devices.Device, got {shown(device)}")
        self.device = device
        self.inputs, self.outputs = _coordinates(inputs, "inputs"), _coordinates(outputs, "outputs")
        self.fixed = [_node(node, "fixed") for node in as_list(fixed, "fixed", "a list of nodes")]
        resolved = as_dtype(dtype)
        spec = {
            "positions": self.positions.tolist(),
            "springs": self.springs.tolist(),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "fixed": self.fixed,
            "device": device.to_config(),
        }
        super().__init__(_core.System.build("Elastic", json.dumps(spec)), resolved)
        self._fill("k", stiffness, "stiffness")
        self._fill(
            "l0",
            self.lengths(self.positions) if rest_length is None else rest_length,
            "rest_length",
        )

    def _fill(self, name: str, values: Any, setting: str) -> None:
        array, values = self.params[name], as_numbers(values, setting, refusal=ConfigError)
        if values.ndim and values.shape != array.shape:
            raise ShapeError(
                f"{setting} must be a number, or one for each of {len(array)} springs, got "
                f"{values.shape}"
            )
        array[...] = values

    def lengths(self, positions: FloatArray) -> FloatArray:
        """Return the lengths (..., springs) with nodes at `positions` (..., nodes, dimensions)."""
        positions = as_numbers(positions, "positions")
        if positions.shape[-2:] != self.positions.shape:
            raise ShapeError(
                f"positions must have shape (..., {self.positions.shape}), got {positions.shape}"
            )
        apart = positions[..., self.springs[:, 1], :] - positions[..., self.springs[:, 0], :]
        return np.asarray(np.linalg.norm(apart, axis=-1))

    def shape(self, x: Any, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Return where nodes are (samples, nodes, dimensions), the inputs displaced by `x`."""
        settled = self._at_rest(x, threads)
        moved = np.repeat(self.positions[None], len(settled.status), axis=0)
        taken = {*self.inputs, *self.outputs}
        hidden = [
            (node, axis)
            for node in range(len(self.positions))
            for axis in range(self.positions.shape[1])
            if node not in self.fixed and (node, axis) not in taken
        ]
        states = np.hstack(settled.states)
        for column, (node, axis) in enumerate([*hidden, *self.outputs]):
            moved[:, node, axis] += states[:, column]
        for column, (node, axis) in enumerate(self.inputs):
            moved[:, node, axis] += self.as_rows(x)[:, column]
        return moved

    def plot(self, x: Any, axes: "Axes | None" = None) -> "Figure":
        """Draw the network with its inputs displaced by `x` (n_in,), springs coloured by strain.

        Needs matplotlib.
        """
        return _network_plot.elastic(self, self.as_sample(x)[0], axes)

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal network, as plain data; checkpoints keep it."""
        return {
            "name": "Elastic",
            "positions": self.positions.tolist(),
            "springs": self.springs.tolist(),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "fixed": self.fixed,
            "device": self.device.to_config(),
            "dtype": str(self.dtype),
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Elastic":
        """Return the network of a `to_config` dictionary, its name left out."""
        return made(cls, {**settings, "device": Device.from_config(settings["device"])}, "Elastic")

    def __repr__(self) -> str:
        nodes, dimensions = self.positions.shape
        return (
            f"Elastic({nodes} nodes in {dimensions} dimensions, {len(self.springs)} springs, "
            f"{len(self.inputs)} inputs, {len(self.outputs)} outputs)"
        )


def _coordinates(values: Any, what: str) -> list[tuple[int, int]]:
    wanted = "a list of pairs (node, axis)"
    pairs = [as_list(pair, what, wanted) for pair in as_list(values, what, wanted)]
    if any(len(pair) != 2 for pair in pairs):
        raise ConfigError(f"{what} must be {wanted}, got {shown(values)}")
    return [(_node(node, what), _node(axis, what)) for node, axis in pairs]


def _node(value: Any, what: str) -> int:
    return integer(value, f"every number of {what}", 0, 2**32, "an integer from 0 on")
