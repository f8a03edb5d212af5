"""A laboratory instrument in the middle of a network.

Examined, journalled, given a twin, and trained.

    python examples/instrument.py                      # about a minute; writes instrument.png
    # stop it with Ctrl-C, and start it again: no shot is made twice
    python examples/instrument.py --journal shots.pnj

The instrument is light through a scattering medium, behind a plain Python function that nobody can
differentiate: 16 amplitudes in, 16 intensities out, 16 phases to set, with noise. Its twin is
learned from random shots. Linear maps stand before and after it; 450 test digits. Control: the
readout alone learns.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pnncore as pnn
from pnncore.layers import Linear, Normalize, Tanh
from pnncore.optim import Adam, CosineDecay
from pnncore.systems import Instrument, Stack

N = 16
MEDIUM = np.random.default_rng(1).normal(size=(2, N, N)) / np.sqrt(2 * N)
NOISE = np.random.default_rng(2)


def laboratory(x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    """Return intensities behind the medium."""
    field = (x * np.exp(1j * params["phase"]) + 1.0) @ (MEDIUM[0] + 1j * MEDIUM[1])
    return np.abs(field) ** 2 + 0.01 * NOISE.normal(size=field.shape)


def connect(journal: Path) -> Instrument:
    """Return the instrument."""
    return Instrument(
        laboratory,
        N,
        N,
        params={"phase": np.zeros(N)},
        device=pnn.devices.Device(lower=-np.pi, upper=np.pi, levels=1024),
        dtype="float32",
        seed=0,
        timeout=5.0,
        idempotent=True,
        retries=3,
        journal=journal,
    )


def network(instrument: Instrument, seed: int) -> Stack:
    """Return maps to and from the instrument."""
    return Stack([Linear(64, N), Tanh(), instrument, Normalize(), Linear(N, 10)], seed=seed)


def main() -> None:
    """Examine, fit, train, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--picture", type=Path, default=Path("instrument.png"))
    arguments = parser.parse_args()
    x, y, x_test, y_test = pnn.data.digits()
    with (
        tempfile.TemporaryDirectory() as folder,
        connect(arguments.journal or Path(folder) / "shots.pnj") as instrument,
    ):
        if len(pnn.journal.read(instrument.driver.path)):
            instrument.rewind()
        random = np.random.default_rng(0)
        inputs = lambda n: random.uniform(-1, 1, (n, N)).astype(np.float32)  # noqa: E731 - drawn in several places
        found = instrument.check(inputs(64))
        hours = pnn.costs.hours(
            instrument,
            [pnn.methods.SPSA()],
            seconds=found.seconds,
            samples=1347,
            epochs=arguments.epochs,
        )
        print(found, f"SPSA: {hours['SPSA']:.3g} hours", sep="\n")
        for _ in range(1500):
            instrument.params["phase"][...] = random.normal(0, 0.3, N)
            instrument.predict(inputs(8))
        instrument.params["phase"][...] = 0
        instrument.twin = pnn.twins.fit(instrument, hidden=(128, 128), epochs=150, progress=None)
        print(f"twin: {instrument.twin.quality}")
        ce = "cross-entropy"
        only = {"W5": 3e-3, "b5": 3e-3}
        cases = [
            ("readout alone", pnn.methods.PhysicsAware(loss=ce), only),
            ("SPSA", pnn.methods.SPSA(loss=ce, directions=4), 3e-3),
            ("local learning, no twin", pnn.methods.PhysicalLocalLearning(loss=ce, tau=10.0), 3e-3),
            ("physics-aware, learned twin", pnn.methods.PhysicsAware(loss=ce), 3e-3),
        ]
        watch = pnn.twins.TwinMonitor(x[:128], y[:128], every=4, step=0.05, directions=32)
        for name, method, rate in cases:
            net = network(instrument, seed=0)
            rates = (
                rate if isinstance(rate, float) else {key: rate.get(key, 0.0) for key in net.params}
            )
            optimizer = Adam(rates, schedule=CosineDecay(arguments.epochs))
            callbacks = [watch] if "twin" in name and "no" not in name else []
            trainer = pnn.Trainer(
                net, method, optimizer, batch_size=32, seed=0, callbacks=callbacks
            )
            history = trainer.fit(x, y, epochs=arguments.epochs)
            score = 100 * net.score(x_test, y_test)
            print(f"{name:28} {score:6.2f} %  {int(history['passes'].sum()):6} shots", flush=True)
        print(
            f"cosine to the hardware's gradient: {', '.join(f'{c:.2f}' for _, c in watch.cosines)}"
        )
        print(
            {
                key: count
                for key, count in instrument.counts.items()
                if key in ("results", "replayed", "retries")
            }
        )
        draw(instrument, inputs(200), watch, arguments.picture)


def draw(instrument: Instrument, x: np.ndarray, watch: pnn.twins.TwinMonitor, path: Path) -> None:
    """Show the twin beside the instrument, and what its gradients were worth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert instrument.twin is not None
    left.plot(
        instrument.predict(x).ravel(),
        instrument.twin.forward(x, instrument.params).ravel(),
        ".",
        ms=2,
    )
    left.axline((0, 0), slope=1, color="0.6", lw=1, zorder=0)
    left.set(
        xlabel="measured intensity",
        ylabel="intensity of the learned twin",
        title=str(instrument.twin.quality),
    )
    left.title.set_fontsize(9)
    right.plot(*zip(*watch.cosines, strict=True), "o-")
    right.set(
        xlabel="epoch",
        ylabel="cosine to measured slopes",
        ylim=(0, 1.02),
        title="physics-aware training",
    )
    right.title.set_fontsize(9)
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
