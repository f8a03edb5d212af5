"""Analog crossbars: what is read, against an independent account of it, and the statistics of
its noise."""

import copy
import dataclasses

import numpy as np
import pnncore as pnn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pnncore.errors import ConfigError, ShapeError
from pnncore.layers import AnalogIO, Crossbar, Linear, Tanh, Wires
from pnncore.methods import Backprop, InSituBackprop
from pnncore.systems import Stack
from scipy import stats

RANDOM = np.random.default_rng(0)
QUIET = {"output_noise": 0.0}


def array(n_in, n_out, io, dtype="float64", seed=0, **more):
    return Stack([Crossbar(n_in, n_out, bias=False, io=io, **more)], dtype=dtype, seed=seed)


def convert(values, bits, bound):
    if bits is not None:
        steps = 2**bits - 2
        values = np.rint(values * (steps / (2 * bound))) * (2 * bound / steps)
    return values if bound is None else np.clip(values, -bound, bound)


def read(io, w, x):
    """What a noiseless array gives for one sample, step by step."""
    a = np.abs(x).max() if io.scale is None else io.scale
    for _ in range(11):
        if a == 0:
            return np.zeros(w.shape[1])
        y = convert(x / a, io.input_bits, io.input_bound) @ w
        y = convert(y / (1 + np.abs(io.s_shape * y)), io.output_bits, io.output_bound)
        if not io.bound_management or np.abs(y).max() < io.output_bound:
            break
        a, last = 2 * a, a
    else:
        a = last
    return a * y


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([None, 3, 7]),
    st.sampled_from([None, 5, 9]),
    st.sampled_from([0.5, 1.0]),
    st.sampled_from([0.3, 1.0, 12.0]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([None, 0.7]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_reads_are_those_of_the_account(
    n_in, n_out, bits_in, bits_out, bound_in, bound_out, s, scale, manage, seed
):
    io = AnalogIO(
        input_bits=bits_in,
        output_bits=bits_out,
        input_bound=bound_in,
        output_bound=bound_out,
        s_shape=s,
        scale=scale,
        bound_management=manage,
        **QUIET,
    )
    net = array(n_in, n_out, io, seed=seed)
    x = np.random.default_rng(seed).normal(size=(3, n_in))
    x[0] = 0
    found = net.predict(x)
    for row, y in zip(x, found, strict=True):
        wanted = read(io, net.params["W1"], row)
        np.testing.assert_allclose(y, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_ideal_read_is_the_linear_map(dtype):
    net = array(70, 30, AnalogIO.ideal(), dtype=dtype)
    x = RANDOM.normal(size=(50, 70)).astype(dtype)
    wanted = x.astype(float) @ net.params["W1"].astype(float)
    np.testing.assert_allclose(net.predict(x), wanted, atol=1e-6 if dtype == "float64" else 2e-5)


def test_converters():
    x = RANDOM.permutation(np.linspace(-1, 1, 4001))[:, None]
    for bits in (2, 4, 8):
        io = AnalogIO(
            input_bits=bits,
            output_bits=None,
            output_bound=None,
            bound_management=False,
            scale=1.0,
            **QUIET,
        )
        net = array(1, 1, io)
        net.params["W1"][...] = 1
        once = net.predict(x)
        step = 2 / (2**bits - 2)
        assert np.abs(once - x).max() <= step / 2 + 1e-12
        np.testing.assert_allclose(net.predict(once), once, atol=1e-12)
        assert len(np.unique(np.round(once / step))) == 2**bits - 1
    # Rounding at random: right on average, and never farther than a step.
    io = AnalogIO(
        input_bits=3,
        output_bits=None,
        output_bound=None,
        bound_management=False,
        scale=1.0,
        stochastic_rounding=True,
        **QUIET,
    )
    net = array(1, 1, io)
    net.params["W1"][...] = 1
    for value in (0.07, -0.4, 0.81):
        y = net.predict(np.full((40_000, 1), value))
        step = 2 / 6
        assert set(np.unique(np.round(y / step)).astype(int)) <= {
            int(np.floor(value / step)),
            int(np.ceil(value / step)),
        }
        assert abs(y.mean() - value) < 4 * step / 2 / np.sqrt(40_000)


@pytest.mark.parametrize(
    ("settings", "deviation"),
    [
        ({"output_noise": 0.06}, lambda w, x: 0.06),
        ({"input_noise": 0.02}, lambda w, x: 0.02 * np.linalg.norm(w)),
        ({"weight_noise": 0.03}, lambda w, x: 0.03 * np.linalg.norm(x)),
        (
            {"weight_noise": 0.03, "weight_noise_kind": "phase-change"},
            lambda w, x: 0.03 * np.sqrt(np.abs(w) @ x**2),
        ),
    ],
    ids=["output", "input", "weights", "phase-change"],
)
def test_noise_is_normal_with_its_deviation(settings, deviation):
    quiet = {
        "input_bits": None,
        "output_bits": None,
        "output_bound": None,
        "bound_management": False,
        "scale": 1.0,
    }
    net = array(12, 1, AnalogIO(**(quiet | QUIET | settings)))
    x = RANDOM.uniform(-1, 1, 12)
    w = net.params["W1"][:, 0]
    z = (net.predict(np.tile(x, (200_000, 1)))[:, 0] - x @ w) / deviation(w, x)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * len(z))
    assert len(np.unique(z)) > 0.99 * len(z)
    again = net.predict(np.tile(x, (1000, 1)), threads=3)[:, 0]
    np.testing.assert_array_equal(again, net.predict(np.tile(x, (1000, 1)), threads=1)[:, 0])


def test_errors_go_back_through_the_array():
    x, y = RANDOM.normal(size=(20, 6)), RANDOM.integers(0, 3, 20)

    def stack(io, back):
        layers = [
            Crossbar(6, 5, io=io, backward=back),
            Tanh(),
            Crossbar(5, 3, io=io, backward=back),
        ]
        return Stack(layers, dtype="float64", seed=2)

    ideal = AnalogIO.ideal()
    exact = pnn.methods.Backprop().gradient(stack(ideal, ideal), x, y)
    for method in (
        pnn.methods.InSituBackprop(),
        pnn.methods.PhysicsAware(),
        pnn.methods.Backprop(model="hardware"),
    ):
        found = method.gradient(stack(ideal, None), x, y)
        for name, wanted in exact.items():
            np.testing.assert_allclose(found[name], wanted, atol=1e-12)
    # A coarse read of the transpose is what arrives below, and only there.
    coarse = AnalogIO(input_bits=3, output_bits=4, output_bound=1.0, **QUIET)
    found = pnn.methods.InSituBackprop().gradient(stack(ideal, coarse), x, y)
    np.testing.assert_allclose(found["W3"], exact["W3"], atol=1e-12)
    assert np.abs(found["W1"] - exact["W1"]).max() > 1e-4
    net = stack(ideal, coarse)
    signals = net.measure(x)
    errors = (signals[2] - np.eye(3)[y]) / 20
    back = np.stack([read(coarse, net.params["W3"].T, row) for row in errors])
    dz = back * (1 - signals[1] ** 2)
    np.testing.assert_allclose(found["W1"], x.T @ dz, atol=1e-9)
    np.testing.assert_allclose(found["b1"], dz.sum(axis=0), atol=1e-9)


def test_crossbars_learn_digits(tmp_path):
    x, y, x_test, y_test = pnn.data.digits()
    scores = {}
    for name, io in (("typical", AnalogIO()), ("ideal", AnalogIO.ideal())):
        net = Stack([Crossbar(64, 32, io=io), Tanh(), Crossbar(32, 10, io=io)], seed=0)
        method = pnn.methods.InSituBackprop(loss="cross-entropy")
        trainer = pnn.Trainer(net, method, pnn.optim.Adam(3e-3), batch_size=32, seed=0)
        trainer.fit(x, y, epochs=15)
        scores[name] = net.score(x_test, y_test)
        trainer.save(tmp_path / "run.pnn")
        again = pnn.Trainer.load(tmp_path / "run.pnn").system
        assert again.layers == net.layers
        np.testing.assert_array_equal(again.predict(x_test), net.predict(x_test))
    assert scores["ideal"] > 0.93
    assert scores["typical"] > 0.9


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AnalogIO(input_bits=1), "input_bits must be 2 to 24"),
        (lambda: AnalogIO(output_bound=None), "output_bits need an output_bound"),
        (lambda: AnalogIO(weight_noise_kind="pink"), "weight_noise_kind must be one of"),
        (lambda: AnalogIO(output_noise="loud"), "output_noise must be a finite number"),
        (lambda: Crossbar(2, 2, io=3), "io must be pnncore.analog.AnalogIO"),
        (lambda: array(2, 2, AnalogIO(output_noise=-1.0)), "output_noise must be at least 0"),
        (lambda: array(2, 2, AnalogIO(scale=0.0)), "scale must be a positive number, got 0"),
        (
            lambda: array(2, 2, AnalogIO(output_bits=None, output_bound=None)),
            "bound_management needs an output_bound",
        ),
    ],
)
def test_bad_settings(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_layers_that_do_not_fit():
    with pytest.raises(ShapeError, match="takes 3 inputs"):
        Stack([Linear(2, 4), Crossbar(3, 2)])


def test_large_matrices_are_cut_into_arrays():
    x = RANDOM.normal(size=(20, 70))
    whole = array(70, 30, AnalogIO.ideal())
    for tile in ((70, 30), (32, 30), (70, 7), (11, 13), (1, 1)):
        cut = array(70, 30, AnalogIO.ideal(), tile=tile)
        np.testing.assert_allclose(cut.predict(x), whole.predict(x), rtol=1e-12, atol=1e-13)
    # Every array has converters of its own: what they give is summed.
    io = AnalogIO(output_noise=0.0)
    cut, w = array(70, 30, io, tile=(35, 30)), whole.params["W1"]
    wanted = [read(io, w[:35], row[:35]) + read(io, w[35:], row[35:]) for row in x]
    np.testing.assert_allclose(cut.predict(x), wanted, rtol=1e-9, atol=1e-12)
    with pytest.raises(ConfigError, match="tile must be a pair"):
        Crossbar(3, 2, tile=4)


@pytest.mark.parametrize(
    "wires", [None, Wires(row_resistance=20.0, column_resistance=20.0, weight=1.0, tolerance=1e-13)]
)
def test_errors_go_back_through_all_arrays(wires):
    x, y = RANDOM.normal(size=(20, 12)), RANDOM.normal(size=(20, 5))
    own = {"io": AnalogIO.ideal(), "wires": wires, "tile": (5, 4)}
    net = Stack([Crossbar(12, 9, **own), Tanh(), Crossbar(9, 5, **own)], dtype="float64", seed=0)
    exact, back = (
        Backprop(model="hardware").gradient(net, x, y),
        InSituBackprop().gradient(net, x, y),
    )
    np.testing.assert_allclose(back["b1"], exact["b1"], rtol=1e-8, atol=1e-12)
    if wires is None:
        np.testing.assert_allclose(back["W1"], exact["W1"], rtol=1e-8, atol=1e-12)
    at, h = net.params["W1"], 1e-5
    kept = at[7, 6]
    sides = []
    for sign in (1, -1):
        at[7, 6] = kept + sign * h
        sides.append(((net.predict(x) - y) ** 2).sum() / 2 / len(x))
    assert exact["W1"][7, 6] == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-5)


def test_ten_million_draws_of_noise_are_normal():
    io = AnalogIO(
        input_bits=None,
        output_bits=None,
        output_bound=None,
        output_noise=1.0,
        scale=1.0,
        bound_management=False,
    )
    net = array(1, 10_000, io, dtype="float32")
    net.params["W1"][...] = 0.0
    drawn = net.predict(np.ones((1000, 1), np.float32)).ravel()
    assert stats.kstest(drawn, "norm").pvalue > 0.001
    # 67.95 of 10^7 are beyond 4.5 deviations, on either side.
    beyond = np.array([(drawn > 4.5).sum(), (drawn < -4.5).sum()])
    assert (np.abs(beyond - 33.98) < 4 * 33.98**0.5).all()
    assert len(np.unique(drawn)) > 5_000_000


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["signs", "bits"]),
    st.sampled_from([2, 3, 7]),
    st.sampled_from([4, 8]),
    st.integers(0, 1000),
)
def test_passes_are_those_of_the_account(passes, bits, bits_out, seed):
    """Each pass is converted for itself; with the product of codes and weights they are what one
    pass reads."""
    own = {
        "input_bits": bits,
        "bound_management": False,
        "input_bound": 0.7,
        "passes": passes,
        **QUIET,
    }
    io = AnalogIO(output_bits=bits_out, output_bound=3.0, s_shape=0.1, **own)
    net = array(9, 5, io, seed=seed)
    w, x = net.params["W1"], np.random.default_rng(seed).normal(size=(4, 9))
    code = convert(x / np.abs(x).max(1, keepdims=True), bits, 0.7)
    if passes == "signs":
        parts = [(1.0, np.maximum(code, 0)), (-1.0, np.maximum(-code, 0))]
    else:
        most = 2 ** (bits - 1) - 1
        digits = np.rint(np.abs(code) / 0.7 * most).astype(int)
        parts = [(2**k / most, 0.7 * np.sign(code) * (digits >> k & 1)) for k in range(bits - 1)]
    np.testing.assert_allclose(sum(factor * part for factor, part in parts), code, atol=1e-12)

    def out(part):
        y = part @ w
        return convert(y / (1 + 0.1 * np.abs(y)), bits_out, 3.0)

    wanted = np.abs(x).max(1, keepdims=True) * sum(factor * out(part) for factor, part in parts)
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-9, atol=1e-12)
    once = array(
        9, 5, AnalogIO(output_bits=None, output_bound=None, **(own | {"passes": "one"})), seed=seed
    )
    many = array(9, 5, AnalogIO(output_bits=None, output_bound=None, **own), seed=seed)
    np.testing.assert_allclose(many.predict(x), once.predict(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("passes", "factor"), [("one", 1.0), ("signs", 2**0.5), ("bits", (1 + 4 + 16) ** 0.5 / 7)]
)
def test_every_pass_has_noise_of_its_own(passes, factor):
    io = AnalogIO(
        input_bits=4, output_bits=None, output_noise=0.1, passes=passes, bound_management=False
    )
    net = array(6, 40, io)
    x = np.tile(RANDOM.uniform(-1, 1, size=6), (5000, 1))
    found = net.predict(x) / np.abs(x[0]).max()
    np.testing.assert_allclose(found.std(0).mean(), 0.1 * factor, rtol=0.01)
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 0.06


def test_offsets_are_for_good():
    io = AnalogIO(
        input_bits=None,
        output_bits=None,
        output_noise=0.0,
        output_offset=0.2,
        bound_management=False,
        scale=2.0,
    )
    net = array(10, 4000, io, tile=(5, 4000))
    x = RANDOM.uniform(-1, 1, size=(3, 10))
    off = net.predict(x) - x @ net.params["W1"]
    np.testing.assert_allclose(off, np.tile(off[0], (3, 1)), atol=1e-12)
    # Two arrays, each with converters of its own; in units of the largest input.
    assert off[0].std() == pytest.approx(2.0 * 0.2 * 2**0.5, rel=0.05)
    assert np.array_equal(net.predict(x), net.predict(x))
    other = array(10, 4000, io, tile=(5, 4000), seed=1)
    assert abs(np.corrcoef(off[0], other.predict(x)[0] - x[0] @ other.params["W1"])[0, 1]) < 0.05


def test_noise_is_that_of_the_number_of_a_measurement():
    x = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)
    io = AnalogIO(
        input_bits=None,
        output_bits=None,
        output_bound=None,
        bound_management=False,
        output_noise=0.1,
    )
    net = Stack([Crossbar(12, 8, bias=False, io=io)], seed=0)
    clean = Stack([Crossbar(12, 8, bias=False, io=AnalogIO.ideal())], seed=0).predict(x)
    found = np.stack([net.predict(x, repeat=k) for k in range(40)])
    assert np.array_equal(found[3], net.predict(x, repeat=3))
    assert np.array_equal(found[0], net.predict(x))
    assert np.array_equal(net.measure(x, repeat=7)[0], found[7])
    noise = (found - clean) / np.abs(x).max(axis=1)[:, None]
    # Independent from one measurement to the next: means shrink as the root of their number.
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert noise.mean(axis=0).std() == pytest.approx(0.1 / 40**0.5, rel=0.1)
    for wrong in (-1, 0.5, True, 2**31):
        with pytest.raises(ConfigError, match="repeat must be an integer from 0 on"):
            net.predict(x, repeat=wrong)


def test_a_stack_without_numbers_is_saved_copied_and_calibrated(tmp_path):
    x, y, *_ = pnn.data.digits()
    net = Stack([Crossbar(64, 10, io=AnalogIO(scale="learned"))], numbered=False, seed=0)
    assert "numbered=False" in repr(net)
    assert pnn.analog.calibrate(net, x) == {"A": net.params["A"][0]}
    trainer = pnn.Trainer(net, InSituBackprop(), pnn.optim.SGD(0.1), seed=0, progress=False)
    trainer.fit(x[:50], y[:50], epochs=1)
    trainer.save(tmp_path / "run.pnn")
    for other in (pnn.Trainer.load(tmp_path / "run.pnn").system, copy.deepcopy(net)):
        assert np.array_equal(other.predict(x), net.predict(x))
    assert pnn.memories.program(net, seed=0).at(1.0).params["W"].shape == (64, 10)


def test_errors_go_back_through_the_array_one_sample_at_a_time():
    """What converters make of an error does not depend on how many others are in the batch."""
    io = dataclasses.replace(AnalogIO(), scale=2.0, output_noise=0.0)
    net = Stack([Crossbar(6, 16, io=io), Tanh(), Crossbar(16, 2, io=io)], seed=0, dtype="float64")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 6)), rng.normal(size=(4, 2))
    few = InSituBackprop().gradient(net, x, y)
    many = InSituBackprop().gradient(net, np.tile(x, (128, 1)), np.tile(y, (128, 1)))
    for name in few:
        np.testing.assert_allclose(many[name], few[name], atol=1e-12)
    assert np.linalg.norm(few["W1"]) > 0.1


@pytest.mark.parametrize("input_bound", [None, 1.0, 2.0])
@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("x", [0.4, 3.0, -3.0])
def test_learned_ranges_cut_inputs_where_their_derivatives_do(input_bound, managed, x):
    management = {"output_bound": 0.9, "bound_management": True} if managed else {}
    io = dataclasses.replace(
        AnalogIO.ideal(), scale="learned", input_bound=input_bound, **management
    )
    net = Stack([Crossbar(1, 1, bias=False, io=io)], seed=0, dtype="float64")
    net.params["W1"][...], net.params["A1"][...] = 1.5, 0.8
    cut = max(-0.8, min(0.8, x))
    np.testing.assert_allclose(net.predict([[x]]), 1.5 * cut, rtol=1e-12)
    found = Backprop(model="hardware").gradient(net, [[x]], [[0.0]])
    for name, array in net.params.items():
        middle, slopes = float(array.flat[0]), []
        for step in (1e-6, -1e-6):
            array.flat[0] = middle + step
            slopes.append(0.5 * float(net.predict([[x]])[0, 0]) ** 2)
        array.flat[0] = middle
        np.testing.assert_allclose(
            found[name].flat[0], (slopes[0] - slopes[1]) / 2e-6, rtol=1e-6, atol=1e-9
        )


def test_a_learned_range_is_where_inputs_are_cut():
    io = dataclasses.replace(AnalogIO.ideal(), scale="learned", input_bound=0.5)
    with pytest.raises(ConfigError, match="input_bound must be at least 1"):
        Stack([Crossbar(1, 1, io=io)], seed=0)
