"""Time and memory of circuits against their size, up to a million edges, with fitted exponents.

    python benches/scaling.py                 # five minutes; prints a table and writes scaling.png
    python benches/scaling.py --edges 100000  # up to so many edges

Two kinds of square grids, in which nothing can be eliminated: linear ones (16 samples, solve and
gradient, on the factors of one boundary) and ones with a diode across every second resistor (one
operating point by Newton steps). Each size is built and solved in a process of its own; its memory
is the largest that the process held beyond its imports. ngspice's own time of the analysis stands
beside where it is installed, for sizes that it solves within a minute.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDES = [22, 40, 70, 126, 224, 398, 577, 707]
SAMPLES = 16
NGSPICE_EDGES = 60_000


def megabytes() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def flow(side: int) -> dict[str, float]:
    """Build a linear grid; solve it and read its gradient."""
    import pnncore as pnn

    before, start = megabytes(), time.perf_counter()
    pairs = [
        (f"n{i}_{j}", f"n{a}_{b}")
        for i in range(side)
        for j in range(side)
        for a, b in ((i + 1, j), (i, j + 1))
        if max(a, b) < side
    ]
    outputs = [f"n{side // 2}_{k}" for k in range(5, 15)]
    net = pnn.systems.Flow(pairs, inputs=["n0_0", f"n0_{side - 1}"], outputs=outputs)
    rng = np.random.default_rng(0)
    net.params["g"][...] = rng.uniform(0.5, 1.5, len(pairs))
    built = time.perf_counter() - start
    x, y = rng.uniform(0, 1, (SAMPLES, 2)), rng.uniform(0, 1, (SAMPLES, 10))
    start = time.perf_counter()
    pnn.methods.FrequencyPropagation(points=4).gradient(net, x, y)
    solved = time.perf_counter() - start
    return {"edges": len(pairs), "build": built, "solve": solved, "memory": megabytes() - before}


def diodes(side: int) -> dict[str, float]:
    """Build a grid with diodes; find its operating point, and have ngspice find it."""
    import pnncore  # noqa: F401 - what importing it takes is no part of the size
    import resistive

    before, start = megabytes(), time.perf_counter()
    net, x = resistive.diode_grid(side)
    built = time.perf_counter() - start
    start = time.perf_counter()
    settled = net.settle(x, threads=1)
    solved = time.perf_counter() - start
    assert settled.converged
    found = {
        "edges": len(net.elements),
        "build": built,
        "solve": solved,
        "memory": megabytes() - before,
    }
    if shutil.which("ngspice") and len(net.elements) < NGSPICE_EDGES:
        found["ngspice"] = resistive.ngspice(net.to_spice(x[0]))
    return found


KINDS = {"flow": flow, "diodes": diodes}


def exponent(edges: np.ndarray, values: np.ndarray) -> float:
    """Return the slope of the upper half on logarithmic axes."""
    upper = slice(len(edges) // 2, None)
    return float(np.polyfit(np.log(edges[upper]), np.log(values[upper]), 1)[0])


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw time and memory against edges."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    names = {
        "flow": f"linear grid, {SAMPLES} samples, solve + gradient",
        "diodes": "diode grid, operating point",
    }
    for (kind, rows), colour in zip(found.items(), ("tab:blue", "tab:orange"), strict=True):
        edges = np.array([row["edges"] for row in rows])
        for axes, key, what, style in (
            (left, "solve", names[kind], "o-"),
            (left, "build", "building it", "o:"),
            (right, "memory", names[kind].split(",")[0], "o-"),
        ):
            values = np.array([row[key] for row in rows])
            power = f"edges$^{{{exponent(edges, values):.2f}}}$"
            axes.loglog(edges, values, style, color=colour, label=f"{what}: {power}", markersize=4)
        peer = [(row["edges"], row["ngspice"]) for row in rows if "ngspice" in row]
        if peer:
            left.loglog(
                *zip(*peer, strict=True),
                "s--",
                color="grey",
                label="diode grid, ngspice's analysis",
                markersize=4,
            )
    left.set(xlabel="edges", ylabel="seconds", title="Time")
    right.set(xlabel="edges", ylabel="MB beyond imports", title="Memory")
    # Room for the legend.
    left.set_ylim(top=100 * left.get_ylim()[1])
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every size in a process of its own, print a table, draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edges", type=int, default=1_000_000, help="the most edges")
    parser.add_argument(
        "--out", type=Path, default=Path("scaling.png"), help="where the picture goes"
    )
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        kind, side = arguments.job
        print(json.dumps(KINDS[kind](side)))
        return
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for kind, per_node in (("flow", 2.0), ("diodes", 3.0)):
        for side in SIDES:
            # Diodes make half as many edges again.
            side = round(side * (2.0 / per_node) ** 0.5)
            if per_node * side * (side - 1) > arguments.edges * 1.01:
                break
            command = [sys.executable, __file__, "--job", json.dumps([kind, side])]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise RuntimeError(ran.stderr[-3000:])
            row = json.loads(ran.stdout.splitlines()[-1])
            found[kind].append(row)
            peer = f", ngspice {row['ngspice']:.2f} s" if "ngspice" in row else ""
            print(
                f"{kind:7} {row['edges']:9,} edges: built in {row['build']:.2f} s, solved in "
                f"{row['solve']:.3f} s, "
                f"{row['memory']:.0f} MB{peer}",
                flush=True,
            )
        edges = np.array([row["edges"] for row in found[kind]])
        powers = {
            key: exponent(edges, np.array([row[key] for row in found[kind]]))
            for key in ("solve", "memory")
        }
        print(
            f"{kind}: time grows as edges^{powers['solve']:.2f}, memory as "
            f"edges^{powers['memory']:.2f}"
        )
    draw(found, arguments.out)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
