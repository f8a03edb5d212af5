"""Settings out of range, of the wrong kind or unknown: each a ConfigError that names the
setting."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import make_batch, make_net, refuses
from pnncore import Settling, methods, optim
from pnncore.errors import CapabilityError, ConfigError
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
        (
            {"activation": "relu"},
            'activation must be "hard-sigmoid", "tanh" or "logistic", got .relu.',
        ),
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
    refuses(
        ConfigError, rf"^{name} must be a (finite|positive) number, got", Settling, **{name: bad}
    )


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
        (
            EquilibriumPropagation,
            {"beta": -0.1},
            'beta must be positive, got -0.1.*sign="negative"',
        ),
        (EquilibriumPropagation, {"beta": NAN}, "beta must be a finite number, got nan"),
        (EquilibriumPropagation, {"beta": INF}, "beta must be a finite number, got inf"),
        (EquilibriumPropagation, {"beta": "0.1"}, "beta must be a finite number, got '0.1'"),
        (EquilibriumPropagation, {"beta": True}, "beta must be a finite number, got True"),
        (
            EquilibriumPropagation,
            {"variant": "two-sided"},
            'variant must be one of "centered", "one-sided", "holo',
        ),
        (EquilibriumPropagation, {"variant": None}, "variant must be one of"),
        (
            EquilibriumPropagation,
            {"variant": "one-sided", "sign": "up"},
            'sign must be one of "positive"',
        ),
        (EquilibriumPropagation, {"sign": "negative"}, 'sign applies to variant="one-sided" only'),
        (
            EquilibriumPropagation,
            {"loss": "mse"},
            'loss must be one of "squared-error", "cross-entropy"; got .mse.',
        ),
        (EquilibriumPropagation, {"loss": ["squared-error"]}, "loss must be"),
        (
            EquilibriumPropagation,
            {"variant": "holomorphic", "points": 1},
            "points must be at least 2, got 1",
        ),
        (EquilibriumPropagation, {"points": 0}, "points must be a positive integer, got 0"),
        (EquilibriumPropagation, {"points": 4.0}, "points must be a positive integer, got 4.0"),
        (EquilibriumPropagation, {"points": 2**40}, "points must be a positive integer"),
        (EquilibriumPropagation, {"settling": {}}, "settling must be a pnncore.Settling, got {}"),
        (
            EquilibriumPropagation,
            {"settling": None},
            "settling must be a pnncore.Settling, got None",
        ),
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
        ({"beta": 2, "loss": "cross-entropy"}, "needs beta > -2"),
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
    method = methods.FrequencyPropagation(amplitude=np.float64(0.25), points=np.int64(4))
    assert method == methods.FrequencyPropagation(amplitude=0.25, points=4)
    assert EquilibriumPropagation(beta=np.float32(0.25)) == EquilibriumPropagation(beta=0.25)
    assert repr(optim.SGD(np.float32(0.25))) == repr(optim.SGD(0.25))
    pnn.Trainer(
        net, method, optim.SGD(np.float64(0.1)), batch_size=np.int32(2), threads=np.int8(1)
    ).fit(x, y, epochs=np.int64(1))


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
        assert text.startswith(
            'EquilibriumPropagation(variant="holomorphic") needs an energy that is holomorphic'
        )
        assert 'activation="tanh"' in text
        assert text.endswith("Methods that train this system: " + ", ".join(net.methods()))
    assert 'EquilibriumPropagation(variant="holomorphic")' not in net.methods()
    smooth = Hopfield([3, 4, 2], activation="logistic", seed=0)
    assert set(smooth.methods()) == {
        *net.methods(),
        'EquilibriumPropagation(variant="holomorphic")',
    }
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
        ({"step": 2**39}, "step must be an integer in 0..2"),
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
        (optim.SGD, ([0.1, "a"],), {}, "every learning rate must be a finite number, got 'a'"),
        (optim.SGD, ([0.1, True],), {}, "every learning rate must be a finite number, got True"),
        (optim.SGD, ({"W1": None},), {}, "rate of W1 must be a finite number, got None"),
        (optim.SGD, ({"W1": -1.0},), {}, "rates must be finite and at least 0"),
        (optim.SGD, (0.1,), {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        (optim.SGD, (0.1,), {"momentum": -0.1}, r"momentum must be in \[0, 1\), got -0.1"),
        (optim.SGD, (0.1,), {"momentum": NAN}, "momentum must be a finite number, got nan"),
        (optim.SGD, (0.1,), {"momentum": "a"}, "momentum must be a finite number, got 'a'"),
        (optim.SGD, (0.1,), {"weight_decay": -1}, "weight_decay must be at least 0"),
        (
            optim.SGD,
            (0.1,),
            {"weight_decay": None},
            "weight_decay must be a finite number, got None",
        ),
        (optim.SGD, (0.1,), {"schedule": 3}, r"schedule needs a method factor\(epoch\), got 3"),
        (optim.SGD, (0.1,), {"schedule": "cosine"}, "schedule needs a method factor"),
        (optim.Adam, (0.1,), {"betas": (1.0, 0.9)}, r"beta1 must be in \[0, 1\), got 1"),
        (optim.Adam, (0.1,), {"betas": (0.9, -0.1)}, r"beta2 must be in \[0, 1\), got -0.1"),
        (optim.Adam, (0.1,), {"betas": 0.9}, "betas must be a pair of numbers, got 0.9"),
        (optim.Adam, (0.1,), {"betas": (0.9,)}, "betas must be a pair of numbers"),
        (optim.Adam, (0.1,), {"betas": ("a", 0.9)}, "beta1 must be a finite number, got 'a'"),
        (optim.Adam, (0.1,), {"epsilon": 0}, "epsilon must be a positive number, got 0"),
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
        (
            {"W9": 0.1},
            r"rates for unknown parameters \['W9'\]; the system has \['W1', 'b1', 'W2', 'b2'\]",
        ),
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
    refuses(
        ConfigError, match, pnn.Trainer, net, EquilibriumPropagation(), optim.SGD(0.1), **settings
    )


def test_parts_of_trainer(net):
    refuses(
        ConfigError,
        "method must be a pnncore Method, got 'ep'",
        pnn.Trainer,
        net,
        "ep",
        optim.SGD(0.1),
    )
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
        (
            {"epochs": 1, "validation": np.zeros((2, 3))},
            r"validation must be a pair \(inputs, targets\)",
        ),
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
        (
            pnn.Checkpoint,
            ("run.pnn",),
            {"minutes": NAN},
            "minutes must be a finite number, got nan",
        ),
        (
            pnn.Checkpoint,
            ("run.pnn",),
            {"minutes": "1"},
            "minutes must be a finite number, got '1'",
        ),
    ],
    ids=str,
)
def test_settings_of_callbacks(make, arguments, settings, match):
    refuses(ConfigError, match, make, *arguments, **settings)
