"""Low precision beside full precision, in turn and in one run: training of dense networks, settling
of dense networks, and reads of crossbars.

    python benches/low_precision.py

Samples per second on one thread and on two, and the ratio. Weights are rounded and packed once per
step: batches of many rows and wide layers gain most. Where the processor has no instruction for
pairs of bfloat16 that is faster than two multiply-adds, or none for quads of integers, the bits are
the same and nothing is gained.
"""

import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import Settling, methods, optim, systems
from pnncore.layers import AnalogIO, Crossbar, Linear, Tanh

RNG = np.random.default_rng(0)


def in_turn(calls: list[Callable[[], Any]], seconds: float = 2.0) -> list[float]:
    """Seconds of the fastest call of each, called in turn: rates move between runs."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times[0]) < 5:
        for call, own in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            own.append(time.perf_counter() - begin)
    return [min(own) for own in times]


def training(
    name: str, make: Callable[[Any], systems.System], method: methods.Method, batch: int, count: int
) -> None:
    """Print the rates of training a system, as it is and in bfloat16."""
    n_in, n_out = make(None).n_in, make(None).n_out
    x = RNG.standard_normal((count, n_in)).astype(np.float32)
    y = RNG.integers(0, n_out, count)
    for threads in (1, 2):
        trainers = [
            pnn.Trainer(
                make(precision),
                method,
                optim.SGD(1e-4),
                batch_size=batch,
                seed=0,
                threads=threads,
                progress=False,
            )
            for precision in (None, "bfloat16")
        ]
        calls = [lambda trainer=trainer: trainer.fit(x, y, epochs=1) for trainer in trainers]
        report(name, batch, threads, count, in_turn(calls))


def report(name: str, batch: int, threads: int, count: int, seconds: list[float]) -> None:
    """Print a line."""
    whole, low = (count / taken for taken in seconds)
    print(
        f"{name}, batch {batch}, threads {threads}: {whole:,.0f} -> {low:,.0f} samples per second, "
        f"{low / whole:.2f} x",
        flush=True,
    )


def chain(sizes: list[int], precision: Any) -> systems.System:
    """Return linear maps with tanh between."""
    pairs = itertools.pairwise(sizes)
    layers = [part for n, m in pairs for part in (Linear(n, m, precision=precision), Tanh())]
    return systems.Stack(layers[:-1], seed=0)


def main() -> None:
    """Measure everything."""
    warnings.simplefilter("ignore", pnn.SettlingWarning)
    backprop = methods.Backprop()
    for sizes, batch in (
        ([784, 256, 128, 10], 64),
        ([784, 1024, 1024, 10], 64),
        ([784, 1024, 1024, 10], 256),
        ([1024, 2048, 2048, 10], 256),
    ):
        name = f"backpropagation {'-'.join(map(str, sizes))}"
        training(name, lambda p, s=sizes: chain(s, p), backprop, batch, 4 * batch)
    for activation in ("hard-sigmoid", "tanh"):
        for settling in (Settling(sweeps=(20, 10)), Settling()):
            sizes = [784, 1024, 1024, 10]
            ends = "per sample" if settling.sweeps is None else "20 + 10 sweeps"
            training(
                f"Hopfield 784-1024-1024-10, {activation}, {ends}",
                lambda p, a=activation, s=sizes: systems.Hopfield(
                    s, activation=a, precision=p, seed=0
                ),
                methods.EquilibriumPropagation(beta=0.2, settling=settling),
                128,
                512,
            )
    for n, batch in ((512, 256), (1024, 32), (1024, 256), (2048, 256)):
        x = RNG.standard_normal((batch, n)).astype(np.float32)
        nets = [
            systems.Stack([Crossbar(n, n, io=AnalogIO(), precision=p)], seed=0)
            for p in (None, "int8")
        ]
        for threads in (1, 2):
            calls = [lambda net=net, x=x, t=threads: net.predict(x, threads=t) for net in nets]
            report(f"reads of {n} x {n}, int8", batch, threads, batch, in_turn(calls, 1.0))


if __name__ == "__main__":
    main()
