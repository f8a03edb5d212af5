"""Every setting that is True or False is one of them, or refused: no text counts as True."""

import importlib
import inspect
import pkgutil

import numpy as np
import pnncore as pnn
import pytest
from helpers import Springs
from laboratory import X, bench, close_all
from pnncore import (
    analog,
    callbacks,
    comparing,
    data,
    devices,
    elements,
    estimators,
    layers,
    memories,
    methods,
    systems,
    testing,
)
from pnncore.errors import ConfigError, PnnError

NOT_FLAGS = [
    "no",
    "yes",
    "False",
    "",
    0,
    1,
    1.0,
    None,
    [],
    [False],
    np.array([True, False]),
    object(),
    np.int8(1),
]


def small():
    return systems.Stack([layers.Linear(3, 2)], seed=0)


class Squared(pnn.losses.Loss):
    def value(self, outputs, targets):
        return 0.5 * ((outputs - targets) ** 2).sum(axis=1)

    def gradient(self, outputs, targets):
        return outputs - targets


def springs(**settings):
    return Springs(n_in=2, n_states=1, n_out=1, params={"k": np.ones(2)}, **settings)


def holomorphic(holomorphic):
    return type("Analytic", (Springs,), {"holomorphic": holomorphic})(
        n_in=2, n_states=1, n_out=1, params={"k": np.ones(2)}
    )


def standardized(estimator):
    return lambda **settings: estimator(epochs=1, **settings).fit(X, (X[:, 0] > 0).astype(int))


def trainer(**settings):
    net = systems.Hopfield([3, 2], seed=0)
    return pnn.Trainer(net, pnn.methods.EquilibriumPropagation(), pnn.optim.SGD(0.1), **settings)


def compared(**settings):
    net = systems.Hopfield([3, 2], seed=0)
    x, y = X.astype(np.float32), np.zeros(12, int)
    return comparing.compare(
        net, {"a": pnn.methods.EquilibriumPropagation()}, (x, y, x, y), passes=10, **settings
    )


def fitted(**settings):
    arrays = {"x": X, "y": X[:, :1]}
    return pnn.twins.fit(arrays, hidden=(2,), epochs=1, **settings)


CELLS = [
    devices.ConstantStep,
    devices.ExpStep,
    devices.LinearStep,
    devices.PowerStep,
    devices.SoftBounds,
    devices.TableStep,
]

# What takes flags, by the names that the package gives it, and a call that gives one.
CALLS = {
    ("EarlyStopping", "restore"): callbacks.EarlyStopping,
    ("compare", "progress"): compared,
    ("Trainer", "progress"): trainer,
    ("fit", "progress"): fitted,
    **{
        (kind.__name__, "trained"): lambda kind=kind, **settings: kind("a", "b", **settings)
        for kind in (elements.Cubic, elements.CurrentSource, elements.Resistor, elements.Transistor)
    },
    ("AnalogIO", "stochastic_rounding"): analog.AnalogIO,
    ("AnalogIO", "bound_management"): analog.AnalogIO,
    ("Wires", "exact"): analog.Wires,
    ("DetectorRegions", "differential"): lambda **settings: layers.DetectorRegions(
        2, (9, 9), **settings
    ),
    ("CoupledModes", "tunable_decay"): lambda **settings: layers.CoupledModes([2, 3], **settings),
    ("Crossbar", "bias"): lambda **settings: layers.Crossbar(3, 2, **settings),
    ("Linear", "bias"): lambda **settings: layers.Linear(3, 2, **settings),
    ("Stack", "numbered"): lambda **settings: systems.Stack([layers.Linear(3, 2)], **settings),
    ("mnist", "download"): lambda **settings: never_fetched(data.mnist, **settings),
    ("fashion_mnist", "download"): lambda **settings: never_fetched(data.fashion_mnist, **settings),
    **{(kind.__name__, "additive_noise"): kind for kind in CELLS},
    ("LinearStep", "mean_bound"): devices.LinearStep,
    ("SoftBounds", "mean_bound"): devices.SoftBounds,
    **{
        ("PulseTrains", name): devices.PulseTrains
        for name in ("manage_length", "balance", "at_once")
    },
    ("Classifier", "standardize"): standardized(estimators.Classifier),
    ("Regressor", "standardize"): standardized(estimators.Regressor),
    ("Mapping", "per_column"): memories.Mapping,
    ("EnergySystem", "bounded_outputs"): springs,
    ("EnergySystem", "holomorphic"): holomorphic,
    ("Instrument", "batch"): bench,
    ("Instrument", "idempotent"): bench,
    ("check_layer", "raises"): lambda **settings: testing.check_layer(
        layers.Speckle(2, 3), **settings
    ),
    ("check_loss", "raises"): lambda **settings: testing.check_loss(Squared(), 2, **settings),
    ("check_method", "raises"): lambda **settings: testing.check_method(
        methods.PhysicsAware(), small(), **settings
    ),
    ("check_system", "raises"): lambda **settings: testing.check_system(springs(), **settings),
}

# Results, and what only the package itself calls.
INTERNAL = {
    ("Finding", "passed"),
    ("AuditedPair", "holds"),
    ("Found", "is_change"),
    ("Policy", "batch"),
    ("Policy", "idempotent"),
    ("Cells", "additive_noise"),
    ("Epoch", "single"),
}

OR_NONE = {"progress"}


def never_fetched(load, **settings):
    """Load a data set that is nowhere, where nothing can be fetched."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("PNNCORE_DATA", raising=False)
        patched.setenv("XDG_CACHE_HOME", "/nowhere")
        patched.setattr(
            "urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("offline"))
        )
        return load(**settings)


@pytest.fixture(autouse=True)
def closed():
    yield
    close_all()


def flags_of_the_package():
    found = set()
    for module in pkgutil.walk_packages(pnn.__path__, "pnncore."):
        parts = module.name.split(".")
        if (
            any(part.startswith("_") for part in parts[1:-1])
            or parts[-1] == "__main__"
            or parts[1] in ("cli", "_convert")
        ):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            own = (
                callable(value)
                and not name.startswith("_")
                and value.__module__.startswith("pnncore.")
            )
            if not own or value.__module__.split(".")[1] in ("cli", "_convert", "_progress"):
                continue
            if inspect.isclass(value) and issubclass(value, Exception | Warning):
                continue
            parameters = inspect.signature(value).parameters.values()
            found |= {(name, p.name) for p in parameters if p.annotation in (bool, bool | None)}
    return found


def test_all_flags_are_tried():
    assert flags_of_the_package() - INTERNAL <= set(CALLS)
    assert len(CALLS) > 30


@pytest.mark.parametrize(
    ("where", "call"),
    CALLS.items(),
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_flags_are_bools(where, call):
    _, name = where
    for value in NOT_FLAGS:
        if value is None and name in OR_NONE:
            continue
        with pytest.raises(ConfigError, match=rf"(^|: ){name} must be True or False, got"):
            call(**{name: value})


@pytest.mark.parametrize(
    ("where", "call"),
    CALLS.items(),
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_flags_of_numpy_are_bools(where, call):
    _, name = where
    for value in (True, False):
        outcomes = []
        for given in (value, np.bool_(value)):
            try:
                made = call(**{name: given})
                outcomes.append(getattr(made, name, None))
            except PnnError as error:
                outcomes.append(str(error).replace("np.", ""))
        assert outcomes[0] == outcomes[1], value
        # scikit-learn keeps settings as they were given, and a class attribute stays what it is.
        assert name in ("standardize", "holomorphic") or not isinstance(outcomes[1], np.bool_)
