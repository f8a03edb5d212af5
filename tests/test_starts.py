"""Where free phases start: at rest, or where a method of a user's own says."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import methods, optim, systems
from pnncore.errors import ShapeError


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
