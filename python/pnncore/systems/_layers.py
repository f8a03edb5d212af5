"""What the settings of layered networks share."""

import math
from collections.abc import Sequence
from typing import Any

from pnncore._convert import positive_int
from pnncore.errors import ConfigError


def as_layers(layers: Any) -> list[int]:
    """Return the sizes of layers; `ConfigError` unless they are a sequence of positive integers."""
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ConfigError(f"layers must be a sequence of sizes, such as [784, 512, 10]; got {layers!r}")
    return [positive_int(size, "every layer") for size in layers]


def as_gain(gain: Any) -> float:
    """Return the gain of initial couplings; `ConfigError` unless it is a finite number, at least 0."""
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not (math.isfinite(gain) and gain >= 0):
        raise ConfigError(f"gain must be a finite number, at least 0, got {gain!r}")
    return float(gain)
