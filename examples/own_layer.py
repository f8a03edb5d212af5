"""Train an optical layer of one's own.

Light through a phase mask and a scatterer, seen by a camera.

python examples/own_layer.py
"""

import argparse

import numpy as np
import pnncore as pnn

argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
).parse_args()
rng = np.random.default_rng(0)
SCATTERER = (rng.normal(size=(64, 30)) + 1j * rng.normal(size=(64, 30))) / np.sqrt(2 * 64)


def forward(x, params):
    """Return the intensities behind the scatterer."""
    return np.abs((x * np.exp(1j * params["phase"])) @ SCATTERER) ** 2


def vjp(x, params, dy):
    """Send errors back through the intensities, the scatterer and the mask."""
    mask = np.exp(1j * params["phase"])
    back = (2 * dy * ((x * mask) @ SCATTERER).conj()) @ SCATTERER.T * mask
    return back.real, {"phase": (1j * back * x).real.sum(axis=0)}


camera = pnn.layers.Custom(64, 30, forward, vjp, params={"phase": np.zeros(64)})
print(*pnn.testing.check_layer(camera), sep="\n")
x, y, x_test, y_test = pnn.data.digits()
net = pnn.systems.Stack([camera, pnn.layers.Normalize(), pnn.layers.Linear(30, 10)], seed=0)
trainer = pnn.Trainer(net, pnn.methods.Backprop(loss="cross-entropy"), pnn.optim.Adam(0.02), seed=0)
trainer.fit(x, y, epochs=20)
print(f"test accuracy {100 * net.score(x_test, y_test):.1f} %")
