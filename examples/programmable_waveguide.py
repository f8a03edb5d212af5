"""A programmable waveguide: light in a slab of glass tells vowels and small digits apart.

    python examples/programmable_waveguide.py           # a minute
    python examples/programmable_waveguide.py --full    # MNIST at 7 x 7 pixels, too: ten minutes

Features are amplitudes of beams that enter side by side, the map of the refractive index is what is
learned, and strips at the far end gather light: the brightest is the answer. That is the experiment
of Onodera et al. (arXiv:2402.17750; about 96 % of vowels and 86 % of MNIST at 7 x 7 pixels, in the
laboratory), in simulation, with the index within a range of 0.005. Beside it: the map that was not
learned, and linear regression. Vowels are those of `pnncore.data.vowels`, in the folder that
PNNCORE_DATA names; without them the digits of 8 x 8 pixels are averaged to 4 x 4. Draws
programmable_waveguide.png: the map and a sample's light on its way.
"""

import argparse
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods

POINTS, BEAM = 512, 10


def vowels() -> tuple[Any, ...]:
    """Return formants from 0 to 1, and a beam that is always on."""
    x, y, x_test, y_test = pnn.data.vowels()
    low, high = x.min(axis=0), x.max(axis=0)
    scaled = [np.clip((own - low) / (high - low), 0, 1) for own in (x, x_test)]
    lit = [np.c_[own, np.ones(len(own))].astype(np.float32) for own in scaled]
    return lit[0], y, lit[1], y_test


def shrunk(images: Any, side: int, by: int) -> Any:
    """Average squares of pixels."""
    return (
        images.reshape(-1, side // by, by, side // by, by)
        .mean(axis=(2, 4))
        .reshape(len(images), -1)
    )


def digits(full: bool) -> tuple[Any, ...]:
    """Return MNIST at 7 x 7 pixels, or the digits at 4 x 4."""
    x, y, x_test, y_test = pnn.data.mnist() if full else pnn.data.digits()
    side, by = (28, 4) if full else (8, 2)
    return shrunk(x, side, by), y, shrunk(x_test, side, by), y_test


def network(features: int, classes: int, seed: int) -> pnn.systems.Stack:
    """Return beams side by side in the middle of the slab, the slab, and strips at its end."""
    first = (POINTS - BEAM * features) // 2
    ports = [range(first + BEAM * k, first + BEAM * (k + 1)) for k in range(features)]
    slab = layers.Waveguide(
        POINTS,
        width=POINTS * 1e-6,
        length=10e-3,
        wavelength=1.55e-6,
        index=2.2,
        index_range=5e-3,
        steps=300,
        sections=100,
        pixels=64,
        absorber=0.05,
    )
    strips = layers.DetectorRegions(
        classes, (1, POINTS), size=(1, POINTS // (2 * classes)), gain=20.0
    )
    beams = layers.Encode(features, modes=POINTS, ports=[list(own) for own in ports])
    return pnn.systems.Stack([beams, slab, strips], seed=seed)


def learn(name: str, data: Any, epochs: int, rate: float) -> pnn.systems.Stack:
    """Train, and tell the accuracies."""
    x, y, x_test, y_test = data
    net = network(x.shape[1], int(y.max()) + 1, seed=0)
    before = net.score(x_test, y_test)
    optimizer = pnn.optim.Adam(rate)
    trainer = pnn.Trainer(net, methods.Backprop(loss="cross-entropy"), optimizer, seed=0)
    trainer.fit(x, y, epochs=epochs)
    ones = [np.c_[own, np.ones(len(own))] for own in (x, x_test)]
    weights = np.linalg.lstsq(ones[0], np.eye(int(y.max()) + 1)[y], rcond=None)[0]
    linear = (np.argmax(ones[1] @ weights, axis=1) == y_test).mean()
    print(
        f"{name}: {100 * net.score(x_test, y_test):.1f} %, not learned {100 * before:.1f} %, "
        f"regression {100 * linear:.1f} %"
    )
    return net


def main(arguments: argparse.Namespace) -> None:
    """Learn vowels, if they are there, and digits, and draw."""
    try:
        data, name, epochs = vowels(), "vowels", 80
    except pnn.errors.DataError:
        data, name, epochs = digits(full=False), "digits of 4 x 4 pixels", 20
    net = learn(name, data, arguments.epochs or epochs, rate=0.2)
    if arguments.full:
        learn("MNIST at 7 x 7 pixels", digits(full=True), arguments.epochs or 3, rate=0.2)
    light = net.fields(data[2][:1])[0]
    slab = net.layers[1]
    figure = slab.plot({"logit": net.params["logit2"]}, light[0])
    figure.savefig("programmable_waveguide.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="MNIST at 7 x 7 pixels, too")
    parser.add_argument("--epochs", type=int, help="of training")
    main(parser.parse_args())
