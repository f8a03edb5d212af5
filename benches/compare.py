"""pnncore beside its peers, in one run on one machine: ``make bench``.

Every figure is the best of several epochs in a process of its own, so that a noisy machine shows as
little as it can; peers run at their best thread count, ours at two threads. Ratios are what counts:
absolute figures drift.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import peers

# name, layers, batch, peer's free and nudged steps, our settling ("fixed": the peer's), samples,
# target ratio
CASES: list[tuple[str, list[int], int, int, int, str, int, float]] = [
    ("784-512-10, batch 128, fixed 20/10", [784, 512, 10], 128, 20, 10, "fixed", 25600, 3.0),
    ("784-512-10, batch 128, per sample", [784, 512, 10], 128, 20, 10, "auto", 25600, 7.0),
    ("784-512-10, batch 16, per sample", [784, 512, 10], 16, 20, 10, "auto", 12800, 8.0),
    ("64-128-10, batch 32, per sample", [64, 128, 10], 32, 20, 10, "auto", 19200, 8.0),
    (
        "784-1024-1024-10, batch 128, per sample",
        [784, 1024, 1024, 10],
        128,
        50,
        20,
        "auto",
        2560,
        3.0,
    ),
]


def work(
    layers: list[int], batch: int, steps: list[int], settling: str, samples: int, threads: int
) -> dict[str, Any]:
    """Time our training in this process."""
    import pnncore as pnn

    x, labels, data = peers.load(layers[0])
    x, labels = x[:samples], labels[:samples]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer = pnn.Trainer(
        pnn.systems.Hopfield(layers, seed=0),
        pnn.methods.EquilibriumPropagation(
            beta=0.2,
            settling=pnn.Settling(sweeps=(steps[0], steps[1]) if settling == "fixed" else None),
        ),
        pnn.optim.SGD(0.05),
        batch_size=batch,
        seed=0,
        threads=threads,
    )
    history = trainer.fit(x, labels, epochs=6)
    best = history["seconds"][1:].min()
    return {
        "samples_per_s": samples / best,
        "sweeps": [history["free_sweeps"][-1], history["other_sweeps"][-1]],
        "extra_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "data": data,
    }


def gradient_errors(layers: list[int], batch: int, steps: list[int]) -> dict[str, float]:
    """How far the gradients of one batch are from those of settling to the end, as the norm of the
    difference over that of the gradient (mean over batches): ours, and the NumPy peer's at its
    steps and stopping at 1e-3. The network
    has seen 20,000 samples, without biases, which the peer cannot be given."""
    import pnncore as pnn

    x, labels, _ = peers.load(layers[0])
    x, labels = x[:20000], labels[:20000]
    names = [f"W{layer}" for layer in range(1, len(layers))]
    net = pnn.systems.Hopfield(layers, seed=0)
    method = pnn.methods.EquilibriumPropagation(beta=0.2)
    optimizer = pnn.optim.SGD(dict.fromkeys(names, 0.05))
    pnn.Trainer(net, method, optimizer, batch_size=16, seed=0).fit(x, labels, epochs=1)
    exact = pnn.systems.Hopfield(layers, seed=0, dtype="float64")
    for name, values in net.params.items():
        exact.params[name][...] = values
    tight = pnn.methods.EquilibriumPropagation(
        beta=0.2, settling=pnn.Settling(tolerance=1e-12, max_sweeps=(20_000, 20_000))
    )
    weights = [net.params[name] for name in names]

    def of_peer(index: np.ndarray, tolerance: float | None) -> list[np.ndarray]:
        peer = peers.NumpyEP(
            layers,
            batch=batch,
            steps_free=steps[0],
            steps_nudged=steps[1],
            beta=0.2,
            rates=[1.0] * len(names),
            seed=0,
            threads=1,
            weights=weights,
            tolerance=tolerance,
        )
        peer.train_epoch(x, labels, index)
        return [before - after for before, after in zip(weights, peer.weights, strict=True)]

    found: dict[str, list[float]] = {"ours": [], "peer": [], "peer, stops at 1e-3": []}
    for index in np.random.default_rng(0).permutation(len(x))[: 10 * batch].reshape(10, batch):
        truth = tight.gradient(exact, x[index].astype(np.float64), labels[index])
        ours = method.gradient(net, x[index], labels[index])
        gradients = [ours[name] for name in names], of_peer(index, None), of_peer(index, 1e-3)
        size = np.sqrt(sum(np.sum(truth[name] ** 2) for name in names))
        for errors, gradient in zip(found.values(), gradients, strict=True):
            off = sum(
                np.sum((g - truth[name]) ** 2) for g, name in zip(gradient, names, strict=True)
            )
            errors.append(float(np.sqrt(off) / size))
    return {who: float(np.mean(errors)) for who, errors in found.items()}


def accuracy(who: str) -> float:
    """Train one epoch of MNIST (784-512-10, batch 16) and return the test accuracy: ours or the
    NumPy peer's."""
    import pnncore as pnn

    os.environ.setdefault("PNNCORE_DATA", str(peers.Path(__file__).parents[2] / "shared/data"))
    x, y, x_test, y_test = pnn.data.mnist()
    if who == "ours":
        net = pnn.systems.Hopfield([784, 512, 10], seed=0)
        method = pnn.methods.EquilibriumPropagation(beta=0.2)
        pnn.Trainer(net, method, pnn.optim.SGD(0.05), batch_size=16, seed=0).fit(x, y, epochs=1)
        return net.score(x_test, y_test)
    peer = peers.NumpyEP(
        [784, 512, 10],
        batch=16,
        steps_free=20,
        steps_nudged=10,
        beta=0.2,
        rates=[0.05, 0.05],
        seed=0,
        threads=1,
    )
    peer.train_epoch(x, y, np.random.default_rng(0).permutation(len(x)))
    return float((peer.predict(x_test) == y_test).mean())


def spin(seconds: float) -> None:
    """Keep a core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def child(*job: Any) -> Any:
    """Run a job in a fresh process."""
    env = {k: v for k, v in os.environ.items() if k not in peers.UNSET}
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    return json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)


def busy_ratio(threads: int) -> float:
    """Our rate with a second process spinning on one core, over that on a quiet machine."""
    job = ([784, 512, 10], 128, [20, 10], "fixed", 25600, threads)
    quiet = child("time", *job)["samples_per_s"]
    hog = multiprocessing.Process(target=spin, args=(60,))
    hog.start()
    try:
        return float(child("time", *job)["samples_per_s"] / quiet)
    finally:
        hog.kill()
        hog.join()


def compare() -> dict[str, Any]:
    """Measure everything."""
    sgemm = {threads: peers.measure("sgemm", threads) for threads in (1, 2)}
    rows = []
    for name, layers, batch, free, nudged, settling, samples, target in CASES:
        ours = child("time", layers, batch, [free, nudged], settling, samples, 2)
        one = child("time", layers, batch, [free, nudged], settling, samples, 1)
        peer_case = (
            layers,
            batch,
            free,
            nudged,
            next(c[4] for c in peers.CASES if list(c[0]) == layers),
        )
        found = {}
        for backend in (b for b in peers.BACKENDS if importlib.util.find_spec(b)):
            for tolerance in (None, 1e-3) if settling == "auto" else (None,):
                threads, by_threads = peers.best_threads(backend, peer_case, tolerance)
                label = f"{backend}, {threads} threads" + (", stops at 1e-3" if tolerance else "")
                found[label] = by_threads[threads]["samples_per_s"]
        best = max(found, key=lambda label: found[label])
        rows.append(
            {
                "case": name,
                "ours": ours["samples_per_s"],
                "ours_one_thread": one["samples_per_s"],
                "sweeps": ours["sweeps"],
                "extra_mib": ours["extra_mib"],
                "data": ours["data"],
                "peers": found,
                "peer": best,
                "ratio": ours["samples_per_s"] / found[best],
                "target": target,
                "errors": child("errors", layers, batch, [free, nudged])
                if settling == "auto"
                else {},
            }
        )
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "sgemm": sgemm,
        "rows": rows,
        "busy": {threads: busy_ratio(threads) for threads in (1, 2)},
    }


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    parser.add_argument(
        "--accuracy",
        action="store_true",
        help="also train both for an epoch of MNIST and score them",
    )
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        kind, *job = arguments.job
        print(
            json.dumps({"time": work, "errors": gradient_errors, "accuracy": accuracy}[kind](*job))
        )
        return
    found = compare()
    if arguments.accuracy:
        found["accuracy"] = {who: child("accuracy", who) for who in ("ours", "peer")}
    if arguments.json:
        print(json.dumps(found))
        return
    one, two = found["sgemm"][1], found["sgemm"][2]
    print(f"sgemm ({one['kernel']}): {one['gflops']} GFLOP/s on one thread, {two['gflops']} on two")
    print(
        f"{'case':42}{'ours, 2 thr.':>13}{'1 thread':>10}{'best peer':>11}"
        f"{'ratio':>7}{'target':>8}  peer"
    )
    for row in found["rows"]:
        print(
            f"{row['case']:42}{row['ours']:13,.0f}{row['ours_one_thread']:10,.0f}{row['peers'][row['peer']]:11,.0f}"
            f"{row['ratio']:6.1f}x{row['target']:7.0f}x  {row['peer']}; {row['data']}; our sweeps "
            f"{row['sweeps'][0]:.1f} + {row['sweeps'][1]:.1f}, {row['extra_mib']:.0f} MiB beyond "
            "the data"
        )
    for row in found["rows"]:
        if row["errors"]:
            off = ", ".join(f"{who} {100 * error:.2f} %" for who, error in row["errors"].items())
            print(f"{row['case']:42}gradients off by: {off}")
    dense = 2.42e6
    fixed = found["rows"][0]
    print(
        f"784-512-10 at 20/10 sweeps is {dense / 1e6:.2f} Mflop per sample if all is dense: ours "
        "does the work of "
        f"{fixed['ours_one_thread'] * dense / 1e9:.0f} GFLOP/s on one thread "
        f"({fixed['ours_one_thread'] * dense / 1e9 / one['gflops']:.2f} of sgemm; zero pixels are "
        "skipped)"
    )
    print(
        "with a second process spinning on one of two cores our rate falls to "
        f"{found['busy'][2]:.2f} of the quiet one on two threads, {found['busy'][1]:.2f} on one"
    )
    for who, score in found.get("accuracy", {}).items():
        print(f"test accuracy after one epoch of MNIST, {who}: {100 * score:.2f} %")


if __name__ == "__main__":
    main()
