"""Train weights that are to be programmed once, with the noise of their arrays in the forward pass.

    python examples/hardware_aware.py

64-32-10 on the digits, read with a weight noise of 0.3 of the largest weight of a column: what
weights reach that were trained in floating point, with noise, with clipping, and with both.
"""

import argparse
import statistics
from typing import Any

import pnncore as pnn
from pnncore.layers import AnalogIO, Crossbar, Tanh


def network(seed: int, noise: float, clip: float | None) -> pnn.systems.Stack:
    """Return crossbars whose columns have digital scales."""
    io = AnalogIO(weight_noise=noise)
    own: dict[str, Any] = {"io": io, "remap": "columns", "clip": clip}
    return pnn.systems.Stack([Crossbar(64, 32, **own), Tanh(), Crossbar(32, 10, **own)], seed=seed)


def main() -> None:
    """Train every way for every seed, and read every network many times with noise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--reads", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    x, y, x_test, y_test = pnn.data.digits()
    for name, noise, clip in (
        ("plain", 0.0, None),
        ("noise", arguments.noise, None),
        ("clip", 0.0, 2.0),
        ("noise and clip", arguments.noise, 2.0),
    ):
        scores = []
        for seed in arguments.seeds:
            net = network(seed, noise, clip)
            method = pnn.methods.PhysicsAware(loss="cross-entropy")
            trainer = pnn.Trainer(
                net, method, pnn.optim.SGD(0.1), batch_size=20, seed=seed, progress=False
            )
            trainer.fit(x, y, epochs=arguments.epochs)
            noisy = network(seed, arguments.noise, clip)
            for own, array in net.params.items():
                noisy.params[own][...] = array
            reads = [
                (noisy.predict(x_test, repeat=k).argmax(axis=1) == y_test).mean()
                for k in range(arguments.reads)
            ]
            scores.append(100 * statistics.mean(map(float, reads)))
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        print(f"{name:16} {statistics.mean(scores):.1f}{spread} %")


if __name__ == "__main__":
    main()
