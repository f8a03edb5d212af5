"""Show what low precision costs and gives, on digits and three ways to train.

Networks are trained by equilibrium propagation, by backpropagation, and on crossbars, with the same
seeds, rates and epochs: once as they are, and once in low precision (bfloat16 where signals, errors
and weights are multiplied; integers of eight bits where crossbars are read). Printed are the test
accuracy (mean and deviation over seeds), how far the gradient of a fresh network is from the exact
one of the network without rounding, relative to it (equilibrium propagation has a bias of its own),
and the seconds that training took.

    python examples/low_precision.py
    python examples/low_precision.py --dataset digits --hidden 32 --seeds 0 1   # in seconds
"""

import argparse
import statistics
import time
from typing import Any

import pnncore as pnn
from pnncore import layers, methods, optim, systems
from pnncore.layers import AnalogIO, Crossbar, Linear, ReLU

# What is trained, its low precision, and the rate.
CASES = {
    "equilibrium propagation": ("bfloat16", 0.1),
    "backpropagation": ("bfloat16", 0.1),
    "crossbars, in situ": ("int8", 0.05),
}


def build(case: str, inputs: int, hidden: int, precision: Any, seed: int) -> systems.System:
    """Return a fresh network."""
    if case == "equilibrium propagation":
        return systems.Hopfield([inputs, hidden, 10], precision=precision, seed=seed)
    if case == "backpropagation":
        first, second, last = (
            Linear(n, m, precision=precision)
            for n, m in ((inputs, hidden), (hidden, hidden), (hidden, 10))
        )
        return systems.Stack([first, ReLU(), second, ReLU(), last], seed=seed)
    arrays: list[layers.Layer] = [
        Crossbar(n, m, io=AnalogIO(input_bits=8), precision=precision)
        for n, m in ((inputs, hidden), (hidden, 10))
    ]
    return systems.Stack([arrays[0], ReLU(), arrays[1]], seed=seed)


def learner(case: str) -> methods.Method:
    """Return the method that trains it."""
    if case == "equilibrium propagation":
        return methods.EquilibriumPropagation(beta=0.2)
    if case == "backpropagation":
        return methods.Backprop(loss="cross-entropy")
    return methods.InSituBackprop(loss="cross-entropy")


def main() -> None:
    """Train everything, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist")
    parser.add_argument("--hidden", type=int, default=512, help="units of a hidden layer")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", default="", help="cases whose names contain this")
    options = parser.parse_args()
    load = pnn.data.mnist if options.dataset == "mnist" else pnn.data.digits
    x, y, x_test, y_test = load()
    for case, (low, rate) in CASES.items():
        if options.only not in case:
            continue
        for precision in (None, low):
            accuracies, errors = [], []
            start = time.perf_counter()
            for seed in options.seeds:
                net = build(case, x.shape[1], options.hidden, precision, seed)
                method = learner(case)
                errors.append(pnn.audit(net, method, x[:64], y[:64]).relative_error)
                trainer = pnn.Trainer(net, method, optim.SGD(rate), batch_size=64, seed=seed)
                trainer.fit(x, y, epochs=options.epochs)
                accuracies.append(100 * net.score(x_test, y_test))
            seconds = (time.perf_counter() - start) / len(options.seeds)
            spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
            print(
                f"{case}, {precision or 'full precision'}: "
                f"{statistics.mean(accuracies):.2f}{spread} %, "
                f"gradient off by {statistics.mean(errors):.4f}, {seconds:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
