"""Flow networks: linear resistor networks as the literature of coupled learning has them."""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt

from pnncore._convert import as_list, instance, made, shown
from pnncore.devices import Device
from pnncore.elements import Resistor
from pnncore.errors import ConfigError
from pnncore.systems._circuit import Circuit

# Of the smallest initial conductance: pipes that are narrower are as good as closed.
_NARROWEST = 1e-6


class Flow(Circuit):
    """A flow network: pipes between nodes, whose conductances learn.

    Pressures take the place of voltages.

    The same as a `Circuit` of trained resistors, and solved like one. Inputs are held at pressures
    x; one node, `ground`, is at pressure zero; the pressures at the outputs are the answer.

    Parameters
    ----------
    edges
        The pipes: pairs of names of nodes.
    inputs, outputs, ground
        Names of nodes. `ground` may be None: then inputs alone set the pressures.
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
        inputs: Sequence[str],
        outputs: Sequence[str],
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
        unused = (
            "no ground"
            if ground is None
            else instance(ground, str, "ground", "the name of a node, or None")
        )
        super().__init__(
            resistors, inputs=inputs, outputs=outputs, ground=unused, device=device, dtype=dtype
        )

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal network, as plain data; checkpoints keep it."""
        return {
            "name": "Flow",
            "edges": [(element.plus, element.minus) for element in self.elements],
            "conductance": [
                element.conductance for element in self.elements if isinstance(element, Resistor)
            ],
            "inputs": self.inputs,
            "outputs": self.outputs,
            "ground": None if self.ground == "no ground" else self.ground,
            "device": self.device.to_config(),
            "dtype": str(self.dtype),
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Flow":
        """Return the network of a `to_config` dictionary, its name left out."""
        return made(cls, {**settings, "device": Device.from_config(settings["device"])}, "Flow")
