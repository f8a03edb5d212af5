"""Losses of a user's own in every method: the squared error is the built-in one, others have
their exact gradient."""

from dataclasses import dataclass

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, losses, methods, optim, systems, twins
from pnncore.errors import CapabilityError, CheckpointError, ConfigError, DataError
from pnncore.testing import LossCheckError, check_loss


class Squared(losses.Loss):
    def value(self, outputs, targets):
        return 0.5 * ((outputs - targets) ** 2).sum(axis=1)

    def gradient(self, outputs, targets):
        return outputs - targets


class Quartic(losses.Loss):
    """What no built-in loss is: curved, and by unequal weights."""

    weights = np.array([1.0, 0.5, 2.0])

    def value(self, outputs, targets):
        return (self.weights * (outputs - targets) ** 4).sum(axis=1)

    def gradient(self, outputs, targets):
        return 4 * self.weights * (outputs - targets) ** 3


def hopfield(**settings):
    return systems.Hopfield(
        [5, 8, 3], activation="tanh", gain=0.5, seed=0, dtype="float64", **settings
    )


def stack(**settings):
    chain = [layers.Linear(5, 6), layers.Tanh(), layers.Linear(6, 3)]
    return systems.Stack(chain, seed=0, dtype="float64", **settings)


def chain():
    return systems.HamiltonianChain(6, n_in=5, n_out=3, time=2.0, steps=200)


def light():
    return systems.Stack([layers.Speckle(5, 3, reference=0.3)], seed=0, dtype="float64")


def batch(samples=9):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (samples, 5)), rng.uniform(0, 1, (samples, 3))


FINE = pnn.Settling(tolerance=1e-12)
SETTLING = [
    (methods.EquilibriumPropagation, {"beta": 0.01}, 1e-3),
    (methods.EquilibriumPropagation, {"beta": 0.2, "variant": "holomorphic"}, 1e-4),
    (methods.FrequencyPropagation, {"amplitude": 0.01}, 1e-3),
    (methods.ContrastiveLearning, {}, None),
    (methods.CoupledLearning, {"eta": 1e-3}, None),
    (methods.ImplicitDifferentiation, {}, 1e-6),
    (methods.RecurrentBackprop, {}, 1e-6),
]
STACKED = [
    (methods.Backprop, {"model": "hardware"}, 1e-6),
    (methods.PhysicsAware, {}, 1e-6),
    (methods.InSituBackprop, {}, 1e-6),
    (methods.ParameterShift, {}, 1e-6),
    (methods.SPSA, {"epsilon": 1e-6}, None),
    (methods.FiniteDifference, {"epsilon": 1e-5}, 1e-6),
    (methods.ForwardGradient, {"directions": 3}, None),
    (methods.DirectFeedbackAlignment, {}, None),
    (methods.FeedbackAlignment, {}, None),
    (methods.EvolutionStrategy, {}, None),
]


def differences(net, loss, x, y):
    """The gradient of the mean loss of what the system puts out, by plain differences."""
    found = {}
    for name, array in net.params.items():
        found[name] = np.empty_like(array)
        for place in np.ndindex(array.shape):
            kept, sides = array[place], []
            for step in (1e-5, -1e-5):
                array[place] = kept + step
                outputs = (
                    net.predict(x, settling=FINE)
                    if isinstance(net, systems.Hopfield)
                    else net.predict(x)
                )
                sides.append(np.mean(loss.value(outputs, y)))
            array[place] = kept
            found[name][place] = (sides[0] - sides[1]) / 2e-5
    return found


def cosine(one, other):
    a, b = (np.concatenate([value.ravel() for value in found.values()]) for found in (one, other))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b), np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    ("kind", "settings", "bound"), SETTLING, ids=lambda value: getattr(value, "__name__", None)
)
def test_systems_that_settle_learn_from_the_gradient_of_the_loss(kind, settings, bound):
    net, (x, y) = hopfield(), batch()
    found = kind(loss=Quartic(), settling=FINE, **settings).gradient(net, x, y)
    if bound is None:
        assert cosine(found, differences(net, Quartic(), x, y))[0] > 0.5
        return
    assert cosine(found, differences(net, Quartic(), x, y))[1] < bound


@pytest.mark.parametrize(
    ("kind", "settings", "bound"), STACKED, ids=lambda value: getattr(value, "__name__", None)
)
def test_stacks_and_outputs_learn_from_the_gradient_of_the_loss(kind, settings, bound):
    (x, y), net = batch(), light() if kind is methods.ParameterShift else stack()
    found = kind(loss=Quartic(), **settings).gradient(net, x, y)
    if bound is None:
        same = kind(loss=Squared(), **settings).gradient(net, x, y)
        for name, own in kind(loss="squared-error", **settings).gradient(net, x, y).items():
            np.testing.assert_allclose(same[name], own, rtol=1e-9, atol=1e-12)
        return
    assert cosine(found, differences(net, Quartic(), x, y))[1] < bound


def test_echoes_learn_from_the_gradient_of_the_loss():
    net, (x, y) = chain(), batch(4)
    found = methods.HamiltonianEcho(kick=1e-3, loss=Quartic()).gradient(net, x, y)
    assert cosine(found, differences(net, Quartic(), x, y))[1] < 1e-4


@pytest.mark.parametrize(
    "kind",
    [methods.PhysicsAware, methods.EvolutionStrategy, methods.CMAES, methods.GeneticAlgorithm],
)
def test_training_with_the_squared_error_of_ones_own_is_training_with_the_squared_error(kind):
    x, y = batch(40)
    trained = []
    for loss in ("squared-error", Squared()):
        net = stack(noise=0.1, mismatch=0.2)
        trainer = pnn.Trainer(
            net, kind(loss=loss), optim.SGD(0.05), batch_size=8, seed=1, progress=False
        )
        rows = trainer.fit(x, y, epochs=2).rows
        trained.append((net.params, [(row["loss"], row["passes"]) for row in rows]))
    for name, own in trained[0][0].items():
        np.testing.assert_allclose(trained[1][0][name], own, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(trained[0][1], trained[1][1], rtol=1e-9)


def test_labels_losses_and_accuracies_are_those_of_the_outputs():
    x, y, x_test, y_test = pnn.data.digits()
    net = systems.Hopfield([64, 32, 10], seed=0)
    method = methods.EquilibriumPropagation(beta=0.2, loss=Squared())
    history = pnn.Trainer(net, method, optim.SGD(0.2), batch_size=32, seed=0, progress=False).fit(
        x, y, epochs=3
    )
    assert history["accuracy"][-1] > 0.8
    assert history["loss"][-1] < history["loss"][0]
    assert net.score(x_test, y_test) > 0.8


def test_audits_and_qualities_are_of_the_users_loss():
    net, (x, y) = stack(), batch()
    assert pnn.audit(net, methods.PhysicsAware(loss=Quartic()), x, y).cosine > 1 - 1e-9
    assert twins.quality(net, methods.PhysicsAware(loss=Quartic()), x, y).cosine > 1 - 1e-6


class Own(methods.Method):
    needs = ("twins",)

    def step(self, experiment):
        return experiment.backward(experiment.errors(experiment.measure()))[0]


def test_methods_of_ones_own_take_losses_of_ones_own():
    (x, y), net = batch(), stack()
    assert (
        cosine(Own(loss=Quartic()).gradient(net, x, y), differences(net, Quartic(), x, y))[1] < 1e-6
    )

    class Settling(methods.SettlingMethod):
        needs = ("local-rule",)

        def step(self, experiment):
            return experiment.settle(("nudged", 0.1)).read([-10, 10])

    refuses(
        CapabilityError,
        "a loss of one's own acts through",
        Settling(loss=Quartic()).gradient,
        hopfield(),
        x,
        y,
    )


def test_no_file_makes_a_loss_of_ones_own(tmp_path):
    (x, y), net = batch(40), stack()
    trainer = pnn.Trainer(
        net,
        methods.PhysicsAware(loss=Quartic()),
        optim.SGD(0.1),
        batch_size=8,
        seed=1,
        progress=False,
    )
    trainer.fit(x, y, epochs=1)
    trainer.save(tmp_path / "own.pnn")
    load = pnn.Trainer.load
    refuses(CheckpointError, "loss of the user's own, 'Quartic'", load, tmp_path / "own.pnn")
    refuses(CheckpointError, "loss", load, tmp_path / "own.pnn", loss=Squared())
    refuses(
        ConfigError,
        "leave loss out",
        load,
        tmp_path / "own.pnn",
        loss=Quartic(),
        method=trainer.method,
    )
    again = load(tmp_path / "own.pnn", loss=Quartic())
    trainer.fit(x, y, epochs=1)
    again.fit(x, y, epochs=1)
    assert all(np.array_equal(own, again.system.params[name]) for name, own in net.params.items())


@dataclass(frozen=True)
class Power(losses.Loss):
    power: int = 4

    def value(self, outputs, targets):
        return (np.abs(outputs - targets) ** self.power).sum(axis=1)

    def gradient(self, outputs, targets):
        return (
            self.power * np.sign(outputs - targets) * np.abs(outputs - targets) ** (self.power - 1)
        )


def test_settings_of_a_loss_are_compared_on_loading(tmp_path):
    (x, y), net = batch(16), stack()
    trainer = pnn.Trainer(
        net, methods.PhysicsAware(loss=Power()), optim.SGD(0.1), seed=1, progress=False
    )
    trainer.fit(x, y, epochs=1)
    trainer.save(tmp_path / "own.pnn")
    refuses(
        CheckpointError,
        "loss.settings.power",
        pnn.Trainer.load,
        tmp_path / "own.pnn",
        loss=Power(3),
    )
    assert pnn.Trainer.load(tmp_path / "own.pnn", loss=Power()).method == trainer.method


class Scaled(losses.Loss):
    def __init__(self, factor):
        self.factor = factor

    def value(self, outputs, targets):
        return self.factor / 2 * ((outputs - targets) ** 2).sum(axis=1)

    def gradient(self, outputs, targets):
        return self.factor * (outputs - targets)


@pytest.mark.parametrize("factor", [1e-6, 30.0, 1e5])
@pytest.mark.parametrize("kind", [kind for kind, *_ in SETTLING])
def test_the_units_of_a_loss_are_those_of_its_gradient_alone(kind, factor):
    net, (x, y) = hopfield(), batch()
    found = kind(loss=Scaled(factor)).gradient(net, x, y)
    for name, own in kind().gradient(net, x, y).items():
        np.testing.assert_allclose(found[name] / factor, own, rtol=0, atol=1e-6 * np.abs(own).max())
    chained, (x, y) = chain(), batch(4)
    found = methods.HamiltonianEcho(loss=Scaled(factor)).gradient(chained, x, y)
    for name, own in methods.HamiltonianEcho().gradient(chained, x, y).items():
        np.testing.assert_allclose(found[name] / factor, own, rtol=0, atol=1e-6 * np.abs(own).max())


def test_training_does_not_depend_on_the_units_of_the_loss():
    x, y, x_test, y_test = pnn.data.digits()
    scores = []
    for factor in (1.0, 100.0):
        net = systems.Hopfield([64, 32, 10], seed=0)
        method = methods.EquilibriumPropagation(loss=Scaled(factor))
        trainer = pnn.Trainer(
            net, method, optim.SGD(0.2 / factor), batch_size=32, seed=0, progress=False
        )
        trainer.fit(x[:600], y[:600], epochs=2)
        scores.append(net.score(x_test, y_test))
    assert abs(scores[0] - scores[1]) < 0.02, scores


def test_parameters_that_physics_wants_move_with_the_loss():
    (x, y), moves = batch(), []
    for factor in (1.0, 2.0):
        net = hopfield()
        before = {name: array.copy() for name, array in net.params.items()}
        method = methods.AgnosticEquilibriumPropagation(loss=Scaled(factor))
        pnn.Trainer(net, method, optim.SGD(0.1), batch_size=9, seed=0, progress=False).fit(
            x, y, epochs=1
        )
        moves.append({name: array - before[name] for name, array in net.params.items()})
    for name, move in moves[0].items():
        np.testing.assert_allclose(moves[1][name], 2 * move, rtol=0, atol=1e-6 * np.abs(move).max())


@pytest.mark.parametrize("residual", [1e-1, 1e-4, 1e-6])
def test_exact_gradients_are_exact_near_the_targets(residual):
    net, (x, y) = hopfield(), batch()
    near = net.predict(x, settling=pnn.Settling(tolerance=1e-14))
    y = near + residual * np.random.default_rng(0).normal(size=y.shape)
    for kind in (methods.ImplicitDifferentiation, methods.RecurrentBackprop):
        own, same = kind(loss=Scaled(2.0)).gradient(net, x, y), kind().gradient(net, x, y)
        assert cosine(own, {name: 2 * value for name, value in same.items()})[1] < 1e-5


def test_gradients_of_a_loss_are_finite_and_whole():
    class Steep(Squared):
        def gradient(self, outputs, targets):
            return np.where(np.arange(len(outputs))[:, None] == 0, np.inf, outputs - targets)

    class Masked(Squared):
        def gradient(self, outputs, targets):
            return np.ma.array(outputs - targets, mask=targets < 0.5)

    x, y = batch()
    for net, kind in (
        (hopfield(), methods.ImplicitDifferentiation),
        (stack(), methods.PhysicsAware),
    ):
        refuses(
            DataError,
            "gradient of the loss is not finite at sample 0",
            kind(loss=Steep()).gradient,
            net,
            x,
            y,
        )
        refuses(ConfigError, "must return real numbers", kind(loss=Masked()).gradient, net, x, y)
    refuses(ConfigError, "settings of a loss must be finite", methods.Backprop, loss=Scaled(np.inf))
    methods.Backprop(loss=Scaled(np.ones(3)))


def test_a_loss_cannot_change_what_it_is_given():
    class Writing(Squared):
        def value(self, outputs, targets):
            outputs -= targets
            return 0.5 * (outputs**2).sum(axis=1)

    with pytest.raises(ValueError, match="read-only"):
        methods.PhysicsAware(loss=Writing()).gradient(stack(), *batch())


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_matter(threads):
    x, y = batch(70)
    for net, method in (
        (stack(), methods.PhysicsAware),
        (hopfield(), methods.EquilibriumPropagation),
    ):
        one, other = (
            method(loss=Quartic()).gradient(net, x, y, threads=number) for number in (1, threads)
        )
        assert all(np.array_equal(other[name], own) for name, own in one.items())


def test_mistakes_are_told_and_change_nothing():
    class Short(Squared):
        def value(self, outputs, targets):
            return 1.0

    class Broken(Squared):
        def gradient(self, outputs, targets):
            raise RuntimeError("no slope")

    class Twice(Squared):
        def gradient(self, outputs, targets):
            return 2 * (outputs - targets)

    (x, y), net = batch(), stack()
    before = {name: array.copy() for name, array in net.params.items()}
    for make, kind, text in (
        (Short, ConfigError, "value of a loss must return"),
        (Broken, RuntimeError, "no slope"),
    ):
        trainer = pnn.Trainer(
            net, methods.PhysicsAware(loss=make()), optim.SGD(0.1), seed=1, progress=False
        )
        with pytest.raises(kind, match=text):
            trainer.fit(x, y, epochs=1)
        assert all(np.array_equal(before[name], own) for name, own in net.params.items())
    with pytest.raises(LossCheckError, match="off by a factor of 2"):
        check_loss(Twice(), 3)
    assert all(finding.passed for finding in check_loss(Quartic(), 3))
    refuses(ConfigError, "loss must be one of", methods.PhysicsAware, loss="absolute")
    for kind in (
        methods.RidgeReadout(loss=Squared()),
        methods.ForwardForward(classes=3, loss=Squared()),
    ):
        refuses(ConfigError, "no use for another", kind.gradient, net, x, np.zeros(len(x), int))
