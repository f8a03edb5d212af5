"""What hostile objects are tried on: small systems, data and trainers, and calls of them."""

import inspect
import pathlib

import numpy as np
import pnncore as pnn
from helpers import Springs, make_batch, make_net
from pnncore import elements, layers, methods, optim, systems

EP = methods.EquilibriumPropagation


class Absolute(pnn.losses.Loss):
    def value(self, outputs, targets):
        return np.abs(outputs - targets).sum(axis=1)

    def gradient(self, outputs, targets):
        return np.sign(outputs - targets)


DIVIDER = [elements.Resistor("in", "out", 1.0), elements.Resistor("out", "0", 3.0)]


def hopfield():
    return make_net([3, 4, 2], dtype="float32")


OPTICS = {
    "shape": (3, 4),
    "classes": 2,
    "points": 8,
    "distance": 9.0,
    "wavelength": 0.8,
    "pitch": 1.0,
    "length": 20.0,
    "window": 6.0,
    "dispersion": -1.0,
    "nonlinearity": 1.0,
    "couplings": (2, 3),
}


def sizes(kind):
    """The settings that a kind of layer has no defaults for."""
    known = {"n": 2, "n_in": 2, "n_out": 3, "n_params": 3, "width": 4.0, **OPTICS}
    needed = inspect.signature(kind).parameters.values()
    return {own.name: known[own.name] for own in needed if own.default is own.empty}


def stack(*given):
    return systems.Stack(
        list(given) or [layers.Linear(3, 4), layers.Tanh(), layers.Linear(4, 2)], seed=0
    )


def light():
    return stack(layers.MZIMesh(3), layers.Detect())


def circuit(dtype="float32"):
    return systems.Circuit(DIVIDER, inputs=["in"], outputs=["out"], dtype=dtype)


def elastic():
    return systems.Elastic(
        [[0, 0], [1, 0], [2, 0]],
        [[0, 1], [1, 2]],
        inputs=[(2, 0)],
        outputs=[(1, 0)],
        fixed=[0],
        dtype="float32",
    )


def batch(net, samples=4):
    return dict(zip(("x", "y"), make_batch(net, samples), strict=True))


def trainer(net=None, method=None, **settings):
    return pnn.Trainer(
        net or hopfield(), method or EP(), optim.SGD(0.1), seed=0, progress=False, **settings
    )


def fitted():
    made = trainer()
    made.fit(**batch(made.system), epochs=1)
    return made


def table():
    """A file of samples with labels, in the present folder."""
    pathlib.Path("own.csv").write_text("1,2,0\n3,4,1\n5,6,0\n7,8,1\n")
    return "own.csv"


def on(make, name, **arguments):
    """A call of a method of what `make` gives; arguments may be functions of it."""

    def prepare():
        owner = make()
        return getattr(owner, name), {
            k: v(owner) if callable(v) else v for k, v in arguments.items()
        }

    return prepare


def by_field(kind, **required):
    """A call of a dataclass with all its settings, at their defaults."""

    def prepare():
        made = kind(**required)
        names = [
            n for n, p in inspect.signature(kind).parameters.items() if p.kind is not p.VAR_KEYWORD
        ]
        return kind, {name: getattr(made, name) for name in names}

    return prepare


def of(call, **arguments):
    return lambda: (
        call,
        {k: v() if callable(v) and k in MADE else v for k, v in arguments.items()},
    )


MADE = ("net", "system", "history", "method", "methods")
X = lambda net: batch(net)["x"]  # noqa: E731 - both are arguments of most calls
Y = lambda net: batch(net)["y"]  # noqa: E731


def compare_with(part):
    """A call of `compare` one part of whose data, or of whose methods, is the argument."""
    x, y = batch(stack()).values()

    def run(value):
        given = {"x": x, "y": y, "x_test": x, "y_test": y} | (
            {part: value} if part[0] in "xy" else {}
        )
        method = {
            "entry": value,
            "method": (value, optim.SGD(0.1)),
            "rule": (methods.Backprop(), value),
        }
        named = {"a": method.get(part, methods.Backprop(model="hardware"))}
        return pnn.compare(
            stack(), named, tuple(given.values()), passes=4, batch_size=2, progress=False
        )

    good = {"entry": methods.Backprop(), "method": methods.Backprop(), "rule": optim.SGD(0.1)}
    return of(run, value={"x": x, "y": y, "x_test": x, "y_test": y, **good}[part])


def fit_with(validation):
    return trainer().fit(**batch(hopfield()), epochs=1, validation=validation)


def springs_with(**settings):
    return Springs(n_in=2, n_states=1, n_out=1, params={"k": np.array([1.0, 3.0])}, **settings)
