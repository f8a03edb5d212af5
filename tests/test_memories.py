"""Memories that weights are programmed to: statistics against their formulas, and inference over
time."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore.errors import CapabilityError, ConfigError
from pnncore.layers import AnalogIO, Crossbar, Tanh
from pnncore.memories import Mapping, PhaseChange, Resistive, program
from pnncore.methods import PhysicsAware
from pnncore.optim import SGD
from pnncore.systems import Hopfield, Stack
from scipy import stats

N = 200_000
LEVELS = [0.1, 0.3, 0.6, 1.0]
TIMES = [20.0, 3600.0, 86400.0, 3.15e7]


def within(values, mean, deviation):
    """Whether mean and deviation of normal values are as wanted, to four standard errors."""
    n = values.size
    assert abs(values.mean() - mean) < 4 * deviation / n**0.5 + 1e-12
    assert abs(values.std() / deviation - 1) < 4 * (0.5 / n) ** 0.5


@pytest.mark.parametrize("g", LEVELS)
def test_phase_change_memory_has_its_statistics(g):
    memory, random = PhaseChange(), np.random.default_rng(1)
    wanted = np.full(N, g)
    microsiemens = 0.26348 + 1.9650 * g - 1.1731 * g**2
    # At the lowest level one in 10^5 would be negative.
    within(memory.write(wanted, random), g, microsiemens / 25)
    mean = min(max(-0.0155 * np.log(g) + 0.0244, 0.049), 0.1)
    spread = min(max(-0.0125 * np.log(g) - 0.0059, 0.008), 0.045)
    exponents = memory.drift(wanted, random)
    # Exponents are magnitudes.
    folded = stats.foldnorm(mean / spread, scale=spread)
    mean, spread = folded.mean(), folded.std()
    within(exponents, mean, spread)
    q = min(0.0088 / g**0.65, 0.2)
    for t in TIMES:
        drifted = memory.at(wanted, exponents, t)
        if t > 20:
            log = np.log(t / 20)
            within(np.log(drifted / g), -mean * log, spread * log)
        read = memory.read(wanted, drifted, t, random) / drifted
        within(read, 1.0, q * np.sqrt(np.log((t + 250e-9) / 500e-9)))


@pytest.mark.parametrize("g", LEVELS)
def test_resistive_memory_has_its_statistics(g):
    memory, random = Resistive(), np.random.default_rng(1)
    microsiemens = 0.348 + 16.030 * g - 43.853 * g**2 + 45.393 * g**3 - 16.815 * g**4
    within(memory.write(np.full(N, g), random), g, microsiemens / 40)
    assert (memory.at(np.full(3, g), memory.drift(np.full(3, g), random), 1e7) == g).all()


@pytest.fixture(scope="module")
def trained():
    x, y, *_ = pnn.data.digits()
    io = AnalogIO(weight_noise=0.03)
    net = Stack([Crossbar(64, 32, io=io), Tanh(), Crossbar(32, 10, io=io)], seed=0)
    method = PhysicsAware(loss="cross-entropy")
    pnn.Trainer(net, method, SGD(0.2), batch_size=20, seed=0, progress=False).fit(x, y, epochs=10)
    return net


def test_an_ideal_memory_changes_nothing(trained):
    for mapping in (Mapping(), Mapping(per_column=False), Mapping(slices=3, levels=256)):
        same = program(trained, PhaseChange(scale=0.0), mapping=mapping, seed=0).at(1e6)
        for name, w in trained.params.items():
            np.testing.assert_allclose(same.params[name], w, atol=2e-6)
    coarse = program(
        trained, PhaseChange(scale=0.0), mapping=Mapping(slices=2, levels=4), seed=0
    ).at(1e6)
    w = trained.params["W1"]
    step = np.abs(w).max(axis=0) / 15
    assert np.abs((coarse.params["W1"] - w) / step).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("levels", [None, 2, 8, 64])
@pytest.mark.parametrize("on_off", [None, 2.0, 50.0])
@pytest.mark.parametrize("slices", [1, 3])
def test_cells_have_levels_and_a_ratio_of_on_to_off(trained, levels, on_off, slices):
    mapping = Mapping(levels=levels, on_off=on_off, slices=slices)
    programmed = program(trained, PhaseChange(scale=0.0), mapping=mapping, seed=0)
    lowest = 0.0 if on_off is None else 1 / on_off
    steps = (levels or 16) - 1
    for cells in (cell for own in programmed._cells.values() for cell in own):
        assert lowest - 1e-12 <= cells.g.min() <= cells.g.max() <= 1 + 1e-12
        if levels is not None or slices > 1:
            digits = (cells.g - lowest) / (1 - lowest) * steps
            np.testing.assert_allclose(digits, np.rint(digits), atol=1e-9)
    off = np.inf if levels is None and slices == 1 else (steps + 1) ** slices - 1
    for name, own in programmed.at(1.0).params.items():
        if name.startswith("W"):
            w = trained.params[name]
            bound = np.abs(w).max(axis=0) * (0.5 / off + 1e-6)
            assert (np.abs(own - w) <= bound).all()


def test_compensation_mends_drift(trained):
    *_, x, y = pnn.data.digits()
    programmed = program(trained, seed=3)
    found = programmed.scores(x, y, times=[20.0, 3.15e7], repeats=3)
    ideal = trained.score(x, y)
    # Drift makes all weights smaller: by (t / 20 s)^-.05 or so.
    small = np.abs(programmed.at(3.15e7, compensation="none").params["W1"]).mean()
    assert 0.3 < small / np.abs(trained.params["W1"]).mean() < 0.6
    for name in ("global", "column"):
        assert found.scores[name][0].mean() > ideal - 0.03
        assert found.scores[name][1].mean() > ideal - 0.06
    for repeat in (0, 1):
        now = programmed.at(3.15e7, repeat=repeat).params["W1"]
        assert abs(np.abs(now).mean() / np.abs(trained.params["W1"]).mean() - 1) < 0.1
    # The same read gives the same bytes; another one other noise.
    one, same, other = (programmed.at(1e5, repeat=k).params["W1"] for k in (0, 0, 1))
    assert one.tobytes() == same.tobytes() != other.tobytes()
    assert "global" in repr(found)
    assert "writes" in repr(programmed)


def test_verifying_writes_brings_cells_nearer(trained):
    errors = {}
    for verify in (0, 3, 10):
        programmed = program(
            trained, Resistive(), mapping=Mapping(verify=verify, tolerance=0.005), seed=1
        )
        now = programmed.at(1.0, compensation="none").params["W1"] - trained.params["W1"]
        errors[verify] = (float(np.abs(now).mean()), programmed.attempts)
    assert errors[0][0] > 1.5 * errors[3][0] > 1.5 * errors[10][0]
    assert errors[0][1] < errors[3][1] < errors[10][1]


def test_low_digits_matter_little(trained):
    w = trained.params["W1"]
    for bits in (1, 4):
        programmed = program(
            trained, Resistive(), mapping=Mapping(slices=4, levels=2**bits), seed=1
        )
        off = programmed.at(1.0, compensation="none").params["W1"] - w
        # Only the first digit's noise counts: about as much as that of a single cell.
        single = program(trained, Resistive(), seed=1).at(1.0, compensation="none").params["W1"] - w
        assert 0.2 < off.std() / single.std() < 1.5


def test_a_picture_is_drawn(trained, tmp_path):
    *_, x, y = pnn.data.digits()
    scores = program(trained, seed=0).scores(x, y, repeats=2)
    scores.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_bad_settings_are_refused(trained):
    with pytest.raises(CapabilityError, match="Stack"):
        program(Hopfield([2, 2], seed=0))
    with pytest.raises(CapabilityError, match="no crossbars"):
        program(Stack([pnn.layers.Pendula(3)], seed=0))
    with pytest.raises(ConfigError, match="scale must be at least 0"):
        PhaseChange(scale=-1.0)
    with pytest.raises(ConfigError, match=r"at most 2\^24"):
        Mapping(slices=4, levels=256)
    with pytest.raises(ConfigError, match="levels must be an integer from 2"):
        Mapping(levels=1)
    with pytest.raises(ConfigError, match="on_off must be above 1"):
        Mapping(on_off=1.0)
    with pytest.raises(ConfigError, match="compensation must be"):
        program(trained, seed=0).at(1.0, compensation="local")
    with pytest.raises(ConfigError, match="Memory"):
        program(trained, "PCM")
