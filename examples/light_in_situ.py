"""Train three optical chips in situ on rings and moons, and show what spoils the gradient.

Points of a plane go as amplitudes into a mesh of four modes, beside a reference that keeps the
power the same; intensities behind it are the amplitudes that go into the next mesh, and behind the
third one two detectors vote (after Pai et al., Science 380, 398, 2023, who reach 94 % and more).
Every mesh has couplers that are off by 2 %, and 0.05 dB of loss at each. Printed are test
accuracies over seeds beside a linear control and a chip that is not trained; then how well the
gradient that light measures points along that of the lossy hardware, by size and loss.

    python examples/light_in_situ.py                    # and light_in_situ.png
    python examples/light_in_situ.py --seeds 0 --epochs 5
"""

import argparse
import statistics
from typing import Any

import numpy as np
import numpy.typing as npt
import pnncore as pnn
from pnncore import layers, methods, systems

Array = npt.NDArray[np.float64]
PROTOCOLS = ("difference", "three-intensity")
LOSSES = (0.01, 0.05, 0.2)
TAP_NOISE = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
PHASE_ERRORS = (0.01, 0.03, 0.1, 0.3, 1.0)


def points(kind: str, count: int, seed: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return points of a plane, and which of two shapes they belong to."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    angle = rng.uniform(0, 2 * np.pi if kind == "rings" else np.pi, count)
    if kind == "rings":
        radius = np.where(label == 0, 1.0, 0.45)
        plane = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    else:
        upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
        plane = np.where(label[:, None] == 0, upper, -upper)
    return plane + 0.08 * rng.normal(size=(count, 2)), label


def amplitudes(plane: Array) -> Array:
    """Return amplitudes of four modes: a point, and twice what is left of a power of 10."""
    scaled = 1.4 * plane
    left = np.sqrt(np.maximum(10.0 - (scaled**2).sum(axis=1), 0.0) / 2)
    return np.concatenate([scaled, left[:, None], left[:, None]], axis=1)


def chips(seed: int) -> systems.Stack:
    """Return three meshes with detectors behind each."""
    chain: list[layers.Layer] = []
    for _ in range(3):
        mesh = layers.MZIMesh(4, loss=0.05, mismatch=0.02, tap_noise=0.003)
        chain += [layers.Encode(4), mesh, layers.Detect(photons=1e4)]
    return systems.Stack(chain, seed=seed)


def linear_control(kind: str, seed: int) -> float:
    """Return the test accuracy of least squares on the same amplitudes."""
    rows = [amplitudes(points(kind, 1000, 2 * seed + k)[0]) for k in (0, 1)]
    train, test = (np.concatenate([x, np.ones((len(x), 1))], axis=1) for x in rows)
    label = np.arange(1000) % 2
    weights = np.linalg.lstsq(train, np.eye(2)[label], rcond=None)[0]
    return float(np.mean((test @ weights).argmax(axis=1) == label))


def train(kind: str, epochs: int, seed: int) -> tuple[float, float]:
    """Return the test accuracy of fresh chips, and after training in situ."""
    (plane, label), (held, wanted) = (points(kind, 1000, 2 * seed + k) for k in (0, 1))
    net = chips(seed)
    before = net.score(amplitudes(held), wanted)
    method = methods.InSituBackprop(loss="cross-entropy")
    trainer = pnn.Trainer(net, method, pnn.optim.Adam(0.02), batch_size=20, seed=seed)
    trainer.fit(amplitudes(plane), label, epochs=epochs)
    return before, net.score(amplitudes(held), wanted)


def gradient(net: systems.Stack, x: Any, y: Array, method: methods.Method) -> Array:
    """Return the gradient by all parameters, as one vector."""
    return np.concatenate([own.ravel() for own in method.gradient(net, x, y).values()])


def cosine(n: int, seed: int, method: methods.Method, **hardware: float) -> float:
    """Return how well a gradient points along that of the hardware: random phases and data."""
    rng = np.random.default_rng(seed)
    net = systems.Stack(
        [layers.MZIMesh(n, **hardware), layers.Detect()], dtype="float64", seed=seed
    )
    x = rng.normal(size=(64, n)) + 1j * rng.normal(size=(64, n))
    y = rng.uniform(0, 2, size=(64, n))
    exact = gradient(net, x, y, methods.Backprop(model="hardware"))
    found = gradient(net, x, y, method)
    return float(exact @ found / (np.linalg.norm(exact) * np.linalg.norm(found)))


def mean_cosine(n: int, method: methods.Method, **hardware: float) -> float:
    """Return the mean of `cosine` over some chips."""
    return statistics.mean(cosine(n, seed, method, **hardware) for seed in range(96 // n + 1))


def draw(curves: dict[tuple[int, str], list[float]], path: str) -> None:
    """Draw what loss, noise of monitors and unknown phases do to gradients."""
    from matplotlib import pyplot as plt

    figure, (by_loss, by_noise, by_phase) = plt.subplots(1, 3, figsize=(14, 4.8), sharey=True)
    for (n, protocol), values in curves.items():
        style = "-" if protocol == "difference" else "--"
        by_loss.semilogx(LOSSES, values, f"o{style}", label=f"{n} modes, {protocol}")
    by_loss.set(xlabel="loss of a coupler, dB", ylabel="cosine to the gradient of the hardware")
    for n in (6, 16):
        values = [mean_cosine(n, methods.InSituBackprop(), tap_noise=own) for own in TAP_NOISE]
        by_noise.semilogx(TAP_NOISE, values, "o-", label=f"{n} modes, difference")
    by_noise.set(xlabel="noise of a monitor, mean powers of a mode")
    for method, name in (
        (methods.InSituBackprop(), "in situ"),
        (methods.PhysicsAware(), "physics-aware, by the twin"),
    ):
        values = [mean_cosine(16, method, phase_error=own) for own in PHASE_ERRORS]
        by_phase.semilogx(PHASE_ERRORS, values, "o-", label=f"16 modes, {name}")
    by_phase.set(xlabel="unknown error of a phase, rad")
    for axes in (by_loss, by_noise, by_phase):
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
        axes.grid(alpha=0.3)
    figure.suptitle("Gradients that light measures: what loss, noise and unknown phases do")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train, and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--picture", default="light_in_situ.png")
    arguments = parser.parse_args()
    for kind in ("rings", "moons"):
        found = [train(kind, arguments.epochs, seed) for seed in arguments.seeds]
        control = statistics.mean(linear_control(kind, seed) for seed in arguments.seeds)
        before, after = ([100 * own for own in column] for column in zip(*found, strict=True))
        spread = statistics.stdev(after) if len(after) > 1 else 0.0
        print(
            f"{kind}, in situ: {statistics.mean(after):.1f} ± {spread:.1f} % (untrained "
            f"{statistics.mean(before):.1f}, linear {100 * control:.1f})"
        )
    curves: dict[tuple[int, str], list[float]] = {}
    for n in (6, 16, 64):
        for protocol in PROTOCOLS:
            method = methods.InSituBackprop(protocol=protocol)  # type: ignore[arg-type]
            values = [mean_cosine(n, method, loss=loss) for loss in LOSSES]
            curves[n, protocol] = values
            told = ", ".join(
                f"{value:.4f} at {loss} dB" for value, loss in zip(values, LOSSES, strict=True)
            )
            print(f"{n} modes, {protocol}: {told}")
    draw(curves, arguments.picture)
    print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
