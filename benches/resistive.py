"""Resistive networks beside their peers, in one run: NumPy for layered networks, ngspice for
operating points, scipy for flow.

    python benches/resistive.py            # a table (quiet machine, please)
    python benches/resistive.py --json

Layered networks: samples per second of training, 784-h-10, batches of 4, 4 + 4 sweeps, and the
floor of memory traffic: the conductances are read for drives and column sums, read and written by
the update. The NumPy peer folds the column sums into the product of the drive and the column shift
into the product of the update; what is left are five passes over the conductances. Operating
points: seconds of one, ours with its preparation against the analysis that ngspice itself reports.
Cases whose peer is not installed are skipped, and say so.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SWEEPS, BETA, RATE, BATCH = 4, 1.0, 0.006, 4


class ResistivePeer:
    """Centred equilibrium propagation on a deep resistive network with one hidden layer, in
    NumPy and BLAS alone."""

    def __init__(self, g1: np.ndarray, g2: np.ndarray, gain: float):
        from peers import _buffer, _product

        inputs, hidden = g1.shape
        outputs = g2.shape[1]
        self.gain, self.half = gain, -(-hidden // 2)
        self.g1, self.g2 = _buffer(inputs, hidden), _buffer(hidden, outputs)
        self.g1[...], self.g2[...] = g1, g2
        self.b1, self.b2 = np.zeros(hidden, np.float32), np.zeros(outputs, np.float32)
        # The last row is ones: its product with g1 is the sum of every column.
        self.x, self.fed = _buffer(BATCH + 1, inputs, 1.0), _buffer(BATCH + 1, hidden)
        self.change = _buffer(BATCH + 1, hidden)
        self.drive = _product(self.x, self.g1, self.fed, 1.0, 0.0)
        self.update = _product(self.x.T, self.change, self.g1)

    def settle(
        self,
        drive: np.ndarray,
        v2: np.ndarray,
        sweeps: int,
        pull: np.ndarray | None,
        beta: np.ndarray,
    ) -> Any:
        soft1 = 1 / (self.fed[-1] + self.g2.sum(axis=1))
        soft2 = 1 / (self.g2.sum(axis=0) + beta)
        for _ in range(sweeps):
            v1 = (drive + v2 @ self.g2.T) * soft1
            np.maximum(v1[:, : self.half], 0, out=v1[:, : self.half])
            np.minimum(v1[:, self.half :], 0, out=v1[:, self.half :])
            a = v1 @ self.g2 + self.b2
            v2 = (a if pull is None else a + pull) * soft2
        return v1, v2

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        n = x.shape[1]
        self.x[:BATCH, :n], self.x[:BATCH, n:] = self.gain * x, -self.gain * x
        for call in self.drive:
            call()
        drive = self.fed[:BATCH] + self.b1
        _, free = self.settle(drive, np.zeros_like(y), SWEEPS, None, np.float32(0))
        signs = np.repeat(np.float32([[BETA], [-BETA]]), BATCH, axis=0)
        both = np.vstack([y, y]) * signs
        v1, v2 = self.settle(
            np.vstack([drive, drive]), np.vstack([free, free]), SWEEPS, both, signs
        )
        scale = np.float32(RATE / (2 * BETA * BATCH))
        self.change[:BATCH] = scale * (v1[:BATCH] - v1[BATCH:])
        squares1, squares2 = v1 * v1, v2 * v2
        self.change[-1] = -0.5 * scale * (squares1[:BATCH] - squares1[BATCH:]).sum(axis=0)
        for call in self.update:
            call()
        np.maximum(self.g1, 0, out=self.g1)
        self.b1 += self.change[:BATCH].sum(axis=0)
        signed = v2 * np.sign(signs)
        self.g2 += scale * (v1.T @ signed)
        self.g2 -= 0.5 * scale * (squares1 * np.sign(signs)).sum(axis=0)[:, None]
        self.g2 -= 0.5 * scale * (squares2 * np.sign(signs)).sum(axis=0)
        np.maximum(self.g2, 0, out=self.g2)
        self.b2 += scale * signed.sum(axis=0)


def data(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return MNIST where it is, otherwise noise with as many zeros."""
    import pnncore as pnn

    try:
        x, y, *_ = pnn.data.mnist()
        return x[:samples], y[:samples]
    except (pnn.PnnError, OSError):
        rng = np.random.default_rng(0)
        x = rng.random((samples, 784), dtype=np.float32) * (rng.random((samples, 784)) < 0.19)
        return x.astype(np.float32), rng.integers(0, 10, samples)


def layered(hidden: int, gain: float, samples: int, threads: int, who: str) -> float:
    """Return samples per second."""
    import pnncore as pnn

    x, y = data(samples)
    net = pnn.systems.DeepResistive([784, hidden, 10], input_gain=gain, seed=0)
    if who == "ours":
        method = pnn.methods.EquilibriumPropagation(beta=BETA, settling=pnn.Settling(sweeps=SWEEPS))
        trainer = pnn.Trainer(
            net, method, pnn.optim.SGD(RATE), batch_size=BATCH, seed=0, threads=threads
        )
        trainer.fit(x[:400], y[:400], epochs=1)
        return samples / min(trainer.fit(x, y, epochs=1)["seconds"][-1] for _ in range(3))
    peer = ResistivePeer(net.params["g1"], net.params["g2"], gain)
    target = np.eye(10, dtype=np.float32)[y]
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for k in range(0, samples - BATCH + 1, BATCH):
            peer.step(x[k : k + BATCH], target[k : k + BATCH])
        best = min(best, time.perf_counter() - start)
    return samples / best


def parity() -> float:
    """Return how far ours and the peer's conductances are apart after ten steps, relative to how
    far they moved."""
    import pnncore as pnn

    x, y = data(10 * BATCH)
    net = pnn.systems.DeepResistive([784, 100, 10], input_gain=100.0, seed=0)
    peer, start = ResistivePeer(net.params["g1"], net.params["g2"], 100.0), net.params["g1"].copy()
    method = pnn.methods.EquilibriumPropagation(beta=BETA, settling=pnn.Settling(sweeps=SWEEPS))
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(RATE), batch_size=BATCH, seed=0)
    order = pnn._core.permutation(len(x), 0, 0).astype(int)
    trainer.fit(x, y, epochs=1)
    target = np.eye(10, dtype=np.float32)[y]
    for k in range(0, len(x), BATCH):
        peer.step(x[order[k : k + BATCH]], target[order[k : k + BATCH]])
    apart = max(np.abs(net.params[name] - getattr(peer, name)).max() for name in ("g1", "g2"))
    return float(apart / np.abs(net.params["g1"] - start).max())


def ngspice(netlist: str) -> float:
    """Return the seconds that ngspice itself says it analysed, parsing left out."""
    with tempfile.TemporaryDirectory() as folder:
        deck = Path(folder) / "deck.cir"
        deck.write_text(netlist.replace(".op\n.end\n", ".control\nop\nrusage\n.endc\n.end\n"))
        ran = subprocess.run(
            ["ngspice", "-b", deck], capture_output=True, text=True, check=False, timeout=900
        )
    found = re.search(r"Total analysis time \(seconds\) = (\S+)", ran.stdout)
    if found is None:
        raise RuntimeError(ran.stdout[-2000:] + ran.stderr[-2000:])
    return float(found[1])


def diode_layers(ideal: bool) -> tuple[Any, np.ndarray]:
    """Return a 2x784-64-10 network with a diode and a bias resistor at every hidden node."""
    from pnncore.elements import Diode, IdealDiode, Resistor
    from pnncore.systems import Circuit

    rng = np.random.default_rng(0)
    found: list[Any] = []
    inputs = [f"p{i}" for i in range(784)] + [f"m{i}" for i in range(784)]
    for j in range(64):
        found += [Resistor(source, f"h{j}", rng.uniform(1e-6, 1e-4)) for source in inputs]
        found += [Resistor(f"h{j}", f"o{k}", rng.uniform(1e-4, 1e-2)) for k in range(10)]
        ends = ("0", f"d{j}") if j < 32 else (f"d{j}", "0")
        if ideal:
            found.append(IdealDiode(*(end.replace("d", "h") for end in ends)))
        else:
            found += [Resistor(f"h{j}", f"d{j}", 1.0), Diode(*ends)]
    net = Circuit(found, inputs=inputs, outputs=[f"o{k}" for k in range(10)])
    x = rng.uniform(0, 1, 784) * (rng.random(784) < 0.2)
    return net, 5 * np.hstack([x, -x])[None]


def diode_grid(side: int) -> tuple[Any, np.ndarray]:
    """Return a grid of resistors with a diode across every second one: nothing can be
    eliminated."""
    from pnncore.elements import Diode, Resistor
    from pnncore.systems import Circuit

    rng = np.random.default_rng(1)
    found: list[Any] = [
        Resistor("in", "n0_0", 1e-2),
        Resistor(f"n{side - 1}_{side - 1}", "0", 1e-2),
    ]
    for i in range(side):
        for j in range(side):
            for a, b in ((i + 1, j), (i, j + 1)):
                if max(a, b) < side:
                    found.append(Resistor(f"n{i}_{j}", f"n{a}_{b}", 10 ** rng.uniform(-4, -2)))
                    if rng.random() < 0.5:
                        found.append(Diode(f"n{i}_{j}", f"n{a}_{b}"))
    return Circuit(found, inputs=["in"], outputs=[f"n{side - 1}_{side - 1}"]), np.array([[10.0]])


def operating_point(which: str) -> dict[str, float]:
    """Return our seconds for one operating point, and those of ngspice."""
    net, x = diode_grid(100) if which == "grid" else diode_layers(which == "ideal")
    assert net.settle(x, threads=1).converged
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        net.predict(x, threads=1)
        best = min(best, time.perf_counter() - start)
    found = {"ours": best, "unknowns": len(net.nodes)}
    if which == "ideal":
        # The same network as a layered one, whose conductances only differ in that each diode sits
        # at its node.
        import pnncore as pnn

        layers = pnn.systems.DeepResistive([784, 64, 10], input_gain=5.0, seed=0)
        many = np.repeat(x[:, :784].astype(np.float32), 2000, axis=0)
        layers.predict(many, threads=1)
        start = time.perf_counter()
        layers.predict(many, threads=1)
        found["layered"] = (time.perf_counter() - start) / len(many)
    found["peer"] = ngspice(net.to_spice(x[0])) if shutil.which("ngspice") else float("nan")
    return found


def flow_grid(side: int = 100, samples: int = 256) -> dict[str, float]:
    """Return seconds for all solutions and the gradient of a linear grid, ours and scipy's."""
    import pnncore as pnn

    rng = np.random.default_rng(2)
    name = lambda i, j: f"n{i}_{j}"  # noqa: E731
    pairs = [((i, j), (i + 1, j)) for i in range(side - 1) for j in range(side)]
    pairs += [((i, j), (i, j + 1)) for i in range(side) for j in range(side - 1)]
    corners, ends = [(0, 0), (0, side - 1), (side - 1, 0)], [(side // 2, k) for k in range(20, 30)]
    net = pnn.systems.Flow(
        [(name(*a), name(*b)) for a, b in pairs],
        inputs=[name(*c) for c in corners],
        outputs=[name(*e) for e in ends],
    )
    net.params["g"][...] = rng.uniform(0.5, 1.5, len(pairs))
    x, y = rng.uniform(0, 1, (samples, 3)), rng.uniform(0, 1, (samples, 10))
    # The centred difference is off by beta squared, and by rounding over beta.
    method = pnn.methods.EquilibriumPropagation(beta=1e-6)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        ours = method.gradient(net, x, y)["g"]
        best = min(best, time.perf_counter() - start)
    found = {"ours": best}
    try:
        from scipy.sparse import csc_matrix
        from scipy.sparse.linalg import splu
    except ImportError:
        return found | {"peer": float("nan")}
    index = {node: k for k, node in enumerate((i, j) for i in range(side) for j in range(side))}
    a, b = (np.array([index[pair[end]] for pair in pairs]) for end in (0, 1))
    held = np.array([index[c] for c in corners])
    outputs = np.array([index[e] for e in ends])
    free = np.setdiff1d(np.arange(side * side), held)
    place = np.full(side * side, -1)
    place[free] = np.arange(len(free))

    def gradient() -> np.ndarray:
        """Adjoint: two solves with all right-hand sides on one factor, then voltages times
        adjoint voltages."""
        g = net.params["g"]
        rows, columns = np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a])
        laplacian = csc_matrix(
            (np.concatenate([g, g, -g, -g]), (rows, columns)), shape=(side * side,) * 2
        )
        inner = laplacian[free][:, free]
        factor = splu(
            inner,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        v = np.zeros((side * side, samples))
        v[held] = x.T
        v[free] = factor.solve(-(laplacian[free][:, held] @ x.T))
        error = np.zeros((len(free), samples))
        error[place[outputs]] = v[outputs] - y.T
        adjoint = np.zeros_like(v)
        adjoint[free] = factor.solve(error)
        return -((v[a] - v[b]) * (adjoint[a] - adjoint[b])).mean(axis=1)

    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        theirs = gradient()
        best = min(best, time.perf_counter() - start)
    apart = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return found | {"peer": best, "apart": apart}


JOBS = {"layered": layered, "parity": parity, "point": operating_point, "flow": flow_grid}


def child(job: str, *arguments: Any, threads: int = 1) -> Any:
    """Run a job in a process of its own, with BLAS at so many threads."""
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
    command = [sys.executable, __file__, "--job", json.dumps([job, *arguments])]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=1200
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr[-3000:])
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    """Measure everything, print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        name, *settings = arguments.job
        print(json.dumps(JOBS[name](*settings)))
        return
    import peers

    found: dict[str, Any] = {
        "sgemm": {n: peers.measure("sgemm", n)["gflops"] for n in (1, 2)},
        "parity": child("parity"),
    }
    for hidden, gain, samples in ((100, 100.0, 20000), (1024, 480.0, 4000)):
        ours = {n: child("layered", hidden, gain, samples, n, "ours") for n in (1, 2)}
        peer = {n: child("layered", hidden, gain, samples, n, "peer", threads=n) for n in (1, 2)}
        found[f"784-{hidden}-10"] = {
            "ours": ours,
            "peer": peer,
            "floor_bytes": 3 * 4 * 1568 * hidden,
        }
    for which in ("diodes", "ideal", "grid"):
        found[which] = child("point", which)
    found["flow"] = child("flow", threads=2)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"sgemm: {found['sgemm'][1]} GFLOP/s on one thread, {found['sgemm'][2]} on two")
    print(
        f"after ten steps ours and the NumPy peer's conductances differ by {found['parity']:.1e} "
        "of what they moved"
    )
    for hidden in (100, 1024):
        case = found[f"784-{hidden}-10"]
        ours, peer = case["ours"], max(case["peer"].values())
        traffic = case["floor_bytes"] * ours[2] / BATCH / 1e9
        print(
            f"DeepResistive 784-{hidden}-10, batch 4, 4/4 sweeps: {ours[2]:,.0f} samples/s on two "
            "threads, "
            f"{ours[1]:,.0f} on one; NumPy {peer:,.0f}: {ours[2] / peer:.1f}x. "
            f"Floor {case['floor_bytes'] / 1e6:.1f} MB per batch: {traffic:.0f} GB/s of it"
        )
    labels = {
        "diodes": "2x784-64-10, exponential diodes, one operating point",
        "ideal": "the same with ideal diodes, as a circuit",
        "grid": "100 x 100 grid with diodes, one operating point",
    }
    for which, label in labels.items():
        case = found[which]
        print(
            f"{label} ({case['unknowns']} unknowns): {1e3 * case['ours']:.2f} ms; ngspice "
            f"{1e3 * case['peer']:.0f} ms: "
            f"{case['peer'] / case['ours']:.0f}x"
        )
    layered_time = found["ideal"]["layered"]
    ratio = found["ideal"]["peer"] / layered_time
    print(f"ideal diodes as DeepResistive: {1e6 * layered_time:.1f} us; {ratio:,.0f}x of ngspice")
    flow = found["flow"]
    print(
        f"flow on a 100 x 100 grid, 256 samples, solve + gradient: {1e3 * flow['ours']:.0f} ms; "
        "scipy "
        f"{1e3 * flow['peer']:.0f} ms: {flow['peer'] / flow['ours']:.1f}x; "
        f"gradients differ by {flow.get('apart', float('nan')):.0e}"
    )


if __name__ == "__main__":
    main()
