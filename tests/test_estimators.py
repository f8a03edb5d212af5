"""Estimators for scikit-learn."""

import pickle
import warnings

import numpy as np
import pnncore as pnn
import pytest

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from pnncore.estimators import Classifier, Regressor  # noqa: E402
from sklearn.datasets import load_diabetes  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

EXPECTED = {
    f"check_sample_weight_equivalence_on_{kind}_data": "weights say how often samples are drawn"
    for kind in ("dense", "sparse")
}


@pytest.mark.parametrize("estimator", [Classifier(random_state=0), Regressor(random_state=0)])
def test_scikit_learn_is_content(estimator):
    with warnings.catch_warnings():
        # Checks that need packages which are not there say so.
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, on_fail=None, expected_failed_checks=EXPECTED)
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


def test_probabilities_are_those_of_the_cross_entropy():
    x, y, x_test, _ = pnn.data.iris()
    found = Classifier(epochs=40, random_state=0).fit(x, y)
    probabilities = found.predict_proba(x_test)
    assert probabilities.shape == (45, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    assert (found.classes_[probabilities.argmax(axis=1)] == found.predict(x_test)).all()
    outputs = found.decision_function(x_test)
    np.testing.assert_allclose(
        np.log(probabilities[:, 1] / probabilities[:, 0]), outputs[:, 1] - outputs[:, 0], rtol=1e-4
    )
    squared = Classifier(method=pnn.methods.Backprop(), epochs=1, random_state=0).fit(x, y)
    assert not hasattr(squared, "predict_proba")


def test_settings_of_parts_are_settings():
    x, y, *_ = pnn.data.iris()
    base = Classifier(epochs=3, random_state=0, method=pnn.methods.Backprop(loss="cross-entropy"))
    base.set_params(optimizer__learning_rate=0.1, method__model="hardware", epochs=2)
    assert repr(base.optimizer) == "Adam(0.1)"
    assert base.method == pnn.methods.Backprop(loss="cross-entropy", model="hardware")
    assert (base.epochs, base.get_params()["optimizer__betas"]) == (2, (0.9, 0.999))
    for wrong in ({"optimizer__rate": 1.0}, {"nothing": 1}, {"nothing__more": 1}):
        with pytest.raises(ValueError, match=r"rate|nothing"):
            base.set_params(**wrong)
    grid = {"optimizer__learning_rate": [1e-4, 0.05], "epochs": [20]}
    search = GridSearchCV(Classifier(random_state=0), grid, cv=2).fit(x, y)
    assert search.best_params_["optimizer__learning_rate"] == 0.05


def test_the_default_method_trains_the_system():
    x, y, *_ = pnn.data.iris()

    def own(n_in, n_out, seed):
        def shot(x, params):
            return np.tanh(x @ params["w"])

        start = {"w": np.full((n_in, n_out), 0.1)}
        return pnn.systems.Instrument(shot, n_in, n_out, params=start, dtype="float32", seed=seed)

    for system, kind in (
        (None, "PhysicsAware"),
        (hopfield, "EquilibriumPropagation"),
        (own, "SPSA"),
    ):
        found = Classifier(system, epochs=1, random_state=0).fit(x, y)
        assert type(found.method_).__name__ == kind
        assert found.method_.loss == "cross-entropy"


class Spring(pnn.systems.EnergySystem):
    """A spring per input."""

    def energy(self, params, x, s):
        return 0.5 * params["k"] * ((s - x) ** 2).sum(axis=1)

    def state_gradient(self, params, x, s):
        return params["k"] * (s - x)

    def param_gradient(self, params, x, s, weights):
        return {"k": 0.5 * weights @ (s - x) ** 2}


def test_estimators_with_systems_of_ones_own_are_pickled():
    spring = Spring(n_in=1, n_states=1, n_out=1, params={"k": [1.5]})
    again = pickle.loads(pickle.dumps(spring))
    assert again.params["k"].tolist() == [1.5]
    np.testing.assert_array_equal(again.predict([[0.3]]), spring.predict([[0.3]]))


def test_weights_of_samples():
    x, y, x_test, _ = pnn.data.iris()
    plain = Classifier(epochs=20, random_state=0).fit(x, y)
    even = Classifier(epochs=20, random_state=0).fit(x, y, sample_weight=np.full(len(x), 3.0))
    assert (plain.decision_function(x) == even.decision_function(x)).all()
    # Two classes of three: the third is never seen.
    weights = (y < 2).astype(float)
    blind = Classifier(epochs=20, random_state=0).fit(x, y, sample_weight=weights)
    assert not (blind.predict(x_test) == 2).any()
    with pytest.raises(ValueError, match="at least one non-zero"):
        Classifier(epochs=1).fit(x, y, sample_weight=0 * weights)


def test_samples_without_weight_are_as_good_as_removed():
    """They are not seen: neither by the training nor by means and deviations."""
    x, y = load_diabetes(return_X_y=True)
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, len(x)).astype(float)
    far = np.where(weights[:, None] == 0, 1e6 * rng.normal(size=x.shape), x)
    odd = np.where(weights == 0, 1e9, y)
    for kind, target, other in ((Regressor, y, odd), (Classifier, y > y.mean(), None)):
        other = target if other is None else other
        kept = kind(epochs=3, random_state=0).fit(x, target, sample_weight=weights)
        moved = kind(epochs=3, random_state=0).fit(far, other, sample_weight=weights)
        np.testing.assert_array_equal(kept.predict(x), moved.predict(x))
        again = np.repeat(x, weights.astype(int), axis=0)
        np.testing.assert_allclose(kept.mean_, again.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(kept.scale_, again.std(axis=0), rtol=1e-12)


def test_a_system_is_made_anew_at_every_fit():
    net = pnn.systems.Hopfield([4, 3, 3], seed=0)
    with pytest.raises(TypeError, match=r"system must be a function .* got Hopfield"):
        Classifier(net).fit(np.zeros((4, 4)), [0, 1, 2, 0])
