"""``pnncore audit``: gradients of methods against the exact one."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from pnncore import plot
from pnncore.auditing import Audit, audit, audit_all
from pnncore.cli import _common as common
from pnncore.cli._common import Commands
from pnncore.errors import CapabilityError, ConfigError, PnnError
from pnncore.methods import EquilibriumPropagation, Method
from pnncore.systems import System, from_config
from pnncore.trainer import Trainer

S = TypeVar("S", bound=System)

_DESCRIPTION = """\
Compare the gradient that a training method measures with the exact gradient of the loss, on a few
samples. The exact one is implicit differentiation at the free steady state. Cosine 1 and relative
error 0 are perfect; a method may train well with a cosine far below 1. The arithmetic is float64,
so that the biases of the methods show, not rounding. With --tolerance every phase settles for as
long as that takes.

Without --method: every method that reads steady states, equilibrium propagation in all its
variants. `pnncore.audit` in Python takes any other, too.

With --all: every method on every kind of system that it trains, small ones, beside what is expected
of it and why; the exit code is 1 where that is not found.

examples:
  pnncore audit                               # a fresh 64-128-10 network on digits
  pnncore audit --method equilibrium-propagation --beta 0.01 --tolerance 1e-12
  pnncore audit --activation tanh             # smooth units: the holomorphic variant joins
  pnncore audit --load run.pnn --data mnist   # a trained system, of any kind
  pnncore audit --all --plot audits.png       # the whole table
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "audit", "gradients of methods against the exact one", _DESCRIPTION, run
    )
    common.add_system(parser)
    common.add_method(parser, several=True)
    common.add_data(parser)
    group = parser.add_argument_group("audit")
    group.add_argument(
        "--load",
        type=Path,
        metavar="RUN.pnn",
        help="audit the system of this file, with its loss (give its --data)",
    )
    group.add_argument(
        "--samples",
        type=common.count,
        default=8,
        help="the first so many test samples (default: 8)",
    )
    group.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="default: float64"
    )
    group.add_argument("--seed", type=int, help="of the couplings (default: 0)")
    group.add_argument("--all", action="store_true", help="every method on every system")
    group.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw the table of --all; needs matplotlib"
    )
    common.add_threads(group)
    parser.set_defaults(parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.all:
        return _run_all(arguments)
    if arguments.plot is not None:
        raise ConfigError("--plot draws the table of --all: give that, too")
    if arguments.load is not None:
        own = ("system", "layers", "activation", "gain", "mismatch", "noise", "seed")
        fixed = common.given(arguments, own)
        if fixed:
            raise ConfigError(f"--load takes {', '.join(fixed)} from the file; leave it out")
        if not arguments.load.is_file():
            raise ConfigError(f"--load {arguments.load}: there is no such file")
    _, y_train, x, y = common.load_data(arguments)
    net = _system(arguments, x, y_train)
    chosen, skipped = _methods(arguments, net)
    x, y = x[: arguments.samples].astype(net.dtype), y[: arguments.samples]
    rows: list[dict[str, Any]] = []
    for method in chosen:
        try:
            found = audit(net, method, x, y, threads=arguments.threads)
        except (CapabilityError, ConfigError) as error:
            if len(chosen) == 1:
                raise
            skipped.append({"method": common.describe(method), "why": str(error).partition(";")[0]})
            continue
        rows.append(_row(method, found))
    loss = chosen[0].loss
    report = {
        "system": net.to_config(),
        "data": arguments.data,
        "samples": len(x),
        "loss": loss,
        "load": arguments.load,
        "audits": rows,
        "skipped": skipped,
    }
    common.emit(arguments, report, _text(arguments, net, report))
    return 0


def _run_all(arguments: argparse.Namespace) -> int:
    """Audit every pair; 1 where something else than expected was found."""
    free = ("all", "json", "plot", "threads", "command")
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(arguments).items()
        if name not in free and value != arguments.parser.get_default(name)
    ]
    if given:
        raise ConfigError(
            f"--all has systems, methods and data of its own: leave {', '.join(given)} out"
        )
    common.writable(arguments.plot, "--plot")
    if arguments.plot is not None:
        plot.check_format(arguments.plot)
    table = audit_all(threads=arguments.threads)
    if arguments.plot is not None:
        table.plot(arguments.plot)
    report = {"holds": table.holds, "rows": [dataclasses.asdict(row) for row in table.rows]}
    common.emit(arguments, report, str(table))
    return 0 if table.holds else 1


def _row(method: Method, found: Audit) -> dict[str, Any]:
    by_parameter = {
        name: {"cosine": cosine, "relative_error": error}
        for name, (cosine, error) in found.by_parameter.items()
    }
    return {
        "method": common.describe(method),
        "cosine": found.cosine,
        "relative_error": found.relative_error,
        "norm_ratio": found.norm_ratio,
        "usable": found.usable,
        "unconverged": found.unconverged,
        "diverged": found.diverged,
        "unbounded": found.unbounded,
        "by_parameter": by_parameter,
    }


def _text(arguments: argparse.Namespace, net: System, report: dict[str, Any]) -> str:
    rows = report["audits"]
    width = max(len(row["method"]) for row in rows)
    lines = [
        f"{net!r}" + (f" from {arguments.load}" if arguments.load else ""),
        f"gradients of the {report['loss']} loss on {report['samples']} test samples of "
        f"{arguments.data}, against the exact ones",
        "",
        f"  {'method':{width}}  {'cosine':>12}  {'relative error':>14}  {'norm ratio':>10}",
    ]
    lines += [
        f"  {row['method']:{width}}  {row['cosine']:12.9f}  {row['relative_error']:14.2e}  "
        f"{row['norm_ratio']:10.5f}"
        for row in rows
    ]
    lines += [f"  skipped {row['method']}: {row['why']}" for row in report["skipped"]]
    return "\n".join(lines)


def _system(arguments: argparse.Namespace, x: Any, y: Any) -> System:
    """Return the system to audit, in the precision that was asked for."""
    if arguments.load is None:
        seed = 0 if arguments.seed is None else arguments.seed
        made = common.make_system(arguments, x, y, seed, arguments.dtype)
        return in_dtype(made, arguments.dtype)
    trainer = Trainer.load(arguments.load)
    saved = trainer.system
    if arguments.loss is None and isinstance(trainer.method.loss, str):
        arguments.loss = trainer.method.loss
    common.check_fits(saved, x, y, f"{arguments.load}", arguments.data)
    return in_dtype(saved, arguments.dtype)


def in_dtype(net: S, dtype: str) -> S:
    """Return an equal system in another precision."""
    if net.dtype == dtype:
        return net
    copy = cast(S, from_config({**net.to_config(), "dtype": dtype}))
    for own, kept in ((copy.params, net.params), (copy.memory, net.memory)):
        for name, array in kept.items():
            own[name][...] = array.astype(np.dtype(dtype))
    return copy


def _methods(
    arguments: argparse.Namespace, net: System
) -> tuple[list[Method], list[dict[str, str]]]:
    """Return the methods to audit, and those that the given settings rule out."""
    if arguments.method not in (None, "all"):
        return [common.make_method(arguments, arguments.method)], []
    chosen: list[Method] = []
    skipped: list[dict[str, str]] = []
    reasons: list[PnnError] = []
    for name in common.audited(net):
        kind = common.METHODS[name]
        variants: list[str | None] = [None]
        if kind is EquilibriumPropagation and arguments.variant is None:
            variants = ["centered", "one-sided", "holomorphic"]
        for variant in variants:
            settings = argparse.Namespace(**vars(arguments))
            settings.variant = variant if variant is not None else arguments.variant
            try:
                chosen.append(common.make_method(settings, name))
            except PnnError as error:
                skipped.append({"method": name, "why": str(error)})
                reasons.append(error)
    if not chosen:
        raise reasons[0] if reasons else CapabilityError(f"no method of an audit trains {net!r}")
    return chosen, skipped
