"""Where a checkpoint goes: to files, as their owner left them, and to nothing else."""

import copy
import functools
import os
import pathlib
import pickle
import socket
import stat
import threading
import time

import numpy as np
import pnncore as pnn
import pytest
from helpers import make_batch, make_net, refuses
from pnncore import methods, optim
from pnncore.errors import CapabilityError, CheckpointError, ConfigError, DataError
from pnncore.methods import EquilibriumPropagation

NAMES_OF_NO_FILE = [
    None,
    123,
    1.5,
    b"run.pnn",
    "",
    "a\0b",
    "\ud800",
    [],
    {},
    object(),
    True,
    ("run.pnn",),
]


@pytest.fixture
def trainer():
    return pnn.Trainer(
        make_net([3, 4, 2], dtype="float32"), EquilibriumPropagation(), optim.Adam(0.01), seed=0
    )


@pytest.mark.parametrize("path", NAMES_OF_NO_FILE, ids=ascii)
def test_names_of_no_file(path, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (trainer.save, pnn.Trainer.load, pnn.Checkpoint):
        refuses(ConfigError, "path must be the path of a file", call, path)
    assert os.listdir(tmp_path) == []


def test_paths_of_all_kinds(trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (
        "plain.pnn",
        pathlib.Path("object.pnn"),
        "é ü.pnn",
        os.fsdecode(b"\xff.pnn"),
        "./././dots.pnn",
    ):
        trainer.save(path)
        assert pnn.Trainer.load(path).epoch == 0
        assert os.path.isfile(path)


def make_pipe(path):
    os.mkfifo(path)


def make_device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def make_socket(path):
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


@pytest.mark.parametrize(
    "make", [make_pipe, make_device, make_socket, os.mkdir], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("way", ["itself", "link", "prev"])
def test_what_is_no_file_is_refused_and_left_alone(make, way, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, other = tmp_path / "run.pnn", tmp_path / ("run.pnn.prev" if way == "prev" else "other")
    if way == "itself":
        make(path)
    else:
        make(other)
        if way == "link":
            path.symlink_to(other)
    before = {name: (tmp_path / name).lstat() for name in os.listdir(tmp_path)}
    start = time.monotonic()
    with pytest.raises(OSError, match="is not a regular file"):
        trainer.save(path)
    if way != "prev":
        with pytest.raises(OSError, match="is not a regular file"):
            pnn.Trainer.load(path)
    assert time.monotonic() - start < 5, "no waiting for the other end of a pipe"
    after = {name: (tmp_path / name).lstat() for name in os.listdir(tmp_path)}
    assert {name: (s.st_ino, s.st_mode, s.st_mtime_ns) for name, s in after.items()} == {
        name: (s.st_ino, s.st_mode, s.st_mtime_ns) for name, s in before.items()
    }


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("wanted", [0o600, 0o640, 0o644, 0o664, 0o666, 0o400])
def test_permissions_are_kept(wanted, trainer, tmp_path):
    path = tmp_path / "run.pnn"
    trainer.save(path)
    path.chmod(wanted)
    for save in (trainer.save, lambda path: pnn.Checkpoint(path).on_epoch(trainer)):
        save(path)
        assert mode(path) == wanted
        assert mode(tmp_path / "run.pnn.prev") == wanted


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_new_files_follow_the_mask(mask, trainer, tmp_path):
    before = os.umask(mask)
    try:
        trainer.save(tmp_path / "run.pnn")
    finally:
        os.umask(before)
    assert mode(tmp_path / "run.pnn") == 0o666 & ~mask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_kept(trainer, tmp_path):
    path = tmp_path / "run.pnn"
    trainer.save(path)
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    trainer.save(path)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (1234, 2345, 0o640)


def test_links_are_written_through(trainer, tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.pnn", tmp_path / "run.pnn"
    link.symlink_to("far/real.pnn")
    for _ in range(2):
        trainer.save(link)
        assert link.is_symlink()
        assert pnn.Trainer.load(real).epoch == pnn.Trainer.load(link).epoch == 0
    assert sorted(os.listdir(tmp_path / "far")) == ["real.pnn", "real.pnn.prev"]
    assert sorted(os.listdir(tmp_path)) == ["far", "run.pnn"]


def diverging(method, optimizer):
    """A trainer after an epoch, with a system that any method trains."""
    net = pnn.systems.Stack([pnn.layers.Linear(3, 2)], seed=1)
    trainer = pnn.Trainer(net, method, optimizer, batch_size=4, seed=0, progress=False)
    trainer.fit(*make_batch(net, 8), epochs=1)
    return trainer


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        (methods.Backprop(), optim.Adam(0.01)),
        (methods.Backprop(), optim.SGD(0.01, momentum=0.9)),
        (methods.CMAES(), optim.SGD(0.01)),
        (methods.RidgeReadout(), optim.SGD(0.01)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_finite_is_not_written(method, optimizer, bad, tmp_path):
    trainer = diverging(method, optimizer)
    path = tmp_path / "run.pnn"
    trainer.save(path)
    before = path.read_bytes()
    arrays = {f"params/{name}": array for name, array in trainer.system.params.items()}
    arrays |= {f"memory/{name}": array for name, array in trainer.memory.items()}
    for name, array in arrays.items():
        kept = array.flat[-1]
        array.flat[-1] = bad
        refuses(DataError, f"{name} holds NaN or infinity", trainer.save, path)
        array.flat[-1] = kept
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pnn"]


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, 5e-324, -0.0, 1.7976931348623157e308, 0.1]
)
def test_sums_of_an_epoch_under_way_come_back_exactly(value, tmp_path):
    class Save(pnn.Callback):
        def on_step(self, trainer):
            if trainer.step == 1:
                trainer._sums["loss"] = value
                trainer.save(tmp_path / "run.pnn")
                trainer.stop()

    net = make_net([3, 4, 2], dtype="float32")
    x, y = make_batch(net, 8)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.1), batch_size=4, seed=0, callbacks=[Save()]
    )
    trainer.fit(x, y, epochs=1)
    loaded = pnn.Trainer.load(tmp_path / "run.pnn")
    np.testing.assert_equal(loaded._sums, trainer._sums)
    assert np.signbit(loaded._sums["loss"]) == np.signbit(value) or np.isnan(value)
    loaded.fit(x, y, epochs=1)
    assert np.isfinite(loaded.history["loss"][-1]) == np.isfinite(value)


def test_a_trainer_that_could_not_be_loaded_is_not_written(trainer, tmp_path):
    x, y = make_batch(trainer.system, 8)
    trainer.fit(x, y, epochs=1)
    trainer.save(tmp_path / "run.pnn")
    before = (tmp_path / "run.pnn").read_bytes()
    for name, bad in [
        ("epoch", 7),
        ("epoch", -1),
        ("step", 3),
        ("batch_size", 0),
        ("seed", "x"),
        ("_steps_before", 0),
    ]:
        kept = getattr(trainer, name)
        setattr(trainer, name, bad)
        with pytest.raises(ConfigError):
            trainer.save(tmp_path / "run.pnn")
        setattr(trainer, name, kept)
    assert (tmp_path / "run.pnn").read_bytes() == before


def test_load_checks_what_it_is_given(trainer, tmp_path):
    path = tmp_path / "run.pnn"
    trainer.save(path)
    for name in ("system", "optimizer"):
        refuses(ConfigError, f"{name} must be a pnncore", pnn.Trainer.load, path, **{name: "x"})
    refuses(ConfigError, "threads must be", pnn.Trainer.load, path, threads="x")
    refuses(ConfigError, "callbacks must be", pnn.Trainer.load, path, callbacks=[1])
    refuses(ConfigError, "progress must be", pnn.Trainer.load, path, progress="x")
    with pytest.raises(CheckpointError, match="Methods that train this system"):
        pnn.Trainer.load(path, system=pnn.systems.Stack([pnn.layers.Linear(3, 2)]))


@pytest.mark.parametrize(
    "make", [make_pipe, make_device, make_socket, os.mkdir], ids=lambda make: make.__name__
)
def test_the_command_line_refuses_what_is_no_file_before_the_work(make, tmp_path, monkeypatch):
    from pnncore.cli import _common

    monkeypatch.chdir(tmp_path)
    make(tmp_path / "run.pnn")
    refuses(
        ConfigError, "--save needs a file, got", _common.writable, tmp_path / "run.pnn", "--save"
    )
    _common.writable(tmp_path / "new.pnn", "--save")


def test_a_population_that_is_not_born_can_be_saved(tmp_path):
    net = make_net([3, 4, 2], dtype="float32")
    x, y = make_batch(net, 8)
    trainer = pnn.Trainer(
        net, methods.GeneticAlgorithm(population=4), optim.SGD(0.1), batch_size=4, seed=0
    )
    trainer.save(tmp_path / "run.pnn")
    resumed = pnn.Trainer.load(tmp_path / "run.pnn")
    trainer.fit(x, y, epochs=2)
    resumed.fit(x, y, epochs=2)
    for name, array in net.params.items():
        assert array.tobytes() == resumed.system.params[name].tobytes()


def test_what_is_saved_while_another_thread_fits_is_of_one_step(tmp_path):
    def made():
        net = make_net([16, 33, 4], dtype="float32")
        return pnn.Trainer(
            net, EquilibriumPropagation(), optim.Adam(0.01), seed=0, batch_size=4, progress=False
        )

    trainer, undisturbed = made(), made()
    x, y = make_batch(trainer.system, 400)
    undisturbed.fit(x, y, epochs=4)
    thread = threading.Thread(target=trainer.fit, args=(x, y), kwargs={"epochs": 4})
    thread.start()
    files = []
    while thread.is_alive() and len(files) < 12:
        files.append(tmp_path / f"{len(files)}.pnn")
        trainer.save(files[-1])
        time.sleep(0.003)
    thread.join()
    for file in files:
        resumed = pnn.Trainer.load(file)
        if resumed.epoch < 4:
            resumed.fit(x, y, epochs=4 - resumed.epoch)
        for name, array in undisturbed.system.params.items():
            assert array.tobytes() == resumed.system.params[name].tobytes(), file


def test_one_fit_at_a_time():
    class Again(pnn.Callback):
        def on_step(self, trainer):
            trainer.fit(x, y, epochs=1)

    net = make_net([3, 4, 2], dtype="float32")
    x, y = make_batch(net, 8)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.1), batch_size=4, seed=0, callbacks=[Again()]
    )
    with pytest.raises(ConfigError, match="a fit of this trainer is under way"):
        trainer.fit(x, y, epochs=1)
    trainer.callbacks = []
    trainer.fit(x, y, epochs=1)


class Chain(pnn.systems.EnergySystem):
    """Springs whose law is a setting that no shape shows."""

    hard = 0.0

    def energy(self, params, x, s):
        own = 0.5 * s**2 + 0.25 * self.hard * s**4
        return (params["k"] * own).sum(axis=1) - (x @ MIX * s).sum(axis=1)

    def state_gradient(self, params, x, s):
        return params["k"] * (s + self.hard * s**3) - x @ MIX

    def param_gradient(self, params, x, s, weights):
        return {"k": weights @ (0.5 * s**2 + 0.25 * self.hard * s**4)}


MIX = np.random.default_rng(4).normal(size=(3, 4))


def chain(hard):
    net = Chain(n_in=3, n_states=4, n_out=2, params={"k": np.full(4, 2.0)})
    net.hard = hard
    return net


def squashed(function, slope):
    custom = pnn.layers.Custom(
        4, 4, lambda x, params: function(x), vjp=lambda x, params, dy: (dy * slope(x), {})
    )
    return pnn.systems.Stack([pnn.layers.Linear(3, 4), custom, pnn.layers.Linear(4, 2)], seed=0)


@pytest.mark.parametrize(
    ("make", "method", "same", "other"),
    [
        (chain, pnn.methods.EquilibriumPropagation(beta=0.1), (3.0,), (0.0,)),
        (
            squashed,
            pnn.methods.Backprop(),
            (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
            (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
        ),
    ],
)
def test_another_physics_of_equal_shapes_is_refused(make, method, same, other, tmp_path):
    net = make(*same)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(8, 3)).astype(net.dtype), rng.uniform(size=(8, 2)).astype(net.dtype)
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.05), seed=0, progress=False)
    trainer.fit(x, y, epochs=2)
    trainer.save(tmp_path / "run.pnn")
    passed = make(*other)
    before = {name: array.copy() for name, array in passed.params.items()}
    with pytest.raises(CheckpointError, match="gives other outputs at the same parameters"):
        pnn.Trainer.load(tmp_path / "run.pnn", system=passed)
    for name, array in passed.params.items():
        np.testing.assert_array_equal(array, before[name])
    again = pnn.Trainer.load(tmp_path / "run.pnn", system=make(*same))
    again.fit(x, y, epochs=1)
    trainer.fit(x, y, epochs=1)
    for name, array in again.system.params.items():
        np.testing.assert_array_equal(array, trainer.system.params[name])


def test_other_layers_beside_an_instrument_are_refused(tmp_path):
    def make(layer):
        bench = pnn.systems.Instrument(lambda x: np.tanh(x), 4, 4, seed=0)
        return pnn.systems.Stack([pnn.layers.Linear(3, 4), layer, bench], seed=0)

    net = make(pnn.layers.Tanh())
    trainer = pnn.Trainer(net, pnn.methods.SPSA(), pnn.optim.SGD(0.05), seed=0, progress=False)
    trainer.save(tmp_path / "run.pnn")
    with pytest.raises(CheckpointError, match="layer 2"):
        pnn.Trainer.load(tmp_path / "run.pnn", system=make(pnn.layers.ReLU()))
    pnn.Trainer.load(tmp_path / "run.pnn", system=make(pnn.layers.Tanh()))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("make", [lambda: chain(3.0), lambda: waves()])
def test_systems_of_ones_own_are_copied_and_pickled(way, make):
    system = make()
    rng = np.random.default_rng(1)
    for array in system.params.values():
        array[...] += 0.1 * rng.uniform(size=array.shape)
    x = rng.uniform(size=(5, 3)).astype(system.dtype)
    again = way(system)
    assert type(again) is type(system)
    np.testing.assert_array_equal(again.predict(x), system.predict(x))
    before = system.predict(x)
    for array in again.params.values():
        array[...] *= 2
    np.testing.assert_array_equal(system.predict(x), before)
    assert not np.array_equal(again.predict(x), before)


def tanh(x, params):
    return np.tanh(params["a"] * x)


def tanh_vjp(x, params, dy):
    slope = dy * (1 - np.tanh(params["a"] * x) ** 2)
    return slope * params["a"], {"a": (slope * x).sum(axis=0)}


def waves():
    custom = pnn.layers.Custom(4, 4, tanh, vjp=tanh_vjp, params={"a": np.full(4, 1.5)})
    return pnn.systems.Stack([pnn.layers.Linear(3, 4), custom, pnn.layers.Linear(4, 2)], seed=0)


def test_methods_are_compared_on_systems_of_ones_own_and_on_instruments():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(16, 3)), rng.uniform(size=(16, 2))
    bench = pnn.systems.Instrument(
        lambda x, p: np.tanh(x @ p["w"]), 3, 2, params={"w": np.zeros((3, 2))}, seed=0
    )
    spsa = functools.partial(pnn.methods.SPSA, epsilon=0.1)
    own = {"SPSA": spsa(), "two": (spsa(directions=2), pnn.optim.SGD(0.1))}
    for system in (chain(3.0), waves(), bench):
        start = {name: array.copy() for name, array in system.params.items()}
        data = (x.astype(system.dtype), y.astype(system.dtype)) * 2
        found = pnn.compare(system, own, data, passes=40, batch_size=8, progress=False)
        for name, array in system.params.items():
            np.testing.assert_array_equal(array, start[name])
        assert all(run.score[0] == found.runs["SPSA"].score[0] for run in found.runs.values())
        assert len({run.score[-1] for run in found.runs.values()}) == 2
    with pytest.raises(CapabilityError, match="an instrument is hardware"):
        copy.copy(bench)
