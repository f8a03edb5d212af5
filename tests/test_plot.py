from pathlib import Path
from typing import Any

import numpy as np
import pnncore as pnn
import pytest
from pnncore import plot
from pnncore.errors import ConfigError

HISTORY: dict[str, Any] = {
    "loss": 0.1,
    "accuracy": 0.9,
    "validation": 0.8,
    "free_sweeps": 5,
    "other_sweeps": 8,
    "unconverged": 0,
    "diverged": 0,
    "unbounded": 0,
    "passes": 3,
    "measured": 30,
    "operations": 0,
    "pulses": 0,
    "reversed": 0,
    "reads": 0,
    "writes": 100,
    "seconds": 0.1,
}


def make(epochs: int = 3, **values: float) -> pnn.History:
    history = pnn.History()
    for epoch in range(1, epochs + 1):
        history.append(**{**HISTORY, "epoch": epoch, "loss": 1 / epoch, **values})
    return history


@pytest.mark.parametrize(
    ("epochs", "values"),
    [
        (3, {}),
        (1, {}),
        (3, {"accuracy": float("nan")}),  # targets instead of labels
        (3, {"validation": float("nan"), "other_sweeps": 0}),
        (3, {"loss": 0.0, "unconverged": 3, "diverged": 1}),
        (2, {"loss": float("nan"), "accuracy": float("nan"), "validation": float("nan")}),
    ],
)
def test_history_is_drawn(tmp_path: Path, epochs: int, values: dict[str, float]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "history.png"
    figure = make(epochs, **values).plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 5000
    assert len(figure.axes) == 3


def test_history_without_a_path_only_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert make().plot().axes[1].get_ylabel() == "accuracy (%)"
    assert not list(tmp_path.iterdir())


def test_pyplot_stays_out() -> None:
    pytest.importorskip("matplotlib")
    import subprocess
    import sys

    code = (
        "import sys, pnncore as pnn; from pnncore import plot; assert 'matplotlib' not in "
        "sys.modules;"
        "plot.require(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bad_input_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no epochs"):
        plot.history(pnn.History())
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="cannot write"):
        make().plot(tmp_path / "history.nonsense")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install pnncore\[plot\]"):
        make().plot()


@pytest.mark.parametrize(("errors", "epochs"), [(0, 1), (5, 4), (40, 4)])
def test_demo_is_drawn(tmp_path: Path, errors: int, epochs: int) -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    predictions = labels.copy()
    predictions[:errors] = (predictions[:errors] + 1) % 10
    fall = 10.0 ** -np.arange(16)
    content = plot.Demo(
        title="title",
        subtitle="subtitle",
        curves=[
            plot.Curves("one", [rng.random(epochs), np.ones(epochs)]),
            plot.Curves("two", [rng.random(epochs)]),
        ],
        trajectory=plot.Trajectory(
            label=3,
            beta=0.2,
            free_outputs=rng.random((16, 10)),
            nudged_outputs=(rng.random((16, 10)), rng.random((16, 10))),
            free_excess=fall,
            nudged_excess=fall - 1e-12,
            free_residual=fall,
            nudged_residual=fall,
        ),
        weights=rng.standard_normal((64, 20)),
        images=rng.random((60, 64)),
        labels=labels,
        predictions=predictions,
    )
    path = tmp_path / "demo.png"
    plot.demo(content, path)
    assert path.stat().st_size > 50_000
