"""An elastic network learns allostery: pull at one place, and another place moves as asked.

A disordered sheet of springs is pinned at two nodes. Two neighbours on the left are pulled apart
(the source); training by coupled learning or equilibrium propagation changes spring constants until
two neighbours on the far right (the target) move apart by a wanted fraction of that, in either
direction. The picture shows the sheet before and after.

    python examples/allostery.py                      # writes allostery.png
    python examples/allostery.py --method coupled --ratio -0.5
"""

import argparse
from pathlib import Path

import numpy as np
import pnncore as pnn
from pnncore import plot


def sheet(side: int, seed: int) -> pnn.systems.Elastic:
    """Return a jittered triangular lattice with springs between neighbours."""
    rng = np.random.default_rng(seed)
    places = [(i + 0.5 * (j % 2), j * np.sqrt(0.75)) for j in range(side) for i in range(side)]
    positions = np.array(places) + rng.uniform(-0.15, 0.15, (side * side, 2))
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    springs = [(a, b) for a in range(side * side) for b in range(a) if apart[a, b] < 1.35]
    middle = side // 2 * side
    source, target = (middle, middle + side), (middle + side - 1, middle + 2 * side - 1)
    return pnn.systems.Elastic(
        positions,
        springs,
        inputs=[(source[0], 1), (source[1], 1)],
        outputs=[(target[0], 1), (target[1], 1)],
        fixed=[side // 2, side * (side - 1) + side // 2],
        device=pnn.devices.Device(lower=0.01, upper=5.0),
    )


def main() -> None:
    """Train, report, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=8, help="nodes along a side")
    parser.add_argument(
        "--ratio",
        type=float,
        default=0.6,
        help="wanted opening of the target per opening of the source",
    )
    parser.add_argument("--method", choices=["propagation", "coupled"], default="propagation")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("allostery.png"))
    arguments = parser.parse_args()
    net = sheet(arguments.side, arguments.seed)
    opening = np.array([[0.05], [0.1], [0.15]])
    x = 0.5 * opening * [-1, 1]
    y = 0.5 * arguments.ratio * opening * [-1, 1]
    how = {
        "propagation": pnn.methods.EquilibriumPropagation(beta=0.02),
        "coupled": pnn.methods.CoupledLearning(eta=0.1),
    }
    before = {"shape": net.predict(x), "k": net.params["k"].copy()}
    # Only the stiffness learns: a parameter without a rate stays.
    trainer = pnn.Trainer(
        net,
        how[arguments.method],
        pnn.optim.Adam({"k": 0.03}, schedule=pnn.optim.CosineDecay(arguments.epochs)),
        batch_size=3,
        seed=0,
    )
    history = trainer.fit(x, y, epochs=arguments.epochs)
    print(
        f"{net!r}, {arguments.method}: loss {history['loss'][0]:.2e} -> {history['loss'][-1]:.2e}"
    )
    found = net.predict(x)
    for k, wide in enumerate(opening[:, 0]):
        was, now = (shape[k, 1] - shape[k, 0] for shape in (before["shape"], found))
        print(
            f"source opened by {wide:.2f}: target opens by {now:+.4f} "
            f"(wanted {arguments.ratio * wide:+.4f}, untrained {was:+.4f})"
        )
    try:
        figure = plot.require()
    except pnn.errors.ConfigError as missing:
        print(missing)
        return
    page = figure(figsize=(13, 6), layout="constrained")
    axes = page.subplots(1, 2)
    trained = net.params["k"].copy()
    for axis, k, title in ((axes[0], before["k"], "before"), (axes[1], trained, "after training")):
        net.params["k"][...] = k
        net.plot(x[-1], axis)
        axis.set_title(f"{title} (widths: stiffness)", loc="right", fontsize=9)
    page.savefig(arguments.picture, dpi=130)
    print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
