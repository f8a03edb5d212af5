"""What an instrument costs beyond its callable: microseconds per call, by how it is called and how
it is journalled.

python benches/instrument.py
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pnncore as pnn
from pnncore._interrupt import Interrupt
from pnncore.systems import Instrument

CALLS = 2000
X = np.ones((1, 8))


def echo(x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    """Return the inputs: what remains is the cost of the call."""
    return x


def microseconds(run: object, calls: int = CALLS) -> float:
    """Return the median over ten runs of the time per call."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(calls // 10):
            run()  # type: ignore[operator]
        times.append((time.perf_counter() - start) / (calls // 10) * 1e6)
    return statistics.median(times)


def main() -> None:
    """Measure, and print a table."""
    params = {"theta": np.ones(8)}
    plain = microseconds(lambda: echo(X, params))
    print(f"the callable alone: {plain:.2f} us; beyond it, per call of one sample:")
    cases = [
        ("direct, no journal", {}, None),
        ("direct, journalled (group)", {}, "group"),
        ("direct, journalled (none)", {}, "none"),
        ("direct, journalled (shot)", {}, "shot"),
        ("thread with a deadline, journalled (group)", {"timeout": 5.0}, "group"),
        ("process, journalled (group)", {"timeout": 5.0, "isolation": "process"}, "group"),
    ]
    for name, settings, durability in cases:
        with tempfile.TemporaryDirectory() as folder:
            if durability:
                settings |= {"journal": Path(folder) / "shots.pnj", "durability": durability}
            with Instrument(echo, 8, 8, params=params, **settings) as system, Interrupt():
                arrays = system.arrays()
                system.driver.measure(X, arrays)
                took = microseconds(lambda: system.driver.measure(X, arrays)) - plain  # noqa: B023 - called here
        print(f"{name:46} {took:7.1f} us = {took / 10:.2f} % of wall time at 1 kHz")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shots.pnj"
        with Instrument(echo, 8, 8, params=params, journal=path) as system:
            for _ in range(20_000):
                system.driver.shoot(X, system.arrays(), "run")
        start = time.perf_counter()
        held = pnn.journal.read(path)
        took = time.perf_counter() - start
        size = path.stat().st_size
        print(
            f"opening a journal of {len(held)} shots: {1e3 * took:.0f} ms, "
            f"{size / took / 1e6:.0f} MB/s"
        )


if __name__ == "__main__":
    main()
