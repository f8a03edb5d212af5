"""Banks of microrings, beside products of Lorentzians and the transfer matrix of rings."""

import dataclasses
import json

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import ConfigError, DataError, ShapeError


def bank(*sizes, seed=0, dtype="float64", **settings):
    return pnn.systems.Stack([layers.MicroringBank(*sizes, **settings)], dtype=dtype, seed=seed)


def lorentzian(off):
    return 1 / (1 + (2 * off) ** 2)


def weights_of(detuning, spacing, finesse, drop=lorentzian):
    """One bus, one channel, one ring after the other."""
    outputs, inputs = detuning.shape
    found = np.zeros((outputs, inputs))
    for i in range(outputs):
        for k in range(inputs):
            power = dropped = 1.0
            for j in range(inputs):
                off = detuning[i, j] + spacing * (j - k)
                off -= finesse * np.round(off / finesse)
                power *= 1 - drop(off)
            dropped = 1 - power
            found[i, k] = (dropped - power) / outputs
    return found


def airy(finesse):
    """What a ring between two like couplers drops: fields that go round and round, added up.

    The couplers are those of rings with this finesse, π r / (1 - r²) for amplitudes r that pass.
    """
    r = np.sqrt(1 + (np.pi / (2 * finesse)) ** 2) - np.pi / (2 * finesse)
    width = 2 * np.arcsin((1 - r**2) / (2 * r)) / np.pi

    def drop(off):
        phase = 2 * np.pi * off * width
        crossed = 1j * np.sqrt(1 - r**2)
        field = crossed * crossed * np.exp(0.5j * phase) / (1 - r**2 * np.exp(1j * phase))
        return np.abs(field) ** 2

    return drop


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 2), (6, 4), (4, 7)])
@pytest.mark.parametrize("spacing", [1.5, 10.0])
def test_weights_are_those_of_rings_one_after_the_other(inputs, outputs, spacing):
    net = bank(inputs, outputs, spacing=spacing, finesse=90.0)
    net.params["detuning1"][...] += np.random.default_rng(0).normal(size=(outputs, inputs))
    wanted = weights_of(net.params["detuning1"], spacing, 90.0)
    x = np.random.default_rng(1).uniform(size=(9, inputs))
    np.testing.assert_allclose(net.predict(x), x @ wanted.T, atol=1e-14)
    assert (np.abs(wanted) <= 1 / outputs + 1e-15).all()


def test_the_transfer_matrix_of_rings_is_met_as_one_over_finesse():
    """Lorentzians are the limit of rings whose light goes round many times."""
    detuning = np.random.default_rng(0).uniform(0.1, 1.2, size=(2, 4))
    off = []
    for finesse in (50.0, 100.0, 200.0, 400.0):
        net = bank(4, 2, spacing=6.0, finesse=finesse)
        net.params["detuning1"][...] = detuning
        found = net.predict(np.eye(4)).T
        # Rings are nearest to their resonances as they are: no order is wrapped by hand.
        exact = weights_of(detuning, 6.0, 1e300, airy(finesse))
        off.append(np.abs(found - exact).max())
    order = np.polyfit(np.log([50, 100, 200, 400]), np.log(off), 1)[0]
    assert order < -0.9, off
    assert off[-1] < 1e-3


@pytest.mark.parametrize(
    "hardware",
    [{}, {"mismatch": 0.1}, {"crosstalk": 0.1, "resonance_error": 0.2, "mismatch": 0.1}],
)
def test_derivatives_are_those_of_differences(hardware):
    net = bank(5, 3, spacing=2.0, finesse=30.0, **hardware)
    # A channel that is dropped entirely, too, has the slopes of its neighbours.
    net.params["detuning1"][0, :2] = 0.0, 1e-9
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(7, 5)), rng.normal(size=(7, 3))
    exact = methods.Backprop(model="hardware").gradient(net, x, y)["detuning1"]
    near = methods.FiniteDifference(epsilon=1e-5).gradient(net, x, y)["detuning1"]
    np.testing.assert_allclose(exact, near, atol=1e-9)
    dy = rng.normal(size=(7, 3))
    twin = bank(5, 3, spacing=2.0, finesse=30.0)
    twin.params["detuning1"][...] = net.params["detuning1"]
    np.testing.assert_allclose(net.vjp(x, dy)[0], dy @ twin.predict(np.eye(5)).T, atol=1e-14)


@pytest.mark.parametrize("spacing", [3.0, 10.0, 40.0])
def test_matrices_are_programmed_in_spite_of_skirts(spacing):
    wanted = np.random.default_rng(0).normal(size=(4, 6))
    mesh = layers.MicroringBank(6, 4, spacing=spacing, finesse=300.0)
    for factor in (1.0, 1e-200, 1e200):
        made = mesh.program(factor * wanted)
        assert made.error < 1e-12
        assert made.fidelity == pytest.approx(1, abs=1e-12)
    net = bank(6, 4, spacing=spacing, finesse=300.0)
    made = mesh.program(wanted)
    made.write(net, 1)
    x = np.random.default_rng(1).uniform(size=(5, 6))
    np.testing.assert_allclose(made.scale * net.predict(x), x @ wanted.T, atol=1e-11)
    plain = 0.5 * np.sqrt(2 / (1 + 4 * wanted / made.scale) - 1)
    assert np.abs(made.params["detuning"] - plain).max() > 1e-4, "skirts were made up for"


def test_hardware_is_off_as_it_says():
    twin = bank(6, 4)
    settings = twin.params["detuning1"]
    x = np.eye(6)

    def found(seed=0, **hardware):
        net = bank(6, 4, seed=seed, **hardware)
        net.params["detuning1"][...] = settings
        return net.predict(x).T

    step = 10.0 / 2**6
    rounded = np.round(settings / step) * step
    np.testing.assert_allclose(found(bits=6), weights_of(rounded, 10.0, 400.0), atol=1e-14)
    moved = settings.copy()
    moved[:, 1:] += 0.1 * settings[:, :-1]
    moved[:, :-1] += 0.1 * settings[:, 1:]
    np.testing.assert_allclose(found(crosstalk=0.1), weights_of(moved, 10.0, 400.0), atol=1e-14)
    plain, slope = weights_of(settings, 10.0, 400.0), 1e-6
    slope = (weights_of(settings + 1e-6, 10.0, 400.0) - plain) / 1e-6
    off = [found(seed, resonance_error=1e-4) - plain for seed in range(200)]
    np.testing.assert_allclose(np.std(off, axis=0), 1e-4 * np.abs(slope), rtol=0.25, atol=1e-7)


def test_resonances_drift_while_a_bank_learns(tmp_path):
    x, y, x_test, y_test = pnn.data.iris(seed=0)
    chain = [layers.MicroringBank(4, 6, crosstalk=0.02, drift=0.002), layers.Tanh()]
    net = pnn.systems.Stack([*chain, layers.Linear(6, 3)], noise=0.005, seed=0)
    trainer = pnn.Trainer(
        net, methods.PhysicsAware(loss="cross-entropy"), pnn.optim.Adam(0.02), batch_size=10, seed=0
    )
    trainer.fit(x, y, epochs=40)
    assert net.score(x_test, y_test) > 0.85
    assert 0 < np.abs(net.memory["detuning_drift1"]).max() < 0.5
    trainer.save(tmp_path / "rings.pnn")
    again = pnn.Trainer.load(tmp_path / "rings.pnn").system
    assert again.predict(x_test).tobytes() == net.predict(x_test).tobytes()


def test_settings_go_to_files_and_back():
    own = layers.MicroringBank(3, 2, spacing=5.0, finesse=50.0, bits=8, drift=0.1)
    assert layers.from_config(json.loads(json.dumps(own.to_config()))) == own
    assert eval(repr(own), {"MicroringBank": layers.MicroringBank}) == own
    assert dataclasses.replace(own, bits=None) != own


def test_threads_do_not_matter():
    net = bank(20, 16, dtype="float32", mismatch=0.1)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(90, 20)), rng.normal(size=(90, 16))
    one, *others = [
        methods.PhysicsAware().gradient(net, x, y, threads=threads)["detuning1"].tobytes()
        for threads in (1, 2, 3, 8)
    ]
    assert all(other == one for other in others)


def test_what_is_no_bank_is_refused():
    refuses(ConfigError, "channels overlap", bank, 3, 2, spacing=0.5)
    refuses(ConfigError, "more than the finesse.*smaller spacing", bank, 30, 2, finesse=200.0)
    refuses(ConfigError, "bits must be from 1 to 24", bank, 3, 2, bits=25)
    refuses(ConfigError, "drift must be at least 0", bank, 3, 2, drift=-1.0)
    refuses(ConfigError, "finesse must be a positive number", bank, 3, 2, finesse=0.0)
    rings = layers.MicroringBank(3, 2)
    refuses(ShapeError, r"matrix must have shape \(2, 3\)", rings.program, np.ones((3, 2)))
    refuses(DataError, "from 1e-300 to 1e300", rings.program, np.zeros((2, 3)))
    refuses(ConfigError, "params must be a dictionary of detuning", rings.matrix, {"theta": 1})
    refuses(ShapeError, r"detuning must have shape \(2, 3\)", rings.matrix, {"detuning": [[1.0]]})
