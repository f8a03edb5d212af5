"""Expected gradients under noise, against differences of mean losses: every layer, every place
where noise enters."""

import dataclasses

import numpy as np
import pnncore as pnn
import pytest
from pnncore import layers, methods
from pnncore.systems import Stack


def test_additive_noise_leaves_slopes_alone():
    """The mean gradient of (logistic(w x) + noise)²/2 by w, from its closed form."""
    net = Stack(
        [layers.Linear(1, 1, bias=False, noise=0.0), layers.Logistic(noise=0.5)],
        seed=0,
        dtype="float64",
    )
    net.params["W1"][...] = 0.8
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 1))
    y = np.zeros((4000, 1))
    a = 1 / (1 + np.exp(-0.8 * x))
    expected = float((a * a * (1 - a) * x).mean())
    for method in (
        methods.PhysicsAware(),
        methods.InSituBackprop(),
        methods.ForwardGradient(directions=4),
    ):
        steps = [method.gradient(net, x, y, step=k)["W1"].item() for k in range(40)]
        spread = np.std(steps) / np.sqrt(len(steps))
        assert abs(np.mean(steps) - expected) < 5 * spread + 1e-3, (
            method,
            np.mean(steps),
            expected,
        )


def chain(kind, noise):
    """A stack with this kind of layer in the middle, every layer of which is measured with
    noise."""
    width = 5
    middle = {
        "Tanh": layers.Tanh,
        "Logistic": layers.Logistic,
        "ReLU": layers.ReLU,
        "SaturableAbsorber": layers.SaturableAbsorber,
        "ElectroOptic": layers.ElectroOptic,
        "Normalize": layers.Normalize,
        "Linear": lambda **settings: layers.Linear(width, width, **settings),
        "Pendula": lambda **settings: layers.Pendula(width, time=1.0, steps=10, **settings),
        "Speckle": lambda **settings: layers.Speckle(width, width, **settings),
    }[kind]
    return Stack(
        [
            layers.Linear(3, width, noise=noise),
            middle(noise=noise),
            layers.Linear(width, 2, noise=noise),
        ],
        seed=1,
        dtype="float64",
    )


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
@pytest.mark.parametrize(
    "kind",
    [
        "Tanh",
        "Logistic",
        "ReLU",
        "SaturableAbsorber",
        "ElectroOptic",
        "Normalize",
        "Linear",
        "Pendula",
        "Speckle",
    ],
)
def test_mean_gradients_are_slopes_of_mean_losses(kind, loss):
    """Along the mean gradient, the mean loss over the same draws has the slope that the gradient
    says."""
    net = chain(kind, 0.3)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    target = np.eye(2)[y]
    steps = 20
    method = methods.PhysicsAware(loss=loss)
    gradients = [method.gradient(net, x, y, step=k) for k in range(steps)]
    mean = {name: np.mean([g[name] for g in gradients], axis=0) for name in net.names}
    size = sum(float((g**2).sum()) for g in mean.values())
    start = {name: array.copy() for name, array in net.params.items()}

    def loss_at(h):
        for name in net.names:
            net.params[name][...] = start[name] + h * mean[name]
        # Draws of their own: an expectation, not the same numbers.
        values = []
        for k in range(8 * steps):
            o = net.predict(x, repeat=k)
            if loss == "squared-error":
                values.append(0.5 * ((o - target) ** 2).sum(axis=1).mean())
            else:
                top = o - o.max(axis=1, keepdims=True)
                values.append(
                    -(target * (top - np.log(np.exp(top).sum(axis=1, keepdims=True))))
                    .sum(axis=1)
                    .mean()
                )
        return np.mean(values)

    h = 0.05 / np.sqrt(size)
    slope = (loss_at(h) - loss_at(-h)) / (2 * h)
    assert slope == pytest.approx(size, rel=0.06)


def test_audits_see_the_noise():
    net = chain("Logistic", 0.0)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    assert pnn.audit(net, methods.PhysicsAware(), x, y).relative_error < 1e-12


@pytest.mark.parametrize("method", [methods.PhysicsAware(), methods.InSituBackprop()])
@pytest.mark.parametrize(
    ("noise", "left_out"),
    [
        ({"output_noise": 0.5}, 0.0),
        ({"weight_noise": 0.5}, 0.0),
        # The variance of x W is s² W² x², that of phase-change cells s² W x²: half its derivative
        # by W.
        ({"input_noise": 0.5}, 0.25 * 0.5),
        ({"weight_noise": 0.8, "weight_noise_kind": "phase-change"}, 0.5 * 0.64),
    ],
    ids=str,
)
def test_what_twins_do_not_know_of_noise_inside_of_arrays(noise, left_out, method):
    """The mean gradient is that of the mean loss, less the growth of the noise: as the
    documentation says."""
    io = dataclasses.replace(layers.AnalogIO.ideal(), **noise)
    net = Stack([layers.Crossbar(1, 1, bias=False, io=io)], seed=0, dtype="float64")
    net.params["W1"][...] = 0.5
    x, y = np.ones((4000, 1)), np.zeros((4000, 1))
    found = np.mean([method.gradient(net, x, y, step=k)["W1"].item() for k in range(30)])

    def loss(w):
        net.params["W1"][...] = w
        return np.mean([0.5 * (net.predict(x, repeat=k) ** 2).mean() for k in range(60)])

    slope = (loss(0.6) - loss(0.4)) / 0.2
    assert slope - found == pytest.approx(left_out, abs=0.02)
