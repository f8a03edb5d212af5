"""Holomorphic equilibrium propagation on systems of one's own."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import TIGHT, error
from pnncore import Settling
from pnncore.errors import CapabilityError, ConfigError, SettlingWarning
from pnncore.methods import EquilibriumPropagation


class Anharmonic(pnn.systems.EnergySystem):
    """Coupled units in quartic wells, driven by the inputs."""

    holomorphic = True

    def energy(self, params, x, s):
        return (0.5 * s**2 + 0.25 * s**4 - 0.5 * (s @ params["W"]) * s - (x @ params["U"]) * s).sum(
            axis=1
        )

    def state_gradient(self, params, x, s):
        return s + s**3 - 0.5 * s @ (params["W"] + params["W"].T) - x @ params["U"]

    def param_gradient(self, params, x, s, weights):
        couplings = -0.5 * np.einsum("r,ri,rj->ij", weights, s, s)
        return {"W": couplings, "U": -np.einsum("r,ri,rj->ij", weights, x, s)}


def make(kind=Anharmonic, dtype="float64", **settings):
    rng = np.random.default_rng(0)
    params = {"W": 0.1 * rng.normal(size=(9, 9)), "U": 0.5 * rng.normal(size=(4, 9))}
    net = kind(n_in=4, n_states=9, n_out=3, params=params, dtype=dtype, **settings)
    x, y = rng.uniform(size=(6, 4)), rng.uniform(size=(6, 3))
    return net, x.astype(dtype), (y / y.sum(axis=1, keepdims=True)).astype(dtype)


def bias(net, x, y, loss, **settings):
    method = EquilibriumPropagation(variant="holomorphic", loss=loss, settling=TIGHT, **settings)
    exact = pnn.methods.ImplicitDifferentiation(loss=loss, settling=TIGHT).gradient(net, x, y)
    return error(method.gradient(net, x, y), exact)


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
@pytest.mark.parametrize("points", [2, 4, 6])
def test_bias_falls_with_the_power_of_the_points(points, loss):
    net, x, y = make()
    near, far = (bias(net, x, y, loss, beta=beta, points=points) for beta in (0.1, 0.2))
    assert far / near == pytest.approx(2**points, rel=0.15)


def test_two_points_are_the_centered_estimate():
    net, x, y = make()
    found = EquilibriumPropagation(
        variant="holomorphic", points=2, beta=0.1, settling=TIGHT
    ).gradient(net, x, y)
    centered = EquilibriumPropagation(beta=0.1, settling=TIGHT).gradient(net, x, y)
    assert error(found, centered) < 1e-7


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_automatic_stopping_costs_less_than_a_percent(dtype):
    net, x, y = make(dtype=dtype)
    method = EquilibriumPropagation(variant="holomorphic", points=6, beta=0.2)
    report = pnn.audit(net, method, x, y)
    assert report.relative_error < 0.01
    assert report.cosine > 0.9999


def test_training_learns():
    net, x, y = make()
    method = EquilibriumPropagation(variant="holomorphic", points=4, beta=0.2)
    history = pnn.Trainer(net, method, pnn.optim.SGD(0.3), batch_size=6, seed=0).fit(
        x, y, epochs=100
    )
    assert history["loss"][-1] < 0.2 * history["loss"][0]


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_phase_that_does_not_settle_contributes_nothing():
    net, x, y = make()
    x[2] = 1e200  # its cube overflows
    with pytest.warns(SettlingWarning, match="comes from 5 of 6 samples"):
        found = EquilibriumPropagation(variant="holomorphic", points=4, beta=0.2).gradient(
            net, x, y
        )
    kept = [0, 1, 3, 4, 5]
    expected = EquilibriumPropagation(variant="holomorphic", points=4, beta=0.2).gradient(
        net, x[kept], y[kept]
    )
    for name, values in found.items():
        np.testing.assert_allclose(values * 6 / 5, expected[name], atol=1e-4)


def test_check_system_finds_what_is_not_analytic():
    assert all(finding.passed for finding in pnn.testing.check_system(make()[0]))

    class Magnitude(Anharmonic):
        def state_gradient(self, params, x, s):
            return (
                s + np.abs(s) ** 2 * s - 0.5 * s @ (params["W"] + params["W"].T) - x @ params["U"]
            )

    with pytest.raises(
        pnn.testing.SystemCheckError, match=r"FAIL state_gradient is analytic.*is there an abs"
    ):
        pnn.testing.check_system(make(Magnitude)[0])

    class Cast(Anharmonic):
        def param_gradient(self, params, x, s, weights):
            return {
                name: value.real
                for name, value in super().param_gradient(params, x, s, weights).items()
            }

    with pytest.raises(pnn.testing.SystemCheckError, match="FAIL param_gradient for W is analytic"):
        pnn.testing.check_system(make(Cast)[0])


def test_refusals():
    with pytest.raises(ConfigError, match="bounds is not holomorphic"):
        make(bounds=(0.0, 1.0))

    class Silent(Anharmonic):
        holomorphic = False

    net, x, y = make(Silent)
    with pytest.raises(CapabilityError, match="holomorphic"):
        EquilibriumPropagation(variant="holomorphic").gradient(net, x, y)

    class Failing(Anharmonic):
        def state_gradient(self, params, x, s):
            if np.iscomplexobj(s):
                raise ArithmeticError("no complex numbers here")
            return super().state_gradient(params, x, s)

    net, x, y = make(Failing)
    with pytest.raises(ArithmeticError, match="no complex numbers here"):
        EquilibriumPropagation(variant="holomorphic", settling=Settling(tolerance=1e-6)).gradient(
            net, x, y
        )
