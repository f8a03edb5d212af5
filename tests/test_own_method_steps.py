"""What a step of a method of a user's own may do, keep and ask for."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods, optim, systems
from pnncore.errors import CapabilityError, ConfigError
from pnncore.testing import MethodCheckError, check_method
from test_own_method import Aware, batch, hopfield, stack


def doing(function, needs=()):
    """A method whose step is a function."""

    class Doing(methods.Method):
        def step(self, experiment):
            return function(experiment)

    Doing.needs = needs
    return Doing()


def fitted(method, net, **settings):
    x, y = batch(net, 40)
    trainer = pnn.Trainer(net, method, optim.SGD(1e-3), batch_size=8, seed=1, progress=False)
    return trainer, trainer.fit(x, y, epochs=1).rows[0]


def test_arrays_that_a_step_changes_are_its_own():
    def plain(experiment):
        return experiment.backward(experiment.errors(experiment.measure()))[0]

    def changing(experiment):
        outputs = experiment.measure()
        errors = experiment.errors(outputs)
        outputs[...] = 100
        return experiment.backward(errors)[0]

    def settled(experiment):
        found = experiment.settle(("nudged", 0.2))
        gradient = found.read([-5, 5])
        found.outputs[0][...] = 100
        return gradient

    assert (
        fitted(doing(plain, ("twins",)), stack())[1]["loss"]
        == fitted(doing(changing, ("twins",)), stack())[1]["loss"]
    )
    assert fitted(doing(settled, ("local-rule",)), hopfield())[1]["loss"] < 2


def test_errors_go_back_at_the_signals_and_parameters_of_the_last_pass():
    net = stack("float64")
    x, y = batch(net)
    rng, targets, params = np.random.default_rng(1), np.eye(3)[y], net.params
    noise, moved = (
        rng.normal(size=(12, 6)),
        {"W1": rng.normal(size=(5, 6)), "W3": rng.normal(size=(6, 3))},
    )

    def reference(w1, w3, added):
        hidden = np.tanh(x @ w1 + params["b1"] + added)
        errors = (hidden @ w3 + params["b3"] - targets) / 12
        slopes = errors @ w3.T * (1 - np.tanh(x @ w1 + params["b1"] + added) ** 2)
        return {"W1": x.T @ slopes, "W3": hidden.T @ errors}

    def noisy(experiment):
        return experiment.backward(
            experiment.errors(experiment.measure(noise=[noise, None, None]))
        )[0]

    def elsewhere(experiment):
        return experiment.backward(experiment.errors(experiment.measure(moved)))[0]

    for step, wanted in (
        (noisy, (params["W1"], params["W3"], noise)),
        (elsewhere, (moved["W1"], moved["W3"], 0)),
    ):
        found = doing(step, ("twins",)).gradient(net, x, y)
        for name, own in reference(*wanted).items():
            np.testing.assert_allclose(found[name], own, atol=1e-14)


def test_samples_that_are_lost_teach_nothing():
    chain = [
        layers.Linear(5, 4),
        layers.Encode(),
        layers.MZIMesh(4),
        layers.Detect(),
        layers.Linear(4, 3),
    ]
    net = systems.Stack(chain, seed=0)
    x, y = batch(net)
    x[3] = 1e25
    with pytest.warns(pnn.SettlingWarning, match="from 11 of 12 samples"):
        own = Aware().gradient(net, x, y)
    with pytest.warns(pnn.SettlingWarning, match="from 11 of 12 samples"):
        same = methods.PhysicsAware().gradient(net, x, y)
    assert all(np.array_equal(own[name], one) for name, one in same.items())


def test_random_numbers_of_memory_and_steps_are_of_their_own():
    drawn = {}

    class Drawing(methods.Method):
        def memory(self, system, random):
            return {"m": random.normal(size=5)}

        def step(self, experiment):
            drawn[experiment._steps.seed, experiment.step] = experiment.random.normal(size=5)
            drawn["memory"] = experiment.memory["m"].copy()
            return {name: 0 * own for name, own in experiment.params.items()}

    net = stack("float64")
    for seed, step in ((5, 0), (5, 1), (5, 3), (5 + (3 << 32), 0)):
        Drawing().gradient(net, *batch(net), seed=seed, step=step)
    found = list(drawn.values())
    assert all(not np.allclose(a, b) for i, a in enumerate(found) for b in found[:i])


def test_every_read_of_hardware_backwards_is_a_draw_of_its_own():
    io = layers.AnalogIO()
    net = systems.Stack([layers.Crossbar(5, 3, io=io, backward=io)], seed=0)
    x, y = batch(net, 200)
    seen = []

    def step(experiment):
        errors = experiment.errors(experiment.measure())
        exact = experiment.backward(errors)[1]
        seen.extend(experiment.backward(errors, how="physics")[1] - exact for _ in range(20))
        return experiment.backward(errors)[0]

    _, row = fitted(doing(step, ("twins",)), net)
    assert row["reversed"] == 20 * 40
    one, mean = np.std(seen[0]), np.std(np.mean(seen[:20], axis=0))
    assert 0.1 < mean / one < 0.4, "the noise of twenty reads is averaged"
    first = methods.InSituBackprop().gradient(net, x, y)
    assert np.isfinite(first["W1"]).all()


def test_another_method_begins_with_memory_of_its_own():
    def keeping(value):
        class Keeping(methods.Method):
            def memory(self, system, random):
                return {"v": np.full(3, value)}

            def step(self, experiment):
                experiment.memory["v"] += 1
                return {name: 0 * own for name, own in experiment.params.items()}

        return Keeping()

    net = stack()
    trainer, _ = fitted(keeping(1.0), net)
    trainer.method = keeping(100.0)
    trainer.fit(*batch(net, 40), epochs=1)
    assert np.array_equal(trainer.memory["method/v"], np.full(3, 105.0))


def test_what_is_kept_in_the_object_is_found_by_the_checks():
    class Hidden(methods.Method):
        needs = ("twins",)

        def step(self, experiment):
            kept = self.__dict__
            if experiment.step == 0:
                kept["v"] = {}
            gradient = experiment.backward(experiment.errors(experiment.measure()))[0]
            kept["v"] = {name: 0.9 * kept["v"].get(name, 0) + own for name, own in gradient.items()}
            return kept["v"]

    net = stack()
    before = {name: array.copy() for name, array in net.params.items()}
    with pytest.raises(MethodCheckError, match="FAIL training goes on from a file"):
        check_method(Hidden(), net)
    assert all(np.array_equal(before[name], own) for name, own in net.params.items())


@pytest.mark.parametrize(
    "value",
    [
        np.array([2**24 + 1]),
        np.array([1 + 2j]),
        np.ma.masked_array([1.0, 2.0], [1, 0]),
        3.0,
        None,
        ["x"],
        [np.nan],
    ],
    ids=repr,
)
def test_memory_that_cannot_be_kept_is_refused(value):
    class Keeping(methods.Method):
        def memory(self, system, random):
            return {"m": value}

        def step(self, experiment):
            return {}

    refuses(ConfigError, "memory\\(\\)\\['m'\\]", pnn.Trainer, stack(), Keeping(), optim.SGD(0.1))


def test_experiments_end_with_their_step_and_keep_their_memory():
    kept = []

    def late(experiment):
        kept.append(experiment)
        kept[0].measure()
        return {name: 0 * own for name, own in experiment.params.items()}

    with pytest.raises(ConfigError, match="the step of this experiment is over"):
        fitted(doing(late), stack())

    def adding(experiment):
        experiment.memory["new"] = np.ones(3)
        return {name: 0 * own for name, own in experiment.params.items()}

    with pytest.raises(ConfigError, match="memory must stay what memory"):
        fitted(doing(adding), stack())
    with pytest.raises(ConfigError, match="lent to a step of training"):
        fitted(doing(lambda experiment: experiment.system.predict(experiment.x)), stack())
    with pytest.raises(CapabilityError, match="Hopfield has none"):
        doing(lambda experiment: experiment.measure(noise=[])).gradient(
            hopfield(), *batch(hopfield())
        )
