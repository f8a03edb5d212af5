"""Light in stacks: fields between real signals, against NumPy."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import ConfigError, ShapeError


def pair(carrier, **settings):
    return pnn.systems.Stack(
        [layers.Encode(4, carrier=carrier), layers.Detect()], dtype="float64", seed=0, **settings
    )


def test_detectors_see_the_power_of_modulated_light():
    x = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(pair("amplitude").predict(x), x**2, rtol=1e-15)
    np.testing.assert_allclose(pair("phase").predict(x), np.ones((5, 4)), rtol=1e-14)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e9), ("float64", 1e18)])
def test_a_phase_has_power_one_however_large_it_is(dtype, size):
    x = (size * np.linspace(0.5, 1, 400).reshape(100, 4)).astype(dtype)
    net = pnn.systems.Stack(
        [layers.Encode(4, carrier="phase"), layers.Detect()], dtype=dtype, seed=0
    )
    np.testing.assert_allclose(net.predict(x), 1, atol=1e-6)


def test_hardware_of_light_is_off_by_gains_and_responsivities():
    x = np.random.default_rng(0).normal(size=(5, 4))
    found = pair("amplitude", mismatch=0.1).predict(x) / x**2
    assert np.ptp(found, axis=0).max() < 1e-12
    assert 0.02 < np.std(found[0]) < 0.6
    lit = pair("phase", mismatch=0.1).predict(x)
    assert np.ptp(lit, axis=0).max() < 1e-12, "phases alone change no power"


def test_fields_are_not_measured():
    net = pair("amplitude", noise=0.5)
    field, power = net.measure(np.zeros((1000, 4)))
    assert field is None
    assert np.std(power) == pytest.approx(0.5, rel=0.1)


def test_what_does_not_fit_is_refused_with_what_converts_it():
    stack = pnn.systems.Stack
    refuses(ShapeError, "put Detect between them", stack, [layers.Encode(4), layers.Tanh()])
    refuses(ShapeError, "put Encode between them", stack, [layers.Linear(3, 4), layers.Detect()])
    refuses(ShapeError, "put Detect behind it", stack, [layers.Encode(4)])
    refuses(ShapeError, "Detect does not say how many", stack, [layers.Detect()])
    refuses(
        ConfigError,
        "nothing measures a field",
        stack,
        [layers.Encode(4, noise=0.1), layers.Detect()],
    )
    refuses(
        ConfigError,
        'carrier must be one of "amplitude", "phase"',
        layers.Encode,
        4,
        carrier="colour",
    )


def test_light_between_layers_is_trained():
    x, y, x_test, y_test = pnn.data.digits()
    chain = [layers.Linear(64, 16), layers.Encode(), layers.Detect(), layers.Linear(16, 10)]
    net = pnn.systems.Stack(chain, mismatch=0.1, noise=0.01, seed=0)
    method = methods.PhysicsAware(loss="cross-entropy")
    pnn.Trainer(net, method, pnn.optim.Adam(3e-3), seed=0).fit(x, y, epochs=5)
    assert net.score(x_test, y_test) > 0.85
    assert pnn.audit(net, method, x[:50], y[:50]).cosine > 0.9
