"""The public surface: names, signatures, prints, documentation, types."""

import doctest
import importlib
import importlib.metadata
import importlib.resources
import inspect
import pkgutil
import pydoc
import warnings
from collections.abc import Mapping

import numpy as np
import pnncore as pnn
import pytest
from helpers import run_python

PUBLIC = {
    "pnncore": [
        "Audit",
        "Callback",
        "Checkpoint",
        "EarlyStopping",
        "History",
        "PnnError",
        "Settled",
        "Settling",
        "SettlingWarning",
        "Status",
        "Trainer",
        "audit",
        "data",
        "devices",
        "errors",
        "methods",
        "optim",
        "systems",
        "testing",
    ],
    "pnncore.systems": ["DeepResistive", "Hopfield", "System"],
    "pnncore.devices": ["Device"],
    "pnncore.methods": [
        "ContrastiveLearning",
        "CoupledLearning",
        "EquilibriumPropagation",
        "ImplicitDifferentiation",
        "Method",
        "RecurrentBackprop",
        "from_config",
    ],
    "pnncore.optim": [
        "SGD",
        "Adam",
        "CosineDecay",
        "ExponentialDecay",
        "Optimizer",
        "Schedule",
        "StepDecay",
        "from_config",
    ],
    "pnncore.data": ["digits", "fashion_mnist", "iris", "mnist", "vowels"],
    "pnncore.errors": [
        "CapabilityError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "HardwareError",
        "PnnError",
        "SettlingWarning",
        "ShapeError",
    ],
}


def modules():
    names = ["pnncore"]
    names += [
        m.name
        for m in pkgutil.walk_packages(pnn.__path__, "pnncore.")
        if not m.name.endswith("__main__")
    ]
    return [name for name in names if name != "pnncore._core"]


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in PUBLIC.items() for n in names])
def test_public_names_are_there_and_documented(module, name):
    thing = getattr(importlib.import_module(module), name)
    assert inspect.getdoc(thing), f"{module}.{name} has no docstring"
    if inspect.isclass(thing):
        for key, member in vars(thing).items():
            if not key.startswith("_") and (
                inspect.isfunction(member) or isinstance(member, property | classmethod)
            ):
                assert inspect.getdoc(getattr(thing, key)), (
                    f"{module}.{name}.{key} has no docstring"
                )


@pytest.mark.parametrize(
    "module", [m for m in PUBLIC if hasattr(importlib.import_module(m), "__all__")]
)
def test_all_names_exist(module):
    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in found.__all__)
    assert set(PUBLIC[module]) <= set(found.__all__)


@pytest.mark.parametrize("module", modules())
def test_doctests(module):
    found = importlib.import_module(module)
    assert inspect.getdoc(found), f"{module} has no docstring"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failed, _ = doctest.testmod(found, optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_there_are_doctests():
    finder = doctest.DocTestFinder()
    examples = {
        m: sum(len(t.examples) for t in finder.find(importlib.import_module(m))) for m in modules()
    }
    assert examples["pnncore"] >= 5
    assert examples["pnncore.systems._hopfield"] >= 2


def test_the_first_example():
    # What a user reads first.
    x, y, x_test, y_test = pnn.data.digits()
    net = pnn.systems.Hopfield([64, 128, 10], seed=0)
    method = pnn.methods.EquilibriumPropagation(beta=0.2)
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.1), batch_size=32, seed=0)
    history = trainer.fit(x, y, epochs=1, validation=(x_test, y_test))
    assert history.epochs == 1
    assert net.predict(x_test).shape == (len(x_test), 10)
    assert net.classify(x_test).shape == (len(x_test),)
    assert 0 <= net.score(x_test, y_test) <= 1
    assert all(array.flags.writeable for array in net.params.values())
    report = pnn.audit(net, method, x[:8], y[:8])
    assert report.cosine > 0.9
    assert report.relative_error < 0.5
    assert trainer.system is net


def test_prints():
    net = pnn.systems.Hopfield([4, 3, 2], seed=1)
    assert repr(net) == "Hopfield([4, 3, 2], activation='hard-sigmoid', dtype='float32', seed=1)"
    method = pnn.methods.EquilibriumPropagation()
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.1), seed=0)
    assert repr(trainer).startswith(f"Trainer({net!r}, {method!r}, SGD(0.1), ")
    assert repr(trainer).endswith("batch_size=32, seed=0; 0 epochs done)")
    x = np.zeros((5, 4), np.float32)
    text = repr(net.settle(x))
    assert text.startswith("Settled(5 samples: 5 converged; layers [3, 2]; mean sweeps ")
    text = repr(net.settle(x, settling=pnn.Settling(sweeps=1)))
    assert "\n" not in text
    # Configurations print as what makes them.
    space = {**vars(pnn), **vars(pnn.methods), **vars(pnn.optim), **vars(pnn.systems)}
    for thing in (
        method,
        pnn.methods.CoupledLearning(eta=0.3, settling=pnn.Settling(sweeps=(4, 2))),
        pnn.Settling(tolerance=1e-3, order="synchronous"),
        pnn.optim.CosineDecay(4),
    ):
        assert eval(repr(thing), space) == thing
    again = eval(repr(net), space)
    np.testing.assert_array_equal(again.params["W1"], net.params["W1"])


def test_statuses():
    assert [status.name for status in pnn.Status] == [
        "CONVERGED",
        "UNCONVERGED",
        "DIVERGED",
        "UNBOUNDED",
        "COMPLETED",
        "SADDLE",
        "FLOPPY",
    ]
    assert [int(status) for status in pnn.Status] == [0, 1, 2, 3, 4, 5, 6]
    assert all(inspect.getdoc(status) for status in pnn.Status)


def test_version():
    parts = pnn.__version__.split(".")
    assert len(parts) == 3
    assert importlib.metadata.version("pnncore") == pnn.__version__ == pnn._core.info()["version"]


def test_types_are_shipped():
    assert importlib.resources.files("pnncore").joinpath("py.typed").is_file()
    for module, names in PUBLIC.items():
        for name in names:
            thing = getattr(importlib.import_module(module), name)
            if inspect.isfunction(thing):
                assert "return" in thing.__annotations__, f"{module}.{name} is not typed"


def test_import_is_light():
    # NumPy is the only dependency; all else is imported late.
    code = """
        import sys
        import pnncore
        heavy = {"matplotlib", "sklearn", "scipy", "torch", "pandas", "hypothesis", "safetensors"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert run_python(code).strip() == "[]"


def test_info():
    info = pnn._core.info()
    assert info["simd"] in info["simd_available"]
    assert info["threads"] >= 1
    names = {name for name, _ in info["methods"]}
    settling = set(pnn.systems.Hopfield([2, 2], activation="tanh").methods())
    layered = set(pnn.systems.Stack([pnn.layers.Linear(2, 2)]).methods())
    optical = set(pnn.systems.Stack([pnn.layers.Speckle(2, 2)]).methods())
    assert names >= settling | layered | optical
    assert {name.split("(")[0] for name in names} == {
        kind.__name__ for kind in pnn.methods.Method.kinds().values()
    }
    assert all(needs for _, needs in info["methods"])


def test_a_history_is_a_mapping():
    net = pnn.systems.Hopfield([4, 3, 2], seed=1)
    method = pnn.methods.EquilibriumPropagation()
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.1), seed=0, progress=False)
    history = trainer.fit(np.zeros((5, 4)), np.zeros(5, int), epochs=3)
    assert isinstance(history, Mapping)
    assert tuple(history) == tuple(history.keys()) == history.KEYS
    assert len(history) == len(dict(history)) == len(history.KEYS)
    assert history.epochs == 3
    for name, values in history.items():
        np.testing.assert_array_equal(values, history[name])
    assert "loss" in history
    assert history.get("nothing") is None
    assert history == history
    assert history != pnn.History()


def test_what_is_shown_is_public_and_there():
    shown = set(dir(pnn))
    assert not {name for name in shown if name.startswith("_")} - {"__doc__", "__version__"}
    assert set(pnn.__all__) <= shown
    for name in shown - {"Classifier", "Regressor", "estimators"}:
        assert hasattr(pnn, name)
    assert "class Trainer" in pydoc.plain(pydoc.render_doc(pnn))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pnn.nothing  # noqa: B018
