"""Reproduce the published MNIST results of equilibrium propagation on deep resistive networks.

The recipe is that of Scellier, "A fast algorithm to simulate nonlinear resistive networks" (2024):
centered equilibrium propagation, batches of 4, plain SGD, rates times 0.99 per epoch, 4 to 6 sweeps
per phase.

    python examples/resistive_mnist.py --network small  # 10 epochs, a quarter of a minute
    # better than published
    python examples/resistive_mnist.py --network small --scale-rates 2 --cosine --seeds 0 1 2
    python examples/resistive_mnist.py --network shallow --seeds 0 1 2
    python examples/resistive_mnist.py --network deep
    # what devices cost
    python examples/resistive_mnist.py --network small --levels 64 --write-noise 1e-3 --open 0.02
    # without any download
    python examples/resistive_mnist.py --network small --dataset digits --epochs 3

The test set is scored after every epoch and never used for a choice: the figure that counts is that
of the last epoch. A picture of the last seed is written to resistive_mnist.png: its errors, what
hidden nodes listen to, what diodes do.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pnncore as pnn

# Hidden layers, input gain, beta, one rate per layer, sweeps (free, nudged), epochs, published test
# error in %.
NETWORKS = {
    "small": ([100], 100.0, 1.0, [0.006, 0.006], (4, 4), 10, 3.46),
    "shallow": ([1024], 480.0, 1.0, [0.006, 0.006], (4, 4), 50, 1.57),
    "deep": ([1024, 1024], 2000.0, 1.0, [0.002, 0.006, 0.018], (5, 5), 50, 1.48),
}


def parsed() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--dataset", choices=["mnist", "fashion", "digits"], default="mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument(
        "--scale-rates", type=float, default=1.0, help="multiply the published rates"
    )
    parser.add_argument(
        "--cosine", action="store_true", help="cosine decay of the rates instead of 0.99 per epoch"
    )
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--levels", type=int, default=None, help="conductance levels of the devices"
    )
    parser.add_argument(
        "--upper",
        type=float,
        default=None,
        help="their largest conductance (1 with --levels, --shorted)",
    )
    parser.add_argument(
        "--write-noise", type=float, default=0.0, help="standard deviation of a write"
    )
    parser.add_argument("--open", type=float, default=0.0, help="fraction of devices stuck at zero")
    parser.add_argument(
        "--shorted",
        type=float,
        default=0.0,
        help="fraction of devices stuck at the largest conductance",
    )
    parser.add_argument(
        "--settling-time",
        type=float,
        default=1e-6,
        help="seconds that a settling takes, for the energy (default 1 us)",
    )
    parser.add_argument("--picture", type=Path, default=Path("resistive_mnist.png"))
    return parser.parse_args()


def device_of(arguments: argparse.Namespace) -> pnn.devices.Device:
    """Return what conductances are stored in."""
    bounded = arguments.levels is not None or arguments.shorted > 0
    return pnn.devices.Device(
        lower=0.0,
        upper=arguments.upper if arguments.upper is not None else (1.0 if bounded else None),
        levels=arguments.levels,
        write_noise=arguments.write_noise,
        open=arguments.open,
        shorted=arguments.shorted,
    )


def train(arguments: argparse.Namespace, split: tuple, seed: int, epochs: int) -> pnn.Trainer:
    """Train one network, and print a line after every epoch."""
    x, y, x_test, y_test = split
    hidden, input_gain, beta, rates, sweeps, _, _ = NETWORKS[arguments.network]
    decay = pnn.optim.CosineDecay(epochs) if arguments.cosine else pnn.optim.ExponentialDecay(0.99)
    net = pnn.systems.DeepResistive(
        [x.shape[1], *hidden, 10],
        input_gain=input_gain,
        device=device_of(arguments),
        seed=seed,
        dtype=x.dtype,
    )
    trainer = pnn.Trainer(
        net,
        pnn.methods.EquilibriumPropagation(beta=beta, settling=pnn.Settling(sweeps=sweeps)),
        pnn.optim.SGD([arguments.scale_rates * rate for rate in rates], schedule=decay),
        batch_size=4,
        seed=seed,
        threads=arguments.threads,
    )
    for _ in range(epochs):
        history = trainer.fit(x, y, epochs=1, validation=(x_test, y_test))
        print(
            f"{arguments.network} seed {seed} epoch {trainer.epoch:3d}: "
            f"training error {100 - 100 * history['accuracy'][-1]:.2f} %, "
            f"test error {100 - 100 * history['validation'][-1]:.2f} %, "
            f"{history['seconds'][-1]:.1f} s",
            flush=True,
        )
    return trainer


def main() -> None:
    """Train with every seed, then print one line."""
    arguments = parsed()
    *_, epochs, published = NETWORKS[arguments.network]
    epochs = arguments.epochs or epochs
    data = pnn.data
    loads = {"mnist": data.mnist, "fashion": data.fashion_mnist, "digits": data.digits}
    split = loads[arguments.dataset]()
    _, _, x_test, y_test = split
    errors, seconds, powers = [], [], []
    for seed in arguments.seeds:
        start = time.perf_counter()
        trainer = train(arguments, split, seed, epochs)
        net = trainer.system
        seconds.append(time.perf_counter() - start)
        errors.append(100 - 100 * net.score(x_test, y_test))
        powers.append(float(np.mean(net.power(x_test[:200]))))
    power = statistics.mean(powers)
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    print(
        f"{arguments.dataset} {net.layers}, {epochs} epochs, seeds {arguments.seeds}: test error "
        f"{statistics.mean(errors):.2f}{spread} % ({', '.join(f'{e:.2f}' for e in errors)}), "
        f"{statistics.mean(seconds):.0f} s per run"
        + (f"; published {published} %" if arguments.dataset == "mnist" else "")
    )
    watts, history = 1e-6 * power, trainer.history
    energy = history.energy(power=watts, settling_time=arguments.settling_time)
    print(
        f"At volts and microsiemens, settling in {arguments.settling_time:.1g} s: {watts:.3g} W "
        "and "
        f"{watts * arguments.settling_time:.3g} J per inference; {energy.sum():.3g} J for the "
        f"{history['measured'].sum():,.0f} settlings of training, with "
        f"{history['writes'].sum():,.0f} writes"
    )
    draw(
        net,
        trainer.history,
        x_test,
        published if arguments.dataset == "mnist" else None,
        arguments.picture,
    )
    print(f"picture: {arguments.picture}")


def draw(
    net: pnn.systems.DeepResistive,
    history: pnn.History,
    x: np.ndarray,
    published: float | None,
    path: Path,
) -> None:
    """Draw errors over epochs, the pixels that feed hidden nodes, and voltages behind diodes."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subfigures(1, 3)
    axes: Any = left.subplots()
    axes.semilogy(
        history["epoch"], 100 - 100 * history["accuracy"], color="tab:gray", label="training"
    )
    axes.semilogy(
        history["epoch"], 100 - 100 * history["validation"], "o-", markersize=3, label="test"
    )
    if published is not None:
        axes.axhline(published, color="tab:red", linestyle=":", label=f"published, {published} %")
    axes.set(xlabel="epoch", ylabel="error in %", title="Errors")
    axes.legend(frameon=False)
    g = net.params["g1"].astype(np.float64)
    # What a pixel does to a node: the conductance to its source at +x less that to the one at -x.
    seen = g[: net.n_in] - g[net.n_in :]
    side = round(net.n_in**0.5)
    chosen = np.argsort(-seen.std(axis=0))[:25]
    middle.suptitle("Pixels to hidden nodes, g(+x) - g(-x)")
    for axes, node in zip(middle.subplots(5, 5).flat, chosen, strict=True):
        most = np.abs(seen[:, node]).max()
        axes.imshow(seen[:, node].reshape(side, side), cmap="RdBu", vmin=-most, vmax=most)
        axes.set_axis_off()
    hidden = net.settle(x[:500]).states[0]
    half = -(-hidden.shape[1] // 2)
    axes = right.subplots()
    width = np.quantile(np.abs(hidden), 0.99)
    for voltages, label in (
        (hidden[:, :half], "first half, v ≥ 0"),
        (hidden[:, half:], "second half, v ≤ 0"),
    ):
        free = voltages[voltages != 0]
        conducting = 100 * (1 - free.size / voltages.size)
        axes.hist(
            free,
            bins=np.linspace(-width, width, 81),
            alpha=0.7,
            label=f"{label}; {conducting:.0f} % at 0",
        )
    axes.set(
        xlabel="voltage of hidden nodes whose diode blocks",
        ylabel="nodes and samples",
        title="What diodes do",
    )
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
