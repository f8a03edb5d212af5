"""Two installations of pnncore in turns, on one machine: what a change has done to the speed of
every family.

    python benches/turns.py before/bin/python after/bin/python  # ten pairs, a few minutes
    python benches/turns.py before/bin/python after/bin/python --pairs 3 --only Hopfield

Both interpreters train the same networks, one after the other and in changing order, in processes
of their own. Given are the samples per second of the second installation (the best of its epochs,
median over pairs), and the median and the quartiles of its rate over that of the first in the same
pair; then the median of every family.
"""

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import Settling, devices, layers, methods, optim, systems

EP = methods.EquilibriumPropagation
Training = tuple[systems.System, methods.Method, int, int]


def images(samples: int, width: int) -> np.ndarray:
    """Inputs of which a fifth are not zero, as pixels of written digits."""
    rng = np.random.default_rng(0)
    return (
        rng.uniform(0, 1, (samples, width)) * (rng.uniform(0, 1, (samples, width)) < 0.2)
    ).astype(np.float32)


def lattice(side: int) -> systems.Flow:
    at = [(i, j) for i in range(side) for j in range(side)]
    edges = [(f"{a}", f"{b}") for a in at for b in at if a < b and math.dist(a, b) == 1]
    ends = [f"{(i, side - 1)}" for i in range(4)]
    return systems.Flow(edges, inputs=[f"{(i, 0)}" for i in range(4)], outputs=ends)


def sheet(side: int) -> systems.Elastic:
    rng = np.random.default_rng(0)
    at = [
        (i + 0.2 * rng.normal(), j + 0.2 * rng.normal()) for i in range(side) for j in range(side)
    ]
    springs = [(a, b) for a in range(side**2) for b in range(a) if math.dist(at[a], at[b]) < 1.6]
    ends = [(side * side - 1, 0), (side * (side - 1), 1)]
    return systems.Elastic(
        at, springs, inputs=[(3 * side, 0), (4 * side - 1, 1)], outputs=ends, fixed=range(side)
    )


def diodes(side: int) -> systems.Circuit:
    from pnncore.elements import Diode, Resistor

    name = [[f"n{i}_{j}" for j in range(side)] for i in range(side)]
    found: list[Any] = [
        Resistor(name[i][j], name[i][j + 1]) for i in range(side) for j in range(side - 1)
    ]
    found += [Resistor(name[i][j], name[i + 1][j]) for i in range(side - 1) for j in range(side)]
    found += [Diode(name[i][i], "0", 1e-6, 2.0) for i in range(1, side - 1)]
    found += [Resistor(name[i][side - 1], "0", 0.1) for i in range(side)]
    return systems.Circuit(
        found, inputs=[name[i][0] for i in range(4)], outputs=[name[i][side - 1] for i in range(4)]
    )


def stack(*chain: layers.Layer) -> systems.Stack:
    return systems.Stack([*chain], seed=0)


def deep_stack(
    *sizes: int, kind: Callable[..., layers.Layer] = layers.Linear, **settings: Any
) -> systems.Stack:
    widths = itertools.pairwise(sizes)
    return stack(
        *[layer for n, m in widths for layer in (kind(n, m, **settings), layers.Tanh())][:-1]
    )


#: By family and name: the system, the method, the size of batches, and the samples of an epoch.
CASES: dict[str, Callable[[], Training]] = {
    "Hopfield, 64-128-10": lambda: (
        systems.Hopfield([64, 128, 10], seed=0),
        EP(beta=0.2),
        32,
        3200,
    ),
    "Hopfield, 784-512-10": lambda: (
        systems.Hopfield([784, 512, 10], seed=0),
        EP(beta=0.2),
        128,
        1280,
    ),
    "Hopfield, 784-512-10, 20 + 10 sweeps": lambda: (
        systems.Hopfield([784, 512, 10], seed=0),
        EP(beta=0.2, settling=Settling(sweeps=(20, 10))),
        128,
        1280,
    ),
    "Hopfield, holomorphic 64-128-10": lambda: (
        systems.Hopfield([64, 128, 10], activation="tanh", seed=0),
        EP(beta=0.2, variant="holomorphic"),
        32,
        64,
    ),
    "deep Hopfield, 784-512-512-10 tanh": lambda: (
        systems.Hopfield([784, 512, 512, 10], activation="tanh", seed=0),
        EP(beta=0.2),
        64,
        128,
    ),
    "deep Hopfield, 64-128-64-32-10": lambda: (
        systems.Hopfield([64, 128, 64, 32, 10], seed=0),
        EP(beta=0.2),
        32,
        640,
    ),
    "resistive, 784-100-10": lambda: (
        systems.DeepResistive([784, 100, 10], seed=0),
        EP(beta=1.0, settling=Settling(sweeps=(4, 4))),
        4,
        800,
    ),
    "resistive, 64-128-64-10": lambda: (
        systems.DeepResistive([64, 128, 64, 10], seed=0),
        EP(beta=1.0),
        32,
        640,
    ),
    "circuit, 64 nodes": lambda: (diodes(8), EP(beta=1e-3), 8, 32),
    "flow, 400 nodes": lambda: (lattice(20), methods.CoupledLearning(), 16, 320),
    "elastic, 64 nodes": lambda: (sheet(8), EP(beta=0.01), 16, 16),
    "stack, backpropagation": lambda: (
        deep_stack(784, 256, 128, 10),
        methods.Backprop(),
        128,
        5120,
    ),
    "stack, direct feedback alignment": lambda: (
        deep_stack(784, 256, 128, 10),
        methods.DirectFeedbackAlignment(),
        128,
        5120,
    ),
    "stack, pendula": lambda: (
        stack(layers.Linear(64, 32), layers.Pendula(32), layers.Linear(32, 10)),
        methods.Backprop(),
        32,
        640,
    ),
    "stack, evolution": lambda: (
        deep_stack(64, 32, 10),
        methods.EvolutionStrategy(sigma=0.01),
        128,
        256,
    ),
    "crossbar, ideal cells": lambda: (
        deep_stack(256, 128, 10, kind=layers.Crossbar),
        methods.Backprop(),
        64,
        640,
    ),
    "crossbar, pulsed cells": lambda: (
        deep_stack(256, 128, 10, kind=layers.Crossbar, device=devices.SoftBounds()),
        methods.Backprop(),
        8,
        64,
    ),
}


def measure(only: str) -> dict[str, float]:
    """The samples per second of every case, on one and on two threads."""
    found = {}
    for name, make in CASES.items():
        for threads in (1, 2):
            label = f"{name}, {threads} thread{'s'[: threads - 1]}"
            if only not in label:
                continue
            system, method, batch, samples = make()
            x = images(samples, system.n_in).astype(system.dtype)
            y = np.random.default_rng(1).integers(0, system.n_out, samples)
            trainer = pnn.Trainer(
                system,
                method,
                optim.SGD(1e-5),
                batch_size=batch,
                seed=0,
                threads=threads,
                progress=False,
            )
            found[label] = samples / trainer.fit(x, y, epochs=5)["seconds"].min()
    return found


def pairs(
    before: str, after: str, count: int, only: str
) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The rates of both, pair by pair."""
    for k in range(count):
        found = {}
        for python in (before, after) if k % 2 == 0 else (after, before):
            command = [python, __file__, "--measure", "--only", only]
            found[python] = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            )
        print(".", end="", file=sys.stderr, flush=True)
        yield found[before], found[after]
    print(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "interpreters", nargs="*", help="two interpreters, each with an installation of pnncore"
    )
    parser.add_argument("--pairs", type=int, default=10, help="how often both are measured")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.only)))
        return
    if len(options.interpreters) != 2:
        parser.error("two interpreters are wanted: before and after")
    ratios: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    before, after = options.interpreters
    for old, new in pairs(before, after, options.pairs, options.only):
        for name in new:
            ratios.setdefault(name, []).append(new[name] / old[name])
            rates.setdefault(name, []).append(new[name])
    for name, found in ratios.items():
        low, high = np.quantile(found, [0.25, 0.75])
        print(
            f"{name:55}{statistics.median(rates[name]):12,.0f}/s"
            f"{statistics.median(found):8.3f}  ({low:.3f} to {high:.3f})"
        )
    families: dict[str, list[float]] = {}
    for name, found in ratios.items():
        families.setdefault(name.split(",")[0], []).extend(found)
    print(
        *(f"{name}: {statistics.median(found):.3f}" for name, found in families.items()), sep="\n"
    )


if __name__ == "__main__":
    main()
