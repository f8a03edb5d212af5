"""A linear scattering network tells handwritten digits apart, and measures its own gradient.

    python examples/linear_scattering.py                     # two minutes: 5 epochs
    python examples/linear_scattering.py --hidden 80 --epochs 50

Modes of light are detuned by the pixels of an image, each pixel in two modes with detunings to
either side, and coupled to hidden modes and to ten others, in which the light that is reflected is
measured: its imaginary part, at the largest, is the answer (Wanjura and Marquardt, Nat. Phys. 20,
1434, 2024). The network is linear in light, and nonlinear in the pixels. Gradients are products of
elements of the scattering matrix, which the hardware measures. Digits are those of
`pnncore.data.optical_digits`, in the folder that PNNCORE_DATA names; without them the smaller set
that ships with the package. Beside it: the network that was not trained, and logistic regression.
Draws linear_scattering.png: what light does at the outputs by frequency, before and after.
"""

import argparse
import time
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods


def digits() -> tuple[Any, ...]:
    """Return the optical digits, or what ships with the package."""
    try:
        return pnn.data.optical_digits()
    except pnn.errors.DataError:
        return pnn.data.digits()


def detunings(images: Any) -> Any:
    """Return what pixels detune modes by: dark ones most, and each of them two modes."""
    return np.tile(5 * (1 - images), (1, 2))


def network(pixels: int, hidden: int, seed: int) -> pnn.systems.Stack:
    """Return the network: the two modes of a pixel lie to either side of the light."""
    sizes = [2 * pixels, hidden, 10] if hidden else [2 * pixels, 10]
    modes = layers.CoupledModes(sizes, decay=0.5, probe=8.0)
    net = pnn.systems.Stack([modes, layers.Detect("imaginary")], seed=seed)
    detuning = net.params["detuning1"]
    detuning[...] = 0.0
    detuning[:pixels], detuning[pixels : 2 * pixels] = 2.0, -2.0
    return net


def regression(x: Any, y: Any, x_test: Any, y_test: Any) -> float:
    """Return the accuracy of logistic regression on the pixels."""
    linear = pnn.systems.Stack([layers.Linear(x.shape[1], 10)], seed=0)
    method = methods.Backprop(loss="cross-entropy")
    trainer = pnn.Trainer(linear, method, pnn.optim.Adam(0.01), seed=0, progress=False)
    trainer.fit(x, y, epochs=50)
    return float(linear.score(x_test, y_test))


def spectra(net: pnn.systems.Stack, sample: Any, frequencies: Any) -> Any:
    """Return what is reflected at the outputs, by frequency."""
    modes = net.layers[0]
    assert isinstance(modes, layers.CoupledModes)
    params = {name: net.params[f"{name}1"] for name in ("detuning", "coupling")}
    return modes.scattering(params, sample[None], frequencies)[:, 0] / modes.probe


def draw(before: Any, after: Any, frequencies: Any, label: int) -> None:
    """Draw the imaginary parts of reflections by frequency; light that probes has frequency 0."""
    figure = pnn.plot.require()(figsize=(8, 5), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for own, found, title in zip(axes, (before, after), ("not trained", "trained"), strict=True):
        for k, reflected in enumerate(found.T):
            style = {"color": "#D55E00", "zorder": 3} if k == label else {"color": "0.7"}
            own.plot(frequencies, reflected.imag, **style)
        own.lines[label].set_label(f"mode of the digit {label}")
        own.lines[label - 1].set_label("others")
        own.axvline(0, color="0.4", linewidth=1, linestyle=":")
        own.set(title=title, ylabel="Im S")
    axes[0].legend(frameon=False, loc="upper right")
    axes[1].set_xlabel("frequency, in the unit of decay rates")
    figure.savefig("linear_scattering.png", dpi=150)


def main(arguments: argparse.Namespace) -> None:
    """Train, tell how well digits are told apart, and draw."""
    x, y, x_test, y_test = digits()
    shown, shown_test = detunings(x), detunings(x_test)
    accuracies, untrained = [], []
    for seed in arguments.seeds:
        net = network(x.shape[1], arguments.hidden, seed)
        untrained.append(net.score(shown_test, y_test))
        frequencies = np.linspace(-3, 3, 301)
        before = spectra(net, shown_test[0], frequencies)
        method = methods.InSituBackprop(loss="cross-entropy")
        trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.2), batch_size=200, seed=seed)
        start = time.perf_counter()
        history = trainer.fit(shown, y, epochs=arguments.epochs)
        seconds = time.perf_counter() - start
        accuracies.append(net.score(shown_test, y_test))
        reads = history["reads"].sum() / history["measured"].sum()
        print(f"seed {seed}: test {100 * accuracies[-1]:.1f} %, {seconds:.0f} s")
    spread = f" ± {100 * np.std(accuracies):.1f}" if len(accuracies) > 1 else ""
    print(f"test accuracy: {100 * np.mean(accuracies):.1f}{spread} % after the last epoch")
    print(f"not trained {100 * np.mean(untrained):.1f} %, ", end="")
    print(f"logistic regression {100 * regression(x, y, x_test, y_test):.1f} %")
    print(f"numbers read of a sample: {reads:.0f}")
    draw(before, spectra(net, shown_test[0], frequencies), frequencies, int(y_test[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=40, help="hidden modes; 0: none")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    main(parser.parse_args())
