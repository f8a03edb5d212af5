"""Optimizers against plain references in NumPy."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import TIGHT, copy_of, make_batch, make_net, steps_of
from pnncore import optim
from pnncore.methods import EquilibriumPropagation, ImplicitDifferentiation


def small(dtype="float64", layers=(6, 8, 3), samples=20):
    net = make_net(list(layers), dtype=dtype)
    return net, *make_batch(net, samples)


def reference_sgd(params, gradient, memory, step, *, rate, momentum, weight_decay):
    for name, theta in params.items():
        v = memory.setdefault(name, np.zeros_like(theta))
        v[...] = momentum * v + gradient[name] + weight_decay * theta
        theta -= rate * v


def reference_adam(params, gradient, memory, step, *, rate, betas, epsilon, weight_decay):
    for name, theta in params.items():
        m, v = memory.setdefault(name, (np.zeros_like(theta), np.zeros_like(theta)))
        m[...] = betas[0] * m + (1 - betas[0]) * gradient[name]
        v[...] = betas[1] * v + (1 - betas[1]) * gradient[name] ** 2
        theta *= 1 - rate * weight_decay
        theta -= (
            rate
            * (m / (1 - betas[0] ** (step + 1)))
            / (np.sqrt(v / (1 - betas[1] ** (step + 1))) + epsilon)
        )


@pytest.mark.parametrize(
    ("optimizer", "reference", "settings"),
    [
        (optim.SGD, reference_sgd, {"momentum": 0.0, "weight_decay": 0.0}),
        (optim.SGD, reference_sgd, {"momentum": 0.9, "weight_decay": 0.0}),
        (optim.SGD, reference_sgd, {"momentum": 0.0, "weight_decay": 0.1}),
        (optim.SGD, reference_sgd, {"momentum": 0.7, "weight_decay": 0.1}),
        (optim.Adam, reference_adam, {"betas": (0.9, 0.999), "epsilon": 1e-4, "weight_decay": 0.0}),
        (optim.Adam, reference_adam, {"betas": (0.5, 0.9), "epsilon": 1e-3, "weight_decay": 0.2}),
        (optim.Adam, reference_adam, {"betas": (0.0, 0.9), "epsilon": 1e-3, "weight_decay": 0.0}),
    ],
    ids=["sgd", "momentum", "decay", "both", "adam", "adamw", "no mean"],
)
@pytest.mark.parametrize("layers", [(6, 8, 3), (6, 8, 7, 3)], ids=str)
@pytest.mark.parametrize(
    "method",
    # Settled tightly: where the automatic rule stops hangs on rounding errors.
    [
        EquilibriumPropagation(variant="one-sided", sign="random", settling=TIGHT),
        ImplicitDifferentiation(),
    ],
)
def test_optimizers_against_numpy(optimizer, reference, settings, layers, method):
    # 23 samples in batches of 5: the last batch of an epoch has 3, and is a mean over 3.
    net, x, y = small(layers=layers, samples=23)
    expected, memory, step = copy_of(net), {}, 0
    trainer = pnn.Trainer(net, method, optimizer(0.03, **settings), batch_size=5, seed=11)
    trainer.fit(x, y, epochs=3)
    for epoch in range(3):
        order = pnn._core.permutation(23, 11, epoch)
        for start, end in steps_of(23, 5):
            rows = order[start:end]
            gradient = method.gradient(expected, x[rows], y[rows], seed=11, step=step)
            reference(expected.params, gradient, memory, step, rate=0.03, **settings)
            step += 1
    for name in net.params:
        np.testing.assert_allclose(net.params[name], expected.params[name], rtol=0, atol=1e-10)


def test_single_precision_optimizers_agree_with_double():
    for make in (
        optim.SGD(0.05),
        optim.SGD(0.05, momentum=0.9, weight_decay=0.01),
        optim.Adam(0.01, epsilon=1e-3),
    ):
        nets = []
        for dtype in ("float64", "float32"):
            net = pnn.systems.Hopfield([6, 8, 3], dtype=dtype, seed=4)
            x, y = make_batch(pnn.systems.Hopfield([6, 8, 3], dtype="float32", seed=4), 23)
            pnn.Trainer(net, ImplicitDifferentiation(), make, batch_size=5, seed=1).fit(
                x.astype(dtype), y, epochs=5
            )
            nets.append(net)
        for name in net.params:
            np.testing.assert_allclose(
                nets[1].params[name], nets[0].params[name], rtol=0, atol=2e-5
            )


def test_weight_decay_shrinks_what_has_no_gradient():
    net, x, _ = small(samples=20)
    y = net.settle(x, settling=pnn.Settling(tolerance=1e-14)).outputs
    before = net.params["W1"].copy()
    pnn.Trainer(
        net, ImplicitDifferentiation(), optim.SGD(0.1, weight_decay=0.5), batch_size=20
    ).fit(x, y, epochs=1)
    np.testing.assert_allclose(net.params["W1"], 0.95 * before, rtol=0, atol=1e-12)


def test_optimizers_print_and_rebuild():
    for optimizer, text in [
        (optim.SGD(0.1), "SGD(0.1)"),
        (optim.SGD([0.1, 0.2], momentum=0.9), "SGD([0.1, 0.2], momentum=0.9)"),
        (
            optim.SGD({"W1": 1}, schedule=optim.StepDecay(3)),
            "SGD({'W1': 1.0}, schedule=StepDecay(every=3, gamma=0.1))",
        ),
        (optim.Adam(), "Adam()"),
        (
            optim.Adam(0.1, betas=(0.5, 0.9), schedule=optim.CosineDecay(5)),
            "Adam(0.1, betas=(0.5, 0.9), schedule=CosineDecay(epochs=5, floor=0.0))",
        ),
    ]:
        assert repr(optimizer) == text
        assert repr(optim.from_config(optimizer.to_config())) == text


@pytest.mark.parametrize(
    "text",
    [
        "Adam()",
        "Adam(0.1, betas=(0.8, 0.9))",
        "SGD([0.1, 0.2], momentum=0.9, schedule=StepDecay(every=2, gamma=0.5))",
        "SGD({'W1': 0.1}, weight_decay=0.01)",
    ],
)
def test_what_is_shown_makes_an_equal_optimizer(text):
    optimizer = eval(text, vars(optim))
    assert repr(optimizer) == text
    assert repr(optim.from_config(optimizer.to_config())) == text


@pytest.mark.parametrize("kind", [optim.ExponentialDecay, lambda gamma: optim.StepDecay(2, gamma)])
def test_decays_do_not_grow(kind):
    assert kind(1.0).factor(3) == 1.0
    with pytest.raises(pnn.errors.ConfigError, match="gamma must be at most 1"):
        kind(2.0)
