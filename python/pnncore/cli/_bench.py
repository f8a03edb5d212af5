"""``pnncore bench``: how fast this machine trains."""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from pnncore import _core
from pnncore._progress import ProgressLine
from pnncore.cli import _common as common
from pnncore.cli._common import Commands, FloatArray
from pnncore.errors import ConfigError
from pnncore.methods import EquilibriumPropagation
from pnncore.optim import SGD
from pnncore.settling import Settling
from pnncore.systems import Hopfield
from pnncore.trainer import Trainer

_DESCRIPTION = """\
Measure how fast this machine trains: samples per second of centered equilibrium propagation (one
free and two nudged settlings per sample, then the update) on three Hopfield networks. Each network
settles sample by sample until it is settled, and for fixed sweeps as published protocols do. The
data are synthetic: ten noisy prototypes. Fresh networks settle faster than trained ones.

For context it also gives the speed of a float32 matrix product in NumPy. Its library has threads of
its own, which suffer when other programs run: on a busy machine the number is low.

example:
  pnncore bench --threads 1 --seconds 0.5
"""


@dataclass(frozen=True)
class _Case:
    layers: list[int]
    samples: int
    sweeps: tuple[int, int]


_CASES = (
    _Case([64, 128, 10], 1024, (15, 15)),
    _Case([784, 512, 10], 512, (15, 15)),
    _Case([784, 1024, 1024, 10], 128, (50, 20)),
)


def add(commands: Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "bench", "how fast this machine trains", _DESCRIPTION, run
    )
    parser.add_argument(
        "--batch-size", type=common.count, default=32, help="samples per step (default: 32)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="time for each row of the table (default: 1)"
    )
    common.add_threads(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if not arguments.seconds > 0:
        raise ConfigError(f"--seconds must be positive, got {arguments.seconds}")
    core: dict[str, Any] = dict(_core.info())
    threads = arguments.threads or core["threads"]
    line = ProgressLine(2 * len(_CASES), enabled=False if arguments.json else None)
    rows: list[dict[str, Any]] = []
    for case in _CASES:
        for sweeps in (None, case.sweeps):
            line.update(len(rows), f"{_name(case.layers)}")
            rows.append(_measure(case, sweeps, arguments))
    line.close()
    gflops = _sgemm()
    report = {
        "threads": threads,
        "simd": core["simd"],
        "batch_size": arguments.batch_size,
        "rows": rows,
        "numpy_sgemm_gflops": gflops,
    }
    lines = [
        f"centered equilibrium propagation on {threads} threads ({core['simd']}), "
        f"batches of {arguments.batch_size}, float32",
        "",
        f"  {'network':20} {'stopping':18} {'samples/s':>12} {'sweeps: free + nudged':>23}",
    ]
    for row in rows:
        took = f"{row['free_sweeps']:.1f} + {row['other_sweeps']:.1f}"
        lines.append(
            f"  {_name(row['layers']):20} {row['stopping']:18} {row['samples_per_second']:12,.0f} "
            f"{took:>23}"
        )
    lines += [
        "",
        f"NumPy's float32 matrix product of size 1024, with its own threads: {gflops:.0f} GFLOP/s",
    ]
    common.emit(arguments, report, "\n".join(lines))
    return 0


def _name(layers: list[int]) -> str:
    return "-".join(map(str, layers))


def _measure(
    case: _Case, sweeps: tuple[int, int] | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train for the time of a row; the median over epochs is robust against whatever else runs."""
    x, y = _prototypes(case)
    trainer = Trainer(
        Hopfield(case.layers, seed=0),
        EquilibriumPropagation(beta=0.2, settling=Settling(sweeps=sweeps)),
        SGD(1e-3),
        batch_size=arguments.batch_size,
        seed=0,
        threads=arguments.threads,
        progress=False,
    )
    trainer.fit(x, y, epochs=1)  # warm-up
    start = time.perf_counter()
    while trainer.history.epochs < 4 or time.perf_counter() - start < arguments.seconds:
        trainer.fit(x, y, epochs=1)
    history = trainer.history
    return {
        "layers": case.layers,
        "stopping": "each when settled" if sweeps is None else f"{sweeps[0]} + {sweeps[1]} fixed",
        "samples_per_second": case.samples / float(np.median(history["seconds"][1:])),
        "epochs": history.epochs - 1,
        "samples": case.samples,
        "free_sweeps": float(history["free_sweeps"][-1]),
        "other_sweeps": float(history["other_sweeps"][-1]),
    }


def _prototypes(case: _Case) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(0)
    y = np.arange(case.samples) % 10
    noisy = rng.random((10, case.layers[0]))[y] + 0.3 * rng.standard_normal(
        (case.samples, case.layers[0])
    )
    return np.clip(noisy, 0, 1).astype(np.float32), y


def _sgemm(size: int = 1024, repeats: int = 20) -> float:
    """Return GFLOP/s of NumPy's matrix product, the best of some runs."""
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2e-9 * size**3 / best
