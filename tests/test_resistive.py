"""Deep resistive networks: against a NumPy account from the circuit's laws, devices, threads,
files."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import flat, refuses
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pnncore import Settling
from pnncore.devices import Device
from pnncore.errors import ConfigError, DataError
from pnncore.methods import (
    AgnosticEquilibriumPropagation,
    ContrastiveLearning,
    CoupledLearning,
    EquilibriumPropagation,
    FrequencyPropagation,
    ImplicitDifferentiation,
)
from pnncore.systems import DeepResistive

TIGHT = Settling(tolerance=1e-14, max_sweeps=100_000)


def network(layers, input_gain=3.0, seed=1, dtype="float64"):
    net = DeepResistive(layers, input_gain=input_gain, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for name in net.names:
        if name.startswith("b"):
            net.params[name][...] = 0.2 * rng.normal(size=net.shapes[name])
    return net


def batch(net, samples, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (samples, net.n_in)).astype(net.dtype), rng.uniform(
        0, 1, (samples, net.n_out)
    ).astype(net.dtype)


def sweeps(net, x, count, start=None, y=None, beta=0.0):
    """Settle by the published algorithm, written from Kirchhoff's law: weighted means, clipped,
    every other layer."""
    g = [net.params[f"g{k + 1}"].astype(float) for k in range(len(net.layers) - 1)]
    b = [net.params[f"b{k + 1}"].astype(float) for k in range(len(g))]
    v = [np.hstack([x, -x]) * net.input_gain]
    v += (
        [np.zeros((len(x), n)) for n in net.layers[1:]]
        if start is None
        else [layer.copy() for layer in start]
    )

    def move(k):
        feed, total = v[k - 1] @ g[k - 1] + b[k - 1], g[k - 1].sum(axis=0)
        if k < len(g):
            feed, total = feed + v[k + 1] @ g[k].T, total + g[k].sum(axis=1)
        elif y is not None:
            feed, total = feed + beta * y, total + beta
        v[k] = feed / total
        if k < len(g):
            half = -(-net.layers[k] // 2)
            v[k][:, :half] = v[k][:, :half].clip(min=0)
            v[k][:, half:] = v[k][:, half:].clip(max=0)

    for _ in range(count):
        for k in [*range(1, len(v), 2), *range(2, len(v), 2)]:
            move(k)
    return v[1:]


@pytest.mark.parametrize("layers", [[6, 13, 4], [6, 13, 10, 4], [5, 8, 9, 7, 3], [4, 3]], ids=str)
def test_fixed_sweeps_are_the_published_algorithm(layers):
    net = network(layers)
    x, y = batch(net, 7)
    free = sweeps(net, x, 4)
    found = net.settle(x, settling=Settling(sweeps=(4, 3)))
    for a, b in zip(found.states, free, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    nudged = net.settle(x, y, beta=0.7, settling=Settling(sweeps=(4, 3)))
    for a, b in zip(nudged.states, sweeps(net, x, 3, free, y, 0.7), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_gradient_is_the_contrast_of_squared_voltages():
    net = network([5, 8, 7, 3])
    x, y = batch(net, 6)
    beta, how = 0.4, Settling(sweeps=(30, 20))
    found = EquilibriumPropagation(beta=beta, settling=how).gradient(net, x, y)
    free = sweeps(net, x, 30)
    sources = np.hstack([x, -x]) * net.input_gain
    phases = [[sources, *sweeps(net, x, 20, free, y, sign * beta)] for sign in (1, -1)]
    for k in range(3):
        squares = [0.5 * (v[k][:, :, None] - v[k + 1][:, None, :]) ** 2 for v in phases]
        np.testing.assert_allclose(
            found[f"g{k + 1}"], (squares[0] - squares[1]).mean(axis=0) / (2 * beta), atol=1e-12
        )
        currents = [-v[k + 1].mean(axis=0) for v in phases]
        np.testing.assert_allclose(
            found[f"b{k + 1}"], (currents[0] - currents[1]) / (2 * beta), atol=1e-12
        )


def test_power_is_what_the_resistors_dissipate():
    net = network([3, 6, 4, 2])
    x, _ = batch(net, 5)
    v = [np.hstack([x, -x]) * net.input_gain, *net.settle(x).states]
    expected = sum(
        (net.params[f"g{k + 1}"] * (v[k][:, :, None] - v[k + 1][:, None, :]) ** 2).sum(axis=(1, 2))
        for k in range(3)
    )
    np.testing.assert_allclose(net.power(x), expected, rtol=1e-10)


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
def test_all_methods_against_the_exact_gradient(loss):
    net = network([6, 16, 14, 1 if loss == "squared-error" else 3])
    x, y = batch(net, 5)
    y = y / y.sum(axis=1, keepdims=True) if loss == "cross-entropy" else y
    bounds = {
        EquilibriumPropagation(beta=1e-3, loss=loss, settling=TIGHT): 1e-5,
        FrequencyPropagation(amplitude=1e-3, loss=loss, settling=TIGHT): 1e-5,
        AgnosticEquilibriumPropagation(beta=1e-4, softness=1e-5, loss=loss, settling=TIGHT): 1e-2,
    }
    for method, bound in bounds.items():
        assert pnn.audit(net, method, x, y).relative_error < bound, method
    if loss == "squared-error":
        # Clamping knows nothing of other losses.
        for method in (ContrastiveLearning(), CoupledLearning(eta=1e-3)):
            assert pnn.audit(net, method, x, y).cosine > 0.2


def test_conformance():
    for layers in ([3, 2], [4, 7, 3], [4, 7, 6, 2]):
        pnn.testing.check_system(network(layers))


@example([5, 7, 3, 10], 2, 12.0)
@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(1, 9), st.floats(0.1, 200))
def test_settled_states_obey_the_laws(layers, samples, gain):
    net = network(layers, gain)
    x, y = batch(net, samples)
    # Half of what outputs can be nudged away by before the network without diodes has no minimum;
    # diodes add to it.
    between = [net.params[f"g{k}"] for k in range(2, len(layers))]
    starts = np.cumsum([0, *layers[1:]])
    laplacian = np.zeros((starts[-1],) * 2)
    laplacian[: layers[1], : layers[1]] = np.diag(net.params["g1"].sum(axis=0))
    for k, g in enumerate(between):
        here, there = slice(starts[k], starts[k + 1]), slice(starts[k + 1], starts[k + 2])
        laplacian[here, here] += np.diag(g.sum(axis=1))
        laplacian[there, there] += np.diag(g.sum(axis=0))
        laplacian[here, there] -= g
        laplacian[there, here] -= g.T
    beta = -0.5 / float(
        np.linalg.eigvalsh(np.linalg.inv(laplacian)[-layers[-1] :, -layers[-1] :]).max()
    )
    for args in ((), (y, 0.5), (y, beta)):
        found = net.settle(x, *args[:1], beta=args[1] if args else None, settling=TIGHT)
        assert found.converged
        scale = gain * net.params["g1"].max()
        assert found.residual.max() < 1e-9 * max(scale, 1)


def test_threads_and_pieces_give_the_same_bytes():
    def run(threads, epochs):
        net = network([90, 200, 30], dtype="float32")
        x, y = batch(net, 60)
        trainer = pnn.Trainer(
            net,
            EquilibriumPropagation(beta=0.5),
            pnn.optim.SGD(0.01),
            batch_size=7,
            seed=3,
            threads=threads,
        )
        for n in epochs:
            trainer.fit(x, y, epochs=n)
        return flat(net.params).tobytes()

    assert len({run(threads, epochs) for threads in (1, 2, 3, 8) for epochs in ([3], [1, 2])}) == 1


def test_learns_digits():
    x, y, x_test, y_test = pnn.data.digits()
    net = DeepResistive([64, 64, 10], input_gain=60.0, seed=0, dtype=x.dtype)
    method = EquilibriumPropagation(beta=1.0, settling=Settling(sweeps=4))
    pnn.Trainer(net, method, pnn.optim.SGD(0.006), batch_size=4, seed=0).fit(x, y, epochs=8)
    assert net.score(x_test, y_test) > 0.92
    assert all((net.params[name] >= 0).all() for name in ("g1", "g2"))


def test_devices_cost_accuracy_and_are_kept():
    x, y, x_test, y_test = pnn.data.digits()
    scores = {}
    for label, device in {
        "ideal": Device(lower=0.0),
        "fine": Device(lower=0.0, upper=0.5, levels=256),
        "coarse": Device(lower=0.0, upper=0.5, levels=4),
        "noisy": Device(lower=0.0, upper=0.5, write_noise=0.05),
        "broken": Device(lower=0.0, upper=0.5, open=0.2, shorted=0.2),
    }.items():
        net = DeepResistive([64, 64, 10], input_gain=60.0, seed=0, device=device, dtype=x.dtype)
        method = EquilibriumPropagation(beta=1.0, settling=Settling(sweeps=4))
        trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.006), batch_size=4, seed=0)
        trainer.fit(x, y, epochs=3)
        scores[label] = net.score(x_test, y_test)
        g = net.params["g1"]
        assert g.min() >= 0
        assert device.upper is None or g.max() <= device.upper
        if device.levels is not None:
            places = g / (device.upper / (device.levels - 1))
            assert np.abs(places - places.round()).max() < 1e-3
        if device.open:
            assert abs((g == 0).mean() - 0.2) < 0.1
            assert abs((g == np.float32(0.5)).mean() - 0.2) < 0.02
    assert scores["ideal"] > 0.9
    assert scores["fine"] > 0.85
    assert scores["coarse"] < scores["fine"]
    assert scores["broken"] < scores["ideal"]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"input_gain": 0}, "input_gain must be a positive number, got 0"),
        ({"input_gain": float("nan")}, "input_gain must be a finite number"),
        ({"gain": -1.0}, "gain must be a finite number, at least 0"),
        ({"device": "rram"}, "device must be a pnncore.devices.Device"),
        ({"device": Device()}, "conductances cannot be negative"),
        ({"device": Device(lower=-1.0)}, "conductances cannot be negative"),
        ({"dtype": "float16"}, "dtype must be"),
    ],
)
def test_settings_out_of_range(kwargs, match):
    refuses(ConfigError, match, DeepResistive, [3, 4, 2], **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"lower": 1.0, "upper": 1.0}, "smallest value must be below the largest"),
        ({"levels": 8}, "levels need a smallest and a largest"),
        ({"lower": 0.0, "upper": 1.0, "levels": 1}, "levels must be at least 2"),
        ({"write_noise": -1.0}, "write_noise must be a positive number"),
        ({"open": 0.5}, "open elements are stuck at the smallest"),
        ({"lower": 0.0, "shorted": 0.5}, "shorted elements are stuck at the largest"),
        ({"lower": 0.0, "open": 1.5}, "open must be a fraction"),
        ({"seed": -1}, "seed must be an integer"),
    ],
)
def test_device_settings_out_of_range(kwargs, match):
    if "write_noise" in kwargs:
        match = "write_noise must be at least 0"
    refuses(ConfigError, match, Device, **kwargs)


def test_negative_conductances_are_refused():
    net = network([3, 4, 2])
    x, y = batch(net, 2)
    net.params["g2"][1, 1] = -0.25
    refuses(DataError, "g2 holds -0.25, but its device only has values in", net.predict, x)
    refuses(DataError, "g2 holds -0.25", ImplicitDifferentiation().gradient, net, x, y)


def test_a_nudge_beyond_the_stiffness_is_unbounded():
    net = network([3, 4, 2])
    x, y = batch(net, 3)
    beta = -1.01 * float(net.params["g2"].sum(axis=0).min())
    assert net.settle(x, y, beta=beta).counts()["unbounded"] == 3


def test_a_checkpoint_keeps_network_and_device(tmp_path):
    device = Device(lower=0.0, upper=1.0, levels=17, write_noise=0.01, open=0.05, seed=4)
    net = DeepResistive([5, 6, 2], input_gain=7.0, device=device, seed=2)
    x, y = batch(net, 12)
    trainer = pnn.Trainer(net, EquilibriumPropagation(), pnn.optim.Adam(0.01), batch_size=4, seed=1)
    trainer.fit(x, y, epochs=2)
    trainer.save(tmp_path / "run.pnn")
    again = pnn.Trainer.load(tmp_path / "run.pnn")
    assert repr(again.system) == repr(net)
    assert again.system.device == device
    for t in (trainer, again):
        t.fit(x, y, epochs=2)
    assert flat(again.system.params).tobytes() == flat(net.params).tobytes()


def test_history_counts_what_hardware_would_be_asked():
    net = network([4, 5, 2])
    x, y = batch(net, 21)
    trainer = pnn.Trainer(
        net,
        EquilibriumPropagation(beta=0.2),
        pnn.optim.SGD({"g1": 0.01, "b2": 0.01}),
        batch_size=5,
        seed=0,
    )
    history = trainer.fit(x, y, epochs=2)
    # A free and two nudged phases per sample; five steps that each write what has a rate.
    assert history["measured"].tolist() == [63, 63]
    writes = 5 * (2 * 4 * 5 + 2)
    assert history["writes"].tolist() == [writes] * 2
    joules = history.energy(power=2.0, settling_time=1e-3, write_energy=1e-5)
    np.testing.assert_allclose(joules, 63 * 2e-3 + writes * 1e-5)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_current_into_a_node_without_conductances_is_unbounded(layer):
    net = network([2, 4, 2], input_gain=1.0)
    net.params[f"g{layer}"][:, 0] = 0
    if layer == 1:
        net.params["g2"][0] = 0
    x, y = np.array([[0.2, 0.9]]), np.array([[0.5, 0.5]])
    net.params[f"b{layer}"][0] = 1.0
    for settled in (net.settle(x), net.settle(x, y, beta=0.1)):
        assert settled.counts()["unbounded"] == 1
    with pytest.warns(pnn.errors.SettlingWarning, match="measured nothing|comes from 0"):
        assert not any(
            part.any() for part in ImplicitDifferentiation().gradient(net, x, y).values()
        )


@pytest.mark.parametrize("layer", [1, 2])
def test_a_node_without_conductances_or_current_is_left_out(layer):
    net = network([2, 4, 2], input_gain=1.0)
    net.params[f"g{layer}"][:, 0] = 0
    net.params[f"b{layer}"][0] = 0
    if layer == 1:
        net.params["g2"][0] = 0
    x, y = np.array([[0.2, 0.9], [0.4, 0.1]]), np.array([[0.5, 0.5], [0.1, 0.2]])
    settled = net.settle(x, settling=TIGHT)
    assert settled.converged
    assert settled.residual.max() < 1e-12
    for method in (ImplicitDifferentiation(), pnn.methods.RecurrentBackprop(steps=400)):
        found = method.gradient(net, x, y)
        assert all(np.isfinite(part).all() for part in found.values())
    # The other output does not notice.
    exact = ImplicitDifferentiation().gradient(net, x, y)["g1"][:, 1:]
    h, other = 1e-6, np.zeros_like(exact)
    for i, j in np.ndindex(exact.shape):
        sides = []
        for sign in (1, -1):
            net.params["g1"][i, 1 + j] += sign * h
            sides.append(0.5 * ((net.predict(x, settling=TIGHT) - y) ** 2).sum() / 2)
            net.params["g1"][i, 1 + j] -= sign * h
        other[i, j] = (sides[0] - sides[1]) / (2 * h)
    np.testing.assert_allclose(exact, other, atol=1e-7)
