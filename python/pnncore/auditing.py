"""Audits: the gradient of a method against the exact one."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pnncore import _audit_plot, _expected
from pnncore._convert import instance, one_of, positive_int
from pnncore._display import html_table, text_table
from pnncore.methods import Backprop, FiniteDifference, ImplicitDifferentiation, Method

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def audit(
    system: "System",
    method: Method,
    x: Any,
    y: Any,
    *,
    draws: int = 1,
    threads: int | None = None,
) -> Audit:
    """Compare the gradient of a method with the exact gradient of its loss.

    The reference is implicit differentiation at the free steady state, backpropagation through the
    hardware itself, or, of motions, central differences; in the dtype of the system: make it with
    ``dtype="float64"`` to see biases below 1e-5. What a low precision rounds, the reference does
    not.

    Parameters
    ----------
    system
        The system, with its present parameters.
    method
        The method, with its loss.
    x, y
        A batch; eight samples or so are enough.
    draws
        How many gradients of the method are averaged: one that draws directions at random is right
        in the mean.
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
    for step in range(1, positive_int(draws, "draws")):
        for name, own in method._measure(system, x, y, step=step, threads=threads)[0].items():
            found[name] = found[name] + own
    found = {name: own / draws for name, own in found.items()}
    measured.warn(method, stacklevel=2)
    whole = system.in_full_precision()
    reference = _reference(whole, method)
    exact, behind = reference._measure(whole, x, y, threads=threads)
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


def _reference(system: "System", method: Method) -> Method:
    """Return the method that gives the exact gradient."""
    can = system.methods()
    # The hardware itself, where signals pass through layers; the free steady state, where a system
    # settles.
    if "Backprop" in can:
        return Backprop(loss=method.loss, model="hardware")
    if "HamiltonianEcho" not in can:
        return ImplicitDifferentiation(loss=method.loss)
    size = np.concatenate([array.ravel() for array in system.arrays()])
    typical = float(np.sqrt(np.mean(size.astype(np.float64) ** 2))) or 1.0
    step = 1e-5 if system.dtype == np.float64 else 1e-3
    return FiniteDifference(loss=method.loss, epsilon=step * typical)


@dataclass(frozen=True)
class AuditedPair:
    """A method on a system, as `audit_all` measured it.

    Attributes
    ----------
    system, method
        Their names.
    cosine, norm_ratio
        As in `Audit`.
    expected
        What was expected of both, and why, in words.
    holds
        Whether it was found.
    """

    system: str
    method: str
    cosine: float
    norm_ratio: float
    expected: str
    holds: bool


@dataclass(frozen=True, repr=False)
class AuditTable:
    """What `audit_all` returns: a row for every method on every system that it trains.

    Attributes
    ----------
    rows
        The pairs.
    """

    rows: tuple[AuditedPair, ...]

    @property
    def holds(self) -> bool:
        """Whether all that was expected was found."""
        return all(row.holds for row in self.rows)

    def _rows(self) -> list[list[str]]:
        return [["system", "method", "cosine", "norm ratio", "expected"]] + [
            [
                row.system,
                row.method,
                f"{row.cosine:.7f}",
                f"{row.norm_ratio:.5f}",
                f"{'' if row.holds else 'NOT FOUND: '}{row.expected}",
            ]
            for row in self.rows
        ]

    def __repr__(self) -> str:
        return text_table(self._rows(), left=("method", "expected"))

    def _repr_html_(self) -> str:
        return html_table(self._rows(), left=("method", "expected"))

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw the cosines, methods against systems.

        Needs matplotlib. Written to `path` where one is given.
        """
        return _audit_plot.draw(self, path)


def audit_all(*, only: str | None = None, threads: int | None = None) -> AuditTable:
    """Audit every method on every kind of system that it trains, and compare with expectations.

    The systems are small, the settings those under which the bias of the method is small. What is
    expected of each pair, and why, is data of `pnncore._expected`. Methods that give new parameters
    have no gradient, and no row.

    Parameters
    ----------
    only
        The name of one system, such as ``"Hopfield"``; None: all.
    threads
        Threads to use.
    """
    names = list(_expected.SYSTEMS)
    if only is not None:
        one_of(only, "only", names)
        names = [only]
    rows = []
    for name in names:
        net = _expected.SYSTEMS[name]()
        x = np.random.default_rng(3).uniform(0, 1, (6, net.n_in))
        y = np.random.default_rng(4).integers(0, net.n_out, 6)
        # Springs are pushed by a few hundredths of their length.
        x = 0.05 * x if name == "Elastic" else x
        for called in net.methods():
            rows += _pair(name, called, net, (x, y), threads)
    return AuditTable(tuple(rows))


def _pair(
    name: str, called: str, net: "System", data: tuple[Any, Any], threads: int | None
) -> list[AuditedPair]:
    own = _expected.expectation(name, called.partition("(")[0])
    method = None if own is None else _expected.made(called, own, net)
    if own is None or method is None:
        return []
    found = audit(net, method, *data, draws=own.draws, threads=threads)
    low, high = own.ratio if own.ratio is not None else (0.0, np.inf)
    holds = np.isfinite(found.cosine) and low <= found.norm_ratio <= high
    bounds = [] if own.cosine is None else [f"cosine at least {own.cosine:.7g}"]
    bounds += [] if own.ratio is None else [f"norm {low:g} to {high:g}"]
    if own.cosine is not None:
        holds = holds and found.cosine >= own.cosine
    text = f"{', '.join(bounds) or 'any'}: {own.why}"
    return [AuditedPair(name, called, found.cosine, found.norm_ratio, text, bool(holds))]
