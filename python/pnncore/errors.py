"""The exceptions of pnncore.

Every error that the package raises on purpose is a `PnnError`. Each child also inherits from the
built-in exception that a caller would expect, so that ``except ValueError`` keeps working.
"""

__all__ = [
    "BudgetError",
    "CapabilityError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DriftWarning",
    "HardwareError",
    "JournalError",
    "PnnError",
    "SettlingWarning",
    "ShapeError",
    "UnresolvedShot",
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


class BudgetError(HardwareError):
    """The budget of an instrument is spent."""


class UnresolvedShot(HardwareError):  # noqa: N818 - it is the shot that the error is about
    """A process ended between a shot and its answer, and the shot must not be repeated unasked."""


class JournalError(PnnError, ValueError):
    """A journal is damaged, foreign, in use, or holds another run."""


class CheckpointError(PnnError, ValueError):
    """A checkpoint is damaged, foreign, or does not fit."""


class SettlingWarning(UserWarning):
    """Some samples did not settle.

    They ran out of sweeps, diverged, or their energy has no minimum.
    """


class NetlistWarning(UserWarning):
    """Something of a netlist was passed over, since it does not act at an operating point."""


class DriftWarning(UserWarning):
    """An instrument answers otherwise than it did."""
