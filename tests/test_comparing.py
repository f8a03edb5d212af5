"""Comparisons under one budget of passes."""

import numpy as np
import pnncore as pnn
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import ConfigError

DATA = pnn.data.iris()


def stack(**settings):
    return pnn.systems.Stack(
        [layers.Linear(4, 8), layers.Tanh(), layers.Linear(8, 3)], seed=0, **settings
    )


def test_runs_keep_to_the_budget(tmp_path):
    net = stack(mismatch=0.2)
    before = {name: array.copy() for name, array in net.params.items()}
    fast = pnn.optim.Adam(0.01)
    found = pnn.compare(
        net,
        {
            "aware": (methods.PhysicsAware(loss="cross-entropy"), fast),
            "in silico": (methods.Backprop(loss="cross-entropy"), fast),
            "SPSA": (methods.SPSA(loss="cross-entropy", directions=4), fast),
        },
        DATA,
        passes=400,
    )
    assert all((net.params[name] == array).all() for name, array in before.items())
    runs = found.runs
    # Four steps an epoch.
    assert runs["aware"].passes.tolist() == [4.0 * k for k in range(101)]
    assert runs["SPSA"].passes.tolist() == [32.0 * k for k in range(13)]
    assert runs["in silico"].passes.tolist() == [0.0] * 101
    assert len({run.score[0] for run in runs.values()}) == 1
    assert runs["aware"].score[-1] > 0.9 > runs["SPSA"].score[-1]
    assert runs["aware"].measured[-1] == 100 * 105
    assert (np.diff(runs["aware"].operations) > 0).all()
    assert str(found).count("\n") == 3
    found.plot(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_impossible_budgets_are_refused():
    spsa = {"SPSA": methods.SPSA(directions=4)}
    refuses(
        ConfigError, "an epoch of SPSA takes 32 passes", pnn.compare, stack(), spsa, DATA, passes=31
    )
    refuses(ConfigError, "methods must be a dictionary", pnn.compare, stack(), [], DATA, passes=31)
    refuses(ConfigError, "data must be", pnn.compare, stack(), spsa, DATA[:2], passes=31)
