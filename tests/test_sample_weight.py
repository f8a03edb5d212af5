"""Weights of samples: how often they are drawn, and what training then minimises."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore._epoch import order_of


def test_weights_are_how_often_samples_are_drawn():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 3, 37)
    weights[:5] = 0
    counts = np.zeros(37)
    for epoch in range(4000):
        drawn = np.bincount(order_of(37, weights, 3, epoch).astype(int), minlength=37)
        expected = 37 * weights / weights.sum()
        assert (np.abs(drawn - expected) < 1).all()
        counts += drawn
    np.testing.assert_allclose(counts / 4000, expected, atol=0.03)
    # Equal weights are none; the same epoch is the same order.
    for epoch in range(5):
        plain = order_of(37, None, 3, epoch)
        assert (order_of(37, np.full(37, 0.1), 3, epoch) == plain).all()
        assert (order_of(37, weights, 3, epoch) == order_of(37, weights, 3, epoch)).all()


def test_weighted_training_minimises_the_weighted_loss(tmp_path):
    x = np.ones((4, 1))
    y = np.array([[0.0], [1.0], [1.0], [5.0]])
    weights = [2.0, 1.0, 1.0, 0.0]
    net = pnn.systems.Stack([pnn.layers.Linear(1, 1)], seed=0, dtype="float64")
    trainer = pnn.Trainer(net, pnn.methods.Backprop(), pnn.optim.SGD(0.02), batch_size=4, seed=0)
    trainer.fit(x, y, epochs=600, sample_weight=weights)
    assert net.predict(x)[0, 0] == pytest.approx(0.5, abs=0.05)
    for bad, match in (
        ([1.0, 1.0], "must have shape"),
        ([-1.0, 1, 1, 1], "at least 0"),
        ([0.0] * 4, "not all zero"),
        ([np.nan] * 4, "finite"),
    ):
        with pytest.raises(ValueError, match=match):
            trainer.fit(x, y, epochs=1, sample_weight=bad)
