"""The physics of Hopfield networks, against formulas in NumPy and an independent solver."""

import warnings
from dataclasses import replace

import numpy as np
import pnncore as pnn
import pytest
from helpers import ACTIVATIONS, LOSSES, TIGHT, Reference, loss_value, make_batch, make_net, one_hot
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pnncore import Settling, Status

SHAPES = ([3, 2], [5, 4, 3], [6, 5, 4, 3], [4, 6, 3, 5, 2], [3, 20, 17])


@st.composite
def networks(draw, *, gain=3.0, depth=4):
    """Any small network: sizes, activation, strong couplings, biases."""
    layers = draw(st.lists(st.integers(1, 7), min_size=2, max_size=depth + 1))
    return make_net(
        layers,
        draw(st.sampled_from(ACTIVATIONS)),
        gain=draw(st.floats(0, gain)),
        seed=draw(st.integers(0, 2**20)),
        bias=draw(st.floats(0, 2)),
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_energy_is_the_formula(layers, activation, dtype, tolerance):
    net = make_net(layers, activation, dtype=dtype, gain=1.5)
    x, _ = make_batch(net, 7)
    for sweeps in (1, 2, 30):
        found = net.settle(x, settling=Settling(sweeps=sweeps))
        states = [layer.astype(np.float64) for layer in found.states]
        np.testing.assert_allclose(
            found.energy, Reference(net).energy(x, states), rtol=tolerance, atol=tolerance
        )
        assert found.energy.dtype == np.float64
        assert [layer.dtype for layer in found.states] == [net.dtype] * (len(layers) - 1)
        assert [layer.shape for layer in found.states] == [(7, n) for n in layers[1:]]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("layers", SHAPES, ids=str)
def test_residual_is_the_projected_force(layers, activation, order):
    net = make_net(layers, activation, gain=1.5, bias=0.6)
    x, y = make_batch(net, 7)
    reference, target = Reference(net), one_hot(y, net.n_out)
    for sweeps in (1, 2, 3):
        settling = Settling(sweeps=sweeps, order=order)
        free = net.settle(x, settling=settling)
        np.testing.assert_allclose(
            free.residual, reference.residual(x, free.states), rtol=1e-8, atol=1e-12
        )
        for loss, beta in [("squared-error", 0.3), ("squared-error", -0.5), ("cross-entropy", 0.7)]:
            nudged = net.settle(x, y, beta=beta, loss=loss, settling=settling)
            expected = reference.residual(x, nudged.states, target, beta, loss)
            np.testing.assert_allclose(nudged.residual, expected, rtol=1e-8, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(net=networks(), seed=st.integers(0, 2**16))
def test_energy_never_rises(net, seed):
    x, _ = make_batch(net, 4, seed)
    x = 4 * x - 2
    energies = [net.settle(x, settling=Settling(sweeps=k)).energy for k in range(1, 9)]
    scale = 1e-12 * (1 + np.abs(energies).max())
    assert (np.diff(energies, axis=0) <= scale).all()


@settings(max_examples=60, deadline=None)
@given(
    net=networks(),
    seed=st.integers(0, 2**16),
    nudge=st.one_of(
        st.tuples(st.just("squared-error"), st.floats(-0.9, 3)),
        st.tuples(st.just("cross-entropy"), st.floats(-0.9, 1)),
    ),
)
def test_nudged_energy_never_rises(net, seed, nudge):
    loss, beta = nudge
    assume(loss == "squared-error" or net.n_out > 1)
    x, y = make_batch(net, 4, seed)
    target = one_hot(y, net.n_out)

    def nudged_energy(sweeps):
        found = net.settle(x, y, beta=beta, loss=loss, settling=Settling(sweeps=(5, sweeps)))
        return found.energy + beta * loss_value(loss, found.outputs, target)

    free = net.settle(x, settling=Settling(sweeps=5))
    start = free.energy + beta * loss_value(loss, free.outputs, target)
    energies = np.array([start, *(nudged_energy(k) for k in range(1, 7))])
    assert (np.diff(energies, axis=0) <= 1e-12 * (1 + np.abs(energies).max())).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", SHAPES, ids=str)
@pytest.mark.parametrize("order", ["asynchronous", "synchronous"])
def test_steady_state_is_that_of_an_independent_solver(layers, activation, order):
    net = make_net(layers, activation, gain=0.6, bias=0.6, seed=3)
    reference = Reference(net)
    assert reference.is_convex()
    x, y = make_batch(net, 5, values=True)
    settling = Settling(tolerance=1e-14, max_sweeps=5000, order=order)
    free = net.settle(x, settling=settling)
    assert free.converged
    for found, expected in zip(free.states, reference.solve(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    for beta in (0.4, -0.4):
        nudged = net.settle(x, y, beta=beta, settling=settling)
        for found, expected in zip(nudged.states, reference.solve(x, y, beta), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hidden_units_stay_in_their_range(activation):
    net = make_net([6, 9, 8, 3], activation, gain=3.0, bias=3.0)
    x, y = make_batch(net, 50)
    low = -1 if activation == "tanh" else 0
    for found in (net.settle(x), net.settle(x, y, beta=0.9)):
        hidden = np.concatenate(found.states[:-1], axis=1)
        assert hidden.min() >= low
        assert hidden.max() <= 1
        if activation == "hard-sigmoid":
            assert (hidden == 0).any()
            assert (hidden == 1).any()


@settings(max_examples=60, deadline=None)
@given(
    net=networks(gain=2.0),
    exponent=st.integers(2, 12),
    order=st.sampled_from(["asynchronous", "synchronous"]),
    beta=st.sampled_from([None, 0.3, -0.3]),
)
def test_converged_is_true(net, exponent, order, beta):
    # A layer moves to the minimum given the others: a force is what the neighbours moved
    # afterwards.
    tolerance = 10.0**-exponent
    reference = Reference(net)
    x, y = make_batch(net, 6)
    nudge = {} if beta is None else {"y": y, "beta": beta}
    found = net.settle(
        x, **nudge, settling=Settling(tolerance=tolerance, max_sweeps=500, order=order)
    )
    saturated, rounding = np.zeros(len(x), bool), np.zeros(len(x))
    if net.activation != "hard-sigmoid":
        # At saturation Phi' turns the rounding of a state into a force of any size: the rounding
        # times Phi''.
        for layer in found.states[:-1]:
            slope = np.abs(reference.slope(np.clip(layer, -1 + 1e-15, 1 - 1e-15)))
            saturated |= (slope > 8).any(axis=1)
            curvature = (
                np.cosh(slope) ** 2 if net.activation == "tanh" else 4 * np.cosh(slope / 2) ** 2
            )
            rounding = np.maximum(
                rounding, 1.5 * np.finfo(float).eps * curvature.max(axis=1, initial=0.0)
            )
    done = (found.status == Status.CONVERGED) & ~saturated
    assume(done.any())
    bound = (
        max(np.abs(reference.couplings()).sum(axis=1).max(), 1.0) * (1 + abs(beta or 0)) * tolerance
    )
    assert (found.residual[done] <= (bound + 1e-9 * tolerance + 1e-11 + rounding)[done]).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_default_settling_of_inference(activation, dtype):
    net = make_net([20, 30, 10], activation, dtype=dtype)
    x, _ = make_batch(net, 40)
    found = net.settle(x)
    assert found.converged
    assert found.residual.max() < 1e-3
    np.testing.assert_array_equal(net.predict(x), found.outputs)
    exact = net.settle(x, settling=Settling(sweeps=200)).outputs
    assert np.abs(found.outputs - exact).max() < 5e-4


def test_every_sample_settles_as_if_it_were_alone():
    net = make_net([9, 17, 5], gain=1.5)
    deep = make_net([9, 17, 8, 5], gain=1.5)
    for system in (net, deep):
        x, y = make_batch(system, 12)
        together = system.settle(x, y, beta=0.3)
        assert len(set(together.sweeps.tolist())) > 1, "each sample stops by itself"
        for i in range(12):
            alone = system.settle(x[i : i + 1], y[i : i + 1], beta=0.3)
            assert alone.sweeps[0] == together.sweeps[i]
            for a, b in zip(alone.states, together.states, strict=True):
                np.testing.assert_array_equal(a[0], b[i])


def test_unconverged_when_sweeps_run_out():
    net = make_net([6, 8, 3], gain=1.0)
    x, y = make_batch(net, 5)
    for found in (
        net.settle(x, settling=Settling(max_sweeps=1)),
        net.settle(x, y, beta=0.2, settling=Settling(tolerance=1e-12, max_sweeps=1)),
        net.settle(x, settling=Settling(sweeps=1)),
    ):
        assert (found.status == Status.UNCONVERGED).all()
        assert (found.sweeps == 1).all()
        assert not found.converged
        assert found.counts() == {
            "converged": 0,
            "unconverged": 5,
            "diverged": 0,
            "unbounded": 0,
            "completed": 0,
            "saddle": 0,
            "floppy": 0,
        }
    with pytest.warns(
        pnn.SettlingWarning, match="of 5 samples some did not settle: {'unconverged': 5}"
    ):
        outputs = net.predict(x, settling=Settling(max_sweeps=1))
    assert np.isfinite(outputs).all()


def test_sweeps_are_counted():
    net = make_net([6, 8, 3])
    x, y = make_batch(net, 5)
    assert (net.settle(x, settling=Settling(sweeps=(7, 3))).sweeps == 7).all()
    assert (net.settle(x, y, beta=0.2, settling=Settling(sweeps=(7, 3))).sweeps == 3).all()
    # A sweep count is judged by the default rule: enough sweeps are called converged.
    assert net.settle(x, settling=Settling(sweeps=200)).converged


@pytest.mark.parametrize(
    ("loss", "beta"),
    [("squared-error", b) for b in (-1.0, -1.5, -100)] + [("cross-entropy", b) for b in (-2.0, -5)],
)
@pytest.mark.parametrize("layers", [[6, 8, 3], [6, 8, 7, 3]], ids=str)
def test_unbounded_nudges_are_a_status(loss, beta, layers):
    net = make_net(layers)
    x, y = make_batch(net, 5)
    found = net.settle(x, y, beta=beta, loss=loss)
    assert (found.status == Status.UNBOUNDED).all()
    assert all((layer == 0).all() for layer in found.states)
    assert found.counts()["unbounded"] == 5
    assert "5 unbounded" in repr(found)


@pytest.mark.parametrize("loss", LOSSES)
def test_nudges_just_inside_their_range_settle(loss):
    net = make_net([6, 8, 3], "tanh", gain=0.3)
    x, y = make_batch(net, 5)
    edge = -0.8 if loss == "squared-error" else -1.2
    found = net.settle(
        x, y, beta=edge, loss=loss, settling=Settling(tolerance=1e-12, max_sweeps=100_000)
    )
    assert found.converged
    assert Reference(net).residual(x, found.states, one_hot(y, 3), edge, loss).max() < 1e-10


@pytest.mark.parametrize("layers", [[6, 8, 3], [6, 8, 7, 3]], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_divergence_is_a_status(layers, dtype):
    # The explicit update at |beta| > 1 multiplies the error of the outputs in every sweep.
    net = make_net(layers, dtype=dtype)
    x, y = make_batch(net, 5)
    settling = Settling(output_update="explicit", sweeps=(50, 5000))
    found = net.settle(x, y, beta=1.5, settling=settling)
    assert (found.status == Status.DIVERGED).all()
    assert all((layer == 0).all() for layer in found.states)
    assert 100 < found.sweeps.max() < 10_000, "it stops when it overflows"


def test_prediction_of_a_sample_that_diverges_is_nan():
    net = make_net([2, 3], dtype="float32")
    net.params["W1"][...] = 1
    x = np.array([[0.5, 0.5], [3e38, 3e38], [0.1, 0.2]], np.float32)
    with pytest.warns(pnn.SettlingWarning, match="'diverged': 1"):
        outputs = net.predict(x)
    assert np.isnan(outputs[1]).all()
    assert np.isfinite(outputs[[0, 2]]).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", [[6, 8, 3], [6, 8, 7, 3]], ids=str)
@pytest.mark.parametrize("beta", [0.4, -0.4])
def test_explicit_output_update_has_the_same_fixed_point(activation, layers, beta):
    net = make_net(layers, activation)
    x, y = make_batch(net, 5)
    exact = net.settle(x, y, beta=beta, settling=TIGHT)
    explicit = net.settle(x, y, beta=beta, settling=replace(TIGHT, output_update="explicit"))
    for a, b in zip(exact.states, explicit.states, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_network_without_hidden_layer_is_linear():
    net = make_net([5, 3])
    x, y = make_batch(net, 4)
    found = net.settle(x)
    np.testing.assert_allclose(found.outputs, x @ net.params["W1"] + net.params["b1"], rtol=1e-13)
    nudged = net.settle(x, y, beta=0.5).outputs
    np.testing.assert_allclose(nudged, (found.outputs + 0.5 * one_hot(y, 3)) / 1.5, rtol=1e-13)


def test_initial_parameters():
    net = pnn.systems.Hopfield([400, 300, 10], seed=7, gain=0.5, dtype="float64")
    for name, fan_in in (("W1", 400), ("W2", 300)):
        W = net.params[name]
        bound = 0.5 / np.sqrt(fan_in)
        assert np.abs(W).max() <= bound
        assert abs(W.mean()) < 5 * bound / np.sqrt(3 * W.size)
        assert abs(W.std() - bound / np.sqrt(3)) < 0.02 * bound
    assert not net.params["b1"].any()
    assert not net.params["b2"].any()
    single = pnn.systems.Hopfield([400, 300, 10], seed=7, gain=0.5)
    np.testing.assert_array_equal(single.params["W1"], net.params["W1"].astype(np.float32))
    other = pnn.systems.Hopfield([400, 300, 10], seed=8, gain=0.5)
    assert (other.params["W1"] != single.params["W1"]).mean() > 0.99
    drawn = pnn.systems.Hopfield([4, 3, 2])
    again = pnn.systems.Hopfield([4, 3, 2], seed=drawn.seed)
    np.testing.assert_array_equal(drawn.params["W1"], again.params["W1"])
    assert net.n_params == 400 * 300 + 300 + 300 * 10 + 10
    assert (net.n_in, net.n_out) == (400, 10)


def test_parameters_are_the_users():
    net = make_net([4, 5, 3])
    x, _ = make_batch(net, 6)
    before = net.predict(x)
    net.params["b2"] += 1.0
    assert net.predict(x).mean() > before.mean()
    net.params["W1"] = np.zeros((4, 5))
    net.params["W2"][...] = 0
    np.testing.assert_array_equal(net.predict(x), np.broadcast_to(net.params["b2"], (6, 3)))


def test_settling_changes_neither_inputs_nor_parameters():
    net = make_net([4, 5, 3])
    x, y = make_batch(net, 6)
    kept = [array.copy() for array in (x, y, *net.params.values())]
    net.settle(x, y, beta=0.2)
    net.predict(x)
    pnn.methods.EquilibriumPropagation().gradient(net, x, y)
    for a, b in zip(kept, (x, y, *net.params.values()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_classify_and_score():
    net = make_net([5, 7, 4])
    x, y = make_batch(net, 30)
    outputs = net.predict(x)
    labels = net.classify(x)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, outputs.argmax(axis=1))
    assert net.score(x, y) == (labels == y).mean()
    _, t = make_batch(net, 30, values=True)
    expected = 1 - ((outputs - t) ** 2).sum() / ((t - t.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(net.score(x, t), expected, rtol=1e-12)
    assert net.score(x, outputs.copy()) == 1.0
    assert net.score(x, np.full_like(t, 0.5)) == -np.inf


def test_many_samples_at_once():
    net = make_net([5, 7, 4], dtype="float32")
    x, _ = make_batch(net, 3000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs = net.predict(x)
    np.testing.assert_array_equal(
        outputs, np.concatenate([net.predict(part) for part in np.split(x, 6)])
    )


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_large_errors_do_not_loosen_hidden_units(activation, scale):
    net = make_net([4, 12, 12, 2], activation, gain=0.5, seed=3)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (4, 4)), scale * rng.normal(size=(4, 2))
    found = pnn.methods.EquilibriumPropagation().gradient(net, x, y)
    rest = pnn.methods.EquilibriumPropagation(settling=TIGHT).gradient(net, x, y)
    for name in net.names:
        assert np.linalg.norm(found[name] - rest[name]) < 0.05 * np.linalg.norm(rest[name]), name
