"""Every method for layered physics on the bundled digits, each on a network that needs it.

    python examples/layered_digits.py            # a table, about a minute
    python examples/layered_digits.py --seeds 0  # quicker
    python examples/layered_digits.py --compare  # and a picture: accuracy against physical passes

Controls stand beside: what the same network reaches with its last layer alone, or with untrained
maps. 450 test images; logistic regression reaches 0.969.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pnncore as pnn
from pnncore import methods
from pnncore.layers import Layer, Linear, Normalize, ReLU, Speckle, Tanh
from pnncore.optim import SGD, Adam, CosineDecay, Optimizer

CE = "cross-entropy"


def chain(*sizes: int, bias: bool = True) -> list[Layer]:
    """Return linear maps with hyperbolic tangents between them."""
    pairs = [
        layer for n, m in itertools.pairwise(sizes) for layer in (Linear(n, m, bias=bias), Tanh())
    ]
    return pairs[:-1]


def narrow(seed: int, mismatch: float = 0.0) -> pnn.systems.Stack:
    """Return 64-16-16-16-10: so narrow that the hidden layers must learn."""
    return pnn.systems.Stack(chain(64, 16, 16, 16, 10), mismatch=mismatch, seed=seed)


def mismatched(seed: int) -> pnn.systems.Stack:
    """Return 64-128-128-10, whose hardware is half off its twin."""
    return pnn.systems.Stack(chain(64, 128, 128, 10), mismatch=0.5, seed=seed)


def scattering(seed: int) -> pnn.systems.Stack:
    """Return linear maps to and from a scattering medium, and a readout."""
    medium: list[Layer] = [Normalize(), Speckle(20, 20, 1.0), Normalize()]
    return pnn.systems.Stack(
        [Linear(64, 20), *medium, Linear(20, 20), Normalize(), Linear(20, 10)],
        seed=seed,
    )


def labelled(seed: int) -> pnn.systems.Stack:
    """Return 74-200-200: ten inputs carry the label."""
    return pnn.systems.Stack(
        [Linear(74, 200), ReLU(), Normalize(), Linear(200, 200), ReLU()], seed=seed
    )


def small(seed: int) -> pnn.systems.Stack:
    """Return 64-16-10 without biases: 1184 parameters."""
    return pnn.systems.Stack(chain(64, 16, 10, bias=False), seed=seed)


def only(net: pnn.systems.Stack, names: tuple[str, ...], rate: float) -> dict[str, float]:
    """Return rates that are zero for all parameters but some."""
    return {name: rate if name in names else 0.0 for name in net.params}


Case = tuple[str, Callable[..., pnn.systems.Stack], methods.Method, Optimizer, int, int]


def cases() -> list[Case]:
    """Return name, network, method, optimizer, batch size and epochs of every training."""
    net = narrow(0)
    last = only(net, ("W7", "b7"), 3e-3)
    speckle = scattering(0)
    maps = only(speckle, tuple(name for name in speckle.params if name != "phase3"), 3e-3)
    readout = only(speckle, ("W7", "b7"), 3e-3)
    budget = Adam(0.03, schedule=CosineDecay(200))
    local = methods.PhysicalLocalLearning(tau=20.0, loss=CE)
    align, direct = methods.FeedbackAlignment, methods.DirectFeedbackAlignment
    adaptive = methods.EvolutionStrategy(loss=CE, directions=15, adaptation=0.02)
    return [
        ("64-16-16-16-10: backpropagation", narrow, methods.Backprop(loss=CE), Adam(3e-3), 16, 100),
        ("  feedback alignment", narrow, align(loss=CE), Adam(3e-3), 16, 100),
        (
            "  sign-symmetric",
            narrow,
            align(loss=CE, feedback="sign-symmetric"),
            Adam(3e-3),
            16,
            100,
        ),
        (
            "  Kolen-Pollack",
            narrow,
            align(loss=CE, feedback="kolen-pollack"),
            SGD(0.3, weight_decay=1e-4),
            16,
            100,
        ),
        (
            "  direct feedback",
            narrow,
            direct(loss=CE),
            Adam(3e-3),
            16,
            100,
        ),
        (
            "  augmented",
            narrow,
            direct(loss=CE, slope="triangle"),
            Adam(3e-3),
            16,
            100,
        ),
        ("  last layer only", narrow, methods.Backprop(loss=CE), Adam(last), 16, 100),
        (
            "64-128-128-10, half off: in silico",
            mismatched,
            methods.Backprop(loss=CE),
            Adam(1e-3),
            32,
            60,
        ),
        (
            "  vaccinated",
            mismatched,
            methods.Backprop(loss=CE, vaccination=0.5),
            Adam(1e-3),
            32,
            60,
        ),
        ("  physics-aware", mismatched, methods.PhysicsAware(loss=CE), Adam(1e-3), 32, 60),
        (
            "64-20-20 speckle: local learning",
            scattering,
            local,
            Adam(maps, schedule=CosineDecay(300)),
            128,
            300,
        ),
        ("  untrained maps", scattering, local, Adam(readout, schedule=CosineDecay(300)), 128, 300),
        (
            "74-200-200: forward-forward",
            labelled,
            methods.ForwardForward(classes=10),
            Adam(1e-3),
            32,
            200,
        ),
        (
            "64-16-10: PEPG",
            small,
            adaptive,
            Adam(0.02, weight_decay=0.03, schedule=CosineDecay(333)),
            225,
            333,
        ),
        ("  SPSA", small, methods.SPSA(loss=CE, directions=30), budget, 225, 166),
        (
            "  coordinates",
            small,
            methods.CoordinateDescent(loss=CE, epsilon=0.5, coordinates=30),
            budget,
            225,
            163,
        ),
    ]


def train(case: Case, split: tuple, seeds: list[int]) -> None:
    """Train once for every seed, and print a line."""
    name, make, method, optimizer, batch, epochs = case
    scores, start, passes = [], time.perf_counter(), 0.0
    for seed in seeds:
        net = make(seed)
        free = net.n_in - 64
        x, y, x_test, y_test = split
        x, x_test = (np.hstack([a, np.zeros((len(a), free), a.dtype)]) for a in (x, x_test))
        trainer = pnn.Trainer(net, method, optimizer, batch_size=batch, seed=seed, progress=False)
        passes = float(trainer.fit(x, y, epochs=epochs)["passes"].sum())
        scores.append(method.score(net, x_test, y_test))
    seconds = (time.perf_counter() - start) / len(scores)
    spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    print(
        f"{name:38s} {statistics.mean(scores):16.3f}{spread} {passes:8,.0f} {seconds:8.2f}",
        flush=True,
    )


def compare(split: tuple, picture: Path) -> None:
    """Compare methods under one budget of physical passes, and draw."""
    fast = Adam(3e-3)
    found = pnn.compare(
        narrow(0, mismatch=0.3),
        {
            "physics-aware": (methods.PhysicsAware(loss=CE), fast),
            "in silico": (methods.Backprop(loss=CE), fast),
            "feedback alignment": (methods.FeedbackAlignment(loss=CE), fast),
            "direct feedback": (methods.DirectFeedbackAlignment(loss=CE), fast),
            "SPSA": (methods.SPSA(loss=CE, directions=8), fast),
            "PEPG": (methods.EvolutionStrategy(loss=CE, directions=8, adaptation=0.05), Adam(0.01)),
        },
        split,
        passes=20_000,
        batch_size=64,
    )
    found.plot(picture)
    print(f"\nhardware 0.3 off its twin:\n{found}\npicture: {picture}")


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--compare", action="store_true", help="draw accuracy against physical passes"
    )
    parser.add_argument("--picture", type=Path, default=Path("layered_digits.png"))
    arguments = parser.parse_args()
    split = pnn.data.digits()
    print(f"{'':38s} {'test accuracy':>24s} {'passes':>8s} {'seconds':>8s}")
    for case in cases():
        train(case, split, arguments.seeds)
    if arguments.compare:
        compare(split, arguments.picture)


if __name__ == "__main__":
    main()
