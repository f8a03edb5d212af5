"""Twins that are layers of the core."""

from pnncore import _core
from pnncore._convert import FloatArray, Seed
from pnncore.errors import ShapeError
from pnncore.instruments._twin import Params, Twin
from pnncore.layers import Layer
from pnncore.systems._stack import Stack


class LayerTwin(Twin):
    """A twin that is a layer with the parameters of the instrument: `layers.SecondHarmonic`, say.

    Parameters
    ----------
    layer
        The layer.
    seed
        Of its disorder, if it has any.
    """

    def __init__(self, layer: Layer, *, seed: Seed = 0) -> None:
        self.layer = layer
        self._stacks = {
            dtype: Stack([layer], dtype=dtype, seed=seed) for dtype in ("float32", "float64")
        }
        self.shapes = {
            name.removesuffix("1"): shape for name, shape in self._stacks["float64"].shapes.items()
        }

    def forward(self, x: FloatArray, params: Params) -> FloatArray:
        """See `Twin.forward`."""
        stack = self._of(x)
        found: list[FloatArray] = _core.measure(stack.core, self._arrays(params), x, 0, None)
        return found[0]

    def vjp(self, x: FloatArray, params: Params, dy: FloatArray) -> tuple[FloatArray, Params]:
        """See `Twin.vjp`."""
        dx, found = _core.vjp(self._of(x).core, self._arrays(params), x, dy, None)
        return dx, dict(zip(self.shapes, found, strict=True))

    def _of(self, x: FloatArray) -> Stack:
        return self._stacks[str(x.dtype)]

    def _arrays(self, params: Params) -> list[FloatArray]:
        if {name: array.shape for name, array in params.items()} != self.shapes:
            got = {name: array.shape for name, array in params.items()}
            raise ShapeError(
                f"the twin {self.layer!r} has parameters {self.shapes}, the instrument has {got}"
            )
        return [params[name] for name in self.shapes]

    def __repr__(self) -> str:
        return f"LayerTwin({self.layer!r})"
