"""The cases of `stack.py` in torch, where it is installed; without it functions return None.

Eager steps, at the faster of one thread and all: compiled ones took as long (torch 2.10, both
networks).
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    import torch
except ImportError:
    torch = None

Best = Callable[[Callable[[], Any]], float]


def fastest(call: Callable[[], Any], best: Best) -> float:
    """Seconds at the better number of threads."""
    most = torch.get_num_threads()
    found = []
    for threads in {1, most}:
        torch.set_num_threads(threads)
        found.append(best(call))
    torch.set_num_threads(most)
    return min(found)


def training(
    sizes: list[int], tanh: bool, batch: int, x: Any, y: Any, best: Best, compiled: bool = False
) -> float | None:
    """Samples per second of backpropagation with plain SGD."""
    if torch is None:
        return None
    random = np.random.default_rng(0)
    params = []
    for n, m in itertools.pairwise(sizes):
        params += [
            torch.tensor(random.normal(size=(m, n)) / n**0.5, dtype=torch.float32),
            torch.zeros(m),
        ]
    for p in params:
        p.requires_grad_(True)
    rows, targets = torch.from_numpy(x), torch.eye(sizes[-1])[torch.from_numpy(y)]

    def loss(signal: Any, target: Any) -> Any:
        for k in range(0, len(params), 2):
            signal = torch.nn.functional.linear(signal, params[k], params[k + 1])
            if k < len(params) - 2:
                signal = torch.tanh(signal) if tanh else torch.relu(signal)
        return 0.5 * ((signal - target) ** 2).sum() / len(target)

    def epoch() -> None:
        order = torch.randperm(len(rows))
        for first in range(0, len(rows), batch):
            picked = order[first : first + batch]
            gradients = torch.autograd.grad(loss(rows[picked], targets[picked]), params)
            with torch.no_grad():
                torch._foreach_add_(params, gradients, alpha=-1e-4)

    return len(rows) / fastest(epoch, best)


def pendula(couplings: Any, x: Any, h: float, steps: int, best: Best) -> float | None:
    """Samples per second of a gradient through RK4."""
    if torch is None:
        return None
    j = torch.from_numpy(couplings.copy()).requires_grad_(True)
    start = torch.from_numpy(x)

    def gradient() -> None:
        sums = 1 + j.sum(dim=0)

        def force(q: Any) -> Any:
            s = torch.sin(q)
            return s @ j - s * sums

        q, p = start, torch.zeros_like(start)
        for _ in range(steps):
            k1 = p, force(q)
            k2 = p + h / 2 * k1[1], force(q + h / 2 * k1[0])
            k3 = p + h / 2 * k2[1], force(q + h / 2 * k2[0])
            k4 = p + h * k3[1], force(q + h * k3[0])
            q, p = (
                v + h / 6 * (a + 2 * b + 2 * c + d)
                for v, a, b, c, d in zip((q, p), k1, k2, k3, k4, strict=True)
            )
        torch.autograd.grad(0.5 * (q**2).sum() / len(start), j)

    return len(x) / fastest(gradient, best)
