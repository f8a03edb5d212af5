"""Peer implementations of equilibrium propagation on dense layered Hopfield networks, to benchmark against.

What a careful user reaches with NumPy or JAX on a CPU, every shortcut exact: the input drive is computed once per
batch, pixels that are zero in the whole batch are left out, +beta and -beta settle together, every product
accumulates in place, and the contrast of the two phases goes straight into the weights.

``python benches/peers.py`` prints samples per second beside the machine's sgemm rate. Every figure comes from a
process of its own, so that thread counts and BLAS kernels are what the table says.
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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_info

try:  # np.clip spends 1.5 us in Python before it reaches this ufunc: a third of a step on a small network
    from numpy._core.umath import clip as _clip
except ImportError:
    from numpy import clip as _clip

Array = np.ndarray
Calls = list[Callable[[], object]]

# These force a current OpenBLAS onto an older kernel or smaller blocks.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# OpenBLAS runs skinny products three times faster below this many multiplications (its small-matrix kernels).
SMALL_PRODUCT = 1_000_000
GAIN = 0.7

# name, layers, batch, free steps, nudged steps, samples per timed epoch
CASES: dict[str, tuple[tuple[int, ...], int, int, int, int]] = {
    "784-512-10 batch 128": ((784, 512, 10), 128, 20, 10, 12800),
    "784-512-10 batch 16": ((784, 512, 10), 16, 20, 10, 6400),
    "64-128-10 batch 32": ((64, 128, 10), 32, 20, 10, 12800),
    "784-1024-1024-10 batch 128": ((784, 1024, 1024, 10), 128, 50, 20, 1280),
}


def initial_weights(layers: Sequence[int], seed: int) -> list[Array]:
    """Uniform weights of half-width ``GAIN / sqrt(fan_in)``, one (n_pre, n_post) array per pair of layers."""
    rng = np.random.default_rng(seed)
    return [(rng.uniform(-1, 1, shape) * GAIN / np.sqrt(shape[0])).astype(np.float32) for shape in _pairs(layers)]


def _pairs(layers: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(layers[:-1], layers[1:], strict=True))


def _buffer(*shape: int) -> Array:
    """Zeros that start on a cache line: NumPy's do not, and AVX-512 loads then straddle two."""
    count = int(np.prod(shape))
    raw = np.zeros(count + 16, np.float32)
    skip = -(raw.ctypes.data // 4) % 16
    return raw[skip : skip + count].reshape(shape)


def _run(calls: Calls) -> None:
    for call in calls:
        call()


def _find_sgemm() -> tuple[Any, Any] | None:
    """Return NumPy's own cblas_sgemm and its integer type; np.matmul cannot accumulate."""
    blas = [d for d in threadpool_info() if d["user_api"] == "blas"]
    blas.sort(key=lambda d: "numpy" not in d["filepath"])
    names = (("scipy_cblas_sgemm64_", 64), ("cblas_sgemm64_", 64), ("scipy_cblas_sgemm", 32), ("cblas_sgemm", 32))
    for info in blas[:1]:
        library = ctypes.CDLL(info["filepath"])
        for name, bits in names:
            if hasattr(library, name):
                function = getattr(library, name)
                function.restype = None
                return function, ctypes.c_int64 if bits == 64 else ctypes.c_int32
    return None


_SGEMM = _find_sgemm()


def _product(a: Array, b: Array, c: Array, alpha: float = 1.0, beta: float = 1.0) -> Calls:
    """Prepare ``c = alpha a @ b + beta c``, in column tiles where that reaches the small-matrix kernels."""
    inner, columns = a.shape[1], c.shape[1]
    if min(*a.shape) <= 32 and c.size * inner > SMALL_PRODUCT >= c.shape[0] * inner * 64:
        cuts = range(0, columns, 64)
        return [_one_product(a, b[:, i : i + 64], c[:, i : i + 64], alpha, beta) for i in cuts]
    return [_one_product(a, b, c, alpha, beta)]


def _one_product(a: Array, b: Array, c: Array, alpha: float, beta: float) -> Callable[[], object]:
    if _SGEMM is None:
        return partial(_numpy_product, a, b, c, np.float32(alpha), np.float32(beta))
    item = c.itemsize
    if c.strides[1] != item:
        a, b, c = b.T, a.T, c.T
    function, integer = _SGEMM

    def operand(m: Array) -> tuple[Any, Any]:
        plain = m.strides[1] == item
        return ctypes.c_int(111 if plain else 112), integer(m.strides[0 if plain else 1] // item)

    (flag_a, lda), (flag_b, ldb) = operand(a), operand(b)
    order, ldc = ctypes.c_int(101), integer(c.strides[0] // item)
    sizes = (integer(c.shape[0]), integer(c.shape[1]), integer(a.shape[1]))
    pa, pb, pc = (ctypes.c_void_p(m.ctypes.data) for m in (a, b, c))
    call = partial(
        function, order, flag_a, flag_b, *sizes, ctypes.c_float(alpha), pa, lda, pb, ldb, ctypes.c_float(beta), pc, ldc
    )
    call.operands = (a, b, c)  # type: ignore[attr-defined]  # the pointers do not keep the arrays alive
    return call


def _numpy_product(a: Array, b: Array, c: Array, alpha: np.float32, beta: np.float32) -> None:
    product = a @ b
    product *= alpha
    np.add(product, c, out=c) if beta else np.copyto(c, product)


class _Tile:
    """Columns of a batch that settle together; states are (units, columns), fastest for BLAS on skinny layers.

    Each state has a last row of ones, so that a product with weights and bias in one array needs no addition.
    """

    def __init__(self, weights: list[Array], drive: Array, nudge: Array | None, tolerance: float | None) -> None:
        sizes, columns = [w.shape[1] for w in weights], drive.shape[1]
        self.top = len(sizes) - 1
        self.weights, self.drive, self.nudge, self.tolerance = weights, drive, nudge, tolerance
        # With a tolerance two sets alternate, so the previous state is there to compare with at no copy.
        self.sets = [[_buffer(n + 1, columns) for n in sizes] for _ in range(1 if tolerance is None else 2)]
        for state in self.sets:
            for values in state:
                values[-1] = 1
        self.scratch = [_buffer(n, columns) for n in sizes]
        self.target = _buffer(sizes[-1], columns)
        if nudge is not None:
            self.scale = np.ascontiguousarray(np.broadcast_to(1 / (1 + nudge), self.target.shape))
        self.state, last = self.sets[0], self.sets[-1]
        self.from_rest = self._sweep(self.state, self.state, rest=True)
        self.sweeps = [self._sweep(self.state, last)]
        if tolerance is not None:
            self.sweeps.append(self._sweep(last, self.state))

    def _sweep(self, old: list[Array], new: list[Array], rest: bool = False) -> Calls:
        """One step: even layers from the old neighbours, then odd layers from the new ones."""
        calls: Calls = []
        zero, one = np.zeros((), np.float32), np.ones((), np.float32)
        for layer in (*range(0, self.top + 1, 2), *range(1, self.top + 1, 2)):
            odd = layer % 2
            out, near, silent = new[layer][:-1], new if odd else old, rest and not odd
            nudged = layer == self.top and self.nudge is not None
            if layer == 0 or nudged:
                calls.append(partial(np.copyto, out, self.target if nudged else self.drive))
            if layer > 0 and silent:
                calls.append(partial(np.copyto, out, self.weights[layer][-1][:, None]))
            elif layer > 0:
                calls += _product(self.weights[layer].T, near[layer - 1], out, beta=float(nudged))
            if layer < self.top:
                if not silent:
                    calls += _product(self.weights[layer + 1][:-1], near[layer + 1][:-1], out)
                calls.append(partial(_clip, out, zero, one, out))
            elif nudged:
                calls.append(partial(np.multiply, out, self.scale, out))
        return calls

    def settle(self, steps: int, rest: bool) -> None:
        if rest:
            for call in self.from_rest:
                call()
            steps -= 1
        if self.tolerance is None:
            for _ in range(steps):
                for call in self.sweeps[0]:
                    call()
            return
        side = 0
        for _ in range(steps):
            for call in self.sweeps[side]:
                call()
            side ^= 1
            if self._settled():
                break
        if side:
            for target, value in zip(*self.sets, strict=True):
                np.copyto(target, value)

    def _settled(self) -> bool:
        # The output first: while it still moves, the large layers need no look.
        for layer in range(self.top, -1, -1):
            change = self.scratch[layer]
            np.subtract(self.sets[0][layer][:-1], self.sets[1][layer][:-1], change)
            if np.absolute(change, change).max() >= self.tolerance:
                return False
        return True


class NumpyEP:
    """Centred equilibrium propagation in NumPy.

    Samples of an epoch that do not fill a batch are left out. The data set is prepared on the first epoch that sees
    it (pixels in order of frequency, so that a batch's blank pixels are a tail that its products skip): do not
    write to ``x`` between epochs. With ``tolerance`` a tile of the batch (all of it up to 128 samples) stops when
    no unit moves by as much.
    """

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
        self.steps_free, self.steps_nudged = steps_free, steps_nudged
        # One row more than inputs holds the bias: the first for the pixels, whose tail is skipped, else the last.
        # Columns are contiguous, which makes the drive a product of two plainly stored operands, and padded.
        self._all = [_buffer(n, -(-(m + 1) // 16) * 16).T[: m + 1] for m, n in _pairs(layers)]
        self._order = np.arange(layers[0])
        start = initial_weights(layers, seed) if weights is None else weights
        for layer, (store, given) in enumerate(zip(self._all, start, strict=True)):
            store[slice(1, None) if layer == 0 else slice(-1)] = given
        self._seen: Array | None = None
        self._blas = [c for c in ThreadpoolController().lib_controllers if c.user_api == "blas"]
        self._input = _buffer(batch, -(-(layers[0] + 1) // 16) * 16)
        self._input_calls: dict[int, tuple[Calls, Calls]] = {}
        self._alpha = [float(r) / (2 * beta * batch) for r in rates]
        self._free: list[tuple[_Tile, slice]] = []
        self._nudged: list[tuple[_Tile, slice, Array]] = []
        self._copies: Calls = []
        self._contrasts: Calls = []
        self._updates: Calls = []
        wide = len(layers) > 3 and min(layers[1:-1]) >= 256
        width = batch if wide else 128
        for low in range(0, batch, width):
            self._add_tile(slice(low, min(low + width, batch)), wide, tolerance)

    def _add_tile(self, rows: slice, wide: bool, tolerance: float | None) -> None:
        n = rows.stop - rows.start
        drive = _buffer(self.layers[1], n)
        free = _Tile(self._all, drive, None, tolerance)
        self._free.append((free, rows))
        stacked = wide or 2 * n <= 128
        tiles = []
        for signs in ((1, -1),) if stacked else ((1,), (-1,)):
            sign = np.repeat(np.array(signs, np.float32), n)
            shared = _buffer(self.layers[1], len(sign)) if stacked else drive
            tile = _Tile(self._all, shared, sign * np.float32(self.beta), tolerance)
            tiles.append(tile)
            self._nudged.append((tile, rows, np.arange(len(sign))))
            copied = [*zip(tile.state, free.state, strict=True), *([(shared, drive)] if stacked else [])]
            for target, source in copied:
                spread = target.reshape(-1, len(signs), n)
                self._copies.append(partial(np.copyto, spread, source[:, None]))
            for layer in range(1, len(self._all)):
                signed = tile.scratch[layer]
                self._updates.append(partial(np.multiply, tile.state[layer][:-1], sign, signed))
                self._updates += _product(tile.state[layer - 1], signed.T, self._all[layer], self._alpha[layer])
        plus, minus = tiles[0].state[0][:-1, :n], tiles[-1].state[0][:-1, -n:]
        self._contrasts.append(partial(np.subtract, plus, minus, free.scratch[0]))

    @property
    def weights(self) -> list[Array]:
        """The weights as (n_pre, n_post) arrays, inputs in the caller's order."""
        return [self._all[0][1:][np.argsort(self._order)], *(w[:-1].copy() for w in self._all[1:])]

    @property
    def biases(self) -> list[Array]:
        return [self._all[0][0].copy(), *(w[-1].copy() for w in self._all[1:])]

    @contextmanager
    def _pool(self) -> Iterator[None]:
        before = [c.num_threads for c in self._blas]
        try:
            for c in self._blas:
                c.set_num_threads(self.threads)
            yield
        finally:
            for c, n in zip(self._blas, before, strict=True):
                c.set_num_threads(n)

    def _prepare(self, x: Array) -> None:
        if x is self._seen:
            return
        first, used = self.weights[0], x != 0
        self._order = np.argsort(-used.sum(0), kind="stable")
        self._data = np.ones((len(x), self._input.shape[1]), np.float32)
        self._data[:, 1 : 1 + x.shape[1]] = x[:, self._order]
        self._used = 1 + x.shape[1] - np.argmax(used[:, self._order[::-1]], axis=1)
        self._all[0][1:] = first[self._order]
        self._seen = x

    def _input_products(self, used: int) -> tuple[Calls, Calls]:
        """Prepare drive and first update for inputs that are zero beyond ``used``; few distinct counts occur."""
        used = min(-(-used // 16) * 16, self.layers[0] + 1)
        if used not in self._input_calls:
            drives, updates = [], []
            top = self._all[0][:used]
            for tile, rows in self._free:
                pixels = self._input[rows, :used].T
                drives += _product(top.T, pixels, tile.drive, beta=0.0)
                updates += _product(pixels, tile.scratch[0].T, top, self._alpha[0])
            self._input_calls[used] = drives, updates
        return self._input_calls[used]

    def train_epoch(self, x: Array, labels: Array, order: Array) -> None:
        self._prepare(x)
        with self._pool():
            for start in range(0, len(order) - self.batch + 1, self.batch):
                self._step(labels, order[start : start + self.batch])

    def _step(self, labels: Array, index: Array) -> None:
        np.take(self._data, index, axis=0, out=self._input, mode="clip")
        drives, updates = self._input_products(int(self._used[index].max()))
        self._settle_free(drives)
        _run(self._copies)
        wanted = labels[index]
        for tile, rows, columns in self._nudged:
            mine = wanted[rows]
            tile.target[:] = 0
            tile.target[mine if len(mine) == len(columns) else np.concatenate((mine, mine)), columns] = tile.nudge
            tile.settle(self.steps_nudged, rest=False)
        _run(self._contrasts)
        _run(updates)
        _run(self._updates)

    def _settle_free(self, drives: Calls) -> None:
        _run(drives)
        for tile, _ in self._free:
            tile.settle(self.steps_free, rest=True)

    def predict(self, x: Array) -> Array:
        found = np.empty(len(x), np.int64)
        first = np.asfortranarray(np.concatenate((self._all[0][:1], self.weights[0])))
        self._input[:, 0] = 1
        drives: Calls = []
        for tile, rows in self._free:
            drives += _product(first.T, self._input[rows, : len(first)].T, tile.drive, beta=0.0)
        with self._pool():
            for start in range(0, len(x), self.batch):
                part = x[start : start + self.batch]
                self._input[: len(part), 1 : len(first)] = part
                self._settle_free(drives)
                outputs = np.concatenate([tile.state[-1][:-1] for tile, _ in self._free], axis=1)
                found[start : start + len(part)] = outputs.argmax(0)[: len(part)]
        return found
