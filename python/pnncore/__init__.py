"""Train physical neural networks.

A *system* is the physics (`pnncore.systems`), a *method* turns a batch into a gradient by running
experiments on it (`pnncore.methods`), an *optimizer* turns gradients into parameter changes
(`pnncore.optim`), and a `Trainer` loops over the data.

>>> import pnncore as pnn
>>> x, y, x_test, y_test = pnn.data.digits()
>>> net = pnn.systems.Hopfield([64, 128, 10], seed=0)
>>> method = pnn.methods.EquilibriumPropagation(beta=0.2)
>>> trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.1), seed=0)
>>> history = trainer.fit(x, y, epochs=1)
"""

import importlib
from typing import TYPE_CHECKING, Any

from pnncore import analog as analog
from pnncore import devices as devices
from pnncore import elements as elements
from pnncore import errors as errors
from pnncore import instruments as instruments
from pnncore import journal as journal
from pnncore import layers as layers
from pnncore import losses as losses
from pnncore import methods as methods
from pnncore import optim as optim
from pnncore import systems as systems
from pnncore._core import __version__ as __version__
from pnncore.callbacks import Callback as Callback
from pnncore.callbacks import Checkpoint as Checkpoint
from pnncore.callbacks import EarlyStopping as EarlyStopping
from pnncore.errors import PnnError as PnnError
from pnncore.errors import SettlingWarning as SettlingWarning
from pnncore.history import History as History
from pnncore.settling import Settled as Settled
from pnncore.settling import Settling as Settling
from pnncore.settling import Status as Status
from pnncore.trainer import Trainer as Trainer

if TYPE_CHECKING:
    from pnncore import costs as costs
    from pnncore import data as data
    from pnncore import estimators as estimators
    from pnncore import memories as memories
    from pnncore import plot as plot
    from pnncore import testing as testing
    from pnncore import twins as twins
    from pnncore.auditing import Audit as Audit
    from pnncore.auditing import AuditTable as AuditTable
    from pnncore.auditing import audit as audit
    from pnncore.auditing import audit_all as audit_all
    from pnncore.comparing import Comparison as Comparison
    from pnncore.comparing import compare as compare
    from pnncore.estimators import Classifier as Classifier
    from pnncore.estimators import Regressor as Regressor

__all__ = [
    "Audit",
    "AuditTable",
    "Callback",
    "Checkpoint",
    "Comparison",
    "EarlyStopping",
    "History",
    "PnnError",
    "Settled",
    "Settling",
    "SettlingWarning",
    "Status",
    "Trainer",
    "analog",
    "audit",
    "audit_all",
    "compare",
    "costs",
    "data",
    "devices",
    "elements",
    "errors",
    "instruments",
    "journal",
    "layers",
    "losses",
    "memories",
    "methods",
    "optim",
    "plot",
    "systems",
    "testing",
    "twins",
]

# What a training loop does without, and the module that each name is of: imported where it is asked
# for. Estimators need scikit-learn, which nothing else does, and are not among what `*` imports.
_MODULES = ("costs", "data", "estimators", "memories", "plot", "testing", "twins")
_ESTIMATORS = {"Classifier": "estimators", "Regressor": "estimators"}
_NAMES = {
    "Audit": "auditing",
    "AuditTable": "auditing",
    "audit": "auditing",
    "audit_all": "auditing",
    "Comparison": "comparing",
    "compare": "comparing",
    **_ESTIMATORS,
}


def __getattr__(name: str) -> Any:
    """Import what is asked for late, once."""
    if name in _MODULES:
        return importlib.import_module(f"pnncore.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'pnncore' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"pnncore.{_NAMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return what is public."""
    return sorted([*__all__, *_ESTIMATORS, "estimators", "__doc__", "__version__"])
