"""How the bias of equilibrium propagation falls with the strength of nudging.

Every estimator tends to the exact gradient as beta goes to zero, each at its own order: one-sided
1, centered 2, holomorphic with N points N. The table gives the relative error against the exact
gradient for several beta, and the slope of log error against log beta.

    python examples/bias_of_beta.py
    python examples/bias_of_beta.py --loss cross-entropy --layers 8 16 12 4
    python examples/bias_of_beta.py --plot bias.png

Units are smooth, the arithmetic is float64 and samples settle to rounding errors: what is left is
the bias of the method. Errors below 1e-11 are rounding, and do not count for the slope.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pnncore as pnn
from pnncore.methods import EquilibriumPropagation

FLOOR = 1e-11
Row = tuple[str, npt.NDArray[np.float64], float]


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Return for every estimator its name, its errors by beta, and the slope."""
    layers, activation, seed = arguments.layers, arguments.activation, arguments.seed
    net = pnn.systems.Hopfield(layers, activation=activation, dtype="float64", seed=seed)
    random = np.random.default_rng(seed)
    x = random.uniform(0, 1, (8, net.n_in))
    y = random.integers(0, net.n_out, 8)
    tight = pnn.Settling(tolerance=1e-14, max_sweeps=20_000)
    one_sided = EquilibriumPropagation(variant="one-sided", loss=arguments.loss, settling=tight)
    estimators = {"one-sided": one_sided, "centered": replace(one_sided, variant="centered")}
    for points in (3, 4, 6):
        name = f"holomorphic, N = {points}"
        estimators[name] = replace(one_sided, variant="holomorphic", points=points)
    betas = np.array(arguments.betas)
    rows = []
    for name, method in estimators.items():
        found = [
            pnn.audit(net, replace(method, beta=beta), x, y).relative_error
            for beta in arguments.betas
        ]
        errors = np.array(found)
        above = errors > FLOOR
        slope = (
            np.polyfit(np.log(betas[above]), np.log(errors[above]), 1)[0]
            if above.sum() > 1
            else np.nan
        )
        rows.append((name, errors, float(slope)))
    return rows


def plot(rows: list[Row], betas: list[float], path: Path) -> None:
    """Draw the errors over beta, both axes logarithmic."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    for name, errors, slope in rows:
        axes.loglog(betas, errors, "o-", label=f"{name}: slope {slope:.1f}")
    axes.set(
        xlabel="beta",
        ylabel="relative error of the gradient",
        title="Bias of equilibrium propagation",
    )
    axes.set_xticks(betas, [f"{beta:g}" for beta in betas])
    axes.minorticks_off()
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Print the table, and draw it where asked."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[8, 16, 12, 4], help="sizes, inputs first"
    )
    parser.add_argument("--activation", choices=["tanh", "logistic"], default="tanh")
    parser.add_argument(
        "--loss", choices=["squared-error", "cross-entropy"], default="squared-error"
    )
    parser.add_argument(
        "--betas", type=float, nargs="+", default=[0.4, 0.2, 0.1, 0.05], help="strengths"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the table; needs matplotlib"
    )
    arguments = parser.parse_args()

    rows = measure(arguments)
    print("relative error of the gradient of equilibrium propagation")
    print(f"{'beta':>20}" + "".join(f"{beta:>10g}" for beta in arguments.betas) + f"{'slope':>10}")
    for name, errors, slope in rows:
        print(f"{name:>20}" + "".join(f"{error:>10.1e}" for error in errors) + f"{slope:>10.2f}")
    if arguments.plot is not None:
        plot(rows, arguments.betas, arguments.plot)
        print(f"drawn in {arguments.plot}")


if __name__ == "__main__":
    main()
