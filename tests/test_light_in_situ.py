"""Light in stacks: what it carries, what detectors see, and gradients that it measures itself."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import CapabilityError, ConfigError, ShapeError

QUANTITIES = ("intensity", "balanced", "real", "imaginary", "quadratures")


def stack(*chain, dtype="float64", seed=0, **settings):
    return pnn.systems.Stack(list(chain), dtype=dtype, seed=seed, **settings)


def fields(rows, n, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, n)) + 1j * rng.normal(size=(rows, n))


def detected(quantity, field):
    power = np.abs(field) ** 2
    match quantity:
        case "intensity":
            return power
        case "balanced":
            return power[:, 0::2] - power[:, 1::2]
        case "real":
            return field.real
        case "imaginary":
            return field.imag
    return np.concatenate([field.real, field.imag], axis=1)


def eye(n):
    """A mesh that lets light pass as it is, and the stack's parameters for it."""
    return layers.MZIMesh(n), layers.MZIMesh(n).program(np.eye(n))


def detectors(quantity, n=4, **settings):
    mesh, made = eye(n)
    net = stack(mesh, layers.Detect(quantity, **settings))
    made.write(net, 1)
    return net


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_detectors_show_what_they_say(quantity):
    x = fields(5, 4)
    net = detectors(quantity)
    wanted = detected(quantity, x)
    assert net.n_out == wanted.shape[1]
    np.testing.assert_allclose(net.predict(x), wanted, atol=1e-12)
    dy = np.random.default_rng(0).normal(size=wanted.shape)
    dx = net.vjp(x, dy)[0]
    move, step = fields(5, 4, seed=3), 1e-6
    change = (net.predict(x + step * move) - net.predict(x - step * move)) / (2 * step)
    assert np.sum(change * dy) == pytest.approx(np.real(np.sum(np.conj(dx) * move)), rel=1e-8)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("photons", [3.0, 1e4])
def test_noise_is_that_of_photons(quantity, photons):
    x = np.tile(fields(1, 4), (20000, 1))
    dark = 2.0 if quantity in ("intensity", "balanced") else 0.0
    found = detectors(quantity, photons=photons, dark_counts=dark).predict(x)
    wanted = detected(quantity, x[:1])[0]
    power = np.abs(x[0]) ** 2
    counts = (photons * power + dark) / photons**2
    variance = {
        "intensity": counts,
        "balanced": counts[0::2] + counts[1::2],
        "real": np.full(4, 0.25 / photons),
        "imaginary": np.full(4, 0.25 / photons),
        "quadratures": np.full(8, 0.5 / photons),
    }[quantity]
    error = np.sqrt(variance / len(x))
    assert (np.abs(found.mean(axis=0) - wanted) < 4.5 * error).all()
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=0.06)
    # Detectors are independent, and so are samples.
    correlation = np.corrcoef(found.T) - np.eye(found.shape[1])
    assert np.abs(correlation).max() < 0.03
    assert abs(np.corrcoef(found[1:, 0], found[:-1, 0])[0, 1]) < 0.03


def test_counts_are_whole_and_the_same_for_any_number_of_threads():
    net, x = detectors("intensity", photons=50.0, dark_counts=1.0), fields(70, 4)
    found = net.predict(x, threads=1)
    np.testing.assert_allclose(50 * found + 1, np.round(50 * found + 1), atol=1e-9)
    assert all(
        net.predict(x, threads=threads).tobytes() == found.tobytes() for threads in (2, 3, 8)
    )
    assert net.predict(x, repeat=1).tobytes() != found.tobytes()
    # A row has its own noise, wherever its batch ends.
    assert net.predict(x[:33]).tobytes() == found[:33].tobytes()


@pytest.mark.parametrize("quantity", ["intensity", "real"])
def test_converters_have_levels(quantity):
    x = fields(200, 4)
    found = detectors(quantity, bits=3, full_scale=1.5).predict(x)
    lowest = 0.0 if quantity == "intensity" else -1.5
    step = (1.5 - lowest) / 7
    levels = (found - lowest) / step
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-9)
    wanted = np.clip(detected(quantity, x), lowest, 1.5)
    assert np.abs(found - wanted).max() <= step / 2 + 1e-12
    assert found.min() == pytest.approx(lowest)
    assert found.max() == pytest.approx(1.5)


def test_light_goes_into_ports_and_meets_references():
    x = np.random.default_rng(0).normal(size=(3, 2))
    for carrier in ("amplitude", "phase"):
        first = layers.Encode(2, carrier, modes=5, ports=[4, 1], reference={0: 0.5, 3: -2.0})
        mesh, made = eye(5)
        net = stack(first, mesh, layers.Detect("quadratures"))
        made.write(net, 2)
        wanted = np.zeros((3, 5), dtype=complex)
        wanted[:, 0], wanted[:, 3] = 0.5, -2.0
        wanted[:, [4, 1]] = x if carrier == "amplitude" else np.exp(1j * x)
        np.testing.assert_allclose(net.fields(x)[0], wanted, atol=1e-15)
        np.testing.assert_allclose(net.predict(x), detected("quadratures", wanted), atol=1e-12)
        again = layers.from_config(first.to_config())
        assert again == first


def gradients(net, x, y, method):
    found = method.gradient(net, x, y)
    return np.concatenate([own.ravel() for own in found.values()])


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("protocol", [None, "difference", "three-intensity"])
@pytest.mark.parametrize("layout", ["clements", "reck"])
@pytest.mark.parametrize("voltage", [None, 2.0])
@pytest.mark.parametrize("quantity", ["intensity", "balanced", "quadratures"])
def test_gradients_in_situ_are_exact_where_no_light_is_lost(protocol, layout, voltage, quantity):
    """Through two meshes whose couplers are off, between digital layers."""
    mesh = {"layout": layout, "half_wave_voltage": voltage, "mismatch": 0.1, "phase_error": 0.2}
    net = stack(
        layers.Linear(5, 6),
        layers.Encode(carrier="phase"),
        layers.MZIMesh(6, **mesh),
        layers.MZIMesh(6, layout=layout),
        layers.Detect(quantity),
        layers.Tanh(),
        layers.Linear({"intensity": 6, "balanced": 3, "quadratures": 12}[quantity], 3),
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(37, 5)), rng.normal(size=(37, 3))
    exact = methods.Backprop(model="hardware").gradient(net, x, y)
    found = methods.InSituBackprop(protocol=protocol).gradient(net, x, y)
    largest = max(np.abs(own).max() for own in exact.values())
    for name, own in exact.items():
        np.testing.assert_allclose(found[name], own, atol=1e-9 * largest, err_msg=name)


@pytest.mark.parametrize("protocol", ["difference", "three-intensity"])
@pytest.mark.parametrize("quantity", ["real", "quadratures"])
def test_rows_without_light_send_their_errors_back(protocol, quantity):
    """Digital layers in front learn from samples that put no light on the chip."""
    outputs = 4 if quantity == "real" else 8
    net = stack(
        layers.Linear(3, 4),
        layers.Encode(),
        layers.MZIMesh(4, mismatch=0.1),
        layers.Detect(quantity),
    )
    x, y = np.random.default_rng(0).normal(size=(5, 3)), np.ones((5, outputs))
    x[1] = 0.0
    for rows in (slice(None), slice(1, 2)):
        exact = methods.Backprop(model="hardware").gradient(net, x[rows], y[rows])
        found = methods.InSituBackprop(protocol=protocol).gradient(net, x[rows], y[rows])
        for name, own in exact.items():
            np.testing.assert_allclose(found[name], own, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e15])
@pytest.mark.parametrize("protocol", ["difference", "three-intensity"])
def test_faint_and_strong_light_is_read_in_single_precision(scale, protocol):
    net = stack(layers.MZIMesh(4), layers.Detect("real"), dtype="float32")
    x, y = scale * fields(9, 4), max(scale, 1.0) * np.ones((9, 4))
    exact = gradients(net, x, y, methods.Backprop())
    found = gradients(net, x, y, methods.InSituBackprop(protocol=protocol))
    np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())


def test_crosstalk_is_not_known_in_situ():
    net = stack(layers.MZIMesh(6, crosstalk=0.05), layers.Detect())
    x, y = fields(30, 6), np.random.default_rng(0).uniform(size=(30, 6))
    exact = gradients(net, x, y, methods.Backprop(model="hardware"))
    found = gradients(net, x, y, methods.InSituBackprop())
    assert 0.9 < cosine(exact, found) < 0.9999


@pytest.mark.parametrize(
    ("n", "loss", "least", "most"),
    [
        (6, 0.01, 0.9999, 1.0),
        (6, 0.05, 0.9985, 0.9997),
        (6, 0.2, 0.98, 0.992),
        (16, 0.2, 0.91, 0.96),
        (64, 0.05, 0.92, 0.94),
        (64, 0.2, 0.58, 0.62),
    ],
)
def test_loss_makes_gradients_in_situ_worse_as_it_should(n, loss, least, most):
    """Cosines to the gradient of the lossy mesh, and those of three intensities below them."""
    difference, three = [], []
    for seed in range(6 if n < 64 else 2):
        net = stack(layers.MZIMesh(n, loss=loss), layers.Detect(), seed=seed)
        x, y = fields(64, n, seed), np.random.default_rng(seed).uniform(0, 2, size=(64, n))
        exact = gradients(net, x, y, methods.Backprop(model="hardware"))
        difference.append(cosine(exact, gradients(net, x, y, methods.InSituBackprop())))
        worse = methods.InSituBackprop(protocol="three-intensity")
        three.append(cosine(exact, gradients(net, x, y, worse)))
    assert least < np.mean(difference) < most
    assert np.mean(three) < np.mean(difference)


def test_input_errors_are_those_of_the_lossy_hardware():
    """What comes back through a reciprocal chip is the gradient by inputs, with its losses."""
    chain = [layers.Linear(4, 5), layers.Encode(), layers.MZIMesh(5, loss=0.3, mismatch=0.1)]
    net = stack(*chain, layers.Detect())
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.ones((20, 5))
    exact = methods.Backprop(model="hardware").gradient(net, x, y)
    found = methods.InSituBackprop().gradient(net, x, y)
    for name in ("W1", "b1"):
        np.testing.assert_allclose(found[name], exact[name], atol=1e-12)


def test_gradients_in_situ_do_not_depend_on_units():
    mesh = layers.MZIMesh(5, loss=0.1, tap_noise=0.01)
    x = fields(20, 5)
    y = np.random.default_rng(0).uniform(size=(20, 5))
    found = []
    for unit in (1.0, 2.0**-40, 2.0**40):
        net = stack(mesh, layers.Detect())
        gradient = methods.InSituBackprop().gradient(net, unit * x, unit**2 * y)
        found.append([own / unit**4 for own in gradient.values()])
    for own in found[1:]:
        assert all((a == b).all() for a, b in zip(own, found[0], strict=True))


@pytest.mark.parametrize("protocol", ["difference", "three-intensity"])
def test_noise_of_monitors_has_no_bias_and_the_size_that_it_says(protocol):
    n, rows, noise = 4, 24, 0.05
    x, y = fields(rows, n), np.random.default_rng(0).uniform(size=(rows, n))
    method = methods.InSituBackprop(protocol=protocol)
    still = gradients(stack(layers.MZIMesh(n), layers.Detect()), x, y, method)
    found = []
    for seed in range(300):
        net = stack(layers.MZIMesh(n, tap_noise=noise), layers.Detect(), seed=seed)
        for name, own in stack(layers.MZIMesh(n), layers.Detect()).params.items():
            net.params[name][...] = own
        found.append(gradients(net, x, y, method))
    off = np.array(found) - still
    # Errors of outputs, and the powers of what is sent.
    net = stack(layers.MZIMesh(n), layers.Detect())
    errors = (net.predict(x) - y) / rows
    size = np.linalg.norm(2 * errors * net.fields(x)[0], axis=1) / np.linalg.norm(x, axis=1) / 2
    power = (np.abs(x) ** 2).mean(axis=1)
    if protocol == "difference":
        back = off.std(axis=0)
        assert (back < noise * np.sqrt(np.sum((size * 2 * power) ** 2))).all()
    deviation = off.std(axis=0)
    assert deviation.min() > 0.3 * noise * np.sqrt(np.sum((size * power) ** 2))
    assert (np.abs(off.mean(axis=0)) < 4.5 * deviation / np.sqrt(len(found))).all()


def test_parameter_shift_is_for_hardware_whose_outputs_are_sinusoids():
    """Crosstalk makes jumps, and a step of half a turn no quarter of one."""
    x, y = fields(9, 4), np.random.default_rng(0).normal(size=(9, 4))
    for settings in ({"crosstalk": 0.1}, {"half_wave_voltage": 2.0}, {"bits": 1}):
        net = stack(layers.MZIMesh(4, **settings), layers.Detect())
        with pytest.raises(CapabilityError, match="each output must be a sinusoid"):
            methods.ParameterShift().gradient(net, x, y)
    net = stack(layers.MZIMesh(4, bits=2, loss=0.3, phase_error=0.2, mismatch=0.1), layers.Detect())
    found = gradients(net, x, y, methods.ParameterShift())
    exact = gradients(net, x, y, methods.Backprop(model="hardware"))
    np.testing.assert_allclose(found, exact, atol=1e-12)


def test_stacks_that_take_fields_have_a_picture():
    figure = stack(layers.MZIMesh(3), layers.Detect()).plot(np.ones(3) + 1j)
    assert [text.get_text() for text in figure.axes[0].texts] == ["a field:\nnot measured"] * 2


def test_passes_and_reads_are_counted():
    x, y = fields(40, 6), np.random.default_rng(0).uniform(size=(40, 6))
    # Of six modes at both ends two quadratures are read.
    monitors, ends = 2 * 15 + 6, 24
    for protocol, passes, reads in (("difference", 3, 2), ("three-intensity", 2, 3)):
        net = stack(layers.MZIMesh(6), layers.Detect())
        method = methods.InSituBackprop(protocol=protocol)
        trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.01), batch_size=40, seed=0)
        history = trainer.fit(x, y, epochs=1)
        assert history["passes"].tolist() == [passes]
        assert history["measured"].tolist() == [40 * passes]
        assert history["reversed"].tolist() == [40]
        assert history["reads"].tolist() == [40 * (reads * monitors + ends)]


def test_threads_do_not_matter_in_situ():
    mesh = layers.MZIMesh(7, loss=0.1, tap_noise=0.02)
    net = stack(mesh, layers.Detect(photons=100.0), dtype="float32")
    x, y = fields(90, 7), np.random.default_rng(0).uniform(size=(90, 7))
    one, *others = [
        methods.InSituBackprop().gradient(net, x, y, threads=threads) for threads in (1, 2, 3, 8)
    ]
    for other in others:
        assert all(other[name].tobytes() == own.tobytes() for name, own in one.items())


@pytest.mark.parametrize(
    "method",
    [
        methods.InSituBackprop(),
        methods.PhysicsAware(),
        methods.Backprop(vaccination=0.05),
        methods.ParameterShift(),
        methods.SPSA(epsilon=0.05),
        methods.ForwardGradient(),
        methods.DirectFeedbackAlignment(),
        methods.EvolutionStrategy(directions=4, sigma=0.05),
    ],
    ids=lambda method: type(method).__name__,
)
def test_all_methods_train_one_chip(method):
    """Complex data straight into a noisy, lossy mesh, which turns four patterns to four modes."""
    patterns = np.linalg.qr(fields(4, 4, seed=5))[0]
    labels = np.arange(64) % 4
    x = patterns[labels] + 0.1 * fields(64, 4, seed=6)
    net = stack(
        layers.MZIMesh(4, loss=0.05, mismatch=0.05), layers.Detect(photons=1000.0), dtype="float32"
    )
    before = net.score(x, labels)
    optimizer = pnn.optim.Adam(0.1 if "SPSA" not in repr(method) else 0.03)
    trainer = pnn.Trainer(net, method, optimizer, batch_size=16, seed=0)
    trainer.fit(x, labels, epochs=40)
    assert net.score(x, labels) > max(0.9, before)


def test_settings_without_effect_are_refused():
    real = pnn.systems.Stack([layers.Linear(3, 2)], seed=0)
    x, y = np.ones((4, 3)), np.ones((4, 2))
    method = methods.InSituBackprop(protocol="difference")
    refuses(
        ConfigError,
        "protocol is for stacks with monitors of intensities",
        method.gradient,
        real,
        x,
        y,
    )
    mesh = layers.MZIMesh(4)
    for setting, wanted in (
        ({"quantity": "field"}, "quantity"),
        ({"photons": 0.0}, "photons must be a positive number"),
        ({"dark_counts": 1.0}, "dark_counts are for detectors that count"),
        ({"quantity": "real", "photons": 1.0, "dark_counts": 1.0}, "dark_counts are for detectors"),
        ({"bits": 8}, "bits and full_scale go together"),
        ({"bits": 30, "full_scale": 1.0}, "bits must be from 1 to 24"),
    ):
        refuses(ConfigError, wanted, lambda own: stack(mesh, layers.Detect(**own)), setting)
    refuses(ConfigError, "pairs of modes", stack, layers.MZIMesh(3), layers.Detect("balanced"))
    for settings, wanted in (
        ({"ports": [0]}, "ports must name modes of 2 signals, got 1"),
        ({"ports": [0, 2]}, "ports must name modes from 0 to 1, got 2"),
        ({"ports": [1, 1]}, "mode 1 carries more than one"),
        ({"modes": 3, "reference": {0: 1.0}}, "mode 0 carries more than one"),
        ({"ports": []}, "at least one mode"),
        ({"ports": ["a", "b"]}, "every mode of ports must be an integer"),
        ({"reference": {2: np.nan}}, "reference of mode 2"),
    ):
        refuses(
            ConfigError,
            wanted,
            lambda own: stack(layers.Encode(2, **own), layers.Detect()),
            settings,
        )
    refuses(ShapeError, "gives a field, which nothing measures", stack, mesh)
    refuses(ShapeError, "put Encode between", stack, layers.Linear(3, 4), mesh, layers.Detect())
    refuses(
        ConfigError,
        "must be real: put Encode",
        methods.ForwardForward().gradient,
        stack(mesh, layers.Detect()),
        fields(4, 4),
        np.array([0, 1, 2, 3]),
    )
