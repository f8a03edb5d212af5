"""Analog reads: milliseconds for 256 samples through a 1024 x 1024 array, by how it is read, and the share of sgemm.

    python benches/crossbar.py

The product alone is 537 million multiply-adds; converters and noise add 2.6 million roundings and normals.
"""

import time

import numpy as np
import pnncore as pnn
from pnncore.layers import AnalogIO, Crossbar

RNG = np.random.default_rng(0)


def milliseconds(call: object, times: int = 30) -> float:
    """Return the time of the fastest call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()  # type: ignore[operator]
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken)


def main() -> None:
    """Measure, and print a table."""
    a, b = (RNG.normal(size=(1536, 1536)).astype(np.float32) for _ in range(2))
    peak = 2 * 1536**3 / milliseconds(lambda: a @ b, 10) / 1e6
    print(f"sgemm with all threads: {peak:.0f} GFLOP/s")
    x = RNG.normal(size=(256, 1024)).astype(np.float32)
    cases = {
        "7-bit in, 9-bit out, output noise, absmax": AnalogIO(),
        "the same, and weight noise": AnalogIO(weight_noise=0.02),
        "the same, as in phase-change memory": AnalogIO(weight_noise=0.02, weight_noise_kind="phase-change"),
        "ideal": AnalogIO.ideal(),
    }
    for name, io in cases.items():
        net = pnn.systems.Stack([Crossbar(1024, 1024, bias=False, io=io)], seed=0)
        took = [milliseconds(lambda n=n, net=net: net.predict(x, threads=n)) for n in (1, None)]
        rates = [2 * 256 * 1024**2 / t / 1e6 for t in took]
        print(
            f"{name:44} one thread {took[0]:6.2f} ms ({rates[0]:4.0f} GFLOP/s), all {took[1]:6.2f} ms "
            f"({rates[1]:4.0f} GFLOP/s, {100 * rates[1] / peak:3.0f} % of sgemm)"
        )


if __name__ == "__main__":
    main()
