"""Cells by themselves: responses to pulses, and cells fitted to measured ones."""

import csv
import dataclasses

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import devices
from pnncore.devices import (
    ConstantStep,
    ExpStep,
    LinearStep,
    MultiCell,
    Pair,
    PowerStep,
    SoftBounds,
    TableStep,
)
from pnncore.errors import ConfigError, DataError, ShapeError


def up(cells, w):
    """The mean step up of a device without spread: the laws as the literature writes them."""
    span = cells.upper - cells.lower
    match cells:
        case LinearStep():
            return cells.step * (1 - cells.gamma_up * w / cells.upper)
        case PowerStep():
            return cells.step * ((cells.upper - w) / span) ** cells.gamma_up
        case ExpStep():
            z = 2 * cells.a * w / span + cells.b
            return cells.step * max(1 - cells.amplitude_up * np.exp(cells.gamma_up * z), 0)
        case TableStep():
            return cells.step * np.interp(
                w, np.linspace(cells.lower, cells.upper, len(cells.up)), cells.up
            )
    return cells.step


LAWS = [
    ConstantStep(step=0.01),
    LinearStep(step=0.01, gamma_up=0.4),
    SoftBounds(step=0.02),
    PowerStep(step=0.03, gamma_up=1.7),
    ExpStep(step=0.01, a=0.5, b=0.1, amplitude_up=0.3, gamma_up=1.5),
    TableStep(step=0.01, up=(2.0, 1.0, 0.5), down=(0.2, 1.0, 3.0)),
]


@pytest.mark.parametrize("cells", LAWS, ids=lambda cells: type(cells).__name__)
def test_responses_are_those_of_the_law(cells):
    cells = cells.without_spread()
    found = cells.pulse([-0.5, 0.0], 60)
    assert found.shape == (61, 2)
    for k, w in enumerate((-0.5, 0.0)):
        for state in found[:, k]:
            assert state == pytest.approx(w, rel=1e-12, abs=1e-12)
            w = min(w + up(cells, w), cells.upper)


def test_soft_bounds_have_a_closed_form():
    cells = SoftBounds(step=0.05, lower=-1.0, upper=0.8).without_spread()
    k = np.arange(101)
    np.testing.assert_allclose(
        cells.pulse(0.1, 100)[:, 0], 0.8 - 0.7 * (1 - 0.05 / 0.8) ** k, rtol=1e-12
    )
    np.testing.assert_allclose(
        cells.pulse(0.1, -100)[:, 0], -1.0 + 1.1 * (1 - 0.05 / 1.0) ** k, rtol=1e-12
    )


def test_trains_one_after_the_other():
    cells = ConstantStep(step=0.1, lower=-0.35, upper=1.0).without_spread()
    found = cells.pulse(0.0, [3, -8, 0, 1])[:, 0]
    down = [0.2, 0.1, 0.0, -0.1, -0.2, -0.3, -0.35, -0.35]
    np.testing.assert_allclose(found, [0.0, 0.1, 0.2, 0.3, *down, -0.25], atol=1e-12)
    assert cells.pulse(7.0, 0).tolist() == [[1.0]]


def test_statistics_of_cells_and_cycles():
    cells = ConstantStep(
        step=0.001, lower=-9, upper=9, up_down_spread=0, lower_spread=0, upper_spread=0
    )
    found = cells.pulse(np.zeros(4000), 50, seed=3)
    steps = np.diff(found, axis=0)
    means = steps.mean(axis=0)
    assert means.mean() == pytest.approx(0.001, rel=0.03)
    # Cells differ by step_spread, and cycles around them by cycle_noise.
    assert means.std() / 0.001 == pytest.approx(np.hypot(0.3, 0.3 / np.sqrt(50)), rel=0.05)
    # The noise of a step is relative to that of the cell.
    assert (steps / means).std() == pytest.approx(0.3, rel=0.05)
    # The same cells, whatever their noise.
    quiet = pnn.devices.from_config({**cells.to_config(), "cycle_noise": 0.0})
    np.testing.assert_allclose(
        np.diff(quiet.pulse(np.zeros(4000), 1, seed=3), axis=0)[0], means, rtol=0.3
    )
    assert (cells.pulse(0.0, 9, seed=1) != cells.pulse(0.0, 9, seed=2)).any()


def test_weights_of_several_cells():
    cells = ConstantStep(step=0.1, lower=0.0, upper=1.0).without_spread()
    found = Pair(cells).pulse(0.0, [2, -3])[:, 0]
    np.testing.assert_allclose(found, [0, 0.1, 0.2, 0.1, 0, -0.1], atol=1e-12)
    both = ConstantStep(step=0.1, lower=-1.0, upper=1.0).without_spread()
    one_by_one = MultiCell(both, (1.0, 0.5)).pulse(0.0, 4)[:, 0]
    np.testing.assert_allclose(one_by_one, [0, 0.1, 0.15, 0.25, 0.3], atol=1e-12)
    together = MultiCell(both, (1.0, 0.5), choice="all").pulse(0.0, 2)[:, 0]
    np.testing.assert_allclose(together, [0, 0.15, 0.3], atol=1e-12)


def test_cells_without_spread_do_not_differ():
    cells = ConstantStep(stuck=0.5, diffusion=0.3, write_noise=0.4, lifetime=30.0).without_spread()
    found = cells.pulse(np.zeros(50), 20)
    assert np.ptp(found, axis=1).max() == 0
    # What a cell loses with time is its mean response.
    assert cells.lifetime == 30.0


def test_what_a_response_cannot_be():
    cells = ConstantStep()
    refuses(ShapeError, "w must be a number", cells.pulse, [[0.0]], 1)
    refuses(DataError, "w must be finite", cells.pulse, np.nan, 1)
    refuses(ConfigError, "n must be", cells.pulse, 0.0, 1.5)
    refuses(ConfigError, "n must be a whole number of at most 10 000 000", cells.pulse, 0, 10**9)
    refuses(ConfigError, "n must be", cells.pulse, 0.0, [1, "a"])
    refuses(ConfigError, "seed must be", cells.pulse, 0.0, 1, seed=-1)


def responses(made, count=80, repetitions=1, *, start=-0.9, seed=0, noise=0.0):
    rises = made.pulse(np.full(repetitions, start), count, seed=seed)
    falls = made.pulse(rises[-1], -count, seed=seed + (1 if repetitions == 1 else 0))
    rng = np.random.default_rng(seed)
    return tuple(one + noise * rng.normal(size=one.shape) for one in (rises, falls))


MADE = {
    "ConstantStep": ConstantStep(step=0.02, up_down=0.1, lower=-1.0, upper=1.0),
    "LinearStep": LinearStep(step=0.04, gamma_up=0.6, gamma_down=0.3, lower=-1.0, upper=1.0),
    "SoftBounds": SoftBounds(step=0.05, up_down=-0.2, lower=-1.1, upper=1.2),
    "PowerStep": PowerStep(step=0.12, gamma_up=1.5, gamma_down=0.8, lower=-1.1, upper=1.1),
    "ExpStep": ExpStep(
        step=0.04,
        a=0.5,
        b=0.0,
        amplitude_up=0.2,
        amplitude_down=0.3,
        gamma_up=1.2,
        gamma_down=0.9,
        lower=-1.0,
        upper=1.0,
    ),
}


@pytest.mark.parametrize("law", MADE)
def test_fits_find_the_device(law):
    made = MADE[law].without_spread()
    rises, falls = responses(made)
    # In another unit: microsiemens.
    found = devices.fit((30 + 7 * rises, 30 + 7 * falls), type(made), bounds=(-0.9, 0.9))
    assert found.r_squared > 0.99999
    assert (found.device.cycle_noise, found.device.write_noise) == pytest.approx((0, 0), abs=0.02)
    offset, slope = found.unit
    for fitted, measured in zip(found.response(), (rises, falls), strict=True):
        assert np.abs(offset + slope * fitted - (30 + 7 * measured[:, 0])).max() < 0.02 * 7
    # The same steps, in units of what was measured.
    for w in (-0.5, 0.0, 0.5):
        g = (30 + 7 * w - offset) / slope
        first = made.pulse(w, 1)[1, 0] - w
        own = found.device.pulse(g, 1)[1, 0] - g
        assert slope * own == pytest.approx(7 * first, rel=0.02)


def test_tables_follow_any_response():
    states = np.linspace(-1, 1, 41)
    made = TableStep.measured(states, 0.03 + 0.02 * np.sin(3 * states), 0.03 - 0.01 * states)
    made = made.without_spread()
    found = devices.fit(responses(made, 120), TableStep)
    assert found.r_squared > 0.9995


def test_noise_is_told_from_errors_of_reading():
    made = SoftBounds(step=0.05, lower=-1.1, upper=1.1).without_spread()
    noisy = pnn.devices.from_config({**made.to_config(), "cycle_noise": 0.4})
    found = devices.fit(responses(noisy, 200, 50, seed=5)).device
    assert found.cycle_noise == pytest.approx(0.4, rel=0.1)
    assert found.write_noise < 0.1
    found = devices.fit(responses(made, 200, 50, noise=0.02)).device
    assert found.write_noise * found.step == pytest.approx(0.02 * 2 / 2.2, rel=0.1)
    assert found.cycle_noise < 0.2
    spread = pnn.devices.from_config({**made.to_config(), "step_spread": 0.25})
    found = devices.fit(responses(spread, 100, 60), columns="cells").device
    assert 0.1 < found.step_spread < 0.4


@pytest.mark.parametrize("count", [35, 120, 250])
@pytest.mark.parametrize(
    "law",
    [
        SoftBounds(step=0.02, lower=-1.0, upper=1.0),
        LinearStep(step=0.02, gamma_up=0.5, gamma_down=0.5, lower=-1.0, upper=1.0),
        ConstantStep(step=0.02, lower=-1.0, upper=1.0),
    ],
    ids=lambda law: type(law).__name__,
)
def test_cells_are_fitted_one_by_one(law, count):
    """The mean of cells is like none of them: those whose steps are large saturate first."""
    made = dataclasses.replace(law.without_spread(), step_spread=0.2)
    rises = made.pulse(np.full(300, -0.5), count)
    falls = made.pulse(rises[-1], -count)
    mean = rises.mean(axis=1)
    bounds = (min(mean.min(), falls.mean(axis=1).min()), mean.max())
    found = devices.fit((rises, falls), type(law), bounds=bounds, columns="cells").device
    assert found.step == pytest.approx(law.step, rel=0.03)
    gains = np.diff(made.pulse(np.zeros(300), 1), axis=0)[0]
    assert found.step_spread == pytest.approx(gains.std(ddof=1) / gains.mean(), rel=0.1)
    assert found.cycle_noise < 0.03
    table = devices.fit((rises, falls), devices.TableStep, bounds=bounds, columns="cells").device
    assert table.step_spread == pytest.approx(gains.std(ddof=1) / gains.mean(), rel=0.15)


def test_files_of_responses(tmp_path):
    made = SoftBounds(step=0.05, lower=-1.1, upper=1.1).without_spread()
    rises, falls = responses(made, 60)
    path = tmp_path / "cell.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["pulse", "Up (uS)", "Down (uS)"])
        for k in range(61):
            writer.writerow([k, rises[k, 0], falls[k, 0] if k < 51 else ""])
    found = devices.fit(path)
    assert (len(found.up), len(found.down)) == (61, 51)
    assert found.r_squared > 0.9999
    assert "60 pulses up and 50 down x 1" in repr(found)
    pytest.importorskip("matplotlib")
    axes = found.plot().axes[0]
    assert "R²" in axes.get_title()
    # The device trains a layer as any other does.
    x, y, *_ = pnn.data.digits()
    net = pnn.systems.Stack([pnn.layers.Crossbar(64, 10, device=found.device)], seed=0)
    trainer = pnn.Trainer(net, pnn.methods.Backprop(), pnn.optim.SGD(0.1), seed=0)
    assert trainer.fit(x[:64], y[:64], epochs=1)["loss"][0] > 0
    for text, match in (
        ("", "is empty"),
        ("a,b\n1,2\n", "as many columns up, up1, up_2, up .unit. as columns down, and no others"),
        ("up\n1\n", "as many columns up"),
        ("up1,up2,down\n1,1,3\n", "as many columns up"),
        ("up,down,upper\n1,2,3\n", "as many columns up"),
        ("up,down,temperature\n1,2,3\n", "as many columns up"),
        ("pulse,up,down\n1,2,3\n2,3,2\n", "must count from 0 on"),
        ("up (uS),down (nS)\n1,2\n", "has responses in several units"),
        ("up,down\n1,9\n2,8\n3,7\n4,6\n", "have nothing in common"),
        ("up;down\n1;2\n", "has semicolons between fields"),
        ("up,down\n1,2\nx,3\n", "row 3: 'x' is no number"),
        ("up,down\n1,2\n2,1\n", "at least 3 pulses"),
        ("up1,up2,down1,down2\n1,1,3,3\n2,,2,2\n3,,1,1\n4,,0,0\n", "different lengths"),
        ("up,down\n4,4\n3,3\n2,2\n1,1\n", "pulses up must raise"),
    ):
        path.write_text(text)
        refuses(DataError, match, devices.fit, path)
    refuses(ConfigError, "cells must be one of", devices.fit, (rises, falls), devices.Device)
    refuses(
        ConfigError,
        "bounds must be below and above zero",
        devices.fit,
        (rises, falls),
        bounds=(1, 2),
    )
    refuses(ConfigError, "measured must be a file", devices.fit, rises)
    twice = np.hstack([rises, rises])
    refuses(DataError, "every cell must go", devices.fit, (twice, falls), columns="cells")
    refuses(DataError, "there is no such file", devices.fit, tmp_path / "nowhere.csv")
