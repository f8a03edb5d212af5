"""Stacks beside their peers, in one run: NumPy (BLAS), and where they are installed torch and JAX
(compiled epochs).

    python benches/stack.py            # a table (quiet machine, please)
    python benches/stack.py --json

Samples per second of training with plain SGD in float32, and the share of sgemm that the
multiply-adds of it reach: three per weight and sample for backpropagation (two in the first layer),
fewer for direct feedback alignment. Coupled pendula: samples per second of a gradient through RK4.
Evolution: candidates per second, each on the whole batch.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pnncore as pnn
import stack_torch
from pnncore import layers, methods

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None

RNG = np.random.default_rng(0)


def best(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Seconds of the fastest call."""
    call()
    times = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def sgemm() -> float:
    """GFLOP/s of a large product."""
    a, b = (RNG.normal(size=(1536, 1536)).astype(np.float32) for _ in range(2))
    return 2 * 1536**3 / best(lambda: a @ b) / 1e9


def chain(sizes: list[int], activation: type[layers.Layer]) -> list[layers.Layer]:
    pairs = [
        layer for n, m in itertools.pairwise(sizes) for layer in (layers.Linear(n, m), activation())
    ]
    return pairs[:-1]


def ours(
    sizes: list[int],
    activation: type[layers.Layer],
    method: methods.Method,
    batch: int,
    x: Any,
    y: Any,
) -> float:
    net = pnn.systems.Stack(chain(sizes, activation), seed=0)
    trainer = pnn.Trainer(
        net, method, pnn.optim.SGD(1e-4), batch_size=batch, seed=0, progress=False
    )
    return len(x) / best(lambda: trainer.fit(x, y, epochs=1))


def numpy_training(sizes: list[int], tanh: bool, direct: bool, batch: int, x: Any, y: Any) -> float:
    weights = [
        RNG.normal(size=s).astype(np.float32) / np.float32(s[0] ** 0.5)
        for s in itertools.pairwise(sizes)
    ]
    biases = [np.zeros(n, np.float32) for n in sizes[1:]]
    feedback = [RNG.normal(size=(sizes[-1], n)).astype(np.float32) for n in sizes[1:-1]]
    targets = np.eye(sizes[-1], dtype=np.float32)[y]
    rate = np.float32(1e-4)

    def epoch() -> None:
        order = RNG.permutation(len(x))
        for first in range(0, len(x), batch):
            rows = order[first : first + batch]
            signals = [x[rows]]
            for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
                z = signals[-1] @ w
                z += b
                if k < len(weights) - 1:
                    np.tanh(z, out=z) if tanh else np.maximum(z, 0, out=z)
                signals.append(z)
            error = out = (signals[-1] - targets[rows]) / np.float32(len(rows))
            for k in reversed(range(len(weights))):
                if k < len(weights) - 1:
                    a = signals[k + 1]
                    error = error * (1 - a * a) if tanh else error * (a > 0)
                back = (out @ feedback[k - 1] if direct else error @ weights[k].T) if k else None
                weights[k] -= signals[k].T @ (rate * error)
                biases[k] -= rate * error.sum(axis=0)
                error = back

    return len(x) / best(epoch)


def jax_training(
    sizes: list[int], tanh: bool, direct: bool, batch: int, x: Any, y: Any
) -> float | None:
    if jax is None:
        return None
    params = [
        (jnp.asarray(RNG.normal(size=s) / s[0] ** 0.5, jnp.float32), jnp.zeros(s[1], jnp.float32))
        for s in itertools.pairwise(sizes)
    ]
    feedback = [jnp.asarray(RNG.normal(size=(sizes[-1], n)), jnp.float32) for n in sizes[1:-1]]
    act = jnp.tanh if tanh else jax.nn.relu

    def loss(params: Any, x: Any, t: Any) -> Any:
        for w, b in params[:-1]:
            x = act(x @ w + b)
        return 0.5 * ((x @ params[-1][0] + params[-1][1] - t) ** 2).sum() / len(x)

    def told(params: Any, x: Any, t: Any) -> Any:
        signals = [x]
        for w, b in params[:-1]:
            signals.append(act(signals[-1] @ w + b))
        e = (signals[-1] @ params[-1][0] + params[-1][1] - t) / len(x)
        deltas = [
            e @ f * ((1 - a * a) if tanh else (a > 0))
            for f, a in zip(feedback, signals[1:], strict=True)
        ] + [e]
        return [(s.T @ d, d.sum(axis=0)) for s, d in zip(signals, deltas, strict=True)]

    gradient = told if direct else jax.grad(loss)
    steps = len(x) // batch

    @jax.jit
    def epoch(params: Any, x: Any, t: Any) -> Any:
        def step(params: Any, data: Any) -> Any:
            g = gradient(params, *data)
            return jax.tree.map(lambda p, d: p - 1e-4 * d, params, g), None

        return jax.lax.scan(step, params, (x, t))[0]

    xs = jnp.asarray(x[: steps * batch]).reshape(steps, batch, -1)
    ts = jnp.asarray(np.eye(sizes[-1], dtype=np.float32)[y[: steps * batch]]).reshape(
        steps, batch, -1
    )
    return steps * batch / best(lambda: jax.block_until_ready(epoch(params, xs, ts)))


def training(
    name: str, sizes: list[int], tanh: bool, direct: bool, batch: int, samples: int
) -> dict[str, Any]:
    x = RNG.random((samples, sizes[0]), dtype=np.float32)
    y = RNG.integers(0, sizes[-1], samples)
    method = methods.DirectFeedbackAlignment() if direct else methods.Backprop()
    activation = layers.Tanh if tanh else layers.ReLU
    rate = ours(sizes, activation, method, batch, x, y)
    weights = [n * m for n, m in itertools.pairwise(sizes)]
    told = sum(sizes[-1] * n for n in sizes[1:-1])
    per_sample = 2 * sum(weights) + (told if direct else sum(weights[1:]))
    numpy_rate = numpy_training(sizes, tanh, direct, batch, x, y)
    torch_rate = None if direct else stack_torch.training(sizes, tanh, batch, x, y, best)
    peers = {
        "numpy": numpy_rate,
        "torch": torch_rate,
        "jax": jax_training(sizes, tanh, direct, batch, x, y),
    }
    return row(name, rate, peers, 2 * per_sample)


def row(name: str, own: float, peers: dict[str, float | None], flops: float) -> dict[str, Any]:
    return {"case": name, "ours": own, **peers, "gflops": own * flops / 1e9}


def pendula(n: int = 196, batch: int = 32, steps: int = 50) -> dict[str, Any]:
    x = RNG.normal(size=(batch, n)).astype(np.float32)
    target = np.zeros((batch, n), np.float32)
    net = pnn.systems.Stack([layers.Pendula(n, 5.0, steps)], seed=0)
    # One step is one forward and one backward walk.
    trainer = pnn.Trainer(
        net, methods.Backprop(), pnn.optim.SGD(1e-6), batch_size=batch, seed=0, progress=False
    )
    data = np.tile(x, (16, 1)), np.tile(target, (16, 1))
    own = len(data[0]) / best(lambda: trainer.fit(*data, epochs=1), 3.0)
    h = np.float32(5.0 / steps)
    couplings = net.params["J1"].copy()

    def force(q: Any, j: Any, sums: Any, sin: Any) -> Any:
        s = sin(q)
        return s @ j - s * sums

    def gradient() -> None:
        """RK4 and its transpose, by hand: the stages of every step are kept."""
        q, p = x, np.zeros_like(x)
        turned = np.ascontiguousarray(couplings.T)
        sums = 1 + couplings.sum(axis=0)
        kept = []
        for _ in range(steps):
            stages, rates = [q], [(p, force(q, couplings, sums, np.sin))]
            for c in (h / 2, h / 2, h):
                stages.append(q + c * rates[-1][0])
                rates.append((p + c * rates[-1][1], force(stages[-1], couplings, sums, np.sin)))
            kept.append(stages)
            q = q + h / 6 * (rates[0][0] + 2 * rates[1][0] + 2 * rates[2][0] + rates[3][0])
            p = p + h / 6 * (rates[0][1] + 2 * rates[1][1] + 2 * rates[2][1] + rates[3][1])
        back_q, back_p = q / batch, np.zeros_like(q)
        total = np.zeros_like(couplings)
        for stages in reversed(kept):
            sum_q, sum_p = back_q.copy(), back_p.copy()
            g_q = g_p = np.float32(0)
            for a, weight, c in zip(
                reversed(stages), (h / 6, h / 3, h / 3, h / 6), (0, h, h / 2, h / 2), strict=True
            ):
                l_q, l_p = weight * back_q + c * g_q, weight * back_p + c * g_p
                s = np.sin(a)
                total += s.T @ l_p - (s * l_p).sum(axis=0)
                g_q, g_p = np.cos(a) * (l_p @ turned - sums * l_p), l_q
                sum_q += g_q
                sum_p += g_p
            back_q, back_p = sum_q, sum_p

    numpy_rate = batch / best(gradient, 3.0)
    jax_rate = None
    if jax is not None:

        def loss(j: Any, x: Any) -> Any:
            def rate(s: Any) -> Any:
                return s[1], force(s[0], j, 1 + j.sum(axis=0), jnp.sin)

            def step(s: Any, _: Any) -> Any:
                def moved(k: Any, c: Any) -> Any:
                    return s[0] + c * k[0], s[1] + c * k[1]

                k1 = rate(s)
                k2 = rate(moved(k1, h / 2))
                k3 = rate(moved(k2, h / 2))
                k4 = rate(moved(k3, h))
                q, p = (
                    v + h / 6 * (a + 2 * b + 2 * c + d)
                    for v, a, b, c, d in zip(s, k1, k2, k3, k4, strict=True)
                )
                return (q, p), None

            (q, _), _ = jax.lax.scan(step, (x, jnp.zeros_like(x)), None, length=steps)
            return 0.5 * (q**2).sum() / batch

        compiled = jax.jit(jax.grad(loss))
        j, xs = jnp.asarray(couplings), jnp.asarray(x)
        jax_rate = batch / best(lambda: jax.block_until_ready(compiled(j, xs)), 3.0)
    # Four products forward, four backward, and the couplings' four.
    peers = {
        "numpy": numpy_rate,
        "torch": stack_torch.pendula(couplings, x, float(h), steps, best),
        "jax": jax_rate,
    }
    return row(f"pendula {n}, batch {batch}, {steps} steps", own, peers, 2 * steps * 12 * n * n)


def evolution(sizes: list[int], pairs: int = 32, batch: int = 64) -> dict[str, Any]:
    x = RNG.random((batch, sizes[0]), dtype=np.float32)
    y = RNG.integers(0, sizes[-1], batch)
    net = pnn.systems.Stack(chain(sizes, layers.Tanh), seed=0)
    method = methods.EvolutionStrategy(directions=pairs, sigma=0.05)
    trainer = pnn.Trainer(
        net, method, pnn.optim.SGD(1e-4), batch_size=batch, seed=0, progress=False
    )
    repeated = np.tile(x, (8, 1)), np.tile(y, 8)
    own = 8 * 2 * pairs / best(lambda: trainer.fit(*repeated, epochs=1))
    shapes = [(n + 1, m) for n, m in itertools.pairwise(sizes)]
    values = [RNG.normal(size=s).astype(np.float32) * np.float32(s[0] ** -0.5) for s in shapes]
    target = np.eye(sizes[-1], dtype=np.float32)[y]

    def generation() -> None:
        noise = [RNG.standard_normal((pairs, *s), dtype=np.float32) for s in shapes]
        losses = []
        for sign in (np.float32(0.05), np.float32(-0.05)):
            signal = np.broadcast_to(x, (pairs, *x.shape))
            for k, (v, eps) in enumerate(zip(values, noise, strict=True)):
                moved = v + sign * eps
                signal = signal @ moved[:, :-1] + moved[:, -1:]
                signal = np.tanh(signal) if k < len(values) - 1 else signal
            losses.append(0.5 * ((signal - target) ** 2).sum(axis=(1, 2)) / batch)
        weights = ((losses[0] - losses[1]) / np.float32(2 * 0.05 * pairs)).astype(np.float32)
        for v, eps in zip(values, noise, strict=True):
            v -= np.float32(1e-4) * np.tensordot(weights, eps, axes=1)

    numpy_rate = 2 * pairs / best(generation)
    jax_rate = None
    if jax is not None:

        def population(values: Any, key: Any) -> Any:
            def loss(values: Any) -> Any:
                signal = jx
                for k, v in enumerate(values):
                    signal = signal @ v[:-1] + v[-1]
                    signal = jnp.tanh(signal) if k < len(values) - 1 else signal
                return 0.5 * ((signal - jt) ** 2).sum() / batch

            keys = jax.random.split(key, len(values))
            noise = [
                jax.random.normal(k, (pairs, *v.shape)) for k, v in zip(keys, values, strict=True)
            ]
            plus = jax.vmap(loss)([v + 0.05 * e for v, e in zip(values, noise, strict=True)])
            minus = jax.vmap(loss)([v - 0.05 * e for v, e in zip(values, noise, strict=True)])
            weights = (plus - minus) / (0.1 * pairs)
            return [
                v - 1e-4 * jnp.tensordot(weights, e, axes=1)
                for v, e in zip(values, noise, strict=True)
            ]

        jx, jt = jnp.asarray(x), jnp.asarray(target)
        compiled, key = jax.jit(population), jax.random.key(0)
        jv = [jnp.asarray(v) for v in values]
        jax_rate = 2 * pairs / best(lambda: jax.block_until_ready(compiled(jv, key)))
    name = f"evolution, {net.n_params:,} parameters, batch {batch}"
    peers = {"numpy": numpy_rate, "torch": None, "jax": jax_rate}
    return row(name, own, peers, 2 * batch * sum((a - 1) * b for a, b in shapes))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    peak = sgemm()
    cases = [
        lambda: training(
            "backprop 784-256-128-10, batch 64", [784, 256, 128, 10], False, False, 64, 12800
        ),
        lambda: training(
            "direct feedback 784-256-128-10, batch 64", [784, 256, 128, 10], False, True, 64, 12800
        ),
        lambda: training(
            "backprop 64-16-16-16-10, batch 16", [64, 16, 16, 16, 10], True, False, 16, 12800
        ),
        pendula,
        lambda: evolution([64, 16, 10]),
        lambda: evolution([64, 128, 10]),
        lambda: evolution([784, 128, 10]),
    ]
    found = [case() for case in cases]
    if arguments.json:
        print(json.dumps({"sgemm_gflops": peak, "cases": found}))
        return
    print(f"sgemm: {peak:.0f} GFLOP/s; rates per second (samples; candidates for evolution)")
    names = ("numpy", "torch", "jax")
    heads = "".join(f" {name:>10s} {'ratio':>6s}" for name in names)
    print(f"{'':42s} {'ours':>10s}{heads} {'of sgemm':>9s}")
    for case in found:
        told = ""
        for rate in (case[name] for name in names):
            told += (
                f" {'-':>10s} {'':>6s}"
                if rate is None
                else f" {rate:10,.0f} {case['ours'] / rate:5.1f}x"
            )
        print(f"{case['case']:42s} {case['ours']:10,.0f}{told} {100 * case['gflops'] / peak:8.0f}%")


if __name__ == "__main__":
    main()
