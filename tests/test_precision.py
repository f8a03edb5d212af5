"""Low precision: products of numbers rounded to bfloat16, and reads of integers, beside plain
accounts of them in NumPy."""

import itertools

import numpy as np
import pnncore as pnn
import pytest
from helpers import Reference, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from pnncore import Settling, layers, methods, systems
from pnncore.errors import ConfigError
from pnncore.layers import AnalogIO, Crossbar, Linear, Tanh

QUIET = AnalogIO(output_noise=0.0, output_bits=None, output_bound=None, bound_management=False)


def rounded(values):
    """The nearest bfloat16, ties to even, as float64: by the distances to both neighbours."""
    values = np.asarray(values, np.float32)
    below = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((values.view(np.uint32) & 0xFFFF0000) + 0x10000).astype(np.uint32).view(np.float32)
    exact = values.astype(np.float64)
    up, down = np.abs(above - exact), np.abs(exact - below)
    odd = (below.view(np.uint32) >> 16) & 1 == 1
    return np.where((up < down) | ((up == down) & odd), above, below).astype(np.float64)


def sums_of_products(x, w):
    """Sums in float32, term after term: products of bfloat16 are exact there."""
    total = np.zeros((len(x), w.shape[1]), np.float32)
    for k in range(x.shape[1]):
        total = (total + np.outer(x[:, k], w[k])).astype(np.float32)
    return total


def signals(rows, width, zeros, seed, scale=1.0):
    random = np.random.default_rng(seed)
    x = scale * random.standard_normal((rows, width))
    return (x * (random.random((rows, width)) >= zeros)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 90),
    n_in=st.integers(1, 80),
    n_out=st.integers(1, 80),
    zeros=st.sampled_from([0.0, 0.5, 0.95]),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 1e-25, 1e-34]),
    seed=st.integers(0, 1000),
)
def test_a_linear_map_multiplies_what_it_rounds(rows, n_in, n_out, zeros, bias, scale, seed):
    net = systems.Stack([Linear(n_in, n_out, bias=bias, precision="bfloat16")], seed=seed)
    x = signals(rows, n_in, zeros, seed, scale)
    if bias:
        net.params["b1"][:] = signals(1, n_out, 0.0, seed, scale)[0]
    expected = sums_of_products(rounded(x), rounded(net.params["W1"]))
    if bias:
        expected = expected + net.params["b1"]
    np.testing.assert_array_equal(net.predict(x), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("samples", [1, 7, 64, 300])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_gradients_are_those_of_rounded_numbers(dtype, samples, zeros):
    stack = [Linear(50, 40, precision="bfloat16"), Tanh(), Linear(40, 6, precision="bfloat16")]
    net = systems.Stack(stack, seed=1, dtype=dtype)
    x, y = signals(samples, 50, zeros, 2), np.arange(samples) % 6
    found = methods.Backprop(loss="cross-entropy").gradient(net, x, y)
    w = {name: value.astype(np.float64) for name, value in net.params.items()}
    hidden = np.tanh(rounded(x) @ rounded(w["W1"]) + w["b1"])
    out = rounded(hidden) @ rounded(w["W3"]) + w["b3"]
    softmax = np.exp(out - out.max(axis=1, keepdims=True))
    error = (softmax / softmax.sum(axis=1, keepdims=True) - np.eye(6)[y]) / samples
    back = (rounded(error) @ rounded(w["W3"]).T) * (1 - hidden**2)
    expected = {
        "W1": rounded(x).T @ rounded(back),
        "b1": back.sum(axis=0),
        "W3": rounded(hidden).T @ rounded(error),
        "b3": error.sum(axis=0),
    }
    # A last bit may round a hidden state or an error to the other side.
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-3 * np.abs(value).max())
    # And they are, nearly, those of the map without rounding.
    plain = systems.Stack([Linear(50, 40), Tanh(), Linear(40, 6)], seed=1, dtype=dtype)
    whole = methods.Backprop(loss="cross-entropy").gradient(plain, x, y)
    for name, value in whole.items():
        assert np.linalg.norm(found[name] - value) < 0.02 * np.linalg.norm(value)


@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize("rate", [0.5, 0.37])
def test_a_step_goes_along_the_gradient(zeros, rate):
    net = systems.Stack([Linear(300, 90, bias=False, precision="bfloat16")], seed=3)
    x, y = signals(130, 300, zeros, 4), np.arange(130) % 90
    before = net.params["W1"].copy()
    gradient = methods.Backprop().gradient(net, x, y)["W1"]
    trainer = pnn.Trainer(net, methods.Backprop(), pnn.optim.SGD(rate), batch_size=130, seed=0)
    trainer.fit(x, y, epochs=1)
    # The rows are shuffled: sums have another order, and that alone.
    np.testing.assert_allclose(net.params["W1"], before - rate * gradient, rtol=1e-5, atol=1e-7)


def test_feedback_that_learns_meets_the_weights():
    stack = [Linear(20, 30, precision="bfloat16"), Tanh(), Linear(30, 5, precision="bfloat16")]
    net = systems.Stack(stack, seed=0)
    x, y = signals(200, 20, 0.0, 1), np.arange(200) % 5
    method = methods.FeedbackAlignment(feedback="kolen-pollack")
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.1, weight_decay=0.1), batch_size=50, seed=0)
    trainer.fit(x, y, epochs=100)
    report = pnn.audit(net, trainer.method, x[:64], y[:64])
    assert report.cosine > 0


MODEL = """
    import numpy as np, pnncore as pnn, sys
    from pnncore import layers, methods, systems
    x = np.random.default_rng(0).standard_normal((150, 70)).astype(np.float32)
    x[:, 30:] *= x[:, 30:] > 1.5
    y = np.arange(150) % 10
    low = "bfloat16"
    first, last = layers.Linear(70, 90, precision=low), layers.Linear(90, 10, precision=low)
    stack = [first, layers.ReLU(), last]
    nets = [
        (systems.Stack(stack, seed=0), methods.Backprop()),
        (systems.Hopfield([70, 60, 50, 10], activation="tanh", precision=low, seed=0),
         methods.EquilibriumPropagation(settling=pnn.Settling(sweeps=(6, 4)))),
        (systems.Hopfield([70, 60, 50, 10], precision=low, seed=0),
         methods.EquilibriumPropagation()),
        (systems.Stack([layers.Crossbar(70, 10, precision="int8", tile=(40, 7))], seed=0),
         methods.InSituBackprop()),
    ]
    for net, method in nets:
        trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.05), batch_size=75, seed=0)
        trainer.fit(x, y, epochs=2)
        for name, value in sorted(net.params.items()):
            sys.stdout.write(value.tobytes().hex())
"""


def test_bits_do_not_depend_on_threads():
    found = [run_python(MODEL, PNNCORE_NUM_THREADS=str(n)) for n in (1, 2, 3, 8)]
    assert found[0]
    assert found == found[:1] * 4


LINEAR = """
    import numpy as np, pnncore as pnn, sys
    from pnncore import layers, systems
    for zeros, scale in ((0.0, 1.0), (0.9, 1.0), (0.0, 1e-6)):
        random = np.random.default_rng(1)
        x = scale * random.standard_normal((100, 130)) * (random.random((100, 130)) >= zeros)
        for layer in (layers.Linear(130, 70, precision="bfloat16"),
                      layers.Crossbar(130, 70, precision="int8",
                                      io=layers.AnalogIO(output_noise=0.0))):
            found = systems.Stack([layer], seed=0).predict(x.astype(np.float32))
            sys.stdout.write(found.tobytes().hex())
"""


def test_bits_do_not_depend_on_the_instruction_set():
    levels = pnn._core.info()["simd_available"]
    found = {level: run_python(LINEAR, PNNCORE_SIMD=level) for level in levels}
    assert len(set(found.values())) == 1


def swept(net, x, sweeps, order="asynchronous"):
    """States after so many sweeps from rest, one layer after the other, plainly."""
    reference = Reference(net)
    w = [rounded(value) for value in reference.W]
    drive = rounded(x) @ w[0] + reference.b[0]
    depth = reference.depth
    states = [np.zeros((len(x), n)) for n in reference.sizes]

    def moved(k):
        a = drive.copy() if k == 0 else rounded(states[k - 1]) @ w[k] + reference.b[k]
        if k + 1 < depth:
            a = a + rounded(states[k + 1]) @ w[k + 1].T
        return reference.rho(a) if k + 1 < depth else a

    for _ in range(sweeps):
        groups = [range(0, depth, 2), range(1, depth, 2)]
        if order == "synchronous":
            groups = [range(depth)]
        for group in groups:
            for k, new in [(k, moved(k)) for k in group]:
                states[k] = new
    return states


@pytest.mark.parametrize("activation", ["hard-sigmoid", "tanh", "logistic"])
@pytest.mark.parametrize("order", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("sizes", [[30, 40, 10], [30, 70, 50, 4], [30, 33, 40, 21, 5]])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.filterwarnings("ignore::pnncore.SettlingWarning")
def test_settling_multiplies_what_it_rounds(activation, order, sizes, zeros):
    net = systems.Hopfield(sizes, activation=activation, precision="bfloat16", seed=2)
    x = signals(40, 30, zeros, 5)
    states = swept(net, x, 7, order)
    found = net.predict(x, settling=Settling(sweeps=(7, 1), order=order))
    # A last bit may round a state to the other side.
    np.testing.assert_allclose(found, states[-1], atol=4e-3)
    assert np.median(np.abs(found - states[-1])) < 1e-5


@pytest.mark.parametrize("activation", ["hard-sigmoid", "tanh", "logistic"])
@pytest.mark.parametrize("sizes", [[30, 40, 10], [30, 70, 50, 4], [30, 33, 40, 21, 5]])
def test_rounded_states_come_to_rest(activation, sizes):
    net = systems.Hopfield(sizes, activation=activation, precision="bfloat16", seed=2)
    x = signals(60, 30, 0.0, 5)
    once = net.predict(x)
    again = swept(net, x, 300)
    np.testing.assert_allclose(once, again[-1], atol=4e-3)
    report = pnn.audit(net, methods.EquilibriumPropagation(beta=0.1), x[:16], np.arange(16) % 4)
    plain = systems.Hopfield(sizes, activation=activation, seed=2)
    whole = pnn.audit(plain, methods.EquilibriumPropagation(beta=0.1), x[:16], np.arange(16) % 4)
    assert report.cosine > whole.cosine - 0.01


def codes(values, step):
    return np.rint(np.asarray(values, np.float64) / step).astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    n_in=st.integers(1, 70),
    n_out=st.integers(1, 70),
    bits=st.integers(2, 8),
    passes=st.sampled_from(["one", "signs", "bits"]),
    bound=st.sampled_from([1.0, 0.5]),
    remap=st.sampled_from([None, "array", "columns"]),
    cut=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_reads_of_integers_are_exact(
    rows, n_in, n_out, bits, passes, bound, remap, cut, dtype, seed
):
    io = AnalogIO(
        input_bits=bits,
        input_bound=bound,
        passes=passes,
        output_noise=0.0,
        output_bits=None,
        output_bound=None,
        bound_management=False,
    )
    tile = (max(1, n_in // 2), max(1, n_out // 3)) if cut else None
    layer = Crossbar(n_in, n_out, bias=False, io=io, precision="int8", remap=remap, tile=tile)
    net = systems.Stack([layer], seed=seed, dtype=dtype)
    w, x = net.params["W1"].astype(np.float64), signals(rows, n_in, 0.1, seed).astype(np.float64)

    def pieces(n, most):
        count = -(-n // most)
        return [(k * n // count, (k + 1) * n // count) for k in range(count)]

    expected = np.zeros((rows, n_out))
    most = 2 ** (bits - 1) - 1
    high, wide = tile or (n_in, n_out)
    for (a, b), (c, d) in itertools.product(pieces(n_in, high), pieces(n_out, wide)):
        held = w[a:b, c:d]
        axis = 0 if remap == "columns" else None
        scale = np.abs(held).max(axis=axis, keepdims=True) if remap else np.ones((1, 1))
        held = held / np.where(scale == 0, 1, scale)
        step = np.abs(held).max() / 127
        largest = np.abs(x[:, a:b]).max(axis=1, keepdims=True)
        relative = x[:, a:b] / np.where(largest == 0, 1, largest)
        inputs = np.clip(codes(relative, bound / most), -most, most)
        whole = inputs @ codes(held, step or 1.0)
        expected[:, c:d] += whole * (bound / most) * step * largest * scale
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    size = np.abs(expected).max() + np.abs(w).max() * 1e-3
    # A weight or an input between two integers may go either way for a last bit.
    off = np.abs(net.predict(x) - expected) > 20 * tolerance * size * np.sqrt(n_in)
    assert off.sum() <= (max(2, 0.02 * off.size) if dtype == "float32" else 0)


@pytest.mark.parametrize("remap", [None, "array", "columns"])
@pytest.mark.parametrize("tile", [None, (20, 9)])
def test_errors_go_back_through_the_same_integers(remap, tile):
    layer = Crossbar(50, 30, bias=False, io=QUIET, precision="int8", remap=remap, tile=tile)
    stack = [Linear(8, 50), layer]
    net = systems.Stack(stack, seed=0)
    plain = systems.Stack([stack[0], Crossbar(50, 30, bias=False, io=QUIET, tile=tile)], seed=0)
    x, y = signals(30, 8, 0.0, 1), np.arange(30) % 30
    found = methods.InSituBackprop().gradient(net, x, y)["W1"]
    whole = methods.InSituBackprop().gradient(plain, x, y)["W1"]
    assert 0 < np.linalg.norm(found - whole) < 0.02 * np.linalg.norm(whole)


@pytest.mark.filterwarnings("ignore::pnncore.SettlingWarning")
def test_what_is_no_number_stays_none():
    net = systems.Stack([Linear(3, 4), Crossbar(4, 2, precision="int8", io=QUIET)], seed=0)
    net.params["W1"][:] = 3e38
    found = net.predict(np.array([[1, 1, 1], [0, 0, 0]], np.float32))
    assert not np.isfinite(found[0]).any()
    assert np.isfinite(found[1]).all()


def test_settings_without_sense_are_refused():
    with pytest.raises(AttributeError):
        systems.Hopfield([3, 4, 2]).precision = "bfloat16"
    with pytest.raises(ConfigError, match="setting of layers"):
        systems.Hopfield([3, 4, 2], dtype="bfloat16")
    for precision in ("int8", "float16", 8, True, b"bfloat16"):
        with pytest.raises(ConfigError, match="precision"):
            Linear(3, 2, precision=precision)
        with pytest.raises(ConfigError, match="precision"):
            systems.Hopfield([3, 4, 2], precision=precision)
    with pytest.raises(ConfigError, match="precision"):
        Crossbar(3, 2, precision="bfloat16")
    for io in (AnalogIO.ideal(), AnalogIO(input_bits=9), AnalogIO(input_noise=0.1)):
        for ways in ({"io": io}, {"backward": io}):
            with pytest.raises(ConfigError, match="int8"):
                systems.Stack([Crossbar(3, 2, precision="int8", **ways)])
    with pytest.raises(ConfigError, match="wires"):
        systems.Stack([Crossbar(3, 2, precision="int8", wires=layers.Wires())])


def test_precision_is_kept_in_files(tmp_path):
    stack = [
        Linear(6, 5, precision="bfloat16"),
        Crossbar(5, 4, precision="int8"),
    ]
    hopfield = systems.Hopfield([6, 5, 4], precision="bfloat16", seed=0)
    for system, method in (
        (systems.Stack(stack, seed=0), methods.Backprop()),
        (hopfield, methods.EquilibriumPropagation()),
    ):
        trainer = pnn.Trainer(system, method, pnn.optim.SGD(0.1), batch_size=4, seed=0)
        trainer.fit(signals(8, 6, 0.0, 0), np.arange(8) % 4, epochs=1)
        trainer.save(tmp_path / "run.pnn")
        again = pnn.Trainer.load(tmp_path / "run.pnn")
        assert "bfloat16" in repr(again.system)
        assert again.system.to_config() == system.to_config()
        x = signals(5, 6, 0.0, 1)
        np.testing.assert_array_equal(again.system.predict(x), system.predict(x))
    # Files of before there was a precision.
    config = hopfield.to_config()
    del config["precision"], config["name"]
    assert systems.Hopfield.from_config(config).precision is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-36, 3e-37, 1e-38, 1e20])
def test_integers_do_not_depend_on_units(dtype, scale):
    for remap in (None, "array"):
        layer = Crossbar(40, 20, bias=False, io=QUIET, precision="int8", remap=remap)
        net = systems.Stack([layer], seed=0, dtype=dtype)
        x, w = signals(9, 40, 0.0, 1).astype(dtype), net.params["W1"].copy()
        expected = net.predict(x)
        net.params["W1"][:] = w * np.asarray(scale, dtype)
        # Below the normal numbers a last bit is much.
        np.testing.assert_allclose(net.predict(x) / scale, expected, rtol=1e-4, atol=1e-4)


def test_the_local_rule_reads_what_is_not_rounded():
    net = systems.Hopfield([10, 20, 12, 5], activation="tanh", precision="bfloat16", seed=0)
    x = signals(1, 10, 0.0, 0)
    gradient = methods.EquilibriumPropagation().gradient(net, x, np.array([2]))["W1"]
    column = np.abs(gradient).max(axis=0).argmax()
    of_one = gradient[:, column] / gradient[0, column]
    np.testing.assert_allclose(of_one, x[0] / x[0, 0], rtol=1e-5)
    assert np.abs(x[0] - rounded(x[0])).max() > 1e-3


def test_weights_beyond_the_largest_bfloat16_stay_finite():
    net = systems.Stack([Linear(8, 2, bias=False, precision="bfloat16")], seed=0)
    net.params["W1"][:] = 1
    net.params["W1"][0] = 3.4e38
    x = np.full((32, 8), 0.5, np.float32)
    x[:, 0] = 0
    np.testing.assert_array_equal(net.predict(x), np.full((32, 2), 3.5))


def test_audits_compare_with_the_network_without_rounding():
    hopfield = systems.Hopfield([8, 10, 4], precision="bfloat16", seed=0)
    assert hopfield.in_full_precision().precision is None
    low = systems.Stack([Linear(8, 4, precision="bfloat16")], mismatch=0.1, seed=0)
    low.params["W1"] += 0.1
    whole = low.in_full_precision()
    assert whole.in_full_precision() is whole
    np.testing.assert_array_equal(whole.params["W1"], low.params["W1"])
    arrays = systems.Stack([Crossbar(8, 4, precision="int8", io=QUIET)], seed=0)
    assert "int8" not in repr(arrays.in_full_precision())
    x = signals(16, 8, 0.0, 0)
    np.testing.assert_allclose(whole.predict(x), low.predict(x), atol=0.02)
    report = pnn.audit(low, methods.Backprop(), x, np.arange(16) % 4)
    assert (
        report.relative_error
        > pnn.audit(whole, methods.Backprop(), x, np.arange(16) % 4).relative_error
    )
