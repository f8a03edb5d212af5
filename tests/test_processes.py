"""Forks, spawned processes, Ctrl-C, threads of Python."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pnncore as pnn
import pytest
from helpers import command, environment, make_batch, make_net, parameter_bytes, run_python
from pnncore import optim
from pnncore.methods import EquilibriumPropagation


def train(threads, seed=0, epochs=2):
    """Train a network large enough for threads; return its parameters."""
    net = make_net([64, 128, 10], dtype="float32", seed=seed)
    x, y = make_batch(net, 600)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.05), batch_size=300, seed=seed, threads=threads
    )
    trainer.fit(x, y, epochs=epochs, validation=(x, y))
    return parameter_bytes(net)


def in_fork(work, timeout=30):
    """Run `work` in a forked child; return the bytes it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(work())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    killer = threading.Timer(timeout, os.kill, (child, signal.SIGKILL))
    killer.start()
    try:
        with os.fdopen(reading, "rb") as pipe:
            result = pipe.read()
        _, status = os.waitpid(child, 0)
    finally:
        killer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed or hung"
    return result


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_fork_after_use(threads):
    expected = train(threads)
    assert in_fork(lambda: train(threads)) == expected
    assert train(threads) == expected, "the parent goes on"
    assert in_fork(lambda: in_fork(lambda: train(threads))) == expected, "a child of the child"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_another_thread_trains():
    expected, running = train(2), threading.Event()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            running.set()
            train(2, seed=1, epochs=1)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        running.wait()
        for _ in range(5):
            assert in_fork(lambda: train(2)) == expected
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(train, [1, 2], timeout=60)) == [train(2)] * 2


def test_exit_with_live_pools_is_quick():
    code = """
        import sys, threading
        from test_processes import train
        train(3)
        threading.Thread(target=train, args=(2,), daemon=True).start()
        print("leaving")
    """
    start = time.monotonic()
    assert run_python(code, timeout=30).strip() == "leaving"
    assert time.monotonic() - start < 10


def test_threads_of_python_train_two_networks_at_once():
    expected = [train(2, seed=seed, epochs=4) for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: train(2, seed=seed, epochs=4), range(4))) == expected


def test_threads_of_python_share_a_network_to_read():
    net = make_net([64, 128, 10], dtype="float32")
    x, y = make_batch(net, 500)
    outputs = net.predict(x)
    gradient = EquilibriumPropagation().gradient(net, x, y)["W1"]

    def work(i):
        if i % 2:
            return np.array_equal(net.predict(x, threads=2), outputs)
        return np.array_equal(
            EquilibriumPropagation().gradient(net, x, y, threads=2)["W1"], gradient
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


def test_the_interpreter_is_free_while_the_core_works():
    # 20 ms of work in the core: another thread of Python gets its turns meanwhile.
    net = make_net([64, 512, 10], dtype="float32")
    x, _ = make_batch(net, 2000)
    turns, done = [], threading.Event()

    def count():
        while not done.is_set():
            turns.append(time.perf_counter())
            time.sleep(1e-3)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        start = time.perf_counter()
        net.settle(x, settling=pnn.Settling(sweeps=200), threads=1)
        end = time.perf_counter()
    finally:
        done.set()
        thread.join()
    inside = sum(start < turn < end for turn in turns)
    assert end - start > 0.02
    assert inside > 5


def test_a_network_that_another_thread_trains_is_refused_or_waits():
    # Never a crash, a torn read or an error of another kind than pnncore's.
    net = make_net([64, 256, 10], dtype="float32")
    x, y = make_batch(net, 2000)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.01), batch_size=500, seed=0)
    other = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.01), batch_size=500, seed=0)
    refused = []

    def train_on():
        try:
            trainer.fit(x, y, epochs=10)
        except Exception as error:
            refused.append(error)

    thread = threading.Thread(target=train_on)
    thread.start()
    try:
        while thread.is_alive():
            for use in (lambda: net.predict(x[:10]), lambda: other.fit(x, y, epochs=1)):
                try:
                    use()
                except Exception as error:
                    refused.append(error)
    finally:
        thread.join()
    assert all(isinstance(error, pnn.PnnError) for error in refused), {
        type(e).__mro__ for e in refused
    }
    assert trainer.epoch == 10 or refused


# Trains for as long as it is let; on Ctrl-C saves what it has.
FIT = """
    import signal, sys, time
    import numpy as np
    import pnncore as pnn
    from helpers import make_batch, make_net

    class Ready(pnn.Callback):
        def on_pause(self, trainer):
            if trainer.step or trainer.epoch:
                print("ready", flush=True)
                self.__class__ = pnn.Callback

    kind, path = sys.argv[1:]
    sizes = {"small": ([17, 33, 7, 5], 16, 100_000), "large": ([300, 2000, 10], 500, 3000)}
    layers, batch, samples = sizes[kind]
    net = make_net(layers, dtype="float32")
    x, y = make_batch(net, samples)
    method, optimizer = pnn.methods.EquilibriumPropagation(), pnn.optim.SGD(0.01)
    trainer = pnn.Trainer(net, method, optimizer, batch_size=batch, seed=3, callbacks=[Ready()])
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(x, y, epochs=100_000, validation=(x[:100], y[:100]))
    except KeyboardInterrupt:
        stopped = time.time()
        assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler
        trainer.save(path)
        print("stopped", stopped, trainer.epoch, trainer.step, flush=True)
"""


def started(code, *arguments):
    """Run Python code in a process of its own, whose output is read here."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command(code), *arguments], env=environment(), stdout=pipe, stderr=pipe, text=True
    )


@pytest.mark.parametrize("kind", ["small", "large"])
def test_ctrl_c(kind, tmp_path):
    path = tmp_path / "run.pnn"
    process = started(FIT, kind, str(path))
    try:
        assert process.stdout.readline().strip() == "ready", process.stderr.read()
        time.sleep(0.2)
        sent = time.time()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, err
    word, stopped, epoch, step = out.split()
    assert word == "stopped"
    assert float(stopped) - sent < 1
    # Everything learned is there, and going on gives what an undisturbed run gives.
    resumed = pnn.Trainer.load(path)
    assert (resumed.epoch, resumed.step) == (int(epoch), int(step))
    assert resumed.epoch or resumed.step
    if kind == "large":
        return
    layers = [17, 33, 7, 5]
    net = make_net(layers, dtype="float32")
    x, y = make_batch(net, 100_000)
    if resumed.step:
        resumed.fit(x, y, epochs=1, validation=(x[:100], y[:100]))
    whole = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.01), batch_size=16, seed=3)
    whole.fit(x, y, epochs=resumed.epoch, validation=(x[:100], y[:100]))
    assert parameter_bytes(resumed.system) == parameter_bytes(net)
    resumed.save(tmp_path / "resumed.pnn")
    whole.save(tmp_path / "whole.pnn")
    assert (tmp_path / "resumed.pnn").read_bytes() == (tmp_path / "whole.pnn").read_bytes()


class InterruptAt(pnn.Callback):
    """Presses Ctrl-C after some steps."""

    def __init__(self, *steps):
        self.steps = steps
        self.done = 0

    def on_step(self, trainer):
        self.done += 1
        if self.done in self.steps:
            os.kill(os.getpid(), signal.SIGINT)


def interruptible(*steps):
    net = make_net([6, 8, 3], dtype="float32")
    x, y = make_batch(net, 20)
    callbacks = [InterruptAt(*steps)]
    return (
        pnn.Trainer(
            net,
            EquilibriumPropagation(),
            optim.SGD(0.05),
            batch_size=4,
            seed=3,
            callbacks=callbacks,
        ),
        x,
        y,
    )


@pytest.fixture(autouse=True)
def handler_is_restored():
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 10, 15])
def test_interrupted_anywhere_it_goes_on(step):
    trainer, x, y = interruptible(step)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, epochs=3)
    assert (trainer.epoch, trainer.step) == divmod(step, 5)
    if trainer.epoch < 3:
        trainer.fit(x, y, epochs=3 - trainer.epoch)
    whole, *_ = interruptible()
    whole.fit(x, y, epochs=3)
    assert parameter_bytes(trainer.system) == parameter_bytes(whole.system)
    np.testing.assert_array_equal(trainer.history["loss"], whole.history["loss"])


def test_interrupted_while_it_scores():
    # The epoch has all its steps but not its end: it can still be finished.
    trainer, x, y = interruptible()
    score = trainer.system.score

    def interrupted(*args, **kwargs):
        trainer.system.score = score
        raise KeyboardInterrupt

    trainer.system.score = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, epochs=1, validation=(x, y))
    assert (trainer.epoch, trainer.step) == (0, 5)
    trainer.fit(x, y, epochs=1, validation=(x, y))
    assert (trainer.epoch, trainer.step, trainer.history.epochs) == (1, 0, 1)
    whole, *_ = interruptible()
    whole.fit(x, y, epochs=1, validation=(x, y))
    assert parameter_bytes(trainer.system) == parameter_bytes(whole.system)
    np.testing.assert_array_equal(trainer.history["loss"], whole.history["loss"])


def test_a_handler_of_the_users_own_is_kept():
    presses = []
    before = signal.signal(signal.SIGINT, lambda number, frame: presses.append(number))
    try:
        trainer, x, y = interruptible(2)
        trainer.fit(x, y, epochs=1)
        assert trainer.epoch == 1
        assert presses == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_import_installs_no_handlers_and_starts_no_threads():
    code = """
        import signal, threading
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        import pnncore
        assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}
        assert threading.active_count() == 1
        import os, sys
        if sys.platform == "linux":
            assert len(os.listdir("/proc/self/task")) == 1, os.listdir("/proc/self/task")
        print("clean")
    """
    # A BLAS of NumPy may start threads of its own.
    assert run_python(code, OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1").strip() == "clean"


@pytest.mark.slow
def test_interrupts_at_random_instants(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(100):
        process = started(FIT, "small", str(tmp_path / "run.pnn"))
        try:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=5)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert out.split()[0] == "stopped"
        pnn.Trainer.load(tmp_path / "run.pnn")


# Calls that take seconds. Each prints "ready" and is interrupted in its middle.
CALLS = {
    "predict": "big().predict(ones(20_000, 500))",
    "predict alone": "big().predict(ones(20_000, 500), threads=1)",
    "settle": "deep().settle(ones(4000, 200), settling=pnn.Settling(sweeps=3000))",
    "settle alone": "deep().settle(ones(4000, 200), settling=pnn.Settling(sweeps=3000), threads=1)",
    "audit": "pnn.audit(deep(), methods.EquilibriumPropagation(), ones(4000, 200), labels(4000))",
    "gradient": "methods.FiniteDifference().gradient(deep(), ones(50, 200), labels(50))",
    "spsa": "methods.SPSA(directions=10**6).gradient(deep(), ones(50, 200), labels(50))",
    "implicit": "methods.RecurrentBackprop(steps=10**8).gradient(deep(), ones(5, 200), labels(5))",
    "surrogate": "fit(small(), methods.SurrogateOptimization(fits=10**6))",
    "cmaes": "fit(small(), methods.CMAES(population=10**6))",
    "genetic": "fit(small(), methods.GeneticAlgorithm(population=10**6))",
    "measure": "[big().measure(ones(20_000, 500)) for _ in range(100)]",
    "vjp": "[big().vjp(ones(9000, 500), ones(9000, 10)) for _ in range(100)]",
    "wires": "pnn.analog.solve(np.full((900, 900), 1e-3), np.ones((200, 900)), tolerance=1e-15)",
    "circuit": "circuit().predict(np.random.default_rng(0).uniform(1, 2, (10**6, 1)))",
    "pendula": "stack(layers.Pendula(50, steps=10**5)).predict(ones(1000, 50))",
    "map": "stack(layers.Linear(10_000, 20_000))",
    "mismatch": "stack(layers.Linear(10_000, 10_000, mismatch=0.1))",
    "speckle": "stack(layers.Speckle(6000, 6000))",
    "cells": "stack(layers.Crossbar(7000, 7000, device=pnn.devices.ReRamES()))",
    "hopfield": "pnn.systems.Hopfield([10_000, 20_000, 10])",
    "program": "pnn.memories.program(stack(layers.Linear(4000, 4000)), seed=0)",
    "energy": "springs().predict(np.ones((20_000, 3)))",
}
INTERRUPTED = """
    import sys, time
    import numpy as np
    import pnncore as pnn
    from pnncore import layers, methods, optim

    def stack(*chain):
        return pnn.systems.Stack([*chain], seed=0)

    def ones(*shape):
        return np.ones(shape, np.float32)

    def big():
        return stack(layers.Linear(500, 4000), layers.Tanh(), layers.Linear(4000, 10))

    def deep():
        return pnn.systems.Hopfield([200, 400, 400, 10], seed=0)

    def small():
        return stack(layers.Linear(4, 5), layers.Tanh(), layers.Linear(5, 3))

    def labels(n):
        return np.zeros(n, int)

    def fit(net, method):
        x = np.ones((64, net.n_in), np.float32)
        pnn.Trainer(net, method, optim.SGD(0.1), progress=False).fit(x, labels(64), epochs=10**6)

    def circuit():
        names = [f"n{k}" for k in range(30)]
        parts = [pnn.elements.Resistor(a, b, 1.0) for a, b in zip(["in", *names], [*names, "0"])]
        parts += [pnn.elements.Diode(a, "0") for a in names]
        return pnn.systems.Circuit(parts, inputs=["in"], outputs=[names[-1]])

    def springs():
        import test_runs
        class Slow(test_runs.Counted):
            def state_gradient(self, params, x, s):
                return super().state_gradient(params, x, s) + 1e-3 * np.sin(1e3 * s)
        return Slow(n_in=3, n_states=2, n_out=2, params={"W": np.ones((3, 2))})

    # (A KeyboardInterrupt in eval itself would end the process by a signal, though it is caught.)
    call = eval("lambda: " + sys.argv[1])
    print("ready", flush=True)
    try:
        while True:
            call()
    except KeyboardInterrupt:
        print(time.time(), flush=True)
"""


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_ends_any_call(call, rounds):
    # Once, or twice while something trains: the first one waits for the step.
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        process = started(INTERRUPTED, CALLS[call])
        try:
            assert process.stdout.readline().strip() == "ready", process.stderr.read()
            time.sleep(rng.uniform(0.1, 0.6))
            if CALLS[call].startswith("fit"):
                process.send_signal(signal.SIGINT)
                # Two that come before the first is seen are one.
                time.sleep(0.3)
            sent = time.time()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert float(out) - sent < 0.2 * SLACK, (call, float(out) - sent)


# Other tests run beside these on busy machines.
SLACK = 2.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["hopfield", "stack", "energy"])
@pytest.mark.parametrize("busy", ["fit", "predict", "gradient"])
def test_a_forked_child_uses_what_another_thread_uses(kind, busy, rounds):
    from test_runs import SYSTEMS

    net = SYSTEMS[kind]("float64")
    x, y = make_batch(net, 3000)
    method = EquilibriumPropagation() if kind != "stack" else pnn.methods.Backprop()
    trainer = pnn.Trainer(net, method, optim.Adam(1e-4), batch_size=16, seed=0, progress=False)
    uses = {
        "fit": lambda: trainer.fit(x, y, epochs=1),
        "predict": lambda: net.predict(x),
        "gradient": lambda: method.gradient(net, x, y),
    }
    done = threading.Event()

    def work():
        while not done.is_set():
            uses[busy]()

    def child():
        for use in uses.values():
            use()
        net.clip()
        return b"done"

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for k in range(rounds):
            time.sleep(0.003 * (1 + k % 7))
            assert in_fork(child, timeout=20) == b"done"
    finally:
        done.set()
        thread.join()
    uses["fit"]()


EXIT = """
    import sys, threading, time
    import numpy as np
    import pnncore as pnn
    from helpers import make_batch
    from test_runs import SYSTEMS
    from pnncore import layers, methods, optim

    def bench(dtype):
        shot = lambda x, params: np.tanh(x @ params["W"])
        weights = {"W": np.ones((3, 2))}
        return pnn.systems.Instrument(shot, 3, 2, params=weights, isolation="none", seed=0)

    kind, use, seconds = sys.argv[1:]
    net = {**SYSTEMS, "instrument": bench}[kind]("float64")
    x, y = make_batch(net, 2000)
    is_stack = "Stack" in str(type(net).__mro__)
    method = methods.SPSA() if is_stack else methods.EquilibriumPropagation()

    def work():
        while True:
            if use == "fit":
                trainer = pnn.Trainer(net, method, optim.SGD(1e-4), seed=0, progress=False)
                trainer.fit(x, y, epochs=1)
            else:
                net.predict(x)

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(float(seconds))
    print("leaving", flush=True)
"""


@pytest.mark.parametrize("rounds", [2, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["hopfield", "stack", "energy", "instrument"])
@pytest.mark.parametrize("use", ["fit", "predict"])
def test_daemon_threads_do_not_abort_the_exit(kind, use, rounds):
    for k in range(rounds):
        start = time.monotonic()
        assert run_python(EXIT, kind, use, 0.05 + 0.013 * k, timeout=30).strip() == "leaving"
        assert time.monotonic() - start < 10


if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="signals of POSIX")
