"""Audits: the gradient of a method against the exact one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pnncore._convert import instance
from pnncore.methods import Backprop, ImplicitDifferentiation, Method

if TYPE_CHECKING:
    from pnncore.systems import System


@dataclass(frozen=True)
class Audit:
    """How a method's gradient compares with the exact one.

    That is the derivative of the hardware's model without noise. Converters and output stages of
    crossbars have none: it passes them as if they were not there.

    Attributes
    ----------
    cosine
        Of the angle between the two, all parameters together. NaN, as are the other figures, where
        one of the two comes from no sample at all.
    relative_error
        |method - exact| / |exact|, all parameters together.
    norm_ratio
        |method| / |exact|.
    by_parameter
        For every parameter its (cosine, relative error).
    method
        The method.
    samples
        The number of samples of the batch.
    usable
        Those that the method's gradient comes from: all of whose phases are usable.
    unconverged, diverged, unbounded
        How many phases of samples of the method ended so.
    """

    cosine: float
    relative_error: float
    norm_ratio: float
    by_parameter: dict[str, tuple[float, float]]
    method: Method
    samples: int
    usable: int
    unconverged: int
    diverged: int
    unbounded: int

    def __str__(self) -> str:
        lines = [
            f"{type(self.method).__name__} on {self.samples} samples against the exact gradient",
            f"  {'':10s} {'cosine':>12s} {'rel. error':>12s}",
            f"  {'all':10s} {self.cosine:12.8f} {self.relative_error:12.3e}",
        ]
        lines += [f"  {name:10s} {c:12.8f} {e:12.3e}" for name, (c, e) in self.by_parameter.items()]
        troubles = {name: getattr(self, name) for name in ("unconverged", "diverged", "unbounded")}
        if self.usable < self.samples or any(troubles.values()):
            ends = ", ".join(f"{count} {name}" for name, count in troubles.items() if count)
            lines.append(f"  {self.usable} of {self.samples} samples are usable; phases: {ends}")
        return "\n".join(lines)


def audit(system: "System", method: Method, x: Any, y: Any, *, threads: int | None = None) -> Audit:
    """Compare the gradient of a method with the exact gradient of its loss.

    The reference is implicit differentiation at the free steady state, or backpropagation through
    the hardware itself, in the dtype of the system: make the system with ``dtype="float64"`` to see
    biases below 1e-5.

    Parameters
    ----------
    system
        The system, with its present parameters.
    method
        The method, with its loss.
    x, y
        A batch; eight samples or so are enough.
    threads
        Threads to use.

    A `SettlingWarning` counts phases that did not settle, of the method or of the reference.

    Returns
    -------
    Audit
        Cosine and relative error, in all and by parameter.

    Raises
    ------
    CapabilityError
        If the method cannot train the system, or the system has no exact derivatives.
    """
    instance(method, Method, "method", "a pnncore Method")
    found, measured = method._measure(system, x, y, threads=threads)
    measured.warn(method, stacklevel=2)
    # The hardware itself, where signals pass through layers; the free steady state, where a system
    # settles.
    layered = "Backprop" in system.methods()
    reference = (
        Backprop(loss=method.loss, model="hardware")
        if layered
        else ImplicitDifferentiation(loss=method.loss)
    )
    exact, behind = reference._measure(system, x, y, threads=threads)
    behind.warn(reference, stacklevel=2)
    measurable = measured.usable > 0 and behind.usable > 0

    def compare(
        a: list[np.ndarray[Any, Any]], b: list[np.ndarray[Any, Any]]
    ) -> tuple[float, float, float]:
        u, v = (np.concatenate([part.ravel() for part in parts]) for parts in (a, b))
        if not measurable:
            return float("nan"), float("nan"), float("nan")
        lengths = float(np.linalg.norm(u)), float(np.linalg.norm(v))
        if lengths[1] == 0:
            return (1.0, 0.0, 1.0) if lengths[0] == 0 else (0.0, float("inf"), float("inf"))
        cosine = float(u @ v) / (lengths[0] * lengths[1]) if lengths[0] else 0.0
        return cosine, float(np.linalg.norm(u - v)) / lengths[1], lengths[0] / lengths[1]

    cosine, error, ratio = compare(list(found.values()), list(exact.values()))
    by_parameter = {name: compare([found[name]], [exact[name]])[:2] for name in system.names}
    return Audit(
        cosine,
        error,
        ratio,
        by_parameter,
        method,
        len(x),
        usable=measured.usable,
        **measured.phases,
    )
