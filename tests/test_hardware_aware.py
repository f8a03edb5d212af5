"""Training for hardware: learned input ranges, remapped and clipped weights, and what they are
read with."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore.analog import AnalogIO, Wires, calibrate
from pnncore.errors import CapabilityError, ConfigError, DataError, ShapeError
from pnncore.layers import Crossbar, Linear, Tanh
from pnncore.methods import (
    SPSA,
    Backprop,
    DirectFeedbackAlignment,
    ForwardGradient,
    InSituBackprop,
    PhysicsAware,
    RidgeReadout,
)
from pnncore.optim import SGD
from pnncore.systems import Stack

RANDOM = np.random.default_rng(5)
RANGED = AnalogIO(
    input_bits=None,
    output_bits=None,
    output_bound=None,
    output_noise=0.0,
    bound_management=False,
    scale="learned",
)


def ranged(wires=None, dtype="float64"):
    net = Stack(
        [Crossbar(6, 5, io=RANGED, wires=wires), Tanh(), Crossbar(5, 3, io=RANGED, bias=False)],
        dtype=dtype,
        seed=0,
    )
    net.params["A1"][...] = 0.8
    net.params["A3"][...] = -0.4
    net.params["b1"][...] = RANDOM.normal(size=5)
    return net


def test_a_learned_range_cuts_inputs():
    net = ranged()
    x = RANDOM.normal(size=(20, 6))
    hidden = np.tanh(np.clip(x, -0.8, 0.8) @ net.params["W1"] + net.params["b1"])
    np.testing.assert_allclose(
        net.predict(x), np.clip(hidden, -0.4, 0.4) @ net.params["W3"], rtol=1e-12, atol=1e-12
    )
    assert net.names == ["W1", "b1", "A1", "W3", "A3"]
    assert pnn.systems.from_config(net.to_config()).to_config() == net.to_config()


def test_derivatives_by_learned_ranges_are_those_of_differences():
    net = ranged()
    x, dy = RANDOM.normal(size=(20, 6)), RANDOM.normal(size=(20, 3))
    dx, found = net.vjp(x, dy)

    def value():
        return float((net.predict(x) * dy).sum())

    for name, gradient in found.items():
        for place in list(np.ndindex(gradient.shape))[:7]:
            kept = net.params[name][place]
            sides = []
            for step in (1e-6, -1e-6):
                net.params[name][place] = kept + step
                sides.append(value())
            net.params[name][place] = kept
            assert gradient[place] == pytest.approx(
                (sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-8
            ), name
    assert (dx[np.abs(x) > 0.8] == 0).all()
    assert (dx[np.abs(x) < 0.8] != 0).any()
    assert found["A1"] != 0
    assert found["A3"] != 0


@pytest.mark.parametrize(
    "method",
    [
        Backprop(),
        PhysicsAware(),
        InSituBackprop(),
        DirectFeedbackAlignment(),
        ForwardGradient(directions=4),
        SPSA(epsilon=1e-4, directions=4),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize(
    "wires", [None, Wires(row_resistance=1e-6, column_resistance=1e-6)], ids=["plain", "wires"]
)
def test_methods_train_ranges(method, wires):
    net = ranged(wires)
    x, y = RANDOM.normal(size=(64, 6)), RANDOM.normal(size=(64, 3))
    before = {name: array.copy() for name, array in net.params.items()}
    trainer = pnn.Trainer(net, method, SGD(1e-3), batch_size=64, seed=0, progress=False)
    trainer.fit(x, y, epochs=1)
    moved = {name: float(np.abs(net.params[name] - before[name]).max()) for name in ("A1", "A3")}
    assert all(moved.values()), moved
    if isinstance(method, Backprop | PhysicsAware | InSituBackprop):
        # All three pass errors back through the transpose, exactly here.
        exact = ranged(None)
        for name, array in before.items():
            exact.params[name][...] = array
        pnn.Trainer(exact, Backprop(), SGD(1e-3), batch_size=64, seed=0, progress=False).fit(
            x, y, epochs=1
        )
        for name in net.names:
            np.testing.assert_allclose(net.params[name], exact.params[name], atol=2e-7)


def test_ranges_are_calibrated_layer_by_layer():
    net = ranged()
    x = RANDOM.normal(size=(50, 6))
    found = calibrate(net, x)
    assert found["A1"] == pytest.approx(np.abs(x).max(1).mean())
    hidden = np.tanh(np.clip(x, -found["A1"], found["A1"]) @ net.params["W1"] + net.params["b1"])
    assert found["A3"] == pytest.approx(np.abs(hidden).max(1).mean())
    assert calibrate(net, x, quantile=0.9)["A1"] == pytest.approx(np.quantile(np.abs(x), 0.9))
    with pytest.raises(ConfigError, match="quantile must be above 0"):
        calibrate(net, x, quantile=0.0)
    with pytest.raises(CapabilityError, match="no crossbars with AnalogIO"):
        calibrate(Stack([Linear(6, 3)], seed=0), x)


def test_a_learned_range_beats_a_wrong_one():
    x, y, x_test, y_test = pnn.data.digits()
    scores = {}
    for name, scale in (("fixed", 20.0), ("learned", "learned")):
        io = AnalogIO(input_bits=4, output_noise=0.02, scale=scale)
        net = Stack([Crossbar(64, 32, io=io), Tanh(), Crossbar(32, 10, io=io)], seed=0)
        if name == "learned":
            calibrate(net, x)
        trainer = pnn.Trainer(
            net, PhysicsAware(loss="cross-entropy"), SGD(0.2), batch_size=20, seed=0, progress=False
        )
        trainer.fit(x, y, epochs=10)
        scores[name] = net.score(x_test, y_test)
    assert scores["learned"] > 0.9 > scores["fixed"] + 0.1, scores


@pytest.mark.parametrize("remap", ["array", "columns"])
def test_remapping_changes_the_units_of_noise_alone(remap):
    quiet = {"output_noise": 0.0, "input_bits": None, "output_bits": None, "output_bound": None}
    io = AnalogIO(**quiet, bound_management=False)
    plain = Stack([Crossbar(8, 6, io=io, tile=(5, 4))], dtype="float64", seed=0)
    mapped = Stack([Crossbar(8, 6, io=io, tile=(5, 4), remap=remap)], dtype="float64", seed=0)
    x, dy = RANDOM.normal(size=(9, 8)), RANDOM.normal(size=(9, 6))
    np.testing.assert_allclose(mapped.predict(x), plain.predict(x), rtol=1e-12, atol=1e-14)
    for mine, other in zip(
        mapped.vjp(x, dy)[1].values(), plain.vjp(x, dy)[1].values(), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-12)

    noisy = Stack(
        [
            Crossbar(
                8,
                6,
                bias=False,
                io=AnalogIO(
                    output_noise=0.1, input_bits=None, scale=1.0, input_bound=None, output_bits=None
                ),
                remap=remap,
            )
        ],
        dtype="float64",
        seed=0,
    )
    w = noisy.params["W1"]
    w[:, 2] *= 5
    rows = np.tile(RANDOM.uniform(-1, 1, size=8), (20_000, 1))
    found = noisy.predict(rows)
    largest = np.abs(w).max(0) if remap == "columns" else np.full(6, np.abs(w).max())
    np.testing.assert_allclose(
        found.mean(0), rows[0] @ w, atol=6 * 0.1 * largest.max() / np.sqrt(len(rows))
    )
    np.testing.assert_allclose(found.std(0), 0.1 * largest, rtol=0.03)


def test_errors_go_back_through_remapped_arrays():
    io = AnalogIO.ideal()
    x, y = RANDOM.normal(size=(16, 8)), RANDOM.normal(size=(16, 3))
    after = []
    for remap in (None, "array", "columns"):
        net = Stack(
            [Crossbar(8, 6, io=io, remap=remap), Tanh(), Crossbar(6, 3, io=io, remap=remap)],
            dtype="float64",
            seed=0,
        )
        pnn.Trainer(net, InSituBackprop(), SGD(0.1), batch_size=16, seed=0, progress=False).fit(
            x, y, epochs=3
        )
        after.append(net.params["W1"].copy())
    np.testing.assert_allclose(after[1], after[0], rtol=1e-10)
    np.testing.assert_allclose(after[2], after[0], rtol=1e-10)


def test_weights_are_clipped_by_every_update():
    x, y = RANDOM.normal(size=(8, 6)), RANDOM.normal(size=(8, 4))
    net = Stack([Crossbar(6, 4, io=AnalogIO.ideal(), clip=1.2)], dtype="float64", seed=0)
    free = Stack([Crossbar(6, 4, io=AnalogIO.ideal())], dtype="float64", seed=0)
    for own in (net, free):
        own.params["b1"][...] = 100.0
        pnn.Trainer(own, Backprop(), SGD(0.01), batch_size=8, seed=0, progress=False).fit(
            x, y, epochs=1
        )
    w = free.params["W1"]
    bound = 1.2 * w.std()
    assert (np.abs(w) > bound).any()
    np.testing.assert_allclose(net.params["W1"], np.clip(w, -bound, bound), rtol=1e-12)
    np.testing.assert_array_equal(net.params["b1"], free.params["b1"])


def test_training_for_noise_helps_on_noisy_hardware():
    x, y, x_test, y_test = pnn.data.digits()
    scores = {}

    def build(noise, own, seed):
        io = AnalogIO(scale="learned", weight_noise=noise)
        return Stack(
            [Crossbar(64, 32, io=io, **own), Tanh(), Crossbar(32, 10, io=io, **own)], seed=seed
        )

    hardware = {"remap": "columns", "clip": 2.0}
    for name, noise, own in (("plain", 0.0, {}), ("for noise", 0.3, hardware)):
        net = build(noise, own, 0)
        calibrate(net, x)
        trainer = pnn.Trainer(
            net, PhysicsAware(loss="cross-entropy"), SGD(0.1), batch_size=20, seed=0, progress=False
        )
        trainer.fit(x, y, epochs=12)
        noisy = build(0.3, hardware, 7)
        for key, array in net.params.items():
            noisy.params[key][...] = array
        scores[name] = np.mean([noisy.score(x_test, y_test, repeat=k) for k in range(5)])
    assert scores["for noise"] > scores["plain"] + 0.02, scores


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Crossbar(2, 2, remap="rows"), 'remap must be one of "array", "columns"'),
        (lambda: Crossbar(2, 2, device=pnn.devices.Idealized(), remap="array"), "leave remap out"),
        (lambda: Crossbar(2, 2, device=pnn.devices.Idealized(), clip=2.0), "leave clip out"),
        (lambda: Stack([Crossbar(2, 2, clip=-1.0)]), "clip must be a positive number"),
        (lambda: Stack([Crossbar(2, 2, remap="array", wires=Wires())]), "wires map weights"),
        (
            lambda: Stack([Crossbar(2, 2, backward=AnalogIO(scale="learned"))]),
            "give backward a scale of its own",
        ),
        (lambda: AnalogIO(scale="taught"), "scale must be a finite number"),
        (
            lambda: Crossbar(
                2,
                2,
                device=pnn.devices.Idealized(),
                algorithm=pnn.devices.TikiTaka(io=AnalogIO(scale="learned")),
            ),
            "leave scale out of the io of transfers",
        ),
        (lambda: AnalogIO(passes="two"), 'passes must be one of "one", "signs", "bits"'),
        (
            lambda: Stack([Crossbar(2, 2, io=AnalogIO(passes="bits"))]),
            "leave it out where passes are bits",
        ),
        (
            lambda: Stack(
                [
                    Crossbar(
                        2, 2, io=AnalogIO(passes="bits", input_bits=None, bound_management=False)
                    )
                ]
            ),
            "need input converters with a number of bits",
        ),
        (
            lambda: Stack([Crossbar(2, 2, io=AnalogIO(output_offset=-0.1))]),
            "output_offset must be at least 0",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize("bias", [True, False])
def test_a_readout_by_ridge_regression_leaves_the_range_alone(bias):
    x, y, x_test, y_test = pnn.data.digits()
    net = Stack([Crossbar(64, 10, bias=bias, io=AnalogIO(scale="learned"))], seed=0)
    pnn.Trainer(net, RidgeReadout(), SGD(0.1), batch_size=30, seed=0, progress=False).fit(
        x, y, epochs=1
    )
    assert net.params["A1"] == [1.0]
    assert net.score(x_test, y_test) > 0.88


def test_samples_to_calibrate_with_are_inputs_of_the_network():
    net = Stack([Crossbar(4, 3, io=AnalogIO(scale="learned"))], seed=0)
    x = np.ones((5, 4), np.float32)
    x[1, 2] = np.nan
    for wrong, error in (
        (x, DataError),
        (x[:, :3], ShapeError),
        (x[:0], DataError),
    ):
        with pytest.raises(error):
            calibrate(net, wrong)
    assert net.params["A1"] == [1.0]
