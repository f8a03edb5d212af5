"""Train a Hopfield network whose couplings are cells that pulses move.

    python examples/hopfield_devices.py

The phases of equilibrium propagation feed back through the couplings, so the network forgives less
of its cells than one that signals pass through. 64-32-10 on the digits, for every kind of cells.
"""

import argparse
import dataclasses
import statistics
from typing import Any

import pnncore as pnn
from pnncore import devices

MIXED = devices.MixedPrecision()
TIKI_TAKA = devices.TikiTaka(version="v2", fast_rate=1.0, rate=0.03)
QUIET = dataclasses.replace(devices.ReRamSB(), write_noise=0.0)
CASES: dict[str, dict[str, Any]] = {
    "floating point": {},
    "ConstantStep": {"device": devices.ConstantStep()},
    "EcRam": {"device": devices.EcRam()},
    "PCM, mixed precision": {"device": devices.PCM(), "algorithm": MIXED},
    "ReRamSB": {"device": devices.ReRamSB()},
    "ReRamSB, mixed precision": {"device": devices.ReRamSB(), "algorithm": MIXED},
    "ReRamSB, Tiki-Taka v2": {"device": devices.ReRamSB(), "algorithm": TIKI_TAKA},
    "ReRamSB without write noise, mixed precision": {"device": QUIET, "algorithm": MIXED},
}


def main() -> None:
    """Train a network of every kind for every seed, and print the test accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    x, y, x_test, y_test = pnn.data.digits()
    for name, cells in CASES.items():
        scores = []
        for seed in arguments.seeds:
            net = pnn.systems.Hopfield([64, 32, 10], seed=seed, **cells)
            method, optimizer = pnn.methods.EquilibriumPropagation(), pnn.optim.SGD(0.1)
            trainer = pnn.Trainer(net, method, optimizer, batch_size=10, seed=seed, progress=False)
            trainer.fit(x, y, epochs=arguments.epochs)
            scores.append(100 * net.score(x_test, y_test))
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        print(f"{name:45} {statistics.mean(scores):.1f}{spread} %")


if __name__ == "__main__":
    main()
