"""The examples run, at small settings, and show what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name, *arguments, folder, timeout=120):
    """Run an example in an empty folder with all warnings as errors; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=folder,
        env=environment(MPLBACKEND="agg"),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_help_says_how_to_run_it(example, tmp_path):
    text = run(example.name, "--help", folder=tmp_path)
    assert f"python examples/{example.name}" in text


def test_own_system_learns(tmp_path):
    text = run("own_system.py", "--epochs", "25", folder=tmp_path)
    assert "FAIL" not in text
    before, after = (
        float(re.search(rf"{when} training\s+(\S+)", text)[1]) for when in ("before", "after")
    )
    assert before < 0.5
    assert after > 0.9


def test_light_learns_in_situ(tmp_path):
    text = run("light_in_situ.py", "--seeds", "0", "--epochs", "10", folder=tmp_path)
    assert float(re.search(r"rings, in situ: (\S+)", text)[1]) > 90
    cosines = re.findall(r"^(\d+) modes, (\S+): (\S+) at 0.01 dB", text, re.MULTILINE)
    assert len(cosines) == 6
    assert all(float(value) > 0.99 for _, protocol, value in cosines if protocol == "difference")
    assert (tmp_path / "light_in_situ.png").stat().st_size > 10_000


def test_masks_learn(tmp_path):
    text = run("diffractive_network.py", "--epochs", "4", folder=tmp_path)
    assert float(re.search(r"epoch 4: test (\S+)", text)[1]) > 85
    assert float(re.search(r"random masks (\S+)", text)[1]) < 30
    assert (tmp_path / "diffractive_network.png").stat().st_size > 10_000


def test_a_slab_learns(tmp_path, monkeypatch):
    monkeypatch.delenv("PNNCORE_DATA", raising=False)
    text = run("programmable_waveguide.py", "--epochs", "4", folder=tmp_path)
    found = re.search(r"pixels: (\S+) %, not learned (\S+) %", text)
    assert float(found[1]) > 60
    assert float(found[2]) < 35
    assert (tmp_path / "programmable_waveguide.png").stat().st_size > 10_000


def test_a_network_that_scatters_learns(tmp_path, monkeypatch):
    monkeypatch.delenv("PNNCORE_DATA", raising=False)
    text = run("linear_scattering.py", "--hidden", "10", "--epochs", "20", folder=tmp_path)
    assert float(re.search(r"test accuracy: (\S+) %", text)[1]) > 60
    assert float(re.search(r"not trained (\S+) %", text)[1]) < 35
    assert "numbers read of a sample: 2960" in text
    assert (tmp_path / "linear_scattering.png").stat().st_size > 10_000


def test_local_learning_on_what_was_measured(tmp_path, data_dir):
    if not (data_dir / "acoustic").is_dir():
        pytest.skip("no acoustic layer: see the message of pnncore.data.acoustic()")
    text = run("acoustic_local_learning.py", "--seeds", "0", folder=tmp_path)
    twin, linear = (
        float(re.search(rf"{name}: off by (\S+)", text)[1]) for name in ("twin", "linear")
    )
    assert twin < 0.85 * linear
    assert float(re.search(r"physical local learning: (\S+)", text)[1]) > 92


def test_own_layer_learns(tmp_path):
    text = run("own_layer.py", folder=tmp_path)
    assert "ok   vjp is the derivative by phase" in text
    assert "FAIL" not in text
    assert float(re.search(r"accuracy (\S+)", text)[1]) > 80


def test_methods_of_ones_own_learn(tmp_path):
    for name, least in (("node_perturbation.py", 85), ("asymmetric_nudge.py", 85)):
        assert float(re.search(r"test accuracy (\S+)%", run(name, folder=tmp_path))[1]) > least


def test_own_system_with_every_method(tmp_path):
    for method in ("coupled-learning", "implicit-differentiation"):
        assert f"{method}, on" in run(
            "own_system.py", "--method", method, "--epochs", "1", folder=tmp_path
        )


def test_biases_have_their_orders(tmp_path):
    picture = tmp_path / "bias.png"
    text = run("bias_of_beta.py", "--betas", "0.1", "0.05", "--plot", str(picture), folder=tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    orders = {"one-sided": 1, "centered": 2, "N = 3": 3, "N = 4": 4, "N = 6": 6}
    for name, order in orders.items():
        slope = float(re.search(rf"{name}\s.*\s(\S+)$", text, re.MULTILINE)[1])
        assert abs(slope - order) < 0.15, text


def test_methods_compare(tmp_path):
    text = run("compare_methods.py", "--seeds", "0", "--epochs", "5", folder=tmp_path)
    rows = {
        line[:26].strip(): line[26:].split() for line in text.splitlines()[2:] if line != "controls"
    }
    assert len(rows) == 10
    assert float(rows["implicit differentiation"][2]) == 1
    assert (
        float(rows["EP centered"][0])
        > float(rows["last layer only"][0])
        > float(rows["untrained"][0])
    )


def test_flow_networks_learn(tmp_path):
    text = run("flow.py", "--seeds", "0", folder=tmp_path)
    assert float(re.search(r"R² (\S+)", text)[1]) > 0.99
    assert float(re.search(r"irises, coupled: (\S+)", text)[1]) > 85
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")


def test_allostery_is_learned(tmp_path):
    text = run("allostery.py", "--side", "6", "--epochs", "150", "--ratio", "0.4", folder=tmp_path)
    for opened, now, wanted in re.findall(
        r"opened by (\S+): target opens by (\S+) \(wanted (\S+),", text
    ):
        assert abs(float(now) - float(wanted)) < 0.15 * float(opened), text
    assert (tmp_path / "allostery.png").read_bytes().startswith(b"\x89PNG")


def test_layered_methods_learn_digits(tmp_path):
    text = run("layered_digits.py", "--seeds", "0", folder=tmp_path)
    rows = {line[:38].strip(): float(line[38:].split()[0]) for line in text.splitlines()[1:]}
    assert rows["physics-aware"] > rows["64-128-128-10, half off: in silico"]
    assert rows["64-20-20 speckle: local learning"] > rows["untrained maps"] + 0.1
    assert rows["last layer only"] < 0.8 < min(rows["feedback alignment"], rows["direct feedback"])
    assert min(rows["74-200-200: forward-forward"], rows["64-16-10: PEPG"]) > 0.93


def test_a_resistive_network_learns_digits_on_real_devices(tmp_path):
    settings = (
        "--dataset",
        "digits",
        "--epochs",
        "3",
        "--levels",
        "128",
        "--upper",
        "0.5",
        "--open",
        "0.02",
    )
    text = run("resistive_mnist.py", *settings, folder=tmp_path)
    assert float(re.search(r"test error (\S+) % \(", text)[1]) < 20, text


def test_an_instrument_is_trained(tmp_path):
    text = run("instrument.py", "--epochs", "12", folder=tmp_path)
    rows = dict(re.findall(r"^(.{28})\s+(\S+) %", text, re.MULTILINE))
    scores = {name.strip(): float(score) for name, score in rows.items()}
    assert float(re.search(r"twin: R² (\S+) on", text)[1]) > 0.98
    assert scores["readout alone"] + 15 < min(
        scores["physics-aware, learned twin"], scores["local learning, no twin"]
    ), text
    assert (tmp_path / "instrument.png").read_bytes().startswith(b"\x89PNG")
