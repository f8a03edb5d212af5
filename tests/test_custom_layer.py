"""Layers of one's own, from functions."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import layers, methods, systems, testing
from pnncore.errors import (
    CapabilityError,
    CheckpointError,
    ConfigError,
    DataError,
    SettlingWarning,
    ShapeError,
)

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(5, 4))


def forward(x, params):
    return np.sin(x * params["a"]) @ MIXING + params["b"]


def vjp(x, params, dy):
    back = dy @ MIXING.T * np.cos(x * params["a"])
    return back * params["a"], {"a": (back * x).sum(axis=0), "b": dy.sum(axis=0)}


def jvp(x, params, dx, along):
    return np.cos(x * params["a"]) * (dx * params["a"] + x * along["a"]) @ MIXING + along["b"]


def waves(**settings):
    given = {
        "vjp": vjp,
        "jvp": jvp,
        "params": {"a": np.linspace(0.5, 1.5, 5), "b": np.zeros(4)},
        **settings,
    }
    return layers.Custom(5, 4, given.pop("forward", forward), **given)


def stack(layer, dtype="float64"):
    return systems.Stack([layers.Linear(3, 5), layer, layers.Linear(4, 2)], dtype=dtype, seed=0)


def data(dtype="float64", samples=12):
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, 3)).astype(dtype), rng.integers(0, 2, samples)


def flat(gradient):
    return np.concatenate([array.ravel() for array in gradient.values()])


def test_it_computes_what_the_functions_say():
    net, (x, _) = stack(waves()), data()
    between = forward(
        x @ net.params["W1"] + net.params["b1"], {"a": net.params["a2"], "b": net.params["b2"]}
    )
    np.testing.assert_allclose(
        net.predict(x), between @ net.params["W3"] + net.params["b3"], rtol=1e-12
    )
    np.testing.assert_array_equal(net.params["a2"], np.linspace(0.5, 1.5, 5))


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
def test_gradients_are_those_of_differences(loss):
    net, (x, y) = stack(waves()), data()
    wanted = flat(methods.FiniteDifference(loss=loss, epsilon=1e-5).gradient(net, x, y))
    for method in (
        methods.Backprop(loss=loss),
        methods.Backprop(loss=loss, model="hardware"),
        methods.PhysicsAware(loss=loss),
    ):
        np.testing.assert_allclose(flat(method.gradient(net, x, y)), wanted, rtol=0, atol=1e-8)
    assert pnn.audit(net, methods.PhysicsAware(loss=loss), x, y).relative_error < 1e-12
    # Unbiased: directions of deviation one.
    found = [
        flat(methods.ForwardGradient(loss=loss, directions=400).gradient(net, x, y, seed=s))
        for s in range(8)
    ]
    spread = np.linalg.norm(np.mean(found, axis=0) - wanted) / np.linalg.norm(wanted)
    assert spread < 2 * np.sqrt(len(wanted) / 3200)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_trains_saves_and_resumes(tmp_path, dtype):
    x, y = data(dtype, 40)

    def trainer(net):
        return pnn.Trainer(
            net, methods.Backprop(loss="cross-entropy"), pnn.optim.Adam(0.02), batch_size=8, seed=0
        )

    whole, parts = trainer(stack(waves(), dtype)), trainer(stack(waves(), dtype))
    history = whole.fit(x, y, epochs=6)
    assert history["loss"][-1] < history["loss"][0]
    parts.fit(x, y, epochs=4)
    parts.save(tmp_path / "run.pnn")
    with pytest.raises(CheckpointError, match="system="):
        pnn.Trainer.load(tmp_path / "run.pnn")
    again = pnn.Trainer.load(tmp_path / "run.pnn", system=stack(waves(), dtype))
    again.fit(x, y, epochs=2)
    for name, array in whole.system.params.items():
        np.testing.assert_array_equal(again.system.params[name], array)


def test_without_derivatives_only_outputs_are_asked_for():
    net, (x, y) = stack(waves(vjp=None, jvp=None)), data()
    assert "SPSA" in net.methods()
    assert "Backprop" not in net.methods()
    methods.SPSA(directions=3).gradient(net, x, y)
    with pytest.raises(CapabilityError, match="layer 2 has no twin"):
        methods.Backprop().gradient(net, x, y)
    with pytest.raises(CapabilityError, match="without jvp="):
        methods.ForwardGradient().gradient(stack(waves(jvp=None)), x, y)


def test_checks_find_what_is_wrong():
    assert all(finding.passed for finding in testing.check_layer(waves()))
    assert all(finding.passed for finding in testing.check_layer(layers.Speckle(3, 4)))
    flipped = waves(vjp=lambda x, params, dy: (-vjp(x, params, dy)[0], vjp(x, params, dy)[1]))
    with pytest.raises(
        testing.LayerCheckError, match=r"FAIL vjp is the derivative by the inputs.*sign is wrong"
    ):
        testing.check_layer(flipped)
    twice = waves(
        vjp=lambda x, params, dy: (
            vjp(x, params, dy)[0],
            {**vjp(x, params, dy)[1], "a": vjp(x, params, 2 * dy)[1]["a"]},
        )
    )
    with pytest.raises(
        testing.LayerCheckError, match=r"FAIL vjp is the derivative by a.*factor of 2"
    ):
        testing.check_layer(twice)
    mixed = waves(forward=lambda x, params: forward(x, params) - forward(x, params).mean(axis=0))
    found = {finding.check: finding.passed for finding in testing.check_layer(mixed, raises=False)}
    assert not found["rows do not depend on each other"]
    drifting = waves(forward=lambda x, params: forward(x, params) + RNG.normal())
    found = {
        finding.check: finding.passed for finding in testing.check_layer(drifting, raises=False)
    }
    assert not found["equal inputs give equal outputs"]


def test_what_is_wrong_is_said():
    for settings, text in (
        ({"forward": 3}, "forward must be a function"),
        ({"vjp": "x"}, "vjp must be a function"),
        ({"mismatch": 0.1}, "mismatch is for layers"),
        ({"params": [1.0]}, "params must be a dictionary"),
        ({"params": {"a": "x"}}, "params"),
    ):
        with pytest.raises((ConfigError, DataError), match=text):
            waves(**settings)
    x, y = data()
    with pytest.raises(ShapeError, match="takes 5 inputs"):
        systems.Stack([layers.Linear(3, 4), waves()], seed=0)
    with pytest.raises(ConfigError, match=r"forward must return real numbers of shape \(12, 4\)"):
        stack(waves(forward=lambda x, params: x)).predict(x)
    with pytest.raises(ConfigError, match="forward must return real numbers"):
        stack(waves(forward=lambda x, params: forward(x, params) * 1j)).predict(x)
    with pytest.raises(ConfigError, match="vjp must return gradients by"):
        methods.Backprop().gradient(
            stack(waves(vjp=lambda x, params, dy: (dy @ MIXING.T, {}))), x, y
        )

    def broken(x, params):
        raise ZeroDivisionError("my own")

    with pytest.raises(ZeroDivisionError, match="my own"):
        stack(waves(forward=broken)).predict(x)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda x, params, dy: x, ConfigError, "vjp must return a pair"),
        (lambda x, params, dy: vjp(x, params, dy)[::-1], ConfigError, "vjp must return a pair"),
        (lambda x, params, dy: (vjp(x, params, dy)[0], {}), ConfigError, "gradients by"),
    ],
)
def test_what_vjp_returns_is_checked(wrong, error, words):
    net = stack(waves(vjp=wrong))
    with pytest.raises(error, match=words):
        net.vjp(np.ones((2, 3)), np.ones((2, 2)))


def test_functions_cannot_write_to_what_they_are_given():
    def doubled(x, params):
        x *= 2
        return forward(x, params)

    def moved(x, params):
        params["a"] += 1
        return forward(x, params)

    for wrong in (doubled, moved):
        with pytest.raises(ValueError, match="read-only"):
            stack(waves(forward=wrong)).predict(np.ones((2, 3)))


def test_check_layer_names_what_is_not_finite():
    broken = waves(forward=lambda x, params: forward(x, params) * np.nan)
    with pytest.warns(SettlingWarning):
        found = {one.check: one for one in testing.check_layer(broken, raises=False)}
    assert "holds NaN or infinity" in found["equal inputs give equal outputs"].message


def test_local_learning_says_where_no_error_comes_through():
    behind = systems.Stack([layers.Linear(3, 5), waves(vjp=None)], dtype="float64", seed=0)
    with pytest.raises(CapabilityError, match=r"needs linear maps.*layer 2 has no derivatives"):
        methods.PhysicalLocalLearning().gradient(behind, *data())
    found = methods.PhysicalLocalLearning().gradient(stack(waves(vjp=None)), *data())
    assert all(np.any(found[name]) for name in ("W1", "W3"))
