"""Physical local learning on a layer of sound that was measured in a laboratory.

    python examples/acoustic_local_learning.py       # half a minute

A twin is fitted to 8000 inputs and outputs of an acoustic layer, and judged on samples that it has
not seen, beside a linear model: the layer is nearly linear. It then serves as the physics of a
network as it was published (Momeni et al., Science 382, 1297, 2023): vowels of 48 speakers are told
apart by two layers, h = W [physics(x), x]. Each learns by itself that the magnitudes of its outputs
point along a fixed direction if the label among the inputs is the true one. Beside it: logistic
regression on the same formants. The data are those of `pnncore.data.acoustic` and
`pnncore.data.vowels`, in the folder that PNNCORE_DATA names. Draws acoustic.png.
"""

import argparse
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods, twins

CLASSES = 7


def fit_twin() -> tuple[Any, tuple[Any, ...]]:
    """Fit a twin to the measurements; also return what models tell, and what was held out."""
    x, y, x_test, y_test = pnn.data.acoustic()
    twin = twins.fit({"x": x, "y": y}, hidden=(64, 64), epochs=200, seed=0)
    linear = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    told = {"twin": twin.forward(x_test, {}), "linear": np.c_[x_test, np.ones(800)] @ linear}
    for name, outputs in told.items():
        off = np.sqrt(((outputs - y_test) ** 2).mean())
        own = np.sqrt(y_test.var(axis=0).mean())
        print(f"{name}: off by {off:.4f} (root mean square), of outputs that deviate by {own:.3f}")
    return twin, (told, y_test)


def physics(twin: Any) -> layers.Layer:
    """Return the measured layer: 20 amplitudes in [0, 1] go in, and are passed beside it, too."""

    def inside(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    def forward(x: Any, _: Any) -> Any:
        return np.concatenate([twin.forward(inside(x), {}), x], axis=1)

    def vjp(x: Any, _: Any, dy: Any) -> tuple[Any, dict[str, Any]]:
        sent = inside(x)
        back, _ = twin.vjp(sent, {}, dy[:, :20])
        return back * sent * (1 - sent) + dy[:, 20:], {}

    return layers.Custom(20, 40, forward, vjp=vjp)


def vowels() -> tuple[Any, ...]:
    """Return formants of mean zero and deviation one, with places for a constant and the label."""
    x, y, x_test, y_test = pnn.data.vowels()
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    with_labels = [
        np.concatenate(
            [(own - mean) / deviation, np.ones((len(own), 1)), np.zeros((len(own), 7))], 1
        )
        for own in (x, x_test)
    ]
    return with_labels[0].astype(np.float32), y, with_labels[1].astype(np.float32), y_test


def learn(twin: Any, seed: int) -> float:
    """Return the accuracy of a network on speakers' vowels that it was not trained on."""
    x, y, x_test, y_test = vowels()
    net = pnn.systems.Stack(
        [
            physics(twin),
            layers.Linear(40, 20),
            layers.Normalize(),
            physics(twin),
            layers.Linear(40, 20),
        ],
        seed=seed,
    )
    method = methods.ForwardForward(classes=CLASSES, goodness="cosine")
    optimizer = pnn.optim.Adam(5e-3)
    trainer = pnn.Trainer(net, method, optimizer, batch_size=32, seed=seed, progress=False)
    trainer.fit(x, y, epochs=150)
    return float(method.score(net, x_test, y_test))


def regression() -> float:
    """Return the accuracy of logistic regression on the formants alone."""
    x, y, x_test, y_test = vowels()
    net = pnn.systems.Stack([layers.Linear(13, CLASSES)], seed=0)
    method = methods.Backprop(loss="cross-entropy")
    trainer = pnn.Trainer(net, method, pnn.optim.Adam(0.01), batch_size=32, seed=0, progress=False)
    trainer.fit(x[:, :13], y, epochs=300)
    return float(net.score(x_test[:, :13], y_test))


def draw(told: dict[str, Any], measured: Any) -> None:
    """Draw what twin and linear model tell against what was measured."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True, layout="constrained")
    for axis, (name, outputs) in zip(axes, told.items(), strict=True):
        axis.plot(measured.ravel()[::5], (outputs - measured).ravel()[::5], ".", ms=2, alpha=0.3)
        axis.set(title=f"{name} model" if name == "linear" else name, xlabel="measured output")
    axes[0].set_ylabel("model - measured")
    figure.savefig("acoustic.png", dpi=150)


def main(seeds: list[int]) -> None:
    """Fit the twin, train on it, and draw."""
    twin, (told, measured) = fit_twin()
    found = [learn(twin, seed) for seed in seeds]
    print(f"physical local learning: {100 * np.mean(found):.1f} ± {100 * np.std(found):.1f} %")
    print(f"logistic regression: {100 * regression():.1f} %")
    draw(told, measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of networks")
    main(parser.parse_args().seeds)
