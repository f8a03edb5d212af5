"""What a step of a method of one's own costs beside the same method in the core.

    python benches/own_method.py

Physics-aware training of two linear maps with tanh between, on one thread: milliseconds a step, the
fastest of ten epochs of 100 steps.
"""

import time

import numpy as np
import pnncore as pnn
from pnncore import layers, methods


class Own(methods.Method):
    """Physics-aware training, in Python."""

    needs = ("twins",)

    def step(self, experiment):
        """Return the gradient of the twins at the measured signals."""
        return experiment.backward(experiment.errors(experiment.measure()))[0]


def milliseconds(method: methods.Method, sizes: list[int], batch: int) -> float:
    """Time of a step."""
    n_in, hidden, n_out = sizes
    net = pnn.systems.Stack(
        [layers.Linear(n_in, hidden), layers.Tanh(), layers.Linear(hidden, n_out)], seed=0
    )
    x = np.random.default_rng(0).uniform(0, 1, (100 * batch, n_in)).astype(np.float32)
    y = np.zeros(len(x), int)
    trainer = pnn.Trainer(
        net, method, pnn.optim.SGD(1e-4), batch_size=batch, seed=0, threads=1, progress=False
    )
    times = []
    for _ in range(10):
        start = time.perf_counter()
        trainer.fit(x, y, epochs=1)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times) / 100


def main() -> None:
    """Print a table."""
    print("layers, batch: own, core, difference (ms a step)")
    for sizes in ([5, 6, 3], [64, 128, 10], [784, 256, 10]):
        for batch in (8, 64):
            own, core = (
                milliseconds(Own(), sizes, batch),
                milliseconds(methods.PhysicsAware(), sizes, batch),
            )
            print(f"{sizes}, {batch}: {own:.3f}, {core:.3f}, {own - core:.3f}")


if __name__ == "__main__":
    main()
