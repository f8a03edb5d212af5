"""Methods of a user's own: bit by bit what built-in ones are where they are the same, and held
to the same promises."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses, run_python
from pnncore import layers, methods, optim, systems
from pnncore.errors import CapabilityError, CheckpointError, ConfigError, DataError, ShapeError
from pnncore.testing import MethodCheckError, check_method

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from asymmetric_nudge import AsymmetricNudge
from node_perturbation import NodePerturbation


@dataclass(frozen=True, kw_only=True)
class Centered(methods.SettlingMethod):
    """Centered equilibrium propagation."""

    needs = ("local-rule",)
    beta: float = 0.2

    def step(self, experiment):
        settled = experiment.settle(("nudged", self.beta), ("nudged", -self.beta))
        return settled.read([0.0, 0.5 / self.beta, -0.5 / self.beta])


class Aware(methods.Method):
    """Physics-aware training."""

    needs = ("twins",)

    def step(self, experiment):
        gradient, _ = experiment.backward(experiment.errors(experiment.measure()))
        return gradient


class Averaged(methods.Method):
    """Physics-aware training by a running mean of gradients, which the method keeps."""

    needs = ("twins",)

    def memory(self, system, random):
        return {name: 1e-3 * random.normal(size=shape) for name, shape in system.shapes.items()}

    def step(self, experiment):
        gradient, _ = experiment.backward(experiment.errors(experiment.measure()))
        for name, kept in experiment.memory.items():
            kept[...] = 0.9 * kept + 0.1 * gradient[name]
        return dict(experiment.memory)


class Hopping(methods.Method):
    """Keeps what is better: new parameters, and no gradient."""

    def step(self, experiment):
        moved = {
            name: own + 0.05 * experiment.random.normal(size=own.shape)
            for name, own in experiment.params.items()
        }
        here = experiment.losses(experiment.measure()).mean()
        there = experiment.losses(experiment.measure(moved)).mean()
        return methods.NewParameters(moved if there < here else experiment.params)


def hopfield(dtype="float32", **settings):
    return systems.Hopfield([5, 8, 3], activation="tanh", seed=0, dtype=dtype, **settings)


def stack(dtype="float32", **settings):
    chain = [layers.Linear(5, 6), layers.Tanh(), layers.Linear(6, 3)]
    return systems.Stack(chain, seed=0, dtype=dtype, **settings)


def batch(system, samples=12):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (samples, system.n_in)).astype(system.dtype), rng.integers(
        0, system.n_out, samples
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
def test_what_is_the_same_as_a_built_in_method_is_that_to_rounding(dtype, loss):
    net = hopfield(dtype)
    x, y = batch(net)
    own = Centered(loss=loss).gradient(net, x, y)
    for name, gradient in (
        methods.EquilibriumPropagation(loss=loss, beta=0.2).gradient(net, x, y).items()
    ):
        np.testing.assert_allclose(own[name], gradient, rtol=0, atol=1e-2 * np.abs(gradient).max())
    net = stack(dtype, noise=0.1, mismatch=0.2)
    own = Aware(loss=loss).gradient(net, x, y, seed=3, step=7)
    for name, gradient in (
        methods.PhysicsAware(loss=loss).gradient(net, x, y, seed=3, step=7).items()
    ):
        assert np.array_equal(own[name], gradient), "the noise is that of the step, too"


def test_training_is_that_of_the_built_in_method_bit_by_bit():
    x, y = batch(stack(), 40)
    trained = []
    for method in (Aware(), methods.PhysicsAware()):
        net = stack(noise=0.1, mismatch=0.2)
        trainer = pnn.Trainer(net, method, optim.Adam(0.01), batch_size=8, seed=1, progress=False)
        history = trainer.fit(x, y, epochs=3, validation=(x, y))
        rows = [
            {key: value for key, value in row.items() if key != "seconds"} for row in history.rows
        ]
        trained.append((net.params, rows))
    assert all(np.array_equal(trained[0][0][name], trained[1][0][name]) for name in trained[0][0])
    assert trained[0][1] == trained[1][1], "losses, accuracies and passes are counted alike"


@pytest.mark.parametrize(
    ("method", "make"),
    [
        (Centered(), hopfield),
        (AsymmetricNudge(), hopfield),
        (Aware(), stack),
        (Averaged(), stack),
        (NodePerturbation(), stack),
        (Hopping(), stack),
        (Hopping(), hopfield),
        (Centered(), lambda: hopfield("float64")),
    ],
)
def test_all_of_them_pass_the_checks(method, make):
    assert all(finding.passed for finding in check_method(method, make()))


@pytest.mark.parametrize("method", methods.Method.kinds().values(), ids=lambda kind: kind.__name__)
def test_built_in_methods_pass_the_checks(method):
    method = method(classes=3) if method is methods.ForwardForward else method()
    for make in (hopfield, lambda: stack("float64")):
        net = make()
        if type(method).__name__ in {
            name.split("(")[0] for name in net.methods()
        } and not isinstance(method, methods.FeedbackAlignment):
            check_method(method, net)


def test_the_parabola_through_three_phases_errs_by_the_product_of_the_strengths():
    net = systems.Hopfield([5, 8, 3], activation="tanh", gain=0.5, seed=0, dtype="float64")
    x, y = batch(net)
    settling = pnn.Settling(tolerance=1e-12)
    exact = methods.ImplicitDifferentiation(settling=settling).gradient(net, x, y)

    def error(scale):
        method = AsymmetricNudge(pull=0.3 * scale, push=0.1 * scale, settling=settling)
        return max(
            np.abs(method.gradient(net, x, y)[name] - own).max() for name, own in exact.items()
        )

    assert 3.0 < error(1.0) / error(0.5) < 5.0, "second order"


def test_node_perturbation_is_the_gradient_on_average():
    net = stack("float64")
    x, y = batch(net, 4)
    exact = methods.Backprop(model="hardware").gradient(net, x, y)
    draws = [NodePerturbation(sigma=1e-5).gradient(net, x, y, step=step) for step in range(3000)]
    for name, own in exact.items():
        found = np.array([draw[name] for draw in draws])
        off = (found.mean(axis=0) - own) / (found.std(axis=0) / np.sqrt(len(draws)))
        assert np.abs(off).max() < 5, name


def test_memory_is_kept_and_taken_back(monkeypatch):
    net = stack()
    x, y = batch(net, 40)
    trainer = pnn.Trainer(net, Averaged(), optim.SGD(0.1), batch_size=8, seed=1, progress=False)
    trainer.fit(x, y, epochs=1)
    assert [name for name in trainer.memory if name.startswith("method/")] == [
        "method/W1",
        "method/b1",
        "method/W3",
        "method/b3",
    ]
    before = {name: array.copy() for name, array in trainer.memory.items()}

    def failing(self, experiment):
        experiment.memory["W1"][...] = 7.0
        raise RuntimeError("no light")

    monkeypatch.setattr(Averaged, "step", failing)
    with pytest.raises(RuntimeError, match="no light"):
        trainer.fit(x, y, epochs=1)
    assert all(np.array_equal(before[name], trainer.memory[name]) for name in before)


def test_no_file_makes_a_method_of_ones_own(tmp_path):
    net = stack()
    x, y = batch(net)
    trainer = pnn.Trainer(net, Averaged(), optim.SGD(0.1), seed=1, progress=False)
    trainer.fit(x, y, epochs=1)
    trainer.save(tmp_path / "own.pnn")
    refuses(
        CheckpointError,
        "method of the user's own, 'Averaged'",
        pnn.Trainer.load,
        tmp_path / "own.pnn",
    )
    again = pnn.Trainer.load(tmp_path / "own.pnn", method=Averaged())
    trainer.fit(x, y, epochs=1)
    again.fit(x, y, epochs=1)
    assert all(np.array_equal(own, again.system.params[name]) for name, own in net.params.items())
    refuses(
        CheckpointError,
        "method",
        pnn.Trainer.load,
        tmp_path / "own.pnn",
        method=Averaged(loss="cross-entropy"),
    )
    refuses(CheckpointError, "method", pnn.Trainer.load, tmp_path / "own.pnn", method=Aware())


class Wrong(methods.Method):
    """Does what a function says."""

    what = None

    def step(self, experiment):
        return type(self).what(experiment)


@pytest.mark.parametrize(
    ("kind", "text", "what"),
    [
        (ConfigError, "missing \\['b1', 'W3', 'b3'\\]", lambda e: {"W1": e.params["W1"]}),
        (ConfigError, "unknown \\['W9'\\]", lambda e: {**e.params, "W9": 0}),
        (ConfigError, "the gradient must be", lambda e: None),
        (
            ShapeError,
            "the gradient\\['W1'\\] must be real numbers of shape \\(5, 6\\)",
            lambda e: {**e.params, "W1": 0},
        ),
        (
            ShapeError,
            "the new parameters\\['b1'\\]",
            lambda e: methods.NewParameters({**e.params, "b1": np.ones(6) * 1j}),
        ),
        (CapabilityError, "does not settle", lambda e: e.settle(("nudged", 0.1))),
        (ConfigError, "unknown boundary", lambda e: e.settle(("pushed", 0.1))),
        (ConfigError, "every boundary must be a pair", lambda e: e.settle(0.1)),
        (ConfigError, "params must be of", lambda e: e.measure({"W": 1})),
        (ShapeError, "noise must be 3 signals", lambda e: e.measure(noise=[None])),
        (ShapeError, "noise\\[0\\] must be", lambda e: e.measure(noise=[np.ones(3), None, None])),
        (ConfigError, "how must be one of", lambda e: e.backward(e.targets, how="guess")),
        (
            ShapeError,
            "matrices of shapes",
            lambda e: e.backward(e.targets, feedback=[e.params["W1"], e.params["W3"]]),
        ),
        (
            ShapeError,
            "matrices of shapes",
            lambda e: e.backward(e.targets, feedback=[e.params["W1"].T]),
        ),
        (
            ShapeError,
            "feedback\\[0\\]",
            lambda e: e.backward(e.targets, feedback=[1j * e.params["W1"].T]),
        ),
        (
            DataError,
            "noise\\[0\\] must be finite",
            lambda e: e.measure(noise=[np.full((12, 6), np.nan), None, None]),
        ),
        (
            ShapeError,
            "params\\['b1'\\]",
            lambda e: e.measure({"b1": np.ma.array(np.ones(6), mask=np.eye(6)[0])}),
        ),
        (ValueError, "read-only", lambda e: e.system.params["W1"].fill(0)),
        (
            ShapeError,
            "errors must be real numbers of shape \\(12, 3\\)",
            lambda e: e.backward(np.ones(3)),
        ),
        (ValueError, "read-only", lambda e: e.params["W1"].fill(0)),
        (ZeroDivisionError, "division", lambda e: 1 / 0),
    ],
)
def test_mistakes_are_told(kind, text, what):
    Wrong.what = staticmethod(what)
    net = stack()
    before = {name: array.copy() for name, array in net.params.items()}
    with pytest.raises(kind, match=text):
        Wrong().gradient(net, *batch(net))
    assert all(np.array_equal(before[name], own) for name, own in net.params.items())


def test_what_a_method_needs_is_asked_of_the_system():
    x, y = batch(hopfield())
    with pytest.raises(CapabilityError, match="Aware needs layers that signals pass through"):
        Aware().gradient(hopfield(), x, y)

    class Odd(methods.Method):
        needs = ("light",)

        def step(self, experiment):
            return {}

    refuses(
        ConfigError,
        'unknown ability "light", expected one of layers, twins',
        Odd().gradient,
        stack(),
        x,
        y,
    )


def test_a_method_that_is_wrong_does_not_pass_the_checks():
    class Uphill(Aware):
        def step(self, experiment):
            return {name: -own for name, own in super().step(experiment).items()}

    class Forgetful(Aware):
        drawn = np.random.default_rng(0)

        def step(self, experiment):
            return {
                name: own + self.drawn.normal(size=own.shape)
                for name, own in super().step(experiment).items()
            }

    with pytest.raises(MethodCheckError, match="FAIL the gradient leads down"):
        check_method(Uphill(), stack())
    with pytest.raises(MethodCheckError, match="FAIL the same steps lead to the same parameters"):
        check_method(Forgetful(), stack())


def test_instruments_and_custom_layers_are_trained_by_methods_of_ones_own():
    def measure(x, params):
        return np.tanh(x * params["gain"])

    net = systems.Instrument(
        measure, 3, 3, params={"gain": np.full(3, 0.2)}, seed=0, dtype="float64"
    )
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (20, 3))
    pnn.Trainer(net, Hopping(), optim.SGD(0.1), batch_size=20, seed=0, progress=False).fit(
        x, np.tanh(x), epochs=150
    )
    assert np.abs(net.params["gain"] - 1).max() < 0.3


def test_samples_without_a_steady_state_are_counted():
    net = hopfield("float64")
    x, y = batch(net)
    with pytest.warns(pnn.SettlingWarning, match="of 12 samples"):
        Centered(settling=pnn.Settling(tolerance=1e-13, max_sweeps=3)).gradient(net, x, y)


def test_phases_after_a_plain_measurement_are_counted_too():
    def step(experiment):
        experiment.measure()
        return experiment.settle(("nudged", 0.2)).read([-5, 5])

    class Measuring(methods.SettlingMethod):
        needs = ("local-rule",)

        def step(self, experiment):
            return step(experiment)

    net = hopfield("float64")
    with pytest.warns(pnn.SettlingWarning, match="phases not settled: 36 unconverged"):
        Measuring(settling=pnn.Settling(tolerance=1e-13, max_sweeps=3)).gradient(net, *batch(net))


def test_ctrl_c_ends_a_step_and_keeps_what_was_learned():
    code = """
        import signal, threading, numpy as np, pnncore as pnn
        from pnncore import layers, methods, optim

        class Slow(methods.Method):
            needs = ("twins",)

            def step(self, experiment):
                errors = experiment.errors(experiment.measure())
                for _ in range(30):
                    experiment.measure()
                return experiment.backward(errors)[0]

        chain = [layers.Linear(300, 1000), layers.Tanh(), layers.Linear(1000, 10)]
        net = pnn.systems.Stack(chain, seed=0)
        x, y = np.ones((640, 300), np.float32), np.zeros(640, int)
        trainer = pnn.Trainer(net, Slow(), optim.SGD(1e-6), batch_size=64, progress=False)
        threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
        try:
            trainer.fit(x, y, epochs=1000)
        except KeyboardInterrupt:
            pass
        assert all(np.isfinite(array).all() for array in net.params.values())
        trainer.fit(x, y, epochs=1)
        print("went on")
    """
    assert "went on" in run_python(code, timeout=120)


def test_steps_that_are_missing_or_return_pairs_are_named():
    @dataclass(frozen=True, kw_only=True)
    class Nothing(methods.Method):
        """A method without a step."""

    with pytest.raises(ConfigError, match=r"Nothing must define step\(self, experiment\)"):
        Nothing()

    @dataclass(frozen=True, kw_only=True)
    class Pair(methods.Method):
        """A method that returns all that `backward` does."""

        needs = ("twins",)

        def step(self, experiment):
            return experiment.backward(experiment.errors(experiment.measure()))

    net = systems.Stack([layers.Linear(3, 2)], seed=0)
    x, y = np.ones((4, 3), np.float32), np.zeros(4, int)
    with pytest.raises(ConfigError, match=r"backward returns \(gradient, dx\)"):
        Pair().gradient(net, x, y)
