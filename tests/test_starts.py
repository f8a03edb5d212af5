"""Where free phases start: at rest, or where a method of a user's own says."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import elements, methods, optim, systems
from pnncore.errors import ConfigError, DataError, ShapeError


class FromHere(methods.Method):
    """Settles from the states that it was left with: what the memory of a user's own is for."""

    needs = ("local-rule",)

    def memory(self, system: systems.System, random: np.random.Generator) -> dict[str, np.ndarray]:
        return {f"s{k}": np.full((2, n), 0.4) for k, n in enumerate(system.core.layers())}

    def step(self, experiment: methods.Experiment) -> dict[str, np.ndarray]:
        start = list(experiment.memory.values())
        settled = experiment.settle(("nudged", 0.1), start=start)
        self.rest = experiment.settle()
        self.found = settled
        for own, states in zip(start, settled.states(0), strict=True):
            own[...] = states
        return settled.read([-10.0, 10.0])


def test_free_phases_start_where_they_are_told() -> None:
    # Two steady states at no input: rest is between them.
    net = systems.Hopfield([1, 2, 1], activation="tanh", dtype="float64", seed=0)
    for name, array in net.params.items():
        array[...] = 2.0 if name.startswith("W") else 0.0
    method = FromHere()
    trainer = pnn.Trainer(net, method, optim.SGD(0.0), batch_size=2, seed=0)
    trainer.fit(np.zeros((2, 1)), np.zeros((2, 1)), epochs=1)
    assert np.all(method.found.outputs[0] > 1)
    assert np.all(method.rest.outputs[0] == 0)
    first = method.found._sweeps[:, 0].max()
    assert np.allclose(trainer.memory["method/s1"], method.found.outputs[0])
    trainer.fit(np.zeros((2, 1)), np.zeros((2, 1)), epochs=1)
    assert method.found._sweeps[:, 0].max() < first


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ([np.zeros((2, 2))], "2 layers, got 1"),
        ([np.zeros((2, 2)), np.zeros((2, 2))], r"start\[1\]"),
    ],
)
def test_starts_that_do_not_fit_are_refused(start: list[np.ndarray], says: str) -> None:
    class Wrong(methods.Method):
        needs = ("local-rule",)

        def step(self, experiment: methods.Experiment) -> dict[str, np.ndarray]:
            return experiment.settle(start=start).read([0.0])

    with pytest.raises(ShapeError, match=says):
        Wrong().gradient(
            systems.Hopfield([1, 2, 1], dtype="float64"), np.zeros((2, 1)), np.zeros((2, 1))
        )


class Settle(methods.Method):
    """Settles once from given states, and keeps what it found."""

    needs = ("local-rule",)

    def step(self, experiment: methods.Experiment) -> dict[str, np.ndarray]:
        start = None if self.start is None else self.start
        settled = experiment.settle(("nudged", 0.1), start=start)
        self.found, self.status = settled.states(0), settled._status
        return settled.read([-10.0, 10.0])


def settled(
    net: systems.System, x: np.ndarray, start: float | None
) -> tuple[list[np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Return the free states, the gradient of equilibrium propagation, and how phases ended."""
    method, samples = Settle(), len(x)
    x, method.start = x.astype(net.dtype), None
    if start is not None:
        method.start = [np.full((samples, n), start) for n in net.core.layers()]
    gradient = method.gradient(net, x, np.zeros((samples, net.n_out), net.dtype))
    return method.found, gradient, method.status


def diodes(dtype: str) -> systems.System:
    """Return a divider whose output ideal diodes keep at or above zero, and above node a."""
    r = elements.Resistor
    found = [r("in", "out", 1.0), r("out", "0", 1.0), elements.IdealDiode("0", "out")]
    found += [r("out", "a", 0.5), r("a", "0", 0.4), elements.IdealDiode("a", "out")]
    return systems.Circuit(found, inputs=["in"], outputs=["out"], dtype=dtype)


def truss(dtype: str) -> systems.System:
    at = [[0, 0], [1, 0], [0.4, 1], [1.5, 1.1], [0.9, 2.0]]
    springs = [[0, 2], [0, 3], [1, 2], [1, 3], [2, 3], [2, 4], [3, 4]]
    return systems.Elastic(
        at, springs, inputs=[(1, 0)], outputs=[(4, 0), (4, 1)], fixed=[0], dtype=dtype
    )


MADE = {
    "hopfield": lambda dtype: systems.Hopfield([1, 6, 4, 2], gain=0.5, dtype=dtype, seed=0),
    "fused": lambda dtype: systems.Hopfield([1, 9, 3], gain=0.5, dtype=dtype, seed=0),
    "resistive": lambda dtype: systems.DeepResistive([1, 4, 3, 2], dtype=dtype, seed=0),
    "circuit": diodes,
    "elastic": truss,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", MADE)
def test_one_steady_state_is_found_from_anywhere(kind: str, dtype: str) -> None:
    net = MADE[kind](dtype)
    x = np.array([[1.0], [-1.0], [0.0], [-0.6]]) * (0.1 if kind == "elastic" else 1.0)
    rest, gradient, _ = settled(net, x, None)
    size = max(np.abs(layer).max() for layer in rest)
    # Farther off, springs turn round: that is another steady state.
    far = (-0.05, 0.02, 0.05) if kind == "elastic" else (-5.0, -0.5, 0.3, 5.0, 1e3, -1e4, 1e6)
    for start in far:
        found, own, status = settled(net, x, start)
        # The truss turns about its fixed node at no cost where nothing strains it (x = 0).
        settles = {pnn.Status.CONVERGED} | ({pnn.Status.FLOPPY} if kind == "elastic" else set())
        assert set(status.ravel()) <= set(map(int, settles)), start
        off = max(np.abs(a - b).max() for a, b in zip(found, rest, strict=True))
        # A truss is soft: the phases that start there are resolved to a part of their displacement.
        assert off < (5e-3 if kind == "elastic" else 2e-3) * size, (start, off, size)
        for name, array in gradient.items():
            assert np.abs(own[name] - array).max() < 0.03 * np.abs(array).max() + 1e-6, start


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wells_are_come_down_into_from_far_off(dtype: str) -> None:
    class Well(systems.EnergySystem):
        """E = a (h² - 1)² / 4 + (o - h)² / 2, with states h and o."""

        def energy(self, params, x, s):
            h, o = s.T
            return params["a"] * (h**2 - 1) ** 2 / 4 + (o - h) ** 2 / 2

        def state_gradient(self, params, x, s):
            h, o = s.T
            return np.stack([params["a"] * (h**2 - 1) * h - (o - h), o - h], axis=1)

        def param_gradient(self, params, x, s, weights):
            return {"a": weights @ ((s[:, :1] ** 2 - 1) ** 2 / 4)}

    net = Well(n_in=1, n_states=2, n_out=1, params={"a": np.ones(1)}, dtype=dtype)
    x = np.zeros((2, 1))
    for start in (30.0, -30.0, 1e3):
        found, _, status = settled(net, x, start)
        assert (status == int(pnn.Status.CONVERGED)).all()
        assert np.allclose(np.abs(found[1]), 1.0, atol=1e-4), (start, found)


def test_states_that_do_not_fit_single_precision_are_refused() -> None:
    net = systems.Hopfield([1, 2, 1], seed=0)
    with pytest.raises(DataError, match=r"start\[0\] must be finite in float32"):
        settled(net, np.zeros((1, 1)), 1e300)
    net = systems.Hopfield([1, 2, 1], dtype="float64", seed=0)
    method = Settle()
    method.start = 5
    with pytest.raises(ConfigError, match="start must be the states of every layer"):
        method.gradient(net, np.zeros((1, 1)), np.zeros((1, 1)))
