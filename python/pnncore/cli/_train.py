"""``pnncore train``: train a system on a data set."""

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np

from pnncore import optim, plot
from pnncore.callbacks import Callback, Checkpoint
from pnncore.cli import _common as common
from pnncore.cli._common import Commands, FloatArray
from pnncore.errors import ConfigError
from pnncore.methods._suited import suited
from pnncore.systems import Stack, System
from pnncore.trainer import Trainer

_DESCRIPTION = """\
Train a physical neural network on a data set, and report its accuracy beside two controls on the
same split: the most frequent label, and a linear readout (ridge regression). The test set is scored
after every epoch and never used for a choice.

Ctrl-C ends the training after the step under way; with --save everything learned is kept, and
--resume goes on from there, in the middle of the epoch, with the same result as if it had never
stopped.

examples:
  pnncore train                                     # digits, 64-128-10, equilibrium propagation
  pnncore train --data mnist --layers 784,1024,10 --learning-rate 0.05 --epochs 5 --save run.pnn
  pnncore train --resume run.pnn --data mnist --epochs 5 --save run.pnn   # five more epochs
  pnncore train --method coupled-learning --eta 0.5 --learning-rate 0.02 --plot run.png
  pnncore train --activation tanh --variant holomorphic --learning-rate 0.1
  pnncore train --system stack --mismatch 0.3 --noise 0.02 --loss cross-entropy
  pnncore train --data cells.csv --target kind --layers 9,32,2
  pnncore train --system circuit.json --data iris.csv --learning-rate 0.01
  pnncore train --system stack --method spsa --set directions=8 --loss cross-entropy
"""
# What a checkpoint fixes.
_FIXED = (
    *(
        "system",
        "layers",
        "activation",
        "gain",
        "mismatch",
        "noise",
        "set",
        "method",
        "loss",
        "beta",
        "variant",
        "sign",
        "points",
        "eta",
        "steps",
    ),
    *("sweeps", "tolerance", "batch_size", "learning_rate", "optimizer", "decay", "seed"),
)
_RATES = {"sgd": 0.1, "adam": 1e-3}
# Inputs from which on somebody has forgotten to scale them.
_FAR = 20.0
# Methods that find parameters by themselves: rates do not matter to them.
_WITHOUT_RATES = ("ridge-readout", "genetic-algorithm", "coordinate-descent", "cmaes")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "train", "train a system on a data set", _DESCRIPTION, run
    )
    common.add_system(parser)
    common.add_method(parser)
    common.add_data(parser)
    group = parser.add_argument_group("training")
    group.add_argument(
        "--epochs",
        type=common.count,
        default=20,
        help="epochs to make; with --resume, more (default: 20)",
    )
    group.add_argument("--batch-size", type=common.count, help="samples per step (default: 32)")
    group.add_argument(
        "--learning-rate",
        type=common.numbers,
        metavar="R[,R...]",
        help="learning rate, or one per layer (default: sgd 0.1, adam 0.001)",
    )
    group.add_argument("--optimizer", choices=tuple(_RATES), help="default: sgd; of a stack: adam")
    group.add_argument(
        "--decay", type=float, help="factor on all rates after every epoch (default: 1)"
    )
    group.add_argument(
        "--seed",
        type=int,
        help="of order and random choices, and of the couplings but for those of a --system file "
        "(default: 0)",
    )
    common.add_threads(group)
    group = parser.add_argument_group("files")
    group.add_argument(
        "--save",
        type=Path,
        metavar="RUN.pnn",
        help="keep the run here: every minute, and at the end",
    )
    group.add_argument(
        "--resume", type=Path, metavar="RUN.pnn", help="go on from this file (give the same --data)"
    )
    group.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw the history; needs matplotlib"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    common.writable(arguments.save, "--save")
    common.writable(arguments.plot, "--plot")
    if arguments.plot is not None:
        plot.check_format(arguments.plot)
    trainer, x, y, x_test, y_test = _prepare(arguments)
    start, made = time.perf_counter(), trainer.epoch
    interrupted = False
    try:
        trainer.fit(x, y, epochs=arguments.epochs, validation=(x_test, y_test))
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - start
    if arguments.save is not None:
        trainer.save(arguments.save)
    if arguments.plot is not None and trainer.history.epochs:
        trainer.history.plot(arguments.plot)
    report = _report(trainer, seconds, interrupted)
    majority = float((y_test == np.bincount(y).argmax()).mean())
    report["controls"] = {
        "majority": majority,
        "linear": common.linear_control(x, y, x_test, y_test),
    }
    report["reach"] = float(np.abs(x).max())
    report |= {"data": arguments.data, "save": arguments.save, "plot": arguments.plot}
    if interrupted and arguments.save is not None:
        report["go_on"] = _again(arguments, arguments.epochs - (trainer.epoch - made))
    common.emit(arguments, report, _text(report, trainer))
    return 130 if interrupted else int(report["diverged"])


def _again(arguments: argparse.Namespace, epochs: int) -> list[str]:
    """Return the options that go on from what was saved, for so many epochs."""
    options = {
        "--resume": arguments.save,
        "--data": arguments.data,
        "--target": arguments.target,
        "--data-path": arguments.data_path,
        "--threads": arguments.threads,
        "--epochs": epochs,
        "--save": arguments.save,
        "--plot": arguments.plot,
    }
    given = {option: value for option, value in options.items() if value is not None}
    return [word for option, value in given.items() for word in (option, str(value))]


def _prepare(arguments: argparse.Namespace) -> tuple[Trainer, FloatArray, Any, FloatArray, Any]:
    """Return the trainer and the data, everything checked."""
    callbacks: list[Callback] = []
    if arguments.save is not None:
        callbacks.append(Checkpoint(arguments.save, epochs=None, minutes=1))
    progress = False if arguments.json else None
    if arguments.resume is not None:
        fixed = common.given(arguments, _FIXED)
        if fixed:
            raise ConfigError(f"--resume takes {', '.join(fixed)} from the file; leave it out")
        if not arguments.resume.is_file():
            raise ConfigError(f"--resume {arguments.resume}: there is no such file")
        x, y, x_test, y_test = common.load_data(arguments)
        trainer = Trainer.load(
            arguments.resume, threads=arguments.threads, callbacks=callbacks, progress=progress
        )
        system = trainer.system
        common.check_fits(system, x, y, f"{arguments.resume}", arguments.data)
        return (
            trainer,
            x.astype(system.dtype, copy=False),
            y,
            x_test.astype(system.dtype, copy=False),
            y_test,
        )
    x, y, x_test, y_test = common.load_data(arguments)
    seed = 0 if arguments.seed is None else arguments.seed
    net = common.make_system(arguments, x, y, seed)
    name = arguments.method or common.name_of(suited(net))
    method = common.make_method(arguments, name)
    optimizer = _optimizer(arguments, name, net)
    x, x_test = (rows.astype(net.dtype, copy=False) for rows in (x, x_test))
    trainer = Trainer(
        net,
        method,
        optimizer,
        batch_size=arguments.batch_size or 32,
        seed=seed,
        threads=arguments.threads,
        callbacks=callbacks,
        progress=progress,
    )
    return trainer, x, y, x_test, y_test


def _optimizer(arguments: argparse.Namespace, method: str, net: System) -> optim.Optimizer:
    wrong = common.given(arguments, ("learning_rate", "optimizer", "decay"))
    if wrong and method in _WITHOUT_RATES:
        raise ConfigError(f"{', '.join(wrong)} has no effect on {method}: leave it out")
    kind = arguments.optimizer or ("adam" if isinstance(net, Stack) else "sgd")
    rates = arguments.learning_rate or [_RATES[kind]]
    rate = rates[0] if len(rates) == 1 else rates
    schedule = optim.ExponentialDecay(arguments.decay) if arguments.decay is not None else None
    return (optim.SGD if kind == "sgd" else optim.Adam)(rate, schedule=schedule)


def _report(trainer: Trainer, seconds: float, interrupted: bool) -> dict[str, Any]:
    history = trainer.history
    last = {
        key: float(history[key][-1]) if history.epochs else float("nan") for key in history.KEYS
    }
    return {
        "interrupted": interrupted,
        "diverged": history.diverged is not None,
        "epoch": trainer.epoch,
        "step": trainer.step,
        "loss": last["loss"],
        "train_accuracy": last["accuracy"],
        "test_accuracy": last["validation"],
        "free_sweeps": last["free_sweeps"],
        "other_sweeps": last["other_sweeps"],
        "troubles": {
            key: int(history[key].sum()) for key in ("unconverged", "diverged", "unbounded")
        },
        "seconds": seconds,
        "system": trainer.system.to_config(),
        "method": trainer.method.to_config(),
        "optimizer": trainer.optimizer.to_config(),
        "batch_size": trainer.batch_size,
        "seed": trainer.seed,
        "history": history.to_dict(),
    }


def _effort(report: dict[str, Any], trainer: Trainer) -> str:
    """Say what the last epoch took of the physics."""
    if report["free_sweeps"]:
        free, other = report["free_sweeps"], report["other_sweeps"]
        return (
            f"settling took {free:.1f} free and {other:.1f} other sweeps per sample in the last "
            "epoch"
        )
    return f"{int(trainer.history['passes'].sum()):,} passes of a batch through the physics"


def _optimized(trainer: Trainer) -> str:
    without = common.name_of(type(trainer.method)) in _WITHOUT_RATES
    return "training   " if without else f"optimizer  {trainer.optimizer!r}, "


def _text(report: dict[str, Any], trainer: Trainer) -> str:
    steps = "1 step" if report["step"] == 1 else f"{report['step']} steps"
    under_way = f" and {steps}" if report["step"] else ""
    end = "interrupted after" if report["interrupted"] else "trained for"
    end = "diverged after" if report["diverged"] else end
    epochs = "1 epoch" if report["epoch"] == 1 else f"{report['epoch']} epochs"
    lines = [
        f"{end} {epochs}{under_way} on {report['data']} ({report['seconds']:.1f} s)",
        f"  system     {trainer.system!r}",
        f"  method     {common.describe(trainer.method)}, loss {trainer.method.loss}",
        f"  {_optimized(trainer)}batches of {trainer.batch_size}, seed {trainer.seed}",
    ]
    if report["epoch"]:
        lines += [
            f"  loss {report['loss']:.4g}; {_effort(report, trainer)}",
            f"  accuracy   training {100 * report['train_accuracy']:.2f} %, test "
            f"{100 * report['test_accuracy']:.2f} %",
        ]
    lines.append(
        "  controls   on the same test set: linear readout "
        f"{100 * report['controls']['linear']:.2f} %, "
        f"most frequent label {100 * report['controls']['majority']:.2f} %"
    )
    troubles = report["troubles"]
    if report["reach"] > _FAR:
        lines.append(
            f"  note       inputs reach {report['reach']:.3g}: systems expect about 1; scale them, "
            "as pnn.Classifier does"
        )
    failed = troubles["diverged"] + troubles["unbounded"]
    if failed:
        lines.append(
            f"  warning    {failed:,} settlings diverged and taught nothing; use a smaller "
            "--learning-rate, --gain or --beta"
        )
    if troubles["unconverged"]:
        lines.append(
            f"  note       {troubles['unconverged']:,} settlings ended at the limit of sweeps, "
            "not settled"
        )
    lines += [
        f"  {name:10} {report[name]}" for name in ("save", "plot") if report[name] is not None
    ]
    if "go_on" in report:
        lines.append(f"  go on with: pnncore train {shlex.join(report['go_on'])}")
    elif report["interrupted"]:
        lines.append("  nothing is kept: --save RUN.pnn keeps what a run has learned")
    return "\n".join(lines)
