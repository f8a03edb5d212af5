"""``pnncore demo``: one training on digits, with its controls, in seconds."""

import argparse
import importlib.util
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pnncore import __version__, _core, data, plot
from pnncore._progress import ProgressLine
from pnncore.auditing import Audit, audit
from pnncore.callbacks import Callback
from pnncore.cli import _common as common
from pnncore.cli._audit import in_dtype
from pnncore.cli._common import Commands, FloatArray, Split
from pnncore.errors import ConfigError
from pnncore.history import History
from pnncore.methods import EquilibriumPropagation, ImplicitDifferentiation, Method
from pnncore.optim import SGD, CosineDecay, Rate
from pnncore.settling import Settling
from pnncore.systems import Hopfield
from pnncore.trainer import Trainer

_DESCRIPTION = """\
Train a Hopfield network of 64-128-10 units on the 8x8 digits that ship with pnncore, by centered
equilibrium propagation: let the network settle freely, settle it twice more with its outputs nudged
towards and away from the labels, and change each coupling by what its two units did. No error is
sent backward.

Beside it stand two controls on the same split: softmax regression (the same library, without a
hidden layer), and the same network with only its last layer trained. An audit gives the angle
between the measured and the exact gradient.

It writes a picture (needs matplotlib), and report.json beside it with all numbers.

examples:
  pnncore demo
  pnncore demo --seeds 1 --output pictures/demo.png
"""
# Rates, batches and epochs of all trainings were chosen on validation samples cut from the training
# part.
_LAYERS = [64, 128, 10]
_BETA = 0.2
_SWEEPS = 16


@dataclass(frozen=True)
class _Plan:
    """One way of training that the demo compares."""

    key: str
    name: str
    layers: list[int]
    method: Method
    rate: Rate
    batch_size: int
    epochs: int


@dataclass(frozen=True)
class _Runs:
    """What came of a plan, for every seed."""

    plan: _Plan
    systems: list[Hopfield]
    histories: list[History]

    @property
    def accuracies(self) -> FloatArray:
        return np.array([history["validation"][-1] for history in self.histories])

    def rows(self, *keys: str) -> int:
        return sum(int(history[key].sum()) for history in self.histories for key in keys)


class _Tick(Callback):
    """Moves a progress line that several trainings share."""

    def __init__(self, move: Callable[[Trainer], None]) -> None:
        self._move = move

    def on_pause(self, trainer: Trainer) -> None:
        self._move(trainer)


def add(commands: Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "demo", "train on digits, report, and draw a picture", _DESCRIPTION, run
    )
    parser.add_argument(
        "--seeds", type=common.count, default=3, help="trainings, with seeds 0, 1, ... (default: 3)"
    )
    parser.add_argument(
        "--epochs", type=common.count, default=100, help="epochs of each (default: 100)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo/demo.png"),
        metavar="FILE.png",
        help="the picture (default: demo/demo.png)",
    )
    common.add_threads(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    start = time.perf_counter()
    output: Path = arguments.output
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--output must end with .png, .pdf or .svg, got {output}")
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.parent / "report.json"
    common.writable(output, "--output")
    common.writable(path, "the report beside --output")
    split = data.digits()
    plans = _plans(arguments.epochs)
    line = ProgressLine(
        arguments.seeds * sum(plan.epochs for plan in plans),
        enabled=False if arguments.json else None,
    )
    runs: list[_Runs] = []
    done = 0
    try:
        for plan in plans:
            runs.append(_train(plan, arguments, split, line, done))
            done += plan.epochs * arguments.seeds
    finally:
        line.close()
    main = runs[0]
    exact = in_dtype(main.systems[0], "float64")
    x, y = split[2].astype(np.float64), split[3]
    # The gradient as training measured it, and at its best: a small nudge, fully settled.
    audits = [
        audit(exact, method, x[:8], y[:8], threads=arguments.threads)
        for method in (
            main.plan.method,
            EquilibriumPropagation(
                beta=0.01, settling=Settling(tolerance=1e-12, max_sweeps=10_000)
            ),
        )
    ]
    report = _report(arguments, runs, audits, split)
    if importlib.util.find_spec("matplotlib") is not None:
        plot.demo(_picture(report, runs, exact, split), output)
        report["picture"] = str(output)
    report["seconds"] = time.perf_counter() - start
    path.write_text(
        json.dumps(common.plain(report), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    common.emit(arguments, report, _text(report, path))
    return 0


def _plans(epochs: int) -> list[_Plan]:
    nudging = EquilibriumPropagation(beta=_BETA)
    softmax = ImplicitDifferentiation(loss="cross-entropy")
    last = {"W2": 0.04, "b2": 0.04}
    return [
        _Plan(
            "equilibrium_propagation",
            "equilibrium propagation",
            _LAYERS,
            nudging,
            [0.5, 0.02],
            16,
            epochs,
        ),
        _Plan("softmax_regression", "softmax regression", [64, 10], softmax, 0.5, 32, 3 * epochs),
        _Plan("last_layer_only", "only the last layer trained", _LAYERS, nudging, last, 16, epochs),
    ]


def _train(
    plan: _Plan, arguments: argparse.Namespace, split: Split, line: ProgressLine, done: int
) -> _Runs:
    x, y, x_test, y_test = split
    runs = _Runs(plan, [], [])
    for seed in range(arguments.seeds):

        def move(trainer: Trainer, seed: int = seed) -> None:
            text = f"{plan.name}, seed {seed}, epoch {trainer.epoch + 1}"
            if trainer.history.epochs:
                text += f", test {100 * trainer.history['validation'][-1]:.1f} %"
            line.update(done + seed * plan.epochs + trainer.epoch, text)

        net = Hopfield(plan.layers, seed=seed)
        trainer = Trainer(
            net,
            plan.method,
            SGD(plan.rate, schedule=CosineDecay(plan.epochs)),
            batch_size=plan.batch_size,
            seed=seed,
            threads=arguments.threads,
            callbacks=[_Tick(move)],
            progress=False,
        )
        runs.histories.append(trainer.fit(x, y, epochs=plan.epochs, validation=(x_test, y_test)))
        runs.systems.append(net)
    return runs


def _report(
    arguments: argparse.Namespace, runs: list[_Runs], audits: list[Audit], split: Split
) -> dict[str, Any]:
    core: dict[str, Any] = dict(_core.info())
    x, _, x_test, _ = split
    main = runs[0]
    seconds = sum(float(history["seconds"].sum()) for history in main.histories)
    means = {
        key: float(np.mean([history[key].mean() for history in main.histories]))
        for key in ("free_sweeps", "other_sweeps")
    }
    seeds = arguments.seeds
    return {
        "command": shlex.join(
            ["pnncore", "demo", "--seeds", str(seeds), "--epochs", str(arguments.epochs)]
        ),
        "version": __version__,
        "simd": core["simd"],
        "threads": arguments.threads or core["threads"],
        "train_samples": len(x),
        "test_samples": len(x_test),
        "seeds": list(range(seeds)),
        "trainings": {
            run.plan.key: {
                "name": run.plan.name,
                "layers": run.plan.layers,
                "method": run.plan.method.to_config(),
                "rate": run.plan.rate,
                "schedule": "cosine",
                "batch_size": run.plan.batch_size,
                "epochs": run.plan.epochs,
                "test_accuracy": {
                    "mean": float(run.accuracies.mean()),
                    "sd": float(run.accuracies.std(ddof=1)) if seeds > 1 else float("nan"),
                    "by_seed": run.accuracies,
                },
                "train_accuracy_by_seed": [history["accuracy"][-1] for history in run.histories],
                "settlings": len(x)
                * run.plan.epochs
                * seeds
                * (3 if run.plan.method == main.plan.method else 1),
                "diverged_settlings": run.rows("diverged", "unbounded"),
                "unsettled_settlings": run.rows("unconverged"),
                "test_accuracy_by_epoch": [history["validation"] for history in run.histories],
            }
            for run in runs
        },
        "audit": [
            {
                "method": common.describe(found.method),
                "settling": found.method.to_config()["settling"],
                "samples": found.samples,
                "cosine": found.cosine,
                "relative_error": found.relative_error,
            }
            for found in audits
        ],
        "samples_per_second": len(x) * sum(history.epochs for history in main.histories) / seconds,
        "sweeps_per_sample": means,
        "picture": None,
    }


def _percent(accuracy: dict[str, Any]) -> str:
    sd = accuracy["sd"]
    spread = f" ± {100 * sd:.2f}" if np.isfinite(sd) else ""
    return f"{100 * accuracy['mean']:.2f}{spread} %"


def _text(report: dict[str, Any], path: Path) -> str:
    trainings = report["trainings"]
    main = trainings["equilibrium_propagation"]
    number = len(report["seeds"])
    sweeps = report["sweeps_per_sample"]
    over = f"mean ± sd over {number} seeds" if number > 1 else "one seed"
    trained, best = report["audit"]
    width = max(len(training["name"]) for training in trainings.values())
    accuracies = {key: training["test_accuracy"] for key, training in trainings.items()}
    p = main["test_accuracy"]["mean"]
    error = 100 * (p * (1 - p) / report["test_samples"]) ** 0.5
    notes = {
        "equilibrium_propagation": "all layers, by local measurements of the settled network",
        "softmax_regression": "control: no hidden layer, exact gradient",
        "last_layer_only": "control: the hidden layer's input weights stay random",
    }
    layers = "-".join(map(str, main["layers"]))
    lines = [
        f"A Hopfield network of {layers} units learns to read digits of 8x8 pixels by centered",
        f"equilibrium propagation (β = {_BETA:g}, {report['train_samples']} training digits, "
        f"epochs: {main['epochs']})",
        "",
        f"test accuracy on {report['test_samples']} digits, after the last epoch, {over}",
        *(
            f"  {trainings[key]['name']:{width}}  {_percent(accuracies[key]):16}  {notes[key]}"
            for key in trainings
        ),
        f"  (so few test digits give a standard error of {error:.1f} %, shared by all three)",
        "",
        f"measured against exact gradient, {trained['samples']} test digits, trained network, "
        "float64",
        *(
            f"  {name:27}  cosine {found['cosine']:.6f}   relative error "
            f"{found['relative_error']:.1e}"
            for name, found in (
                (f"β = {_BETA:g}, as in training", trained),
                ("β = 0.01, settled to 1e-12", best),
            )
        ),
        "",
        f"speed: {report['samples_per_second']:,.0f} samples/s in training "
        f"({report['threads']} threads, {report['simd']}); "
        f"{sweeps['free_sweeps']:.1f} free + {sweeps['other_sweeps']:.1f} nudged sweeps per sample",
    ]
    for training in trainings.values():
        for key, what in (
            ("diverged", "diverged"),
            ("unsettled", "were cut at the limit of sweeps"),
        ):
            share = 100 * training[f"{key}_settlings"] / training["settlings"]
            if share >= 0.1:
                lines.append(f'note: {share:.1f} % of the settlings of "{training["name"]}" {what}')
    picture = report["picture"] or "none (it needs matplotlib: pip install pnncore[plot])"
    lines += [f"picture: {picture}", f"numbers: {path}", f"{report['seconds']:.1f} s in all"]
    return "\n".join(lines)


def _picture(report: dict[str, Any], runs: list[_Runs], exact: Hopfield, split: Split) -> plot.Demo:
    _, _, x_test, y_test = split
    main = runs[0]
    score = _percent(report["trainings"]["equilibrium_propagation"]["test_accuracy"])
    number = len(report["seeds"])
    over = f"mean ± sd over {number} seeds" if number > 1 else "one seed"
    layers = "-".join(map(str, main.plan.layers))
    controls = [f"{run.plan.name} {100 * run.accuracies.mean():.1f} %" for run in runs[1:]]
    return plot.Demo(
        title=f"Equilibrium propagation reads digits: {score} correct",
        subtitle=f"Hopfield network {layers}; {len(y_test)} test digits; {over}. "
        f"On the same split: {', '.join(controls)}",
        curves=[
            plot.Curves(run.plan.name, [history["validation"] for history in run.histories])
            for run in runs
        ],
        trajectory=_trajectory(exact, x_test.astype(np.float64), y_test),
        weights=main.systems[0].params["W1"],
        images=x_test,
        labels=y_test,
        predictions=main.systems[0].classify(x_test),
    )


def _trajectory(net: Hopfield, x: FloatArray, y: FloatArray) -> plot.Trajectory:
    """Follow the settling of the test digit with the largest error, where nudging shows best."""
    targets = np.eye(net.n_out)[y]
    errors = ((net.predict(x) - targets) ** 2).sum(axis=1)
    sample = int(np.where(np.isfinite(errors), errors, -1).argmax())
    x, y, target = x[sample : sample + 1], y[sample : sample + 1], targets[sample]

    def free(sweeps: int) -> tuple[FloatArray, float, float]:
        found = net.settle(x, settling=Settling(sweeps=sweeps))
        return found.outputs[0], float(found.energy[0]), float(found.residual[0])

    def nudged(sweeps: int, beta: float) -> tuple[FloatArray, float, float]:
        found = net.settle(x, y, beta=beta, settling=Settling(sweeps=(_SWEEPS, sweeps)))
        cost = 0.5 * float(((found.outputs[0] - target) ** 2).sum())
        return found.outputs[0], float(found.energy[0]) + beta * cost, float(found.residual[0])

    steps = range(1, _SWEEPS + 1)
    first = [free(k) for k in steps]
    up, down = ([nudged(k, beta) for k in steps] for beta in (_BETA, -_BETA))
    return plot.Trajectory(
        label=int(y[0]),
        beta=_BETA,
        free_outputs=np.array([outputs for outputs, _, _ in first]),
        nudged_outputs=(
            np.array([outputs for outputs, _, _ in up]),
            np.array([outputs for outputs, _, _ in down]),
        ),
        free_excess=np.array([energy for _, energy, _ in first]) - free(1000)[1],
        nudged_excess=np.array([energy for _, energy, _ in up]) - nudged(1000, _BETA)[1],
        free_residual=np.array([residual for _, _, residual in first]),
        nudged_residual=np.array([residual for _, _, residual in up]),
    )
