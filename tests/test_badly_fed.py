"""Wrong arguments: a typed error at once, whose message names the argument and says what is
needed."""

import pickle

import numpy as np
import pnncore as pnn
import pytest
from helpers import make_batch, make_net, parameter_bytes, refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from pnncore import Settling, optim
from pnncore.errors import CapabilityError, ConfigError, DataError, PnnError, ShapeError
from pnncore.methods import (
    CoupledLearning,
    EquilibriumPropagation,
    ImplicitDifferentiation,
    RecurrentBackprop,
)
from pnncore.systems import Hopfield

NAN, INF = float("nan"), float("inf")


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
    "fit": lambda net, x, y: pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(0.1)).fit(
        x, y, epochs=1
    ),
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
        (lambda x: x.astype(complex), DataError, "x must be an array of numbers"),
        (lambda x: x.astype(object), DataError, "x must be an array of numbers"),
        (lambda x: x.astype(float) * 1e39, DataError, "x holds .*inf at row"),
        (lambda x: "text", DataError, "x must be an array of numbers"),
        (
            lambda x: np.ma.array(x, mask=x > x.min()),
            DataError,
            "x has masked elements; leave those samples out",
        ),
        (lambda x: list(np.ma.array(x, mask=x > x.min())), DataError, "x has masked elements"),
        (lambda x: [[1, np.ma.masked, 3]], DataError, "x has masked elements"),
        (lambda x: [["1", "2", "3"]], DataError, "x must be an array of numbers"),
        (lambda x: [[1j, 2, 3]], DataError, "x must be an array of numbers"),
        (lambda x: [[10**400, 2, 3]], DataError, "x must be an array of numbers"),
        (lambda x: x.view([("a", "f4")]), DataError, "x must be an array of numbers"),
        (lambda x: x.astype("datetime64[s]"), DataError, "x must be an array of numbers"),
        (lambda x: (row for row in x), DataError, "x must be an array of numbers"),
        (lambda x: {1.0, 2.0}, DataError, "x must be an array of numbers"),
        (lambda x: [[1, 2, 3], [1, 2]], DataError, "x must be an array of numbers"),
        (lambda x: [["a", 2, 3]], DataError, "x must be an array of numbers"),
        (lambda x: [[None, {}, 3]], DataError, "x must be an array of numbers"),
        (
            lambda x: with_value(x, NAN),
            DataError,
            "x holds nan at row 3, column 1: it must be finite",
        ),
        (
            lambda x: with_value(x, INF),
            DataError,
            "x holds inf at row 3, column 1: it must be finite",
        ),
        (
            lambda x: with_value(x, -INF),
            DataError,
            "x holds -inf at row 3, column 1: it must be finite",
        ),
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
        (lambda y: np.ma.array(y, mask=y == y[0]), DataError, "y has masked elements"),
        (
            lambda y: np.ma.array(np.eye(2, dtype=np.float32)[y], mask=True),
            DataError,
            "y has masked elements",
        ),
        (lambda y: y[:4], ShapeError, "y must hold 5 labels, one per sample, got 4"),
        (
            lambda y: y + 1,
            DataError,
            r"y must hold labels in 0..1 \(the system has 2 outputs\), got values in 1..2",
        ),
        (lambda y: y - 1, DataError, r"y must hold labels in 0..1 .*, got values in -1..0"),
        (lambda y: y.astype(np.uint64) + np.uint64(2**63), DataError, "y must hold labels in 0..1"),
        (
            lambda y: [0, 1, 0, 1, 2**70],
            DataError,
            "y must be integer labels or an array of targets",
        ),
        (
            lambda y: y.astype(np.float32),
            ShapeError,
            r"y must be integer labels of shape \(5,\) or targets of shape",
        ),
        (lambda y: y.astype(bool), ShapeError, r"y must be integer labels of shape \(5,\).*bool"),
        (lambda y: list("abcde"), ShapeError, r"y must be integer labels of shape \(5,\)"),
        (lambda y: [None] * 5, DataError, "y must be integer labels or an array of targets"),
        (
            lambda y: [[1], [1, 2]],
            DataError,
            "y must be integer labels or an array of targets.*ragged",
        ),
        (lambda y: 3, ShapeError, r"y must have shape \(samples, 2\), got \(\)"),
        (
            lambda y: np.zeros((5, 3), np.float32),
            ShapeError,
            r"y must have shape \(samples, 2\), got \(5, 3\)",
        ),
        (
            lambda y: np.zeros((4, 2), np.float32),
            ShapeError,
            "y must hold 5 rows, one per sample, got 4",
        ),
        (lambda y: np.zeros((5, 2), complex), DataError, "y must be an array of numbers"),
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


@pytest.mark.parametrize("kind", ["f8", "f2", ">f4", "u1", "i8", "?"])
def test_numbers_of_any_type_are_converted(net, x, y, kind):
    given = (4 * x).astype(kind)
    targets = np.eye(2)[y].astype(kind)
    plain = given.astype(np.float32), targets.astype(np.float32)
    np.testing.assert_array_equal(net.predict(given), net.predict(plain[0]))
    found, expected = (
        EquilibriumPropagation().gradient(net, *data) for data in ((given, targets), plain)
    )
    for name, own in expected.items():
        np.testing.assert_array_equal(found[name], own)
    assert given.dtype == np.dtype(kind)


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
        x.view(np.matrix),
        np.ma.array(x),
        np.ma.array(x, mask=np.zeros(x.shape, bool)),
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
        (
            lambda W: W.astype(np.float64),
            ConfigError,
            "parameter W1 must be a float32 array, got float64",
        ),
        (lambda W: W.astype(">f4"), ConfigError, "parameter W1 must be a float32 array, got >f4"),
        (lambda W: W.T.copy(), ShapeError, r"parameter W1 must have shape \(3, 4\), got \(4, 3\)"),
        (
            lambda W: np.ma.array(W, mask=W > 0),
            ConfigError,
            "parameter W1 must be a float32 array, got a masked one",
        ),
        (lambda W: W.ravel(), ShapeError, r"parameter W1 must have shape \(3, 4\), got \(12,\)"),
        (
            np.asfortranarray,
            ConfigError,
            r"parameter W1 must be C-contiguous and aligned; set it with params\['W1'\]\[...\]",
        ),
        (
            lambda W: np.repeat(W, 2, axis=1)[:, ::2],
            ConfigError,
            "parameter W1 must be C-contiguous",
        ),
        (lambda W: np.full_like(W, NAN), DataError, "parameter W1 holds NaN or infinity"),
        (lambda W: np.full_like(W, INF), DataError, "parameter W1 holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize(
    "entry", ["settle", "nudge", "predict", "score", "gradient", "implicit", "audit", "fit"]
)
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
    refuses(
        ConfigError, r"params must be of .*; missing \['W2'\], unknown \['W3'\]", net.predict, x
    )


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


def test_training_that_blows_up_is_reported():
    # Rates far too large: the step that would overflow is not made, and the fit says so.
    net = make_net([3, 4, 2], "tanh", dtype="float32")
    x, y = make_batch(net, 20)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), optim.SGD(1e30), batch_size=2, seed=0)
    with pytest.warns(pnn.SettlingWarning, match="training diverged in step"):
        history = trainer.fit(x, y, epochs=1000)
    assert history.diverged == (trainer.epoch, trainer.step)
    assert all(np.isfinite(array).all() for array in net.params.values())


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(
        st.one_of(
            st.integers(-3, 3),
            st.floats(),
            st.text(max_size=2),
            st.lists(st.integers(), max_size=2),
        ),
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
    "batch_size": lambda junk, net, x, y: pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.1), batch_size=junk
    ),
    "callbacks": lambda junk, net, x, y: pnn.Trainer(
        net, EquilibriumPropagation(), optim.SGD(0.1), callbacks=junk
    ),
}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=40, deadline=None)
@given(junk=JUNK)
def test_junk_gives_typed_errors_only(name, junk):
    net = make_net([3, 4, 2], dtype="float32")
    x, y = make_batch(net, 2)
    if (
        name == "layers"
        and isinstance(junk, list | tuple | range)
        and any(isinstance(n, int) and n > 99 for n in junk)
    ):
        return  # sizes that are merely too large for the test
    try:
        CALLS[name](junk, net, x, y)
    except (ConfigError, ShapeError, DataError) as error:
        text = "beta" if name in ("nudge", "betas") else name.rstrip("s")
        assert text in str(error), f"{error} does not name {name}"  # noqa: PT017


@pytest.mark.parametrize("kind", [float, int, bool])
def test_numbers_are_targets_of_one_output(kind):
    one = pnn.systems.Hopfield([3, 4, 1], seed=0)
    x, y = np.full((5, 3), 0.5, np.float32), np.arange(5).astype(kind)
    method = EquilibriumPropagation()
    found, expected = (method.gradient(one, x, target) for target in (y, y[:, None]))
    for name, own in expected.items():
        np.testing.assert_array_equal(found[name], own)
    assert one.score(x, one.predict(x)[:, 0]) == 1.0
