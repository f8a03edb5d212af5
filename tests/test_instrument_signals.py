"""Signals that end the process lead through the safe state, wherever the run is; other handlers
are left alone."""

import faulthandler
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pnncore as pnn
import pytest
from laboratory import THETA, X, Y, bench, close_all, lab, train
from pnncore._interrupt import Interrupt
from pnncore.errors import HardwareError
from pnncore.instruments import State, _guard, _signals

TORTURE = os.environ.get("PNNCORE_TORTURE") == "1"

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="no signals of this kind on this system"
)

# One process that has imported everything forks one for every case, and sends it signals when it is
# ready.
CASES = """
    import json, os, signal, sys, threading, time
    import numpy as np, pnncore as pnn

    X, LABELS = np.ones((8, 3)), np.zeros(8, int)

    class Raised(Exception):
        pass

    def raises(number, frame):
        raise Raised

    def run(way, number, ready, safe):
        def lab(x, p):
            os.write(ready, b"r")
            time.sleep(1000 if way == "hung" else 0.002)
            return x[:, :2] * p["gain"]

        def make_safe():
            if way == "slow":
                os.write(ready, b"r")
                time.sleep(0.1)
            os.write(safe, b"s")

        if number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)):
            # Python ignores them, unless a program wants to end by them.
            signal.signal(number, signal.SIG_DFL)
        gain = {"gain": np.ones(2)}
        system = pnn.systems.Instrument(
            lab, 3, 2, params=gain, safe_state=make_safe, safe_seconds=1
        )
        trainer = pnn.Trainer(system, pnn.methods.SPSA(), pnn.optim.SGD(0.01), progress=False)
        fit = lambda: trainer.fit(X, LABELS, epochs=10**6)
        if way == "raises":
            signal.signal(number, raises)
        if way in ("fit", "raises"):
            fit()
        elif way == "slow":
            system.predict(X)
            system.close()
            time.sleep(1000)
        elif way == "predict":
            while True:
                system.predict(X)
        elif way == "block":
            with system:
                os.write(ready, b"r")
                time.sleep(1000)
        elif way == "idle":
            system.predict(X)
            time.sleep(1000)
        else:
            thread = threading.Thread(target=fit, daemon=way == "daemon")
            thread.start()
            thread.join()

    def case(way, number):
        (ready, r), (safe, s) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            run(way, number, r, s)
            sys.exit(0)
        os.close(r), os.close(s)
        os.read(ready, 1)
        time.sleep(0.01)
        until, status = time.monotonic() + 20, 0
        os.kill(pid, number)
        if way == "slow" or (way == "thread" and number == signal.SIGINT):
            # In the middle of the safe state; and the end of a process waits for its threads until
            # the next Ctrl-C.
            time.sleep(0.03)
            os.kill(pid, number)
        if way == "hung":
            time.sleep(1.5)
            os.kill(pid, number)
        while time.monotonic() < until:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                break
            time.sleep(0.002)
        else:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        os.set_blocking(safe, False)
        return [way, number, os.waitstatus_to_exitcode(status), len(os.read(safe, 100) or b"")]

    print(json.dumps([case(*given) for given in json.loads(sys.argv[1])]))
"""


def outcomes(cases):
    command = [sys.executable, "-c", textwrap.dedent(CASES), json.dumps(cases)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout), found.stderr


def test_every_signal_leads_to_the_safe_state():
    numbers = _signals.ending()
    assert {signal.SIGHUP, signal.SIGTERM, signal.SIGALRM, signal.SIGPIPE, signal.SIGINT} <= set(
        numbers
    )
    ways = ["fit", "predict", "block", "idle", "thread", "daemon", "raises"]
    all_ways = [[way, number] for way in ways for number in numbers]
    named = [number for number in numbers if number < getattr(signal, "SIGRTMIN", 99)]
    few = [["fit", n] for n in [*named, max(numbers)]] + [
        [w, n] for w in ways[1:] for n in named[:: len(named) // 3]
    ]
    extra = [
        ["hung", signal.SIGTERM],
        ["slow", signal.SIGTERM],
        ["slow", signal.SIGHUP],
        ["thread", signal.SIGTERM],
    ]
    found, errors = outcomes([*(all_ways if TORTURE else few), *extra])
    wrong = [case for case in found if case[3] < 1]
    assert not wrong, (wrong, errors)
    for way, number, code, safe in found:
        assert safe >= 1, f"{way}: no safe state after signal {number} (code {code}): {errors}"
        if way == "raises":
            assert code == 1, (way, number, code)
        elif number == signal.SIGINT:
            assert code in (-signal.SIGINT, 0, 1, 128 + number), (way, number, code)
        else:
            assert code == 128 + number, (way, number, code, errors)


@pytest.fixture
def calm():
    """All handlers, before and after."""
    close_all()
    numbers = sorted(signal.valid_signals())
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    close_all()
    assert {number: signal.getsignal(number) for number in numbers} == before


def handlers():
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def test_handlers_come_and_go(calm):
    before = handlers()
    system = bench(safe_state=lambda: None)
    assert signal.getsignal(signal.SIGTERM) == _guard._end
    train(system)
    assert system.state is State.SAFE
    assert handlers() == before
    system.predict(X)
    assert signal.getsignal(signal.SIGHUP) == _guard._end
    system.safe()
    assert handlers() == before
    with system:
        system.predict(X)
        assert signal.getsignal(signal.SIGUSR1) == _guard._end
    assert handlers() == before
    # There is nothing to be brought to safety.
    other = bench()
    other.predict(X)
    assert handlers() == before


def test_a_block_that_cannot_begin_leaves_nothing(calm, tmp_path):
    before = handlers()
    first = bench(journal=tmp_path / "a.pnj")
    second = bench(journal=tmp_path / "b.pnj", safe_state=lambda: None)
    second.close()
    os.link(tmp_path / "a.pnj", tmp_path / "c.pnj")
    second.driver.path = str(tmp_path / "c.pnj")
    with pytest.raises(pnn.errors.JournalError, match="appends to it"), second:
        pass
    assert handlers() == before
    assert _guard._runs == []
    first.close()


def test_handlers_of_others_are_left_alone(calm):
    seen = []

    def mine(number, frame):
        seen.append(number)

    signal.signal(signal.SIGUSR1, mine)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with bench(safe_state=lambda: None):
            assert signal.getsignal(signal.SIGUSR1) is mine
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGHUP)
            # One that is set meanwhile stays, too.
            signal.signal(signal.SIGUSR2, mine)
        assert signal.getsignal(signal.SIGUSR2) is mine
        assert seen == [signal.SIGUSR1]
    finally:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)


def test_handlers_in_c_are_left_alone(calm, tmp_path):
    with open(tmp_path / "trace", "w") as file:
        faulthandler.register(signal.SIGUSR2, file=file)
        try:
            with bench(safe_state=lambda: None):
                assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
                os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR2)
        finally:
            faulthandler.unregister(signal.SIGUSR2)
    assert (tmp_path / "trace").read_text().count("most recent call first") >= 2


def test_a_handler_of_ctrl_c_that_is_set_meanwhile_stays(calm):
    def mine(number, frame):
        pass

    def fn(x, params):
        signal.signal(signal.SIGINT, mine)
        return lab(x, params)

    try:
        bench(fn).predict(X)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class AlarmError(Exception):
    pass


@pytest.mark.parametrize("seed", range(100 if TORTURE else 6))
def test_handlers_that_raise_anywhere(seed):
    """A handler that raises at any instant of a shot or of the way to safety: the safe state is
    called all the same."""
    draw, safe, made = np.random.default_rng(seed), [], []

    def ring(number, frame):
        raise AlarmError

    def fn(x, params):
        made.append(1)
        time.sleep(0.001)
        return lab(x, params)

    system = bench(fn, safe_state=lambda: time.sleep(0.002) or safe.append(1))

    def shoot(seconds):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            with _guard.guarded([system.driver]):
                system.predict(X[:1])
            time.sleep(seconds)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    spent = []
    for _ in range(5):
        begin = time.perf_counter()
        shoot(0)
        spent.append(time.perf_counter() - begin)
    whole = min(spent)
    before = signal.signal(signal.SIGALRM, ring)
    # What a callback of the collector raises is dropped, and pytest reports it.
    gc.disable()
    try:
        for k in range(40):
            called, shots = len(safe), len(made)
            # In the callable, it is a failure of the shot.
            with pytest.raises((AlarmError, HardwareError)):
                shoot(1e-5 + 1.2 * whole * draw.random())
            if len(made) > shots:
                if len(safe) == called:
                    # Raised between two instructions of the way out, which goes on when the
                    # exception is dropped.
                    gc.collect()
                assert len(safe) > called, f"round {k}: no safe state"
                assert system.state is State.SAFE
        assert len(made) > 8
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)
        close_all()


def test_ctrl_c_is_kept_from_nobody(calm):
    """Where a handler raises before the first Ctrl-C is given back, the next one finds Python's
    handler."""
    interrupt = Interrupt()
    interrupt.__enter__()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    del interrupt
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    interrupt = Interrupt()
    interrupt.__enter__()
    del interrupt
    bench().predict(X)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_run_in_another_thread_that_was_stopped_can_go_on():
    """SystemExit may be caught, as notebooks do: the instrument is used again."""
    safe, started = [], threading.Event()

    def fn(x, params):
        started.set()
        time.sleep(0.001)
        return lab(x, params)

    system = bench(fn, safe_state=lambda: safe.append(1))
    ends = []

    def run():
        try:
            train(system, steps=10**6)
        except SystemExit as error:
            ends.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(10)

    def wait():
        os.kill(os.getpid(), signal.SIGTERM)
        thread.join(10)

    with pytest.raises(SystemExit) as caught:
        wait()
    thread.join(10)
    assert caught.value.code == 143
    assert ends == [143]
    assert safe
    np.testing.assert_array_equal(system.predict(X), lab(X, THETA))
    trainer = pnn.Trainer(
        system, pnn.methods.SPSA(loss="cross-entropy"), pnn.optim.SGD(0.1), progress=False
    )
    other = threading.Thread(target=lambda: trainer.fit(X, Y, epochs=2))
    other.start()
    other.join(20)
    assert trainer.epoch == 2
    close_all()


def test_handlers_that_raise_do_not_end_the_wait():
    """The safe state is waited for once, as long as it may take, whatever is raised meanwhile;
    then that is raised."""
    calls = []

    def make_safe():
        calls.append(1)
        time.sleep(0.2)

    def ring(number, frame):
        raise AlarmError

    system = bench(safe_state=make_safe, safe_seconds=5)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
        with pytest.raises(AlarmError):
            system.safe()
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert system.state is State.SAFE
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        close_all()
    assert calls == [1]
