"""Devices of crossbars: what training makes of them, and algorithms against short references."""

import dataclasses

import numpy as np
import pnncore as pnn
import pytest
from pnncore import devices
from pnncore.errors import CheckpointError, ConfigError, DataError
from pnncore.layers import AnalogIO, Crossbar, Logistic
from pnncore.methods import Backprop, InSituBackprop
from pnncore.optim import SGD, Adam
from pnncore.systems import Stack

RANDOM = np.random.default_rng(0)
PLAIN = devices.ConstantStep(step=0.01).without_spread()


def network(device, algorithm=None, seed=0, hidden=64, **more):
    both = {"device": device, "algorithm": algorithm, **more}
    return Stack(
        [Crossbar(64, hidden, **both), Logistic(), Crossbar(hidden, 10, **both)], seed=seed
    )


def train(net, epochs=20, rate=0.3, seed=0, batch_size=10):
    x, y, *_ = pnn.data.digits()
    method = InSituBackprop(loss="cross-entropy")
    trainer = pnn.Trainer(net, method, SGD(rate), batch_size=batch_size, seed=seed, progress=False)
    trainer.fit(x, y, epochs=epochs)
    return trainer


def accuracy(*args, **more):
    *_, x_test, y_test = pnn.data.digits()
    scores = []
    for seed in range(3):
        net = network(*args, seed=seed, **more)
        train(net, seed=seed)
        scores.append(net.score(x_test, y_test))
    return np.mean(scores)


def test_an_asymmetric_device_breaks_descent_and_tiki_taka_mends_it():
    assert accuracy(None) > 0.95
    assert accuracy(devices.ConstantStep()) > 0.94
    assert accuracy(devices.ReRamSB()) < 0.6
    best = {"v1": 0.1, "v2": 0.03, "agad": 0.03, "chopped": 0.03}
    fast = {"v1": None, "v2": 1.0, "agad": 3.0, "chopped": 3.0}
    for version, floor in (("v1", 0.89), ("v2", 0.91), ("chopped", 0.8), ("agad", 0.91)):
        algorithm = devices.TikiTaka(version=version, rate=best[version], fast_rate=fast[version])
        assert accuracy(devices.ReRamSB(), algorithm) > floor, version


def test_mixed_precision_and_pairs_learn():
    assert accuracy(devices.ReRamSB(), devices.MixedPrecision()) > 0.7
    assert accuracy(devices.PCM(), devices.MixedPrecision()) > 0.9


def trains_of(values, scale, slots, first):
    """Deterministic trains of a vector: masks (slots, n), and signs."""
    counts = np.floor(np.minimum(np.abs(values) * scale, 1.0) * slots + 0.5)
    slot = np.arange(slots)[:, None]
    if first:
        return slot < counts, np.sign(values)
    before = np.floor((2 * counts * np.arange(slots + 1)[:, None] + slots) / (2 * slots))
    return before[1:] > before[:-1], np.sign(values)


class Reference:
    """A crossbar of noiseless constant steps, trained by Tiki-Taka with deterministic trains of
    31 slots."""

    def __init__(self, w, version, *, step, fast_rate, rate, every, threshold, momentum, period):
        self.c, self.a = w.copy(), np.zeros_like(w)
        self.sum, self.mean, self.past = (np.zeros_like(w) for _ in range(3))
        self.transfers = np.zeros(len(w), dtype=int)
        self.version, self.step, self.fast_rate, self.rate = version, step, fast_rate, rate
        self.every, self.threshold, self.momentum, self.period = every, threshold, momentum, period
        self.due, self.line = 0.0, 0
        self.chops = version in ("chopped", "agad")

    def clip(self, w):
        return np.clip(w, -0.6, 0.6)

    def update(self, x, d):
        signs = np.where((self.transfers // self.period) % 2 * self.chops, -1.0, 1.0)
        scale = np.sqrt(self.fast_rate / (self.step * 31))
        for row, error in zip(x * signs, -d, strict=True):
            on_rows, sign_x = trains_of(row, scale, 31, True)
            on_columns, sign_d = trains_of(error, scale, 31, False)
            counts = np.einsum("tj,ti->ji", on_rows.astype(float), on_columns.astype(float))
            self.a = self.clip(self.a + self.step * counts * np.outer(sign_x, sign_d))
        self.due += len(x) / self.every
        while self.due >= 1:
            self.due -= 1
            self.transfer(self.line)
            self.line = (self.line + 1) % len(self.c)

    def transfer(self, j):
        period, v = self.transfers[j] // self.period * self.chops, self.a[j].copy()
        if period and self.transfers[j] % self.period == 0:
            self.past[j] = self.mean[j]
        signal = v - self.past[j] if self.version == "agad" else v
        self.mean[j] += min(5 / self.period, 1) * (v - self.mean[j])
        self.sum[j] += (-1) ** period * self.rate / (self.threshold * self.step) * signal
        pulses = np.trunc(self.sum[j])
        self.sum[j] -= (1 - self.momentum) * pulses
        if self.version == "agad" and period == 0:
            pulses[:] = 0
        self.c[j] = self.clip(self.c[j] + self.step * pulses)
        self.transfers[j] += 1


@pytest.mark.parametrize("version", ["v2", "chopped", "agad"])
@pytest.mark.parametrize("every", [1.0, 2.5])
def test_schedules_of_tiki_taka_are_those_of_a_short_reference(version, every):
    own = {
        "fast_rate": 0.4,
        "rate": 0.3,
        "every": every,
        "threshold": 1.31373,
        "momentum": 0.2371,
        "period": 3,
    }
    layer = Crossbar(
        7,
        5,
        bias=False,
        io=AnalogIO.ideal(),
        device=PLAIN,
        trains=devices.PulseTrains(kind="deterministic", manage_length=False, balance=False),
        algorithm=devices.TikiTaka(version=version, **own),
    )
    net = Stack([layer], dtype="float64", seed=1)
    reference = Reference(net.params["W1"], version, step=0.01, **own)
    trainer = pnn.Trainer(net, Backprop(), SGD(0.1), batch_size=4, seed=0, progress=False)
    x, y = RANDOM.normal(size=(4, 7)), RANDOM.normal(size=(4, 5))
    for _ in range(60):
        order = pnn._core.permutation(4, 0, trainer.epoch)
        rows, targets = x[order], y[order]
        gradient = (rows @ reference.c - targets) / 4
        trainer.fit(x, y, epochs=1)
        reference.update(rows, gradient)
        np.testing.assert_allclose(net.params["W1"], reference.c, atol=1e-10)
        np.testing.assert_allclose(trainer.memory["cells/W1/fast"], reference.a, atol=1e-10)
    assert np.abs(reference.c - reference.c.round(2)).max() > 0
    assert reference.transfers.min() > 3 * 3 - 1


def test_the_first_version_transfers_what_it_reads_without_a_sum():
    own = devices.TikiTaka(version="v1", rate=0.2, fast_rate=0.4)
    layer = Crossbar(1, 3000, bias=False, io=AnalogIO.ideal(), device=PLAIN, algorithm=own)
    net = Stack([layer], dtype="float64", seed=1)
    net.params["W1"][...] = 0.0
    trainer = pnn.Trainer(net, Backprop(), SGD(0.1), batch_size=1, seed=0, progress=False)
    trainer.fit(np.ones((1, 1)), RANDOM.uniform(-1, 1, size=(1, 3000)), epochs=1)
    assert list(trainer.memory) == [
        f"cells/W1/{name}" for name in ("pulses", "fast", "fast_pulses", "clock")
    ]
    # Rounded at random to one of the two next pulses.
    off = net.params["W1"] - 0.2 * trainer.memory["cells/W1/fast"]
    assert np.abs(off).max() < 0.01
    assert abs(off.mean()) < 4.5 * off.std() / np.sqrt(off.size)


def test_pulses_are_counted_and_saved(tmp_path):
    x, y, *_ = pnn.data.digits()
    algorithm = devices.TikiTaka(version="agad", rate=0.03, fast=devices.ReRamES())
    net = network(devices.ReRamSB(), algorithm, hidden=16)
    trainer = train(net, epochs=2)
    counted = sum(array.sum() for name, array in trainer.memory.items() if name.endswith("pulses"))
    assert trainer.history["pulses"].sum() == counted > 0
    trainer.save(tmp_path / "a.pnn")
    loaded = pnn.Trainer.load(tmp_path / "a.pnn", progress=False)
    assert loaded.system.layers == net.layers
    for one in (trainer, loaded):
        one.fit(x, y, epochs=1)
        one.save(tmp_path / f"{one is loaded}.pnn")
    assert (tmp_path / "True.pnn").read_bytes() == (tmp_path / "False.pnn").read_bytes()


@pytest.mark.parametrize("make", devices.PRESETS.values(), ids=list(devices.PRESETS))
def test_presets_train_and_restore(make):
    device = make()
    net = network(device, hidden=8)
    before = {name: array.copy() for name, array in net.params.items()}
    train(net, epochs=1)
    assert all((net.params[name] != before[name]).any() for name in ("W1", "W3"))
    assert devices.from_config(device.to_config()) == device
    assert eval(repr(device), vars(devices)) == device


def test_other_optimizers_and_methods_write_cell_by_cell():
    x, y, x_test, y_test = pnn.data.digits()
    scores = []
    for device in (None, devices.Idealized()):
        net = network(device, hidden=16)
        pnn.Trainer(net, Backprop(), Adam(0.005), seed=0, progress=False).fit(x, y, epochs=5)
        scores.append(net.score(x_test, y_test))
    assert abs(scores[0] - scores[1]) < 0.03
    net = network(devices.GokmenVlasov(), hidden=8)
    trainer = pnn.Trainer(
        net, pnn.methods.GeneticAlgorithm(), SGD(1.0), batch_size=200, seed=0, progress=False
    )
    trainer.fit(x, y, epochs=1)
    assert trainer.history["pulses"][0] > 0


def test_measured_steps_make_a_device():
    states = np.array([-0.5, -0.2, 0.1, 0.5])
    device = devices.TableStep.measured(
        states, [0.004, 0.003, 0.002, 0.0], [0.0, 0.001, 0.002, 0.004]
    )
    assert (device.lower, device.upper) == (-0.5, 0.5)
    assert device.step == pytest.approx((0.0023333 + 0.0016667) / 2, rel=1e-4)
    soft = devices.SoftBounds(step=0.002, lower=-0.8, upper=0.8).without_spread()
    table = devices.TableStep.of(
        lambda w: 0.002 * (1 - w / 0.8), lambda w: 0.002 * (1 + w / 0.8), lower=-0.8, upper=0.8
    ).without_spread()
    ends = []
    for device in (soft, table):
        net = network(
            device, hidden=8, trains=devices.PulseTrains(kind="deterministic", at_once=False)
        )
        train(net, epochs=1)
        ends.append(net.params["W1"])
    np.testing.assert_allclose(*ends, atol=1e-4)
    assert devices.SoftBounds(
        step=0.002, lower=-0.75, upper=1.25, up_down=0.3
    ).symmetric_point() == pytest.approx((0.002 - 0.0014) / (0.002 / 1.25 + 0.0014 / 0.75))


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="step must be a positive number"):
        Crossbar(3, 2, device=devices.ConstantStep(step=0.0))
    with pytest.raises(ConfigError, match="zero must lie within"):
        Crossbar(3, 2, device=devices.ConstantStep(lower=0.1))
    with pytest.raises(ConfigError, match="lower must be 0"):
        Crossbar(3, 2, device=devices.Pair(devices.ConstantStep()))
    with pytest.raises(ConfigError, match="needs a device"):
        Crossbar(3, 2, algorithm=devices.MixedPrecision())
    with pytest.raises(ConfigError, match="every must be a positive number"):
        Crossbar(3, 2, device=PLAIN, algorithm=devices.TikiTaka(every=0.0))
    with pytest.raises(
        ConfigError, match=r"device must be pnncore.devices.Cells or pnncore.devices.Pair"
    ):
        Crossbar(3, 2, device="ReRamSB")
    with pytest.raises(ConfigError, match="slots must be 1 to 31"):
        devices.PulseTrains(slots=32)
    with pytest.raises(ConfigError, match="states must increase"):
        devices.TableStep.measured([0.0, 0.0], [1, 1], [1, 1])
    with pytest.raises(ConfigError, match="at least two steps"):
        Crossbar(3, 2, device=devices.TableStep(up=[1.0]))
    with pytest.raises(ConfigError, match="no symmetric point"):
        devices.LinearStep(gamma_up=0.0, gamma_down=0.0).symmetric_point()


def test_weights_that_cells_cannot_have_are_refused_until_they_are_clipped():
    x, *_ = pnn.data.digits()
    net = network(devices.ConstantStep(), hidden=8)
    net.params["W1"][3, 4] = 7.0
    with pytest.raises(DataError, match=r"W1 holds 7 at \(3, 4\)"):
        net.predict(x[:2])
    net.clip()
    assert 0.1 < net.params["W1"][3, 4] < 2.0
    net.predict(x[:2])


def test_checkpoints_of_other_cells_are_refused(tmp_path):
    trainer = train(network(devices.ReRamSB(), hidden=8), epochs=1)
    trainer.save(tmp_path / "a.pnn")
    with pytest.raises(CheckpointError, match="cells/W1"):
        pnn.Trainer.load(
            tmp_path / "a.pnn",
            system=network(devices.ReRamSB(), devices.MixedPrecision(), hidden=8),
        )
    assert dataclasses.replace(devices.ReRamSB(), step=0.1).step == 0.1


@pytest.mark.parametrize(
    ("device", "algorithm", "floor"),
    [
        (devices.Idealized(), None, 0.92),
        (devices.PCM(), devices.MixedPrecision(), 0.7),
    ],
    ids=["ideal", "PCM"],
)
def test_an_equilibrium_network_learns_with_couplings_in_cells(device, algorithm, floor, tmp_path):
    x, y, x_test, y_test = pnn.data.digits()
    net = pnn.systems.Hopfield([64, 32, 10], device=device, algorithm=algorithm, seed=0)
    method = pnn.methods.EquilibriumPropagation(beta=0.2)
    trainer = pnn.Trainer(net, method, SGD(0.2), batch_size=20, seed=0, progress=False)
    trainer.fit(x, y, epochs=8)
    assert net.score(x_test, y_test) > floor
    assert trainer.history["pulses"].sum() > 0
    trainer.save(tmp_path / "a.pnn")
    loaded = pnn.Trainer.load(tmp_path / "a.pnn")
    assert repr(loaded.system) == repr(net)
    assert loaded.memory.keys() == trainer.memory.keys()


def test_chopping_cancels_what_converters_are_off_by():
    """Where nothing is to be learned, offsets of reads are transferred all the same, unless
    signs change."""
    drift = {}
    for version in ("v2", "chopped"):
        io = AnalogIO(
            input_bits=None,
            output_bits=None,
            output_noise=0.0,
            output_offset=0.05,
            bound_management=False,
        )
        algorithm = devices.TikiTaka(version=version, io=io, rate=0.2, period=5)
        layer = Crossbar(6, 50, bias=False, io=AnalogIO.ideal(), device=PLAIN, algorithm=algorithm)
        net = Stack([layer], dtype="float64", seed=0)
        before = net.params["W1"].copy()
        x = np.full((8, 6), 1e-12)
        trainer = pnn.Trainer(net, Backprop(), SGD(0.1), batch_size=8, seed=0, progress=False)
        trainer.fit(x, x @ before, epochs=45)
        drift[version] = np.abs(net.params["W1"] - before).max()
    assert drift["chopped"] < 0.1 < 0.3 < drift["v2"], drift


def test_a_weight_of_several_cells_learns_and_resumes(tmp_path):
    x, y, x_test, y_test = pnn.data.digits()
    coarse = devices.ConstantStep(step=0.01, lower=-0.4, upper=0.4)
    device = devices.MultiCell(coarse, (1.0, 0.5, 0.25), choice="random")
    net = Stack(
        [Crossbar(64, 32, device=device), Logistic(), Crossbar(32, 10, device=device)], seed=0
    )
    method = Backprop(loss="cross-entropy")
    trainer = pnn.Trainer(net, method, SGD(0.3), batch_size=10, seed=0, progress=False)
    trainer.fit(x, y, epochs=4)
    trainer.save(tmp_path / "run.pnn")
    again = pnn.Trainer.load(tmp_path / "run.pnn", progress=False)
    for own in (trainer, again):
        own.fit(x, y, epochs=2)
    assert all(np.array_equal(again.memory[name], array) for name, array in trainer.memory.items())
    assert {"cells/W1/cell2", "cells/W1/cell3_pulses"} <= set(trainer.memory)
    assert net.score(x_test, y_test) > 0.85
    assert devices.from_config(device.to_config()) == device
    for make, text in (
        (lambda: devices.MultiCell(coarse, (1.0,)), "2 to 16 cells"),
        (lambda: devices.MultiCell(coarse, (1.0, -1.0)), "significance must be a positive number"),
    ):
        with pytest.raises(pnn.errors.ConfigError, match=text):
            Crossbar(2, 2, device=make())
    with pytest.raises(pnn.errors.ConfigError, match="not modelled"):
        Crossbar(2, 2, device=device, algorithm=devices.TikiTaka())
    with pytest.raises(pnn.errors.ConfigError, match="choice must be one of"):
        devices.MultiCell(coarse, choice="best")


@pytest.mark.parametrize(
    "device",
    [
        devices.Pair(devices.ConstantStep(lower=0.0, stuck=0.25)),
        devices.MultiCell(devices.ConstantStep(stuck=0.25)),
        devices.MultiCell(devices.ConstantStep(lower=-0.1, upper=0.1), (1.0, 0.5, 0.25)),
    ],
)
def test_the_first_update_moves_no_weight_further_than_its_pulses(device):
    # Stuck cells, and cells that cannot hold an even share of a weight, stay what they are.
    net = Stack([Crossbar(64, 32, bias=False, io=AnalogIO.ideal(), device=device)], seed=0)
    before = net.params["W1"].copy()
    net.clip()
    assert np.array_equal(net.params["W1"], before)
    x, _, *_ = pnn.data.digits()
    trainer = pnn.Trainer(net, InSituBackprop(), SGD(1e-12), batch_size=1, seed=0, progress=False)
    trainer.fit(x[:3], np.full((3, 32), 0.3, np.float32), epochs=1)
    assert np.abs(net.params["W1"] - before).max() < 1e-6


def test_pulses_of_pairs_count_where_they_go():
    cells = devices.ConstantStep(step=0.001, lower=0.0, upper=1.0).without_spread()
    device = devices.Pair(cells)
    trains = devices.PulseTrains(kind="deterministic")
    net = Stack(
        [Crossbar(3, 2, bias=False, io=AnalogIO.ideal(), device=device, trains=trains)], seed=0
    )
    net.params["W1"][...] = 0.0
    trainer = pnn.Trainer(net, InSituBackprop(), SGD(0.01), batch_size=1, seed=0, progress=False)
    # Outputs of zero, targets of one: ten steps up for every cell.
    history = trainer.fit(np.ones((1, 3), np.float32), np.ones((1, 2), np.float32), epochs=1)
    assert history["pulses"] == [60.0]
    assert trainer.memory["cells/W1/pulses"].sum() == 60.0
    assert trainer.memory["cells/W1/minus_pulses"].sum() == 0.0
    np.testing.assert_allclose(net.params["W1"], 0.01, rtol=1e-5)


def test_pairs_hold_cells():
    for wrong in (3, devices.Pair(devices.ConstantStep(lower=0.0))):
        with pytest.raises(ConfigError, match="cells must be Cells"):
            devices.Pair(wrong)


def test_numbers_of_numpy_are_numbers_and_flags_are_flags():
    io = AnalogIO(input_bits=np.int64(7), stochastic_rounding=np.True_)
    assert Stack([Crossbar(3, 2, io=io)], seed=0).predict(np.ones((1, 3), np.float32)).shape == (
        1,
        2,
    )
    for wrong in (
        lambda: AnalogIO(stochastic_rounding=1),
        lambda: Crossbar(4, 3, bias="no"),
        lambda: devices.LinearStep(mean_bound="no"),
        lambda: pnn.memories.Mapping(per_column="x"),
    ):
        with pytest.raises(ConfigError, match="must be True or False"):
            wrong()
    with pytest.raises(ConfigError, match=r"got -1$"):
        Stack([Crossbar(3, 2, io=AnalogIO(input_bound=-1.0))], seed=0)
    with pytest.raises(ConfigError, match="no symmetric point"):
        devices.LinearStep(upper=0.0, gamma_up=0.0, gamma_down=0.0).symmetric_point()
    for settings in ({"places": -3}, {"up": ["a", "b"]}):
        with pytest.raises(ConfigError):
            devices.TableStep.measured(
                **{"states": [-1.0, 1.0], "up": [1.0, 1.0], "down": [1.0, 1.0], **settings}
            )
