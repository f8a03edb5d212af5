"""What training on crossbars costs: counted by hand."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import costs, devices, layers, plot
from pnncore.errors import CapabilityError, ConfigError
from pnncore.layers import AnalogIO, Crossbar, Tanh


def trained(method, algorithm=None):
    x, y, *_ = pnn.data.digits()
    first = Crossbar(64, 12, tile=(32, 6), device=devices.ConstantStep(), algorithm=algorithm)
    last = Crossbar(
        12, 10, device=devices.ConstantStep(), io=AnalogIO(output_bits=6), algorithm=algorithm
    )
    net = pnn.systems.Stack([first, Tanh(), last], seed=0)
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.1), batch_size=10, seed=0, progress=False)
    trainer.fit(x[:100], y[:100], epochs=2)
    return net, trainer


def test_reads_conversions_and_pulses_are_counted():
    net, trainer = trained(pnn.methods.InSituBackprop())
    history = trainer.history
    assert history["reversed"].tolist() == history["measured"].tolist() == [100, 100]
    ledger = costs.estimate(net, history)
    forward, back = 64 * 12 + 12 * 10, 12 * 10
    assert ledger.counts["cells"].tolist() == [100 * (forward + back)] * 2
    assert ledger.counts["reads"].tolist() == [300.0] * 2
    # The first matrix is cut in four: inputs are converted twice, and outputs, too.
    assert ledger.counts["inputs"].tolist() == [100 * (2 * 64 + 12 + 10)] * 2
    assert ledger.counts["outputs"].tolist() == [100 * (2 * 12 + 10 + 12)] * 2
    assert ledger.counts["pulses"].sum() == sum(
        a.sum() for n, a in trainer.memory.items() if n.endswith("pulses")
    )
    prices = costs.Prices()
    levels = 100 * (2 * 12 * 2**9 + (10 + 12) * 2**6)
    assert ledger.energy["outputs"][0] == pytest.approx(levels * prices.output_level)
    dear = costs.estimate(net, history, costs.Prices(pulse=2e-12))
    assert dear.total - ledger.total == pytest.approx(ledger.energy["pulses"].sum())
    assert ledger.seconds[0] == pytest.approx(300 * prices.read_time + 200 * 31 * prices.slot)
    assert "pulses" in repr(ledger)


def test_methods_that_send_nothing_back_pay_nothing_for_it():
    net, trainer = trained(pnn.methods.PhysicsAware())
    assert not trainer.history["reversed"].any()
    assert costs.estimate(net, trainer.history).counts["reads"].tolist() == [200.0] * 2
    net, trainer = trained(pnn.methods.PhysicsAware(), devices.TikiTaka(every=2.0))
    # A line of each array is read for every other sample.
    assert costs.estimate(net, trainer.history).counts["reads"] == pytest.approx([300.0] * 2)


def test_endurance_is_drawn(tmp_path):
    _, trainer = trained(pnn.methods.PhysicsAware(), devices.TikiTaka())
    plot.endurance(trainer.memory, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match="no pulses"):
        plot.endurance({"velocity/W1": np.zeros(3)})


def test_what_has_no_crossbars_is_refused():
    net = pnn.systems.Stack([pnn.layers.Linear(3, 2)], seed=0)
    with pytest.raises(CapabilityError, match="no crossbars"):
        costs.estimate(net, pnn.History())
    with pytest.raises(ConfigError, match="pulse"):
        costs.Prices(pulse=-1.0)


def test_lines_take_a_read_each_and_sums_no_trains():
    def ledger(algorithm):
        net, trainer = trained(pnn.methods.PhysicsAware(), algorithm)
        return costs.estimate(net, trainer.history)

    plain, lines, summed = (
        ledger(None),
        ledger(devices.TikiTaka(every=2.0)),
        ledger(devices.MixedPrecision()),
    )
    time = costs.Prices().read_time
    np.testing.assert_allclose(
        lines.seconds - plain.seconds, (lines.counts["reads"] - plain.counts["reads"]) * time
    )
    np.testing.assert_allclose(summed.seconds, summed.counts["reads"] * time)
    assert (lines.counts["cells"] - plain.counts["cells"]).tolist() == [50 * (12 + 10)] * 2


def test_cells_of_a_weight_are_read_together():
    for device, cells in (
        (devices.Pair(devices.PCM().cells), 2),
        (devices.MultiCell(devices.ConstantStep()), 2),
    ):
        net = pnn.systems.Stack([Crossbar(4, 3, device=device)], seed=0)
        history = pnn.Trainer(
            net, pnn.methods.PhysicsAware(), pnn.optim.SGD(0.1), seed=0, progress=False
        ).fit(np.ones((8, 4), np.float32), np.zeros(8, np.int64), epochs=1)
        assert costs.estimate(net, history).counts["cells"] == [8 * 12 * cells]


def test_light_is_counted(monkeypatch):
    chain = [
        layers.Encode(4),
        layers.MZIMesh(4),
        layers.Detect(photons=500.0, bits=6, full_scale=4.0),
    ]
    net = pnn.systems.Stack(chain, seed=0)
    x, y = np.ones((10, 4), np.float32), np.arange(10) % 4
    trainer = pnn.Trainer(net, pnn.methods.InSituBackprop(), pnn.optim.SGD(0.0), seed=0)
    history = trainer.fit(x, y, epochs=2)
    # An estimate takes no measurement.
    monkeypatch.delattr(pnn.systems.Stack, "measure")
    prices = costs.LightPrices(photon=2.0, laser_efficiency=0.5, heater=3.0, sample=7.0)
    ledger = costs.estimate_light(net, history, prices)
    # Signals, and the two sums with conjugate errors; errors come back once.
    measured, reversed_ = 30, 10
    assert history["measured"].tolist() == [measured] * 2
    assert ledger.counts["photons"].tolist() == [measured * 500] * 2
    assert ledger.energy["photons"].tolist() == [measured * 500 * 2 / 0.5] * 2
    assert ledger.counts["modulations"].tolist() == [(measured + reversed_) * 4] * 2
    assert ledger.counts["detections"].tolist() == [measured * 4 + history["reads"][0]] * 2
    assert ledger.energy["conversions"] == pytest.approx([measured * 4 * 64 * 1e-14] * 2)
    phases = [np.mod(net.params[name], 2 * np.pi).sum() for name in ("theta2", "phi2", "gamma2")]
    assert ledger.seconds.tolist() == [(measured + reversed_) * 7.0] * 2
    assert ledger.energy["heaters"] == pytest.approx(ledger.seconds * 3 * sum(phases) / np.pi)
    assert ledger.counts["heaters"].tolist() == [16, 16]
    assert "photons" in repr(ledger)
    with pytest.raises(pnn.errors.CapabilityError, match="no light to count"):
        costs.estimate_light(pnn.systems.Stack([layers.Linear(4, 4)]), history)
    with pytest.raises(pnn.errors.ConfigError, match="laser_efficiency must be at most 1"):
        costs.LightPrices(laser_efficiency=1.5)


@pytest.mark.parametrize("quantity", ["intensity", "balanced", "real", "quadratures"])
def test_photons_make_outputs_as_exact_as_they_should(quantity):
    rng = np.random.default_rng(0)
    x = np.tile(rng.normal(size=(1, 6)), (4000, 1))

    def stack(**settings):
        chain = [layers.Encode(6), layers.MZIMesh(6), layers.Detect(quantity, **settings)]
        return pnn.systems.Stack(chain, dtype="float64", seed=0)

    exact = stack().predict(x)
    found = costs.photons_per_multiply_add(stack(), x[:1], 0.02)
    photons = found * 6 * exact.shape[1] / (x[0] ** 2).sum()
    noisy = stack(photons=photons).predict(x)
    error = np.sqrt(((noisy - exact) ** 2).mean() / (exact**2).mean())
    assert error == pytest.approx(0.02, rel=0.03)
    # Whatever the detectors are that there are.
    assert costs.photons_per_multiply_add(stack(photons=1.0), x[:1], 0.02) == found
    # Four times as many for half of the error.
    assert costs.photons_per_multiply_add(stack(), x[:1], 0.01) == pytest.approx(4 * found)
    with pytest.raises(pnn.errors.CapabilityError, match="the last layer must be Detect"):
        costs.photons_per_multiply_add(pnn.systems.Stack([layers.Linear(6, 6)]), x[:1], 0.02)
