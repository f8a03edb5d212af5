"""Light in free space and in a slab beside its peers, in one run: SciPy, torch, MKL and JAX.

    python benches/diffraction.py      # a table (quiet machine, please)

A diffractive network of five planes of 200 x 200 pixels, 40 wavelengths apart: the gradient of a
batch of 32 by all phases, in single precision, from errors of ten regions' powers. Peers pad
to 400 x 400, which leaves 14 % of what wraps around (docs/light.md), and transform all of it;
here nothing wraps around, and what is zero or thrown away is not transformed. A waveguide of 2048
points and 200 steps, batch 32: intensities, and their gradient by the phases of all steps.
Milliseconds, the best of several; the rate counts 5 n log2(n) operations for every transform of n
points that is made here, and nothing else.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import layers, methods

try:
    import torch
except ImportError:
    torch = None
try:
    import scipy.fft as scipy_fft
except ImportError:
    scipy_fft = None
try:
    import mkl_fft
except ImportError:
    mkl_fft = None
try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None

RNG = np.random.default_rng(0)
BATCH, PIXELS, PLANES, PADDED = 32, 200, 5, 400
POINTS, STEPS = 2048, 200


def best(call: Callable[[], Any], seconds: float = 3.0) -> float:
    """Milliseconds of the fastest call."""
    call()
    times = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def operations(points: int) -> float:
    """Operations of a transform."""
    return 5 * points * np.log2(points)


REGIONS = layers.DetectorRegions(10, (PIXELS, PIXELS), gain=None)


def network() -> tuple[pnn.systems.Stack, Any, Any]:
    """Return the network, fields and targets."""
    geometry = {"distance": 40.0, "wavelength": 1.0, "pitch": 0.53}
    chain = [layers.Diffraction((PIXELS, PIXELS), **geometry) for _ in range(PLANES)]
    net = pnn.systems.Stack([*chain, REGIONS], seed=0)
    x = RNG.normal(size=(BATCH, PIXELS**2)) + 0j
    return net, x.astype(np.complex64), RNG.random((BATCH, 10)).astype(np.float32)


def transfer() -> Any:
    """Return the transfer function of a gap on the padded grid."""
    f = np.fft.fftfreq(PADDED, 0.53)
    axial = np.sqrt((1 - f[:, None] ** 2 - f**2).astype(complex))
    return np.exp(2j * np.pi * 40.0 * axial).astype(np.complex64)


def numpy_gradient(net: pnn.systems.Stack, x: Any, y: Any, fft: Any) -> list[Any]:
    """Fields plane by plane, and errors back, by the transforms of a library."""
    masks = [np.exp(1j * net.params[f"phase{k + 1}"]).astype(np.complex64) for k in range(PLANES)]
    way = transfer()

    def cross(field: Any, factors: Any) -> Any:
        padded = np.zeros((BATCH, PADDED, PADDED), np.complex64)
        padded[:, :PIXELS, :PIXELS] = field
        return fft.ifft2(fft.fft2(padded) * factors)[:, :PIXELS, :PIXELS]

    field, kept = x.reshape(BATCH, PIXELS, PIXELS), []
    for mask in masks:
        kept.append(field * mask)
        field = cross(kept[-1], way)
    error = np.zeros_like(field)
    for k, (top, left, bottom, right) in enumerate(REGIONS.regions):
        own = field[:, top:bottom, left:right]
        off = (np.abs(own) ** 2).sum(axis=(1, 2)) - y[:, k]
        error[:, top:bottom, left:right] = 2 * off[:, None, None] * own / BATCH
    gradients = []
    for mask, own in zip(reversed(masks), reversed(kept), strict=True):
        back = cross(error, way.conj())
        gradients.append(np.imag(own.conj() * back).sum(axis=0))
        error = back * mask.conj()
    return gradients[::-1]


class Parallel:
    """SciPy's transforms, on all cores."""

    @staticmethod
    def fft2(x: Any) -> Any:
        return scipy_fft.fft2(x, workers=-1, overwrite_x=True)

    @staticmethod
    def ifft2(x: Any) -> Any:
        return scipy_fft.ifft2(x, workers=-1, overwrite_x=True)


def torch_gradient(net: pnn.systems.Stack, x: Any, y: Any) -> Callable[[], Any]:
    """Return torch's gradient, by its autodiff."""
    phases = [torch.tensor(net.params[f"phase{k + 1}"], requires_grad=True) for k in range(PLANES)]
    way = torch.tensor(transfer())
    fields = torch.tensor(x).reshape(BATCH, PIXELS, PIXELS)
    wanted = torch.tensor(y)

    def run() -> Any:
        field = fields
        for phase in phases:
            masked = field * torch.exp(1j * phase)
            spectrum = torch.fft.fft2(masked, s=(PADDED, PADDED)) * way
            field = torch.fft.ifft2(spectrum)[:, :PIXELS, :PIXELS]
        intensity = field.real**2 + field.imag**2
        powers = [intensity[:, t:b, le:r].sum(dim=(1, 2)) for t, le, b, r in REGIONS.regions]
        loss = 0.5 * ((torch.stack(powers, dim=1) - wanted) ** 2).sum() / BATCH
        return torch.autograd.grad(loss, phases)

    return run


def diffraction() -> None:
    """Time the network."""
    net, x, y = network()
    method = methods.Backprop(loss="squared-error")
    gradients = method.gradient(net, x, y)
    own = best(lambda: method.gradient(net, x, y))
    # Of every gap: 200 rows and 432 columns twice; once forward and once back.
    count = BATCH * 2 * PLANES * 2 * (PIXELS + 432)
    rate = count * operations(432) / own / 1e6
    print(f"diffraction, {PLANES} planes of {PIXELS}²: {own:.0f} ms, transforms {rate:.0f} GFLOP/s")
    runs = {}
    if scipy_fft is not None:
        runs["scipy"] = lambda: numpy_gradient(net, x, y, Parallel)
    if mkl_fft is not None:
        runs["mkl"] = lambda: numpy_gradient(net, x, y, mkl_fft)
    if torch is not None:
        runs["torch"] = torch_gradient(net, x, y)
    for name, run in runs.items():
        found = run()
        off = max(
            float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))
            for a, b in zip(found, gradients.values(), strict=True)
        )
        other = best(run)
        print(f"  {name}: {other:.0f} ms, {other / own:.1f}x; gradients differ by {off:.2f}")


def guide() -> tuple[pnn.systems.Stack, Any, Any]:
    """Return a waveguide, fields and targets."""
    layer = layers.Waveguide(
        POINTS, 4.0 * POINTS, 4000.0, 1.5, index_range=0.01, steps=STEPS, absorber=0.05
    )
    net = pnn.systems.Stack([layer, layers.Detect()], seed=0)
    x = RNG.normal(size=(BATCH, POINTS)) + 1j * RNG.normal(size=(BATCH, POINTS))
    return net, x.astype(np.complex64), RNG.random((BATCH, POINTS)).astype(np.float32)


def guide_constants(layer: layers.Waveguide) -> tuple[Any, Any, float]:
    """Return what half a step does to spectra, what a step leaves at each point, and k0 dz."""
    dz, k0 = layer.length / layer.steps, 2 * np.pi / layer.wavelength
    kx = 2 * np.pi * np.fft.fftfreq(POINTS, layer.width / POINTS)
    half = np.exp(-0.5j * kx**2 * dz / (2 * k0 * layer.index)).astype(np.complex64)
    place, edge = np.arange(POINTS) + 0.5, layer.absorber * layer.width
    depth = np.minimum(place, POINTS - place) * layer.width / POINTS
    rate = 6.9 * layer.wavelength * POINTS / (4 * layer.index * layer.width) / edge
    left = np.exp(-rate * np.maximum(0, 1 - depth / edge) ** 2 * dz)
    return half, left.astype(np.float32), k0 * dz


def torch_guide(net: pnn.systems.Stack, x: Any, y: Any) -> Callable[[], Any]:
    """Return torch's gradient by all logits."""
    layer = net.layers[0]
    half, left, turn = guide_constants(layer)
    half, left = torch.tensor(half), torch.tensor(left)
    logits = torch.tensor(net.params["logit1"], requires_grad=True)
    fields, wanted = torch.tensor(x), torch.tensor(y)

    def run() -> Any:
        steps = torch.exp(1j * (turn * layer.index_range) * torch.sigmoid(logits)) * left
        field = torch.fft.ifft(half * torch.fft.fft(fields))
        for k in range(STEPS):
            way = half * half if k + 1 < STEPS else half
            field = torch.fft.ifft(way * torch.fft.fft(field * steps[k]))
        intensity = field.real**2 + field.imag**2
        return torch.autograd.grad(0.5 * ((intensity - wanted) ** 2).sum() / BATCH, [logits])

    return run


def jax_guide(net: pnn.systems.Stack, x: Any, y: Any) -> Callable[[], Any]:
    """Return a compiled gradient: a scan over steps."""
    layer = net.layers[0]
    half, left, turn = guide_constants(layer)
    fields, wanted = jnp.asarray(x), jnp.asarray(y)

    def loss(logits: Any) -> Any:
        steps = jnp.exp(1j * (turn * layer.index_range) * jax.nn.sigmoid(logits)) * left

        def step(field: Any, own: Any) -> Any:
            return jnp.fft.ifft(half * half * jnp.fft.fft(field * own)), None

        field = jnp.fft.ifft(half * jnp.fft.fft(fields))
        field, _ = jax.lax.scan(step, field, steps[:-1])
        field = jnp.fft.ifft(half * jnp.fft.fft(field * steps[-1]))
        return 0.5 * ((jnp.abs(field) ** 2 - wanted) ** 2).sum() / BATCH

    compiled, logits = jax.jit(jax.grad(loss)), jnp.asarray(net.params["logit1"])
    return lambda: [np.asarray(compiled(logits).block_until_ready())]


def waveguide() -> None:
    """Time the waveguide."""
    net, x, y = guide()
    method = methods.Backprop(loss="squared-error")
    gradient = method.gradient(net, x, y)["logit1"]
    own = best(lambda: method.gradient(net, x, y))
    # Forward, again for fields between those that were kept, and back; there and back each.
    rate = BATCH * 3 * (STEPS + 1) * 2 * operations(POINTS) / own / 1e6
    print(f"waveguide, {POINTS} x {STEPS}: {own:.0f} ms, transforms {rate:.0f} GFLOP/s")
    runs = {}
    if torch is not None:
        runs["torch"] = torch_guide(net, x, y)
    if jax is not None:
        runs["jax"] = jax_guide(net, x, y)
    for name, run in runs.items():
        found = np.asarray(run()[0])
        off = np.linalg.norm(found - gradient) / np.linalg.norm(gradient)
        other = best(run)
        print(f"  {name}: {other:.0f} ms, {other / own:.1f}x; gradients differ by {off:.1e}")


if __name__ == "__main__":
    diffraction()
    waveguide()
