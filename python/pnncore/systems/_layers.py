"""What the settings of layered networks share."""

from collections.abc import Sequence
from typing import Any

from pnncore._convert import non_negative, positive_int, shown
from pnncore.errors import ConfigError


def as_layers(layers: Any) -> list[int]:
    """Return the sizes of layers; `ConfigError` unless they are a sequence of positive integers."""
    if isinstance(layers, str | bytes) or not isinstance(layers, Sequence):
        raise ConfigError(
            f"layers must be a sequence of sizes, such as [784, 512, 10]; got {shown(layers)}"
        )
    return [positive_int(size, "every layer") for size in layers]


def as_gain(gain: Any) -> float:
    """Return the gain of initial couplings.

    `ConfigError` unless it is a finite number, at least 0.
    """
    try:
        return non_negative(gain, "gain")
    except ConfigError:
        raise ConfigError(f"gain must be a finite number, at least 0, got {shown(gain)}") from None
