"""Train a network on analog crossbars, with the devices and the algorithms of the literature.

    python examples/crossbar_training.py  # digits on a row of devices and algorithms
    # 784-256-128-10 in floating point
    python examples/crossbar_training.py --dataset mnist --device none
    python examples/crossbar_training.py --dataset mnist --device ConstantStep
    python examples/crossbar_training.py --dataset mnist --device PCM --algorithm mixed-precision

Weights are read through 7-bit and 9-bit converters with noise, errors go back through the arrays,
and updates are trains of pulses. The row of devices ends with a picture, crossbar_training.png:
accuracy by epoch, and how many pulses cells had.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import devices
from pnncore.layers import AnalogIO, Crossbar, Linear, Logistic

DEVICES: dict[str, Any] = {
    "none": lambda: None,
    "ConstantStep": devices.ConstantStep,
    **devices.PRESETS,
}
ALGORITHMS: dict[str, Any] = {
    "none": lambda: None,
    "mixed-precision": devices.MixedPrecision,
    "tiki-taka-v1": lambda: devices.TikiTaka(version="v1", rate=0.05),
    "tiki-taka-v2": lambda: devices.TikiTaka(version="v2", fast_rate=1.0, rate=0.03),
    "chopped": lambda: devices.TikiTaka(version="chopped", fast_rate=2.0, rate=0.05, period=100),
    "agad": lambda: devices.TikiTaka(version="agad", fast_rate=3.0, rate=0.03),
}
ROW = [
    ("none", "none"),
    ("ConstantStep", "none"),
    ("ReRamSB", "none"),
    ("ReRamSB", "mixed-precision"),
    ("ReRamSB", "tiki-taka-v1"),
    ("ReRamSB", "tiki-taka-v2"),
    ("ReRamSB", "chopped"),
    ("ReRamSB", "agad"),
    ("PCM", "mixed-precision"),
]


def network(sizes: list[int], device: str, algorithm: str, seed: int) -> pnn.systems.Stack:
    """Return crossbars with logistic units between them.

    Plain linear maps for the device "none".
    """
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(sizes):
        if device == "none":
            layers.append(Linear(n_in, n_out))
        else:
            own = {"device": DEVICES[device](), "algorithm": ALGORITHMS[algorithm]()}
            layers.append(Crossbar(n_in, n_out, io=AnalogIO(), **own))
        layers.append(Logistic())
    return pnn.systems.Stack(layers[:-1], seed=seed)


def train(
    net: pnn.systems.Stack, data: Any, arguments: argparse.Namespace, seed: int
) -> pnn.Trainer:
    """Train with errors that go back through the arrays."""
    x, y, x_test, y_test = data
    schedule = pnn.optim.CosineDecay(arguments.epochs, 0.05) if arguments.cosine else None
    optimizer = pnn.optim.SGD(arguments.learning_rate, schedule=schedule)
    method = pnn.methods.InSituBackprop(loss="cross-entropy")
    threads = arguments.threads
    trainer = pnn.Trainer(
        net, method, optimizer, batch_size=arguments.batch_size, seed=seed, threads=threads
    )
    trainer.fit(x, y, epochs=arguments.epochs, validation=(x_test, y_test))
    return trainer


def main() -> None:
    """Train one network, or the row of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--device", choices=DEVICES, default=None)
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="none")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument(
        "--cosine", action="store_true", help="let the rate fall to a twentieth along half a cosine"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--picture", type=Path, default=Path("crossbar_training.png"))
    arguments = parser.parse_args()
    mnist = arguments.dataset == "mnist"
    arguments.epochs = arguments.epochs or (30 if mnist else 20)
    arguments.learning_rate = arguments.learning_rate or (0.1 if mnist else 0.3)
    data = pnn.data.mnist() if mnist else pnn.data.digits()
    sizes = [784, 256, 128, 10] if mnist else [64, 64, 10]
    row = ROW if arguments.device is None else [(arguments.device, arguments.algorithm)]
    curves = {}
    for device, algorithm in row:
        start, trainers = time.perf_counter(), []
        for seed in arguments.seeds:
            trainers.append(train(network(sizes, device, algorithm, seed), data, arguments, seed))
        scores = [100 * trainer.history["validation"][-1] for trainer in trainers]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        seconds = (time.perf_counter() - start) / len(scores) / arguments.epochs
        name = f"{device}, {algorithm}"
        print(
            f"{name:28} {statistics.mean(scores):6.2f} +- {spread:.2f} %, "
            f"{seconds:.3f} s per epoch",
            flush=True,
        )
        curves[name] = trainers
    if arguments.device is None:
        draw(curves, arguments.picture)
        print(f"picture: {arguments.picture}")


def draw(curves: dict[str, list[pnn.Trainer]], path: Path) -> None:
    """Draw accuracy by epoch, and how many cells had how many pulses."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    for name, trainers in curves.items():
        mean = np.mean([trainer.history["validation"] for trainer in trainers], axis=0)
        (line,) = left.plot(np.arange(1, len(mean) + 1), 100 * mean, label=name)
        endured = [
            array.ravel() for key, array in trainers[0].memory.items() if key.endswith("/pulses")
        ]
        if endured:
            edges = np.logspace(0, 5, 41)
            share, _ = np.histogram(np.concatenate(endured), edges)
            right.stairs(100 * share / share.sum(), edges, color=line.get_color(), linewidth=1.5)
    left.set(xlabel="epoch", ylabel="accuracy on test samples, %", title="Learning on crossbars")
    left.grid(alpha=0.3)
    right.set(xscale="log", xlabel="pulses that a cell had", ylabel="cells, %", title="Endurance")
    right.grid(alpha=0.3)
    figure.legend(
        *left.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=5
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
