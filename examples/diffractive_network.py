"""A diffractive network: masks of phases in free space tell handwritten digits apart.

    python examples/diffractive_network.py              # under a minute: the 8 x 8 digits
    python examples/diffractive_network.py --full       # MNIST, five masks of 200 x 200: 20 minutes
    python examples/diffractive_network.py --full --fashion --differential

Images are amplitudes in a plane, masks behind it turn phases, and ten regions of the last plane
gather light: the brightest is the answer. `--full` is the complete protocol of five phase masks:
pixels of .53 wavelengths, planes 40 wavelengths apart, images of 100 x 100 pixels and regions of
6.4 wavelengths (two epochs here; 20 were published). `--differential` tells contrasts of two
regions. Beside it: the same without what was learned, and linear regression on the images. Draws
diffractive_network.png: the field of a digit on its way through the planes.
"""

import argparse
import time
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods


def small() -> tuple[list[layers.Layer], Any, dict[str, Any]]:
    """Return two masks of 64 x 64 pixels, the digits, and how they are trained."""
    plane, geometry = (64, 64), {"distance": 60.0, "wavelength": 1.0, "pitch": 1.0}
    ports = layers.image_ports((8, 8), plane, size=(40, 40))
    chain: list[layers.Layer] = [
        layers.Encode(64, modes=64 * 64, ports=ports),
        layers.Diffraction(plane, **geometry, mask=None),
        *[layers.Diffraction(plane, **geometry) for _ in range(2)],
        layers.DetectorRegions(10, plane, gain=20.0),
    ]
    return chain, pnn.data.digits(), {"rate": 0.1, "batch_size": 32, "epochs": 12}


def full(fashion: bool, differential: bool) -> tuple[list[layers.Layer], Any, dict[str, Any]]:
    """Return the network of the protocol, its data, and how it is trained."""
    plane, geometry = (200, 200), {"distance": 40.0, "wavelength": 1.0, "pitch": 0.53}
    ports = layers.image_ports((28, 28), plane, size=(100, 100))
    chain: list[layers.Layer] = [
        layers.Encode(784, modes=200 * 200, ports=ports),
        layers.Diffraction(plane, **geometry, mask=None),
        *[layers.Diffraction(plane, **geometry) for _ in range(5)],
        layers.DetectorRegions(10, plane, size=12, differential=differential, gain=20.0),
    ]
    data = pnn.data.fashion_mnist() if fashion else pnn.data.mnist()
    return chain, data, {"rate": 0.01, "batch_size": 32, "epochs": 2}


def regression(x: Any, y: Any, x_test: Any, y_test: Any) -> float:
    """Return the accuracy of linear regression on the images."""
    ones = [np.c_[own, np.ones(len(own))] for own in (x, x_test)]
    weights = np.linalg.lstsq(ones[0].T @ ones[0], ones[0].T @ np.eye(10)[y], rcond=None)[0]
    return float((np.argmax(ones[1] @ weights, axis=1) == y_test).mean())


def main(arguments: argparse.Namespace) -> None:
    """Train, tell how well digits are told apart, and draw."""
    is_full = arguments.full
    chain, data, how = full(arguments.fashion, arguments.differential) if is_full else small()
    x, y, x_test, y_test = data
    net = pnn.systems.Stack(chain, seed=0)
    before = net.score(x_test[:1000], y_test[:1000])
    method = methods.Backprop(loss="cross-entropy")
    optimizer = pnn.optim.Adam(how["rate"])
    trainer = pnn.Trainer(net, method, optimizer, batch_size=how["batch_size"], seed=0)
    start, epochs = time.perf_counter(), arguments.epochs or how["epochs"]
    for epoch in range(epochs):
        trainer.fit(x, y, epochs=1)
        if is_full or epoch + 1 == epochs:
            minutes = (time.perf_counter() - start) / 60
            accuracy = 100 * net.score(x_test, y_test)
            print(f"epoch {epoch + 1}: test {accuracy:.1f} %, {minutes:.1f} minutes", flush=True)
    print(f"random masks {100 * before:.1f} %, regression {100 * regression(*data):.1f} %")
    net.plot_planes(x_test[0]).savefig("diffractive_network.png", dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the complete protocol, on MNIST")
    parser.add_argument("--fashion", action="store_true", help="Fashion-MNIST in its place")
    parser.add_argument("--differential", action="store_true", help="two regions to a class")
    parser.add_argument("--epochs", type=int, help="12, or 2 of the complete protocol")
    main(parser.parse_args())
