"""Node perturbation, a method of one's own: noise on the units tells what they should have done.

    python examples/node_perturbation.py

Every linear map is measured twice, the second time with a little noise on its outputs; where the
loss fell, the noise was right (Widrow and Lehr, Proc. IEEE 78, 1415, 1990).
`pnncore.testing.check_method` examines the method.
"""

import argparse
from dataclasses import dataclass

import pnncore as pnn
from pnncore.layers import Linear, Tanh


@dataclass(frozen=True, kw_only=True)
class NodePerturbation(pnn.methods.Method):
    """dL/dz is the change of the loss times the noise on z, over its variance."""

    needs = ("layers",)
    sigma: float = 1e-3

    def step(self, experiment):
        """Return the gradient of every linear map.

        Its inputs times what the noise on its outputs tells.
        """
        before, signals = experiment.losses(experiment.measure()), experiment.signals()
        noise = [
            self.sigma * experiment.random.normal(size=z.shape)
            if isinstance(layer, Linear)
            else None
            for layer, z in zip(experiment.system.layers, signals, strict=True)
        ]
        told = (
            (experiment.losses(experiment.measure(noise=noise)) - before)
            / self.sigma**2
            / len(before)
        )
        gradient = {}
        for place, (own, x) in enumerate(
            zip(noise, [experiment.x, *signals[:-1]], strict=True), start=1
        ):
            if own is not None:
                errors = told[:, None] * own
                gradient |= {f"W{place}": x.T @ errors, f"b{place}": errors.sum(axis=0)}
        return gradient


def main():
    """Train a small network on the digits."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    x, y, x_test, y_test = pnn.data.digits()
    net = pnn.systems.Stack([Linear(64, 20), Tanh(), Linear(20, 10)], seed=0)
    trainer = pnn.Trainer(
        net, NodePerturbation(loss="cross-entropy"), pnn.optim.Adam(3e-3), batch_size=32, seed=0
    )
    trainer.fit(x, y, epochs=40)
    print(
        f"test accuracy {net.score(x_test, y_test):.1%}; passes "
        f"{trainer.history['passes'].sum():.0f}"
    )


if __name__ == "__main__":
    main()
