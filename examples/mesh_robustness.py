"""Three meshes of 64 ports, whose couplers and phases are off: what training on the chip is worth.

    python examples/mesh_robustness.py                       # MNIST: three minutes
    python examples/mesh_robustness.py --fashion --seeds 0 1 2

The scenario of dual adaptive training (Zheng et al., Nat. Mach. Intell. 5, 1119, 2023): images
enter as the complex amplitudes of their 64 lowest spatial frequencies, and pass three meshes of 64
modes, with detectors between them; couplers and phases are off by 0.04 rad. Told are the test
accuracies of a chip without errors, of one with errors that gets what was learned without them, and
of chips with errors that learn physics-aware, and in situ from what their monitors read; beside
them linear regression on the same amplitudes.
"""

import argparse
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods

PORTS, SIDE, ERROR = 64, 28, 0.04


def amplitudes(images: Any) -> Any:
    """Return the 64 lowest spatial frequencies, complex, of mean square one."""
    spectrum = np.fft.fftshift(np.fft.fft2(images.reshape(-1, SIDE, SIDE)), axes=(1, 2))
    low = spectrum[:, SIDE // 2 - 4 : SIDE // 2 + 4, SIDE // 2 - 4 : SIDE // 2 + 4]
    found = low.reshape(len(images), PORTS)
    size = np.sqrt((np.abs(found) ** 2).mean(axis=1, keepdims=True))
    return (found / size).astype(np.complex64)


def chip(error: float, seed: int) -> pnn.systems.Stack:
    """Return three meshes, with detectors behind each."""
    chain: list[layers.Layer] = []
    for _ in range(3):
        mesh = layers.MZIMesh(PORTS, coupler_error=error, phase_error=error)
        chain += [mesh, layers.Detect(), layers.Normalize(), layers.Encode(PORTS)]
    return pnn.systems.Stack(chain[:-2], seed=seed)


def learn(net: pnn.systems.Stack, method: Any, data: Any, epochs: int, seed: int) -> float:
    """Train, and return the accuracy in percent."""
    x, y, x_test, y_test = data
    optimizer = pnn.optim.Adam(0.01)
    trainer = pnn.Trainer(net, method, optimizer, batch_size=64, seed=seed, progress=False)
    trainer.fit(x, y, epochs=epochs)
    return 100 * float(net.score(x_test, y_test))


def run(data: Any, epochs: int, seed: int) -> list[float]:
    """Return the four accuracies."""
    loss: dict[str, Any] = {"loss": "cross-entropy"}
    ideal = chip(0.0, seed)
    found = [learn(ideal, methods.Backprop(**loss), data, epochs, seed)]
    deployed = chip(ERROR, seed)
    for name, values in ideal.params.items():
        deployed.params[name] = values
    found.append(100 * float(deployed.score(data[2], data[3])))
    for method in (methods.PhysicsAware(**loss), methods.InSituBackprop(**loss)):
        found.append(learn(chip(ERROR, seed), method, data, epochs, seed))
    return found


def main() -> None:
    """Train chips, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--fashion", action="store_true", help="Fashion-MNIST in the place of MNIST"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    x, y, x_test, y_test = pnn.data.fashion_mnist() if arguments.fashion else pnn.data.mnist()
    data = amplitudes(x), y, amplitudes(x_test), y_test
    found = np.array([run(data, arguments.epochs, seed) for seed in arguments.seeds])
    names = ("without errors", "the same on a chip with errors", "physics-aware", "in situ")
    for name, own in zip(names, found.T, strict=True):
        print(f"{name}: {own.mean():.1f} ± {own.std():.1f} %")
    ones = [np.c_[own.real, own.imag, np.ones(len(own))] for own in (data[0], data[2])]
    weights = np.linalg.lstsq(ones[0], np.eye(10)[y], rcond=None)[0]
    linear = (np.argmax(ones[1] @ weights, axis=1) == y_test).mean()
    print(f"regression: {100 * linear:.1f} %")


if __name__ == "__main__":
    main()
