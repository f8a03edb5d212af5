"""Every method on the same physics and data.

Accuracy, and how far its gradient is from the exact one.

A Hopfield network of smooth units learns the 8x8 digits with each method in turn. The cosine is
that of the method's gradient to the exact one, on test samples, before and after training. The
controls, on the same split: the same network with only its last layer trained, a linear model
(multinomial logistic regression at a rate of its own), and the network before training.

    python examples/compare_methods.py
    python examples/compare_methods.py --seeds 0 1 2 3 4 --hidden 32 --epochs 60

The hidden layer is narrow on purpose: with 128 units training the last layer alone comes close. A
linear model does well on these digits, so an accuracy like its own shows that a method trains, no
more; what shows that hidden couplings are learned is the distance to the last layer only. The test
set is scored once per run, after the last epoch, and never used for a choice. All methods have the
same rate; Adam scales each gradient by its own size.
"""

import argparse
import time

import numpy as np
import pnncore as pnn
from pnncore import optim
from pnncore.methods import (
    ContrastiveLearning,
    CoupledLearning,
    EquilibriumPropagation,
    ImplicitDifferentiation,
    Method,
    RecurrentBackprop,
)
from pnncore.systems import Hopfield

METHODS: dict[str, Method] = {
    "EP one-sided": EquilibriumPropagation(variant="one-sided", beta=0.2),
    "EP centered": EquilibriumPropagation(variant="centered", beta=0.2),
    "EP holomorphic, N = 4": EquilibriumPropagation(variant="holomorphic", beta=0.2, points=4),
    "contrastive learning": ContrastiveLearning(),
    "coupled learning": CoupledLearning(eta=0.1),
    "recurrent backprop": RecurrentBackprop(steps=20),
    "implicit differentiation": ImplicitDifferentiation(),
}
EXACT = METHODS["implicit differentiation"]


class Run:
    """What training with one seed gave: test accuracy in %, cosines before and after, seconds."""

    def __init__(
        self, net: Hopfield, method: Method, rate: optim.Rate, epochs: int, seed: int
    ) -> None:
        x, y, x_test, y_test = pnn.data.digits()
        some = x_test[:64], y_test[:64]
        self.before = pnn.audit(net, method, *some).cosine
        start = time.perf_counter()
        if epochs:
            pnn.Trainer(net, method, optim.Adam(rate), batch_size=30, seed=seed).fit(
                x, y, epochs=epochs
            )
        self.seconds = time.perf_counter() - start
        self.after = pnn.audit(net, method, *some).cosine
        self.accuracy = 100 * net.score(x_test, y_test)


def line(name: str, runs: list[Run], *, cosines: bool) -> str:
    """Return a line of the table: means over seeds."""
    accuracies = [run.accuracy for run in runs]
    spread = f"± {np.std(accuracies, ddof=1):.1f}" if len(runs) > 1 else ""
    text = f"{name:26}{np.mean(accuracies):8.1f} {spread:6}"
    if cosines:
        before, after = (
            np.mean([getattr(run, when) for run in runs]) for when in ("before", "after")
        )
        text += f"{before:12.4f}{after:10.4f}"
        text += f"{np.mean([run.seconds for run in runs]):10.2f}"
    return text


def main() -> None:
    """Print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30, help="default: 30")
    parser.add_argument("--hidden", type=int, default=16, help="hidden units (default: 16)")
    parser.add_argument(
        "--learning-rate", type=float, default=0.006, help="of Adam (default: 0.006)"
    )
    arguments = parser.parse_args()

    def network(seed: int) -> Hopfield:
        return Hopfield([64, arguments.hidden, 10], activation="tanh", seed=seed)

    rate, epochs, seeds = arguments.learning_rate, arguments.epochs, arguments.seeds
    print(f"digits, 64-{arguments.hidden}-10 tanh, {epochs} epochs, seeds {seeds}")
    print(f"{'':26}{'test acc. %':15}{'cosine before':>14}{'after':>8}{'s / run':>10}")
    for name, method in METHODS.items():
        runs = [Run(network(seed), method, rate, epochs, seed) for seed in seeds]
        print(line(name, runs, cosines=True), flush=True)
    print("controls")
    last = {"W2": rate, "b2": rate}
    linear = ImplicitDifferentiation(loss="cross-entropy")
    controls = {
        "last layer only": [Run(network(seed), EXACT, last, epochs, seed) for seed in seeds],
        "logistic regression": [
            Run(Hopfield([64, 10], seed=s), linear, 0.02, epochs, s) for s in seeds
        ],
        "untrained": [Run(network(seed), EXACT, rate, 0, seed) for seed in seeds],
    }
    for name, runs in controls.items():
        print(line(name, runs, cosines=False))


if __name__ == "__main__":
    main()
