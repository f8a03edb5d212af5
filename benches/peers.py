"""Peers to benchmark against: equilibrium propagation on dense layered Hopfield networks in NumPy
and JAX.

Every shortcut is exact: the input drive is computed once per batch, pixels that are zero in a whole
batch are left out (NumPy), both nudged phases settle side by side, products accumulate in place.
Each figure printed is from a process of its own: BLAS kernels and JAX's thread count are fixed when
a process starts.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import importlib.util
import json
import os
import subprocess
import sys
import timeit
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

# np.clip spends 1.5 us in Python before it reaches this ufunc: a third of a step on a small
# network.
from numpy._core.umath import clip
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

Array = np.ndarray
Calls = list[Callable[[], object]]

# For timed processes: the first two push OpenBLAS onto older kernels or smaller blocks, JaxEP sets
# the last.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPROC")
# Up to this many multiplications OpenBLAS runs a skinny product in small-matrix kernels, up to 3x
# faster.
SMALL_PRODUCT = 1_000_000
# layers, batch, free steps, nudged steps, samples per timed epoch
CASES = (
    ((784, 512, 10), 128, 20, 10, 12800),
    ((784, 512, 10), 16, 20, 10, 6400),
    ((64, 128, 10), 32, 20, 10, 12800),
    ((784, 1024, 1024, 10), 128, 50, 20, 1280),
)


def _find_sgemm() -> tuple[Any, Any]:
    """Return NumPy's own cblas_sgemm and its integer type: np.matmul cannot accumulate."""
    found = [d["filepath"] for d in threadpool_info() if d["user_api"] == "blas"]
    library = ctypes.CDLL(min(found, key=lambda path: "numpy" not in path))
    names = ("scipy_cblas_sgemm64_", "cblas_sgemm64_", "scipy_cblas_sgemm", "cblas_sgemm")
    name = next(name for name in names if hasattr(library, name))
    return getattr(library, name), ctypes.c_int64 if name.endswith("64_") else ctypes.c_int32


_SGEMM, _Integer = _find_sgemm()


def _buffer(rows: int, columns: int, fill: float = 0.0) -> Array:
    """Start on a cache line: NumPy's arrays do not, and AVX-512 loads then straddle two."""
    raw = np.full(rows * columns + 16, fill, np.float32)
    skip = -(raw.ctypes.data // 4) % 16
    return raw[skip : skip + rows * columns].reshape(rows, columns)


def _product(a: Array, b: Array, c: Array, alpha: float = 1.0, beta: float = 1.0) -> Calls:
    """Prepare ``c = alpha a @ b + beta c``, in column tiles where that reaches the small-matrix
    kernels."""
    skinny = min(a.shape) <= 32 and a.size * 64 <= SMALL_PRODUCT < a.size * c.shape[1]
    width = SMALL_PRODUCT // a.size // 64 * 64 if skinny else c.shape[1]
    starts = range(0, c.shape[1], width)
    return [_one_product(a, b[:, i : i + width], c[:, i : i + width], alpha, beta) for i in starts]


def _one_product(a: Array, b: Array, c: Array, alpha: float, beta: float) -> Callable[[], object]:
    if c.strides[1] != 4:
        a, b, c = b.T, a.T, c.T
    flags = [111 if m.strides[1] == 4 else 112 for m in (a, b)]
    sizes = [_Integer(n) for n in (*c.shape, a.shape[1])]
    at_a, at_b, at_c = (
        (ctypes.c_void_p(m.ctypes.data), _Integer(max(m.strides) // 4)) for m in (a, b, c)
    )
    scales = ctypes.c_float(alpha), ctypes.c_float(beta)
    call = partial(_SGEMM, 101, *flags, *sizes, scales[0], *at_a, *at_b, scales[1], *at_c)
    call.operands = (a, b, c)  # type: ignore[attr-defined]  # the pointers do not keep the arrays alive
    return call


def _run(calls: Calls) -> None:
    for call in calls:
        call()


class _Peer:
    """The common constructor. ``rates`` holds one rate per weight matrix; biases use that of their
    layer.

    Weights start uniform within 0.7 / sqrt(fan_in) of zero unless given, biases at zero. Samples of
    an epoch that do not fill a batch are left out. With ``tolerance`` a phase stops once no unit of
    the batch moves as far in a step. A data set is prepared on the first epoch that sees it: do not
    write to ``x`` later.
    """

    _build: Callable[[list[Array]], None]

    def __init__(
        self,
        layers: Sequence[int],
        *,
        batch: int,
        steps_free: int,
        steps_nudged: int,
        beta: float,
        rates: Sequence[float],
        seed: int,
        threads: int,
        weights: Sequence[Array] | None = None,
        tolerance: float | None = None,
    ) -> None:
        self.layers, self.batch, self.beta, self.threads = tuple(layers), batch, beta, threads
        self.steps_free, self.steps_nudged, self.tolerance = steps_free, steps_nudged, tolerance
        self._gains = [float(rate) / (2 * beta * batch) for rate in rates]
        rng, self._seen = np.random.default_rng(seed), None
        drawn = (rng.uniform(-1, 1, shape) * 0.7 / np.sqrt(shape[0]) for shape in pairwise(layers))
        self._build([np.asarray(w, np.float32) for w in (weights or drawn)])


class _Phase:
    """States that settle together: (units, columns) is the fastest layout for BLAS on skinny
    layers."""

    def __init__(
        self, weights: list[Array], columns: int, nudge: Array | None, tolerance: float | None
    ):
        sizes = [w.shape[1] for w in weights]
        self.top, self.weights, self.nudge, self.tolerance = (
            len(sizes) - 1,
            weights,
            nudge,
            tolerance,
        )
        self.drive, self.target = _buffer(sizes[0], columns), _buffer(sizes[-1], columns)
        self.scale = 1 / (1 + (0 if nudge is None else nudge) + self.target)
        # With a tolerance two sets alternate, so the previous state is there to compare with at no
        # copy. The last row stays one: a product with weights and bias in one array needs no
        # addition.
        self.sets = [
            [_buffer(n + 1, columns, 1.0) for n in sizes] for _ in range(2 - (tolerance is None))
        ]
        self.scratch = [_buffer(n, columns) for n in sizes]
        self.state, last = self.sets[0], self.sets[-1]
        self.sweeps = [self._sweep(self.state, last), self._sweep(last, self.state)]

    def _sweep(self, old: list[Array], new: list[Array]) -> Calls:
        """One step: even layers from the old neighbours, then odd layers from the new ones."""
        calls: Calls = []
        zero, one = np.zeros((), np.float32), np.ones((), np.float32)
        for layer in (*range(0, self.top + 1, 2), *range(1, self.top + 1, 2)):
            out, near = new[layer][:-1], new if layer % 2 else old
            nudged = layer == self.top and self.nudge is not None
            if layer == 0 or nudged:
                calls.append(partial(np.copyto, out, self.target if nudged else self.drive))
            if layer > 0:
                calls += _product(self.weights[layer].T, near[layer - 1], out, beta=float(nudged))
            if layer < self.top:
                calls += _product(self.weights[layer + 1][:-1], near[layer + 1][:-1], out)
                calls.append(partial(clip, out, zero, one, out))
            elif nudged:
                calls.append(partial(np.multiply, out, self.scale, out))
        return calls

    def settle(self, steps: int) -> None:
        for values in self.state if self.nudge is None else ():
            values[:-1] = 0
        for step in range(steps):
            _run(self.sweeps[step % 2])
            if self.tolerance is not None:
                # The output first: while it still moves, the large layers need no look.
                layers = zip(*map(reversed, (*self.sets, self.scratch)), strict=True)
                moves = (np.absolute(np.subtract(a[:-1], b[:-1], c), c).max() for a, b, c in layers)
                if all(move < self.tolerance for move in moves):
                    break
        if self.tolerance is not None and steps > 0 and step % 2 == 0:
            for target, value in zip(*self.sets, strict=True):
                np.copyto(target, value)


class NumpyEP(_Peer):
    """NumPy and its own BLAS; every call of a step is prepared once and then replayed."""

    def _build(self, start: list[Array]) -> None:
        n, padded = self.batch, [-(-(m + 1) // 16) * 16 for m in self.layers]
        # One row more than units holds the bias: the first for pixels, whose tail is skipped, else
        # the last. Columns are contiguous, which makes the drive a product of plainly stored
        # operands, and padded.
        self._all = [
            _buffer(w.shape[1], m).T[: len(w) + 1] for w, m in zip(start, padded, strict=False)
        ]
        for layer, (store, given) in enumerate(zip(self._all, start, strict=True)):
            store[slice(1, None) if layer == 0 else slice(-1)] = given
        self._order, self._blas = np.arange(self.layers[0]), ThreadpoolController()
        self._input = _buffer(n, padded[0], 1.0)
        self._input_products = cache(self._prepare_products)
        self._free = free = _Phase(self._all, n, None, self.tolerance)
        self._nudged, self._copies, self._updates = [], [], []
        # In one array while call overhead counts or wide products gain; apart where that would
        # leave L2.
        joint = n <= 64 or min(self.layers[1:-1]) * (len(self.layers) - 3) >= 256
        for signs in ((1, -1),) if joint else ((1,), (-1,)):
            sign = np.repeat(np.array(signs, np.float32), n)
            phase = _Phase(self._all, len(sign), sign * np.float32(self.beta), self.tolerance)
            self._nudged.append((phase, np.arange(len(sign))))
            for to, source in zip(
                [phase.drive, *phase.state], [free.drive, *free.state], strict=True
            ):
                self._copies.append(
                    partial(np.copyto, to.reshape(-1, len(signs), n), source[:, None])
                )
            for layer in range(1, len(self._all)):
                signed, gain = phase.scratch[layer], self._gains[layer]
                self._updates.append(partial(np.multiply, phase.state[layer][:-1], sign, signed))
                self._updates += _product(phase.state[layer - 1], signed.T, self._all[layer], gain)
        plus, minus = self._nudged[0][0].state[0], self._nudged[-1][0].state[0]
        self._contrast = partial(np.subtract, plus[:-1, :n], minus[:-1, -n:], free.scratch[0])

    @property
    def weights(self) -> list[Array]:
        return [self._all[0][1:][np.argsort(self._order)], *(w[:-1].copy() for w in self._all[1:])]

    @property
    def biases(self) -> list[Array]:
        return [self._all[0][0].copy(), *(w[-1].copy() for w in self._all[1:])]

    def _prepare(self, x: Array) -> None:
        """Order pixels by how often they are used, so that what a batch leaves blank is a tail
        to skip."""
        first, used = self.weights[0], x != 0
        self._order = np.argsort(-used.sum(0), kind="stable")
        self._all[0][1:] = first[self._order]
        self._data = np.ones((len(x), self._input.shape[1]), np.float32)
        self._data[:, 1 : 1 + x.shape[1]] = x[:, self._order]
        self._seen, self._used = x, 1 + x.shape[1] - np.argmax(used[:, self._order[::-1]], axis=1)

    def _prepare_products(self, sixteens: int) -> tuple[Calls, Calls]:
        """Drive and first update for a batch whose used pixels end here: few counts occur in an
        epoch."""
        top, drive, scratch = self._all[0][: 16 * sixteens], self._free.drive, self._free.scratch[0]
        pixels = self._input[:, : len(top)].T
        return _product(top.T, pixels, drive, beta=0.0), _product(
            pixels, scratch.T, top, self._gains[0]
        )

    def train_epoch(self, x: Array, labels: Array, order: Array) -> None:
        if x is not self._seen:
            self._prepare(x)
        with self._blas.limit(limits=self.threads, user_api="blas"):
            for start in range(0, len(order) - self.batch + 1, self.batch):
                self._step(labels, order[start : start + self.batch])

    def _step(self, labels: Array, index: Array) -> None:
        np.take(self._data, index, axis=0, out=self._input, mode="clip")
        drives, updates = self._input_products(-(-int(self._used[index].max()) // 16))
        _run(drives)
        self._free.settle(self.steps_free)
        _run(self._copies)
        wanted = np.concatenate((labels[index],) * (3 - len(self._nudged)))
        for phase, columns in self._nudged:
            phase.target[:] = 0
            phase.target[wanted, columns] = phase.nudge
            phase.settle(self.steps_nudged)
        self._contrast()
        _run(updates)
        _run(self._updates)

    def predict(self, x: Array) -> Array:
        found = np.empty(len(x), np.int64)
        with self._blas.limit(limits=self.threads, user_api="blas"):
            for start in range(0, len(x), self.batch):
                part = x[start : start + self.batch]
                self._input[: len(part), 1 : 1 + x.shape[1]] = part[:, self._order]
                _run(self._input_products(self._input.shape[1] // 16)[0])
                self._free.settle(self.steps_free)
                found[start : start + len(part)] = self._free.state[-1][:-1, : len(part)].argmax(0)
        return found


class JaxEP(_Peer):
    """JAX: an epoch is one compiled scan over batches that owns (is donated) the parameters."""

    def _build(self, start: list[Array]) -> None:
        # XLA's CPU client reads NPROC at a process's first computation and never again.
        if os.environ.setdefault("NPROC", str(self.threads)) != str(self.threads):
            raise RuntimeError(
                f"JAX has {os.environ['NPROC']} threads here: use a process per thread count"
            )
        import jax

        self._jax, scan = jax, jax.lax.scan
        self._publish([(jax.numpy.array(w), jax.numpy.zeros(w.shape[1])) for w in start])
        self._epoch = jax.jit(
            lambda p, x, y, o: scan(partial(self._step, x, y), p, o)[0], donate_argnums=0
        )
        self._outputs = jax.jit(lambda p, x: self._settle(p, x @ p[0][0] + p[0][1])[-1])

    def _publish(self, params: Any) -> None:
        self._params = params
        self.weights, self.biases = ([np.array(pair[i]) for pair in params] for i in (0, 1))

    def _settle(
        self, params: Any, drive: Any, free: Any = None, nudge: Any = 0.0, target: Any = None
    ) -> Any:
        jnp, lax, top = self._jax.numpy, self._jax.lax, len(params) - 1
        # Behind a barrier the transposes are made once, not in every step.
        back = [None, *lax.optimization_barrier(tuple(w.T for w, _ in params[1:]))]

        def sweep(old: Any) -> Any:
            s = list(old)
            for layer in (*range(0, top + 1, 2), *range(1, top + 1, 2)):
                a = drive if layer == 0 else s[layer - 1] @ params[layer][0] + params[layer][1]
                if layer < top:
                    a = jnp.clip(a + s[layer + 1] @ back[layer + 1], 0, 1)
                elif free is not None:
                    a = (a + nudge * target) * (1 / (1 + nudge))
                s[layer] = a
            return tuple(s)

        def checked(carry: Any) -> Any:
            new = sweep(carry[1])
            moves = [jnp.abs(a - b).max() for a, b in zip(new, carry[1], strict=True)]
            return carry[0] + 1, new, jnp.stack(moves).max()

        steps = self.steps_free if free is None else self.steps_nudged
        start = free or tuple(jnp.zeros((drive.shape[0], n)) for n in self.layers[1:])
        if self.tolerance is None:
            return lax.fori_loop(0, steps, lambda _, s: sweep(s), start)
        carry = 0, start, jnp.float32(jnp.inf)
        return lax.while_loop(lambda c: (c[0] < steps) & (c[2] >= self.tolerance), checked, carry)[
            1
        ]

    def _step(self, data: Any, labels: Any, params: Any, index: Any) -> Any:
        jnp, x = self._jax.numpy, data[index]
        drive = x @ params[0][0] + params[0][1]
        free = self._settle(params, drive)
        twice = partial(jnp.tile, reps=(2, 1))
        sign = jnp.repeat(jnp.array([1.0, -1.0]), self.batch)[:, None]
        wanted = twice(self._jax.nn.one_hot(labels[index], self.layers[-1]))
        ends = self._settle(params, twice(drive), tuple(map(twice, free)), self.beta * sign, wanted)
        updated = []
        for layer, ((w, b), gain) in enumerate(zip(params, self._gains, strict=True)):
            signed = gain * sign * ends[layer]
            contrast = signed[: self.batch] + signed[self.batch :]
            change = ends[layer - 1].T @ signed if layer else x.T @ contrast
            updated.append((w + change, b + contrast.sum(0)))
        return updated, None

    def train_epoch(self, x: Array, labels: Array, order: Array) -> None:
        if x is not self._seen:
            self._seen, self._data = x, self._jax.device_put(x)
        batches = (
            order[: len(order) // self.batch * self.batch].reshape(-1, self.batch).astype(np.int32)
        )
        self._publish(self._epoch(self._params, self._data, labels.astype(np.int32), batches))

    def predict(self, x: Array) -> Array:
        return np.asarray(self._outputs(self._params, x)).argmax(1)


BACKENDS: dict[str, Any] = {"numpy": NumpyEP, "jax": JaxEP}


def load(inputs: int) -> tuple[Array, Array, str]:
    """MNIST's training set where it is at hand and fits, else noise as sparse as MNIST."""
    folder = Path(
        os.environ.get("PNNCORE_DATA", Path(__file__).parents[2] / "shared/data"), "mnist"
    )
    if inputs == 784 and folder.is_dir():
        files = (folder / f"train-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
        pixels, labels = (
            np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8) for file in files
        )
        return (
            pixels[16:].reshape(-1, 784).astype(np.float32) / 255,
            labels[8:].astype(np.int64),
            "MNIST",
        )
    rng = np.random.default_rng(0)
    x = rng.random((20000, inputs), np.float32) * (rng.random((20000, inputs)) < 0.19)
    return x.astype(np.float32), rng.integers(0, 10, len(x)), "synthetic, 19 % non-zero"


def sgemm_gflops(threads: int) -> float:
    """NumPy's float32 matrix product: the best of several at 1024 and 2048."""
    with threadpool_limits(threads, user_api="blas"):
        products = [(n, partial(np.matmul, *np.ones((3, n, n), np.float32))) for n in (1024, 2048)]
        return max(
            2e-9 * n**3 / min(timeit.repeat(run, number=1, repeat=10)) for n, run in products
        )


def measure(
    backend: str, threads: int, case: Sequence[Any] = (), tolerance: float | None = None
) -> Any:
    """Time ``numpy`` or ``jax`` on a case as in CASES, or ``sgemm``, in a fresh process; returns
    a dict."""
    env = {k: v for k, v in os.environ.items() if k not in UNSET}
    job = [sys.executable, __file__, "--job", json.dumps([backend, threads, case, tolerance])]
    return json.loads(subprocess.run(job, env=env, check=True, stdout=subprocess.PIPE).stdout)


def _work(
    backend: str, threads: int, case: Sequence[Any], tolerance: float | None
) -> dict[str, Any]:
    if backend == "sgemm":
        blas = next((d for d in threadpool_info() if d["user_api"] == "blas"), {})
        kernel = " ".join(str(blas.get(k)) for k in ("internal_api", "version", "architecture"))
        return {"gflops": round(sgemm_gflops(threads), 1), "kernel": kernel}
    layers, batch, free, nudged, samples = case
    x, labels, data = load(layers[0])
    peer = BACKENDS[backend](
        layers,
        batch=batch,
        steps_free=free,
        steps_nudged=nudged,
        beta=0.2,
        rates=[0.05] * (len(layers) - 1),
        seed=0,
        threads=threads,
        tolerance=tolerance,
    )
    order = np.random.default_rng(1).permutation(len(x))[:samples]
    seconds = timeit.repeat(partial(peer.train_epoch, x, labels, order), number=1, repeat=5)
    return {
        "samples_per_s": round(samples / min(seconds[1:])),
        "data": data,
    }  # the first epoch compiles


def best_threads(
    backend: str, case: Sequence[Any], tolerance: float | None = None
) -> tuple[int, Any]:
    """Return the faster of one and two threads, and what ``measure`` found for each."""
    found = {threads: measure(backend, threads, case, tolerance) for threads in (1, 2)}
    return max(found, key=lambda n: found[n]["samples_per_s"]), found


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Samples per second of each peer at its best thread count."
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(_work(*args.job)))
        return
    sgemm, rows = {n: measure("sgemm", n) for n in (1, 2)}, []
    for case in CASES:
        for backend in (b for b in BACKENDS if importlib.util.find_spec(b)):
            threads, found = best_threads(backend, case)
            rows.append({"backend": backend, "case": case, "threads": threads, "by_threads": found})
    if args.json:
        print(json.dumps({"sgemm": sgemm, "peers": rows}))
        return
    print(
        f"sgemm, {sgemm[1]['kernel']}: {sgemm[1]['gflops']} GFLOP/s on 1 thread, "
        f"{sgemm[2]['gflops']} on 2"
    )
    for row in rows:
        layers, batch, *steps, _ = row["case"]
        name = f"{'-'.join(map(str, layers))} batch {batch} {steps} {row['backend']}"
        (one, data), (two, _) = (found.values() for found in row["by_threads"].values())
        print(f"{name:44}{one:8} samples/s on 1 thread, {two:8} on 2; {data}")


if __name__ == "__main__":
    main()
