"""Training methods against finite differences, against each other, and at the orders of their
biases."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import (
    ACTIVATIONS,
    LOSSES,
    TIGHT,
    Reference,
    clear_net,
    cosine,
    error,
    flat,
    loss_slope,
    loss_value,
    make_batch,
    make_net,
    one_hot,
)
from pnncore import Settling
from pnncore.errors import ConfigError
from pnncore.methods import (
    ContrastiveLearning,
    CoupledLearning,
    EquilibriumPropagation,
    ImplicitDifferentiation,
    RecurrentBackprop,
)

DEPTHS = ([4, 3], [5, 6, 3], [4, 6, 5, 3])


def equilibrium_loss(net, x, target, loss):
    return loss_value(loss, net.settle(x, settling=TIGHT).outputs, target).mean()


def differences(net, value, h=1e-5):
    """Return central differences of `value()` for every element of every parameter."""
    gradient = {}
    for name, array in net.params.items():
        gradient[name] = np.empty(array.shape)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + h
            up = value()
            array[place] = kept - h
            gradient[name][place] = (up - value()) / (2 * h)
            array[place] = kept
    return gradient


def slope(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.fixture(params=ACTIVATIONS)
def activation(request):
    return request.param


@pytest.fixture(params=LOSSES)
def loss(request):
    return request.param


@pytest.fixture
def case(activation, loss):
    """A small network with inputs, labels and the exact gradient."""
    net, x = clear_net([5, 6, 3], activation, samples=4)
    _, y = make_batch(net, 4, seed=5)
    return net, x, y, loss, ImplicitDifferentiation(loss=loss, settling=TIGHT).gradient(net, x, y)


@pytest.mark.parametrize("layers", DEPTHS, ids=str)
@pytest.mark.parametrize("values", [False, True], ids=["labels", "targets"])
def test_implicit_differentiation_is_the_derivative(layers, activation, loss, values):
    net, x = clear_net(layers, activation)
    _, y = make_batch(net, len(x), seed=5, values=values)
    found = ImplicitDifferentiation(loss=loss, settling=TIGHT).gradient(net, x, y)
    assert list(found) == list(net.params)
    target = one_hot(y, net.n_out)
    expected = differences(net, lambda: equilibrium_loss(net, x, target, loss))
    for name in found:
        assert found[name].dtype == np.float64
        assert found[name].shape == net.params[name].shape
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-9)


def test_implicit_differentiation_settles_tightly_by_itself(case):
    net, x, y, loss, exact = case
    assert error(ImplicitDifferentiation(loss=loss).gradient(net, x, y), exact) < 1e-10


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_recurrent_backprop_is_backpropagation_through_synchronous_steps(activation, loss, steps):
    net, x = clear_net([4, 6, 5, 3], activation)
    _, y = make_batch(net, len(x), seed=5)
    target = one_hot(y, 3)
    steady = net.settle(x, settling=TIGHT).states

    def unrolled():
        reference, states = Reference(net), steady
        for _ in range(steps):
            drives = [reference.drive(k, x, states) for k in range(3)]
            states = [*map(reference.rho, drives[:-1]), drives[-1]]
        return loss_value(loss, states[-1], target).mean()

    found = RecurrentBackprop(steps=steps, loss=loss, settling=TIGHT).gradient(net, x, y)
    expected = differences(net, unrolled)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-9)


def test_recurrent_backprop_tends_to_the_exact_gradient(case):
    net, x, y, loss, exact = case
    steps = (1, 2, 4, 8, 16, 32, 64, 256)
    errors = [
        error(RecurrentBackprop(steps=n, loss=loss, settling=TIGHT).gradient(net, x, y), exact)
        for n in steps
    ]
    resolved = [e for e in errors if e > 1e-9]
    assert (np.diff(resolved) < 0).all()
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-9


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        ({"variant": "one-sided"}, 1),
        ({"variant": "one-sided", "sign": "negative"}, 1),
        ({"variant": "centered"}, 2),
    ],
    ids=["one-sided", "negative", "centered"],
)
def test_order_of_the_bias(case, settings, order):
    net, x, y, loss, exact = case
    betas = np.array([0.04, 0.02, 0.01, 0.005])

    def found(beta):
        return EquilibriumPropagation(beta=beta, loss=loss, settling=TIGHT, **settings).gradient(
            net, x, y
        )

    errors = [error(found(beta), exact) for beta in betas.tolist()]
    assert abs(slope(betas, errors) - order) < 0.1, errors
    assert errors[-1] < (0.02 if order == 1 else 2e-4)


def test_centered_is_the_mean_of_both_signs(case):
    net, x, y, loss, _ = case
    one, other, both = (
        EquilibriumPropagation(beta=0.1, loss=loss, settling=TIGHT, **settings).gradient(net, x, y)
        for settings in ({"variant": "one-sided"}, {"variant": "one-sided", "sign": "negative"}, {})
    )
    for name in both:
        np.testing.assert_allclose((one[name] + other[name]) / 2, both[name], rtol=1e-9, atol=1e-10)


def test_random_sign_averages_to_the_centered_estimate(case):
    net, x, y, loss, exact = case
    common = {"beta": 0.1, "loss": loss, "settling": TIGHT}
    plus, minus = (
        EquilibriumPropagation(variant="one-sided", sign=sign, **common).gradient(net, x, y)
        for sign in ("positive", "negative")
    )
    random = EquilibriumPropagation(variant="one-sided", sign="random", **common)
    signs = []
    for step in range(64):
        g = flat(random.gradient(net, x, y, seed=3, step=step))
        assert (g == flat(plus)).all() or (g == flat(minus)).all()
        signs.append((g == flat(plus)).all())
    assert 16 <= sum(signs) <= 48
    assert len({tuple(signs[i : i + 4]) for i in range(0, 64, 4)}) > 4, "no pattern"
    again = [
        (flat(random.gradient(net, x, y, seed=3, step=s)) == flat(plus)).all() for s in range(64)
    ]
    assert signs == again
    other = [
        (flat(random.gradient(net, x, y, seed=4, step=s)) == flat(plus)).all() for s in range(64)
    ]
    assert signs != other
    mean = {name: (plus[name] + minus[name]) / 2 for name in plus}
    assert error(mean, exact) < 0.3 * error(plus, exact)


@pytest.mark.parametrize("smooth", ["tanh", "logistic"])
@pytest.mark.parametrize("layers", [[5, 6, 3], [4, 6, 5, 3]], ids=str)
def test_holomorphic_bias_falls_with_the_points(smooth, layers, loss):
    net = make_net(layers, smooth)
    x, y = make_batch(net, 4)
    exact = ImplicitDifferentiation(loss=loss, settling=TIGHT).gradient(net, x, y)

    def at(points, radius):
        method = EquilibriumPropagation(
            variant="holomorphic", beta=radius, points=points, loss=loss, settling=TIGHT
        )
        return error(method.gradient(net, x, y), exact)

    assert at(8, 0.2) < 1e-4
    errors = [at(points, 0.3) for points in (2, 3, 4, 6, 8)]
    assert (np.diff(errors) < 0).all(), errors
    assert errors[-1] < 2e-2 * errors[0]
    radii = np.array([0.4, 0.3, 0.2])
    assert abs(slope(radii, [at(4, r) for r in radii.tolist()]) - 4) < 0.4


@pytest.mark.parametrize("smooth", ["tanh", "logistic"])
def test_two_points_of_the_circle_are_the_centered_estimate(smooth, loss):
    net = make_net([5, 6, 3], smooth)
    x, y = make_batch(net, 4)
    common = {"beta": 0.3, "loss": loss, "settling": TIGHT}
    circle = EquilibriumPropagation(variant="holomorphic", points=2, **common).gradient(net, x, y)
    centered = EquilibriumPropagation(**common).gradient(net, x, y)
    assert error(circle, centered) < 1e-11


def test_contrastive_learning_is_what_it_says(activation):
    # dE/dtheta of the clamped state against the free one, with every state from an independent
    # computation.
    net = make_net([5, 6, 4, 3], activation)
    x, y = make_batch(net, 4)
    reference, target = Reference(net), one_hot(y, 3)
    free = net.settle(x, settling=TIGHT).states

    def clamped(to):
        states = [*(layer.copy() for layer in free[:-1]), to]
        for _ in range(2000):
            states = [*(reference.rho(reference.drive(k, x, states)) for k in range(2)), to]
        return states

    def contrast(a, b, weight):
        gradient = {}
        for k in range(3):
            below = [x if k == 0 else s[k - 1] for s in (a, b)]
            gradient[f"W{k + 1}"] = -weight * (below[0].T @ a[k] - below[1].T @ b[k]) / len(x)
            gradient[f"b{k + 1}"] = -weight * (a[k] - b[k]).mean(axis=0)
        return gradient

    def part(eta):
        return clamped(free[-1] + eta * (target - free[-1]))

    cases = [
        (ContrastiveLearning(settling=TIGHT), part(1.0), free, 1.0),
        (CoupledLearning(eta=0.3, settling=TIGHT), part(0.3), free, 1 / 0.3),
        (CoupledLearning(eta=0.3, variant="negative", settling=TIGHT), free, part(-0.3), 1 / 0.3),
        (
            CoupledLearning(eta=0.3, variant="centered", settling=TIGHT),
            part(0.3),
            part(-0.3),
            0.5 / 0.3,
        ),
    ]
    for method, a, b, weight in cases:
        found, expected = method.gradient(net, x, y), contrast(a, b, weight)
        for name in found:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-9, atol=1e-10, err_msg=repr(method)
            )


def test_clamping_several_outputs_is_not_the_gradient():
    net = make_net([5, 6, 3], "tanh", gain=1.5)
    x, y = make_batch(net, 4)
    exact = ImplicitDifferentiation(settling=TIGHT).gradient(net, x, y)
    for method in (
        ContrastiveLearning(settling=TIGHT),
        *(CoupledLearning(eta=eta, settling=TIGHT) for eta in (0.5, 0.1, 1e-4)),
        CoupledLearning(eta=1e-4, variant="centered", settling=TIGHT),
    ):
        assert 0.5 < cosine(method.gradient(net, x, y), exact) < 0.9999, method


@pytest.mark.parametrize("variant", ["positive", "negative", "centered"])
@pytest.mark.parametrize("layers", [[5, 6, 1], [4, 6, 5, 1]], ids=str)
def test_coupled_learning_of_one_output_is_parallel_to_the_gradient(activation, variant, layers):
    # One sample: the stiffness of the output, which scales the update, differs between samples.
    net, x = clear_net(layers, activation, samples=1)
    y = np.array([[0.7]])
    exact = ImplicitDifferentiation(settling=TIGHT).gradient(net, x, y)
    coupled = CoupledLearning(eta=1e-4, variant=variant, settling=TIGHT).gradient(net, x, y)
    assert cosine(coupled, exact) > 1 - 1e-9
    assert error(coupled, exact) > 1e-3, "parallel, yet longer: the output resists"
    far = CoupledLearning(eta=1.0, variant=variant, settling=TIGHT).gradient(net, x, y)
    assert cosine(far, exact) > 0.9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wanted", ["labels", "labels, cross-entropy", "errors of .01"])
@pytest.mark.parametrize("layers", [[64, 96, 10], [64, 50, 40, 10]], ids=str)
@pytest.mark.parametrize("epochs", [0, 5], ids=["untrained", "trained"])
def test_automatic_stopping_costs_less_than_a_percent(activation, dtype, wanted, layers, epochs):
    loss = "cross-entropy" if "cross" in wanted else "squared-error"
    x, y, *_ = pnn.data.digits()
    x = x.astype(np.float64)
    net = pnn.systems.Hopfield(layers, activation=activation, dtype="float64", seed=1)
    if epochs:
        pnn.Trainer(net, EquilibriumPropagation(), pnn.optim.SGD(0.02), batch_size=30, seed=0).fit(
            x, y, epochs=epochs
        )
    tested = net
    if dtype == "float32":
        tested = pnn.systems.Hopfield(layers, activation=activation, seed=1)
        for name, array in tested.params.items():
            array[...] = net.params[name]
    x, y = x[:24], y[:24]
    if wanted == "errors of .01":
        outputs = net.settle(x, settling=TIGHT).outputs
        y = outputs + 0.01 * np.random.default_rng(0).choice([-1.0, 1.0], outputs.shape)
    found = EquilibriumPropagation(beta=0.2, loss=loss).gradient(
        tested, x.astype(dtype), y if y.ndim == 1 else y.astype(dtype)
    )
    tight = EquilibriumPropagation(beta=0.2, loss=loss, settling=TIGHT).gradient(net, x, y)
    assert error(found, tight) < 0.01


def test_automatic_stopping_spares_sweeps():
    net = make_net([20, 30, 10], dtype="float32")
    x, y = make_batch(net, 50)
    sweeps = []
    for settling in (Settling(), Settling(tolerance=1e-6)):
        trainer = pnn.Trainer(
            net, EquilibriumPropagation(settling=settling), pnn.optim.SGD(0.0), batch_size=50
        )
        history = trainer.fit(x, y, epochs=1)
        sweeps.append(history["free_sweeps"][0] + history["other_sweeps"][0])
    assert sweeps[0] < 0.7 * sweeps[1]


@pytest.mark.parametrize(
    "method",
    [
        EquilibriumPropagation(settling=Settling(sweeps=80)),
        EquilibriumPropagation(variant="one-sided", settling=Settling(sweeps=80)),
        EquilibriumPropagation(variant="holomorphic", settling=Settling(sweeps=80)),
        EquilibriumPropagation(loss="cross-entropy", settling=Settling(sweeps=80)),
        ContrastiveLearning(settling=Settling(sweeps=80)),
        CoupledLearning(settling=Settling(sweeps=80)),
        ImplicitDifferentiation(settling=Settling(sweeps=80)),
        RecurrentBackprop(settling=Settling(sweeps=80)),
    ],
    ids=lambda method: f"{type(method).__name__}-{getattr(method, 'variant', '')}-{method.loss}",
)
def test_single_precision_agrees_with_double(activation, method):
    if getattr(method, "variant", None) == "holomorphic" and activation == "hard-sigmoid":
        pytest.skip("holomorphic equilibrium propagation needs smooth units")
    for layers in ([20, 30, 5], [20, 17, 9, 5]):
        double = make_net(layers, activation)
        single = pnn.systems.Hopfield(layers, activation=activation)
        for name, array in single.params.items():
            array[...] = double.params[name]
            double.params[name][...] = array
        x, y = make_batch(single, 16)
        found = method.gradient(single, x, y)
        assert all(part.dtype == np.float64 for part in found.values())
        assert error(found, method.gradient(double, x.astype(np.float64), y)) < 1e-3


def test_gradient_is_a_mean_over_samples(activation):
    net = make_net([5, 6, 4, 3], activation)
    x, y = make_batch(net, 7)
    for method in (
        EquilibriumPropagation(),
        CoupledLearning(),
        ContrastiveLearning(),
        ImplicitDifferentiation(settling=TIGHT),
        RecurrentBackprop(settling=TIGHT),
    ):
        whole = method.gradient(net, x, y)
        parts = [method.gradient(net, x[i : i + 1], y[i : i + 1]) for i in range(7)]
        for name in whole:
            mean = np.mean([part[name] for part in parts], axis=0)
            np.testing.assert_allclose(
                whole[name], mean, rtol=1e-10, atol=1e-12, err_msg=repr(method)
            )


def test_labels_are_one_hot_targets(loss):
    net = make_net([5, 6, 3], "tanh")
    x, y = make_batch(net, 7)
    for method in (
        EquilibriumPropagation(loss=loss),
        ImplicitDifferentiation(loss=loss),
        CoupledLearning(loss=loss),
    ):
        a, b = method.gradient(net, x, y), method.gradient(net, x, one_hot(y, 3))
        assert (flat(a) == flat(b)).all()


def test_samples_without_error_give_no_gradient(activation):
    net = make_net([5, 6, 3], activation)
    x, _ = make_batch(net, 4)
    y = net.settle(x, settling=TIGHT).outputs
    for method in (
        EquilibriumPropagation(settling=TIGHT),
        CoupledLearning(settling=TIGHT),
        ImplicitDifferentiation(settling=TIGHT),
    ):
        assert np.abs(flat(method.gradient(net, x, y))).max() < 1e-10


@pytest.mark.filterwarnings("ignore::pnncore.errors.SettlingWarning")
def test_samples_that_diverge_contribute_nothing():
    # A gradient is the mean over all samples, with zero from those that have no steady state.
    net = make_net([2, 3], dtype="float32")
    net.params["W1"][...] = 1
    x = np.array([[0.5, 0.5], [3e38, 3e38], [0.1, 0.2]], np.float32)
    y = np.array([0, 1, 2])
    method = EquilibriumPropagation()
    found, kept = method.gradient(net, x, y), method.gradient(net, x[[0, 2]], y[[0, 2]])
    for name in found:
        np.testing.assert_allclose(found[name], kept[name] * 2 / 3, rtol=1e-5)
    # The same for a phase that diverges after a free phase that did not.
    settling = Settling(output_update="explicit", sweeps=(50, 5000))
    method = EquilibriumPropagation(variant="one-sided", beta=1.5, settling=settling)
    assert (
        flat(method.gradient(make_net([3, 4, 2]), *make_batch(make_net([3, 4, 2]), 5))) == 0
    ).all()


def test_output_layer_by_hand():
    # Without hidden units all methods of the gradient give (o - y) exactly, shrunk by the nudge.
    net = make_net([4, 3])
    x, y = make_batch(net, 6)
    o, t = net.predict(x), one_hot(y, 3)
    for loss in LOSSES:
        by_hand = {
            "W1": x.T @ loss_slope(loss, o, t) / 6,
            "b1": loss_slope(loss, o, t).mean(axis=0),
        }
        assert error(ImplicitDifferentiation(loss=loss).gradient(net, x, y), by_hand) < 1e-12
        assert error(RecurrentBackprop(steps=1, loss=loss).gradient(net, x, y), by_hand) < 1e-12
    by_hand = {"W1": x.T @ (o - t) / 6, "b1": (o - t).mean(axis=0)}
    beta = 0.25
    shrunk = {name: part / (1 + beta) for name, part in by_hand.items()}
    found = EquilibriumPropagation(variant="one-sided", beta=beta, settling=TIGHT).gradient(
        net, x, y
    )
    assert error(found, shrunk) < 1e-11
    assert error(CoupledLearning(eta=0.3, settling=TIGHT).gradient(net, x, y), by_hand) < 1e-11


def test_methods_are_values():
    a = EquilibriumPropagation(beta=0.3, settling=Settling(sweeps=(10, 4)))
    assert a == EquilibriumPropagation(beta=0.3, settling=Settling(sweeps=(10, 4)))
    assert hash(a) == hash(EquilibriumPropagation(beta=0.3, settling=Settling(sweeps=(10, 4))))
    assert a != EquilibriumPropagation(beta=0.2)
    with pytest.raises(AttributeError):
        a.beta = 0.1
    for method in (
        a,
        EquilibriumPropagation(variant="holomorphic", points=6, beta=0.3),
        EquilibriumPropagation(variant="one-sided", sign="random"),
        ContrastiveLearning(loss="cross-entropy"),
        CoupledLearning(
            eta=0.5, variant="centered", settling=Settling(tolerance=1e-3, order="synchronous")
        ),
        ImplicitDifferentiation(settling=Settling(relative_tolerance=0.1, max_sweeps=7)),
        RecurrentBackprop(steps=3, settling=Settling(output_update="explicit")),
    ):
        assert pnn.methods.from_config(method.to_config()) == method


def test_audit():
    net = make_net([8, 9, 4], "tanh")
    x, y = make_batch(net, 8)
    exact = ImplicitDifferentiation().gradient(net, x, y)
    for method in (
        EquilibriumPropagation(beta=0.5),
        CoupledLearning(),
        EquilibriumPropagation(beta=0.01),
    ):
        report = pnn.audit(net, method, x, y)
        found = method.gradient(net, x, y)
        assert report.cosine == pytest.approx(cosine(found, exact), rel=1e-12)
        assert report.relative_error == pytest.approx(error(found, exact), rel=1e-12)
        assert report.norm_ratio == pytest.approx(
            np.linalg.norm(flat(found)) / np.linalg.norm(flat(exact))
        )
        assert report.samples == 8
        assert report.method is method
        for name, (c, e) in report.by_parameter.items():
            assert c == pytest.approx(cosine({0: found[name]}, {0: exact[name]}), rel=1e-12)
            assert e == pytest.approx(error({0: found[name]}, {0: exact[name]}), rel=1e-12)
        text = str(report)
        assert type(method).__name__ in text
        assert all(name in text for name in net.params)
    assert pnn.audit(net, ImplicitDifferentiation(), x, y).relative_error == 0


def test_settings_without_effect_are_refused():
    for settings in ({"points": 4}, {"variant": "one-sided", "points": 4}, {"sign": "random"}):
        with pytest.raises(ConfigError, match="applies to variant="):
            EquilibriumPropagation(**settings)
    assert EquilibriumPropagation(variant="holomorphic", points=4).points == 4
