"""What is lost is said: quantities of samples without a steady state, and divergence that no
next step sees."""

import warnings

import numpy as np
import pnncore as pnn
import pytest
from pnncore import devices, layers, methods, optim, systems

LOST = {
    "power of a layered network": (
        lambda: systems.DeepResistive([3, 6, 2], seed=0),
        1e38,
        lambda net, x: net.power(x),
    ),
    "power of a network cut off": (
        lambda: systems.DeepResistive([3, 6, 2], seed=0),
        0.0,
        lambda net, x: net.power(x),
    ),
    "power": (lambda: flow(), 0.0, lambda net, x: net.power(x)),
    "voltages": (lambda: flow(), 0.0, lambda net, x: net.voltages(x)["b"]),
    "currents": (lambda: flow(), 0.0, lambda net, x: net.currents(x)),
    "shape": (lambda: sheet(), 1e300, lambda net, x: net.shape(x)[:, 1]),
}


def flow():
    return systems.Flow(
        [("a", "b"), ("b", "c")], inputs=["a", "c"], outputs=["b"], device=devices.Device(lower=0.0)
    )


def sheet():
    return systems.Elastic(
        [[0, 0], [1, 0], [2, 0], [1, 1]],
        [[0, 1], [1, 2], [0, 3], [1, 3], [2, 3]],
        inputs=[(2, 0), (2, 1), (3, 1)],
        outputs=[(1, 0), (1, 1)],
        fixed=[0],
    )


@pytest.mark.parametrize("quantity", LOST)
def test_no_quantity_of_a_lost_sample_is_a_number(quantity):
    make, value, measure = LOST[quantity]
    net = make()
    for name, array in net.params.items():
        array[...] = value if name != "l0" else 1.0
    if quantity == "power of a network cut off":
        net.params["b1"][...] = 1.0
    x = np.linspace(0.5, 1, 4 * net.n_in, dtype=net.dtype).reshape(4, -1)
    with pytest.warns(pnn.errors.SettlingWarning, match="of 4 samples"):
        found = measure(net, x)
    assert np.isnan(found).all()


def test_what_the_last_step_of_a_fit_has_done_is_seen_by_the_validation():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (24, 3)), rng.uniform(0, 1, (24, 2))
    net = systems.Stack([layers.Linear(3, 6), layers.Linear(6, 2)], seed=0, dtype="float64")
    trainer = pnn.Trainer(
        net, methods.Backprop(), optim.SGD(3), batch_size=8, seed=0, progress=False
    )
    with pytest.warns(
        pnn.errors.SettlingWarning, match="diverged by the end of epoch 1: validation finds R²"
    ):
        history = trainer.fit(x, y, epochs=1, validation=(x, y))
    assert history.diverged == (1, 0)


def test_an_explosion_in_the_first_epoch_is_no_measure_of_the_next():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (24, 3)), rng.uniform(0, 1, (24, 2))
    diverged = 0
    for seed in range(6):
        chain = [layers.Crossbar(3, 6), layers.Logistic(), layers.Linear(6, 2)]
        method = methods.SPSA(epsilon=1e-3)
        trainer = pnn.Trainer(
            systems.Stack(chain, seed=seed, dtype="float64"),
            method,
            optim.SGD(1000),
            batch_size=8,
            seed=seed,
            progress=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = trainer.fit(x, y, epochs=6)
        diverged += history.diverged is not None
        assert history.diverged is not None or (history["loss"] < 1e9).all()
    assert diverged


def test_a_batch_of_which_little_is_wanted_has_not_diverged():
    x, y = np.ones((8, 3)), np.ones((8, 2))
    y[::2] = 1e-8
    net = systems.Stack([layers.Linear(3, 2)], seed=0, dtype="float64")
    trainer = pnn.Trainer(
        net, methods.Backprop(), optim.SGD(0.01), batch_size=1, seed=0, progress=False
    )
    assert trainer.fit(x, y, epochs=2).diverged is None


CANDIDATES = {
    "finite differences": methods.FiniteDifference(epsilon=1e-5),
    "SPSA": methods.SPSA(epsilon=1e-5, directions=400),
    "evolution": methods.EvolutionStrategy(sigma=1e-4, directions=400),
}


def overflowing():
    """A stack in which the last of eight samples overflows, whatever its parameters."""
    net = systems.Stack(
        [layers.Linear(3, 4), layers.SecondHarmonic(4, 2), layers.Linear(11, 2)],
        seed=0,
        dtype="float64",
    )
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.1, 1, (8, 3)), rng.uniform(0, 1, (8, 2))
    x[-1] = 1e200
    return net, x, y


@pytest.mark.parametrize("method", CANDIDATES)
def test_candidates_are_compared_on_the_samples_that_all_of_them_keep(method):
    net, x, y = overflowing()
    whole = CANDIDATES[method].gradient(net, x[:-1], y[:-1], seed=3)
    with pytest.warns(pnn.errors.SettlingWarning, match="7 of 8 samples"):
        found = CANDIDATES[method].gradient(net, x, y, seed=3)
    for name, part in whole.items():
        # The mean is over all samples, as that of backpropagation.
        np.testing.assert_allclose(found[name], 7 / 8 * part, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "method",
    [
        methods.CMAES(sigma=0.1),
        methods.GeneticAlgorithm(population=16, mutation=0.1),
        methods.CoordinateDescent(epsilon=0.1, coordinates=8),
    ],
)
def test_a_lost_sample_does_not_keep_the_others_from_being_learned(method):
    net, x, y = overflowing()

    def loss():
        return 0.5 * ((net.predict(x[:-1]) - y[:-1]) ** 2).sum(axis=1).mean()

    before = loss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pnn.errors.SettlingWarning)
        pnn.Trainer(net, method, optim.SGD(1.0), batch_size=8, seed=0, progress=False).fit(
            x, y, epochs=60
        )
    assert loss() < 0.3 * before
