"""A bake-off: one noisy, lossy mesh of light, trained by eight methods under one budget of passes.

    python examples/light_bakeoff.py            # a minute
    python examples/light_bakeoff.py --passes 4000 --photons 30 inf

Images of 4 x 4 pixels (the digits that ship with the package, averaged) are amplitudes in 16 modes
of a mesh, with 0.05 dB of loss at each coupler, couplers that are off by 0.03, phases by 0.2, and
monitors by 0.01; ten of the detectors stand for the digits. All methods start from the same chip
and get the same number of passes through it. Told are the best accuracy on test images, and how
many samples were measured until it was first above 55 %, by how many photons of a sample are
detected. Draws light_bakeoff.png.
"""

import argparse
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods

MODES, TARGET, POWER = 16, 0.55, 30.0


def images() -> tuple[Any, ...]:
    """Return digits of 4 x 4 pixels, with the same power each."""
    x, y, x_test, y_test = pnn.data.digits()

    def shrunk(own: Any) -> Any:
        small = own.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(own), MODES)
        return small * np.sqrt(POWER / (small**2).sum(axis=1, keepdims=True))

    return shrunk(x), y, shrunk(x_test), y_test


def chip(photons: float) -> pnn.systems.Stack:
    """Return the chip, whose detectors detect so many photons of a sample of a power of one."""
    mesh = layers.MZIMesh(MODES, loss=0.05, coupler_error=0.03, phase_error=0.2, tap_noise=0.01)
    detect = layers.Detect(photons=None if np.isinf(photons) else photons)
    return pnn.systems.Stack([layers.Encode(MODES), mesh, detect], seed=0)


def contestants() -> dict[str, Any]:
    """Return the methods, each with the optimizer that suits it."""
    loss: dict[str, Any] = {"loss": "cross-entropy"}
    adam = pnn.optim.Adam(0.03)
    return {
        "twin alone": (methods.Backprop(**loss), adam),
        "physics-aware": (methods.PhysicsAware(**loss), adam),
        "in situ, difference": (methods.InSituBackprop(**loss), adam),
        "in situ, three": (methods.InSituBackprop(protocol="three-intensity", **loss), adam),
        "forward gradient": (methods.ForwardGradient(directions=4, **loss), adam),
        "SPSA": (methods.SPSA(directions=4, epsilon=0.1, **loss), adam),
        "evolution": (methods.EvolutionStrategy(directions=4, sigma=0.1, **loss), adam),
        "genetic": (methods.GeneticAlgorithm(**loss), adam),
    }


def samples_to_target(run: Any) -> float:
    """Return how many samples were measured until the accuracy was above the target, or NaN."""
    above = np.flatnonzero(run.score >= TARGET)
    return float(run.measured[above[0]]) if len(above) else float("nan")


def compare(photons: float, passes: int) -> dict[str, tuple[float, float]]:
    """Return the best accuracy of each method, and the samples to the target."""
    found = pnn.compare(
        chip(photons), contestants(), images(), passes=passes, seed=0, progress=False
    )
    return {
        name: (100 * float(run.score.max()), samples_to_target(run))
        for name, run in found.runs.items()
    }


def draw(table: dict[float, dict[str, tuple[float, float]]], file: str) -> None:
    """Draw samples to the target, and the best accuracy, by photons."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4), layout="constrained")
    best, needed = figure.subplots(1, 2)
    places = np.arange(len(table))
    marks = "osD^vP*X"
    for mark, name in zip(marks, next(iter(table.values())), strict=True):
        best.plot(places, [row[name][0] for row in table.values()], f"{mark}-", label=name)
        needed.semilogy(places, [row[name][1] for row in table.values()], f"{mark}-")
    names = ["∞" if np.isinf(own) else f"{own:g}" for own in table]
    for axes in (best, needed):
        axes.set_xticks(places, names)
        axes.set_xlabel("photons of a sample of a power of one")
    best.set_ylabel("best test accuracy, %")
    needed.set_ylabel(f"samples measured until {100 * TARGET:.0f} %")
    figure.legend(*best.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Run all, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passes", type=int, default=16000)
    parser.add_argument("--photons", type=float, nargs="+", default=[1.0, 10.0, 100.0, np.inf])
    parser.add_argument("--picture", default="light_bakeoff.png")
    arguments = parser.parse_args()
    table = {photons: compare(photons, arguments.passes) for photons in arguments.photons}
    print("| method |" + "".join(f" {photons:g} photons |" for photons in table))
    print("|---|" + "---|" * len(table))
    for name in contestants():
        cells = [row[name] for row in table.values()]
        texts = [
            f" {score:.1f} % ({'never' if np.isnan(samples) else f'{samples:,.0f}'}) |"
            for score, samples in cells
        ]
        print(f"| {name} |" + "".join(texts))
    draw(table, arguments.picture)


if __name__ == "__main__":
    main()
