"""What stops a run, and what it leaves: divergence, exceptions at every line, signals, settings
that change."""

import contextlib
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pnncore as pnn
import pytest
from helpers import make_batch, make_net, parameter_bytes, run_python
from pnncore import layers, methods, optim, systems
from pnncore.errors import ConfigError, SettlingWarning, ShapeError
from pnncore.methods import EquilibriumPropagation


class Counted(systems.EnergySystem):
    """Springs to the inputs, and one between the two states."""

    def energy(self, params, x, s):
        return 0.5 * ((s**2).sum(axis=1)) - (x @ params["W"] * s).sum(axis=1)

    def state_gradient(self, params, x, s):
        return s - x @ params["W"]

    def param_gradient(self, params, x, s, weights):
        return {"W": -x.T @ (weights[:, None] * s)}


def energy_system(dtype):
    return Counted(n_in=3, n_states=2, n_out=2, params={"W": np.ones((3, 2)) / 3}, dtype=dtype)


def stack(dtype, *chain):
    chain = chain or (layers.Linear(3, 4), layers.Tanh(), layers.Linear(4, 2))
    return systems.Stack([*chain], dtype=dtype, seed=0)


SYSTEMS = {
    "hopfield": lambda dtype: make_net([3, 2], dtype=dtype),
    "stack": stack,
    "linear stack": lambda dtype: stack(dtype, layers.Linear(3, 4), layers.Linear(4, 2)),
    "energy": energy_system,
}
METHODS = {
    "hopfield": [
        EquilibriumPropagation(),
        methods.ContrastiveLearning(),
        methods.SPSA(),
        methods.ImplicitDifferentiation(),
    ],
    "stack": [
        methods.Backprop(),
        methods.PhysicsAware(),
        methods.DirectFeedbackAlignment(),
        methods.EvolutionStrategy(),
    ],
    "linear stack": [
        methods.Backprop(),
        methods.PhysicsAware(loss="cross-entropy"),
        methods.FiniteDifference(),
    ],
    "energy": [EquilibriumPropagation(), methods.FiniteDifference(epsilon=1e-2)],
}
PAIRS = [(name, method) for name in SYSTEMS for method in METHODS[name]]
OPTIMIZERS = [optim.SGD(1e6), optim.SGD(1e30, momentum=0.9), optim.Adam(1e25)]


class EveryStep(pnn.Callback):
    def __init__(self):
        self.kept = []

    def on_step(self, trainer):
        self.kept.append(
            (trainer.epoch, trainer.step, parameter_bytes(trainer.system), memory_bytes(trainer))
        )


def memory_bytes(trainer):
    return b"".join(array.tobytes() for array in trainer.memory.values())


def diverging(name, method, optimizer, dtype, callbacks=()):
    system = SYSTEMS[name](dtype)
    x, y = make_batch(system, 24, values=not isinstance(system, systems.Stack))
    trainer = pnn.Trainer(
        system, method, optimizer, batch_size=4, seed=0, callbacks=callbacks, progress=False
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(x, y, epochs=40)
    return trainer, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize(
    ("name", "method"),
    PAIRS,
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_that_diverges_stops_before_the_step(name, method, optimizer, dtype):
    trainer, messages = diverging(name, method, optimizer, dtype)
    for array in [*trainer.system.params.values(), *trainer.memory.values()]:
        assert np.isfinite(array).all()
    losses = trainer.history["loss"]
    assert not len(losses) or losses[np.isfinite(losses)].max(initial=0) < 1e30
    if trainer.epoch == 40:
        assert trainer.history.diverged is None
        return
    assert trainer.history.diverged == (trainer.epoch, trainer.step)
    assert any(
        "training diverged in step" in text and "Lower the rate" in text for text in messages
    )
    # The same bytes, whether the core is left after every step or not.
    each = EveryStep()
    other, _ = diverging(name, method, optimizer, dtype, [each])
    assert (other.epoch, other.step) == (trainer.epoch, trainer.step)
    assert parameter_bytes(other.system) == parameter_bytes(trainer.system)
    assert memory_bytes(other) == memory_bytes(trainer)
    if each.kept:
        assert each.kept[-1][2:] == (parameter_bytes(trainer.system), memory_bytes(trainer))


def test_most_of_these_runs_diverge():
    # Or the test above says little.
    ended = [
        diverging(name, method, optim.SGD(1e6), "float32")[0].history.diverged
        for name, method in PAIRS
    ]
    assert sum(end is not None for end in ended) >= len(PAIRS) - 3, ended


def test_a_fit_that_diverged_goes_on_at_a_lower_rate():
    trainer, _ = diverging("linear stack", methods.Backprop(), optim.SGD(1e39), "float32")
    assert trainer.history.diverged == (0, 0)
    x, y = make_batch(trainer.system, 24)
    trainer.optimizer = optim.SGD(1e-3)
    history = trainer.fit(x, y, epochs=2)
    assert history.diverged is None
    assert trainer.finished


@pytest.mark.filterwarnings("ignore::pnncore.errors.SettlingWarning")
def test_no_comparison_and_no_early_stopping_is_led_astray():
    net = stack("float32")
    x, y = make_batch(net, 24)
    found = pnn.compare(
        net, {"wild": (methods.Backprop(), optim.SGD(1e9))}, (x, y, x, y), passes=1000
    )
    assert found.runs["wild"].trainer.history.diverged is not None
    assert np.isfinite(found.runs["wild"].score).all()
    trainer = pnn.Trainer(
        net, methods.Backprop(), optim.SGD(1e9), seed=0, callbacks=[pnn.EarlyStopping(2)]
    )
    trainer.fit(x, y, epochs=10, validation=(x, y))
    assert all(np.isfinite(array).all() for array in net.params.values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "overflow"])
@pytest.mark.parametrize("labels", [True, False])
def test_lost_samples_are_misses(dtype, bad, labels):
    net = stack(dtype, layers.Linear(3, 4))
    net.params["W1"][...] = np.eye(3, 4)
    x, y = make_batch(net, 10, values=not labels)
    x[4] = np.finfo(dtype).max
    net.params["W1"][...] = 3 if bad == "overflow" else np.eye(3, 4) * 3
    with pytest.warns(SettlingWarning, match="'diverged': 1"):
        score = net.score(x, y)
    with pytest.warns(SettlingWarning):
        found = net.classify(x)
    assert (found == -1).tolist() == [i == 4 for i in range(10)]
    if labels:
        y[4] = found[0]
        with pytest.warns(SettlingWarning):
            assert net.score(x, y) == np.mean([found[i] == y[i] and i != 4 for i in range(10)])
    else:
        assert score == -np.inf
    from pnncore._scores import labels_of

    outputs = np.ones((3, 4), dtype)
    outputs[1, 2] = np.nan if bad == "overflow" else bad
    assert labels_of(outputs).tolist() == [0, -1, 0]


@pytest.mark.parametrize("classes", [[0, 1], ["a", "b"], [2.0, 1.0], [False, True]])
def test_an_estimator_misses_what_is_lost(classes):
    estimators = pytest.importorskip("pnncore.estimators")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    y = np.array(classes)[rng.integers(0, 2, 20)]
    model = estimators.Classifier(epochs=1, random_state=0, standardize=False).fit(x, y)
    for array in model.system_.params.values():
        array[...] = np.finfo(array.dtype).max
    with pytest.warns(SettlingWarning):
        assert not np.isin(model.predict(x), classes).any()


class Saddle(Counted):
    """One energy per sample: with a minimum where the first input is positive."""

    def energy(self, params, x, s):
        return 0.5 * np.sign(x[:, 0]) * (s**2).sum(axis=1) - (x @ params["W"] * s).sum(axis=1)

    def state_gradient(self, params, x, s):
        return np.sign(x[:, :1]) * s - x @ params["W"]


@pytest.mark.parametrize("lost", [0, 1, 5, 6])
@pytest.mark.parametrize(
    "method", [EquilibriumPropagation(), methods.ContrastiveLearning(), methods.SPSA(epsilon=0.01)]
)
def test_audits_and_gradients_say_what_they_come_from(lost, method):
    net = Saddle(n_in=3, n_states=2, n_out=2, params={"W": np.ones((3, 2)) / 3})
    x, y = make_batch(net, 6, values=True)
    x[:lost, 0] *= -1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = pnn.audit(net, method, x, y)
    texts = [str(warning.message) for warning in caught]
    assert found.usable == 6 - lost
    assert np.isnan([found.cosine, found.relative_error, found.norm_ratio]).all() == (lost == 6)
    assert bool(texts) == (lost > 0)
    if lost:
        said = "measured nothing" if lost == 6 else f"comes from {6 - lost} of 6 samples"
        assert all(said in text for text in texts), texts
        assert found.unbounded >= lost
        assert f"{6 - lost} of 6 samples" in str(found)
        with pytest.warns(SettlingWarning, match=said):
            method.gradient(net, x, y)


# Interrupted runs.


def interruptible(callbacks=()):
    net = make_net([6, 8, 3], dtype="float32")
    x, y = make_batch(net, 20)
    trainer = pnn.Trainer(
        net,
        EquilibriumPropagation(),
        optim.Adam(0.01),
        batch_size=4,
        seed=3,
        callbacks=callbacks,
        progress=False,
    )
    return trainer, x, y


def final(trainer):
    quantities = {key: trainer.history[key] for key in trainer.history.KEYS if key != "seconds"}
    text = {key: value.tolist() for key, value in quantities.items()}
    return (
        parameter_bytes(trainer.system),
        memory_bytes(trainer),
        repr(text),
        trainer.epoch,
        trainer.step,
    )


def undisturbed(epochs):
    trainer, x, y = interruptible()
    trainer.fit(x, y, epochs=epochs, validation=(x, y))
    return final(trainer)


def finish(trainer, x, y, epochs):
    if trainer.epoch < epochs:
        trainer.fit(x, y, epochs=epochs - trainer.epoch, validation=(x, y))
    return final(trainer)


class Stop(BaseException):
    """What a handler raises."""


class Singly(pnn.Callback):
    """Makes the trainer leave the core after every step."""

    def on_step(self, trainer):
        pass


@pytest.mark.skipif(
    sys.version_info >= (3, 12) and hasattr(sys, "gettrace") and sys.gettrace() is not None,
    reason="traced",
)
@pytest.mark.parametrize("single", [False, True])
def test_an_exception_at_every_line_of_a_fit(single):
    epochs = 2
    expected = undisturbed(epochs)
    code_of = pnn.trainer.__file__
    at, reached = 0, True
    while reached:
        trainer, x, y = interruptible([Singly()] if single else [])
        count, reached = 0, False

        def trace(frame, event, argument):
            nonlocal count, reached
            if frame.f_code.co_filename != code_of:
                return None
            if event == "line":
                count += 1
                if count == at + 1:  # noqa: B023 - called within its turn
                    reached = True
                    sys.settrace(None)
                    raise Stop
            return trace

        sys.settrace(trace)
        try:
            trainer.fit(x, y, epochs=epochs, validation=(x, y))
        except Stop:
            pass
        finally:
            sys.settrace(None)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, at
        assert finish(trainer, x, y, epochs) == expected, at
        at += 1
    assert at > 50


def raising(number, frame):
    raise Stop


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_handler_that_raises_at_random_instants(rounds):
    epochs, rng = 3, np.random.default_rng(0)
    expected = undisturbed(epochs)
    before = signal.signal(signal.SIGALRM, raising)
    stopped = 0
    try:
        for _ in range(rounds):
            trainer, x, y = interruptible()
            while trainer.epoch < epochs:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 4e-3))
                try:
                    try:
                        trainer.fit(x, y, epochs=epochs - trainer.epoch, validation=(x, y))
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except Stop:  # the last instants are those before the timer stands
                    stopped += 1
            assert final(trainer) == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # On a busy machine few of them hit a fit.
    assert stopped > rounds / 10


def test_early_stopping_leaves_an_interrupted_fit_where_it_is():
    class Fail(pnn.Callback):
        def on_step(self, trainer):
            if (trainer.epoch, trainer.step) == (2, 3):
                trainer.callbacks.remove(self)
                raise Stop

    expected = undisturbed(4)
    trainer, x, y = interruptible([pnn.EarlyStopping(50), Fail()])
    with pytest.raises(Stop):
        trainer.fit(x, y, epochs=4, validation=(x, y))
    trainer.callbacks.clear()
    assert finish(trainer, x, y, 4) == expected


def test_what_a_failed_step_leaves_is_counted():
    # The third step of a leg fails: the two before it are in the parameters, and in the count.
    class Failing(Counted):
        calls = 0

        def param_gradient(self, params, x, s, weights):
            self.calls += 1
            if self.calls == 3:
                raise Stop
            return super().param_gradient(params, x, s, weights)

    net = Failing(n_in=3, n_states=2, n_out=2, params={"W": np.ones((3, 2)) / 3})
    x, y = make_batch(net, 20, values=True)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.1), batch_size=4, seed=0, progress=False
    )
    with pytest.raises(Stop):
        trainer.fit(x, y, epochs=1)
    assert trainer.step == 2
    trainer.fit(x, y, epochs=1)
    other = energy_system("float64")
    pnn.Trainer(
        other, EquilibriumPropagation(), optim.SGD(0.1), batch_size=4, seed=0, progress=False
    ).fit(x, y, epochs=1)
    assert parameter_bytes(net) == parameter_bytes(other)


# Settings that change meanwhile.


@pytest.mark.parametrize("size", [1, 3, 7, 20, 1000])
def test_a_batch_size_set_in_a_callback_holds_from_the_next_epoch_on(size):
    class Change(pnn.Callback):
        def on_step(self, trainer):
            trainer.batch_size = size

    trainer, x, y = interruptible([Change()])
    trainer.fit(x, y, epochs=1)
    assert trainer.history["passes"][0] == undisturbed_passes(4)
    trainer.fit(x, y, epochs=1)
    assert trainer.history["passes"][1] == undisturbed_passes(size)


def undisturbed_passes(batch_size):
    trainer, x, y = interruptible()
    trainer.batch_size = batch_size
    return trainer.fit(x, y, epochs=1)["passes"][0]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("batch_size", 0, ConfigError),
        ("batch_size", "4", ConfigError),
        ("seed", -1, ConfigError),
        ("method", "EP", ConfigError),
        ("optimizer", None, ConfigError),
        ("system", 3, ConfigError),
        ("method", methods.Backprop(), pnn.errors.CapabilityError),
        ("threads", 0, ConfigError),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_the_next_epoch(name, value, error):
    class Change(pnn.Callback):
        def on_step(self, trainer):
            setattr(trainer, name, value)

    trainer, x, y = interruptible([Change()])
    with pytest.raises(error):
        trainer.fit(x, y, epochs=3)
    assert (trainer.epoch, trainer.step) == (1, 0)


def test_an_epoch_under_way_is_finished_with_its_own_batches():
    class Fail(pnn.Callback):
        def on_step(self, trainer):
            if trainer.step == 2:
                raise Stop

    trainer, x, y = interruptible([Fail()])
    with pytest.raises(Stop):
        trainer.fit(x, y, epochs=1)
    trainer.callbacks.clear()
    trainer.batch_size = 5
    with pytest.raises(ShapeError, match="has seen 8 samples in 2 steps"):
        trainer.fit(x, y, epochs=1)


@pytest.mark.parametrize(
    "method",
    [methods.Backprop(), methods.ForwardForward(classes=3), methods.PhysicalLocalLearning()],
)
@pytest.mark.parametrize("seconds", [0.3, pytest.param(20.0, marks=pytest.mark.slow)])
def test_labels_that_another_thread_changes(method, seconds):
    net = stack("float32", layers.Linear(6, 8), layers.Tanh(), layers.Linear(8, 3))
    x, y = make_batch(net, 5000)
    trainer = pnn.Trainer(net, method, optim.SGD(1e-3), batch_size=8, seed=0, progress=False)
    done = threading.Event()

    def disturb():
        while not done.is_set():
            y[:] = 2**62
            y[:] = 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(pnn.PnnError):
                trainer.fit(x, y, epochs=1)
    finally:
        done.set()
        thread.join()


def test_a_stiff_relaxation_does_not_panic():
    # The springs of agnostic equilibrium propagation, where a step before left what is not finite.
    net = make_net([3, 4, 2], dtype="float32")
    x, y = make_batch(net, 20)
    trainer = pnn.Trainer(
        net,
        methods.AgnosticEquilibriumPropagation(relaxations=3),
        optim.SGD(1e38),
        batch_size=4,
        progress=False,
    )
    with pytest.warns(SettlingWarning):
        trainer.fit(x, y, epochs=3)
    assert all(np.isfinite(array).all() for array in net.params.values())


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_extreme_settings():
    # All numbers of all settings; every seventh of them in the short version.
    import os
    from pathlib import Path

    parts = 1 if os.environ.get("PNNCORE_TORTURE") == "1" else 12
    code = "import extremes, sys; extremes.main(int(sys.argv[1]), int(sys.argv[2]))"
    assert Path(__file__).with_name("extremes.py").is_file()
    out = run_python(code, 0, parts, timeout=1800)
    lines = out.splitlines()
    assert lines[-1].endswith("cases done")
    wrong = [line for line in lines[:-1] if not line.endswith(" ok")]
    assert not wrong, "\n".join(wrong)


LARGE = 2**31
SIZES = {
    "linear": lambda: stack("float32", layers.Linear(LARGE, LARGE)),
    "mismatch": lambda: stack("float32", layers.Linear(2, LARGE, mismatch=0.1)),
    "crossbar": lambda: stack("float32", layers.Crossbar(LARGE, LARGE)),
    "cells": lambda: stack(
        "float32", layers.Crossbar(2**18, 2**18, device=pnn.devices.SoftBounds())
    ),
    "speckle": lambda: stack("float32", layers.Speckle(LARGE, LARGE)),
    "pendula": lambda: stack("float32", layers.Pendula(LARGE)),
    "pendula steps": lambda: stack("float32", layers.Pendula(100, steps=LARGE)),
    "plate": lambda: stack("float32", layers.Plate(LARGE, 5)),
    "harmonic": lambda: stack("float32", layers.SecondHarmonic(LARGE, 5)),
    "hopfield": lambda: systems.Hopfield([LARGE, LARGE, 2]),
    "resistive": lambda: systems.DeepResistive([LARGE, LARGE, 2]),
    "energy": lambda: Counted(n_in=1, n_states=LARGE, n_out=1, params={"W": [1.0]}).predict(
        np.ones((50, 1))
    ),
    "surrogate": lambda: pnn.Trainer(
        stack("float32"), methods.SurrogateOptimization(hidden=LARGE), optim.SGD(0.1)
    ),
    "kept": lambda: pnn.Trainer(
        stack("float32"), methods.SurrogateOptimization(samples=LARGE), optim.SGD(0.1)
    ),
    "genetic": lambda: pnn.Trainer(
        stack("float32"), methods.GeneticAlgorithm(population=LARGE), optim.SGD(0.1)
    ),
    "cmaes": lambda: pnn.Trainer(stack("float32"), methods.CMAES(population=LARGE), optim.SGD(0.1)),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where the free memory is known")
@pytest.mark.parametrize("size", SIZES)
def test_sizes_beyond_memory_are_refused_in_bytes(size):
    with pytest.raises(ConfigError, match=r"needs \d+ bytes of memory, but only \d+ are available"):
        SIZES[size]()


@pytest.mark.parametrize("outputs", [5, 1024, 1025, 1300])
def test_crosstalk_of_wide_maps_has_its_transpose(outputs):
    net = systems.Stack([layers.Linear(3, outputs, mismatch=0.3)], dtype="float64", seed=0)
    twin = systems.Stack([layers.Linear(3, outputs)], dtype="float64", seed=0)
    net.params["b1"][...] = twin.params["b1"][...] = 0
    twin.params["W1"][...] = net.params["W1"]
    jacobian = net.predict(np.eye(3))
    method = methods.Backprop(model="hardware")
    x, y = np.ones((1, 3)), np.zeros((1, outputs))
    found = method.gradient(net, x, y)["b1"]
    # The error of the outputs, back through the crosstalk C: the gradient of the bias is C (b C + x
    # W C).
    unit = np.zeros(outputs)
    unit[-1] = 1
    net.params["b1"][...] = unit
    row = net.predict(np.zeros((1, 3)))[0]
    error = jacobian.sum(axis=0)
    assert found[-1] == pytest.approx(row @ error, rel=1e-9)
    assert 0.03 < np.linalg.norm(row - unit) < 0.5


def test_a_map_of_very_many_outputs_has_no_square_matrix():
    start = time.monotonic()
    net = systems.Stack([layers.Linear(3, 70_000, mismatch=0.1)], seed=0)
    assert np.isfinite(net.predict(np.ones((2, 3), np.float32))).all()
    assert time.monotonic() - start < 30
