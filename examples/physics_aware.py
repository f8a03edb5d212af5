"""Physics-aware training of two systems of Wright et al., Nature 601, 549 (2022).

Training in silico stands beside it.

    python examples/physics_aware.py vowels       # second harmonics, 7 vowels; published about 93 %
    # coupled pendula, MNIST in 14 x 14 pixels; published 98 %
    python examples/physics_aware.py oscillators

The hardware's constants are off from those of its twin, and its measurements are noisy. In silico,
signals and derivatives come from the twin; physics-aware training takes signals from the hardware.
Both are judged on the hardware; a linear classifier stands beside. Data are looked for where
``PNNCORE_DATA`` says.
"""

import argparse
import statistics
import time

import numpy as np
import pnncore as pnn
from pnncore.layers import Layer, Linear, Normalize, Pendula, SecondHarmonic
from pnncore.methods import Backprop, PhysicsAware
from pnncore.optim import Adam, CosineDecay

CE = "cross-entropy"


def harmonics() -> list[Layer]:
    """Return pulses shaped by data and parameters, twice, and a readout of second harmonics."""
    return [
        *(Linear(12, 24), SecondHarmonic(24, 26), Normalize()),
        *(Linear(99, 24), SecondHarmonic(24, 26), Normalize()),
        Linear(99, 7),
    ]


def pendula() -> list[Layer]:
    """Return three networks of pendula, released from the pixels, and a readout of their angles."""
    return [*(Pendula(196, time=2.0, steps=8) for _ in range(3)), Linear(196, 10)]


def small_mnist() -> tuple[np.ndarray, ...]:
    """Return MNIST with the mean of 2 x 2 pixels in the place of each four."""
    x, y, x_test, y_test = pnn.data.mnist()

    def shrink(images: np.ndarray) -> np.ndarray:
        return images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)

    return shrink(x), y, shrink(x_test), y_test


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["vowels", "oscillators"])
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--mismatch", type=float, default=0.1)
    parser.add_argument("--noise", type=float, default=0.01)
    arguments = parser.parse_args()
    vowels = arguments.task == "vowels"
    data = pnn.data.vowels() if vowels else small_mnist()
    seeds = arguments.seeds or (range(10) if vowels else [0])
    epochs = arguments.epochs or (400 if vowels else 15)
    rate, batch_size = (0.01, 21) if vowels else (5e-4, 64)
    linear: list[Layer] = [Linear(data[0].shape[1], 7 if vowels else 10)]
    rows = [
        ("linear classifier", linear, Backprop(loss=CE)),
        ("in silico", harmonics() if vowels else pendula(), Backprop(loss=CE)),
        ("physics-aware", harmonics() if vowels else pendula(), PhysicsAware(loss=CE)),
    ]
    published = "about 93 %" if vowels else "98 %"
    print(
        f"mismatch {arguments.mismatch}, noise {arguments.noise}; published (physics-aware): "
        f"{published}"
    )
    for name, layers, method in rows:
        start, scores = time.perf_counter(), []
        for seed in seeds:
            off = (
                (0.0, 0.0) if name == "linear classifier" else (arguments.mismatch, arguments.noise)
            )
            net = pnn.systems.Stack(layers, mismatch=off[0], noise=off[1], seed=seed)
            optimizer = Adam(rate, schedule=CosineDecay(epochs))
            trainer = pnn.Trainer(net, method, optimizer, batch_size=batch_size, seed=seed)
            trainer.fit(data[0], data[1], epochs=epochs)
            scores.append(100 * net.score(data[2], data[3]))
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        seconds = (time.perf_counter() - start) / len(scores)
        print(
            f"{name:20} {statistics.mean(scores):6.2f}{spread} %   {len(scores)} seeds, "
            f"{seconds:.1f} s each",
            flush=True,
        )


if __name__ == "__main__":
    main()
