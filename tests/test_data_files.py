"""Data of the user's own, from files, in Python and on the command line."""

import json
import shlex
import warnings

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore.cli import main
from pnncore.data import from_file
from pnncore.errors import ConfigError, DataError, SettlingWarning


def test_archives(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 4, 3)).astype(np.uint8), rng.integers(3, 6, 40)
    path = tmp_path / "own.npz"
    np.savez(path, x=x, y=y)
    parts = from_file(path, test_size=10, seed=1)
    assert [part.shape for part in parts] == [(30, 12), (30,), (10, 12), (10,)]
    assert parts[0].dtype == np.float32
    assert parts[0].max() <= 1
    # Every sample is there once, with its own label, numbered from 0.
    rows = {tuple(row): label - 3 for row, label in zip(x.reshape(40, 12), y, strict=True)}
    for inputs, labels in (parts[:2], parts[2:]):
        for row, label in zip(np.rint(inputs * 255).astype(int), labels, strict=True):
            assert rows.pop(tuple(row)) == label
    assert not rows
    for own, same in zip(from_file(path, test_size=10, seed=1), parts, strict=True):
        np.testing.assert_array_equal(own, same)
    np.savez(path, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:, None])
    parts = from_file(path, dtype="float64")
    np.testing.assert_allclose(parts[2], x[30:].reshape(10, 12) / 255)
    np.testing.assert_array_equal(parts[3], y[30:] - 3)


def test_tables(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("width,kind,height\n1.5,b,2\n2.5,a,3\n0,b,-1e-3\n4,a,4\n")
    x, y, x_test, y_test = from_file(path, target="kind", test_size=0.25)
    both = np.vstack([x, x_test]), np.concatenate([y, y_test])
    order = np.argsort(both[0][:, 0])
    np.testing.assert_allclose(both[0][order], [[0, -1e-3], [1.5, 2], [2.5, 3], [4, 4]])
    assert both[1][order].tolist() == [1, 1, 0, 0]
    path.write_text("\ufeff1,2,0\n3,4,1\n\n5,6,7\n7,8,1\n9,10,7\n2,2,0\n")
    x, y, _, _ = from_file(path, test_size=1)
    assert set(y) <= {0, 1, 2}
    assert x.shape == (5, 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "has no samples"),
        ("a\n1\n2\n", "1 column: it needs inputs and a label"),
        ("a,b\n1,2\n3\n", "row 3: 1 fields, where the first row has 2"),
        ("a,b\nx,2\n", "row 2: the input 'x' of column 'a' is no number"),
        ("a,b\n,2\n", "row 2: the input '' of column 'a' is no number"),
        ("a,b\n1,2.5\n3,1\n", "labels must be whole numbers or words"),
        ("a,b\n1,yes\n3,\n", "row 3: there is no label"),
        ("a,b\nnan,1\n3,2\n4,1\n5,2\n", "row 2: the input 'nan' of column 'a' is no number"),
        ("0,1,2\n5,6,1\n5,7,0\n", "the first row counts columns, 0, 1, 2, ...: name them"),
        (",a,kind\n0,5,x\n1,6,y\n", "column 1 has no name; if it numbers rows, leave it out"),
        ("a,b\n1,x\n2,NaN\n", "row 3: the label 'NaN' says nothing"),
        ("a,b\n1,x\n2,N/A\n", "row 3: the label 'N/A' says nothing"),
        ("a,b\n1,0\n2,null\n", "row 3: the label 'null' says nothing"),
        ("a,b\n1,x\n2,x\n", "all samples have the label 'x'"),
        ("a,b\n1,5\n2,6\n3,7\n", "3 samples have 3 labels, which are no classes but values"),
        ("a;b\n1;0\n2;1\n", "has semicolons between fields; they must be commas"),
        ("a\tb\n1\t0\n2\t1\n", "has tabs between fields; they must be commas"),
        ("# made by hand\na,b\n1,0\n2,1\n", "row 1: comments are not understood"),
        ('a,b\n1,"x\n2,y\n', "is no CSV file: unexpected end of data"),
        ("a,b\n1_0,x\n2,y\n", "row 2: the input '1_0' of column 'a' is no number"),
    ],
)
def test_tables_that_are_not_understood(tmp_path, text, match):
    path = tmp_path / "own.csv"
    path.write_text(text)
    refuses(DataError, match, from_file, path)


def test_files_that_are_not_understood(tmp_path):
    path = tmp_path / "own.npz"
    x, y = np.zeros((4, 2)), np.arange(4) % 2
    for arrays, match in (
        ({"x": x, "y": y, "z": y}, "has the arrays x, y, z; needed are"),
        ({"x": x}, "has the arrays x; needed are"),
        ({"x": x, "y": y[:3]}, "4 samples have 3 labels"),
        ({"x": x[:, 0], "y": y}, "inputs must be numbers"),
        ({"x": x, "y": y + 0.5}, "labels must be whole numbers or words"),
        ({"x": np.array([["a"]]), "y": y}, "inputs must be numbers"),
        (
            {"x": x, "y": np.array([{}, 1, 2, 3], dtype=object)},
            "holds Python objects: save arrays of numbers",
        ),
        ({"x": x, "y": 0 * y}, "all samples have the label 0"),
        ({"x": x, "y": np.arange(4)}, "which are no classes but values"),
    ):
        np.savez(path, **arrays)
        refuses(DataError, match, from_file, path)
    path.write_bytes(b"PK\x03\x04 not an archive")
    refuses(DataError, "is no archive of arrays", from_file, path)
    refuses(ConfigError, "must be a .npz or a .csv file", from_file, tmp_path / "own.txt")
    refuses(DataError, "there is no such file", from_file, tmp_path / "nowhere.csv")
    np.savez(path, x=x, y=y)
    refuses(ConfigError, "target is the column", from_file, path, target="y")
    for size in (0, 4, 1.0, -1, 0.01):
        refuses(
            ConfigError, "must leave training and test samples", from_file, path, test_size=size
        )
    table = tmp_path / "own.csv"
    table.write_text("1,2\n3,4\n")
    refuses(DataError, "has no column 'b'", from_file, table, target="b")
    table.write_text("a,b,b\n1,2,0\n3,4,1\n")
    refuses(DataError, "has 2 columns 'b'", from_file, table, target="b")
    table.write_bytes(b"a,b\n\xff\xfe,1\n")
    refuses(DataError, "is no text in UTF-8", from_file, table)
    (tmp_path / "folder.csv").mkdir()
    refuses(DataError, "is a folder", from_file, tmp_path / "folder.csv")


def run(capsys, *arguments):
    code = main([*arguments, "--json"])
    out, error = capsys.readouterr()
    return code, json.loads(out) if out else error


def test_commands_take_files(tmp_path, capsys):
    x, y, *_ = pnn.data.iris()
    table = tmp_path / "iris.csv"
    np.savetxt(table, np.column_stack([x, y]), delimiter=",", header="a,b,c,d,kind", comments="")
    common = ("--data", str(table), "--target", "kind")
    code, report = run(
        capsys,
        "train",
        *common,
        "--layers",
        "4,16,3",
        "--epochs",
        "40",
        "--learning-rate",
        "0.3",
        "--save",
        str(tmp_path / "run.pnn"),
    )
    assert code == 0
    assert report["test_accuracy"] > 0.85
    code, report = run(capsys, "audit", *common, "--load", str(tmp_path / "run.pnn"))
    assert code == 0
    assert report["audits"][0]["cosine"] > 0.9
    code, error = run(capsys, "train", "--data", "nothing.txt")[0], None
    assert (code, error) == (2, None)


@pytest.mark.parametrize("kind", ["hopfield", "resistive", "stack", "flow", "circuit", "chain"])
def test_commands_take_every_system(tmp_path, capsys, kind):
    own = {
        "flow": lambda: pnn.systems.Flow(
            [(f"in{i}", f"out{j}") for i in range(4) for j in range(3)]
            + [(f"out{j}", "0") for j in range(3)],
            inputs=[f"in{i}" for i in range(4)],
            outputs=[f"out{j}" for j in range(3)],
            ground="0",
        ),
        "circuit": lambda: pnn.systems.Circuit(
            [
                pnn.elements.Resistor(f"in{i}", f"column{j}", 0.1 + 0.2 * ((i + j) % 3))
                for i in range(4)
                for j in range(3)
            ]
            + [pnn.elements.VoltageSource(f"column{j}", "0", 0.0) for j in range(3)],
            inputs=[f"in{i}" for i in range(4)],
            outputs=[pnn.elements.Current(f"column{j}", "0") for j in range(3)],
        ),
        "chain": lambda: pnn.systems.HamiltonianChain(8, n_in=4, n_out=3, time=2.0),
    }
    table = tmp_path / "iris.csv"
    x, y, *_ = pnn.data.iris()
    np.savetxt(table, np.column_stack([x, y]), delimiter=",")
    system = kind
    if kind in own:
        made = own[kind]()
        system = str(tmp_path / "system.json")
        (tmp_path / "system.json").write_text(json.dumps(made.to_config()))
    layers = ("--layers", "4,16,3") if kind not in own else ()
    method = {"stack": "backprop", "chain": "hamiltonian-echo"}.get(kind, "equilibrium-propagation")
    path = str(tmp_path / "run.pnn")
    code, report = run(
        capsys,
        "train",
        "--system",
        system,
        "--data",
        str(table),
        *layers,
        "--epochs",
        "3",
        "--method",
        method,
        "--learning-rate",
        "0.01",
        "--save",
        path,
    )
    assert code == 0
    assert report["epoch"] == 3
    code, report = run(capsys, "audit", "--load", path, "--data", str(table))
    assert code == 0
    assert max(row["cosine"] for row in report["audits"]) > 0.999


def test_systems_have_methods_that_suit_them(tmp_path, capsys):
    made = {
        "PhysicsAware": pnn.systems.Stack([pnn.layers.Linear(4, 3)], seed=0),
        "HamiltonianEcho": pnn.systems.HamiltonianChain(8, n_in=4, n_out=3, time=2.0),
        "EquilibriumPropagation": pnn.systems.Hopfield([4, 5, 3], seed=0),
    }
    for name, net in made.items():
        system = tmp_path / "system.json"
        system.write_text(json.dumps(net.to_config()))
        command = ("train", "--system", str(system), "--data", "iris", "--epochs", "1")
        code, report = run(capsys, *command)
        assert code == 0
        assert report["method"]["name"] == name


def test_audits_of_files_have_their_loss(tmp_path, capsys):
    path = str(tmp_path / "run.pnn")
    common = ("--data", "iris", "--epochs", "1", "--layers", "4,6,3", "--loss", "cross-entropy")
    assert run(capsys, "train", *common, "--save", path)[0] == 0
    code, report = run(capsys, "audit", "--load", path, "--data", "iris")
    assert code == 0
    assert report["loss"] == "cross-entropy"
    code, report = run(capsys, "audit", "--load", path, "--data", "iris", "--loss", "squared-error")
    assert report["loss"] == "squared-error"


def test_a_run_that_diverged_fails(capsys):
    wild = ("--system", "stack", "--optimizer", "sgd", "--learning-rate", "1e30")
    with warnings.catch_warnings():
        # The command shows it on standard error.
        warnings.simplefilter("always", SettlingWarning)
        code, report = run(
            capsys, "train", *wild, "--data", "iris", "--layers", "4,8,3", "--epochs", "3"
        )
    assert report["diverged"]
    assert code == 1


def test_what_goes_on_after_an_interruption(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    table = tmp_path / "two words.csv"
    x, y, *_ = pnn.data.iris()
    np.savetxt(table, np.column_stack([y, x]), delimiter=",", header="kind,a,b,c,d", comments="")
    monkeypatch.setattr(pnn.Trainer, "fit", stop)
    path = str(tmp_path / "run.pnn")
    code = main(
        ["train", "--data", str(table), "--target", "kind", "--layers", "4,5,3", "--save", path]
    )
    assert code == 130
    said = capsys.readouterr().out
    assert f"--resume {path} --data '{table}' --target kind --epochs 20 --save {path}" in said
    monkeypatch.undo()
    again = shlex.split(said.partition("pnncore ")[2].splitlines()[0])
    assert main([*again, "--epochs", "1"]) == 0
    monkeypatch.setattr(pnn.Trainer, "fit", stop)
    assert main(["train", "--data", "iris", "--layers", "4,5,3"]) == 130
    assert "nothing is kept: --save RUN.pnn keeps" in capsys.readouterr().out


def test_inputs_that_nobody_scaled(tmp_path, capsys):
    table = tmp_path / "far.csv"
    x, y, *_ = pnn.data.iris()
    np.savetxt(table, np.column_stack([1000 * x, y]), delimiter=",")
    arguments = ("train", "--data", str(table), "--layers", "4,5,3", "--learning-rate", "1e-9")
    assert main([*arguments, "--epochs", "1", "--method", "EquilibriumPropagation"]) == 0
    assert "inputs reach 1e+03: systems expect about 1" in capsys.readouterr().out


def test_systems_that_commands_cannot_make(tmp_path, capsys):
    table = tmp_path / "own.csv"
    table.write_text("1,2,0\n3,4,1\n5,6,0\n7,8,1\n")
    net = tmp_path / "net.json"
    net.write_text(json.dumps(pnn.systems.Hopfield([3, 4, 2], seed=0).to_config()))
    for arguments, match in (
        (("--system", "nothing"), "--system needs one of hopfield, resistive, stack, or a .json"),
        (("--system", str(net)), "3 inputs and 2 outputs"),
        (("--system", str(net), "--layers", "2,2"), "--layers is no setting of --system"),
        (("--system", "resistive", "--gain", "2"), "--gain is no setting of --system resistive"),
        (("--data-path", "x"), "--data-path and --download are for sets by name"),
        (("--target", "a"), "its first row names no columns"),
    ):
        code = main(["train", "--data", str(table), *arguments])
        assert code == 2 or code == 1
        assert match in capsys.readouterr().err
    for config, match in (({"name": "Hopfield"}, str(net)), ({"name": "Nothing"}, str(net))):
        net.write_text(json.dumps(config))
        assert main(["train", "--data", str(table), "--system", str(net)]) != 0
        assert match in capsys.readouterr().err
    net.write_text("{")
    assert main(["train", "--data", str(table), "--system", str(net)]) != 0
    assert "is no JSON" in capsys.readouterr().err
    assert main(["train", "--target", "a"]) != 0
    assert "--target is the column of a .csv file" in capsys.readouterr().err
