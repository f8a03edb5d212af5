"""Meshes of interferometers, against products of matrices in NumPy."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import CapabilityError, ConfigError


def chip(n, *, carrier="amplitude", dtype="float64", seed=0, **settings):
    chain = [layers.Encode(n, carrier=carrier), layers.MZIMesh(n, **settings), layers.Detect()]
    return pnn.systems.Stack(chain, dtype=dtype, seed=seed)


def coupler(transmission=1.0):
    return transmission * np.array([[1, 1j], [1j, 1]]) / np.sqrt(2)


def matrix(n, theta, phi, gamma, transmission=1.0):
    """The map of a mesh: one matrix of all modes after the other, as light meets them."""
    whole, k = np.eye(n, dtype=complex), 0
    for column in range(n):
        for top in range(column % 2, n - 1, 2):
            both = coupler(transmission) @ np.diag([np.exp(1j * theta[k]), 1])
            both = both @ coupler(transmission) @ np.diag([np.exp(1j * phi[k]), 1])
            own = np.eye(n, dtype=complex)
            own[top : top + 2, top : top + 2] = both
            whole, k = own @ whole, k + 1
    assert k == n * (n - 1) // 2
    return np.diag(np.exp(1j * gamma)) @ whole


def phases(net):
    return [net.params[f"{name}2"] for name in ("theta", "phi", "gamma")]


@pytest.mark.parametrize("n", [2, 3, 4, 7, 12])
def test_intensities_are_those_of_a_product_of_matrices(n):
    net = chip(n)
    x = np.random.default_rng(n).normal(size=(9, n))
    unitary = matrix(n, *phases(net))
    np.testing.assert_allclose(unitary @ unitary.conj().T, np.eye(n), atol=1e-14)
    np.testing.assert_allclose(net.predict(x), np.abs(x @ unitary.T) ** 2, atol=1e-13)
    lit = chip(n, carrier="phase")
    np.testing.assert_allclose(lit.predict(x), np.abs(np.exp(1j * x) @ unitary.T) ** 2, atol=1e-12)


@pytest.mark.parametrize("mismatch", [0.0, 0.2])
def test_power_is_kept_however_far_couplers_are_off(mismatch):
    x = np.random.default_rng(0).normal(size=(20, 8))
    found = chip(8, mismatch=mismatch).predict(x)
    np.testing.assert_allclose(found.sum(axis=1), (x**2).sum(axis=1), rtol=1e-13)
    assert np.allclose(found, chip(8).predict(x)) == (mismatch == 0.0)


def test_couplers_lose_what_they_say():
    x = np.random.default_rng(0).normal(size=(6, 5))
    net = chip(5, loss=0.3)
    lossy = matrix(5, *phases(net), transmission=10 ** (-0.3 / 20))
    np.testing.assert_allclose(net.predict(x), np.abs(x @ lossy.T) ** 2, atol=1e-13)
    # The twin loses nothing.
    ideal, outputs = matrix(5, *phases(net)), np.ones((6, 5))
    slopes = 2 * np.real((x @ ideal.T) @ np.conj(ideal))
    np.testing.assert_allclose(net.vjp(x, outputs)[0], slopes, atol=1e-13)


def test_light_that_nothing_mixes_swaps_by_the_angle_theta():
    net = chip(2)
    for theta, phi in ((0.0, 0.3), (np.pi, 0.1), (1.1, 2.0)):
        net.params["theta2"][...], net.params["phi2"][...] = theta, phi
        stays = np.sin(theta / 2) ** 2
        np.testing.assert_allclose(net.predict([[1.0, 0.0]]), [[stays, 1 - stays]], atol=1e-15)


@pytest.mark.parametrize("settings", [{}, {"mismatch": 0.1}, {"loss": 0.5, "mismatch": 0.1}])
def test_gradients_of_the_hardware_are_those_of_shifted_phases(settings):
    net = chip(5, carrier="phase", **settings)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 5)), rng.uniform(size=(7, 5))
    exact = methods.Backprop(model="hardware").gradient(net, x, y)
    found = methods.ParameterShift().gradient(net, x, y)
    near = methods.FiniteDifference(epsilon=1e-5).gradient(net, x, y)
    for name, gradient in exact.items():
        np.testing.assert_allclose(found[name], gradient, atol=1e-13)
        np.testing.assert_allclose(near[name], gradient, atol=1e-8)
    assert np.abs(exact["gamma2"]).max() < 1e-15, "a phase in front of a detector changes nothing"


@pytest.mark.parametrize(
    ("n", "loss", "dtype", "bound"),
    [(4, 40, "float32", 1e-4), (8, 20, "float32", 1e-4), (16, 40, "float64", 1e-11)],
)
def test_gradients_are_as_good_where_light_is_nearly_lost(n, loss, dtype, bound):
    net = chip(n, loss=loss, dtype=dtype, seed=1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, n)).astype(dtype)
    outputs = net.predict(x)
    y = (outputs * rng.uniform(0, 1, outputs.shape)).astype(dtype)
    exact = methods.Backprop(model="hardware").gradient(net, x, y)
    found = methods.ParameterShift().gradient(net, x, y)
    largest = max(np.abs(own).max() for own in found.values())
    for name, own in found.items():
        np.testing.assert_allclose(exact[name], own, rtol=0, atol=bound * largest)


def test_single_precision_and_threads():
    x = np.random.default_rng(0).normal(size=(100, 16))
    net, reference = chip(16, dtype="float32"), chip(16)
    np.testing.assert_allclose(net.predict(x.astype("float32")), reference.predict(x), atol=2e-5)
    one, *others = [
        net.predict(x.astype("float32"), threads=threads).tobytes() for threads in (1, 2, 3, 8)
    ]
    assert all(other == one for other in others)


def test_a_chip_learns_and_is_saved(tmp_path):
    x, y, x_test, y_test = pnn.data.digits()
    mesh = {"mismatch": 0.05, "loss": 0.02}
    chain = [layers.Linear(64, 12), layers.Encode(), layers.MZIMesh(12, **mesh), layers.Detect()]
    net = pnn.systems.Stack([*chain, layers.Linear(12, 10)], noise=0.01, seed=0)
    method = methods.PhysicsAware(loss="cross-entropy")
    trainer = pnn.Trainer(net, method, pnn.optim.Adam(5e-3), seed=0)
    trainer.fit(x, y, epochs=8)
    assert net.score(x_test, y_test) > 0.85
    trainer.save(tmp_path / "chip.pnn")
    assert pnn.Trainer.load(tmp_path / "chip.pnn").system.score(x_test, y_test) == net.score(
        x_test, y_test
    )


def test_local_learning_needs_a_linear_map():
    with pytest.raises(CapabilityError, match=r"needs linear maps.*the Stack has no linear map"):
        methods.PhysicalLocalLearning().gradient(chip(4), np.ones((4, 4)), np.array([0, 1, 2, 3]))


def test_what_is_no_mesh_is_refused():
    refuses(ConfigError, "at least 2 modes", chip, 1)
    refuses(ConfigError, "loss must be at least 0", chip, 3, loss=-0.1)
