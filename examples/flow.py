"""Flow networks learn by coupled learning and its relatives: regression, and Fisher's irises.

A random network of pipes (or resistors) gets pressures at its inputs and answers with pressures at
its outputs. Every pipe changes its conductance by what it sees itself.

    python examples/flow.py                      # both tasks, writes flow.png
    python examples/flow.py --method frequency
"""

import argparse
from pathlib import Path

import numpy as np
import pnncore as pnn
from pnncore import plot

METHODS = {
    "propagation": pnn.methods.EquilibriumPropagation(beta=0.1),
    "coupled": pnn.methods.CoupledLearning(eta=0.1),
    "frequency": pnn.methods.FrequencyPropagation(),
    "agnostic": pnn.methods.AgnosticEquilibriumPropagation(),
}


def places(inputs: int, outputs: int, nodes: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return where inputs, outputs and `nodes` junctions are, by name."""
    names = (
        [f"in{k}" for k in range(inputs)]
        + [f"out{k}" for k in range(outputs)]
        + [f"n{k}" for k in range(nodes)]
    )
    points = np.random.default_rng(seed).uniform(0, 1, (len(names), 2))
    return dict(zip(names, points.tolist(), strict=True))


def network(inputs: int, outputs: int, nodes: int, seed: int) -> pnn.systems.Flow:
    """Return a network with pipes from every place to its six nearest."""
    at = places(inputs, outputs, nodes, seed)
    names, points = list(at), np.array(list(at.values()))
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = {tuple(sorted((a, int(b)))) for a in range(len(names)) for b in apart[a].argsort()[1:7]}
    return pnn.systems.Flow(
        [(names[a], names[b]) for a, b in sorted(near)],
        inputs=names[:inputs],
        outputs=names[inputs : inputs + outputs],
    )


def regression(
    method: pnn.methods.Method, seed: int
) -> tuple[pnn.systems.Flow, pnn.History, float]:
    """Two outputs that are given weighted means of two inputs and a constant."""
    rng = np.random.default_rng(seed)
    net = network(3, 2, 30, seed)
    weights = np.array([[0.2, 0.5], [0.5, 0.3], [0.3, 0.2]])
    x = np.column_stack([rng.uniform(0, 1, (200, 2)), np.zeros(200)])
    trainer = pnn.Trainer(net, method, pnn.optim.Adam(0.05), batch_size=20, seed=seed)
    history = trainer.fit(x[:150], x[:150] @ weights, epochs=60)
    return net, history, net.score(x[150:], x[150:] @ weights)


def irises(method: pnn.methods.Method, seed: int) -> tuple[pnn.systems.Flow, pnn.History, float]:
    """Three outputs, one for each species. Inputs come as x and 1 - x, since pipes only average."""
    x, y, x_test, y_test = pnn.data.iris(seed=seed)
    sources = lambda x: np.hstack([x, 1 - x, np.zeros((len(x), 1))]).astype(np.float64)  # noqa: E731
    net = network(9, 3, 40, seed)
    trainer = pnn.Trainer(net, method, pnn.optim.Adam(0.05), batch_size=15, seed=seed)
    # Wanted pressures within reach of a mean of inputs.
    wanted = 0.4 + 0.1 * np.eye(3)
    history = trainer.fit(sources(x), wanted[y], epochs=120)
    # The answer is the species whose mean pressures in training are nearest.
    pressures = net.predict(sources(x))
    means = np.array([pressures[y == species].mean(axis=0) for species in range(3)])
    answers = np.linalg.norm(net.predict(sources(x_test))[:, None] - means, axis=2).argmin(axis=1)
    return net, history, float((answers == y_test).mean())


def main() -> None:
    """Train on both tasks, report over seeds, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="coupled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--picture", type=Path, default=Path("flow.png"))
    arguments = parser.parse_args()
    method = METHODS[arguments.method]
    runs = {
        task.__name__: [task(method, seed) for seed in arguments.seeds]
        for task in (regression, irises)
    }
    scores = {name: np.array([score for *_, score in found]) for name, found in runs.items()}
    print(
        f"regression, {arguments.method}: R² {scores['regression'].mean():.4f} ± "
        f"{scores['regression'].std():.4f}"
    )
    print(
        f"irises, {arguments.method}: {100 * scores['irises'].mean():.1f} ± "
        f"{100 * scores['irises'].std():.1f} % correct"
    )
    try:
        figure = plot.require()
    except pnn.errors.ConfigError as missing:
        print(missing)
        return
    page = figure(figsize=(13, 5.5), layout="constrained")
    axes = page.subplots(1, 2, width_ratios=[1.5, 1])
    net = runs["irises"][0][0]
    x = pnn.data.iris()[0][0]
    net.plot(np.hstack([x, 1 - x, [0.0]]), axes[0], layout=places(9, 3, 40, arguments.seeds[0]))
    for name, found in runs.items():
        for seed, (_, history, _) in zip(arguments.seeds, found, strict=True):
            label = name if seed == arguments.seeds[0] else None
            axes[1].semilogy(
                history["epoch"],
                history["loss"],
                color={"regression": "#0072B2", "irises": "#D55E00"}[name],
                label=label,
            )
    axes[1].set(
        xlabel="epoch", ylabel="loss", title=f"{arguments.method}, {len(arguments.seeds)} seeds"
    )
    axes[1].legend(frameon=False)
    axes[1].spines[["top", "right"]].set_visible(False)
    page.savefig(arguments.picture, dpi=130)
    print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
