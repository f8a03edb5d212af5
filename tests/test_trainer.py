"""The training loop: what it learns, in which order things happen, optimizers, schedules,
history."""

import io
import math
import warnings

import numpy as np
import pnncore as pnn
import pytest
from helpers import copy_of, make_batch, make_net, one_hot
from pnncore import methods, optim
from pnncore.errors import CapabilityError, ConfigError, DataError, ShapeError
from pnncore.methods import EquilibriumPropagation, ImplicitDifferentiation


@pytest.fixture(scope="module")
def digits():
    return pnn.data.digits()


def small(dtype="float64", layers=(6, 8, 3), samples=20, **settings):
    net = make_net(list(layers), dtype=dtype)
    x, y = make_batch(net, samples)
    return net, x, y


class Recorder(pnn.Callback):
    """Notes every call, with the counters of the trainer."""

    def __init__(self):
        self.calls = []
        self.params = []

    def note(self, name, trainer):
        self.calls.append((name, trainer.epoch, trainer.step))

    def on_start(self, trainer):
        self.note("start", trainer)

    def on_step(self, trainer):
        self.note("step", trainer)
        self.params.append({name: array.copy() for name, array in trainer.system.params.items()})

    def on_pause(self, trainer):
        self.note("pause", trainer)

    def on_epoch(self, trainer):
        self.note("epoch", trainer)
        assert trainer.history.epochs == trainer.epoch

    def on_end(self, trainer):
        self.note("end", trainer)


class Quiet(pnn.Callback):
    """Leaves `on_step` alone."""


def test_fit_learns_the_digits(digits):
    x, y, x_test, y_test = digits
    net = pnn.systems.Hopfield([64, 128, 10], seed=0)
    untrained = net.score(x_test, y_test)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(beta=0.2), optim.SGD(0.1), batch_size=30, seed=0
    )
    history = trainer.fit(x, y, epochs=12, validation=(x_test, y_test))
    readout = pnn.systems.Hopfield([64, 128, 10], seed=0)
    rates = {"W2": 0.1, "b2": 0.1}
    pnn.Trainer(
        readout, EquilibriumPropagation(beta=0.2), optim.SGD(rates), batch_size=30, seed=0
    ).fit(x, y, epochs=12)
    # Chance, what untrained hidden units give, and all layers trained.
    assert untrained < 0.3
    assert net.score(x_test, y_test) > 0.9
    assert net.score(x_test, y_test) > readout.score(x_test, y_test) + 0.02
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["accuracy"][-1] > 0.9
    np.testing.assert_array_equal(
        readout.params["W1"], pnn.systems.Hopfield([64, 128, 10], seed=0).params["W1"]
    )


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (EquilibriumPropagation(variant="one-sided", sign="random"), {}),
        (EquilibriumPropagation(variant="holomorphic", points=4), {"activation": "tanh"}),
        (EquilibriumPropagation(loss="cross-entropy"), {"activation": "tanh"}),
        (methods.ContrastiveLearning(), {}),
        (methods.CoupledLearning(), {}),
        (ImplicitDifferentiation(), {}),
        (methods.RecurrentBackprop(), {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, methods.Method) else "",
)
def test_every_method_learns(digits, method, settings):
    x, y, x_test, y_test = digits
    net = pnn.systems.Hopfield([64, 40, 10], seed=0, **settings)
    trainer = pnn.Trainer(net, method, optim.SGD(0.05), batch_size=30, seed=0)
    history = trainer.fit(x, y, epochs=8, validation=(x_test, y_test))
    assert history["validation"].max() > 0.75
    assert history["loss"][-1] < 0.6 * history["loss"][0]


def test_regression_learns_targets():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (300, 4))
    y = np.stack([x[:, 0] * x[:, 1], np.abs(x[:, 2])], axis=1)
    net = pnn.systems.Hopfield([4, 40, 2], activation="tanh", dtype="float64", seed=0, gain=1.0)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.Adam(0.01), batch_size=20, seed=0)
    history = trainer.fit(x, y, epochs=60, validation=(x, y))
    assert history["validation"][-1] > 0.8
    assert np.isnan(history["accuracy"]).all()
    linear = np.linalg.lstsq(np.c_[x, np.ones(300)], y, rcond=None)[0]
    residue = y - np.c_[x, np.ones(300)] @ linear
    assert 1 - (residue**2).sum() / ((y - y.mean(axis=0)) ** 2).sum() < 0.3, (
        "the control, a linear model"
    )


def test_history():
    net, x, y = small(samples=20)
    twin = copy_of(net)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=7, seed=0)
    assert trainer.history.epochs == 0
    assert repr(trainer.history) == "History(no epochs)"
    history = trainer.fit(x, y, epochs=3, validation=(x[:5], y[:5]))
    assert history is trainer.history
    assert history.epochs == 3
    for key in pnn.History.KEYS:
        assert history[key].shape == (3,)
        assert history[key].dtype == np.float64
        assert np.isfinite(history[key]).all()
    np.testing.assert_array_equal(history["epoch"], [1, 2, 3])
    assert (history["seconds"] > 0).all()
    assert (history["free_sweeps"] >= 1).all()
    assert (history["other_sweeps"] >= 2).all()
    assert history["validation"][-1] == net.score(x[:5], y[:5])
    assert set(history.to_dict()) == set(pnn.History.KEYS)
    assert history.to_dict()["loss"] == history["loss"].tolist()
    assert "3 epochs" in repr(history)
    with pytest.raises(KeyError, match=r"accurcy.*loss, accuracy, validation"):
        history["accurcy"]
    # With rates of zero the loss and the accuracy of an epoch are those of the network.
    frozen = pnn.Trainer(
        twin, EquilibriumPropagation(settling=pnn.Settling(tolerance=1e-12)), optim.SGD(0.0)
    )
    row = frozen.fit(x, y, epochs=1)
    outputs = twin.predict(x, settling=pnn.Settling(tolerance=1e-12))
    assert row["loss"][0] == pytest.approx(
        0.5 * ((outputs - one_hot(y, 3)) ** 2).sum(axis=1).mean(), rel=1e-10
    )
    assert row["accuracy"][0] == (outputs.argmax(axis=1) == y).mean()


def test_history_without_validation_or_labels():
    net, x, _ = small()
    y = np.zeros((len(x), 3))
    history = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.05)).fit(x, y, epochs=2)
    assert np.isnan(history["validation"]).all()
    assert np.isnan(history["accuracy"]).all()


def test_history_counts_rows_that_do_not_settle():
    net, x, y = small(samples=20)
    settling = pnn.Settling(tolerance=1e-12, max_sweeps=1)
    history = pnn.Trainer(net, EquilibriumPropagation(settling=settling), optim.SGD(0.0)).fit(
        x, y, epochs=1
    )
    assert history["unconverged"][0] == 60
    settling = pnn.Settling(output_update="explicit", sweeps=(50, 5000))
    method = EquilibriumPropagation(variant="one-sided", beta=1.5, settling=settling)
    before = [array.copy() for array in net.params.values()]
    with pytest.warns(pnn.SettlingWarning, match="20 phases diverged"):
        history = pnn.Trainer(net, method, optim.SGD(0.1)).fit(x, y, epochs=1)
    assert history["diverged"][0] == 20
    assert np.isfinite(history["loss"][0])
    for a, b in zip(before, net.params.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_warnings_turned_into_errors_leave_the_trainer_sound():
    net, x, y = small(samples=20)
    settling = pnn.Settling(output_update="explicit", sweeps=(50, 5000))
    method = EquilibriumPropagation(variant="one-sided", beta=1.5, settling=settling)
    recorder = Recorder()
    trainer = pnn.Trainer(net, method, optim.SGD(0.1), callbacks=[recorder])
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(pnn.SettlingWarning):
                trainer.fit(x, y, epochs=2)
    assert (trainer.epoch, trainer.step) == (2, 0)
    np.testing.assert_array_equal(trainer.history["diverged"], [20, 20])
    assert [name for name, *_ in recorder.calls].count("epoch") == 2


def test_callbacks_in_order():
    net, x, y = small(samples=20)
    recorder = Recorder()
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=8, callbacks=[recorder]
    )
    trainer.fit(x, y, epochs=2)
    steps = [[("step", e, s), ("pause", e, s)] for e in (0, 1) for s in (1, 2, 3)]
    first, second = (
        [call for pair in steps[:3] for call in pair],
        [call for pair in steps[3:] for call in pair],
    )
    assert recorder.calls == [
        ("start", 0, 0),
        *first,
        ("epoch", 1, 0),
        *second,
        ("epoch", 2, 0),
        ("end", 2, 0),
    ]


def test_callbacks_on_step_change_nothing():
    nets = [small(samples=20)[0] for _ in range(3)]
    _, x, y = small(samples=20)
    recorder = Recorder()
    for net, callbacks in zip(nets, ([], [recorder], [Quiet()]), strict=True):
        pnn.Trainer(
            net,
            EquilibriumPropagation(),
            optim.SGD(0.05),
            batch_size=8,
            seed=3,
            callbacks=callbacks,
        ).fit(x, y, epochs=3)
    for net in nets[1:]:
        for name in net.params:
            np.testing.assert_array_equal(net.params[name], nets[0].params[name])
    assert len(recorder.params) == 9
    np.testing.assert_array_equal(recorder.params[-1]["W1"], nets[0].params["W1"])


def test_stop_from_a_step_goes_on_in_the_middle_of_the_epoch():
    class StopAt(pnn.Callback):
        def __init__(self, step):
            self.at = step

        def on_step(self, trainer):
            if trainer.step == self.at:
                trainer.stop()

    net, x, y = small(samples=20)
    twin = copy_of(net)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=4, seed=3, callbacks=[StopAt(2)]
    )
    history = trainer.fit(x, y, epochs=3)
    assert (trainer.epoch, trainer.step, history.epochs) == (0, 2, 0)
    assert "0 epochs + 2 steps done" in repr(trainer)
    trainer.callbacks = []
    trainer.fit(x, y, epochs=1)
    assert (trainer.epoch, trainer.step) == (1, 0)
    other = pnn.Trainer(twin, EquilibriumPropagation(), optim.SGD(0.05), batch_size=4, seed=3)
    other.fit(x, y, epochs=1)
    np.testing.assert_array_equal(net.params["W1"], twin.params["W1"])
    for key in ("loss", "accuracy", "free_sweeps", "other_sweeps"):
        np.testing.assert_array_equal(trainer.history[key], other.history[key])


def test_stop_from_the_last_step_ends_the_epoch():
    class StopAtEnd(pnn.Callback):
        def on_step(self, trainer):
            if trainer.step == 5:
                trainer.stop()

    net, x, y = small(samples=20)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=4, callbacks=[StopAtEnd()]
    )
    trainer.fit(x, y, epochs=3)
    assert (trainer.epoch, trainer.step, trainer.history.epochs) == (1, 0, 1)


def test_an_error_in_a_callback_ends_the_fit_and_keeps_the_state():
    class Fails(pnn.Callback):
        ended = False

        def on_step(self, trainer):
            if trainer.step == 2:
                raise ZeroDivisionError("mine")

        def on_end(self, trainer):
            self.ended = True

    net, x, y = small(samples=20)
    twin, fails = copy_of(net), Fails()
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=4, seed=3, callbacks=[fails]
    )
    with pytest.raises(ZeroDivisionError, match="mine"):
        trainer.fit(x, y, epochs=1)
    assert fails.ended
    assert trainer.step == 2
    trainer.callbacks = []
    trainer.fit(x, y, epochs=1)
    pnn.Trainer(twin, EquilibriumPropagation(), optim.SGD(0.05), batch_size=4, seed=3).fit(
        x, y, epochs=1
    )
    np.testing.assert_array_equal(net.params["W1"], twin.params["W1"])


def test_early_stopping_on_validation():
    net, x, y = small(samples=20)
    values = iter([0.2, 0.5, 0.7, 0.6, 0.7, 0.65, 0.9])
    net.score = lambda *args, **kwargs: next(values)
    kept = {}

    class Keep(pnn.Callback):
        def on_epoch(self, trainer):
            kept[trainer.epoch] = net.params["W1"].copy()

    stopping = pnn.EarlyStopping(patience=3)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), callbacks=[Keep(), stopping], seed=0
    )
    trainer.fit(x, y, epochs=50, validation=(x, y))
    assert trainer.epoch == 6
    np.testing.assert_array_equal(net.params["W1"], kept[3])


@pytest.mark.parametrize(("margin", "epochs"), [(0.0, 6), (0.15, 4)])
def test_early_stopping_on_the_loss(margin, epochs):
    net, x, y = small(samples=20)
    stopping = pnn.EarlyStopping(patience=2, quantity="loss", margin=margin, restore=False)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.05), seed=0)
    losses = iter([1.0, 0.8, 0.7, 0.69, 0.75, 0.72, 0.1])
    row_of = trainer.history.row
    trainer.history.row = lambda **values: row_of(**{**values, "loss": next(losses)})
    trainer.callbacks = [stopping]
    trainer.fit(x, y, epochs=50)
    assert trainer.epoch == epochs


def test_early_stopping_begins_afresh_and_needs_validation():
    net, x, y = small(samples=20)
    stopping = pnn.EarlyStopping(patience=1, quantity="loss")
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.0), callbacks=[stopping], seed=0
    )
    trainer.fit(x, y, epochs=9)
    assert trainer.epoch <= 3, "nothing changes but rounding"
    trainer.fit(x, y, epochs=1)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.0), callbacks=[pnn.EarlyStopping()]
    )
    with pytest.raises(pnn.errors.ConfigError, match="pass validation= to fit"):
        trainer.fit(x, y, epochs=2)


def test_schedules():
    decay = optim.ExponentialDecay(0.9)
    assert [decay.factor(e) for e in range(3)] == pytest.approx([1, 0.9, 0.81])
    steps = optim.StepDecay(3, 0.1)
    assert [steps.factor(e) for e in (0, 2, 3, 5, 6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = optim.CosineDecay(10, 0.2)
    assert [cosine.factor(e) for e in (0, 5, 10, 99)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert all(isinstance(schedule, optim.Schedule) for schedule in (decay, steps, cosine))


def test_schedule_scales_the_steps():
    class Halves:
        def factor(self, epoch):
            return 0.5**epoch

    net, x, y = small(samples=20)
    expected = copy_of(net)
    trainer = pnn.Trainer(
        net, ImplicitDifferentiation(), optim.SGD(0.1, schedule=Halves()), batch_size=20
    )
    trainer.fit(x, y, epochs=4)
    for epoch in range(4):
        gradient = ImplicitDifferentiation().gradient(expected, x, y)
        for name, array in expected.params.items():
            array -= 0.1 * 0.5**epoch * gradient[name]
    for name in net.params:
        np.testing.assert_allclose(net.params[name], expected.params[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf])
def test_schedule_with_a_bad_factor(factor):
    class Bad:
        def factor(self, epoch):
            return factor

    net, _, _ = small()
    with pytest.raises(pnn.errors.ConfigError, match="schedule gave a factor of"):
        pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1, schedule=Bad()))


@pytest.mark.parametrize(
    ("rate", "by_name"),
    [
        (0.1, {"W1": 0.1, "b1": 0.1, "W2": 0.1, "b2": 0.1}),
        ([0.1, 0.02], {"W1": 0.1, "b1": 0.1, "W2": 0.02, "b2": 0.02}),
        ((0.1, 0), {"W1": 0.1, "b1": 0.1}),
        ({"b2": 0.3, "W1": 0.05}, {"W1": 0.05, "b2": 0.3}),
    ],
    ids=["one", "by layer", "layer held", "by parameter"],
)
@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_rates(rate, by_name, kind):
    net, x, y = small(samples=20)
    expected = copy_of(net)
    make = {"sgd": optim.SGD, "momentum": lambda r: optim.SGD(r, momentum=0.5), "adam": optim.Adam}[
        kind
    ]
    pnn.Trainer(net, ImplicitDifferentiation(), make(rate), batch_size=20).fit(x, y, epochs=1)
    gradient = ImplicitDifferentiation().gradient(expected, x, y)
    for name, array in expected.params.items():
        g = gradient[name]
        array -= by_name.get(name, 0) * (g / (np.abs(g) + 1e-8) if kind == "adam" else g)
        # A gradient of Adam that is rounding alone has any sign.
        atol = 1e-12 if kind != "adam" else np.where(np.abs(g) < 1e-12, 1, 1e-6)
        assert (np.abs(net.params[name] - array) <= atol).all()
        if name not in by_name:
            np.testing.assert_array_equal(net.params[name], array)


def test_epochs_visit_every_sample_once_in_changing_order():
    seen = [pnn._core.permutation(50, 3, epoch).tolist() for epoch in range(5)]
    assert all(sorted(order) == list(range(50)) for order in seen)
    assert len({tuple(order) for order in seen}) == 5
    assert pnn._core.permutation(50, 4, 0).tolist() != seen[0]
    counts = np.zeros((8, 8))
    for epoch in range(4000):
        counts[np.arange(8), pnn._core.permutation(8, 1, epoch)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 49 + 5 * math.sqrt(2 * 49), (
        "every place is equally likely"
    )


@pytest.mark.parametrize(
    "kind",
    ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "list", "tuple"],
)
def test_labels_of_any_integer_type(kind):
    net, x, y = small(samples=20)
    labels = (
        {"list": y.tolist(), "tuple": tuple(y.tolist())}[kind]
        if kind in ("list", "tuple")
        else y.astype(kind)
    )
    twin = copy_of(net)
    pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1), seed=0).fit(x, labels, epochs=2)
    pnn.Trainer(twin, EquilibriumPropagation(), optim.SGD(0.1), seed=0).fit(x, y, epochs=2)
    np.testing.assert_array_equal(net.params["W1"], twin.params["W1"])
    assert net.score(x, labels) == net.score(x, y)


def test_targets_equal_to_labels_train_alike():
    net, x, y = small(samples=20)
    twin = copy_of(net)
    pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1), seed=0).fit(
        x, one_hot(y, 3), epochs=2
    )
    pnn.Trainer(twin, EquilibriumPropagation(), optim.SGD(0.1), seed=0).fit(x, y, epochs=2)
    np.testing.assert_array_equal(net.params["W1"], twin.params["W1"])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 19, 20, 21, 1000])
def test_any_batch_size(batch_size):
    net, x, y = small(samples=20)
    recorder = Recorder()
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=batch_size, callbacks=[recorder]
    )
    history = trainer.fit(x, y, epochs=2)
    assert sum(name == "step" for name, *_ in recorder.calls) == 2 * math.ceil(20 / batch_size)
    assert np.isfinite(history["loss"]).all()


def test_fit_goes_on():
    net, x, y = small(samples=20)
    twin = copy_of(net)
    schedule = optim.ExponentialDecay(0.5)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.Adam(0.05, schedule=schedule), batch_size=6, seed=1
    )
    assert trainer.fit(x, y, epochs=2) is trainer.fit(x, y, epochs=3)
    assert trainer.epoch == 5
    whole = pnn.Trainer(
        twin, EquilibriumPropagation(), optim.Adam(0.05, schedule=schedule), batch_size=6, seed=1
    )
    whole.fit(x, y, epochs=5)
    for name in net.params:
        np.testing.assert_array_equal(net.params[name], twin.params[name])
    np.testing.assert_array_equal(trainer.history["loss"], whole.history["loss"])


def test_fit_with_fewer_data_in_the_middle_of_an_epoch():
    class StopAt(pnn.Callback):
        def on_step(self, trainer):
            if trainer.step == 4:
                trainer.stop()

    net, x, y = small(samples=20)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=4, callbacks=[StopAt()]
    )
    trainer.fit(x, y, epochs=1)
    with pytest.raises(
        pnn.errors.ShapeError, match="the epoch under way is at step 4, but these data make 3 steps"
    ):
        trainer.fit(x[:12], y[:12], epochs=1)


def test_progress_line(monkeypatch, capsys):
    net, x, y = small(samples=20)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.05), progress=True, seed=0)
    trainer.fit(x, y, epochs=2, validation=(x, y))
    err = capsys.readouterr().err
    assert "epoch   1  loss " in err
    assert "epoch   2  loss " in err
    assert "validation" in err
    assert "samples/s" in err
    trainer.progress = None
    trainer.fit(x, y, epochs=1)
    assert capsys.readouterr().err == "", "silent unless standard error is a terminal"

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    trainer.fit(x, y, epochs=1)
    assert "epoch   4" in terminal.getvalue()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_system_without_parameters_is_used_and_not_trained(dtype):
    light = pnn.systems.Stack([pnn.layers.Encode(3), pnn.layers.Detect()], dtype=dtype, seed=0)
    np.testing.assert_allclose(light.predict(np.full((2, 3), 2, dtype)), 4)
    with pytest.raises(CapabilityError, match="Stack has no parameters to train"):
        pnn.Trainer(light, pnn.methods.SPSA(), pnn.optim.SGD(0.1), seed=0)


def test_targets_of_the_cross_entropy_are_probabilities():
    net, method = make_net([4, 6, 3]), EquilibriumPropagation(loss="cross-entropy")
    x, y = np.full((5, 4), 0.5), np.full((5, 3), 1 / 3)
    trainer = pnn.Trainer(net, method, optim.SGD(0.1), seed=0, progress=False)
    trainer.fit(x, y, epochs=1)
    net.settle(x, y, beta=0.1, loss="cross-entropy")
    for wrong in (-y, 2 * y, y - 0.5, np.zeros((5, 3))):
        for call in (
            lambda y: trainer.fit(x, y, epochs=1),
            lambda y: method.gradient(net, x, y),
            lambda y: net.settle(x, y, beta=0.1, loss="cross-entropy"),
        ):
            with pytest.raises(DataError, match="must be at least 0 and sum to 1"):
                call(wrong)
    with pytest.raises(DataError, match="cross-entropy of one output is always zero"):
        method.gradient(make_net([4, 6, 1]), x, np.ones((5, 1)))


def test_what_cannot_be_saved_or_watched_is_refused_before_training(tmp_path):
    net = make_net([4, 6, 3])
    x, y = make_batch(net, 6)
    for callback, words in (
        (pnn.Checkpoint(tmp_path / "nowhere" / "run.pnn"), "there is no directory"),
        (pnn.Checkpoint(tmp_path), "is a directory"),
        (pnn.EarlyStopping(), "pass validation="),
    ):
        trainer = pnn.Trainer(
            net, EquilibriumPropagation(), optim.SGD(0.1), seed=0, callbacks=[callback]
        )
        with pytest.raises(ConfigError, match=words):
            trainer.fit(x, y, epochs=1)
        assert trainer.epoch == trainer.step == 0


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (None, DataError, "y must be integer labels or an array of targets, got None"),
        (np.array([True, False]), ShapeError, "y.astype"),
        (np.array(["cat", "dog"]), ShapeError, "numbers names"),
        (np.array([[0.0, np.nan, 1.0]] * 2), DataError, "y holds nan at row 0, column 1"),
    ],
)
def test_targets_say_what_is_wrong_with_them(y, error, words):
    net = make_net([4, 6, 3])
    x = np.zeros((2, 4))
    with pytest.raises(error, match=words):
        EquilibriumPropagation().gradient(net, x, y)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1), seed=0)
    with pytest.raises(ShapeError, match="validation x must have shape"):
        trainer.fit(x, [0, 1], epochs=1, validation=(x[:, :2], [0, 1]))
