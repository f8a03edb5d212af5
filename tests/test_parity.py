"""The published fixed-step algorithm, transcribed to NumPy: same states, same parameters.

The free phase runs a number of sweeps from rest (all states zero), each over the even layers (the
first hidden one is layer 0), then the odd ones, or over all layers at once; nudged phases continue
from it. Published code moves nudged outputs by a - beta (o - y) at the outputs before the move.
"""

import numpy as np
import pnncore as pnn
import pytest
from helpers import copy_of, make_batch, make_net, one_hot, steps_of
from pnncore import Settling
from pnncore.methods import EquilibriumPropagation

NETS = ([7, 9, 3], [7, 9, 6, 3], [5, 8, 7, 6, 3], [6, 3])
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}


class Published:
    """Equilibrium propagation as published, for the squared error and units clipped to [0, 1]."""

    def __init__(self, net, *, beta, free, nudged, order, update):
        self.W = [net.params[f"W{k}"].copy() for k in range(1, len(net.layers))]
        self.b = [net.params[f"b{k}"].copy() for k in range(1, len(net.layers))]
        self.beta, self.free, self.nudged, self.order, self.update = (
            beta,
            free,
            nudged,
            order,
            update,
        )

    def move(self, k, x, s, y, beta):
        last = k == len(self.W) - 1
        a = (x if k == 0 else s[k - 1]) @ self.W[k] + self.b[k]
        if not last:
            return np.clip(a + s[k + 1] @ self.W[k + 1].T, 0, 1)
        if beta == 0:
            return a
        return a - beta * (s[k] - y) if self.update == "explicit" else (a + beta * y) / (1 + beta)

    def sweep(self, x, s, y, beta):
        layers = range(len(self.W))
        if self.order == "synchronous":
            return [self.move(k, x, s, y, beta) for k in layers]
        s = list(s)
        for k in [*layers[::2], *layers[1::2]]:
            s[k] = self.move(k, x, s, y, beta)
        return s

    def phase(self, x, s, y, beta, sweeps):
        for _ in range(sweeps):
            s = self.sweep(x, s, y, beta)
        return s

    def states(self, x, y):
        rest = [np.zeros((len(x), len(b)), x.dtype) for b in self.b]
        free = self.phase(x, rest, y, 0, self.free)
        return free, *(
            self.phase(x, free, y, beta, self.nudged) for beta in (self.beta, -self.beta)
        )

    def step(self, x, y, rate, variant):
        free, plus, minus = self.states(x, y)
        up, down, distance = (
            (plus, minus, 2 * self.beta) if variant == "centered" else (plus, free, self.beta)
        )
        for k in range(len(self.W)):
            below = [x if k == 0 else s[k - 1] for s in (up, down)]
            self.W[k] += rate * (below[0].T @ up[k] - below[1].T @ down[k]) / (distance * len(x))
            self.b[k] += rate * (up[k] - down[k]).sum(axis=0) / (distance * len(x))


def assert_close(found, expected, dtype, scale=1):
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=scale * TOLERANCES[dtype])


@pytest.fixture(params=["asynchronous", "synchronous"])
def order(request):
    return request.param


@pytest.fixture(params=["exact", "explicit"])
def update(request):
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("layers", NETS, ids=str)
@pytest.mark.parametrize(("free", "nudged"), [(1, 1), (2, 1), (5, 4), (20, 6)])
def test_states(layers, free, nudged, order, update, dtype):
    net = make_net(layers, dtype=dtype)
    x, y = make_batch(net, 11)
    settling = Settling(sweeps=(free, nudged), order=order, output_update=update)
    published = Published(net, beta=0.2, free=free, nudged=nudged, order=order, update=update)
    expected = published.states(x, one_hot(y, net.n_out).astype(dtype))
    found = [net.settle(x, settling=settling)]
    found += [net.settle(x, y, beta=beta, settling=settling) for beta in (0.2, -0.2)]
    for phase, states in zip(found, expected, strict=True):
        for a, b in zip(phase.states, states, strict=True):
            assert_close(a, b, dtype)


@pytest.mark.parametrize("layers", NETS, ids=str)
@pytest.mark.parametrize("variant", ["centered", "one-sided"])
@pytest.mark.parametrize("values", [False, True], ids=["labels", "targets"])
def test_training(layers, variant, order, update, dtype, values):
    net = make_net(layers, dtype=dtype)
    x, y = make_batch(net, 11, values=values)
    method = EquilibriumPropagation(
        beta=0.2,
        variant=variant,
        settling=Settling(sweeps=(12, 5), order=order, output_update=update),
    )
    published = Published(net, beta=0.2, free=12, nudged=5, order=order, update=update)
    pnn.Trainer(net, method, pnn.optim.SGD(0.1), batch_size=11, seed=1).fit(x, y, epochs=6)
    for _ in range(6):
        published.step(x, one_hot(y, net.n_out).astype(dtype), 0.1, variant)
    for k in range(len(published.W)):
        assert_close(net.params[f"W{k + 1}"], published.W[k], dtype)
        assert_close(net.params[f"b{k + 1}"], published.b[k], dtype)


def test_training_on_minibatches_with_a_rate_per_layer(dtype):
    # The published recipe in small: batches in a shuffled order, one rate per layer, rates falling
    # by epoch.
    net = make_net([7, 9, 6, 3], dtype=dtype)
    x, y = make_batch(net, 23)
    target = one_hot(y, 3).astype(dtype)
    published = Published(net, beta=0.2, free=12, nudged=5, order="asynchronous", update="explicit")
    rates, twin = [0.2, 0.05, 0.01], copy_of(net)
    optimizer = pnn.optim.SGD(rates, schedule=pnn.optim.ExponentialDecay(0.5))
    settling = Settling(sweeps=(12, 5), output_update="explicit")
    trainer = pnn.Trainer(
        net, EquilibriumPropagation(settling=settling), optimizer, batch_size=5, seed=9
    )
    trainer.fit(x, y, epochs=3)
    for epoch in range(3):
        order = pnn._core.permutation(23, 9, epoch)
        assert sorted(order) == list(range(23))
        for start, end in steps_of(23, 5):
            rows = order[start:end]
            kept = [array.copy() for array in published.W + published.b]
            published.step(x[rows], target[rows], 1.0, "centered")
            for array, old, rate in zip(
                published.W + published.b, kept, rates + rates, strict=True
            ):
                array[...] = old + rate * 0.5**epoch * (array - old)
    for k in range(3):
        assert_close(net.params[f"W{k + 1}"], published.W[k], dtype)
        assert_close(net.params[f"b{k + 1}"], published.b[k], dtype)
        assert not np.array_equal(net.params[f"W{k + 1}"], twin.params[f"W{k + 1}"])
