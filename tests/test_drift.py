"""Hardware that drifts from step to step: what training writes, and everything else only reads."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pnncore as pnn
import pytest
from pnncore import layers, methods, optim, systems
from pnncore.errors import CheckpointError, ConfigError, DataError, ShapeError

DRIFT = 0.03
WALKS = ["theta_drift3", "phi_drift3", "gamma_drift3"]


def mesh(drift: float = DRIFT, **settings: Any) -> systems.Stack:
    chain = [
        layers.Linear(4, 5),
        layers.Encode(),
        layers.MZIMesh(5, drift=drift),
        layers.Detect(),
        layers.Linear(5, 3),
    ]
    return systems.Stack(chain, **{"mismatch": 0.05, "dtype": "float64", "seed": 2, **settings})


def drifted(seed: int = 0) -> systems.Stack:
    net, rng = mesh(), np.random.default_rng(seed)
    for name in WALKS:
        net.memory[name][...] = rng.normal(0, 0.4, net.memory[name].shape)
    return net


def data(samples: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, 4)), rng.integers(0, 3, samples)


def method_named(call: str, net: systems.Stack) -> pnn.methods.Method:
    given = {"ForwardForward": "ForwardForward(classes=2)"}.get(
        call, call if "(" in call else f"{call}()"
    )
    return eval(given, vars(methods))


def loss_of_a_step(net: systems.Stack, call: str) -> float:
    trainer = pnn.Trainer(net, method_named(call, net), optim.SGD(1e-12), batch_size=12, seed=0)
    x, y = data()
    return trainer.fit(x, y % 2 if call == "ForwardForward" else y, epochs=1)["loss"][-1]


@pytest.mark.parametrize("call", mesh().methods())
def test_every_method_measures_what_has_drifted(call: str) -> None:
    net, still = drifted(), mesh(drift=0.0)
    for name, array in net.params.items():
        still.params[name][...] = array + net.memory.get(f"{name[:-1]}_drift3", 0.0)
    loss = loss_of_a_step(net, call)
    if call == "Backprop":  # in silico: what the twin says, which does not drift
        assert loss == loss_of_a_step(mesh(), call) != loss_of_a_step(still, call)
        return
    assert loss == pytest.approx(loss_of_a_step(still, call), rel=1e-9)
    assert abs(loss - loss_of_a_step(mesh(), call)) > 1e-4


def test_only_training_moves_what_drifts() -> None:
    net, (x, y) = drifted(), data()
    before = {name: array.copy() for name, array in net.memory.items()}
    assert list(before) == [*WALKS, "clock"]
    net.predict(x), net.score(x, y), net.measure(x)
    # The twin does not drift.
    assert np.array_equal(net.vjp(x, np.ones((12, 3)))[0], mesh().vjp(x, np.ones((12, 3)))[0])
    methods.PhysicsAware().gradient(net, x, y)
    pnn.audit(net, methods.InSituBackprop(), x, y)
    assert all(np.array_equal(array, before[name]) for name, array in net.memory.items())
    pnn.Trainer(net, methods.PhysicsAware(), optim.SGD(0.01), batch_size=12, seed=0).fit(
        x, y, epochs=1
    )
    steps = np.concatenate([net.memory[name].ravel() - before[name].ravel() for name in WALKS])
    assert net.memory["clock"].tolist() == [1, 0]
    assert np.all(steps != 0)
    assert np.std(steps) == pytest.approx(DRIFT, rel=0.4)


def test_walks_spread_with_the_root_of_the_steps() -> None:
    net, (x, y) = mesh(), data()
    pnn.Trainer(net, methods.PhysicsAware(), optim.SGD(0.0), batch_size=1, seed=0).fit(
        x, y, epochs=75
    )
    walks = np.concatenate([net.memory[name].ravel() for name in WALKS])
    # 25 walks of 900 steps: the spread is known to one part in seven.
    assert np.sqrt(np.mean(walks**2)) == pytest.approx(DRIFT * 30, rel=0.45)


def test_another_trainer_goes_on_with_the_walk() -> None:
    nets, (x, y) = (mesh(), mesh()), data()
    for net, epochs in zip(nets, ((6,), (2, 4)), strict=True):
        for seed, count in enumerate(epochs):
            method, optimizer = methods.PhysicsAware(), optim.SGD(0.0)
            trainer = pnn.Trainer(net, method, optimizer, batch_size=3, seed=seed)
            trainer.fit(x, y, epochs=count)
    for name, array in nets[0].memory.items():
        assert np.array_equal(array, nets[1].memory[name]), name


def test_training_keeps_up_with_drift() -> None:
    x, y, x_test, y_test = pnn.data.iris(seed=0)

    def accuracy(method: methods.Method, rate: float) -> float:
        light = [layers.Encode(), layers.MZIMesh(6, drift=0.02), layers.Detect()]
        net = systems.Stack([layers.Linear(4, 6), *light, layers.Linear(6, 3)], seed=1)
        net.params["b1"][...] = 0.5
        trainer = pnn.Trainer(net, methods.PhysicsAware(), optim.Adam(0.02), batch_size=20, seed=0)
        trainer.fit(x, y, epochs=30)
        assert net.score(x_test, y_test) > 0.85
        pnn.Trainer(net, method, optim.Adam(rate), batch_size=5, seed=1).fit(x, y, epochs=30)
        return net.score(x_test, y_test)

    assert accuracy(methods.PhysicsAware(), 0.0) < 0.6
    assert accuracy(methods.PhysicsAware(), 0.01) > 0.85
    assert accuracy(methods.SPSA(), 0.01) > 0.85


def test_resumed_runs_go_on_drifting(tmp_path: Path) -> None:
    x, y = data()
    whole, path = mesh(), str(tmp_path / "run.pnn")
    pnn.Trainer(whole, methods.PhysicsAware(), optim.Adam(0.01), batch_size=5, seed=3).fit(
        x, y, epochs=4
    )
    half = pnn.Trainer(mesh(), methods.PhysicsAware(), optim.Adam(0.01), batch_size=5, seed=3)
    half.fit(x, y, epochs=2)
    half.save(path)
    again = pnn.Trainer.load(path)
    again.fit(x, y, epochs=2)
    for own, other in ((whole.params, again.system.params), (whole.memory, again.system.memory)):
        assert all(array.tobytes() == other[name].tobytes() for name, array in own.items())
    with pytest.raises(CheckpointError, match="another one"):
        pnn.Trainer.load(path, system=mesh(drift=0.01))
    with pytest.raises(CheckpointError, match="another one"):
        pnn.Trainer.load(path, system=mesh(seed=3))


def test_copies_are_as_far_adrift() -> None:
    net, (x, y) = drifted(), data()
    copy = pickle.loads(pickle.dumps(net))
    assert np.array_equal(copy.predict(x), net.predict(x))
    runs = pnn.compare(
        net,
        {"a": methods.PhysicsAware(), "b": methods.PhysicsAware()},
        (x, y, x, y),
        passes=3,
        seed=0,
    )
    first = [run.trainer.history["loss"][0] for run in runs.runs.values()]
    assert (
        first[0] == first[1] == pytest.approx(loss_of_a_step(drifted(), "PhysicsAware"), rel=1e-6)
    )


class Measured(methods.Method):
    """Takes the physics-aware gradient by hand."""

    needs = ("twins",)

    def step(self, experiment: methods.Experiment) -> dict[str, np.ndarray]:
        return experiment.backward(experiment.errors(experiment.measure()))[0]


def test_own_methods_measure_what_has_drifted() -> None:
    x, y = data()
    own, built_in = (
        method.gradient(drifted(), x, y) for method in (Measured(), methods.PhysicsAware())
    )
    assert all(np.allclose(own[name], built_in[name], rtol=1e-12, atol=1e-15) for name in own)
    nets = drifted(), drifted()
    for net, method in zip(nets, (Measured(), methods.PhysicsAware()), strict=True):
        pnn.Trainer(net, method, optim.SGD(0.1), batch_size=4, seed=0).fit(x, y, epochs=2)
    for name, array in nets[0].params.items():
        assert np.allclose(array, nets[1].params[name], rtol=1e-10, atol=1e-12)
    assert all(
        np.array_equal(array, nets[1].memory[name]) for name, array in nets[0].memory.items()
    )


def test_programmed_copies_are_as_far_adrift() -> None:
    net = drifted()
    aged = pnn.memories.program(net, seed=0).at(25.0)
    assert all(np.array_equal(array, aged.memory[name]) for name, array in net.memory.items())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_memory_that_is_not_finite_is_named(value: float) -> None:
    net, (x, y) = mesh(), data()
    net.memory["phi_drift3"][2] = value
    for call in (
        lambda: net.predict(x),
        lambda: methods.Backprop().gradient(net, x, y),
        lambda: pnn.Trainer(net, methods.Backprop(), optim.SGD(0.1), seed=0).fit(x, y, epochs=1),
    ):
        with pytest.raises(DataError, match="memory phi_drift3 holds NaN or infinity"):
            call()


def test_copies_have_all_memory_or_are_refused() -> None:
    net = drifted()
    del net.memory["phi_drift3"]
    with pytest.raises(ConfigError, match=r"missing \['phi_drift3'\]"):
        pickle.dumps(net)


def test_memory_that_does_not_fit_is_refused() -> None:
    net, (x, _) = mesh(), data()
    net.memory["theta_drift3"] = np.zeros(3)
    with pytest.raises(ShapeError, match=r"memory theta_drift3 must have shape \(10,\)"):
        net.predict(x)
    del net.memory["theta_drift3"]
    with pytest.raises(ConfigError, match=r"missing \['theta_drift3'\]"):
        net.predict(x)
    with pytest.raises(ConfigError, match="drift"):
        mesh(drift=-0.1)
    assert mesh(drift=0.0).memory == {}
