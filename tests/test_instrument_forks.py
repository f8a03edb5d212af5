"""Processes that were forked: the instruments and journals of the parent are the parent's."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pnncore as pnn
import pytest
from laboratory import X, bench, close_all
from pnncore.errors import HardwareError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

# What a child does with everything of its parent. REFUSED raise an error of pnncore; QUIET do
# nothing.
REFUSED = {
    "predict": "system.predict(X)",
    "check": "system.check(X)",
    "measure": "system.driver.measure(X, [np.ones(2)])",
    "shoot": "system.driver.shoot(X, [np.ones(2)], 'run')",
    "fit": "trainer.fit(X, LABELS, epochs=1)",
    "safe": "system.safe()",
    "open": "system.open()",
    "reset": "system.reset()",
    "rewind": "system.rewind()",
    "resolve": "system.resolve()",
    "save": "trainer.save(place + '/run.pnn')",
    "block": "system.__enter__()",
    "note": "core.note('state', '{}')",
    "intend": "core.intend(False, 'run', 0, 1, 3, True, bytes(24), bytes(16))",
    "result": "core.result(0, 0, 0, 8, 2, True, bytes(128))",
    "fail": "core.fail(0, 0, 0, '{}')",
    "mark": "core.mark()",
    "check_mark": "core.check_mark(0, '0' * 64)",
    "shot": "core.shot(0)",
    "intent": "core.intent(0)",
    "notes": "core.notes()",
    "len": "len(core)",
    "read": "held[0]",
    "another": "bench()",
}
THROUGH_THE_SYSTEM = {REFUSED[name] for name in ("predict", "fit", "save")}
QUIET = {
    "nothing": "pass",
    "close": "system.close()",
    "rest": "system.driver.rest()",
    "close_journal": "core.close(True)",
    "drop_journal": "core.close(False)",
    "guard": "_guard._close_all()",
    "collect": "del system, trainer, core, held; _guard._open.clear(); gc.collect()",
    "unwind": "raise SystemExit(0)",
}

CASES = """
    import gc, json, multiprocessing, os, sys, threading, time, warnings
    import numpy as np, pnncore as pnn
    from pnncore.errors import PnnError
    from pnncore.instruments import _guard
    from hanging import double

    warnings.simplefilter("ignore", DeprecationWarning)
    X, LABELS = np.ones((8, 3)), np.zeros(8, int)
    root, cases = sys.argv[1], json.loads(sys.argv[2])
    shooting, go_on = threading.Event(), threading.Event()

    def bench(**settings):
        def lab(x, p):
            if settings.get("seed") == 1 and not go_on.is_set():
                shooting.set()
                go_on.wait(20)
            return x[:, :2] * p["gain"]
        return pnn.systems.Instrument(
            lab, 3, 2, params={"gain": np.ones(2)}, journal=place + "/a.pnj",
            safe_state=lambda: open(place + "/safe", "a").write(f"{os.getpid()} "), **settings)

    def child(code, told):
        names = dict(globals())
        try:
            exec(code, names)
            os.write(told, b"nothing")
        except SystemExit:
            os.write(told, b"nothing")
            raise
        except BaseException as error:
            name = "PnnError" if isinstance(error, PnnError) else type(error).__name__
            os.write(told, f"{name}: {error}".encode())

    def fork(start, code):
        reading, told = os.pipe()
        if start == "os":
            pid = os.fork()
            if pid == 0:
                child(code, told)
                sys.exit(0)
            os.close(told)
            until = time.monotonic() + 10
            while not os.waitpid(pid, os.WNOHANG)[0]:
                if time.monotonic() > until:
                    os.kill(pid, 9), os.waitpid(pid, 0)
                    return "it hangs"
                time.sleep(0.002)
        else:
            process = multiprocessing.get_context("fork").Process(target=child, args=(code, told))
            process.start()
            os.close(told)
            process.join(10)
            if process.is_alive():
                process.kill()
                return "it hangs"
        with os.fdopen(reading, "rb") as pipe:
            return pipe.read().decode()

    found = []
    for k, (start, state, code) in enumerate(cases):
        place = f"{root}/{k}"
        os.mkdir(place)
        system = bench(seed=int(state == "shooting"))
        method, optimizer = pnn.methods.SPSA(), pnn.optim.SGD(0.01)
        trainer = pnn.Trainer(system, method, optimizer, batch_size=8, progress=False)
        core = system.driver.journal
        thread = None
        shooting.clear()
        go_on.set()
        for _ in range(3):
            system.predict(X)
        held = pnn.journal.read(place + "/a.pnj")
        held[0], core.shot(0)
        before = open(place + "/a.pnj", "rb").read()
        if state == "shooting":
            # Another thread has the lock when the child is made.
            go_on.clear()
            thread = threading.Thread(target=system.predict, args=(X,))
            thread.start()
            shooting.wait(10)
            before = open(place + "/a.pnj", "rb").read()
        said = fork(start, code)
        same = open(place + "/a.pnj", "rb").read() == before and not os.path.exists(place + "/safe")
        go_on.set()
        if thread is not None:
            thread.join()
        # The lock is still the parent's, its end of the file, too, and it goes on.
        try:
            pnn._core.Journal.append_to(place + "/a.pnj", '"none"')
            locked = False
        except PnnError:
            locked = True
        for _ in range(3):
            system.predict(X)
        system.close()
        held = pnn.journal.read(place + "/a.pnj")
        whole = held.torn is None and all(shot.y is not None for shot in held)
        safe = set(open(place + "/safe").read().split()) == {str(os.getpid())}
        shots = len(held) - (state == "shooting")
        found.append([start, state, code, said, same and locked and whole and safe and shots == 6])
    print(json.dumps(found))
"""


def run(script, *arguments):
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": here}
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_child_leaves_everything_as_it_is(tmp_path):
    codes = [*REFUSED.values(), *QUIET.values()]
    # Whether a system's own lock is free is not the instrument's business.
    codes_of = {
        "idle": codes,
        "shooting": [code for code in codes if code not in THROUGH_THE_SYSTEM],
    }
    starts = ("os", "multiprocessing")
    cases = [
        [start, state, code] for start in starts for state, own in codes_of.items() for code in own
    ]
    for start, state, code, said, unharmed in json.loads(run(CASES, tmp_path, json.dumps(cases))):
        case = f"{start}, {state}, {code}: {said}"
        assert unharmed, case
        if code in QUIET.values():
            assert said == "nothing", case
        else:
            assert said.startswith("PnnError: "), case
            assert "the process that" in said or "appends to it" in said, case


WORKER = """
    import os, sys, gc, numpy as np, pnncore as pnn
    from hanging import double
    if __name__ == "__main__":
        system = pnn.systems.Instrument(double, 2, 2, isolation="process", timeout=20)
        system.predict([[1.0, 2.0]])
        worker = system.driver._channel._process.pid
        ways = lambda: sys.exit(0), system.close, gc.collect, lambda: os._exit(0)
        for way in ways:
            pid = os.fork()
            if pid == 0:
                way()
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert (system.predict([[3.0, 2.0]]) == [[6.0, 4.0]]).all()
            alive = system.driver._channel._process.pid == worker
            assert alive, "the child ended its parent's process"
        print("well")
"""


def test_a_child_leaves_the_process_of_an_instrument_running(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(WORKER))
    assert run(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") == "well\n"


def test_a_child_may_open_and_make_its_own(tmp_path):
    path = tmp_path / "a.pnj"
    system = bench(journal=path)
    system.predict(X)
    system.close()
    pid = os.fork()
    if pid == 0:
        try:
            own = bench(journal=path)
            own.predict(X)
            own.close()
            ok = len(pnn.journal.read(path)) == 2
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    system.open()
    system.predict(X)
    close_all()
    assert [shot.y is not None for shot in pnn.journal.read(path)] == [True] * 3


def test_errors_say_what_to_do(tmp_path):
    system = bench(journal=tmp_path / "a.pnj")
    system.driver._process += 1
    with pytest.raises(
        HardwareError, match="belongs to the process that made it; make another one here"
    ):
        system.predict(np.ones((1, 3)))
    system.driver._process -= 1
    close_all()
