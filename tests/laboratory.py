"""A laboratory in NumPy, for the tests of instruments."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore.instruments import _guard
from pnncore.systems import Instrument

W = np.random.default_rng(0).normal(size=(3, 2))
X = np.random.default_rng(1).normal(size=(12, 3))
Y = np.random.default_rng(2).integers(0, 2, 12)
THETA = {"gain": np.array([1.0, 0.5, -0.5])}


def lab(x, params):
    return np.tanh((x * params["gain"]) @ W)


def slope(x, params, dy):
    dz = dy * (1 - lab(x, params) ** 2)
    return dz @ W.T * params["gain"], {"gain": ((dz @ W.T) * x).sum(axis=0)}


TWIN = pnn.twins.Analytic(lab, slope)


def close_all():
    """Close what tests have left open: an instrument with a journal stays open until then."""
    for driver in list(_guard._open):
        driver.close()


def raises(kind, words):
    return pytest.raises(kind, match=words)


def bench(fn=lab, **settings):
    return Instrument(fn, 3, 2, **({"params": THETA, "seed": 0} | settings))


def train(system, steps=4, method=None, **settings):
    method = method or pnn.methods.SPSA(loss="cross-entropy")
    trainer = pnn.Trainer(
        system, method, pnn.optim.SGD(0.2), batch_size=4, seed=3, progress=False, **settings
    )
    trainer.fit(X, Y, epochs=steps)
    return trainer
