"""Forward mode learning, parameter shift of light, and local learning as it was published."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import CapabilityError, ConfigError

RNG = np.random.default_rng(5)


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def plane(*chain, **settings):
    ports = layers.image_ports((2, 3), (6, 6), (4, 6))
    return pnn.systems.Stack(
        [layers.Encode(6, modes=36, ports=ports), *chain], dtype="float64", seed=1, **settings
    )


def mask(**settings):
    return layers.Diffraction((6, 6), 15.0, 1.0, 0.8, **settings)


X, Y = RNG.normal(size=(20, 6)), RNG.integers(0, 3, 20)


@pytest.mark.parametrize("settings", [{}, {"absorption": 0.1}, {"mask": "complex"}])
def test_errors_that_are_fed_forward_tell_the_exact_gradient(settings):
    net = plane(mask(**settings), mask(**settings), layers.DetectorRegions(3, (6, 6)))
    exact = methods.Backprop(model="hardware").gradient(net, X, Y)
    found = methods.ForwardModeLearning().gradient(net, X, Y)
    for name, wanted in exact.items():
        assert error(found[name], wanted) < 1e-9
    trainer = pnn.Trainer(net, methods.ForwardModeLearning(), pnn.optim.Adam(0.01), seed=0)
    history = trainer.fit(X, Y, epochs=1)
    # Signals once, and errors once through each layer; none of them backward.
    assert history["measured"].tolist() == [3 * 20]
    assert history["reversed"].tolist() == [0]
    assert history["reads"].tolist() == [20 * (2 * 8 * 36 + 2 * 72)]


def test_what_masks_do_to_errors_is_what_they_are_set_to():
    # Where masks are elsewhere, errors that are sent back meet them there, and errors that are fed
    # forward do not: neither is the gradient, and they differ.
    chain = [mask(mismatch=0.1), mask(mismatch=0.1), layers.DetectorRegions(3, (6, 6))]
    net = plane(*chain)
    exact = methods.Backprop(model="hardware").gradient(net, X, Y)["phase2"].ravel()
    cosine = []
    for method in (methods.InSituBackprop(), methods.ForwardModeLearning()):
        found = method.gradient(net, X, Y)["phase2"].ravel()
        cosine.append(found @ exact / np.linalg.norm(found) / np.linalg.norm(exact))
    assert all(0.9 < own < 1 - 1e-4 for own in cosine)
    assert abs(cosine[0] - cosine[1]) > 1e-4


def test_media_that_are_not_symmetric_are_refused():
    guide = layers.Waveguide(36, 36.0, 60.0, 1.0, index_range=0.02, steps=8)
    fibre = layers.Fibre(36, 8.0, 1.0, -1.0, 2.0, steps=20)
    for other in (guide, fibre, layers.MZIMesh(36)):
        net = plane(mask(), other, layers.Detect())
        refuses(
            CapabilityError,
            r"layer 3 \(\w+\) has a transfer that differs from its transpose",
            methods.ForwardModeLearning().gradient,
            net,
            X,
            RNG.normal(size=(20, 36)),
        )
    net = pnn.systems.Stack([layers.Linear(6, 3)])
    refuses(
        CapabilityError,
        "has no light that passes",
        methods.ForwardModeLearning().gradient,
        net,
        X,
        Y,
    )


@pytest.mark.parametrize(
    "chain",
    [
        [mask(), mask(), layers.Detect()],
        [mask(), mask(mask=None), layers.DetectorRegions(3, (6, 6), gain=None)],
        [layers.MZIMesh(36), mask(mask=None), layers.Detect("balanced")],
    ],
)
def test_phases_of_light_are_shifted_exactly(chain):
    net = plane(*chain, mismatch=0.05)
    y = RNG.normal(size=(20, net.n_out))
    exact = methods.Backprop(model="hardware").gradient(net, X, y)
    found = methods.ParameterShift().gradient(net, X, y)
    for name, wanted in exact.items():
        assert error(found[name], wanted) < 1e-9


@pytest.mark.parametrize(
    "chain",
    [
        [mask(absorption=0.1), layers.Detect()],
        [mask(mask="amplitude"), layers.Detect()],
        [mask(bits=1), layers.Detect()],
        [mask(), layers.DetectorRegions(3, (6, 6))],
        [mask(), layers.Fibre(36, 8.0, 1.0, -1.0, 2.0, steps=20), layers.Detect()],
    ],
)
def test_shifts_that_would_be_wrong_are_refused(chain):
    net = plane(*chain)
    y = RNG.normal(size=(20, net.n_out))
    refuses(
        CapabilityError,
        "each output must be a sinusoid",
        methods.ParameterShift().gradient,
        net,
        X,
        y,
    )


def test_goodness_may_be_a_cosine():
    """As physical local learning was published: the loss by plain means, and its gradient."""
    rng = np.random.default_rng(0)
    net = pnn.systems.Stack(
        [layers.Linear(7, 5), layers.Tanh(), layers.Linear(5, 4)], dtype="float64", seed=0
    )
    x, y = rng.normal(size=(6, 7)), rng.integers(0, 2, 6)
    method = methods.ForwardForward(classes=2, goodness="cosine", tau=3.0)
    found = method.gradient(net, x, y)
    directions = [pnn._core.goodness_direction(k, n) for k, n in enumerate((5, 4))]
    assert all(abs((p**2).sum() - 1) < 1e-12 and (p >= 0).all() for p in directions)

    def goodness(group, label):
        tried = x.copy()
        tried[:, -2:] = np.eye(2)[label]
        signal = tried @ net.params["W1"] + net.params["b1"]
        outputs = [signal, np.tanh(signal) @ net.params["W3"] + net.params["b3"]]
        own = outputs[group]
        return np.abs(own) @ directions[group] / np.linalg.norm(own, axis=1)

    def loss(group):
        excess = 3.0 * (goodness(group, 1 - y) - goodness(group, y))
        return np.log1p(np.exp(excess)).mean()

    for name, group in (("W1", 0), ("b1", 0), ("W3", 1), ("b3", 1)):
        values = net.params[name]
        for at in np.ndindex(values.shape):
            kept = values[at]
            values[at] = kept + 1e-6
            above = loss(group)
            values[at] = kept - 1e-6
            slope = (above - loss(group)) / 2e-6
            values[at] = kept
            assert abs(slope - found[name][at]) < 1e-8
    predicted = method.predict(net, x)
    wanted = np.stack(
        [sum(goodness(group, np.full(6, label)) for group in (0, 1)) for label in (0, 1)], axis=1
    )
    assert error(predicted, wanted) < 1e-12


def test_settings_of_the_other_goodness_are_refused():
    net = pnn.systems.Stack([layers.Linear(6, 3)], seed=0)
    for settings, text in [
        ({"goodness": "cosine", "threshold": 0.1}, "threshold has no effect on this goodness"),
        ({"tau": 2.0}, "tau has no effect on this goodness"),
        ({"goodness": "cosine", "tau": 0.0}, "tau must be a positive number"),
        ({"threshold": -1.0}, "threshold must be a positive number"),
        ({"goodness": "energy"}, "goodness must be one of"),
    ]:
        refuses(
            ConfigError,
            text,
            lambda own=settings: methods.ForwardForward(classes=3, **own).gradient(net, X, Y),
        )
