"""Hamiltonian chains and echoes, against a motion of their own in NumPy."""

import json

import numpy as np
import pnncore as pnn
import pytest
from pnncore import methods, systems
from pnncore.errors import CapabilityError, ConfigError


def chain(**settings):
    given = {"n_in": 2, "n_out": 3, "time": 4.0, "steps": 200, **settings}
    made = systems.HamiltonianChain(given.pop("masses", 5), **given)
    rng = np.random.default_rng(3)
    for array in made.params.values():
        array += rng.uniform(-0.2, 0.2, array.shape)
    return made


def moved(params, x, *, time, steps, damping=0.0):
    """Places and momenta at the end, by steps of half kick, drift, half kick."""
    a, c, b, k = (params[name].astype(np.float64) for name in "acbk")
    q, p, step = np.zeros((len(x), len(a))), np.zeros((len(x), len(a))), time / steps
    q[:, : x.shape[1]] = x

    def force(q):
        pull = k * np.diff(q, axis=1)
        padded = np.pad(pull, ((0, 0), (1, 1)))
        return b - a * q - c * q**3 + padded[:, 1:] - padded[:, :-1]

    for _ in range(steps):
        p *= np.exp(-0.5 * damping * step)
        p += 0.5 * step * force(q)
        q += step * p
        p += 0.5 * step * force(q)
        p *= np.exp(-0.5 * damping * step)
    return q, p


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_motion_is_that_of_an_independent_account(damping):
    system, x = chain(damping=damping), np.random.default_rng(0).normal(size=(20, 2))
    q, p = moved(system.params, x, time=4.0, steps=200, damping=damping)
    np.testing.assert_allclose(system.predict(x), q[:, -3:], rtol=0, atol=1e-12)
    found = system.settle(x)
    np.testing.assert_allclose(np.hstack(found.states), np.hstack([p, q]), rtol=0, atol=1e-12)
    assert found.counts()["completed"] == 20
    assert found.converged


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
def test_echoes_tell_the_gradient(loss):
    system, rng = chain(), np.random.default_rng(1)
    x, y = rng.normal(size=(16, 2)), rng.integers(0, 3, 16)
    exact = methods.FiniteDifference(loss=loss, epsilon=1e-5).gradient(system, x, y)
    wanted = np.concatenate(list(exact.values()))

    def off(kick):
        found = methods.HamiltonianEcho(loss=loss, kick=kick).gradient(system, x, y)
        return np.linalg.norm(np.concatenate(list(found.values())) - wanted) / np.linalg.norm(
            wanted
        )

    assert off(0.1) / off(0.01) == pytest.approx(100, rel=0.1)
    assert off(1e-3) < 1e-5


def test_bytes_do_not_depend_on_threads():
    x, y = np.random.default_rng(2).normal(size=(70, 2)), np.arange(70) % 3
    found = set()
    for threads in (1, 2, 3, 8):
        system = chain()
        trainer = pnn.Trainer(
            system,
            methods.HamiltonianEcho(),
            pnn.optim.SGD(0.1),
            batch_size=33,
            seed=0,
            threads=threads,
        )
        trainer.fit(x, y, epochs=2)
        found.add(b"".join(array.tobytes() for array in system.params.values()))
    assert len(found) == 1


def test_a_chain_learns_from_another_and_resumes(tmp_path):
    """What another chain does with its inputs, which no linear map does."""
    rng = np.random.default_rng(5)
    x, teacher = rng.normal(size=(64, 2)), chain()
    for array in teacher.params.values():
        array += rng.uniform(-0.3, 0.3, array.shape)
    y, columns = teacher.predict(x), np.c_[x, np.ones(64)]
    linear = np.sum((columns @ np.linalg.lstsq(columns, y, rcond=None)[0] - y) ** 2) / 2 / 64

    def trainer():
        return pnn.Trainer(
            chain(), methods.HamiltonianEcho(), pnn.optim.Adam(0.02), batch_size=16, seed=0
        )

    whole, parts = trainer(), trainer()
    history = whole.fit(x, y, epochs=60)
    assert history["loss"][-1] < 0.05 * linear < 0.1 * history["loss"][0]
    parts.fit(x, y, epochs=25)
    parts.save(tmp_path / "chain.pnn")
    again = pnn.Trainer.load(tmp_path / "chain.pnn")
    again.fit(x, y, epochs=35)
    for name, array in whole.system.params.items():
        np.testing.assert_array_equal(again.system.params[name], array)


def test_bonds_and_quartic_terms_stay_positive():
    system, x = chain(), np.random.default_rng(0).normal(size=(32, 2))
    trainer = pnn.Trainer(
        system, methods.HamiltonianEcho(), pnn.optim.SGD(1.0), batch_size=8, seed=0
    )
    trainer.fit(x, 2 * system.predict(x), epochs=3)
    assert system.params["c"].min() >= 0
    assert system.params["k"].min() >= 0


def test_what_is_wrong_is_said():
    for settings, text in (
        ({"n_out": 6}, "outputs must be in 1..=5"),
        ({"time": 0}, "time must be a positive number"),
        ({"steps": 0}, "steps"),
        ({"damping": -1}, "damping"),
        ({"n_in": 10**30}, "n_in must be a positive integer"),
        ({"quartic": -0.1}, "quartic"),
    ):
        with pytest.raises(ConfigError, match=text):
            chain(**settings)
    with pytest.raises(ConfigError, match="kick must be a positive number, got 0"):
        methods.HamiltonianEcho(kick=0)
    with pytest.raises(
        CapabilityError, match="HamiltonianEcho needs a motion that can be run backwards"
    ):
        methods.HamiltonianEcho().gradient(
            systems.Hopfield([2, 3], seed=0), np.ones((1, 2), np.float32), [0]
        )
    with pytest.raises(CapabilityError, match="HamiltonianEcho"):
        methods.EquilibriumPropagation().gradient(chain(), np.ones((1, 2)), [0])
    with pytest.raises(ConfigError, match="epsilon must be given"):
        methods.SPSA().gradient(chain(), np.ones((1, 2)), [0])


def test_a_chain_goes_to_a_file_and_back():
    system = chain(damping=0.1)
    config = json.loads(json.dumps(system.to_config()))
    assert systems.from_config(config).to_config() == config
    method = methods.HamiltonianEcho(kick=0.3, loss="cross-entropy")
    assert methods.from_config(method.to_config()) == method
    assert system.methods().count("HamiltonianEcho") == 1
