"""Estimators for scikit-learn."""

import pickle
import warnings

import numpy as np
import pnncore as pnn
import pytest
from pnncore.errors import CapabilityError

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from pnncore.estimators import Classifier, Regressor  # noqa: E402
from sklearn.model_selection import cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402


@pytest.mark.parametrize("estimator", [Classifier(random_state=0), Regressor(random_state=0)])
def test_scikit_learn_is_content(estimator):
    with warnings.catch_warnings():
        # Checks that need packages which are not there say so.
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, on_fail=None)
    failed = [
        (check["check_name"], check["exception"]) for check in found if check["status"] == "failed"
    ]
    assert not failed
    assert sum(check["status"] == "passed" for check in found) > 40


def hopfield(n_in, n_out, seed):
    return pnn.systems.Hopfield([n_in, 16, n_out], seed=seed)


def test_any_system_and_method_is_an_estimator():
    x, y, x_test, y_test = pnn.data.iris()
    names = np.array(["setosa", "versicolor", "virginica"])

    method = pnn.methods.EquilibriumPropagation(beta=0.2)
    estimator = Classifier(
        hopfield, method=method, optimizer=pnn.optim.Adam(0.01), epochs=60, random_state=0
    )
    estimator.fit(x, names[y])
    assert estimator.score(x_test, names[y_test]) > 0.9
    again = pickle.loads(pickle.dumps(estimator))
    assert (again.predict(x_test) == estimator.predict(x_test)).all()
    pipeline = make_pipeline(MinMaxScaler(), Classifier(epochs=30, random_state=0))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.9


def test_targets_keep_their_shape_and_units():
    x = np.random.default_rng(0).normal(size=(200, 3))
    y = 100 + 7 * x[:, 0] * x[:, 1]
    assert Regressor(epochs=200, random_state=0).fit(x, y).score(x, y) > 0.95
    both = Regressor(epochs=200, random_state=0).fit(x, np.stack([y, x[:, 2]], axis=1))
    assert both.predict(x).shape == (200, 2)


def test_a_system_without_a_configuration_is_not_pickled():
    class Spring(pnn.systems.EnergySystem):
        def energy(self, params, x, s):
            return 0.5 * params["k"] * ((s - x) ** 2).sum(axis=1)

        def state_gradient(self, params, x, s):
            return params["k"] * (s - x)

        def param_gradient(self, params, x, s, weights):
            return {"k": 0.5 * weights @ (s - x) ** 2}

    spring = Spring(n_in=1, n_states=1, n_out=1, params={"k": [1.0]})
    with pytest.raises(CapabilityError, match="cannot be rebuilt"):
        pickle.dumps(spring)
