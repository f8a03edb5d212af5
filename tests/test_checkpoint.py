"""Checkpoints: exact, refused when damaged, never lost by a kill or a full disk."""

import json
import os
import signal
import struct
import subprocess
import time

import numpy as np
import pnncore as pnn
import pytest
from helpers import command, environment, make_batch, make_net, parameter_bytes, run_python
from pnncore import Settling, methods, optim
from pnncore.errors import CheckpointError
from pnncore.methods import EquilibriumPropagation


def trained(epochs=2, optimizer=None, **settings):
    net = make_net([6, 8, 3], dtype="float32")
    x, y = make_batch(net, 20)
    optimizer = optimizer or optim.Adam(0.01)
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(), optimizer, batch_size=6, seed=2, **settings
    )
    if epochs:
        trainer.fit(x, y, epochs=epochs, validation=(x, y))
    return trainer, x, y


@pytest.fixture
def saved(tmp_path):
    trainer, *_ = trained()
    trainer.save(tmp_path / "run.pnn")
    return tmp_path / "run.pnn"


@pytest.mark.parametrize(
    ("method", "optimizer", "settings"),
    [
        (EquilibriumPropagation(beta=0.3), optim.SGD(0.1), {}),
        (
            EquilibriumPropagation(variant="one-sided", sign="random"),
            optim.SGD([0.1, 0.2], momentum=0.9),
            {},
        ),
        (
            EquilibriumPropagation(
                variant="holomorphic", points=4, settling=Settling(max_sweeps=50)
            ),
            optim.Adam({"W1": 0.1}, betas=(0.5, 0.9), epsilon=1e-3, weight_decay=0.1),
            {"activation": "tanh", "dtype": "float64"},
        ),
        (
            methods.CoupledLearning(eta=0.5, variant="centered", loss="cross-entropy"),
            optim.SGD(0.1, weight_decay=0.01, schedule=optim.StepDecay(2, 0.5)),
            {"activation": "logistic", "gain": 0.3},
        ),
        (
            methods.ContrastiveLearning(settling=Settling(sweeps=(5, 3), order="synchronous")),
            optim.Adam(),
            {},
        ),
        (
            methods.ImplicitDifferentiation(
                settling=Settling(tolerance=1e-6, output_update="explicit")
            ),
            optim.SGD(0.1, schedule=optim.ExponentialDecay(0.9)),
            {},
        ),
        (
            methods.RecurrentBackprop(steps=7, settling=Settling(relative_tolerance=0.1)),
            optim.SGD(0.1, schedule=optim.CosineDecay(9, 0.1)),
            {},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, methods.Method) else "",
)
def test_everything_comes_back(method, optimizer, settings, tmp_path):
    net = pnn.systems.Hopfield([6, 8, 3], seed=3, **settings)
    x, y = make_batch(net, 20)
    trainer = pnn.Trainer(net, method, optimizer, batch_size=6, seed=2)
    trainer.fit(x, y, epochs=2, validation=(x, y))
    trainer.save(tmp_path / "run.pnn")
    loaded = pnn.Trainer.load(tmp_path / "run.pnn", threads=2)
    assert loaded.method == trainer.method
    assert repr(loaded) == repr(trainer)
    assert repr(loaded.optimizer) == repr(optimizer)
    assert loaded.system.to_config() == net.to_config()
    assert parameter_bytes(loaded.system) == parameter_bytes(net)
    assert set(loaded.memory) == set(trainer.memory)
    for name, array in trainer.memory.items():
        np.testing.assert_array_equal(loaded.memory[name], array)
    assert (loaded.epoch, loaded.step, loaded.seed, loaded.batch_size, loaded.threads) == (
        2,
        0,
        2,
        6,
        2,
    )
    for key in pnn.History.KEYS:
        expected = np.full(2, np.nan) if key == "seconds" else trainer.history[key]
        np.testing.assert_array_equal(loaded.history[key], expected)
    loaded.save(tmp_path / "again.pnn")
    assert (tmp_path / "again.pnn").read_bytes() == (tmp_path / "run.pnn").read_bytes()


def test_an_untrained_trainer_can_be_saved(tmp_path):
    trainer, x, y = trained(epochs=0)
    trainer.save(tmp_path / "run.pnn")
    loaded = pnn.Trainer.load(str(tmp_path / "run.pnn"))
    assert loaded.history.epochs == 0
    loaded.fit(x, y, epochs=1)
    trainer.fit(x, y, epochs=1)
    assert parameter_bytes(loaded.system) == parameter_bytes(trainer.system)


def test_safetensors_reads_the_file(saved):
    safetensors = pytest.importorskip("safetensors.numpy")
    trainer = pnn.Trainer.load(saved)
    tensors = safetensors.load_file(saved)
    np.testing.assert_array_equal(tensors["params/W1"], trainer.system.params["W1"])
    assert {"params/b2", "memory/mean/W1", "memory/square/b2", "history/loss"} <= set(tensors)


def test_the_file_before_is_kept(tmp_path):
    trainer, x, y = trained()
    path = tmp_path / "run.pnn"
    trainer.save(path)
    first = path.read_bytes()
    trainer.fit(x, y, epochs=1)
    trainer.save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.pnn", "run.pnn.prev"]
    assert (tmp_path / "run.pnn.prev").read_bytes() == first
    assert pnn.Trainer.load(tmp_path / "run.pnn.prev").epoch == 2
    assert pnn.Trainer.load(path).epoch == 3


def test_no_wall_time_in_the_file(tmp_path):
    contents = set()
    for pause in (0, 0.05):
        trainer, *_ = trained()
        time.sleep(pause)
        trainer.save(tmp_path / "run.pnn")
        contents.add((tmp_path / "run.pnn").read_bytes())
    assert len(contents) == 1


def test_every_truncation_is_refused(saved):
    content = saved.read_bytes()
    for length in [*range(300), *range(300, len(content), 41), len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"run\.pnn"):
            pnn.Trainer.load(saved)
    for tail in (b"\0", b"x" * 100, content):
        saved.write_bytes(content + tail)
        with pytest.raises(CheckpointError, match=r"run\.pnn"):
            pnn.Trainer.load(saved)


def test_every_damaged_byte_is_refused(saved):
    content = bytearray(saved.read_bytes())
    rng = np.random.default_rng(0)
    for place in [*range(120), *rng.integers(120, len(content), 800).tolist()]:
        damaged = content.copy()
        damaged[place] ^= 1 << rng.integers(8)
        saved.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"run\.pnn"):
            pnn.Trainer.load(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"\x80\x04K\x01.",
        b"PK\x03\x04" + b"\0" * 100,
        b"x" * 10_000,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 16) + b'{"a":{"b":[1]}} ',
        b"{" * 5000,
    ],
    ids=[
        "empty",
        "zeros",
        "pickle",
        "zip",
        "text",
        "huge header",
        "no metadata",
        "wrong metadata",
        "braces",
    ],
)
def test_foreign_files_are_refused(content, tmp_path):
    path = tmp_path / "foreign.pnn"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"foreign\.pnn"):
        pnn.Trainer.load(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        pnn.Trainer.load(tmp_path / "none.pnn")
    assert caught.value.filename == str(tmp_path / "none.pnn")
    with pytest.raises(OSError, match=tmp_path.name):
        pnn.Trainer.load(tmp_path)
    trainer, *_ = trained(epochs=0)
    with pytest.raises(FileNotFoundError):
        trainer.save(tmp_path / "no folder" / "run.pnn")
    with pytest.raises(OSError):  # noqa: PT011
        trainer.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    trainer, *_ = trained(epochs=0)
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        trainer.save(tmp_path / "run.pnn")


def rewrite(path, change):
    """Write the checkpoint again with other metadata or tensors, with a valid digest."""
    text, tensors = pnn._core.load(str(path))
    metadata = json.loads(text)
    change(metadata, tensors)
    pnn._core.save(str(path), json.dumps(metadata), tensors)


def test_sound_files_that_are_no_trainer_are_refused(saved):
    content = saved.read_bytes()

    def refused(match, change):
        saved.write_bytes(content)
        rewrite(saved, change)
        with pytest.raises(CheckpointError, match=match):
            pnn.Trainer.load(saved)

    refused("schema 1; this pnncore reads 10", lambda m, t: m.update(schema=1))
    refused("schema None", lambda m, t: m.clear())
    refused(r"is no checkpoint .*missing \['trainer'\]", lambda m, t: m.pop("trainer"))
    refused(r"missing \['seed'\]", lambda m, t: m["trainer"].pop("seed"))
    refused(r"missing \['optimizer'\]", lambda m, t: m.pop("optimizer"))
    refused(
        "holds nothing for params/W1, but the system needs float32", lambda m, t: t.pop("params/W1")
    )
    refused("holds nothing for memory/mean/b2", lambda m, t: t.pop("memory/mean/b2"))
    refused(r"a history .*missing \['loss'\]", lambda m, t: t.pop("history/loss"))
    refused(
        r"holds float32 \(8, 6\) for params/W1, but the system needs float32 \(6, 8\)",
        lambda m, t: t.update({"params/W1": np.ascontiguousarray(t["params/W1"].T)}),
    )
    refused(
        "holds float64", lambda m, t: t.update({"params/W1": t["params/W1"].astype(np.float64)})
    )
    refused("unknown system 'Crystal'", lambda m, t: m["system"].update(name="Crystal"))
    refused("unknown method 'Alchemy'", lambda m, t: m["method"].update(name="Alchemy"))
    refused("unknown optimizer 'Prayer'", lambda m, t: m["optimizer"].update(name="Prayer"))
    refused("a system of the user's own, Hopfield", lambda m, t: m.update(system=None))


def test_a_file_of_another_system_is_refused(saved):
    for other, name in [
        (pnn.systems.Hopfield([6, 9, 3]), "params/W1"),
        (pnn.systems.Hopfield([6, 8, 7, 3]), "params/W2"),
        (pnn.systems.Hopfield([6, 8, 3], dtype="float64"), "params/W1"),
    ]:
        with pytest.raises(CheckpointError, match=f"for {name}, but the system needs"):
            pnn.Trainer.load(saved, system=other)


def test_a_refused_file_leaves_the_users_system_alone(saved):
    # W1 and b1 of the file fit, W2 does not.
    other = pnn.systems.Hopfield([6, 8, 4], seed=9)
    before = parameter_bytes(other)
    with pytest.raises(CheckpointError, match="for params/W2"):
        pnn.Trainer.load(saved, system=other)
    assert parameter_bytes(other) == before


def test_loading_into_an_equal_system(saved):
    mine = pnn.systems.Hopfield([6, 8, 3], seed=99)
    loaded = pnn.Trainer.load(saved, system=mine)
    assert loaded.system is mine
    assert parameter_bytes(mine) == parameter_bytes(pnn.Trainer.load(saved).system)


@pytest.mark.parametrize("change", [{"seed": 1}, {"noise": 0.9}, {"mismatch": 0.2}])
def test_a_system_that_contradicts_the_file_is_refused(tmp_path, change):
    def make(**settings):
        medium = [pnn.layers.Speckle(6, 8), pnn.layers.Normalize(), pnn.layers.Linear(8, 3)]
        return pnn.systems.Stack(medium, **{"seed": 0, "noise": 0.1, "mismatch": 0.1, **settings})

    trainer = pnn.Trainer(make(), pnn.methods.PhysicsAware(), optim.SGD(0.1), seed=0)
    trainer.save(tmp_path / "run.pnn")
    assert pnn.Trainer.load(tmp_path / "run.pnn", system=make()).epoch == 0
    with pytest.raises(CheckpointError, match=rf"was made with system\.{next(iter(change))} = "):
        pnn.Trainer.load(tmp_path / "run.pnn", system=make(**change))


def test_another_activation_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"was made with system\.activation = 'hard-sigmoid'"):
        pnn.Trainer.load(saved, system=pnn.systems.Hopfield([6, 8, 3], activation="tanh"))


@pytest.mark.parametrize("optimizer", [optim.SGD(0.05, momentum=0.9), optim.Adam(0.01)])
@pytest.mark.parametrize("hook", ["on_epoch", "on_step"])
def test_what_a_new_optimizer_keeps_begins_anew(tmp_path, optimizer, hook):
    path = tmp_path / "run.pnn"

    class Change(pnn.Callback):
        pass

    def change(self, trainer):
        if trainer.epoch == 2:
            trainer.optimizer = optimizer

    setattr(Change, hook, change)
    trainer, x, y = trained(callbacks=[Change(), pnn.Checkpoint(path)], epochs=4)
    assert {name for name in trainer.memory if name.startswith("optimizer/") or "W1" in name}
    loaded = pnn.Trainer.load(path)
    trainer.callbacks.clear()
    trainer.fit(x, y, epochs=1)
    loaded.fit(x, y, epochs=1)
    assert parameter_bytes(trainer.system) == parameter_bytes(loaded.system)


def test_nothing_is_saved_that_cannot_be_loaded(tmp_path):
    path = tmp_path / "run.pnn"
    trainer, _, _ = trained()
    trainer.save(path)
    before = path.read_bytes()
    trainer.method = pnn.methods.Backprop()
    with pytest.raises(pnn.errors.CapabilityError):
        trainer.save(path)
    assert path.read_bytes() == before
    assert pnn.Trainer.load(path).epoch == trainer.epoch


def test_a_schedule_of_ones_own_needs_the_optimizer(tmp_path):
    class Mine:
        def factor(self, epoch):
            return 1 / (1 + epoch)

    optimizer = optim.Adam(0.01, schedule=Mine())
    trainer, x, y = trained(optimizer=optimizer)
    trainer.save(tmp_path / "run.pnn")
    with pytest.raises(
        CheckpointError,
        match=r"schedule 'Mine' is not part of pnncore; pass the optimizer when loading",
    ):
        pnn.Trainer.load(tmp_path / "run.pnn")
    loaded = pnn.Trainer.load(tmp_path / "run.pnn", optimizer=optimizer)
    loaded.fit(x, y, epochs=1)
    trainer.fit(x, y, epochs=1)
    assert parameter_bytes(loaded.system) == parameter_bytes(trainer.system)
    with pytest.raises(CheckpointError, match="holds nothing for memory/velocity/W1"):
        pnn.Trainer.load(tmp_path / "run.pnn", optimizer=optim.SGD(0.1, momentum=0.9))


def test_checkpoint_callback(tmp_path):
    path = tmp_path / "run.pnn"
    saves = []

    class Watch(pnn.Callback):
        def on_epoch(self, trainer):
            saves.append(pnn.Trainer.load(path).epoch if path.exists() else 0)

    trainer, x, y = trained(epochs=0, callbacks=[pnn.Checkpoint(path, epochs=2), Watch()])
    trainer.fit(x, y, epochs=5)
    assert saves == [0, 2, 2, 4, 4]
    trainer.callbacks = [pnn.Checkpoint(str(path), epochs=None, minutes=1e-9)]
    trainer.fit(x, y, epochs=1)
    loaded = pnn.Trainer.load(path)
    assert (loaded.epoch, loaded.step) == (5, 4), (
        "saved after the last step, before the end of the epoch"
    )
    loaded.fit(x, y, epochs=1)
    assert parameter_bytes(loaded.system) == parameter_bytes(trainer.system)


def test_a_full_disk_keeps_the_last_file(tmp_path):
    code = """
        import errno, resource, signal, sys
        import pnncore as pnn
        from test_checkpoint import trained
        path = sys.argv[1]
        trainer, x, y = trained()
        trainer.save(path)
        before = open(path, "rb").read()
        trainer.fit(x, y, epochs=1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        kept = resource.getrlimit(resource.RLIMIT_FSIZE)
        for limit in (0, 1, 8, 100, 1000, len(before) // 2):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, kept[1]))
            try:
                trainer.save(path)
                print("not refused")
            except OSError as error:
                assert error.errno == errno.EFBIG, error
                assert path in str(error.filename), error
            # And in the middle of a training: the error ends it, what was learned is kept.
            trainer.callbacks = [pnn.Checkpoint(path)]
            epoch = trainer.epoch
            try:
                trainer.fit(x, y, epochs=2)
                print("not refused")
            except OSError as error:
                assert error.errno == errno.EFBIG, error
            assert trainer.epoch == epoch + 1
            trainer.callbacks = []
            resource.setrlimit(resource.RLIMIT_FSIZE, kept)
            assert open(path, "rb").read() == before
            assert pnn.Trainer.load(path).epoch == 2
        trainer.save(path)
        assert pnn.Trainer.load(path).epoch == trainer.epoch
        import os
        print(sorted(os.listdir(os.path.dirname(path))))
    """
    assert run_python(code, tmp_path / "run.pnn").split("\n")[0] == "['run.pnn', 'run.pnn.prev']"


# What is killed over and over: it goes on from its last checkpoint, and saves as often as it can.
VICTIM = """
    import os, sys
    import numpy as np
    import pnncore as pnn
    from helpers import make_batch, make_net
    path, epochs, every = sys.argv[1], 40, sys.argv[2]

    class Progress(pnn.Callback):
        def on_step(self, trainer):
            pass  # one step per leg

    callbacks = [pnn.Checkpoint(path, minutes=None if every == "epoch" else 1e-9)]
    if every != "pause":
        callbacks.append(Progress())
    net = make_net([17, 33, 7, 5], dtype="float32")
    x, y = make_batch(net, 100)
    if os.path.exists(path):
        trainer = pnn.Trainer.load(path, callbacks=callbacks)
    else:
        method = pnn.methods.EquilibriumPropagation(variant="one-sided", sign="random")
        settings = {"batch_size": 16, "seed": 7, "callbacks": callbacks}
        trainer = pnn.Trainer(net, method, pnn.optim.Adam(0.002), **settings)
    print("ready", trainer.epoch, trainer.step, flush=True)
    if trainer.epoch < epochs:
        trainer.fit(x, y, epochs=epochs - trainer.epoch, validation=(x, y))
    trainer.save(path)
    print("done", flush=True)
"""


def victim(path, every):
    return subprocess.Popen(
        [*command(VICTIM), str(path), every],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def kill_and_resume(folder, kills, every, seed):
    undisturbed, disturbed = folder / "undisturbed.pnn", folder / "disturbed.pnn"
    finish(victim(undisturbed, every))
    rng = np.random.default_rng(seed)
    done, progress = 0, (0, 0)
    while done < kills:
        process = victim(disturbed, every)
        word, *counters = process.stdout.readline().split()
        assert word == "ready", process.stderr.read()
        assert tuple(map(int, counters)) >= progress, "nothing that was saved is lost"
        progress = tuple(map(int, counters))
        time.sleep(rng.uniform(0, 0.04))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        if "done" in out:
            disturbed.unlink()
            progress = (0, 0)
        else:
            assert process.returncode == -signal.SIGKILL
            done += 1
    finish(victim(disturbed, every))
    assert disturbed.read_bytes() == undisturbed.read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == [
        name + end for name in ("disturbed.pnn", "undisturbed.pnn") for end in ("", ".prev")
    ], "no temporary file is left"


@pytest.mark.parametrize("every", ["epoch", "step", "pause"])
def test_killed_and_resumed_is_as_if_undisturbed(tmp_path, every):
    kill_and_resume(tmp_path, 3, every, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("every", ["epoch", "step", "pause"])
def test_killed_a_hundred_times(tmp_path, every):
    kill_and_resume(tmp_path, 100, every, seed=1)
