"""Every method on every kind of system, beside what is expected of it."""

import dataclasses
import json

import numpy as np
import pnncore as pnn
import pytest
from pnncore import _expected, methods
from pnncore.cli import main
from pnncore.errors import CapabilityError, ConfigError

STEPS = {"CoordinateDescent": "epsilon", "CMAES": "sigma", "GeneticAlgorithm": "mutation"}


@pytest.mark.parametrize("system", _expected.SYSTEMS)
def test_every_method_is_worth_what_is_expected(system):
    table = pnn.audit_all(only=system)
    assert table.holds, str(table)
    net = _expected.SYSTEMS[system]()
    shown = [row.method for row in table.rows]
    assert len(shown) == len(set(shown))
    x = np.full((2, net.n_in), 0.1)
    for name in set(net.methods()) - set(shown):
        # All others give new parameters, or have no room for labels.
        kind = name.partition("(")[0]
        assert _expected.expectation(system, kind) is None or kind == "ForwardForward"
        if kind != "ForwardForward":
            settings = {STEPS[kind]: 1e-3} if kind in STEPS else {}
            with pytest.raises(CapabilityError, match="gives new parameters, not a gradient"):
                methods.Method.kinds()[kind](**settings).gradient(net, x, np.zeros(2, int))


def test_every_method_and_system_is_in_the_table():
    trained = {
        name.partition("(")[0] for make in _expected.SYSTEMS.values() for name in make().methods()
    }
    assert trained == set(methods.Method.kinds())
    kinds = {type(make()).__name__ for make in _expected.SYSTEMS.values()}
    assert kinds == set(pnn.systems.System.kinds())


def test_what_is_not_found_is_said(monkeypatch, capsys, tmp_path):
    own = _expected.EXPECTED["ContrastiveLearning"]
    wrong = dataclasses.replace(own, cosine=0.999999)
    monkeypatch.setitem(_expected.EXPECTED, "ContrastiveLearning", wrong)
    monkeypatch.setattr(_expected, "SYSTEMS", {"Flow": _expected.SYSTEMS["Flow"]})
    table = pnn.audit_all()
    assert not table.holds
    assert "NOT FOUND" in str(table)
    assert main(["audit", "--all", "--json", "--plot", str(tmp_path / "a.png")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in report["rows"] if not row["holds"]] == ["ContrastiveLearning"]
    assert (tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match='only must be "Flow"'):
        pnn.audit_all(only="Circuit")
    assert main(["audit", "--all", "--seed", "3"]) == 2
    assert main(["audit", "--plot", "a.png"]) == 2


def test_the_mean_of_draws_is_audited():
    net = _expected.SYSTEMS["Stack"]()
    x, y = np.random.default_rng(0).uniform(size=(4, 4)), np.array([0, 1, 2, 0])
    method = methods.SPSA()
    exact = methods.Backprop().gradient(net, x, y)
    mean = sum(method.gradient(net, x, y, step=k)["W1"] for k in range(5)) / 5
    found = pnn.audit(net, method, x, y, draws=5).by_parameter["W1"]
    error = np.linalg.norm(mean - exact["W1"]) / np.linalg.norm(exact["W1"])
    assert found[1] == pytest.approx(error, rel=1e-12)
    with pytest.raises(ConfigError, match="draws must be a positive integer"):
        pnn.audit(net, method, x, y, draws=0)
