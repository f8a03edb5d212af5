"""Crossbars: reads, pulsed updates, wires, and epochs of MNIST, beside published tools.

    python benches/crossbar.py

A read of 256 samples through a 1024 x 1024 array is 268 million multiply-adds, with 2.6 million
roundings and normals. A pulsed update of a 512 x 512 array with 32 samples counts the coincidences
of 8.4 million pairs of trains. A solve of the nodes of a 256 x 256 array takes five iterations of
some 25 operations and eleven numbers moved for each of 65,536 nodes.

badcrossbar and aihwkit are run beside where they are installed (see `crossbar_peers`). Where they
are not, and for CrossSim 3.2, figures are those measured on one core (reads: two) of a machine of
the same kind (sgemm about 100 GFLOP/s per core), each at its best settings, with aihwkit 1.2.
"""

import itertools

import crossbar_peers
import numpy as np
import pnncore as pnn
from crossbar_peers import milliseconds
from pnncore import devices
from pnncore.analog import solve
from pnncore.layers import AnalogIO, Crossbar, Logistic

RNG = np.random.default_rng(0)


def peer(measured: float | None, known: float) -> tuple[float, str]:
    """Return what a peer takes: as measured in this run, or else as known."""
    return (known, "known") if measured is None else (measured, "in this run")


def updates() -> None:
    """Pulsed updates: a step of training with cells, less one without."""
    x, y = (
        RNG.uniform(-1, 1, size=(32, 512)).astype(np.float32),
        RNG.uniform(-1, 1, size=(32, 512)).astype(np.float32),
    )

    def step(slots: int | None, at_once: bool = True) -> float:
        trains = devices.PulseTrains(
            slots=slots or 1, manage_length=False, balance=False, at_once=at_once
        )
        device = None if slots is None else devices.ConstantStep()
        layer = Crossbar(512, 512, bias=False, io=AnalogIO.ideal(), device=device, trains=trains)
        net = pnn.systems.Stack([layer], seed=0)
        rate = 0.001 * 32 * (slots or 1)
        trainer = pnn.Trainer(
            net,
            pnn.methods.PhysicsAware(),
            pnn.optim.SGD(rate),
            batch_size=32,
            seed=0,
            threads=1,
            progress=False,
        )
        return milliseconds(lambda: trainer.fit(x, y, epochs=1), 20)

    bare = step(None)
    for slots, known in ((1, 17.9), (31, 1151.0)):
        took = step(slots) - bare
        theirs, how = peer(crossbar_peers.update(x, y, slots), known)
        case = f"update 512 x 512, 32 samples, {slots:2} slots, one thread"
        print(f"{case}: {took:6.1f} ms; aihwkit {theirs:.1f} ({how}): {theirs / took:.1f}x")
    print(f"   the same, 31 slots, pulse by pulse: {step(31, at_once=False) - bare:6.1f} ms")


def wires() -> None:
    """Exact voltages of all nodes."""
    for n, known in ((64, (130, 0.6)), (128, (220, 24)), (256, (1220, 872))):
        g, x = RNG.uniform(1e-6, 1e-4, size=(n, n)), RNG.uniform(size=(32, n))
        took = [
            milliseconds(lambda g=g, x=x, t=t: solve(g, x, tolerance=1e-8, threads=t), 5) / 32
            for t in (1, None)
        ]
        lost = 1 - solve(g, x).currents.sum() / (x @ g).sum()
        case = f"wires {n} x {n}, {100 * lost:.0f} % lost"
        print(f"{case}: {took[0]:5.2f} ms per sample, all threads {took[1]:5.2f}")
        peers = (peer(crossbar_peers.nodes(g, x), known[0]), peer(None, known[1]))
        for name, (theirs, how) in zip(("badcrossbar", "CrossSim, to 1e-3"), peers, strict=True):
            print(
                f"    {name} {theirs:.1f} ({how}): {theirs / took[0]:.0f}x, with all threads "
                f"{theirs / took[1]:.0f}x"
            )


def epochs() -> None:
    """Seconds per epoch of MNIST, one thread, from a third of one."""
    try:
        x, y, *_ = pnn.data.mnist()
    except pnn.errors.DataError:
        print("epochs of MNIST: skipped, for the data are not there (see pnncore.data.mnist)")
        return
    device, peers = (
        devices.ConstantStep(),
        {"ConstantStep": 7.0, "v1": 8.7, "v2": 203.0, "agad": 193.0},
    )
    for name, known in ({"float": 2.6} | peers).items():
        algorithm = devices.TikiTaka(version=name) if name in ("v1", "v2", "agad") else None  # type: ignore[arg-type]
        layers = []
        for n, m in itertools.pairwise([784, 256, 128, 10]):
            layers += [
                Crossbar(n, m, device=None if name == "float" else device, algorithm=algorithm),
                Logistic(),
            ]
        net = pnn.systems.Stack(layers[:-1], seed=0)
        method = pnn.methods.InSituBackprop(loss="cross-entropy")
        trainer = pnn.Trainer(
            net, method, pnn.optim.SGD(0.1), batch_size=64, seed=0, threads=1, progress=False
        )
        took = 3 * milliseconds(lambda t=trainer: t.fit(x[:20_000], y[:20_000], epochs=1), 2) / 1e3
        part = 20_000 if name in ("float", "ConstantStep") else 1280
        # Its time per sample does not depend on how many there are.
        seconds = crossbar_peers.epoch(
            name, x[:part], y[:part].astype(np.int64), [784, 256, 128, 10]
        )
        theirs, how = peer(None if seconds is None else seconds * 60_000 / part, known)
        case = f"epoch 784-256-128-10, batches of 64, {name:12}"
        print(f"{case}: {took:5.2f} s; aihwkit {theirs:.1f} ({how}): {theirs / took:.1f}x")


def main() -> None:
    """Measure, and print a table."""
    a, b = (RNG.normal(size=(1536, 1536)).astype(np.float32) for _ in range(2))
    peak = 2 * 1536**3 / milliseconds(lambda: a @ b, 10) / 1e6
    print(f"sgemm with all threads: {peak:.0f} GFLOP/s")
    x = RNG.normal(size=(256, 1024)).astype(np.float32)
    cases = {
        "7-bit in, 9-bit out, output noise, absmax": AnalogIO(),
        "the same, and weight noise": AnalogIO(weight_noise=0.02),
        "the same, as in phase-change memory": AnalogIO(
            weight_noise=0.02, weight_noise_kind="phase-change"
        ),
        "ideal": AnalogIO.ideal(),
    }
    for name, io in cases.items():
        net = pnn.systems.Stack([Crossbar(1024, 1024, bias=False, io=io)], seed=0)
        took = [milliseconds(lambda n=n, net=net: net.predict(x, threads=n)) for n in (1, None)]
        rates = [2 * 256 * 1024**2 / t / 1e6 for t in took]
        print(
            f"{name:44} one thread {took[0]:6.2f} ms ({rates[0]:4.0f} GFLOP/s), all "
            f"{took[1]:6.2f} ms "
            f"({rates[1]:4.0f} GFLOP/s, {100 * rates[1] / peak:3.0f} % of sgemm)"
        )
        if io == AnalogIO():
            theirs, how = peer(crossbar_peers.read(x, 1024, None), 17.0)
            print(f"    aihwkit, all threads: {theirs:.1f} ms ({how}): {theirs / took[1]:.1f}x")
    updates()
    wires()
    epochs()


if __name__ == "__main__":
    main()
