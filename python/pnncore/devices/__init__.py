"""Devices: what the material does with a wanted change of a parameter.

A `Device` is written: every element is brought to the wanted value, as near as it can. `Cells` are
moved by pulses, each in its own way; an `Algorithm` says which pulses come.
"""

import importlib
import json
from typing import TYPE_CHECKING, Any

from pnncore import _core
from pnncore._convert import shown
from pnncore.devices._algorithms import Algorithm, MixedPrecision, TikiTaka
from pnncore.devices._cells import (
    Cells,
    ConstantStep,
    ExpStep,
    LinearStep,
    MultiCell,
    Pair,
    PowerStep,
    SoftBounds,
    TableStep,
)
from pnncore.devices._config import from_config
from pnncore.devices._presets import (
    PCM,
    PRESETS,
    Capacitor,
    EcRam,
    EcRamMO,
    GokmenVlasov,
    Idealized,
    ReRamES,
    ReRamSB,
)
from pnncore.devices._trains import PulseTrains
from pnncore.devices._written import Device
from pnncore.errors import ConfigError

if TYPE_CHECKING:
    from pnncore.devices._fitting import DeviceFit as DeviceFit
    from pnncore.devices._fitting import fit as fit

__all__ = [
    "PCM",
    "PRESETS",
    "Algorithm",
    "Capacitor",
    "Cells",
    "ConstantStep",
    "Device",
    "DeviceFit",
    "EcRam",
    "EcRamMO",
    "ExpStep",
    "GokmenVlasov",
    "Idealized",
    "LinearStep",
    "MixedPrecision",
    "MultiCell",
    "Pair",
    "PowerStep",
    "PulseTrains",
    "ReRamES",
    "ReRamSB",
    "SoftBounds",
    "Stored",
    "TableStep",
    "TikiTaka",
    "fit",
    "from_config",
    "storage",
]


def __getattr__(name: str) -> Any:
    """Import what fits devices where it is asked for: training does without."""
    if name not in ("DeviceFit", "fit"):
        raise AttributeError(f"module 'pnncore.devices' has no attribute {name!r}")
    found = getattr(importlib.import_module("pnncore.devices._fitting"), name)
    globals()[name] = found
    return found


#: What a matrix of weights can be stored in.
Stored = Cells | Pair | MultiCell


def storage(
    device: Stored | None, trains: PulseTrains, algorithm: Algorithm | None
) -> dict[str, Any] | None:
    """Return what a matrix of weights is stored in, as the core reads it.

    `ConfigError` for what cannot be.
    """
    for name, value, choices in (
        ("device", device, (Cells, Pair, MultiCell)),
        ("trains", trains, (PulseTrains,)),
        ("algorithm", algorithm, (Algorithm,)),
    ):
        if not isinstance(value, choices) and (value is not None or name == "trains"):
            known = " or ".join(f"pnncore.devices.{kind.__name__}" for kind in choices)
            raise ConfigError(f"{name} must be {known}, got {shown(value)}")
    if device is None:
        if algorithm is not None:
            raise ConfigError(f"{algorithm!r} needs a device whose cells get the pulses")
        return None
    spec = device.tile(trains, None if algorithm is None else algorithm.spec())
    _core.check_tile(json.dumps(spec))
    return spec
