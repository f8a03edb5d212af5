"""Methods that try candidates, at the ends of the ranges that parameters are stored in."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import layers, methods
from pnncore.devices import Device
from pnncore.systems import DeepResistive, Flow


def edge():
    """A flow network with conductances at either end of their range, and inside."""
    net = Flow(
        [("a", "b"), ("b", "0"), ("a", "c"), ("c", "b"), ("c", "0")],
        inputs=["a"],
        outputs=["b"],
        ground="0",
        conductance=[1.0, 2.0, 1.4, 1.0, 2.0],
        device=Device(lower=1.0, upper=2.0),
    )
    return net, np.array([[1.0], [0.4], [-0.7]]), np.array([[0.3], [0.5], [0.2]])


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def exact(net, x, y):
    return methods.ImplicitDifferentiation().gradient(net, x, y)["g"]


def test_differences_at_bounds():
    net, x, y = edge()
    found = methods.FiniteDifference(epsilon=1e-6).gradient(net, x, y)["g"]
    assert relative(found, exact(net, x, y)) < 1e-5


@pytest.mark.parametrize(
    "method",
    [
        methods.SPSA(epsilon=1e-4, directions=20_000),
        methods.EvolutionStrategy(sigma=1e-4, directions=20_000),
    ],
)
def test_estimates_at_bounds(method):
    net, x, y = edge()
    found = method.gradient(net, x, y, seed=3)["g"]
    # Statistical: some sqrt(parameters / directions).
    assert relative(found, exact(net, x, y)) < 0.06


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 2.0])
def test_evolution_makes_up_for_what_is_cut_off(share):
    # One linear conductance near its lower end, in units of the deviation of perturbations.
    sigma = 1e-3
    net = Flow(
        [("a", "b"), ("b", "0")], inputs=["a"], outputs=["b"], ground="0", device=Device(lower=1.0)
    )
    net.params["g"][...] = [1.0 + share * sigma, 5.0]
    x, y = np.ones((1, 1)), np.zeros((1, 1))
    found = methods.EvolutionStrategy(sigma=sigma, directions=40_000).gradient(net, x, y, seed=1)[
        "g"
    ]
    assert relative(found, exact(net, x, y)) < 0.04


def test_coordinate_descent_goes_to_the_bottom_at_bounds():
    net, x, y = edge()
    trainer = pnn.Trainer(
        net,
        methods.CoordinateDescent(epsilon=0.05, coordinates=5),
        pnn.optim.SGD(1.0),
        batch_size=3,
        seed=0,
    )
    history = trainer.fit(x, y, epochs=40)
    assert (net.params["g"] >= 1).all()
    assert (net.params["g"] <= 2).all()
    losses = np.array(history["loss"])
    assert (np.diff(losses) < 1e-9).all()
    # No projected gradient is left.
    g, slope = net.params["g"], exact(net, x, y)
    left = np.where((g <= 1 + 1e-9) & (slope > 0) | (g >= 2 - 1e-9) & (slope < 0), 0, slope)
    assert np.abs(left).max() < 1e-3


@pytest.mark.parametrize(
    "method", [methods.CMAES(sigma=0.2), methods.GeneticAlgorithm(population=16, mutation=0.1)]
)
def test_populations_stay_within_bounds(method):
    net, x, y = edge()
    before = 0.5 * ((net.predict(x) - y) ** 2).sum()
    pnn.Trainer(net, method, pnn.optim.SGD(1.0), batch_size=3, seed=0).fit(x, y, epochs=60)
    assert (net.params["g"] >= 1).all()
    assert (net.params["g"] <= 2).all()
    assert 0.5 * ((net.predict(x) - y) ** 2).sum() < before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zero_conductances(dtype):
    net = DeepResistive([3, 6, 2], seed=0, dtype=dtype)
    net.params["g2"][:3] = 0
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (5, 3)).astype(dtype), rng.uniform(0, 1, (5, 2)).astype(dtype)
    tight = pnn.Settling(relative_tolerance=1e-6)
    wanted = methods.ImplicitDifferentiation().gradient(net, x, y)["g2"]
    step = 1e-6 if dtype == "float64" else 1e-2
    found = methods.FiniteDifference(epsilon=step, settling=tight).gradient(net, x, y)["g2"]
    assert relative(found, wanted) < (1e-3 if dtype == "float64" else 0.2)


def test_adam_counts_the_steps_in_which_it_moved():
    def net():
        return pnn.systems.Stack(
            [layers.Linear(2, 1), layers.Linear(1, 1, bias=False)], seed=0, dtype="float64"
        )

    x, y = np.ones((4, 2)), np.zeros((4, 1))
    rate = {"W1": 0.01, "b1": 0.01, "W2": 0.01}

    class Late:
        """Nothing moves in the first five epochs."""

        def factor(self, epoch):
            return 0.0 if epoch < 5 else 1.0

    def moved(schedule, epochs):
        stack = net()
        trainer = pnn.Trainer(
            stack, methods.Backprop(), pnn.optim.Adam(rate, schedule=schedule), batch_size=2, seed=0
        )
        trainer.fit(x, y, epochs=epochs)
        return stack.params

    late, fresh = moved(Late(), 7), moved(None, 2)
    for name in fresh:
        np.testing.assert_allclose(late[name], fresh[name], rtol=1e-12)
    # And the first step is the rate.
    stack = net()
    start = {name: array.copy() for name, array in stack.params.items()}
    trainer = pnn.Trainer(
        stack, methods.Backprop(), pnn.optim.Adam(rate, schedule=Late()), batch_size=4, seed=0
    )
    trainer.fit(x, y, epochs=6)
    for name, array in stack.params.items():
        np.testing.assert_allclose(np.abs(array - start[name]), 0.01, rtol=1e-4)


def test_parameters_with_a_rate_of_zero_keep_their_moments():
    stack = pnn.systems.Stack([layers.Linear(2, 2), layers.Linear(2, 1)], seed=0)
    trainer = pnn.Trainer(
        stack, methods.Backprop(), pnn.optim.Adam({"W1": 0.01}), batch_size=4, seed=0
    )
    trainer.fit(np.ones((8, 2), np.float32), np.zeros((8, 1), np.float32), epochs=1)
    assert trainer.memory["steps/W1"][0] == 2
    assert trainer.memory["steps/W2"][0] == 0
    assert not trainer.memory["mean/W2"].any()


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
def test_ridge_sums_in_double_precision(offset):
    rng = np.random.default_rng(0)
    x = (offset + rng.normal(size=(4000, 5))).astype(np.float32)
    w = rng.normal(size=(5, 2))
    y = ((x - offset) @ w + 0.01 * rng.normal(size=(4000, 2))).astype(np.float32)
    net = pnn.systems.Stack([layers.Linear(5, 2)], seed=0)
    pnn.Trainer(
        net, methods.RidgeReadout(regularization=1e-6), pnn.optim.SGD(1.0), batch_size=64, seed=0
    ).fit(x, y, epochs=1)
    wide = np.hstack([x.astype(np.float64), np.ones((4000, 1))])
    expected = np.linalg.lstsq(wide, y.astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(net.params["W1"], expected[:5], rtol=1e-3, atol=1e-4)
