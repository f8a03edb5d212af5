"""Twins: analytic ones, layers, and learned ones; and what their gradients are worth."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore.errors import CapabilityError, ConfigError, DataError, ShapeError
from pnncore.instruments._guard import retraced
from pnncore.layers import Linear, Plate, SecondHarmonic, Speckle, Tanh
from pnncore.systems import Instrument, Stack

RANDOM = np.random.default_rng(4)
W = RANDOM.normal(size=(3, 2)) / 2
X = RANDOM.normal(size=(40, 3))
Y = RANDOM.integers(0, 2, 40)


def lab(x, params):
    return np.tanh((x * params["gain"]) @ W + params["bias"])


def measured(path, shots=1500, **settings):
    """An instrument whose parameters were moved at random."""
    params = {"gain": np.ones(3), "bias": np.zeros(2)}
    system = Instrument(lab, 3, 2, params=params, journal=path, seed=0, **settings)
    for _ in range(shots):
        system.params["gain"][...] = RANDOM.normal(1, 0.5, 3)
        system.params["bias"][...] = RANDOM.normal(0, 0.5, 2)
        system.predict(RANDOM.normal(size=(4, 3)))
    system.params["gain"][...], system.params["bias"][...] = 1.0, 0.0
    return system


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    system = measured(tmp_path_factory.mktemp("twin") / "shots.pnj")
    system.twin = pnn.twins.fit(system, epochs=150, progress=False)
    return system


def differences(twin, x, params, dy, dtype):
    """The products with both Jacobians, by central differences in the model itself."""
    step = 1e-6 if dtype == "float64" else 1e-2

    def slope(array, k):
        flat, sums = array.reshape(-1), []
        before = flat[k]
        for h in (step, -step):
            flat[k] = before + h
            sums.append(float((twin.forward(x, params).astype(float) * dy).sum()))
        flat[k] = before
        return (sums[0] - sums[1]) / (2 * step)

    dx = np.array([slope(x, k) for k in range(x.size)]).reshape(x.shape)
    grads = {
        n: np.array([slope(a, k) for k in range(a.size)]).reshape(a.shape)
        for n, a in params.items()
    }
    return dx, grads


@pytest.mark.parametrize(
    "layer",
    [SecondHarmonic(3, 4), Speckle(3, 4), Plate(3, 2, modes=4), Linear(3, 4)],
    ids=lambda layer: repr(layer),
)
def test_layers_are_twins(layer):
    twin = pnn.twins.LayerTwin(layer, seed=3)
    params = {name: RANDOM.normal(size=shape) * 0.5 for name, shape in twin.shapes.items()}
    x = RANDOM.normal(size=(2, 3))
    dy = RANDOM.normal(size=twin.forward(x, params).shape)
    dx, grads = twin.vjp(x, params, dy)
    wanted, others = differences(twin, x, params, dy, "float64")
    np.testing.assert_allclose(dx, wanted, atol=2e-8)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, others[name], atol=2e-8)


def test_layers_with_other_parameters_are_refused():
    with pytest.raises(ShapeError, match="the twin SecondHarmonic"):
        Instrument(lambda x, p: x, 3, 3, params={"theta": np.zeros(3)}, twin=SecondHarmonic(3, 4))


def test_stacks_have_products_with_their_jacobians():
    net = Stack([Linear(3, 4), Tanh(), Speckle(4, 2)], dtype="float64", seed=0)
    dy = RANDOM.normal(size=(5, 2))
    dx, grads = net.vjp(X[:5], dy)
    for k in range(3):
        moved = [X[:5] + h * np.eye(3)[k] for h in (1e-6, -1e-6)]
        slope = ((net.predict(moved[0]) - net.predict(moved[1])) / 2e-6 * dy).sum(axis=1)
        np.testing.assert_allclose(dx[:, k], slope, atol=1e-8)
    for name, array in net.params.items():
        array.reshape(-1)[1] += 1e-6
        up = net.predict(X[:5])
        array.reshape(-1)[1] -= 2e-6
        slope = ((up - net.predict(X[:5])) / 2e-6 * dy).sum()
        array.reshape(-1)[1] += 1e-6
        assert abs(grads[name].reshape(-1)[1] - slope) < 1e-8
    with pytest.raises(ShapeError):
        net.vjp(X[:5], dy[:, :1])
    with pytest.raises(ShapeError, match="dy must have 5 rows"):
        net.vjp(X[:5], dy[:4])


def test_a_learned_twin_says_what_was_measured(learned):
    twin = learned.twin
    assert twin.quality.r2 > 0.99
    assert "R²" in repr(twin)
    params = {"gain": np.array([1.2, 0.7, 1.0]), "bias": np.array([0.1, -0.2])}
    np.testing.assert_allclose(twin.forward(X, params), lab(X, params), atol=0.12)
    dy = RANDOM.normal(size=(40, 2))
    dx, grads = twin.vjp(X, params, dy)
    wanted, others = differences(twin, X.copy(), params, dy, "float32")
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(dx, wanted, atol=0.02 * scale)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, others[name], atol=0.02 * np.abs(others[name]).max())
    # And the same of the instrument.
    dz = 1 - lab(X, params) ** 2
    true = {"gain": ((dz @ W.T) * X).sum(axis=0), "bias": dz.sum(axis=0)}
    for name, grad in twin.vjp(X, params, np.ones((40, 2)))[1].items():
        assert grad @ true[name] / np.linalg.norm(grad) / np.linalg.norm(true[name]) > 0.98


def test_quality_is_measured(learned):
    method = pnn.methods.PhysicsAware(loss="cross-entropy")
    before = {name: array.copy() for name, array in learned.params.items()}
    found = pnn.twins.quality(learned, method, X, Y, directions=8)
    assert found.cosine > 0.98
    for name, array in before.items():
        np.testing.assert_array_equal(learned.params[name], array)
    # A twin of something else is found out.
    good, learned.twin = (
        learned.twin,
        pnn.twins.Analytic(lab, lambda x, p, dy: (x, {"gain": x.sum(0), "bias": -dy.sum(0)})),
    )
    assert pnn.twins.quality(learned, method, X, Y, directions=8).cosine < 0.8
    learned.twin = good
    # The exact gradient of a simulation.
    net = Stack([Linear(3, 4), Tanh(), Linear(4, 2)], dtype="float64", seed=0)
    for loss in ("squared-error", "cross-entropy"):
        exact = pnn.twins.quality(net, pnn.methods.Backprop(loss=loss), X, Y, step=1e-4)
        assert exact.cosine > 0.999999
        np.testing.assert_allclose(exact.measured, exact.predicted, atol=1e-6)


def test_quality_is_shown_while_training(learned, capsys):
    watch = pnn.twins.TwinMonitor(X, Y, every=2, directions=4)
    method = pnn.methods.PhysicsAware(loss="cross-entropy")
    trainer = pnn.Trainer(
        learned, method, pnn.optim.SGD(0.1), seed=0, callbacks=[watch], progress=True
    )
    trainer.fit(X, Y, epochs=4)
    assert [epoch for epoch, _ in watch.cosines] == [2, 4]
    assert capsys.readouterr().err.count("cosine 0.9") == 2


def test_a_drifting_instrument_gets_a_new_twin(tmp_path):
    state = {"sign": 1.0}

    def drifting(x, params):
        return state["sign"] * lab(x, params)

    refits = []
    params = {"gain": np.ones(3), "bias": np.zeros(2)}

    def refit(drift):
        for _ in range(150):
            system.driver.shoot(
                RANDOM.normal(size=(4, 3)),
                [RANDOM.normal(1, 0.5, 3), RANDOM.normal(0, 0.5, 2)],
                "check",
            )
        system.twin = pnn.twins.fit(system, epochs=40, latest=600, progress=False)
        refits.append(drift)

    reference = pnn.instruments.Reference(
        x=X[0], params=params, every=3, tolerance=0.1, refit=refit
    )
    system = Instrument(
        drifting, 3, 2, params=params, journal=tmp_path / "a.pnj", seed=0, reference=reference
    )
    with retraced([system.driver]):
        system.predict(X)
        state["sign"] = -1.0
        for _ in range(4):
            system.predict(X)
    assert len(refits) == 1
    found = system.twin.forward(X, params)
    assert np.corrcoef(found.ravel(), drifting(X, params).ravel())[0, 1] > 0.95


def test_checkpoints_keep_learned_twins(tmp_path):
    def make():
        return measured(tmp_path / "a.pnj", shots=0)

    system = measured(tmp_path / "a.pnj", shots=100)
    system.twin = pnn.twins.fit(system, epochs=5, progress=False)
    method = pnn.methods.PhysicsAware(loss="cross-entropy")
    trainer = pnn.Trainer(system, method, pnn.optim.SGD(0.1), seed=0, progress=False)
    trainer.fit(X, Y, epochs=1)
    trainer.save(tmp_path / "run.pnn")
    trainer.fit(X, Y, epochs=2)
    system.close()
    again = make()
    again.twin = pnn.twins.FittedTwin(
        Stack(system.twin.stack.layers, seed=9), centre=system.twin.centre, scale=system.twin.scale
    )
    resumed = pnn.Trainer.load(tmp_path / "run.pnn", system=again, progress=False)
    resumed.fit(X, Y, epochs=2)
    for name, array in system.params.items():
        np.testing.assert_array_equal(again.params[name], array)
    assert again.counts["replayed"] > 0
    assert "results" not in again.counts


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (3, ConfigError, "source must be an instrument"),
        ({"x": np.ones((3, 2)), "y": np.ones((2, 1))}, DataError, "as many rows"),
        ({"x": np.ones((2, 2)), "y": np.ones((2, 1))}, DataError, "needs more samples"),
    ],
)
def test_bad_sources(source, kind, words):
    with pytest.raises(kind, match=words):
        pnn.twins.fit(source)


def test_what_is_missing_is_named():
    system = Instrument(lambda x: x, 2, 2)
    with pytest.raises(ConfigError, match="keeps no journal"):
        pnn.twins.fit(system)
    with pytest.raises(CapabilityError, match="has no twin to take derivatives from"):
        system.vjp(np.ones((1, 2)), np.ones((1, 2)))


def test_twins_return_real_numbers_of_the_right_shape():
    ones = np.ones((1, 2))
    for forward, vjp, words in (
        (lambda x: x * 1j, lambda dy: dy, "forward of the twin must return real numbers"),
        (lambda x: x, lambda dy: dy * 1j, "vjp of the twin must return real numbers"),
        (lambda x: x, lambda dy: dy[:, :1], r"vjp of the twin must return .* of shape \(1, 2\)"),
    ):
        twin = pnn.twins.Analytic(
            lambda x, params, forward=forward: forward(x),
            lambda x, params, dy, vjp=vjp: (vjp(dy), {"gain": dy[0]}),
        )
        system = Instrument(lambda x, p: x, 2, 2, params={"gain": np.ones(2)}, twin=twin, seed=0)
        with pytest.raises(ConfigError, match=words):
            system.vjp(ones, ones)
