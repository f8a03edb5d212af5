"""Wrong arguments: a typed error at once, whose message names the argument and says what is needed."""

import pickle
import warnings

import numpy as np
import pnncore as pnn
import pytest
from helpers import make_batch, make_net, parameter_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from pnncore import Settling, methods, optim
from pnncore.errors import CapabilityError, ConfigError, DataError, PnnError, ShapeError
from pnncore.methods import (
    CoupledLearning,
    EquilibriumPropagation,
    ImplicitDifferentiation,
    RecurrentBackprop,
)
from pnncore.systems import Hopfield

NAN, INF = float("nan"), float("inf")
ALL = (
    "holomorphic",
    "EquilibriumPropagation",
    "ContrastiveLearning",
    "CoupledLearning",
    "ImplicitDifferentiation",
)


@pytest.fixture
def net():
    return make_net([3, 4, 2], dtype="float32")


@pytest.fixture
def x(net):
    return make_batch(net, 5)[0]


@pytest.fixture
def y(net):
    return make_batch(net, 5)[1]


@pytest.fixture
def trainer(net):
    return pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1), seed=0)


def refuses(kind, match, call, *arguments, **settings):
    with pytest.raises(kind, match=match) as caught:
        call(*arguments, **settings)
    assert type(caught.value) is kind
    assert isinstance(caught.value, PnnError)


def test_errors_are_also_the_usual_ones():
    for kind, usual in [
        (ShapeError, ValueError),
        (ConfigError, ValueError),
        (DataError, ValueError),
        (CapabilityError, TypeError),
        (pnn.errors.HardwareError, RuntimeError),
        (pnn.errors.CheckpointError, ValueError),
    ]:
        assert issubclass(kind, usual)
        assert issubclass(kind, PnnError)
        error = pickle.loads(pickle.dumps(kind("text")))
        assert (type(error), str(error)) == (kind, "text")
    assert issubclass(pnn.SettlingWarning, UserWarning)


# Every way by which inputs enter.
ENTRIES = {
    "settle": lambda net, x, y: net.settle(x),
    "nudge": lambda net, x, y: net.settle(x, y, beta=0.1),
    "predict": lambda net, x, y: net.predict(x),
    "classify": lambda net, x, y: net.classify(x),
    "score": lambda net, x, y: net.score(x, y),
    "gradient": lambda net, x, y: EquilibriumPropagation().gradient(net, x, y),
    "implicit": lambda net, x, y: ImplicitDifferentiation().gradient(net, x, y),
    "audit": lambda net, x, y: pnn.audit(net, EquilibriumPropagation(), x, y),
    "fit": lambda net, x, y: pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1)).fit(x, y, epochs=1),
    "validation": lambda net, x, y: pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1)).fit(
        np.zeros((2, 3), np.float32), np.zeros(2, int), epochs=1, validation=(x, y)
    ),
}
SUPERVISED = [name for name in ENTRIES if name not in ("settle", "predict", "classify")]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda x: x[:, :2], ShapeError, r"x must have shape \(samples, 3\), got \(5, 2\)"),
        (lambda x: x[0], ShapeError, r"x must have shape \(samples, 3\), got \(3,\)"),
        (lambda x: x[None], ShapeError, r"x must have shape \(samples, 3\), got \(1, 5, 3\)"),
        (lambda x: x.T, ShapeError, r"x must have shape \(samples, 3\), got \(3, 5\)"),
        (lambda x: 1.0, ShapeError, r"x must have shape \(samples, 3\), got \(\)"),
        (lambda x: [], ShapeError, r"x must have shape \(samples, 3\), got \(0,\)"),
        (
            lambda x: x.astype(np.float64),
            ConfigError,
            "x is float64, but the system computes in float32.*astype",
        ),
        (lambda x: x.astype(np.float16), ConfigError, "x must be float32, got float16"),
        (
            lambda x: (x * 255).astype(np.uint8),
            ConfigError,
            "x must be float32, got uint8; convert and scale",
        ),
        (lambda x: x.astype(bool), ConfigError, "x must be float32, got bool"),
        (lambda x: x.astype(complex), ConfigError, "x must be float32, got complex128"),
        (lambda x: x.astype(object), ConfigError, "x must be float32, got object"),
        (lambda x: x.astype(">f4"), ConfigError, "x must be float32, got >f4"),
        (lambda x: "text", DataError, "x must be an array of numbers"),
        (lambda x: [[1, 2, 3], [1, 2]], DataError, "x must be an array of numbers"),
        (lambda x: [["a", 2, 3]], DataError, "x must be an array of numbers"),
        (lambda x: [[None, {}, 3]], DataError, "x must be an array of numbers"),
        (lambda x: with_value(x, NAN), DataError, "x holds nan at row 3, column 1; inputs must be finite"),
        (lambda x: with_value(x, INF), DataError, "x holds inf at row 3, column 1; inputs must be finite"),
        (lambda x: with_value(x, -INF), DataError, "x holds -inf at row 3, column 1; inputs must be finite"),
        (lambda x: [[1e39, 0, 0]], DataError, "x holds inf at row 0, column 0"),
        (lambda x: [[1, NAN, 0]], DataError, "x holds nan at row 0, column 1"),
    ],
)
def test_inputs(net, x, y, entry, make, kind, match):
    before = parameter_bytes(net)
    refuses(kind, match, ENTRIES[entry], net, make(x), y)
    assert parameter_bytes(net) == before


def with_value(x, value):
    x = x.copy()
    x[3, 1] = value
    return x


@pytest.mark.parametrize("entry", SUPERVISED)
@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda y: y[:4], ShapeError, "y must hold 5 labels, one per sample, got 4"),
        (
            lambda y: y + 1,
            DataError,
            r"y must hold labels in 0..1 \(the system has 2 outputs\), got values in 1..2",
        ),
        (lambda y: y - 1, DataError, r"y must hold labels in 0..1 .*, got values in -1..0"),
        (lambda y: y.astype(np.uint64) + np.uint64(2**63), DataError, "y must hold labels in 0..1"),
        (lambda y: [0, 1, 0, 1, 2**70], DataError, "y must be integer labels or an array of targets"),
        (
            lambda y: y.astype(np.float32),
            ShapeError,
            r"y must be integer labels of shape \(5,\) or targets of shape",
        ),
        (lambda y: y.astype(bool), ShapeError, r"y must be integer labels of shape \(5,\).*bool"),
        (lambda y: list("abcde"), ShapeError, r"y must be integer labels of shape \(5,\)"),
        (lambda y: [None] * 5, DataError, "y must be integer labels or an array of targets"),
        (lambda y: [[1], [1, 2]], DataError, "y must be integer labels or an array of targets.*ragged"),
        (lambda y: 3, ShapeError, r"y must have shape \(samples, 2\), got \(\)"),
        (
            lambda y: np.zeros((5, 3), np.float32),
            ShapeError,
            r"y must have shape \(samples, 2\), got \(5, 3\)",
        ),
        (lambda y: np.zeros((4, 2), np.float32), ShapeError, "y must hold 5 rows, one per sample, got 4"),
        (lambda y: np.zeros((5, 2)), ConfigError, "y is float64, but the system computes in float32"),
        (lambda y: np.zeros((5, 2), int), ConfigError, "y must be float32, got int64"),
        (lambda y: np.full((5, 2), NAN, np.float32), DataError, "y holds nan at row 0, column 0"),
        (lambda y: np.full((5, 2), -INF, np.float32), DataError, "y holds -inf at row 0, column 0"),
    ],
)
def test_targets(net, x, y, entry, make, kind, match):
    before = parameter_bytes(net)
    refuses(kind, match, ENTRIES[entry], net, x, make(y))
    assert parameter_bytes(net) == before


def test_no_samples(net, x, y):
    for entry in ("score", "gradient", "implicit", "audit", "fit", "validation"):
        refuses(ShapeError, "x holds no samples", ENTRIES[entry], net, x[:0], y[:0])
    assert net.predict(x[:0]).shape == (0, 2)
    assert net.classify(x[:0]).shape == (0,)
    found = net.settle(x[:0])
    assert [layer.shape for layer in found.states] == [(0, 4), (0, 2)]
    assert found.converged
    assert repr(found)
    assert net.settle(x[:0], y[:0], beta=0.1).status.shape == (0,)


def test_inputs_of_any_layout_work(net, x, y):
    expected = net.predict(x)
    wide = np.zeros((10, 6), np.float32)
    wide[::2, ::2] = x
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    layouts = [
        np.asfortranarray(x),
        wide[::2, ::2],
        x[::-1][::-1],
        unaligned,
        read_only,
        x.tolist(),
        tuple(map(tuple, x.tolist())),
        x.view(type("Mine", (np.ndarray,), {})),
    ]
    for layout in layouts:
        np.testing.assert_array_equal(net.predict(layout), expected)
    labels = np.repeat(y, 2)[::2]
    a = EquilibriumPropagation().gradient(net, wide[::2, ::2], labels)
    b = EquilibriumPropagation().gradient(net, x, y)
    np.testing.assert_array_equal(a["W1"], b["W1"])
    targets = np.asfortranarray(np.eye(2, dtype=np.float32)[y])
    np.testing.assert_array_equal(EquilibriumPropagation().gradient(net, x, targets)["W1"], b["W1"])


@pytest.mark.parametrize(
    ("value", "kind", "match"),
    [
        (lambda W: W.tolist(), ConfigError, "parameter W1 must be a float32 array, got list"),
        (lambda W: None, ConfigError, "parameter W1 must be a float32 array, got NoneType"),
        (lambda W: W.astype(np.float64), ConfigError, "parameter W1 must be a float32 array, got float64"),
        (lambda W: W.astype(">f4"), ConfigError, "parameter W1 must be a float32 array, got >f4"),
        (lambda W: W.T.copy(), ShapeError, r"parameter W1 must have shape \(3, 4\), got \(4, 3\)"),
        (lambda W: W.ravel(), ShapeError, r"parameter W1 must have shape \(3, 4\), got \(12,\)"),
        (
            np.asfortranarray,
            ConfigError,
            r"parameter W1 must be C-contiguous and aligned; set it with params\['W1'\]\[...\]",
        ),
        (lambda W: np.repeat(W, 2, axis=1)[:, ::2], ConfigError, "parameter W1 must be C-contiguous"),
        (lambda W: np.full_like(W, NAN), DataError, "parameter W1 holds NaN or infinity"),
        (lambda W: np.full_like(W, INF), DataError, "parameter W1 holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("entry", ["settle", "nudge", "predict", "score", "gradient", "implicit", "audit", "fit"])
def test_parameters(net, x, y, value, kind, match, entry):
    net.params["W1"] = value(net.params["W1"])
    refuses(kind, match, ENTRIES[entry], net, x, y)


@pytest.mark.parametrize("entry", ["predict", "gradient", "fit"])
def test_one_bad_number_in_any_parameter(net, x, y, entry):
    for name, array in net.params.items():
        for bad in (NAN, INF, -INF):
            kept = array.flat[-1]
            array.flat[-1] = bad
            refuses(DataError, f"parameter {name} holds NaN or infinity", ENTRIES[entry], net, x, y)
            array.flat[-1] = kept


def test_unaligned_parameters(net, x, y):
    W = net.params["W1"]
    unaligned = np.zeros(W.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(W.shape)
    unaligned[...] = W
    net.params["W1"] = unaligned
    for entry in ("predict", "gradient", "fit"):
        refuses(ConfigError, "parameter W1 .*align", ENTRIES[entry], net, x, y)


def test_missing_and_unknown_parameters(net, x):
    net.params["W3"] = net.params.pop("W2")
    refuses(ConfigError, r"parameters must be .*; missing \['W2'\], unknown \['W3'\]", net.predict, x)


def test_read_only_parameters(net, x, y, trainer):
    expected = net.predict(x)
    net.params["b1"].flags.writeable = False
    refuses(ConfigError, "parameter b1 is read-only", trainer.fit, x, y, epochs=1)
    np.testing.assert_array_equal(net.predict(x), expected)
    EquilibriumPropagation().gradient(net, x, y)


def test_parameters_that_share_memory(x, y):
    net = Hopfield([3, 3, 3], seed=0)
    net.params["W2"] = net.params["W1"]
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1))
    assert net.predict(x).shape == (5, 3)
    refuses(
        ConfigError,
        "every parameter must be writable, and every array a different one",
        trainer.fit,
        x,
        y,
        epochs=1,
    )
    net = Hopfield([3, 3, 3], seed=0)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1))
    match = "the data share memory with parameter W1"
    refuses(ConfigError, match, trainer.fit, net.params["W1"], y[:3], epochs=1)
    refuses(ConfigError, match, trainer.fit, x[:3], net.params["W1"], epochs=1)
    assert net.predict(net.params["W1"]).shape == (3, 3)


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([3], r"layers must be at least two positive sizes.*\[3\]"),
        ([], "layers must be at least two"),
        ([3, 0], "every layer must be a positive integer, got 0"),
        ([3, -1], "every layer must be a positive integer, got -1"),
        ([3, 2.5], "every layer must be a positive integer, got 2.5"),
        ([3, True], "every layer must be a positive integer, got True"),
        ([3, "a"], "every layer must be a positive integer, got 'a'"),
        ([3, None], "every layer must be a positive integer, got None"),
        ([2**40, 2**40], "every layer must be a positive integer"),
        ([2**70, 2], "every layer must be a positive integer"),
        ("34", "layers must be a sequence of sizes"),
        (5, "layers must be a sequence of sizes"),
        (None, "layers must be a sequence of sizes"),
        ({3, 4}, "layers must be a sequence of sizes"),
    ],
)
def test_layers(layers, match):
    refuses(ConfigError, match, Hopfield, layers)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"activation": "relu"}, 'activation must be "hard-sigmoid", "tanh" or "logistic", got .relu.'),
        ({"activation": None}, "activation must be .* got None"),
        ({"activation": "Tanh"}, "activation must be .*Tanh"),
        ({"gain": -1}, "gain must be a finite number, at least 0, got -1"),
        ({"gain": NAN}, "gain must be a finite number, at least 0, got nan"),
        ({"gain": "1"}, "gain must be a finite number, at least 0, got '1'"),
        ({"gain": True}, "gain must be a finite number, at least 0, got True"),
        ({"dtype": "float16"}, 'dtype must be "float32" or "float64", got .float16.'),
        ({"dtype": "number"}, 'dtype must be "float32" or "float64"'),
        ({"dtype": None}, 'dtype must be "float32" or "float64", got None'),
        ({"dtype": int}, 'dtype must be "float32" or "float64"'),
        ({"dtype": ">f4"}, 'dtype must be "float32" or "float64"'),
        ({"dtype": "complex64"}, 'dtype must be "float32" or "float64"'),
        ({"seed": True}, "seed must be an integer or None, got True"),
        ({"seed": -1}, "seed must be in 0..2\\*\\*64, got -1"),
        ({"seed": 2**64}, "seed must be in 0..2\\*\\*64"),
        ({"seed": 1.0}, "seed must be an integer or None, got 1.0"),
        ({"seed": "1"}, "seed must be an integer or None, got '1'"),
    ],
    ids=str,
)
def test_settings_of_hopfield(settings, match):
    refuses(ConfigError, match, Hopfield, [3, 2], **settings)


def test_seeds_at_the_edges():
    for seed in (0, 2**64 - 1, np.int64(3), np.uint64(2**64 - 1)):
        assert Hopfield([3, 2], seed=seed).seed == int(seed)
    assert Hopfield([3, 2], dtype=np.float64).dtype == np.dtype("float64")
    assert Hopfield((3, 2), gain=1).gain == 1.0


@pytest.mark.parametrize("name", ["sweeps", "max_sweeps"])
@pytest.mark.parametrize(
    "bad", [0, -1, 1.5, True, "3", (1,), (1, 2, 3), (0, 1), (1, 0), (1, 2.0), (1, True), 2**40, NAN]
)
def test_numbers_of_sweeps(name, bad):
    refuses(
        ConfigError,
        rf"^{name} must be a positive integer or a pair \(free, nudged\), got",
        Settling,
        **{name: bad},
    )


@pytest.mark.parametrize("name", ["tolerance", "relative_tolerance"])
@pytest.mark.parametrize("bad", [0, -1e-3, NAN, INF, "1e-3", True, (1e-3, 1e-3)])
def test_tolerances(name, bad):
    refuses(ConfigError, rf"^{name} must be a (finite|positive) number, got", Settling, **{name: bad})


def test_names_in_settling():
    refuses(
        ConfigError,
        'order must be one of "asynchronous", "synchronous"; got .random.',
        Settling,
        order="random",
    )
    refuses(
        ConfigError,
        'output_update must be one of "exact", "explicit"; got .off.',
        Settling,
        output_update="off",
    )
    several = "give one of sweeps, tolerance and relative_tolerance"
    refuses(ConfigError, several, Settling, sweeps=3, tolerance=1e-3)
    refuses(ConfigError, several, Settling, relative_tolerance=0.1, tolerance=1e-3)
    with pytest.raises(TypeError, match="sweps"):
        Settling(sweps=3)
    with pytest.raises(TypeError, match="positional"):
        Settling(3)


@pytest.mark.parametrize(
    ("make", "settings", "match"),
    [
        (EquilibriumPropagation, {"beta": 0}, "beta must be a finite number other than 0, got 0"),
        (EquilibriumPropagation, {"beta": -0.1}, 'beta must be positive, got -0.1.*sign="negative"'),
        (EquilibriumPropagation, {"beta": NAN}, "beta must be a finite number, got nan"),
        (EquilibriumPropagation, {"beta": INF}, "beta must be a finite number, got inf"),
        (EquilibriumPropagation, {"beta": "0.1"}, "beta must be a finite number, got '0.1'"),
        (EquilibriumPropagation, {"beta": True}, "beta must be a finite number, got True"),
        (EquilibriumPropagation, {"beta": None}, "beta must be a finite number, got None"),
        (
            EquilibriumPropagation,
            {"variant": "two-sided"},
            'variant must be one of "centered", "one-sided", "holo',
        ),
        (EquilibriumPropagation, {"variant": None}, "variant must be one of"),
        (EquilibriumPropagation, {"variant": "one-sided", "sign": "up"}, 'sign must be one of "positive"'),
        (EquilibriumPropagation, {"sign": "negative"}, 'sign applies to variant="one-sided" only'),
        (
            EquilibriumPropagation,
            {"loss": "mse"},
            'loss must be one of "squared-error", "cross-entropy"; got .mse.',
        ),
        (EquilibriumPropagation, {"loss": ["squared-error"]}, "loss must be"),
        (EquilibriumPropagation, {"variant": "holomorphic", "points": 1}, "points must be at least 2, got 1"),
        (EquilibriumPropagation, {"points": 0}, "points must be a positive integer, got 0"),
        (EquilibriumPropagation, {"points": 4.0}, "points must be a positive integer, got 4.0"),
        (EquilibriumPropagation, {"points": 2**40}, "points must be a positive integer"),
        (EquilibriumPropagation, {"settling": {}}, "settling must be a pnncore.Settling, got {}"),
        (EquilibriumPropagation, {"settling": None}, "settling must be a pnncore.Settling, got None"),
        (CoupledLearning, {"eta": 0.0}, "eta must be"),
        (CoupledLearning, {"eta": -0.1}, r"eta must be in \(0, 1\], got -0.1"),
        (CoupledLearning, {"eta": 1.1}, r"eta must be in \(0, 1\], got 1.1"),
        (CoupledLearning, {"eta": NAN}, "eta must be a finite number, got nan"),
        (
            CoupledLearning,
            {"variant": "one-sided"},
            'variant must be one of "positive", "negative", "centered"',
        ),
        (RecurrentBackprop, {"steps": 0}, "steps must be a positive integer, got 0"),
        (RecurrentBackprop, {"steps": -3}, "steps must be a positive integer, got -3"),
        (RecurrentBackprop, {"steps": 2.5}, "steps must be a positive integer, got 2.5"),
        (RecurrentBackprop, {"steps": 2**40}, "steps must be a positive integer"),
        (ImplicitDifferentiation, {"loss": None}, "loss must be one of"),
    ],
    ids=str,
)
def test_settings_of_methods(make, settings, match):
    refuses(ConfigError, match, make, **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"beta": 1}, "beta = -1 has no stable state.* needs beta > -1"),
        ({"beta": 2.5}, "beta = -2.5 has no stable state.* needs beta > -1"),
        ({"beta": 2, "loss": "cross-entropy"}, r"needs \|beta\| < 2"),
        ({"beta": 1, "variant": "one-sided", "sign": "negative"}, "needs beta > -1"),
        ({"beta": 1, "variant": "one-sided", "sign": "random"}, "needs beta > -1"),
        ({"beta": 1, "variant": "holomorphic"}, r"needs \|beta\| < 1|needs beta > -1"),
        ({"beta": 2, "variant": "holomorphic", "loss": "cross-entropy"}, r"\|beta\| < 2"),
    ],
    ids=str,
)
def test_beta_out_of_the_range_of_a_system(settings, match):
    net = make_net([3, 4, 2], activation="tanh")
    method = EquilibriumPropagation(**settings)
    x, y = make_batch(net, 3)
    refuses(ConfigError, match, method.gradient, net, x, y)
    refuses(ConfigError, match, pnn.Trainer, net, method, pnn.optim.SGD(0.1))


def test_explicit_output_updates_need_real_betas():
    settling = Settling(output_update="explicit")
    match = 'output_update="explicit" is for real beta only'
    refuses(ConfigError, match, EquilibriumPropagation, variant="holomorphic", settling=settling)


def test_numpy_numbers_are_numbers(net, x, y):
    method = EquilibriumPropagation(beta=np.float64(0.25), points=np.int64(6))
    assert method == EquilibriumPropagation(beta=0.25, points=6)
    assert EquilibriumPropagation(beta=np.float32(0.25)) == EquilibriumPropagation(beta=0.25)
    assert repr(optim.SGD(np.float32(0.25))) == repr(optim.SGD(0.25))
    pnn.Trainer(net, method, optim.SGD(np.float64(0.1)), batch_size=np.int32(2), threads=np.int8(1)).fit(
        x, y, epochs=np.int64(1)
    )


def test_unknown_arguments():
    with pytest.raises(TypeError, match="bta"):
        EquilibriumPropagation(bta=0.1)
    with pytest.raises(TypeError, match="positional"):
        EquilibriumPropagation(0.1)
    refuses(
        ConfigError,
        "unknown method 'Magic'; known: EquilibriumPropagation",
        methods.from_config,
        {"name": "Magic"},
    )
    config = {"name": "Magic", "rate": 0.1, "schedule": None}
    refuses(ConfigError, "unknown optimizer 'Magic'; known: SGD, Adam", optim.from_config, config)


def test_holomorphic_needs_smooth_units(net, x, y):
    method = EquilibriumPropagation(variant="holomorphic")
    for call in (
        lambda: method.gradient(net, x, y),
        lambda: pnn.Trainer(net, method, optim.SGD(0.1)),
        lambda: pnn.audit(net, method, x, y),
    ):
        with pytest.raises(CapabilityError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith('EquilibriumPropagation(variant="holomorphic") needs an energy that is holomorphic')
        assert 'activation="tanh"' in text
        assert text.endswith("Methods that train this system: " + ", ".join(net.methods()))
    assert 'EquilibriumPropagation(variant="holomorphic")' not in net.methods()
    smooth = Hopfield([3, 4, 2], activation="logistic", seed=0)
    assert set(smooth.methods()) == {*net.methods(), 'EquilibriumPropagation(variant="holomorphic")'}
    assert set(method.gradient(smooth, x, y)) == set(smooth.params)


def test_methods_listed_can_train(x, y):
    for activation in ("hard-sigmoid", "tanh"):
        net = Hopfield([3, 4, 2], activation=activation, seed=0)
        for name in net.methods():
            call = name if name.endswith(")") else name + "()"
            method = eval(call, vars(methods))
            pnn.Trainer(net, method, optim.SGD(0.01)).fit(x, y, epochs=1)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"y": [0, 1, 0, 1, 1]}, "y and beta go together"),
        ({"beta": 0.1}, "y and beta go together"),
        ({"y": [0, 1, 0, 1, 1], "beta": NAN}, "beta must be a finite number, got nan"),
        ({"y": [0, 1, 0, 1, 1], "beta": "0.1"}, "beta must be a finite number, got '0.1'"),
        ({"y": [0, 1, 0, 1, 1], "beta": 1j}, "beta must be a finite number, got 1j"),
        ({"loss": "mse"}, 'loss must be one of "squared-error", "cross-entropy"; got .mse.'),
        ({"loss": None}, "loss must be"),
        ({"settling": {}}, "settling must be a pnncore.Settling, got {}"),
        ({"threads": 0}, "threads must be a positive integer or None, got 0"),
        ({"threads": -1}, "threads must be a positive integer or None, got -1"),
        ({"threads": True}, "threads must be a positive integer or None, got True"),
        ({"threads": 2.0}, "threads must be a positive integer or None, got 2.0"),
    ],
    ids=str,
)
def test_settings_of_settle(net, x, settings, match):
    refuses(ConfigError, match, net.settle, x, **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"seed": True}, "seed must be an integer or None, got True"),
        ({"seed": -1}, "seed must be in 0"),
        ({"step": -1}, "step must be an integer in 0..2"),
        ({"step": 2**64}, "step must be an integer in 0..2"),
        ({"step": "a"}, "step must be an integer in 0..2.*, got 'a'"),
        ({"step": True}, "step must be an integer in 0..2.*, got True"),
        ({"threads": 0}, "threads must be a positive integer or None, got 0"),
    ],
    ids=str,
)
def test_settings_of_gradient(net, x, y, settings, match):
    refuses(ConfigError, match, EquilibriumPropagation().gradient, net, x, y, **settings)


def test_systems(x, y):
    for system in (None, 3, "net", {}):
        match = "system must be a pnncore System"
        refuses(ConfigError, match, EquilibriumPropagation().gradient, system, x, y)
        refuses(ConfigError, match, pnn.audit, system, EquilibriumPropagation(), x, y)
        refuses(ConfigError, match, pnn.Trainer, system, EquilibriumPropagation(), optim.SGD(0.1))


@pytest.mark.parametrize(
    ("make", "arguments", "settings", "match"),
    [
        (
            optim.SGD,
            ("a",),
            {},
            "rate must be a number, a sequence per layer or a mapping by parameter, got 'a'",
        ),
        (optim.SGD, (None,), {}, "rate must be a number"),
        (optim.SGD, (True,), {}, "rate must be a number"),
        (optim.SGD, (-0.1,), {}, "rates must be finite and at least 0, got -0.1"),
        (optim.SGD, (NAN,), {}, "rate must be a finite number, got nan"),
        (optim.SGD, (INF,), {}, "rate must be a finite number, got inf"),
        (optim.SGD, ([],), {}, "rates must be finite and at least 0, got \\[\\]"),
        (optim.SGD, ({},), {}, "rates must be finite and at least 0, got {}"),
        (optim.SGD, ([0.1, "a"],), {}, "every rate must be a finite number, got 'a'"),
        (optim.SGD, ([0.1, True],), {}, "every rate must be a finite number, got True"),
        (optim.SGD, ({"W1": None},), {}, "rate of W1 must be a finite number, got None"),
        (optim.SGD, ({"W1": -1.0},), {}, "rates must be finite and at least 0"),
        (optim.SGD, (0.1,), {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        (optim.SGD, (0.1,), {"momentum": -0.1}, r"momentum must be in \[0, 1\), got -0.1"),
        (optim.SGD, (0.1,), {"momentum": NAN}, "momentum must be a finite number, got nan"),
        (optim.SGD, (0.1,), {"momentum": "a"}, "momentum must be a finite number, got 'a'"),
        (optim.SGD, (0.1,), {"weight_decay": -1}, "weight_decay must be at least 0"),
        (optim.SGD, (0.1,), {"weight_decay": None}, "weight_decay must be a finite number, got None"),
        (optim.SGD, (0.1,), {"schedule": 3}, r"schedule needs a method factor\(epoch\), got 3"),
        (optim.SGD, (0.1,), {"schedule": "cosine"}, "schedule needs a method factor"),
        (optim.Adam, (0.1,), {"betas": (1.0, 0.9)}, r"beta1 must be in \[0, 1\), got 1"),
        (optim.Adam, (0.1,), {"betas": (0.9, -0.1)}, r"beta2 must be in \[0, 1\), got -0.1"),
        (optim.Adam, (0.1,), {"betas": 0.9}, "betas must be a pair of numbers, got 0.9"),
        (optim.Adam, (0.1,), {"betas": (0.9,)}, "betas must be a pair of numbers"),
        (optim.Adam, (0.1,), {"betas": ("a", 0.9)}, "beta1 must be a finite number, got 'a'"),
        (optim.Adam, (0.1,), {"epsilon": 0}, "epsilon must be positive and finite, got 0"),
        (optim.Adam, (0.1,), {"epsilon": NAN}, "epsilon must be a finite number, got nan"),
        (optim.Adam, (0.1,), {"weight_decay": -1}, "weight_decay must be at least 0"),
        (optim.ExponentialDecay, (-0.1,), {}, "gamma must be at least 0, got -0.1"),
        (optim.ExponentialDecay, (NAN,), {}, "gamma must be a finite number, got nan"),
        (optim.StepDecay, (0,), {}, "every must be a positive integer, got 0"),
        (optim.StepDecay, (3, "a"), {}, "gamma must be a finite number, got 'a'"),
        (optim.CosineDecay, (0,), {}, "epochs must be a positive integer, got 0"),
        (optim.CosineDecay, (3, -1.0), {}, "floor must be at least 0, got -1.0"),
    ],
    ids=str,
)
def test_settings_of_optimizers(make, arguments, settings, match):
    refuses(ConfigError, match, make, *arguments, **settings)


@pytest.mark.parametrize(
    ("rate", "match"),
    [
        ({"W9": 0.1}, r"rates for unknown parameters \['W9'\]; the system has \['W1', 'b1', 'W2', 'b2'\]"),
        ([0.1], "1 rates by layer do not fit the parameters"),
        ([0.1, 0.1, 0.1], "3 rates by layer do not fit the parameters"),
    ],
)
def test_rates_that_do_not_fit(net, rate, match):
    refuses(ConfigError, match, pnn.Trainer, net, EquilibriumPropagation(), optim.SGD(rate))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a positive integer, got 2.5"),
        ({"batch_size": True}, "batch_size must be a positive integer, got True"),
        ({"batch_size": None}, "batch_size must be a positive integer, got None"),
        ({"seed": True}, "seed must be an integer or None, got True"),
        ({"seed": 1.5}, "seed must be an integer or None, got 1.5"),
        ({"threads": 0}, "threads must be a positive integer or None, got 0"),
        ({"callbacks": [3]}, r"callbacks must be pnncore.Callback objects, got \[3\]"),
        ({"callbacks": [pnn.Checkpoint]}, "callbacks must be pnncore.Callback objects"),
        ({"callbacks": 3}, "callbacks must be a list of pnncore.Callback objects, got 3"),
        ({"callbacks": pnn.Callback()}, "callbacks must be a list of pnncore.Callback objects"),
    ],
    ids=str,
)
def test_settings_of_trainer(net, settings, match):
    refuses(ConfigError, match, pnn.Trainer, net, EquilibriumPropagation(), optim.SGD(0.1), **settings)


def test_parts_of_trainer(net):
    refuses(ConfigError, "method must be a pnncore Method, got 'ep'", pnn.Trainer, net, "ep", optim.SGD(0.1))
    refuses(
        ConfigError,
        "optimizer must be a pnncore Optimizer, got 0.1",
        pnn.Trainer,
        net,
        EquilibriumPropagation(),
        0.1,
    )
    match = "method must be a pnncore Method"
    refuses(ConfigError, match, pnn.Trainer, net, EquilibriumPropagation, optim.SGD(0.1))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"epochs": 1.5}, "epochs must be a positive integer, got 1.5"),
        ({"epochs": True}, "epochs must be a positive integer, got True"),
        ({"epochs": 1, "validation": 3}, r"validation must be a pair \(inputs, targets\)"),
        ({"epochs": 1, "validation": (1, 2, 3)}, r"validation must be a pair \(inputs, targets\)"),
        ({"epochs": 1, "validation": np.zeros((2, 3))}, r"validation must be a pair \(inputs, targets\)"),
    ],
    ids=str,
)
def test_settings_of_fit(trainer, x, y, settings, match):
    refuses(ConfigError, match, trainer.fit, x, y, **settings)
    assert (trainer.epoch, trainer.step) == (0, 0)


@pytest.mark.parametrize(
    ("make", "arguments", "settings", "match"),
    [
        (pnn.EarlyStopping, (0,), {}, "patience must be a positive integer, got 0"),
        (
            pnn.EarlyStopping,
            (),
            {"quantity": "accurcy"},
            "quantity must be one of epoch, loss.*got 'accurcy'",
        ),
        (pnn.EarlyStopping, (), {"margin": "a"}, "margin must be a finite number, got 'a'"),
        (pnn.Checkpoint, ("run.pnn",), {"epochs": None}, "give epochs, minutes, or both"),
        (pnn.Checkpoint, ("run.pnn",), {"epochs": 0}, "epochs must be a positive integer, got 0"),
        (pnn.Checkpoint, ("run.pnn",), {"minutes": 0}, "minutes must be a positive number, got 0"),
        (pnn.Checkpoint, ("run.pnn",), {"minutes": NAN}, "minutes must be a finite number, got nan"),
        (pnn.Checkpoint, ("run.pnn",), {"minutes": "1"}, "minutes must be a finite number, got '1'"),
    ],
    ids=str,
)
def test_settings_of_callbacks(make, arguments, settings, match):
    refuses(ConfigError, match, make, *arguments, **settings)


def test_training_that_blows_up_is_reported():
    # Rates far too large: parameters overflow, and the next look at them says so.
    net = make_net([3, 4, 2], "tanh", dtype="float32")
    x, y = make_batch(net, 20)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(1e30), batch_size=2, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pnn.SettlingWarning)
        with pytest.raises(DataError, match=r"parameter \w+ holds NaN or infinity; training diverged"):
            trainer.fit(x, y, epochs=1000)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(
        st.one_of(st.integers(-3, 3), st.floats(), st.text(max_size=2), st.lists(st.integers(), max_size=2)),
        max_size=4,
    ),
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [
            object(),
            np.float32(2),
            np.int8(-1),
            np.array(3),
            np.zeros((2, 3), np.float32),
            np.zeros(0),
            range(3),
        ]
    ),
)
CALLS = {
    "layers": lambda junk, net, x, y: Hopfield(junk),
    "activation": lambda junk, net, x, y: Hopfield([3, 2], activation=junk),
    "gain": lambda junk, net, x, y: Hopfield([3, 2], gain=junk),
    "dtype": lambda junk, net, x, y: Hopfield([3, 2], dtype=junk),
    "seed": lambda junk, net, x, y: Hopfield([3, 2], seed=junk),
    "sweeps": lambda junk, net, x, y: Settling(sweeps=junk),
    "max_sweeps": lambda junk, net, x, y: Settling(max_sweeps=junk),
    "tolerance": lambda junk, net, x, y: Settling(tolerance=junk),
    "relative_tolerance": lambda junk, net, x, y: Settling(relative_tolerance=junk),
    "order": lambda junk, net, x, y: Settling(order=junk),
    "output_update": lambda junk, net, x, y: Settling(output_update=junk),
    "settling": lambda junk, net, x, y: EquilibriumPropagation(settling=junk),
    "beta": lambda junk, net, x, y: EquilibriumPropagation(beta=junk),
    "variant": lambda junk, net, x, y: EquilibriumPropagation(variant=junk),
    "sign": lambda junk, net, x, y: EquilibriumPropagation(variant="one-sided", sign=junk),
    "points": lambda junk, net, x, y: EquilibriumPropagation(points=junk),
    "loss": lambda junk, net, x, y: EquilibriumPropagation(loss=junk),
    "eta": lambda junk, net, x, y: CoupledLearning(eta=junk),
    "steps": lambda junk, net, x, y: RecurrentBackprop(steps=junk),
    "rate": lambda junk, net, x, y: optim.SGD(junk),
    "momentum": lambda junk, net, x, y: optim.SGD(0.1, momentum=junk),
    "weight_decay": lambda junk, net, x, y: optim.Adam(0.1, weight_decay=junk),
    "betas": lambda junk, net, x, y: optim.Adam(0.1, betas=junk),
    "epsilon": lambda junk, net, x, y: optim.Adam(0.1, epsilon=junk),
    "schedule": lambda junk, net, x, y: optim.SGD(0.1, schedule=junk),
    "x": lambda junk, net, x, y: net.predict(junk),
    "y": lambda junk, net, x, y: EquilibriumPropagation().gradient(net, x, junk),
    "step": lambda junk, net, x, y: EquilibriumPropagation().gradient(net, x, y, step=junk),
    "nudge": lambda junk, net, x, y: net.settle(x, y, beta=junk),
    "batch_size": lambda junk, net, x, y: pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1), batch_size=junk),
    "callbacks": lambda junk, net, x, y: pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1), callbacks=junk),
}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=40, deadline=None)
@given(junk=JUNK)
def test_junk_gives_typed_errors_only(name, junk):
    net = make_net([3, 4, 2], dtype="float32")
    x, y = make_batch(net, 2)
    if name == "layers" and isinstance(junk, list | tuple | range) and any(isinstance(n, int) and n > 99 for n in junk):
        return  # sizes that are merely too large for the test
    try:
        CALLS[name](junk, net, x, y)
    except (ConfigError, ShapeError, DataError) as error:
        text = "beta" if name in ("nudge", "betas") else name.rstrip("s")
        assert text in str(error), f"{error} does not name {name}"  # noqa: PT017
