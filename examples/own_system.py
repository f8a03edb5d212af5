"""A system of one's own: a sheet of springs that learns how to answer a push.

Sixteen beads sit on a triangular lattice with a little disorder, and neighbours are joined by
springs. The bottom row is glued down. The experimenter pushes two beads of the top row down (the
inputs); the other two beads of that row are the outputs. Each is to go down with its neighbour on
the left, and to rise when the other one is pushed, which the sheet does not do by itself. What it
learns is the stiffness of its springs, by equilibrium propagation: each spring compares its own
stretch with and without a small force on the outputs.

    python examples/own_system.py
    python examples/own_system.py --method implicit-differentiation
    # with two outputs not the gradient: it fails
    python examples/own_system.py --method coupled-learning

The task is a small case of "allostery" in elastic networks (Rocks et al., PNAS 114, 2520 (2017)).
"""

import argparse

import numpy as np
import numpy.typing as npt
import pnncore as pnn

Array = npt.NDArray[np.float64]
Params = dict[str, Array]

SIDE = 4
PUSH = 0.3  # how far the experimenter pushes, in lattice constants


class SpringSheet(pnn.systems.EnergySystem):
    """Springs in the plane: E = sum over springs of 1/2 k (l - l0)², with k = exp(theta) > 0.

    The states are the displacements of the beads that are free to move; the outputs are the heights
    of two of them. The energy is not quadratic: springs turn as beads move.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
        self.rest = np.stack([columns + 0.5 * (rows % 2), rows * np.sqrt(0.75)], axis=1)
        apart = np.linalg.norm(self.rest[:, None] - self.rest[None], axis=2)
        a, b = np.nonzero(np.triu(apart < 1.1, 1))
        self.ends = (
            np.eye(len(apart))[a] - np.eye(len(apart))[b]
        )  # (springs, beads): 1 and -1 at the ends
        self.rest += rng.uniform(-0.1, 0.1, self.rest.shape)
        self.length = np.linalg.norm(self.ends @ self.rest, axis=1)

        # Coordinates 2i and 2i + 1 are x and y of bead i.
        top = np.arange(SIDE * (SIDE - 1), SIDE * SIDE)
        self.pushed = 2 * top[[0, 2]] + 1
        outputs = 2 * top[[1, 3]] + 1
        held = np.concatenate([np.arange(2 * SIDE), 2 * top[[0, 2]], self.pushed])
        others = np.setdiff1d(np.arange(2 * SIDE * SIDE), np.concatenate([held, outputs]))
        self.free = np.concatenate([others, outputs])
        super().__init__(
            n_in=len(self.pushed),
            n_states=len(self.free),
            n_out=len(outputs),
            params={"log_stiffness": np.zeros(len(a))},
        )

    def springs(self, x: Array, s: Array) -> tuple[Array, Array]:
        """Return the stretch (rows, springs) of springs, and directions (rows, springs, 2)."""
        moved = np.zeros((len(s), 2 * SIDE * SIDE))
        moved[:, self.free] = s
        moved[:, self.pushed] = -PUSH * x
        place = self.rest + moved.reshape(len(s), -1, 2)
        spring = self.ends @ place
        length = np.linalg.norm(spring, axis=2)
        return length - self.length, spring / length[:, :, None]

    def energy(self, params: Params, x: Array, s: Array) -> Array:
        """Return the elastic energy of every row."""
        stretch, _ = self.springs(x, s)
        return 0.5 * stretch**2 @ np.exp(params["log_stiffness"])

    def state_gradient(self, params: Params, x: Array, s: Array) -> Array:
        """Return minus the force on every free coordinate."""
        stretch, direction = self.springs(x, s)
        pull = (stretch * np.exp(params["log_stiffness"]))[:, :, None] * direction
        return (self.ends.T @ pull).reshape(len(s), -1)[:, self.free]

    def param_gradient(self, params: Params, x: Array, s: Array, weights: Array) -> Params:
        """Return the weighted sum of dE/dtheta = k/2 (l - l0)².

        Each spring needs its own stretch only.
        """
        stretch, _ = self.springs(x, s)
        return {"log_stiffness": 0.5 * np.exp(params["log_stiffness"]) * (weights @ stretch**2)}


METHODS = {
    "equilibrium-propagation": pnn.methods.EquilibriumPropagation(beta=0.2),
    "coupled-learning": pnn.methods.CoupledLearning(eta=0.2),
    "implicit-differentiation": pnn.methods.ImplicitDifferentiation(),
}


def task(samples: int, seed: int) -> tuple[Array, Array]:
    """Return pushes in [0, 1], and the heights that the outputs should take."""
    x = np.random.default_rng(seed).uniform(0, 1, (samples, 2))
    return x, PUSH * x @ np.array([[-0.4, 0.1], [0.1, -0.4]])


def main() -> None:
    """Check the system, train it, and print what it learned."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--method", choices=METHODS, default="equilibrium-propagation")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of 64 samples (default: 50)")
    parser.add_argument(
        "--learning-rate", type=float, default=0.05, help="learning rate of Adam (default: 0.05)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    arguments = parser.parse_args()

    sheet = SpringSheet(arguments.seed)
    print(f"{sheet!r}\n")
    print("check_system: what the class says, against finite differences")
    for finding in pnn.testing.check_system(sheet):
        print(f"  {finding}")

    x, y = task(64, arguments.seed)
    x_test, y_test = task(64, arguments.seed + 1)
    method = METHODS[arguments.method]

    def report(when: str) -> None:
        cosine = pnn.audit(sheet, method, x[:8], y[:8]).cosine
        print(f"  {when:16} {sheet.score(x_test, y_test):8.3f} {cosine:17.4f}")

    print(
        f"\n{arguments.method}, on 64 pushes that were not trained on (R²: 0 is the best constant)"
    )
    print(f"  {'':16} {'R²':>8} {'cosine to exact':>17}")
    report("before training")
    trainer = pnn.Trainer(
        sheet, method, pnn.optim.Adam(arguments.learning_rate), batch_size=16, seed=arguments.seed
    )
    history = trainer.fit(x, y, epochs=arguments.epochs)
    report("after training")

    stiffness = np.exp(sheet.params["log_stiffness"])
    rows = int(sum(history[key].sum() for key in ("unconverged", "diverged", "unbounded")))
    print(
        f"\nstiffness of the springs: 1 before, {stiffness.min():.2f} to {stiffness.max():.2f} "
        "after"
    )
    print(f"{history['seconds'].sum():.1f} s; {rows} settlings without a steady state")


if __name__ == "__main__":
    main()
