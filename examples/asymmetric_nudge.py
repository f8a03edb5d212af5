"""Equilibrium propagation with nudges of unequal strength, a method of one's own.

    python examples/asymmetric_nudge.py

Three phases, free, pulled and pushed, and weights for which errors of first order in both strengths
cancel: for bounded units that are pushed out of their range sooner than pulled. Equal strengths are
centered equilibrium propagation (Laborieux et al., Front. Neurosci. 15, 633674, 2021).
"""

import argparse
from dataclasses import dataclass

import pnncore as pnn


@dataclass(frozen=True, kw_only=True)
class AsymmetricNudge(pnn.methods.SettlingMethod):
    """dL/dθ from dE/dθ in the free phase, at +pull and at -push."""

    needs = ("local-rule",)
    pull: float = 0.3
    push: float = 0.1

    def step(self, experiment):
        """Return the derivative, at no nudge, of the parabola through dE/dθ of the three phases."""
        a, b = self.pull, self.push
        settled = experiment.settle(("nudged", a), ("nudged", -b))
        return settled.read([(a - b) / (a * b), b / (a * (a + b)), -a / (b * (a + b))])


def main():
    """Compare it with the exact gradient, and train."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    x, y, x_test, y_test = pnn.data.digits()
    net = pnn.systems.Hopfield([64, 64, 10], activation="tanh", seed=0)
    print(pnn.audit(net, AsymmetricNudge(), x[:100], y[:100]))
    pnn.Trainer(net, AsymmetricNudge(), pnn.optim.SGD(0.1), batch_size=32, seed=0).fit(
        x, y, epochs=5
    )
    print(f"test accuracy {net.score(x_test, y_test):.1%}")


if __name__ == "__main__":
    main()
