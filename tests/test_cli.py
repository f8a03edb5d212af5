import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pnncore as pnn
import pytest
from pnncore.cli import main

COMMANDS = ("demo", "train", "audit", "bench", "info")
SMALL = ["--layers", "64,16,10", "--epochs", "1"]


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    """Run a command, and return its report; anything else on standard output breaks the parser."""
    assert main([*argv, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(report, dict)
    return report


def run_error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail with one line, and return it."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_no_command_shows_the_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_pictures_that_cannot_be_written_are_refused_before_training(capsys, tmp_path):
    assert main(["train", "--data", "digits", "--plot", str(tmp_path / "x.txt")]) == 2
    assert "its name must end in one of" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "example" in out
    assert f"  pnncore {command}" in out
    assert "--json" in out


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"pnncore {pnn.__version__}"


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pnncore", "train", "--learning-rate", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: argument --learning-rate: needs a number")
    assert "Traceback" not in done.stderr


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "info")
    assert report["version"] == pnn.__version__
    assert report["simd"] in report["simd_available"]
    assert report["threads"] >= 1
    assert report["data"]["digits"]
    assert {"EquilibriumPropagation", "CoupledLearning"} <= {
        method["name"] for method in report["methods"]
    }
    assert main(["info"]) == 0
    assert "equilibrium" in capsys.readouterr().out.lower()


def test_info_finds_data(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    data_dir: Path,
) -> None:
    monkeypatch.setenv("PNNCORE_DATA", str(data_dir))
    report = run_json(capsys, "info")
    assert report["data"]["vowels"] == str(data_dir / "vowel")
    monkeypatch.setenv("PNNCORE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run_json(capsys, "info")["data"]["mnist"] is None


def test_train_reports_accuracy_beside_controls(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "train", "--epochs", "3", "--threads", "1")
    assert len(report["history"]["epoch"]) == 3
    assert report["test_accuracy"] > 0.6
    assert report["controls"]["linear"] == pytest.approx(0.92, abs=0.03)
    assert report["controls"]["majority"] < 0.15
    assert report["method"]["name"] == "EquilibriumPropagation"
    assert main(["train", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "controls" in out
    assert "test" in out


@pytest.mark.parametrize(
    ("options", "name", "settings"),
    [
        (
            ["--variant", "one-sided", "--sign", "random", "--beta", "0.1"],
            "EquilibriumPropagation",
            {"beta": 0.1},
        ),
        (
            ["--activation", "tanh", "--variant", "holomorphic", "--points", "4"],
            "EquilibriumPropagation",
            {"points": 4},
        ),
        (["--method", "coupled-learning", "--eta", "0.5"], "CoupledLearning", {"eta": 0.5}),
        (
            ["--method", "contrastive-learning", "--learning-rate", "0.01"],
            "ContrastiveLearning",
            {},
        ),
        (["--method", "recurrent-backprop", "--steps", "5"], "RecurrentBackprop", {"steps": 5}),
        (
            ["--method", "implicit-differentiation", "--loss", "cross-entropy"],
            "ImplicitDifferentiation",
            {},
        ),
        (
            ["--optimizer", "adam", "--sweeps", "8,4", "--decay", "0.9"],
            "EquilibriumPropagation",
            {},
        ),
        (
            ["--learning-rate", "0.1,0.05", "--tolerance", "1e-3", "--gain", "0.5"],
            "EquilibriumPropagation",
            {},
        ),
    ],
)
def test_train_options(
    capsys: pytest.CaptureFixture[str], options: list[str], name: str, settings: dict[str, Any]
) -> None:
    method = run_json(capsys, "train", *SMALL, *options)["method"]
    assert method["name"] == name
    assert {key: method[key] for key in settings} == settings


def test_resume_is_exact(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, whole = tmp_path / "run.pnn", tmp_path / "whole.pnn"
    run_json(capsys, "train", *SMALL, "--seed", "3", "--save", str(path))
    report = run_json(capsys, "train", "--resume", str(path), "--epochs", "1", "--save", str(path))
    assert report["epoch"] == 2
    run_json(capsys, "train", *SMALL[:2], "--epochs", "2", "--seed", "3", "--save", str(whole))
    one, other = (pnn.Trainer.load(file).system.params for file in (path, whole))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    line = run_error(
        capsys, "train", "--resume", str(path), "--learning-rate", "0.1", "--beta", "1"
    )
    assert "--beta, --learning-rate" in line


def test_plot_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "history.png"
    run_json(capsys, "train", *SMALL, "--plot", str(path))
    assert path.stat().st_size > 5000


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["train", "--layers", "64,x"], "positive integer"),
        (["train", "--layers", "784,128,10"], "begin with 64 and end with 10"),
        (["train", "--layers", "64"], "begin with 64"),
        (["train", "--mismatch", "0.1"], "--mismatch is no setting of --system hopfield"),
        (["train", "--system", "stack", "--gain", "1"], "--gain is no setting of --system stack"),
        (
            ["train", "--system", "stack", "--activation", "hard-sigmoid"],
            "is one of tanh, logistic, relu",
        ),
        (["train", "--activation", "relu"], "activation"),
        (["train", "--system", "stack", "--tolerance", "1e-3"], "which physics-aware does not"),
        (
            ["train", "--method", "spsa", "--set", "beta=1"],
            "--set beta=1: beta is no setting of spsa, which has directions, epsilon, loss",
        ),
        (
            ["train", "--method", "coupled-learning", "--eta", "0.1", "--set", "eta=1"],
            "--set eta=1: eta is given twice",
        ),
        *(
            (
                ["train", "--system", "stack", "--method", name, option, value],
                f"{option} has no effect on {name}",
            )
            for name in ("ridge-readout", "genetic-algorithm", "coordinate-descent", "cmaes")
            for option, value in (
                ("--learning-rate", "0.1"),
                ("--optimizer", "adam"),
                ("--decay", "0.9"),
            )
        ),
        (["audit", "--all", "--beta", "0.1"], "leave --beta out"),
        (["audit", "--all", "--data", "iris", "--samples", "3"], "leave --data, --samples out"),
        (["audit", "--all", "--dtype", "float32"], "leave --dtype out"),
        (["audit", "--all", "--download"], "leave --download out"),
        (["train", "--data", "iris", "--download"], "iris ships with pnncore"),
        (["train", "--method", "spsa", "--set", "directions"], "needs NAME=VALUE"),
        (
            ["train", "--method", "spsa", "--set", "directions=0"],
            "directions must be a positive integer",
        ),
        (["train", "--method", "physics-aware"], "PhysicsAware needs layers"),
        (["train", "--beta", "-1", "--epochs", "1"], "beta"),
        (["train", "--variant", "sideways"], "variant"),
        (
            ["train", "--method", "coupled-learning", "--beta", "0.1"],
            "--beta is no setting of coupled-learning",
        ),
        (["train", "--method", "magic"], "invalid choice"),
        (["train", "--epochs", "0"], "positive integer"),
        (["train", "--learning-rate", "0.1,0.1,0.1"], "rates"),
        (["train", "--learning-rate", "nan"], "finite"),
        (["train", "--seed", "-1"], "seed"),
        (["train", "--gain", "-1"], "gain"),
        (["train", "--sweeps", "1,2,3"], "FREE,NUDGED"),
        (["train", "--sweeps", "3", "--tolerance", "1e-3"], "one of"),
        (["train", "--variant", "holomorphic"], "tanh"),
        (["train", "--resume", "nothing.pnn"], "no such file"),
        (["train", "--save", "no/such/folder/run.pnn"], "no folder"),
        (["train", "--data-path", "."], "ships with"),
        (["train", "--data", "vowels", "--download"], "cannot be downloaded"),
        (["train", "--data", "mnist", "--data-path", "no-such-folder"], "no-such-folder"),
        (["audit", "--load", "nothing.pnn"], "no such file"),
        (["audit", "--beta", "0"], "beta"),
        (["bench", "--seconds", "0"], "positive"),
        (["demo", "--output", "picture"], ".png"),
        (["fly"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], part: str
) -> None:
    assert part in run_error(capsys, *argv)


def test_missing_data_are_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PNNCORE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    line = run_error(capsys, "train", "--data", "mnist")
    assert "not found" in line
    assert "--download" in line
    assert "--download" not in run_error(capsys, "train", "--data", "vowels")


def test_damaged_checkpoints_are_explained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.pnn"
    path.write_bytes(b"nonsense")
    run_error(capsys, "train", "--resume", str(path))
    run_error(capsys, "audit", "--load", str(path))


def test_audit_of_all_methods(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(
        capsys, "audit", "--layers", "64,16,10", "--samples", "4", "--activation", "tanh"
    )
    rows = {row["method"]: row for row in report["audits"]}
    assert len(rows) == 9
    assert report["skipped"] == []
    assert rows["implicit-differentiation"]["relative_error"] == 0
    assert all(row["cosine"] > 0.9 for row in rows.values())
    assert main(["audit", "--layers", "64,16,10"]) == 0
    out = capsys.readouterr().out
    assert "skipped equilibrium-propagation" in out
    assert "cosine" in out


def test_audit_of_a_file_and_a_method(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "run.pnn"
    run_json(capsys, "train", *SMALL, "--save", str(path))
    options = ["--method", "equilibrium-propagation", "--beta", "1e-3", "--tolerance", "1e-12"]
    (row,) = run_json(capsys, "audit", "--load", str(path), *options)["audits"]
    assert row["relative_error"] < 0.05
    assert set(row["by_parameter"]) == {"W1", "b1", "W2", "b2"}
    assert "leave it out" in run_error(capsys, "audit", "--load", str(path), "--layers", "64,10")


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "bench", "--seconds", "0.01", "--threads", "1")
    assert len(report["rows"]) == 6
    assert all(row["samples_per_second"] > 0 for row in report["rows"])
    assert report["rows"][1]["free_sweeps"] == 15
    assert report["numpy_sgemm_gflops"] > 0


def test_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "made" / "demo.png"
    argv = ["--epochs", "1", "--seeds", "1", "--threads", "1", "--output", str(path)]
    report = run_json(capsys, "demo", *argv)
    assert path.stat().st_size > 50_000
    assert report["picture"] == str(path)
    assert json.loads((path.parent / "report.json").read_text(encoding="utf-8")) == report
    trainings = report["trainings"]
    assert set(trainings) == {"equilibrium_propagation", "softmax_regression", "last_layer_only"}
    assert trainings["equilibrium_propagation"]["test_accuracy"]["sd"] is None
    assert report["audit"][1]["cosine"] > 0.99


def test_demo_works_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "demo.png"
    assert main(["demo", "--epochs", "1", "--seeds", "2", "--output", str(path)]) == 0
    out = capsys.readouterr().out
    assert "pip install pnncore[plot]" in out
    assert "±" in out
    assert not path.exists()
    assert (tmp_path / "report.json").exists()
    assert "pip install" in run_error(capsys, "train", "--plot", str(tmp_path / "history.png"))


def test_the_demo_is_good() -> None:
    """The plan of the demo, on one seed: what the report claims must stay true."""
    from pnncore.cli import _demo

    plan = _demo._plans(100)[0]
    x, y, x_test, y_test = pnn.data.digits()
    net = pnn.systems.Hopfield(plan.layers, seed=0)
    optimizer = pnn.optim.SGD(plan.rate, schedule=pnn.optim.CosineDecay(plan.epochs))
    trainer = pnn.Trainer(net, plan.method, optimizer, batch_size=plan.batch_size, seed=0)
    trainer.fit(x, y, epochs=plan.epochs)
    assert net.score(x_test, y_test) > 0.96


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_saves(tmp_path: Path) -> None:
    path = tmp_path / "run.pnn"
    argv = [
        sys.executable,
        "-m",
        "pnncore",
        "train",
        "--epochs",
        "1000000",
        "--save",
        str(path),
        "--json",
    ]
    # A background job of a shell ignores SIGINT, and so would its children.
    child = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PNNCORE_NUM_THREADS": "1"},
    )
    time.sleep(2.5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in err
    report = json.loads(out)
    assert report["interrupted"]
    assert report["epoch"] == pnn.Trainer.load(path).epoch > 0


def test_stacks_are_trained(capsys, tmp_path):
    path = tmp_path / "run.pnn"
    settings = [
        "--system",
        "stack",
        "--mismatch",
        "0.2",
        "--noise",
        "0.01",
        "--loss",
        "cross-entropy",
    ]
    report = run_json(capsys, "train", *settings, "--epochs", "8", "--save", str(path))
    assert report["test_accuracy"] > 0.9
    assert report["system"]["mismatch"] == 0.2
    assert report["method"]["name"] == "PhysicsAware"
    assert sum(report["history"]["passes"]) == 8 * 43
    again = run_json(capsys, "train", "--resume", str(path), "--epochs", "1")
    assert again["epoch"] == 9
    other = [
        "--system",
        "stack",
        "--layers",
        "64,16,10",
        "--method",
        "spsa",
        "--set",
        "directions=2",
    ]
    assert main(["train", *other, "--epochs", "1"]) == 0
    assert "172 passes of a batch through the physics" in capsys.readouterr().out
