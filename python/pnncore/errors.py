"""The exceptions of pnncore.

Every error that the package raises on purpose is a `PnnError`. Each child also inherits from the built-in
exception that a caller would expect, so that ``except ValueError`` keeps working.
"""

__all__ = [
    "CapabilityError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "HardwareError",
    "PnnError",
    "SettlingWarning",
    "ShapeError",
]


class PnnError(Exception):
    """Base of every error that pnncore raises on purpose."""


class ShapeError(PnnError, ValueError):
    """An array has the wrong shape."""


class ConfigError(PnnError, ValueError):
    """A setting is out of range, or its name is unknown."""


class DataError(PnnError, ValueError):
    """Data hold NaN, infinity or labels out of range, or a data file is missing or damaged."""


class CapabilityError(PnnError, TypeError):
    """The method needs an ability that the system does not have."""


class HardwareError(PnnError, RuntimeError):
    """A device or a user's system failed."""


class CheckpointError(PnnError, ValueError):
    """A checkpoint is damaged, foreign, or does not fit."""


class SettlingWarning(UserWarning):
    """Some samples did not settle: they ran out of sweeps, diverged, or their energy has no minimum."""
