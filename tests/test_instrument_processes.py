"""Instruments in processes that are killed, interrupted, or out of disk space."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pnncore as pnn
import pytest
from hanging import double, moody
from pnncore.errors import HardwareError
from pnncore.instruments import State
from pnncore.systems import Instrument

TORTURE = os.environ.get("PNNCORE_TORTURE") == "1"

# A run that goes on wherever it was killed. What the instrument was made to do is in a log of its
# own.
RUN = """
    import os, sys, time
    from pathlib import Path
    import numpy as np, pnncore as pnn
    from pnncore.errors import UnresolvedShot

    place, idempotent = Path(sys.argv[1]), sys.argv[2] == "idempotent"
    log = os.open(place / "actuations", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    weights = np.random.default_rng(0).normal(size=(3, 2))

    def lab(x, params):
        y = np.tanh((x * params["gain"]) @ weights)
        os.write(log, (params["gain"].tobytes() + x.tobytes()).hex().encode() + b"\\n")
        time.sleep(0.001)
        return y

    x = np.random.default_rng(1).normal(size=(12, 3))
    labels = np.random.default_rng(2).integers(0, 2, 12)
    system = pnn.systems.Instrument(
        lab, 3, 2, params={"gain": np.array([1.0, 0.5, -0.5])}, seed=0, journal=place / "shots.pnj",
        idempotent=idempotent,
        reference=pnn.instruments.Reference(x=x[0], params={"gain": np.ones(3)}, every=7),
    )
    saved = place / "run.pnn"
    save = pnn.Checkpoint(saved, epochs=3)
    if saved.exists():
        trainer = pnn.Trainer.load(saved, system=system, callbacks=[save], progress=False)
    else:
        system.rewind()
        method = pnn.methods.SPSA(loss="cross-entropy")
        trainer = pnn.Trainer(
            system, method, pnn.optim.Adam(0.05),
            batch_size=4, seed=3, callbacks=[save], progress=False
        )
    print("ready", flush=True)
    while trainer.epoch < 10:
        try:
            trainer.fit(x, labels, epochs=10 - trainer.epoch, validation=(x, labels))
        except UnresolvedShot:
            # Whether it was made, the log of the laboratory tells.
            made = (place / "actuations").read_text().count("\\n")
            held = pnn.journal.read(place / "shots.pnj")
            last = held[-1]
            print("unresolved", flush=True)
            if made > sum(shot.y is not None for shot in held):
                system.resolve(np.tanh((last.x * last.params["gain"]) @ weights))
            else:
                system.resolve()
    for name, array in trainer.system.params.items():
        np.save(place / f"{name}.npy", array)
    told = [trainer.history[key] for key in ("loss", "validation", "passes")]
    np.save(place / "history.npy", np.stack(told))
    (place / "finished").touch()
    system.close()
"""


def start(place, *arguments, script=RUN):
    file = place / "script.py"
    file.write_text(textwrap.dedent(script))
    command = [sys.executable, file, place, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(child):
    out, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    return out


def results(place):
    return {name: (place / name).read_bytes() for name in ("gain.npy", "history.npy")}


@pytest.mark.parametrize("kind", ["idempotent", "once"])
def test_a_run_that_is_killed_ends_like_one_that_is_not(tmp_path, kind):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for place in (calm, killed):
        place.mkdir()
    finish(start(calm, kind))
    draw = random.Random(7)
    kills = unresolved = 0
    wanted = 150 if TORTURE else 5
    while kills < wanted or not (killed / "finished").exists():
        if (killed / "finished").exists():
            check(calm, killed, kind, kills)
            shutil.rmtree(killed)
            killed.mkdir()
        child = start(killed, kind)
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        try:
            child.wait(draw.random() * 0.1)
        except subprocess.TimeoutExpired:
            child.kill()
            kills += 1
        out, errors = child.communicate(timeout=60)
        assert child.returncode in (0, -signal.SIGKILL), errors
        unresolved += out.count("unresolved")
    check(calm, killed, kind, kills)
    assert unresolved == 0 or kind == "once"
    assert unresolved > 0 or kind == "idempotent" or kills < 20


def check(calm, killed, kind, kills):
    assert results(killed) == results(calm)
    held = pnn.journal.read(killed / "shots.pnj")
    undisturbed = pnn.journal.read(calm / "shots.pnj")
    answered, wanted = list(held.answered()), list(undisturbed.answered())
    assert [(s.purpose, s.x.tobytes(), s.y.tobytes()) for s in answered] == [
        (s.purpose, s.x.tobytes(), s.y.tobytes()) for s in wanted
    ]
    made = (killed / "actuations").read_text().splitlines()
    asked = (calm / "actuations").read_text().splitlines()
    # In order, and none twice, but for those in flight.
    assert list(dict.fromkeys(made)) == list(dict.fromkeys(asked))
    if kind == "once":
        assert made == asked
    else:
        assert len(made) <= len(asked) + kills


def test_ctrl_c_ends_after_the_shot_and_goes_on_where_it_was(tmp_path):
    calls, safe = [], []

    def lab(x, params):
        calls.append(params["gain"].copy())
        time.sleep(0.002)
        return np.tanh(x[:2] * params["gain"])

    x = np.random.default_rng(1).normal(size=(12, 3))
    labels = np.random.default_rng(2).integers(0, 2, 12)

    def run(journal, interrupts):
        calls.clear()
        system = Instrument(
            lab,
            3,
            2,
            params={"gain": np.ones(2)},
            batch=False,
            journal=journal,
            safe_state=lambda: safe.append(1),
        )
        trainer = pnn.Trainer(
            system,
            pnn.methods.SPSA(loss="cross-entropy"),
            pnn.optim.SGD(0.1),
            batch_size=6,
            seed=0,
            progress=False,
        )
        for k in range(interrupts):
            timer = threading.Timer(0.011 + 0.003 * k, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(x, labels, epochs=50)
            timer.join()
            assert system.state is State.SAFE
        trainer.fit(x, labels, epochs=6 - trainer.epoch)
        system.close()
        return system.params["gain"].copy(), len(calls)

    calm, shots = run(None, 0)
    assert len(safe) == 1
    for journal in (None, tmp_path / "a.pnj"):
        safe.clear()
        found, made = run(journal, 5)
        np.testing.assert_array_equal(found, calm)
        assert len(safe) == 6
        # With a journal no shot is made twice, although steps were broken off.
        assert made == shots if journal else made >= shots


SAFE = """
    import os, sys, time
    import numpy as np, pnncore as pnn
    place, way = sys.argv[1], sys.argv[2]
    training = []

    def lab(x, params):
        if training:
            # A shot is under way when the signal comes.
            print("ready", flush=True)
            time.sleep(0.5)
        return x[:, :2] * params["gain"]

    system = pnn.systems.Instrument(
        lab, 3, 2, params={"gain": np.ones(2)},
        safe_state=lambda: open(place + "/safe", "a").write("x"), journal=place + "/a.pnj",
    )
    trainer = pnn.Trainer(system, pnn.methods.SPSA(), pnn.optim.SGD(0.01), progress=False)
    x, y = np.ones((8, 3)), np.zeros(8, int)
    system.predict(x)
    if way == "exit":
        sys.exit(0)
    if way == "error":
        raise ValueError("somewhere else")
    if way == "end":
        raise SystemExit(0)
    training.append(True)
    trainer.fit(x, y, epochs=10**6)
"""


@pytest.mark.parametrize(
    ("way", "code"),
    [("exit", 0), ("error", 1), ("end", 0), ("SIGTERM", 143), ("SIGINT", -signal.SIGINT)],
)
def test_every_way_out_is_safe(tmp_path, way, code):
    child = start(tmp_path, way, script=SAFE)
    if way.startswith("SIG"):
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        time.sleep(0.05)
        child.send_signal(getattr(signal, way))
    child.communicate(timeout=60)
    assert child.returncode == code
    assert (tmp_path / "safe").read_text() == "x"
    held = pnn.journal.read(tmp_path / "a.pnj")
    assert held.torn is None
    # SIGTERM does not wait for the shot.
    before = "unknown" if way == "SIGTERM" else "idle"
    assert held.states[-2:] == [(before, "safe"), ("safe", "closed")]


FULL = """
    import json, resource, sys
    import numpy as np, pnncore as pnn
    place, full = sys.argv[1], int(sys.argv[2])
    safe, calls = [], []

    def lab(x, params):
        calls.append(1)
        return x[:, :2] * params["gain"]

    system = pnn.systems.Instrument(
        lab, 3, 2, params={"gain": np.ones(2)}, seed=0,
        journal=place + "/a.pnj", safe_state=lambda: safe.append(1)
    )
    trainer = pnn.Trainer(
        system, pnn.methods.SPSA(loss="cross-entropy"), pnn.optim.SGD(0.1),
        batch_size=4, seed=0, progress=False
    )
    x, y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
    failures = 0
    if full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    while trainer.epoch < 3:
        try:
            trainer.fit(x, y, epochs=3 - trainer.epoch)
        except OSError as error:
            assert error.filename == place + "/a.pnj" and error.errno, repr(error)
            assert system.state is pnn.instruments.State.SAFE and safe
            failures += 1
            most = resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    system.close()
    held = pnn.journal.read(place + "/a.pnj")
    answered = len(list(held.answered()))
    print(json.dumps([system.params["gain"].tolist(), failures, len(calls), answered]))
"""


def test_a_full_disk_loses_nothing(tmp_path):
    def run(full):
        place = tmp_path / str(full)
        place.mkdir()
        return json.loads(finish(start(place, str(full), script=FULL)))

    calm, failures, calls, answered = run(0)
    assert (failures, calls) == (0, answered)
    size = (tmp_path / "0" / "a.pnj").stat().st_size
    step = 37 if TORTURE else 900
    for full in range(700, size - 700, step):
        found, failures, made, kept = run(full)
        assert (found, failures) == (calm, 1), full
        # What was measured and could not be written is written later: nothing is measured twice.
        assert (made, kept) == (calls, answered), full


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes system calls fail")
def test_a_flush_that_fails_is_told_and_not_tried_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import numpy as np, pnncore as pnn
            safe = []
            system = pnn.systems.Instrument(
                lambda x: 2 * x, 2, 2,
                journal=sys.argv[1], durability="shot", safe_state=lambda: safe.append(1)
            )
            for k in range(2):
                try:
                    system.predict(np.ones((1, 2)))
                except OSError as error:
                    print(error.errno, error.filename == sys.argv[1], system.state.value, len(safe))
            """
        )
    )
    inject = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO:when=2",
    ]
    command = [*inject, sys.executable, script, tmp_path / "a.pnj"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "ptrace" in found.stderr.lower():
        pytest.skip("strace is not allowed here")
    assert found.stdout.splitlines() == ["5 True safe 1", "5 True safe 1"], found.stderr


class TestIsolation:
    def test_answers(self, tmp_path):
        with Instrument(
            double, 2, 2, isolation="process", timeout=20, journal=tmp_path / "a.pnj"
        ) as system:
            np.testing.assert_array_equal(system.predict([[1.0, 2.0]]), [[2.0, 4.0]])
            np.testing.assert_array_equal(system.predict([[3.0, 2.0]]), [[6.0, 4.0]])
        assert len(pnn.journal.read(tmp_path / "a.pnj")) == 2

    @pytest.mark.parametrize(
        ("value", "reason", "words"),
        [
            (1.0, "timeout", "its process was killed"),
            (2.0, "disconnect", "its process ended with code 3"),
            (3.0, "exception", "ValueError: lamp off"),
            (4.0, "exception", "cannot be pickled"),
        ],
    )
    def test_fails_as_documented_and_goes_on(self, value, reason, words):
        with Instrument(moody, 2, 2, isolation="process", timeout=0.3) as system:
            with pytest.raises(HardwareError, match=words):
                system.predict([[value, 0.0]])
            assert system.counts[reason] == 1
            np.testing.assert_array_equal(system.predict([[0.0, 5.0]]), [[0.0, 10.0]])


RESCUE = """
    import os, resource, sys
    import numpy as np, pnncore as pnn
    path, full = sys.argv[1] + "/a.pnj", int(sys.argv[2])
    make = lambda: pnn.systems.Instrument(lambda x: 2 * x, 2, 2, journal=path)
    system = make()
    for k in range(5):
        system.predict(np.full((1, 2), float(k)))
    system.close()
    whole = os.path.getsize(path)
    with open(path, "ab") as file:
        file.write(b"PnnF" + bytes(5000))
    before = open(path, "rb").read()
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    for _ in range(2):
        try:
            make()
            sys.exit("the end was set aside on a full disk")
        except OSError as error:
            assert error.filename == path and error.errno, repr(error)
        assert open(path, "rb").read() == before
        assert os.listdir(sys.argv[1]) == ["a.pnj"], os.listdir(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    import warnings
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        system = make()
    system.predict(np.ones((1, 2)))
    system.close()
    assert len(pnn.journal.read(path)) == 6
    assert os.path.getsize(f"{path}.torn-{whole}") == 5004
"""


def test_a_torn_end_on_a_full_disk_stays_where_it_is(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(RESCUE))
    for full in (0, 1, 2500, 5003):
        place = tmp_path / str(full)
        place.mkdir()
        found = subprocess.run(
            [sys.executable, script, place, str(full)], capture_output=True, text=True, timeout=60
        )
        assert found.returncode == 0, found.stderr
