"""Reproduce the published MNIST results of equilibrium propagation on Hopfield networks.

The recipe is that of Scellier et al., "Energy-based learning algorithms for analog computing: a
comparative study" (2023): centered equilibrium propagation, beta 0.2, batches of 16, plain SGD,
rates times 0.99 per epoch, 100 epochs, inputs in [0, 1]. Ours differs in one thing: samples settle
until they are settled, not for a fixed number of sweeps (``--published-sweeps`` brings those back).
Two hidden layers end near a loss of stability, where the test error jumps from epoch to epoch; with
rates that fall to zero along half a cosine (``--cosine``) it comes to rest.

    python examples/mnist.py --network shallow --seeds 0 1 2
    # the same command resumes
    python examples/mnist.py --network deep --seeds 0 --epochs 60 --cosine --save runs/deep.pnn
    python examples/mnist.py --network shallow --dataset fashion
    # controls: no hidden layer, and a hidden layer that does not learn
    python examples/mnist.py --network linear
    python examples/mnist.py --network shallow --last-layer

The test set is scored after every epoch and never used for a choice: the figure that counts is that
of the last epoch.
"""

import argparse
import statistics
import time
from pathlib import Path

import pnncore as pnn

# Layers, one rate per layer, published sweeps (free, nudged), published test error in %.
NETWORKS = {
    "linear": ([784, 10], [0.005], (15, 15), None),
    "shallow": ([784, 1024, 10], [0.05, 0.05], (15, 15), 1.79),
    "deep": ([784, 1024, 1024, 10], [0.2, 0.05, 0.01], (50, 20), 1.65),
    "deeper": ([784, 1024, 1024, 1024, 10], [0.2, 0.05, 0.01, 0.002], (100, 10), 1.65),
}


def train(arguments: argparse.Namespace, seed: int) -> tuple[float, float]:
    """Train one network.

    Return its test error in % after the last epoch, and the seconds that training took.
    """
    layers, rates, sweeps, _ = NETWORKS[arguments.network]
    last = len(rates)
    trained = {f"{kind}{last}": rates[-1] for kind in "Wb"} if arguments.last_layer else rates
    load = pnn.data.mnist if arguments.dataset == "mnist" else pnn.data.fashion_mnist
    x, y, x_test, y_test = load()
    path = arguments.save and arguments.save.with_suffix(f".{seed}.pnn")
    callbacks = [pnn.Checkpoint(path)] if path else []
    if path and path.exists():
        trainer = pnn.Trainer.load(path, threads=arguments.threads, callbacks=callbacks)
        print(f"resumed after epoch {trainer.epoch}", flush=True)
    else:
        schedule: pnn.optim.Schedule = pnn.optim.ExponentialDecay(0.99)
        if arguments.cosine:
            schedule = pnn.optim.CosineDecay(arguments.epochs)
        settling = pnn.Settling(sweeps=sweeps) if arguments.published_sweeps else pnn.Settling()
        trainer = pnn.Trainer(
            pnn.systems.Hopfield(layers, gain=0.7, seed=seed),
            pnn.methods.EquilibriumPropagation(beta=0.2, settling=settling),
            pnn.optim.SGD(trained, schedule=schedule),
            batch_size=16,
            seed=seed,
            threads=arguments.threads,
            callbacks=callbacks,
        )
    start = time.perf_counter()
    while trainer.epoch < arguments.epochs:
        history = trainer.fit(x, y, epochs=1, validation=(x_test, y_test))
        print(
            f"{arguments.network} seed {seed} epoch {trainer.epoch:3d}: "
            f"training error {100 - 100 * history['accuracy'][-1]:.2f} %, "
            f"test error {100 - 100 * history['validation'][-1]:.2f} %, "
            f"sweeps {history['free_sweeps'][-1]:.1f} + {history['other_sweeps'][-1]:.1f}, "
            f"{history['seconds'][-1]:.1f} s",
            flush=True,
        )
    return 100 - 100 * trainer.system.score(x_test, y_test), time.perf_counter() - start


def main() -> None:
    """Train with every seed, then print one line for the README's table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="shallow")
    parser.add_argument("--dataset", choices=["mnist", "fashion"], default="mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument(
        "--cosine", action="store_true", help="rates fall to zero along half a cosine"
    )
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--last-layer", action="store_true", help="control: train the last layer only"
    )
    parser.add_argument(
        "--published-sweeps", action="store_true", help="settle for the published number of sweeps"
    )
    parser.add_argument(
        "--save",
        type=Path,
        default=None,
        help="checkpoint file, one per seed; resumes if it exists",
    )
    arguments = parser.parse_args()
    results = [train(arguments, seed) for seed in arguments.seeds]
    errors = [error for error, _ in results]
    layers, _, _, published = NETWORKS[arguments.network]
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    print(
        f"{arguments.dataset} "
        f"{'-'.join(map(str, layers))}{' (last layer only)' if arguments.last_layer else ''}, "
        f"{arguments.epochs} epochs, seeds {arguments.seeds}: "
        f"test error {statistics.mean(errors):.2f}{spread} % "
        f"({', '.join(f'{e:.2f}' for e in errors)}); "
        f"{statistics.mean(seconds for _, seconds in results):.0f} s per run"
        + (
            f"; published {published} %"
            if published and arguments.dataset == "mnist" and not arguments.last_layer
            else ""
        )
    )


if __name__ == "__main__":
    main()
