"""An independent NumPy account of layered Hopfield networks, and small tools of several test files.

Nothing of the physics here calls the core: formulas are written from the energy alone, unit by unit
where speed does not matter.
"""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pnncore as pnn
import pytest
from pnncore import systems
from pnncore.errors import PnnError

ACTIVATIONS = ("hard-sigmoid", "tanh", "logistic")
LOSSES = ("squared-error", "cross-entropy")
TIGHT = pnn.Settling(tolerance=1e-13, max_sweeps=20_000)


class Springs(systems.EnergySystem):
    """Springs of one state to the inputs: an energy of the user's own, with its gradients."""

    def energy(self, params, x, s):
        return 0.5 * ((s - x) ** 2 * params["k"]).sum(axis=1)

    def state_gradient(self, params, x, s):
        return ((s - x) * params["k"]).sum(axis=1, keepdims=True)

    def param_gradient(self, params, x, s, weights):
        return {"k": 0.5 * weights @ (s - x) ** 2}


def one_hot(y, n):
    y = np.asarray(y)
    if n == 1:
        # One output has values, not labels.
        return y.reshape(-1, 1).astype(np.float64)
    return np.eye(n)[y] if y.ndim == 1 else y.astype(np.float64)


def steps_of(samples, batch_size):
    """The bounds of the steps of an epoch: as few as may be, and of sizes that differ by one at
    most."""
    steps = -(-samples // batch_size)
    return [(k * samples // steps, (k + 1) * samples // steps) for k in range(steps)]


def softmax(o):
    e = np.exp(o - o.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def loss_value(loss, o, t):
    """Return the loss of every sample."""
    if loss == "squared-error":
        return 0.5 * ((o - t) ** 2).sum(axis=-1)
    return -(t * np.log(softmax(o))).sum(axis=-1)


def loss_slope(loss, o, t):
    if loss == "squared-error":
        return o - t
    return t.sum(axis=-1, keepdims=True) * softmax(o) - t


class Reference:
    """A Hopfield network in float64 NumPy, with the parameters of a `pnncore` one."""

    def __init__(self, net):
        self.activation = net.activation
        self.depth = len(net.layers) - 1
        self.sizes = net.layers[1:]
        self.W = [net.params[f"W{k + 1}"].astype(np.float64) for k in range(self.depth)]
        self.b = [net.params[f"b{k + 1}"].astype(np.float64) for k in range(self.depth)]

    def rho(self, a):
        if self.activation == "hard-sigmoid":
            return np.clip(a, 0, 1)
        return np.tanh(a) if self.activation == "tanh" else 1 / (1 + np.exp(-a))

    def slope(self, s):
        """Return Phi' of hidden units."""
        if self.activation == "hard-sigmoid":
            return s
        return np.arctanh(s) if self.activation == "tanh" else np.log(s) - np.log1p(-s)

    def potential(self, s):
        """Return Phi of hidden units: the integral of the inverse activation."""
        if self.activation == "hard-sigmoid":
            return s**2 / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.activation == "tanh":
                terms = [(1 + s) / 2 * np.log1p(s), (1 - s) / 2 * np.log1p(-s)]
            else:
                terms = [s * np.log(s), (1 - s) * np.log1p(-s)]
        return sum(np.nan_to_num(term, nan=0.0) for term in terms)

    def drive(self, k, x, s):
        """Return what the neighbours of layer `k` sum to."""
        a = (x if k == 0 else s[k - 1]) @ self.W[k] + self.b[k]
        return a + s[k + 1] @ self.W[k + 1].T if k + 1 < self.depth else a

    def energy(self, x, s):
        total = 0.5 * (s[-1] ** 2).sum(axis=1)
        for hidden in s[:-1]:
            total = total + self.potential(hidden).sum(axis=1)
        for k, below in enumerate([x, *s[:-1]]):
            total = total - ((below @ self.W[k]) * s[k]).sum(axis=1) - s[k] @ self.b[k]
        return total

    def force(self, x, s, t=None, beta=0.0, loss="squared-error"):
        """Return dF/ds by layer, zero where a wall holds the unit."""
        forces = []
        for k in range(self.depth):
            output = k == self.depth - 1
            f = (s[k] if output else self.slope(s[k])) - self.drive(k, x, s)
            if output and t is not None:
                f = f + beta * loss_slope(loss, s[k], t)
            if not output and self.activation == "hard-sigmoid":
                f = np.where((s[k] <= 0) & (f >= 0) | (s[k] >= 1) & (f <= 0), 0, f)
            forces.append(f)
        return forces

    def residual(self, x, s, t=None, beta=0.0, loss="squared-error"):
        return np.max([np.abs(f).max(axis=1) for f in self.force(x, s, t, beta, loss)], axis=0)

    def couplings(self):
        """Return the symmetric matrix of couplings between all states."""
        ends = np.cumsum([0, *self.sizes])
        full = np.zeros((ends[-1], ends[-1]))
        for k in range(1, self.depth):
            full[ends[k - 1] : ends[k], ends[k] : ends[k + 1]] = self.W[k]
        return full + full.T

    def is_convex(self):
        """Whether the energy has one minimum: Phi'' is at least 1 (4 for logistic units; outputs
        have 1)."""
        curvature = np.ones(sum(self.sizes))
        if self.activation == "logistic":
            curvature[: sum(self.sizes[:-1])] = 4
        return np.linalg.eigvalsh(np.diag(curvature) - self.couplings()).min() > 0.02

    def solve(self, x, t=None, beta=0.0, rounds=20_000):
        """Return the steady state for the squared error, one unit at a time, each to its own
        minimum."""
        s = [np.zeros((len(x), n)) for n in self.sizes]
        for _ in range(rounds):
            moved = 0.0
            for k in range(self.depth):
                for j in range(self.sizes[k]):
                    a = (x if k == 0 else s[k - 1]) @ self.W[k][:, j] + self.b[k][j]
                    if k + 1 < self.depth:
                        new = self.rho(a + s[k + 1] @ self.W[k + 1][j])
                    else:
                        new = a if t is None else (a + beta * t[:, j]) / (1 + beta)
                    moved = max(moved, np.abs(new - s[k][:, j]).max())
                    s[k][:, j] = new
            if moved < 1e-15:
                break
        return s

    def clearance(self, x, s):
        """Return how far the nearest hidden unit is from the edge of a wall."""
        if self.depth == 1:
            return np.inf
        drives = np.concatenate([self.drive(k, x, s) for k in range(self.depth - 1)], axis=1)
        return np.minimum(np.abs(drives), np.abs(drives - 1)).min()


def make_net(layers, activation="hard-sigmoid", *, dtype="float64", gain=0.7, seed=0, bias=0.3):
    """Return a network with biases that are not zero."""
    net = pnn.systems.Hopfield(layers, activation=activation, gain=gain, dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed + 1000)
    for name, array in net.params.items():
        if name.startswith("b"):
            array[...] = rng.uniform(-bias, bias, array.shape)
    return net


def make_batch(net, samples, seed=0, *, values=False):
    """Return inputs in [0, 1], and labels or targets, which are probabilities where several."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (samples, net.n_in)).astype(net.dtype)
    if values:
        y = rng.uniform(0, 1, (samples, net.n_out))
        return x, (y / y.sum(axis=1, keepdims=True) if net.n_out > 1 else y).astype(net.dtype)
    return x, rng.integers(0, net.n_out, samples)


def clear_net(layers, activation, samples=3, margin=0.02):
    """Return a network and a batch at whose steady state no unit is close to the edge of a wall."""
    for seed in range(200):
        net = make_net(layers, activation, seed=seed)
        x, _ = make_batch(net, samples, seed)
        states = net.settle(x, settling=TIGHT).states
        reference = Reference(net)
        if activation != "hard-sigmoid" or reference.clearance(x, states) > margin:
            return net, x
    raise AssertionError("no seed gives a network clear of the corners")


def copy_of(net):
    """Return a network with the same parameters."""
    twin = pnn.systems.Hopfield(
        net.layers, activation=net.activation, dtype=net.dtype, gain=net.gain, seed=net.seed
    )
    for name, array in net.params.items():
        twin.params[name][...] = array
    return twin


def flat(gradient):
    return np.concatenate([np.ravel(part) for part in gradient.values()])


def cosine(a, b):
    u, v = flat(a), flat(b)
    return u @ v / np.linalg.norm(u) / np.linalg.norm(v)


def error(a, b):
    """Return |a - b| / |b|, all parameters together."""
    return np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b))


def parameter_bytes(net):
    return b"".join(array.tobytes() for array in net.params.values())


def command(code):
    """Return the command that runs `code` in a fresh interpreter in which all warnings are
    errors."""
    return [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]


def environment(**variables):
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.path.dirname(__file__),
        **variables,
    }


def run_python(code, *arguments, timeout=60, **variables):
    """Run `code` in a fresh interpreter; return its standard output, and fail where it fails."""
    done = subprocess.run(
        [*command(code), *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refuses(kind, match, call, *arguments, **settings):
    with pytest.raises(kind, match=match) as caught:
        call(*arguments, **settings)
    assert type(caught.value) is kind
    assert isinstance(caught.value, PnnError)
