"""Optical layers beside their peers, in one run: NumPy, and where they are installed torch and JAX.

    python benches/light.py            # a table (quiet machine, please)

A mesh of interferometers: the fields of a batch of 64 through n columns, intensities, and the
gradient of a squared error by all phases, in single precision. Peers pass all interferometers of a
column at once, and keep the fields of every column; JAX compiles a scan over pairs of columns.
Milliseconds, the best of many; the share of sgemm that 60 multiply-adds per interferometer and
sample reach (16 forward, 16 to retrace fields, 16 for errors, 12 for gradients).
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None
try:
    import torch
except ImportError:
    torch = None

RNG = np.random.default_rng(0)
BATCH = 64


def best(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Milliseconds of the fastest call."""
    call()
    times = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def sgemm() -> float:
    """GFLOP/s of a large product, with all threads."""
    a, b = (RNG.normal(size=(1536, 1536)).astype(np.float32) for _ in range(2))
    return 2 * 1536**3 / best(lambda: a @ b) / 1e6


class Columns:
    """A rectangle of interferometers for the peers: phases column by column, n even.

    Odd columns are one interferometer short: a pair of the first and the last mode that is let
    through fills them.
    """

    def __init__(self, net: pnn.systems.Stack, n: int) -> None:
        self.n, self.half = n, n // 2
        theta, phi = net.params["theta1"], net.params["phi1"]
        self.phases = np.zeros((n, 2, self.half), np.float32)
        self.valid = np.ones((n, self.half), bool)
        start = 0
        for c in range(n):
            count = (n - c % 2) // 2
            self.phases[c, 0, :count] = theta[start : start + count]
            self.phases[c, 1, :count] = phi[start : start + count]
            self.valid[c, count:] = False
            start += count
        self.gamma = net.params["gamma1"].copy()


def elements(lib: Any, phases: Any, valid: Any) -> Any:
    """Return the matrices (..., 2, 2) of interferometers."""
    theta, phi = lib.exp(1j * phases[0]), lib.exp(1j * phases[1])
    a, b = (theta - 1) / 2 * phi, 1j * (theta + 1) / 2
    c, d = 1j * (theta + 1) / 2 * phi, (1 - theta) / 2
    one, zero = lib.ones_like(a), lib.zeros_like(a)
    pick = lambda made, through: lib.where(valid, made, through)  # noqa: E731
    rows = [pick(a, one), pick(b, zero), pick(c, zero), pick(d, one)]
    return lib.stack(rows, -1).reshape(*a.shape, 2, 2)


def numpy_gradient(mesh: Columns, x: Any, y: Any) -> list[Any]:
    """Forward with the fields of every column, and back: matrices per column."""
    field, kept, made = x, [], []
    for c in range(mesh.n):
        field = np.roll(field, -1, axis=1) if c % 2 else field
        pairs = field.reshape(len(x), mesh.half, 2)
        matrix = elements(np, mesh.phases[c], mesh.valid[c]).astype(np.complex64)
        kept.append(pairs)
        made.append(matrix)
        field = np.einsum("hij,bhj->bhi", matrix, pairs).reshape(len(x), mesh.n)
        field = np.roll(field, 1, axis=1) if c % 2 else field
    turn = np.exp(1j * mesh.gamma).astype(np.complex64)
    out = field * turn
    error = 2 * (np.abs(out) ** 2 - y) * out / len(x)
    gradients = [np.imag(np.conj(out) * error).sum(axis=0)]
    back = error * np.conj(turn)
    for c in reversed(range(mesh.n)):
        back = np.roll(back, -1, axis=1) if c % 2 else back
        pairs = back.reshape(len(x), mesh.half, 2)
        before = np.einsum("hji,bhj->bhi", np.conj(made[c]), pairs)
        theta, phi = np.exp(1j * mesh.phases[c])
        upper = kept[c][..., 0] * phi
        arm = theta * (upper + 1j * kept[c][..., 1]) / np.sqrt(2)
        inner = (pairs[..., 0] - 1j * pairs[..., 1]) / np.sqrt(2)
        gradients.append(np.imag(np.conj(arm) * inner).sum(axis=0))
        gradients.append(np.imag(np.conj(kept[c][..., 0]) * before[..., 0]).sum(axis=0))
        back = before.reshape(len(x), mesh.n)
        back = np.roll(back, 1, axis=1) if c % 2 else back
    return gradients


def jax_gradient(mesh: Columns, x: Any, y: Any) -> Callable[[], Any]:
    """Return a compiled gradient: a scan over pairs of columns."""
    phases = jnp.asarray(mesh.phases).reshape(mesh.n // 2, 2, 2, mesh.half)
    valid = jnp.asarray(mesh.valid).reshape(mesh.n // 2, 2, mesh.half)

    def loss(phases: Any, gamma: Any) -> Any:
        def columns(field: Any, own: Any) -> Any:
            settings, there = own
            for c in (0, 1):
                field = jnp.roll(field, -c, axis=1)
                pairs = field.reshape(len(x), mesh.half, 2)
                matrix = elements(jnp, settings[c], there[c]).astype(jnp.complex64)
                field = jnp.einsum("hij,bhj->bhi", matrix, pairs).reshape(len(x), mesh.n)
                field = jnp.roll(field, c, axis=1)
            return field, None

        field, _ = jax.lax.scan(columns, jnp.asarray(x), (phases, valid))
        out = field * jnp.exp(1j * gamma)
        return 0.5 * ((jnp.abs(out) ** 2 - y) ** 2).sum() / len(x)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1)))
    gamma = jnp.asarray(mesh.gamma)
    return lambda: jax.block_until_ready(compiled(phases, gamma))


def torch_gradient(mesh: Columns, x: Any, y: Any) -> Callable[[], Any]:
    """Return a gradient by torch, eagerly: a loop over columns."""
    phases = torch.tensor(mesh.phases, requires_grad=True)
    gamma = torch.tensor(mesh.gamma, requires_grad=True)
    valid, x, y = torch.tensor(mesh.valid), torch.tensor(x), torch.tensor(y)

    def gradient() -> Any:
        field = x
        for c in range(mesh.n):
            field = torch.roll(field, -(c % 2), 1)
            pairs = field.reshape(len(x), mesh.half, 2)
            matrix = elements(torch, phases[c], valid[c])
            field = torch.einsum("hij,bhj->bhi", matrix, pairs).reshape(len(x), mesh.n)
            field = torch.roll(field, c % 2, 1)
        out = field * torch.exp(1j * gamma)
        loss = 0.5 * ((out.abs() ** 2 - y) ** 2).sum() / len(x)
        return torch.autograd.grad(loss, (phases, gamma))

    return gradient


def mesh(n: int, rate: float) -> None:
    """Print the times of a mesh of n modes."""
    net = pnn.systems.Stack([layers.MZIMesh(n), layers.Detect()], seed=0)
    x = (RNG.normal(size=(BATCH, n)) + 1j * RNG.normal(size=(BATCH, n))).astype(np.complex64)
    y = RNG.uniform(0, 2, size=(BATCH, n)).astype(np.float32)
    backprop = methods.Backprop()
    exact = backprop.gradient(net, x, y)
    columns = Columns(net, n)
    found = numpy_gradient(columns, x, y)
    assert np.allclose(found[0], exact["gamma1"], atol=1e-5)
    assert np.allclose(found[-1], exact["phi1"][: n // 2], atol=1e-3 * np.abs(found[-1]).max())
    one, two = (best(lambda t=t: backprop.gradient(net, x, y, threads=t)) for t in (1, 2))
    rows = BATCH * 100
    trainer = pnn.Trainer(
        net, backprop, pnn.optim.SGD(1e-6), batch_size=BATCH, seed=0, progress=False
    )
    many = (np.tile(x, (100, 1)), np.tile(y, (100, 1)))
    step = best(lambda: trainer.fit(*many, epochs=1)) * BATCH / rows
    flops = 120 * BATCH * n * (n - 1) / 2
    peers = {"NumPy": best(lambda: numpy_gradient(columns, x, y))}
    if torch is not None:
        peers["torch"] = best(torch_gradient(columns, x, y))
    if jax is not None:
        peers["JAX"] = best(jax_gradient(columns, x, y))
    told = ", ".join(f"{name} {ms:.2f} ms ({ms / step:.0f}x)" for name, ms in peers.items())
    print(
        f"mesh {n}: step {step:.3f} ms on two threads ({flops / step / 1e6:.0f} GFLOP/s, "
        f"{flops / step / 1e6 / rate:.0%} of sgemm); a call for a gradient {two:.3f}, on one "
        f"thread {one:.3f}; {told}"
    )
    plain = best(lambda: net.predict(x, threads=1))
    for protocol in ("difference", "three-intensity"):
        method = methods.InSituBackprop(protocol=protocol)
        took = best(lambda method=method: method.gradient(net, x, y, threads=1))
        print(f"    in situ, {protocol}: {took:.3f} ms, {took / plain:.1f}x a pass ({plain:.3f})")


def main() -> None:
    """Print all times."""
    rate = sgemm()
    print(f"sgemm: {rate:.0f} GFLOP/s; batch {BATCH}, float32")
    for n in (8, 64, 256):
        mesh(n, rate)


if __name__ == "__main__":
    main()
