"""Instruments: methods on them, examinations, and hard cases."""

import gc
import os
import signal
import threading
import time

import numpy as np
import pnncore as pnn
import pytest
from laboratory import THETA, TWIN, W, X, Y, bench, close_all, lab, raises, train
from pnncore.errors import (
    CapabilityError,
    CheckpointError,
    ConfigError,
    HardwareError,
    JournalError,
    ShapeError,
    UnresolvedShot,
)
from pnncore.instruments import Reference, State
from pnncore.layers import Linear
from pnncore.systems import Instrument, Stack


@pytest.fixture(autouse=True)
def closed():
    yield
    close_all()


class TestMethodsForInstruments:
    @pytest.mark.parametrize(
        "method",
        [
            pnn.methods.PhysicsAware(loss="cross-entropy"),
            pnn.methods.ForwardGradient(loss="cross-entropy", directions=4),
            pnn.methods.SPSA(loss="cross-entropy"),
            pnn.methods.SurrogateOptimization(loss="cross-entropy", hidden=16, fits=5),
            pnn.methods.EvolutionStrategy(loss="cross-entropy"),
        ],
        ids=lambda method: type(method).__name__,
    )
    def test_learn_and_go_on_from_files(self, method, tmp_path):
        targets = (X @ W[:, 0] > 0).astype(int)

        def make():
            close_all()
            return bench(twin=TWIN, journal=tmp_path / "a.pnj")

        def trainer_of(system):
            return pnn.Trainer(
                system, method, pnn.optim.Adam(0.05), batch_size=6, seed=1, progress=False
            )

        trainer = trainer_of(make())
        trainer.fit(X, targets, epochs=2)
        trainer.save(tmp_path / "run.pnn")
        trainer.fit(X, targets, epochs=10)
        assert trainer.history["loss"][-1] < trainer.history["loss"][0]
        again = pnn.Trainer.load(tmp_path / "run.pnn", system=make(), progress=False)
        again.fit(X, targets, epochs=10)
        np.testing.assert_array_equal(again.system.params["gain"], trainer.system.params["gain"])
        assert again.system.counts["replayed"] > 0
        assert "results" not in again.system.counts

    def test_forward_gradients_come_from_the_twin(self):
        system = bench(twin=TWIN)
        exact = pnn.methods.PhysicsAware().gradient(system, X, Y)["gain"]
        found = np.mean(
            [
                pnn.methods.ForwardGradient(directions=50).gradient(system, X, Y, step=k)["gain"]
                for k in range(40)
            ],
            axis=0,
        )
        np.testing.assert_allclose(found, exact, atol=0.1 * np.linalg.norm(exact))
        with raises(CapabilityError, "ForwardGradient needs layers"):
            pnn.methods.ForwardGradient().gradient(bench(), X, Y)


class TestExamination:
    def test_finds_what_is_there(self):
        noise = np.random.default_rng(0)

        def fn(x, params):
            z = x @ W * params["gain"][:2]
            y = np.stack([np.clip(z[:, 0], -0.1, 0.1), z[:, 1], np.zeros(len(x))], axis=1)
            return y + 0.001 * noise.normal(size=y.shape)

        x = np.random.default_rng(3).normal(size=(100, 3))
        system = Instrument(fn, 3, 3, params={"gain": np.ones(4)}, seed=0)
        found = system.check(x, repeats=20)
        assert found.dead == (("gain", 2), ("gain", 3))
        assert found.examined == 4
        assert found.dead_outputs == (2,)
        np.testing.assert_allclose(found.noise, 0.001, rtol=0.1)
        assert 0.99 < found.repeatability < 1
        assert "without effect beyond noise: 2 of 4" in str(found)
        np.testing.assert_array_equal(system.params["gain"], 1)

    def test_bad_settings(self):
        with raises(ShapeError, "at least two samples"):
            bench().check(X[:1])

    def test_hours_of_a_planned_run(self):
        system = bench()
        methods = [pnn.methods.SPSA(), pnn.methods.FiniteDifference()]
        run = {"samples": 320, "epochs": 10, "batch_size": 32}
        found = pnn.costs.hours(system, methods, seconds=1.5, **run)
        # A parameter takes 2 passes by differences; all together take 2 by SPSA.
        shots = 2 * system.n_params
        assert found == pytest.approx({"SPSA": 300 / 3600, "FiniteDifference": shots * 150 / 3600})
        assert "results" not in system.counts
        with raises(ConfigError, "seconds"):
            pnn.costs.hours(system, methods, seconds=0.0, **run)
        with raises(ConfigError, "a method to time"):
            pnn.costs.hours(system, ["SPSA"], seconds=1.0, **run)

    def test_hours_by_name_and_within_a_stack(self):
        net = pnn.systems.Stack([pnn.layers.Linear(4, 3), bench(), pnn.layers.Linear(2, 2)], seed=0)
        spsa = {f"{n}": pnn.methods.SPSA(directions=n) for n in (1, 16)}
        run = {"samples": 320, "epochs": 10, "batch_size": 32, "seconds": 3.6}
        local = {"local": pnn.methods.PhysicalLocalLearning()}
        found = pnn.costs.hours(net, spsa | local, **run)
        assert found == pytest.approx({"1": 0.2, "16": 3.2, "local": 0.1})
        with raises(ConfigError, "need names"):
            pnn.costs.hours(net, list(spsa.values()), **run)
        with raises(ConfigError, "must have one instrument"):
            pnn.costs.hours(pnn.systems.Stack([pnn.layers.Linear(4, 3)]), spsa, **run)

    @pytest.mark.parametrize("deviation", [0.0, 0.005, 0.02, 0.1])
    def test_noise_hides_no_parameter_that_acts(self, deviation):
        random = np.random.default_rng(5)
        mixing = random.normal(size=(8, 8))

        def fn(x, params):
            found = np.tanh((x * np.exp(params["phase"])) @ mixing + params["idle"].sum() * 0)
            return found + random.normal(0, deviation, found.shape)

        params = {"phase": np.zeros(8), "idle": np.zeros(8)}
        system = Instrument(fn, 8, 8, params=params, seed=0)
        found = system.check(random.uniform(-1, 1, (64, 8)), repeats=16)
        assert found.dead == tuple(("idle", k) for k in range(8))

    def test_saturation(self):
        system = Instrument(lambda x: np.clip(x[:, :1], -0.5, 0.5), 3, 1)
        x = np.random.default_rng(3).normal(size=(1000, 3))
        wanted = (np.abs(x[:, 0]) >= 0.5).mean()
        assert abs(system.check(x).saturated - wanted) < 0.01


class TestHardCases:
    """Failures at awkward moments, and what must not come of them."""

    def test_late_answers_are_not_used_after_reopening(self, tmp_path):
        release = threading.Event()

        def fn(x):
            if x[0, 0] == 1:
                release.wait(10)
            return 10 * x

        system = Instrument(fn, 1, 1, timeout=0.05, journal=tmp_path / "a.pnj")
        with raises(HardwareError, "timeout"):
            system.predict([[1.0]])
        system.close()
        system.open()
        with raises(HardwareError, "busy"):
            system.predict([[2.0]])
        release.set()
        for value in (2.0, 3.0, 4.0):
            assert system.predict([[value]]) == 10 * value
        assert system.counts["late"] == 1

    def unresolved(self, path):
        """A journal whose last shot has no answer."""
        system = bench(journal=path)
        system.predict(X)
        journal = system.driver.journal
        journal.intend(False, "run", 0, 12, 3, True, X.tobytes(), THETA["gain"].tobytes())
        system.driver.journal = None
        journal.close(True)
        system.driver.state = State.CLOSED

    def test_unresolved_shots_come_first(self, tmp_path):
        for answer in (None, np.full((12, 2), 7.0)):
            path = tmp_path / f"{answer is None}.pnj"
            self.unresolved(path)
            system = bench(journal=path)
            for shoot in (lambda s=system: s.predict(X), lambda s=system: s.check(X)):
                with raises(UnresolvedShot, "shot 1 of .* was begun"):
                    shoot()
            masked = np.ma.array(np.ones((12, 2)), mask=np.eye(12, 2))
            numbers = [
                [["a", "b"]] * 12,
                [["1", "2"]] * 12,
                [[True, False]] * 12,
                [[10**400, 1]] * 12,
            ]
            other = [
                np.ones((12, 2), complex),
                np.ones((12, 2), "m8[s]"),
                np.full((12, 2), np.nan),
                masked,
            ]
            for wrong in (np.ones((12, 3)), 1.0, [[1.0]], object(), *numbers, *other):
                with raises((ConfigError, ShapeError), "y must|y has masked elements"):
                    system.resolve(wrong)
                with raises(UnresolvedShot, "was begun"):
                    system.predict(X)
            system.resolve(answer)
            with raises(ConfigError, "no unresolved shot"):
                system.resolve()
            assert system.counts.get("attempts", 0) == 0
            system.rewind()
            np.testing.assert_array_equal(system.predict(X), lab(X, THETA))
            assert system.counts.get("attempts", 0) == 0
            system.predict(X)
        path = tmp_path / "again.pnj"
        self.unresolved(path)
        bench(journal=path, idempotent=True).predict(X)

    def test_instruments_that_nobody_holds_stay_open(self, tmp_path):
        safe = []
        bench(safe_state=lambda: safe.append(1)).predict(X)
        gc.collect()
        assert safe == []
        close_all()
        assert safe == [1]

    @pytest.mark.parametrize(
        "method",
        [
            pnn.methods.SurrogateOptimization(loss="cross-entropy", hidden=8, fits=2, samples=64),
            pnn.methods.CMAES(loss="cross-entropy"),
            pnn.methods.GeneticAlgorithm(loss="cross-entropy"),
            pnn.methods.CoordinateDescent(loss="cross-entropy"),
            pnn.methods.EvolutionStrategy(loss="cross-entropy", adaptation=0.1),
            pnn.methods.RidgeReadout(),
        ],
        ids=lambda method: type(method).__name__,
    )
    def test_steps_that_break_leave_no_trace(self, method, tmp_path):
        def run(fail):
            calls = []

            def fn(x, params):
                calls.append(1)
                if len(calls) == fail:
                    raise ValueError("lamp off")
                return lab(x, params)

            system = Stack(
                [bench(fn, journal=tmp_path / f"{fail}.pnj"), Linear(2, 2)], dtype="float64", seed=0
            )
            trainer = pnn.Trainer(
                system, method, pnn.optim.Adam(0.02), batch_size=6, seed=1, progress=False
            )
            while trainer.epoch < 3:
                try:
                    trainer.fit(X, Y, epochs=3 - trainer.epoch)
                except HardwareError:
                    assert fail
            arrays = list(system.params.values()) + list(trainer.memory.values())
            return b"".join(array.tobytes() for array in arrays), len(calls)

        calm, calls = run(0)
        for fail in (1, 2, 3, calls - 1):
            found, made = run(fail)
            assert found == calm
            assert made == calls + 1

    def test_safe_does_not_wait_for_a_hung_call(self):
        hang, safe = threading.Event(), []
        system = Instrument(
            lambda x: (hang.wait(20), x)[1],
            1,
            1,
            safe_state=lambda: safe.append(1),
            safe_seconds=0.1,
        )
        thread = threading.Thread(target=lambda: system.predict([[1.0]]), daemon=True)
        thread.start()
        time.sleep(0.05)
        start = time.monotonic()
        assert system.safe()
        system.close()
        assert time.monotonic() - start < 5
        assert len(safe) == 2
        hang.set()
        thread.join()

    def test_ctrl_c_ends_retries(self):
        safe = []

        def fn(x):
            raise ValueError("lamp off")

        system = Instrument(
            fn, 1, 1, idempotent=True, retries=50, backoff=0.2, safe_state=lambda: safe.append(1)
        )
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            system.predict([[1.0]])
        assert safe == [1]
        assert system.counts["exception"] < 10

        def reconnect():
            raise SystemExit(3)

        system = Instrument(
            fn,
            1,
            1,
            idempotent=True,
            retries=1,
            backoff=0.0,
            reconnect=reconnect,
            safe_state=lambda: safe.append(1),
        )
        with pytest.raises(SystemExit):
            system.predict([[1.0]])
        assert safe == [1, 1]

    def test_all_are_brought_to_safety(self):
        safe = []

        def fails():
            safe.append("first")
            raise KeyboardInterrupt

        first = Instrument(lambda x: x, 2, 2, safe_state=fails)
        second = Instrument(lambda x: x, 2, 2, safe_state=lambda: safe.append("second"))
        both = Stack([first, second, Linear(2, 2)], dtype="float64", seed=0)
        method = pnn.methods.RidgeReadout()
        with pytest.warns(RuntimeWarning, match="safe_state failed"):
            pnn.Trainer(both, method, pnn.optim.SGD(0.1), progress=False).fit(X[:, :2], Y, epochs=1)
        assert safe == ["first", "second"]
        first.reset()
        first.driver.policy.__dict__["safe_state"] = None

    def test_shots_that_are_too_large(self, tmp_path):
        n = 200_000
        system = Instrument(lambda x: np.ones((len(x), n)), 1, n, journal=tmp_path / "a.pnj")
        with raises(ConfigError, "use smaller batches"):
            system.predict(np.ones((50, 1)))
        assert system.predict(np.ones((1, 1))).shape == (1, n)

    def test_checkpoints_need_the_journal(self, tmp_path):
        system = bench(journal=tmp_path / "a.pnj")
        trainer = train(system)
        trainer.save(tmp_path / "run.pnn")
        system.close()
        with raises(HardwareError, "the instrument is closed: save before"):
            trainer.save(tmp_path / "run.pnn")
        with raises(CheckpointError, "made with 1 instruments; the system has 0"):
            pnn.Trainer.load(
                tmp_path / "run.pnn", system=Stack([Linear(3, 2, bias=False)], dtype="float64")
            )
        with raises(JournalError, "not the journal that the checkpoint was made with"):
            pnn.Trainer.load(tmp_path / "run.pnn", system=bench(journal=tmp_path / "b.pnj"))
        with raises(JournalError, "the run was made with a journal"):
            pnn.Trainer.load(tmp_path / "run.pnn", system=bench())

    def test_shots_beside_a_run_do_not_get_into_its_way(self, tmp_path):
        class Look(pnn.Callback):
            def on_epoch(self, trainer):
                trainer.system.predict(X[:3])

        save = pnn.Checkpoint(tmp_path / "run.pnn", epochs=2)
        system = bench(journal=tmp_path / "a.pnj")
        wanted = train(system, callbacks=[save, Look()]).system.params["gain"]
        made = system.counts["results"]
        system.close()
        again = bench(journal=tmp_path / "a.pnj")
        again.predict(X[:2])
        again.check(X)
        trainer = pnn.Trainer.load(tmp_path / "run.pnn.prev", system=again, progress=False)
        trainer.fit(X, Y, epochs=4 - trainer.epoch)
        np.testing.assert_array_equal(again.params["gain"], wanted)
        assert again.counts["replayed"] == (made - 4) // 2

    def test_recalibration_is_not_repeated(self, tmp_path):
        state, refits = {"gain": 1.0}, []

        def fn(x, params):
            return state["gain"] * lab(x, params)

        def recalibrate(drift):
            state["gain"] = 1.0
            state["turned"] = state.get("turned", 0) + 1

        def make():
            close_all()
            reference = Reference(
                x=X[0],
                params=THETA,
                every=3,
                tolerance=0.05,
                recalibrate=recalibrate,
                refit=refits.append,
            )
            return bench(fn, journal=tmp_path / "a.pnj", reference=reference)

        class Drift(pnn.Callback):
            def on_step(self, trainer):
                state["gain"] *= 0.97

        system = make()
        wanted = train(system, callbacks=[Drift()])
        turned, drifts, seen = state["turned"], system.drift, list(refits)
        assert turned > 2
        again = make()
        again.rewind()
        refits.clear()
        found = train(again)
        np.testing.assert_array_equal(found.system.params["gain"], wanted.system.params["gain"])
        np.testing.assert_array_equal(again.drift, drifts)
        assert (state["turned"], refits) == (turned, seen)

    def test_inputs_are_read_only(self):
        def fn(x, params):
            x *= 2
            return lab(x, params)

        with raises(HardwareError, "read-only"):
            bench(fn).predict(X)

        def other(x, params):
            params["gain"] += 1
            return lab(x, params)

        with raises(HardwareError, "read-only"):
            bench(other, batch=False).predict(X)

    def test_callables_that_use_their_instrument(self, tmp_path):
        def fn(x, params):
            if do == "close":
                system.close()
            system.safe()
            if do == "raise":
                raise ValueError("too hot")
            return lab(x, params)

        system = bench(fn, journal=tmp_path / "a.pnj")
        do = "raise"
        with raises(HardwareError, "too hot"):
            system.predict(X)
        do = "close"
        with raises(HardwareError, "cannot be closed while it makes a shot"):
            system.predict(X)
        do = "answer"
        np.testing.assert_array_equal(system.predict(X), lab(X, THETA))
        assert system.state is State.SAFE
        assert len(pnn.journal.read(tmp_path / "a.pnj").failures) == 2

    def test_small_ones(self, tmp_path):
        with raises(ConfigError, "cannot be named x or y"):
            Instrument(lab, 3, 2, params={"x": np.ones(3)})
        rows = np.ma.masked_array([[1.0, 2.0]], [[False, True]])
        for answer in (rows, [rows[0]], (rows[0],), [[1.0, np.ma.masked]]):
            masked = Instrument(lambda x, answer=answer: answer, 2, 2)
            with raises(HardwareError, "masked"):
                masked.predict([[1.0, 2.0]])
        half = Instrument(lambda x: -x, 2, 2, output_range=(0, np.inf))
        with raises(HardwareError, "outside of 0..inf"):
            half.predict([[1.0, 2.0]])
        flat = Instrument(lambda x: np.ones((len(x), 2)), 2, 2).check(X[:, :2])
        assert (flat.repeatability, flat.dead_outputs) == (0.0, (0, 1))
        assert flat.saturated <= 1
        system = bench(journal=tmp_path / "a.pnj", dtype="float32")
        system.predict(X.astype("float32"))
        system.close()
        with raises(ConfigError, "open"):
            system.rewind()
        replayed = Instrument.replay(tmp_path / "a.pnj")
        assert replayed.predict(X.astype("float32")).dtype == np.float32


def test_journals_are_exported_as_what_they_are_called(tmp_path):
    system = bench(journal=tmp_path / "shots.pnj")
    for gain in (1.0, 0.1 + 0.2):
        system.params["gain"][...] = gain
        system.predict(X[:3])
    journal = pnn.journal.read(tmp_path / "shots.pnj")
    journal.export(tmp_path / "shots.csv")
    journal.export(tmp_path / "shots.npz")
    arrays = journal.arrays()
    table = np.genfromtxt(tmp_path / "shots.csv", delimiter=",", names=True, deletechars="")
    assert table.dtype.names[:3] == ("x[0]", "x[1]", "x[2]")
    for name, array in arrays.items():
        flat = array.reshape(len(array), -1)
        own = [column for column in table.dtype.names if column.split("[")[0] == name]
        np.testing.assert_array_equal(np.stack([table[column] for column in own], axis=1), flat)
        np.testing.assert_array_equal(np.load(tmp_path / "shots.npz")[name], array)
    for wrong in ("shots", "shots.txt"):
        with raises(ConfigError, "must end in .npz or .csv"):
            journal.export(tmp_path / wrong)
        assert not (tmp_path / wrong).exists()
