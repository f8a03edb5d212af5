"""Whatever instruments say, and whatever they are set to, journals hold it: nothing that was
measured is lost."""

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pnncore as pnn
import pytest
from hanging import double
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laboratory import THETA, X, bench, close_all, lab
from pnncore import _core, _records
from pnncore.errors import ConfigError, HardwareError, JournalError
from pnncore.systems import Instrument

TORTURE = os.environ.get("PNNCORE_TORTURE") == "1"
ROUNDS = 3000 if TORTURE else 60

INF = math.inf
ANY_TEXT = st.text(st.characters(exclude_categories=()))
SAID = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def closed():
    yield
    close_all()


def fuzz(*given_):
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return lambda test: settings(max_examples=ROUNDS, deadline=None, suppress_health_check=slow)(
        given(*given_)(test)
    )


def escaped(value):
    """What is read of a value: the same, but for texts that are no Unicode."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [escaped(item) for item in value]
    if isinstance(value, dict):
        return {escaped(key): escaped(item) for key, item in value.items()}
    return value


@fuzz(
    st.dictionaries(ANY_TEXT, SAID, max_size=4),
    st.sampled_from(["run-start", "state", "checkpoint-ref", "run-stop"]),
)
def test_what_is_said_is_read(tmp_path, said, kind):
    path = str(tmp_path / f"{time.time_ns()}.pnj")
    journal, _ = _core.Journal.append_to(path, '"none"')
    journal.note(kind, _records.dump(said))
    journal.intend(False, "run", 0, 1, 1, True, bytes(8), b"")
    journal.fail(0, 0, 7, _records.dump(said))
    journal.close(True)
    (_, one, *_, text), (_, two, shot, attempt, duration, failed) = _core.Journal.read(path)[
        0
    ].notes()
    assert (one, two, shot, attempt, duration) == (kind, "fail", 0, 0, 7)
    assert text == failed
    assert repr(_records.load(text)) == repr(escaped(said))


NUMBERS = st.integers(0, 5) | st.integers(-1, 2**64)
BYTES = st.binary(max_size=40)
WORDS = ANY_TEXT | SAID.map(json.dumps) | st.just("{}")
CALLS = st.one_of(
    st.tuples(st.just("note"), st.sampled_from(["run-start", "state", "sync", "fail", ""]), WORDS),
    st.tuples(st.just("fail"), NUMBERS, NUMBERS, NUMBERS, WORDS),
    st.tuples(
        st.just("intend"),
        st.booleans(),
        st.sampled_from(["run", "check", "predict", "reference", "?"]),
        NUMBERS,
        NUMBERS,
        NUMBERS,
        st.booleans(),
        BYTES,
        BYTES,
    ),
    st.tuples(st.just("result"), NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.booleans(), BYTES),
    st.tuples(st.just("shot"), st.booleans(), st.integers(0, 3), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("mark")),
)


def make(journal, call):
    """Make a call; a whole shot is an intent with its result."""
    name, *arguments = call
    if name != "shot":
        getattr(journal, name)(*arguments)
        return
    again, rows, columns, double_ = arguments
    numbers = bytes(rows * columns * (8 if double_ else 4))
    shot, attempt = journal.intend(again, "run", 1, rows, columns, double_, numbers, b"theta")
    journal.result(shot, attempt, 2, rows, columns, double_, numbers)


@fuzz(st.lists(CALLS, max_size=12))
def test_the_writer_accepts_what_the_reader_accepts(tmp_path, calls):
    path = tmp_path / f"{time.time_ns()}.pnj"
    journal, _ = _core.Journal.append_to(str(path), '"none"')
    for call in calls:
        before, records = path.read_bytes(), journal.records()
        try:
            make(journal, call)
        except (JournalError, ConfigError, OverflowError, UnicodeEncodeError):
            if call[0] != "shot":
                assert path.read_bytes() == before, call
        else:
            found, torn = _core.Journal.read(str(path))
            assert torn is None
            assert found.records() == journal.records() > records, call
            if call[0] in ("note", "fail"):
                assert found.notes()[-1][-1] == call[-1]
    make(journal, ("shot", False, 1, 1, True))
    journal.close(True)
    again, _ = _core.Journal.append_to(str(path), '"none"')
    again.close(True)


@pytest.mark.parametrize("ends", list(itertools.product([-INF, -1e308, 0.0], [INF, 1e308])))
def test_ranges_without_ends(tmp_path, ends):
    path = tmp_path / "a.pnj"
    system = Instrument(lambda x: np.abs(x), 3, 3, output_range=ends, journal=path)
    for row in X:
        system.predict(row[None])
    system.close()
    held = pnn.journal.read(path)
    assert held.runs[0]["policy"]["output_range"] == list(ends)
    np.testing.assert_array_equal(held.arrays()["y"], np.abs(X))
    # And again, by another process.
    Instrument(lambda x: np.abs(x), 3, 3, output_range=ends, journal=path).close()


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("even the text fails")


class NoTextError(Exception):
    def __str__(self):
        return 3


class OddText(str):
    def encode(self, *arguments):
        raise RuntimeError("not even that")

    def __format__(self, spec):
        raise RuntimeError("nor that")


class OddTextError(Exception):
    def __str__(self):
        return OddText("odd")


class RecursiveError(Exception):
    def __str__(self):
        return str(self)


TEXTS = [
    ValueError("\ud800 lone"),
    ValueError("\udc80\udcff"),
    ValueError("nul \0 \x1f \x7f"),
    ValueError("x" * 3_000_000),
    ValueError("\U0001f600" * 6_000_000),
    ValueError(b"\xff"),
    ValueError('\\ud800 " \u2028'),
    SilentError(),
    NoTextError(),
    OddTextError(),
    RecursiveError(),
    KeyError("\ud800"),
    OSError(5, "\udcff"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"),
]


@pytest.mark.parametrize("way", ["direct", "thread", "late", "array", "safe", "reconnect"])
@pytest.mark.parametrize("error", TEXTS, ids=lambda error: type(error).__name__)
@pytest.mark.filterwarnings("ignore:safe_state failed")
def test_no_text_of_an_exception_loses_a_result(tmp_path, way, error):
    calls, release = [], threading.Event()

    class Array:
        def __array__(self, *arguments, **settings):
            raise error

    def fails():
        if len(calls) == 2:
            raise error

    def fn(x):
        calls.append(1)
        if len(calls) != 2:
            return 2 * x
        if way == "late":
            release.wait(10)
        if way == "array":
            return Array()
        raise error

    path = tmp_path / "a.pnj"
    limit = {"direct": None, "array": None, "late": 0.05}.get(way, 20.0)
    hooks = {
        "safe": {"safe_state": fails},
        "reconnect": {"reconnect": fails, "idempotent": True, "retries": 1},
    }
    system = Instrument(fn, 3, 3, timeout=limit, journal=path, backoff=0.0, **hooks.get(way, {}))
    system.predict(X)
    with pytest.raises(HardwareError):
        system.predict(X)
    release.set()
    system.reset()
    if way == "late":
        time.sleep(0.05)
    system.predict(X)
    system.close()
    held = pnn.journal.read(path)
    assert [shot.y is not None for shot in held] == [True, False, True]
    reason, text = held.failures[0][2:]
    assert reason == {"late": "timeout", "array": "dtype"}.get(way, "exception")
    assert way in ("late", "array") or text.startswith(escaped(type(error).__name__))
    assert way != "late" or held.failures[1][2] == "late"


@fuzz(ANY_TEXT)
def test_any_text_is_journaled(tmp_path, words):
    path = tmp_path / f"{time.time_ns()}.pnj"

    def fn(x):
        raise ValueError(words)

    system = Instrument(fn, 3, 3, journal=path)
    with pytest.raises(HardwareError):
        system.predict(X)
    system.close()
    assert pnn.journal.read(path).failures[0][3] == "ValueError: " + escaped(words)


def test_failures_of_processes_with_odd_texts(tmp_path):
    from hanging import odd

    with Instrument(
        odd, 3, 3, isolation="process", timeout=20, journal=tmp_path / "a.pnj"
    ) as system:
        for _ in range(2):
            with pytest.raises(HardwareError, match="its text cannot be told"):
                system.predict(X)
    assert len(pnn.journal.read(tmp_path / "a.pnj").failures) == 2


@pytest.mark.parametrize("name", ["\ud800", "", 3, b"gain", None, ("a",)])
def test_names_that_no_journal_holds(name):
    with pytest.raises(ConfigError, match="must be named by text"):
        bench(params={name: np.ones(3)})


@pytest.mark.parametrize("journal", [3, 1.5, ["a"], {}])
def test_journals_have_paths(journal):
    with pytest.raises(ConfigError, match="journal must be the path of a file"):
        bench(journal=journal)


def test_paths_of_any_bytes(tmp_path):
    for path in (
        os.fsencode(tmp_path) + b"/\xff.pnj",
        tmp_path / "\udcfe.pnj",
        tmp_path / "µ \n.pnj",
    ):
        system = bench(journal=path)
        answer = system.predict(X)
        system.driver.checkpoint_made(os.fsdecode(path))
        system.close()
        np.testing.assert_array_equal(pnn.journal.read(os.fsdecode(path))[0].y, answer)


def test_arrays_that_change_while_they_are_written(tmp_path):
    """What the instrument is given, what the journal holds and what is returned are the same,
    whoever writes to it."""
    answer, seen = np.zeros((12, 2)), []

    def fn(x, params):
        seen.append((x.copy(), params["gain"].copy()))
        if len(seen) == 2:
            raise ValueError("again, please")
        answer[...] = lab(x, params)
        return answer

    inputs, gain = X.copy(), THETA["gain"].copy()
    system = bench(fn, journal=tmp_path / "a.pnj", idempotent=True, retries=1, backoff=0.0)
    call = system.driver._channel.call

    def scribbled(ticket, args):
        # Another thread, between the journal and the instrument, and between the instrument and the
        # journal.
        inputs[...] += 1
        gain[...] += 1
        y = call(ticket, args)
        inputs[...] += 1
        return y

    system.driver._channel.call = scribbled
    found = [system.driver.shoot(inputs, [gain], "run").copy() for _ in range(3)]
    answer[...] = np.nan
    held = pnn.journal.read(tmp_path / "a.pnj")
    for shot, y, (x, theta) in zip(held, found, [seen[0], seen[1], seen[3]], strict=True):
        np.testing.assert_array_equal(shot.y, y)
        np.testing.assert_array_equal(shot.x, x)
        np.testing.assert_array_equal(shot.params["gain"], theta)
    np.testing.assert_array_equal(seen[1][0], seen[2][0])


def test_two_instruments_on_one_journal(tmp_path):
    """Whatever leads to the file, it has one writer."""
    path, link, hard = tmp_path / "a.pnj", tmp_path / "link", tmp_path / "hard"
    first = bench(journal=path)
    first.predict(X)
    link.symlink_to(path)
    os.link(path, hard)
    for other in (path, link, hard, tmp_path / "." / "a.pnj"):
        with pytest.raises(JournalError, match="appends to it"):
            bench(journal=other)
    first.predict(X)
    first.close()
    assert len(pnn.journal.read(path)) == 2


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"instrument": 3},
        {"instrument": {}},
        {"instrument": {"n_in": 3, "n_out": 2, "params": 3}},
        {
            "instrument": {
                "n_in": 3,
                "n_out": 2,
                "params": [["gain", [10**9, 10**9]]],
                "batch": True,
            }
        },
        {"instrument": {"n_in": 3, "n_out": 2, "params": [["gain", [-1]]], "batch": True}},
        {"instrument": {"n_in": 3, "n_out": 2, "params": [["gain", ["3"]]], "batch": True}},
        {"instrument": {"n_in": "3", "n_out": 2, "params": [], "batch": True}},
        {"instrument": {"n_in": 3, "n_out": 2, "params": [["gain", [3]]]}},
        {"instrument": {"n_in": 3, "n_out": 2, "params": [["gain", [3]]], "batch": "yes"}},
        {"instrument": {"n_in": 3, "n_out": 2, "params": [["gain", 3]], "batch": True}},
        *(
            {"instrument": {"n_in": 3, "n_out": 2, "params": [[name, [3]]], "batch": True}}
            for name in (["gain"], {}, None, "", "x", "y")
        ),
        {
            "instrument": {
                "n_in": 3,
                "n_out": 2,
                "params": [["gain", [1]], ["gain", [2]]],
                "batch": True,
            }
        },
    ],
)
def test_runs_that_pnncore_has_not_written(tmp_path, said):
    path = str(tmp_path / "a.pnj")
    journal, _ = _core.Journal.append_to(path, '"none"')
    journal.note("run-start", json.dumps(said))
    journal.intend(False, "run", 0, 12, 3, True, X.tobytes(), THETA["gain"].tobytes())
    journal.result(0, 0, 0, 12, 2, True, bytes(8 * 24))
    journal.close(True)
    with pytest.raises(JournalError):
        pnn.journal.read(path)[0]
    with pytest.raises(JournalError):
        bench(journal=path)


def test_ctrl_c_ends_reading(tmp_path):
    path = tmp_path / "a.pnj"
    system = bench(journal=path)
    system.predict(X)
    system.close()
    size = (256 if TORTURE else 48) << 20
    with open(path, "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"PnnF" * (size // 4))
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    begin = time.perf_counter()

    def look():
        for _ in range(100):
            pnn.journal.read(path)

    with pytest.raises(KeyboardInterrupt):
        look()
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize("way", ["thread", "process", "pipe", "hangs", "dies"])
def test_a_failed_start_is_not_the_last_one(monkeypatch, way):
    """Threads and processes that cannot be started now, perhaps later."""
    kind = "thread" if way == "thread" else "process"
    with Instrument(double, 2, 2, isolation=kind, timeout=20) as system:
        with monkeypatch.context() as patched:
            if way == "thread":
                patched.setattr(threading.Thread, "start", refuse)
            elif way == "process":
                patched.setattr(
                    multiprocessing.context.SpawnProcess, "_Popen", staticmethod(refuse)
                )
            elif way == "pipe":
                patched.setattr(system.driver._channel._context, "Pipe", refuse)
            elif way == "hangs":
                patched.setattr("pnncore.instruments._channel._STARTING", 1e-3)
            else:
                patched.setenv("PYTHONPATH", "/nowhere")
                patched.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
            for _ in range(3):
                with pytest.raises(HardwareError):
                    system.predict([[1.0, 2.0]])
        np.testing.assert_array_equal(system.predict([[1.0, 2.0]]), [[2.0, 4.0]])


def refuse(*arguments, **settings):
    raise RuntimeError("can't start it now")


@pytest.mark.parametrize("name", ["safe_seconds", "timeout", "backoff"])
@pytest.mark.parametrize(
    "value",
    [
        -1,
        -INF,
        INF,
        math.nan,
        9.3e9,
        1e7,
        1e300,
        10**400,
        "5",
        True,
        None,
        [1.0],
        1j,
        np.float64(2e9),
        np.array([1.0, 2.0]),
    ],
    ids=lambda value: str(value)[:10],
)
def test_seconds_that_no_timer_takes(name, value):
    if name == "timeout" and value is None:
        return
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        bench(**{name: value})


@pytest.mark.parametrize("value", [1e6, 1, np.float32(3), np.int64(2), 5e-324])
def test_seconds_that_timers_take(value):
    for kind in ("thread", "process"):
        system = Instrument(
            double,
            2,
            2,
            isolation=kind,
            timeout=max(value, 20),
            safe_seconds=max(value, 1),
            backoff=value,
            safe_state=lambda: None,
        )
        if value != 5e-324:
            system.predict([[1.0, 2.0]])
        system.close()


def test_many_retries():
    """The wait doubles without end, and is a minute at most."""
    system = bench(idempotent=True, retries=10**6, backoff=1e-300)
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        raise StopIteration

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "sleep", sleep)
        for attempt in (0, 5, 2000, 10**6):
            with contextlib.suppress(StopIteration):
                system.driver._back_off(attempt)
    assert all(seconds <= 60 for seconds in waited)
