"""Instruments: what is promised of shots, failures, journals and safe states."""

import os
import random
import threading
import time
import warnings

import numpy as np
import pnncore as pnn
import pytest
from laboratory import THETA, TWIN, W, X, Y, bench, close_all, lab, raises, train
from pnncore.errors import (
    BudgetError,
    CapabilityError,
    ConfigError,
    DriftWarning,
    HardwareError,
    JournalError,
    ShapeError,
)
from pnncore.instruments import Budget, Reference, State, _guard
from pnncore.layers import Linear
from pnncore.systems import Instrument, Stack

TORTURE = os.environ.get("PNNCORE_TORTURE") == "1"


@pytest.fixture(autouse=True)
def closed():
    yield
    close_all()


class TestAsSystem:
    def test_answers_are_those_of_the_callable(self):
        for batch in (True, False):
            one = bench(batch=batch)
            # NumPy sums a row and a batch in orders of its own.
            np.testing.assert_allclose(one.predict(X), lab(X, THETA), rtol=1e-14)
            assert one.counts["results"] == (1 if batch else 12)
            assert one.counts["samples"] == 12
            one.params["gain"][...] = 2.0
            np.testing.assert_allclose(
                one.predict(X), lab(X, {"gain": np.full(3, 2.0)}), rtol=1e-14
            )

    def test_without_parameters_and_in_float32(self):
        seen = []

        def fn(x):
            seen.append(x.dtype)
            return x[:, :2].astype(np.float64)

        for dtype in ("float32", "float64"):
            system = Instrument(fn, 3, 2, dtype=dtype)
            x = X.astype(dtype)
            np.testing.assert_array_equal(system.predict(x), x[:, :2])
            assert seen[-1] == dtype
            assert list(system.params) == []

    def test_needs_a_twin_for_derivatives(self):
        system = bench()
        assert "SPSA" in system.methods()
        assert "PhysicsAware" not in system.methods()
        with raises(
            CapabilityError, "PhysicsAware needs layers that signals pass through, with twins"
        ):
            train(system, method=pnn.methods.PhysicsAware())
        system.twin = TWIN
        assert "PhysicsAware" in system.methods()
        train(system, method=pnn.methods.PhysicsAware())

    def test_physics_aware_training_is_backprop_where_the_twin_is_exact(self):
        def stack(middle, **settings):
            return Stack([Linear(3, 3), middle, Linear(2, 2)], dtype="float64", seed=5, **settings)

        with_lab = stack(bench(twin=TWIN))
        assert list(with_lab.params) == ["W1", "b1", "gain2", "W3", "b3"]
        found = pnn.methods.PhysicsAware().gradient(with_lab, X, Y)
        same = pnn.methods.Backprop().gradient(with_lab, X, Y)
        for name, array in with_lab.params.items():
            flat = array.reshape(-1)
            for k in range(flat.size):

                def loss(h, flat=flat, k=k):
                    before = flat[k]
                    flat[k] += h
                    out = with_lab.predict(X)
                    flat[k] = before
                    return 0.5 * ((out - np.eye(2)[Y]) ** 2).sum(axis=1).mean()

                slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
                assert abs(found[name].reshape(-1)[k] - slope) < 1e-8
            np.testing.assert_allclose(found[name], same[name], rtol=0, atol=1e-12)

    def test_a_first_layer_needs_no_twin_where_nothing_learns_before_it(self):
        front = Instrument(lambda x: np.abs(x @ W), 3, 2)
        network = Stack([front, Linear(2, 2)], dtype="float64", seed=0)
        assert "Backprop" in network.methods()
        before = network.params["W2"].copy()
        train(network, method=pnn.methods.PhysicsAware())
        assert not np.array_equal(network.params["W2"], before)

    def test_local_learning_asks_for_no_twin(self):
        middle = Instrument(lambda x: np.abs(x @ W), 3, 2)
        network = Stack([Linear(3, 3), middle, Linear(2, 2)], dtype="float64", seed=0)
        assert "PhysicalLocalLearning" in network.methods()
        assert "Backprop" not in network.methods()
        before = network.params["W1"].copy()
        train(network, method=pnn.methods.PhysicalLocalLearning())
        assert not np.array_equal(network.params["W1"], before)

    def test_limits_and_levels_of_parameters(self):
        seen = []

        def fn(x, params):
            seen.append(params["gain"].copy())
            return lab(x, params)

        device = pnn.devices.Device(lower=-1.0, upper=1.0, levels=9)
        train(
            bench(fn, device=device),
            method=pnn.methods.FiniteDifference(loss="cross-entropy"),
            steps=8,
        )
        assert all(np.abs(gain).max() <= 1 for gain in seen)
        system = bench(fn, device=device)
        train(system)
        np.testing.assert_allclose(
            system.params["gain"] * 4, np.round(system.params["gain"] * 4), atol=1e-12
        )

    def test_layers_that_do_not_fit(self):
        with raises(ShapeError, "takes 3 inputs, but the layer before has 4 outputs"):
            Stack([Linear(3, 4), bench()])
        with raises(CapabilityError, "cannot be rebuilt from a file"):
            bench().to_config()


class TestBadSettings:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"timeout": 0}, "timeout must be a positive number"),
            ({"timeout": 1.0, "isolation": "none"}, 'needs isolation="thread"'),
            ({"isolation": "cloud"}, "isolation must be one of"),
            ({"durability": "forever"}, "durability must be one of"),
            ({"retries": -1}, "retries must be an integer, at least 0"),
            ({"backoff": -1}, "backoff must be at least 0"),
            ({"output_range": (1, 0)}, "lower < upper"),
            ({"safe_state": 3}, "safe_state must be callable"),
            ({"budget": 3}, "budget must be a pnncore Budget"),
            ({"twin": 3}, "twin must be a pnncore.twins object"),
            ({"twin": pnn.layers.Tanh()}, "does not say how many inputs"),
            ({"twin": pnn.layers.SecondHarmonic(3, 4)}, "the twin SecondHarmonic"),
            ({"params": {"gain": 1.0}}, "are scalars"),
            ({"reference": Reference(x=[1.0])}, "must have shape"),
            ({"reference": Reference(x=[1.0] * 3)}, "params of the reference"),
            ({"isolation": "process", "fn": lambda x, p: x}, "can be pickled"),
        ],
    )
    def test_refused(self, settings, words):
        with raises((ConfigError, ShapeError), words):
            bench(**settings)

    def test_budget(self):
        with raises(ConfigError, "give shots, hours"):
            Budget()
        with raises(ConfigError, "positive"):
            Budget(shots=0)


class Faults:
    """A callable that fails as a script says, shot by shot; a model of the same says what must
    come of it."""

    KINDS = (
        "ok",
        "raise",
        "disconnect",
        "nan",
        "infinite",
        "shape",
        "dtype",
        "range",
        "stale",
        "hang",
    )

    def __init__(self, script):
        self.script = list(script)
        self.actuations = 0
        self.late = threading.Event()

    def __call__(self, x, params):
        kind = self.script[self.actuations] if self.actuations < len(self.script) else "ok"
        self.actuations += 1
        y = lab(x, params)
        if kind == "raise":
            raise ValueError("lamp off")
        if kind == "disconnect":
            raise ConnectionResetError("cable")
        if kind == "hang":
            time.sleep(0.12)
        if kind in ("nan", "infinite"):
            y[0, 0] = np.nan if kind == "nan" else np.inf
        if kind == "shape":
            y = y[:, :1]
        if kind == "dtype":
            y = y.astype(complex)
        if kind == "range":
            y = y + 100
        return y, (x.sum() + 1 if kind == "stale" else x.sum())


def predicted(script, retries, idempotent, shots):
    """Return what happens to each shot, the counts, and how often the instrument is actuated."""
    names = {"raise": "exception", "hang": "timeout"}
    counts, ends, at = {}, [], 0
    for _ in range(shots):
        attempt = 0
        while True:
            kind = script[at] if at < len(script) else "ok"
            at += 1
            if kind == "ok":
                ends.append("ok")
                break
            name = names.get(kind, kind)
            counts[name] = counts.get(name, 0) + 1
            if kind == "hang":
                # The call after it waits for the one that hangs, and throws its answer away.
                counts["late"] = counts.get("late", 0) + 1
            if not idempotent or attempt == retries:
                ends.append("failed")
                break
            attempt += 1
    return ends, counts, at


class TestFailures:
    @pytest.mark.parametrize("seed", range(1000 if TORTURE else 12))
    def test_chaos(self, seed, tmp_path):
        draw = random.Random(seed)
        idempotent, retries = draw.random() < 0.7, draw.randrange(3)
        kinds = Faults.KINDS if seed % 4 == 0 else Faults.KINDS[:-1]
        script = [draw.choice(kinds) if draw.random() < 0.4 else "ok" for _ in range(20)]
        shots = 10
        faults = Faults(script)
        safe = []
        path = tmp_path / "shots.pnj"
        system = bench(
            faults,
            retries=retries if idempotent else 0,
            backoff=0.0,
            idempotent=idempotent,
            output_range=(-1.1, 1.1),
            echo=np.sum,
            timeout=0.1 if "hang" in script else None,
            safe_state=lambda: safe.append(1),
            journal=path,
        )
        ends = []
        for k in range(shots):
            x = X[k : k + 1]
            try:
                np.testing.assert_array_equal(system.predict(x), lab(x, THETA))
                ends.append("ok")
            except HardwareError:
                ends.append("failed")
                assert system.state is State.SAFE
        faults.script = []
        system.predict(X[:1])
        system.close()
        wanted, counts, actuations = predicted(script, retries, idempotent, shots)
        assert ends == wanted
        assert faults.actuations == actuations + 1
        own = {k: v for k, v in system.counts.items() if k in {*counts, "late"}}
        assert own == counts
        assert len(safe) == wanted.count("failed") + 1
        held = pnn.journal.read(path)
        assert len(held) == shots + 1
        assert ["ok" if shot.y is not None else "failed" for shot in held[:-1]] == wanted
        assert sum(shot.attempts for shot in held) == actuations + 1
        reasons = [reason for _, _, reason, _ in held.failures]
        assert {reason: reasons.count(reason) for reason in set(reasons)} == counts

    def test_a_hung_call_is_left_behind_and_its_answer_thrown_away(self, tmp_path):
        release = threading.Event()
        calls = []

        def fn(x, params):
            calls.append(x.copy())
            if len(calls) == 1:
                release.wait(10)
            return lab(x, params)

        system = bench(fn, timeout=0.05, journal=tmp_path / "a.pnj")
        with raises(HardwareError, r"timeout: no answer within 0.05 s"):
            system.predict(X[:1])
        with raises(HardwareError, "busy: the call before has not returned yet"):
            system.predict(X[1:2])
        assert len(calls) == 1
        release.set()
        np.testing.assert_array_equal(system.predict(X[2:3]), lab(X[2:3], THETA))
        system.close()
        reasons = [
            (shot, reason) for shot, _, reason, _ in pnn.journal.read(tmp_path / "a.pnj").failures
        ]
        assert reasons == [(0, "timeout"), (1, "busy"), (0, "late")]

    def test_safe_state_has_its_own_deadline(self):
        system = bench(
            Faults(["raise"]), echo=np.sum, safe_state=lambda: time.sleep(5), safe_seconds=0.05
        )
        with (
            pytest.warns(RuntimeWarning, match="did not return within"),
            raises(HardwareError, "lamp off"),
        ):
            system.predict(X)
        assert system.state is State.FAILED
        with raises(HardwareError, r"look at the instrument, then call reset\(\)"):
            system.predict(X)
        # Neither closing nor a safe state that works now makes up for a look.
        system.driver.policy.__dict__["safe_state"] = None
        assert system.safe()
        system.close()
        system.open()
        with raises(HardwareError, r"call reset\(\)"):
            system.predict(X)
        system.reset()
        np.testing.assert_array_equal(system.predict(X), lab(X, THETA))

    def test_reconnects_before_retries(self):
        order = []
        faults = Faults(["disconnect", "ok"])
        system = bench(
            faults,
            echo=np.sum,
            idempotent=True,
            retries=1,
            backoff=0.0,
            reconnect=lambda: order.append(faults.actuations),
        )
        system.predict(X)
        assert order == [1]
        assert (system.counts["disconnect"], system.counts["retries"]) == (1, 1)

    def test_budgets(self, tmp_path):
        system = bench(budget=Budget(shots=3), journal=tmp_path / "a.pnj")
        for _ in range(3):
            system.predict(X)
        with raises(BudgetError, r"shots=3.* is spent: 3 shots"):
            system.predict(X)
        system.close()
        # The journal remembers.
        again = bench(budget=Budget(shots=4), journal=tmp_path / "a.pnj")
        again.predict(X)
        with pytest.raises(BudgetError):
            again.predict(X)
        hours = bench(lambda x, p: time.sleep(0.01) or lab(x, p), budget=Budget(hours=0.015 / 3600))
        hours.predict(X)
        hours.predict(X)
        with pytest.raises(BudgetError):
            hours.predict(X)

    def test_other_processes_are_refused(self):
        system = bench()
        pid = os.fork()
        if pid == 0:
            try:
                system.predict(X)
            except HardwareError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

    def test_closed(self, tmp_path):
        with bench(journal=tmp_path / "a.pnj") as system:
            system.predict(X)
        assert system.state is State.CLOSED
        system.close()
        with raises(HardwareError, r"closed; open\(\)"):
            system.predict(X)
        system.open()
        system.predict(X)
        assert len(pnn.journal.read(tmp_path / "a.pnj")) == 2


class TestDrift:
    def test_is_seen_and_answered(self, tmp_path):
        gain = [1.0]

        def fn(x, params):
            return gain[0] * lab(x, params)

        calls = []

        def recalibrate(drift):
            calls.append(drift)
            gain[0] = 1.0

        for hook in (None, recalibrate):
            gain[0] = 1.0
            reference = Reference(x=X[0], params=THETA, every=5, tolerance=0.02, recalibrate=hook)
            system = bench(fn, reference=reference)
            with warnings.catch_warnings(), _guard.retraced([system.driver]):
                warnings.simplefilter("ignore", DriftWarning)
                for _ in range(20):
                    system.predict(X)
                    gain[0] *= 0.99
            drifts = system.drift[:, 1]
            if hook is None:
                np.testing.assert_allclose(drifts, 1 - 0.99 ** np.array([5, 10, 15]), rtol=1e-9)
                assert system.counts["drifts"] == 3
            else:
                assert len(calls) == 3
                assert max(drifts) < 0.06
        system = bench(fn, reference=Reference(x=X[0], params=THETA, every=1, tolerance=1e-3))
        with _guard.retraced([system.driver]):
            system.predict(X)
            gain[0] = 0.9
            with pytest.warns(DriftWarning, match="is off by"):
                system.predict(X)
        # Looking at it beside a run makes no reference shots.
        before = len(system.drift)
        system.predict(X)
        assert len(system.drift) == before


class TestJournal:
    def test_holds_everything(self, tmp_path):
        path = tmp_path / "shots.pnj"
        system = bench(journal=path, batch=False)
        system.predict(X[:4])
        system.params["gain"][...] = 3.0
        system.predict(X[4:5])
        held = pnn.journal.read(path)
        assert len(held) == 5
        assert held.torn is None
        np.testing.assert_array_equal(held[2].x, X[2:3])
        np.testing.assert_array_equal(held[2].params["gain"], THETA["gain"])
        np.testing.assert_array_equal(held[-1].params["gain"], np.full(3, 3.0))
        np.testing.assert_array_equal(held[-1].y, lab(X[4:5], {"gain": np.full(3, 3.0)}))
        arrays = held.arrays()
        assert {name: array.shape for name, array in arrays.items()} == {
            "x": (5, 3),
            "y": (5, 2),
            "gain": (5, 3),
        }
        held.export(tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as kept:
            np.testing.assert_array_equal(kept["y"], arrays["y"])
        assert "5 shots" in repr(held)

    def test_answers_without_the_hardware(self, tmp_path):
        path = tmp_path / "shots.pnj"
        noise = np.random.default_rng(0)
        first = bench(lambda x, p: lab(x, p) + 0.01 * noise.normal(size=(len(x), 2)), journal=path)
        trainer = train(first)
        first.close()
        replayed = Instrument.replay(path, params=THETA, seed=0)
        again = train(replayed)
        np.testing.assert_array_equal(again.system.params["gain"], trainer.system.params["gain"])
        with raises(HardwareError, "holds no shot with these inputs"):
            replayed.predict(X + 1)

    def test_another_instrument_or_run_is_refused(self, tmp_path):
        path = tmp_path / "shots.pnj"
        bench(journal=path).predict(X)
        with raises(JournalError, "appends to it"):
            bench(journal=path)
        close_all()
        one = bench(journal=path)
        with raises(JournalError, "appends to it"):
            bench(journal=path)
        one.close()
        (tmp_path / "other").write_bytes(path.read_bytes())
        with raises(JournalError, "holds shots of another instrument"):
            Instrument(lambda x: x, 3, 3, journal=tmp_path / "other")
        run = bench(journal=tmp_path / "other")
        train(run)
        run.params["gain"][...] = 2.0
        run.rewind()
        with raises(JournalError, "shot 1 of .* was made with other inputs"):
            train(run)
        (tmp_path / "text").write_text("not a journal, but long enough")
        with raises(JournalError, "it is no pnncore journal"):
            pnn.journal.read(tmp_path / "text")
        with pytest.raises(FileNotFoundError):
            pnn.journal.read(tmp_path / "nowhere")
