"""Light that real signals are put on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pnncore._convert import as_list, integer, is_integer, number, pair_of_sizes, shown
from pnncore.errors import ConfigError
from pnncore.layers._base import Layer


@dataclass(frozen=True, repr=False, eq=False)
class Encode(Layer):
    """Real signals, put on light: fields with amplitudes x, or with amplitudes exp(i x).

    The field is complex, and nothing measures it: layers of optics take it, and `Detect` ends their
    chain. In hardware with a mismatch m, modulators answer to (1 + m ξ) x, with ξ standard normal.

    Parameters
    ----------
    n_in
        The number of signals; None: as many as the layer before has outputs.
    carrier
        ``"amplitude"``, or ``"phase"``.
    modes
        The number of modes of the field; None: as many as signals.
    ports
        The mode of each signal, or a list of its modes, counted from 0; None: the first ones. Other
        modes are dark. `image_ports` tells those of an image in a plane.
    reference
        Constant amplitudes of modes that carry no signal, by mode: light that others interfere
        with.

    Examples
    --------
    >>> Encode(3, modes=5, ports=[0, 2, 4], reference={1: 0.5})
    Encode(n_in=3, modes=5, ports=(0, 2, 4), reference=((1, 0.5),))
    """

    n_in: int | None = None
    carrier: Literal["amplitude", "phase"] = "amplitude"
    modes: int | None = None
    ports: Any = None
    reference: Any = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        if self.ports is not None:
            given = as_list(self.ports, "ports", "a list of modes, one for each signal")
            if len(given) == 0:
                raise ConfigError("ports must name at least one mode")
            object.__setattr__(self, "ports", tuple(map(_port, given)))
        if self.reference is not None:
            pairs = (
                list(self.reference.items())
                if isinstance(self.reference, Mapping)
                else as_list(self.reference, "reference", "amplitudes by mode")
            )
            if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
                raise ConfigError(
                    "reference must be a dictionary of amplitudes by mode, got "
                    f"{shown(self.reference)}"
                )
            references = tuple(
                (_mode(mode, "reference"), number(amplitude, f"the reference of mode {mode}"))
                for mode, amplitude in pairs
            )
            object.__setattr__(self, "reference", references)

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return {
            "kind": "encode",
            "inputs": self.n_in,
            "carrier": self.carrier,
            "modes": self.modes,
            "ports": [p if isinstance(p, tuple) else (p,) for p in self.ports or ()],
            "references": self.reference or [],
        }


def image_ports(image: Any, plane: Any, size: Any = None) -> tuple[tuple[int, ...], ...]:
    """Return the `ports` of `Encode` that show an image in the middle of a plane of pixels.

    Parameters
    ----------
    image
        The numbers of pixels (height, width) of images, whose signals come row by row.
    plane
        Those of the plane.
    size
        The pixels of the plane that the image takes, (height, width), each with the signal of the
        image's pixel there; None: the plane is filled.

    Examples
    --------
    >>> image_ports((1, 2), (3, 4), size=(1, 4))
    ((4, 5), (6, 7))
    """
    rows, columns = pair_of_sizes(image, "image")
    height, width = pair_of_sizes(plane, "plane")
    tall, wide = (height, width) if size is None else pair_of_sizes(size, "size")
    if not (rows <= tall <= height and columns <= wide <= width):
        raise ConfigError(
            f"size must be from that of the image, {(rows, columns)}, to that of the plane, "
            f"{(height, width)}, got {(tall, wide)}"
        )
    ports: list[list[int]] = [[] for _ in range(rows * columns)]
    for i in range(tall):
        start = ((height - tall) // 2 + i) * width + (width - wide) // 2
        for j in range(wide):
            ports[i * rows // tall * columns + j * columns // wide].append(start + j)
    return tuple(map(tuple, ports))


def _port(value: Any) -> int | tuple[int, ...]:
    if is_integer(value):
        return _mode(value, "ports")
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return tuple(_mode(mode, "ports") for mode in value)
    raise ConfigError(f"every mode of ports must be an integer from 0 on, got {shown(value)}")


def _mode(value: Any, name: str) -> int:
    return integer(value, f"every mode of {name}", 0, 2**32, "an integer from 0 on")
