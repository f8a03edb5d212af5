"""Layouts of meshes, what is imperfect about them, and how they are programmed, beside NumPy."""

import itertools
import json

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import ConfigError, DataError, ShapeError

LAYOUTS = ("clements", "reck", "diamond")
ERRORS = {"coupler_error": 0.05, "phase_error": 0.1, "crosstalk": 0.03, "loss": 0.1}


def unitary(n, seed=0):
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))
    return q * (np.diag(r) / np.abs(np.diag(r)))


def pairs_of(layout, n):
    """The upper waveguides in the order in which light meets interferometers, and the first input.

    Written as the papers draw them: a triangle is what turns a row of the matrix after the other to
    zero; columns are filled as early as waveguides are free.
    """
    if layout == "clements":
        return [top for c in range(n) for top in range(c % 2, n - 1, 2)], 0, n
    first = n - 2 if layout == "diamond" else 0
    rows = range(-first, n - 1)
    columns = [
        [r for r in rows if abs(r) <= c <= 2 * (n - 2) - abs(r) and (c - r) % 2 == 0]
        for c in range(2 * n - 3)
    ]
    return [first + r for column in columns for r in column], first, first + n


def mesh_matrix(layout, n, params, angles=None, transmission=1.0):
    """The product of one matrix of all waveguides for every interferometer."""
    tops, first, size = pairs_of(layout, n)
    angles = np.full((len(tops), 2), np.pi / 4) if angles is None else angles
    whole = np.eye(size, dtype=complex)
    for k, top in enumerate(tops):
        couple = [
            transmission * np.array([[np.cos(a), 1j * np.sin(a)], [1j * np.sin(a), np.cos(a)]])
            for a in angles[k]
        ]
        both = couple[1] @ np.diag([np.exp(1j * params["theta"][k]), 1])
        both = both @ couple[0] @ np.diag([np.exp(1j * params["phi"][k]), 1])
        own = np.eye(size, dtype=complex)
        own[top : top + 2, top : top + 2] = both
        whole = own @ whole
    whole = whole[first : first + n, first : first + n]
    return np.diag(np.exp(1j * np.asarray(params["gamma"]))) @ whole


def chip(mesh, dtype="float64", seed=0):
    return pnn.systems.Stack([mesh, layers.Detect()], dtype=dtype, seed=seed)


def settings_of(net):
    return {name: net.params[f"{name}1"].copy() for name in ("theta", "phi", "gamma")}


def complex_rows(rows, n, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, n)) + 1j * rng.normal(size=(rows, n))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_fields_are_those_of_a_product_of_matrices(layout, n):
    net = chip(layers.MZIMesh(n, layout=layout))
    x = complex_rows(19, n)
    wanted = x @ mesh_matrix(layout, n, settings_of(net)).T
    found, behind = net.fields(x)
    np.testing.assert_allclose(found, wanted, atol=1e-13)
    assert behind is None, "behind detectors signals are real"
    np.testing.assert_allclose(net.predict(x), np.abs(wanted) ** 2, atol=1e-13)
    np.testing.assert_allclose(net.measure(x)[1], np.abs(wanted) ** 2, atol=1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_light_is_made_and_none_lost_but_in_dark_waveguides(layout):
    x = complex_rows(30, 6)
    came = (np.abs(x) ** 2).sum(axis=1)
    left = chip(layers.MZIMesh(6, layout=layout, mismatch=0.1)).predict(x).sum(axis=1)
    assert (left <= came * (1 + 1e-14)).all()
    if layout != "diamond":
        np.testing.assert_allclose(left, came, rtol=1e-13)


def test_unitarity():
    for dtype, bound in (("float64", 256e-15), ("float32", 1.5e-6)):
        net = chip(layers.MZIMesh(256), dtype=dtype)
        found = net.fields(np.eye(256, dtype=complex))[0]
        assert np.abs(found @ found.conj().T - np.eye(256)).max() < bound


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [2, 3, 5, 8, 64])
def test_decompositions_make_the_matrix(layout, n):
    wanted = unitary(n, seed=n)
    found = layers.MZIMesh(n, layout=layout).program(wanted)
    assert found.error < 1e-12
    assert found.fidelity == pytest.approx(1, abs=1e-12)
    own = mesh_matrix(layout, n, found.params)
    np.testing.assert_allclose(own, wanted, atol=1e-12)
    np.testing.assert_allclose(found.matrix, own, atol=1e-12)


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (3, 5), (5, 3), (4, 4), (1, 4), (6, 1)])
def test_any_matrix_is_made_but_for_its_size(n_in, n_out):
    rng = np.random.default_rng(n_in)
    wanted = rng.normal(size=(n_out, n_in)) + 1j * rng.normal(size=(n_out, n_in))
    mesh = layers.SVDLayer(n_in, n_out)
    for factor in (1.0, 1e-150, 1e150):
        found = mesh.program(factor * wanted)
        assert found.error < 1e-12
        largest = np.linalg.norm(wanted, 2)
        assert found.scale == pytest.approx(factor * largest, rel=1e-12)
    net = chip(mesh)
    mesh.program(wanted).write(net, 1)
    x = complex_rows(5, n_in)
    np.testing.assert_allclose(net.fields(x)[0], x @ wanted.T / largest, atol=1e-12)
    # What it can make at all passes no more power than comes in.
    drawn = chip(mesh, seed=3).fields(np.eye(n_in, dtype=complex))[0]
    assert np.linalg.norm(drawn, 2) <= 1 + 1e-13


def test_a_trained_layer_is_put_on_a_chip():
    x, y, x_test, y_test = pnn.data.digits()
    net = pnn.systems.Stack([layers.Linear(64, 10, bias=False)], seed=0)
    pnn.Trainer(net, methods.Backprop(), pnn.optim.Adam(3e-3), seed=0).fit(x, y, epochs=5)
    mesh = layers.SVDLayer(64, 10)
    made = mesh.program(net.params["W1"].T)
    light = pnn.systems.Stack(
        [layers.Encode(64), mesh, layers.Detect("real")], dtype="float64", seed=0
    )
    made.write(light, 2)
    wanted = net.predict(x_test)
    np.testing.assert_allclose(light.predict(x_test) * made.scale, wanted, atol=1e-5)
    assert light.score(x_test, y_test) == net.score(x_test, y_test)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_errors_of_couplers_are_made_up_for(layout):
    n = 5
    count = len(pairs_of(layout, n)[0])
    errors = 0.003 * np.random.default_rng(0).normal(size=(count, 2))
    wanted = unitary(n, seed=4)
    ideal = layers.MZIMesh(n, layout=layout).program(wanted)
    mesh = layers.MZIMesh(n, layout=layout, coupler_error=errors)
    plain = mesh.matrix(ideal.params)
    corrected = mesh.program(wanted)
    np.testing.assert_allclose(
        plain, mesh_matrix(layout, n, ideal.params, np.pi / 4 + errors), atol=1e-12
    )
    assert np.abs(plain - wanted).max() > 1e-3
    # Amplitudes that stay, sin(theta / 2), are reached between those of couplers that are off alike
    # and against each other. Interferometers beside the triangle, which let light stay, are not.
    stays, angles = np.sin(ideal.params["theta"] / 2), np.pi / 4 + errors
    reached = (np.abs(np.cos(angles.sum(axis=1))) <= stays) & (
        stays <= np.cos(np.diff(angles, axis=1)[:, 0])
    )
    assert reached.all() == (layout != "diamond")
    assert corrected.error < (1e-12 if reached.all() else 0.02)
    assert corrected.fidelity > abs(np.vdot(wanted, plain)) ** 2 / n**2


def test_couplers_that_do_not_couple_and_tiny_errors_are_no_trouble():
    dead = [[-np.pi / 4, -np.pi / 4]] * 3
    found = layers.MZIMesh(3, coupler_error=dead).program(np.eye(3))
    assert found.error < 1e-15, "light stays where it is"
    found = layers.MZIMesh(3, coupler_error=[[-np.pi / 4, 0.0]] * 3).program(unitary(3))
    assert np.isfinite(found.fidelity)
    # Light that is to stay where it is: angles near pi are told from what does not stay.
    found = layers.MZIMesh(4, coupler_error=np.full((6, 2), 1e-12)).program(np.eye(4))
    assert found.error < 1e-11


def test_settings_are_written_to_what_they_are_for():
    made = layers.MZIMesh(5).program(unitary(5))
    for other in (
        layers.MZIMesh(5, layout="reck"),
        layers.MZIMesh(5, half_wave_voltage=2.0),
        layers.MZIMesh(6),
        layers.SVDLayer(5, 5),
    ):
        refuses(ConfigError, "layer 1 is not the one that these", made.write, chip(other), 1)
    refuses(ConfigError, "layer 3 is not the one", made.write, chip(layers.MZIMesh(5)), 3)
    net = chip(layers.MZIMesh(5, loss=0.1, mismatch=0.1))
    made.write(net, 1)
    assert (net.params["theta1"] == made.params["theta"]).all()


def test_pictures_are_of_the_mesh_that_is_asked():
    mesh = layers.MZIMesh(4)
    params = settings_of(chip(mesh))
    figure = mesh.plot(params, x=[1.0, 1j, 0.0, 0.0])
    lines, boxes, shifters = figure.axes[0].collections
    assert len(boxes.get_paths()) == 6
    assert len(shifters.get_paths()) == 6 + 4
    powers = np.abs(mesh.matrix(params) @ [1.0, 1j, 0.0, 0.0]) ** 2
    np.testing.assert_allclose(lines.get_array()[-4:], powers, atol=1e-12)
    for layout in ("reck", "diamond"):
        other = layers.MZIMesh(4, layout=layout)
        other.plot(settings_of(chip(other)))
    attenuating = layers.SVDLayer(4, 2)
    attenuating.plot(settings_of(chip(attenuating)))
    refuses(ShapeError, r"theta must have shape \(6,\)", mesh.plot, {**params, "theta": np.ones(9)})
    refuses(ShapeError, r"x must have shape \(4,\)", mesh.plot, params, np.ones(3))


def test_errors_that_cannot_be_made_up_for_are_told():
    errors = 0.1 * np.random.default_rng(0).normal(size=(120, 2))
    found = layers.MZIMesh(16, coupler_error=errors).program(unitary(16))
    assert found.fidelity < 1 - 1e-4
    assert "fidelity=0.9" in repr(found)


@pytest.mark.parametrize("voltage", [0.5, 3.0, 40.0])
def test_voltages_turn_phases_by_their_square(voltage):
    wanted = unitary(4)
    mesh = layers.MZIMesh(4, half_wave_voltage=voltage)
    found = mesh.program(wanted)
    assert found.error < 1e-12
    phases = {name: np.pi * (own / voltage) ** 2 for name, own in found.params.items()}
    np.testing.assert_allclose(mesh_matrix("clements", 4, phases), wanted, atol=1e-12)
    begins = np.concatenate(list(settings_of(chip(mesh)).values())) / voltage
    assert begins.min() >= np.sqrt(0.5)
    assert begins.max() <= np.sqrt(2.5)


def hardware_phases(mesh, params, columns):
    """Crosstalk and rounding, by hand."""
    found = {}
    for name, own in params.items():
        own = np.asarray(own, dtype=float)
        turn = 2 * np.pi if mesh.half_wave_voltage is None else mesh.half_wave_voltage * 2**0.5
        if mesh.bits is not None:
            step = turn / 2**mesh.bits
            own = np.round(own / step) * step
        phase = (
            own if mesh.half_wave_voltage is None else np.pi * (own / mesh.half_wave_voltage) ** 2
        )
        heat = phase % (2 * np.pi) if mesh.half_wave_voltage is None else phase
        found[name] = phase.copy()
        groups = [range(len(own))] if name == "gamma" else columns
        for group in groups:
            for a, b in itertools.pairwise(group):
                found[name][a] += mesh.crosstalk * heat[b]
                found[name][b] += mesh.crosstalk * heat[a]
    return found


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("crosstalk", [0.0, 0.02])
@pytest.mark.parametrize("voltage", [None, 2.0])
def test_heaters_reach_their_neighbours_and_are_set_in_steps(bits, crosstalk, voltage):
    n = 6
    mesh = layers.MZIMesh(n, bits=bits, crosstalk=crosstalk, half_wave_voltage=voltage)
    net = chip(mesh, seed=2)
    columns = [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9], [10, 11, 12], [13, 14]]
    phases = hardware_phases(mesh, settings_of(net), columns)
    x = complex_rows(4, n)
    wanted = x @ mesh_matrix("clements", n, phases).T
    np.testing.assert_allclose(net.fields(x)[0], wanted, atol=1e-12)
    plain = hardware_phases(layers.MZIMesh(n, half_wave_voltage=voltage), settings_of(net), columns)
    wanted = x @ mesh_matrix("clements", n, plain).T
    np.testing.assert_allclose(net.fields(x, model="twin")[0], wanted, atol=1e-12)


def test_errors_have_the_size_that_they_say():
    n, seeds = 24, 40
    params = settings_of(chip(layers.MZIMesh(n)))
    x = complex_rows(6, n)
    ideal = x @ mesh_matrix("clements", n, params).T
    for setting in ({"phase_error": 0.01}, {"coupler_error": 0.01}, {"mismatch": 0.04 / np.pi}):
        off = []
        for seed in range(seeds):
            net = chip(layers.MZIMesh(n, **setting), seed=seed)
            for name, own in params.items():
                net.params[f"{name}1"][...] = own
            off.append(np.mean(np.abs(net.fields(x)[0] - ideal) ** 2) / np.mean(np.abs(ideal) ** 2))
        # Every column adds the square of what it is off by: a phase on one of two arms, twice, and
        # the last ones; a coupler on both arms, twice.
        columns = n - 1
        expected = 1e-4 * (columns + 1 if "phase_error" in setting else 2 * columns)
        assert np.mean(off) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("layout", [*LAYOUTS, "svd"])
@pytest.mark.parametrize("voltage", [None, 1.5])
@pytest.mark.parametrize("loss", [0.0, 0.1, 3.0, 40.0])
def test_derivatives_are_those_of_differences(layout, voltage, loss):
    """Fields that are retraced, and fields that are kept where too much is lost."""
    settings = {**ERRORS, "loss": loss, "half_wave_voltage": voltage, "mismatch": 0.05}
    mesh = (
        layers.SVDLayer(5, 3, **settings)
        if layout == "svd"
        else layers.MZIMesh(5, layout=layout, **settings)
    )
    net = chip(mesh, seed=5)
    x = complex_rows(3, 5)
    scale = net.predict(x).max()
    y = np.random.default_rng(0).uniform(0, scale, size=(3, net.n_out))
    exact = methods.Backprop(model="hardware").gradient(net, x, y)
    largest = max(np.abs(own).max() for own in exact.values())
    step = 1e-4
    for name, gradient in exact.items():
        for k in range(0, len(gradient), 3):
            losses = []
            for sign in (2, 1, -1, -2):
                net.params[name][k] += sign * step
                losses.append(0.5 * ((net.predict(x) - y) ** 2).sum() / len(x))
                net.params[name][k] -= sign * step
            slope = (8 * (losses[1] - losses[2]) - (losses[0] - losses[3])) / (12 * step)
            assert gradient[k] == pytest.approx(slope, abs=1e-8 * largest), (name, k)


@pytest.mark.parametrize("layout", [*LAYOUTS, "svd"])
def test_jacobians_of_twins_are_those_of_differences(layout):
    """By inputs, whose real and imaginary parts are two, and by parameters."""
    mesh = layers.SVDLayer(4, 3) if layout == "svd" else layers.MZIMesh(4, layout=layout)
    net, x = chip(mesh, seed=1), complex_rows(7, 4)
    dy = np.random.default_rng(3).normal(size=(7, net.n_out))
    dx, gradient = net.vjp(x, dy)
    step, move = 1e-6, complex_rows(7, 4, seed=9)
    change = (net.predict(x + step * move) - net.predict(x - step * move)) / (2 * step)
    slope = np.real(np.sum(np.conj(dx) * move))
    assert np.sum(change * dy) == pytest.approx(slope, rel=1e-7)
    along = {
        name: np.random.default_rng(k).normal(size=own.shape)
        for k, (name, own) in enumerate(gradient.items())
    }
    ends = []
    for sign in (1, -1):
        for name, own in along.items():
            net.params[name] += sign * step * own
        ends.append(net.predict(x))
        for name, own in along.items():
            net.params[name] -= sign * step * own
    change = (ends[0] - ends[1]) / (2 * step)
    slope = sum(np.sum(gradient[name] * own) for name, own in along.items())
    assert np.sum(change * dy) == pytest.approx(slope, rel=1e-7)


def test_what_is_no_mesh_is_refused():
    refuses(ConfigError, "layout", layers.MZIMesh, 4, layout="ring")
    for setting in ("loss", "phase_error", "crosstalk", "tap_noise", "coupler_error"):
        refuses(
            ConfigError, f"{setting} must be at least 0", chip, layers.MZIMesh(4, **{setting: -1.0})
        )
    refuses(ConfigError, "half_wave_voltage", chip, layers.MZIMesh(4, half_wave_voltage=0.0))
    refuses(ConfigError, "bits must be from 1 to 24", chip, layers.MZIMesh(4, bits=25))
    refuses(ConfigError, r"shape \(6, 2\)", chip, layers.MZIMesh(4, coupler_error=np.zeros((5, 2))))
    refuses(ConfigError, "coupler_error", layers.MZIMesh, 4, coupler_error=np.zeros(6))
    refuses(ConfigError, "n_out must be a positive integer", layers.SVDLayer, 3, 0)


def test_what_cannot_be_programmed_is_refused():
    mesh = layers.MZIMesh(3)
    refuses(DataError, "matrix must be unitary.*SVDLayer", mesh.program, np.ones((3, 3)))
    refuses(ShapeError, r"matrix must have shape \(3, 3\)", mesh.program, np.eye(4))
    refuses(DataError, "matrix must be finite", mesh.program, np.full((3, 3), np.nan))
    refuses(DataError, "matrix must be an array of numbers", mesh.program, [["a"] * 3] * 3)
    refuses(DataError, "from 1e-300 to 1e300", layers.SVDLayer(2, 2).program, np.zeros((2, 2)))
    other = chip(layers.MZIMesh(4))
    refuses(ConfigError, "layer 1 is not the one", mesh.program(np.eye(3)).write, other, 1)


def test_complex_inputs_are_for_layers_of_fields():
    net, x = chip(layers.MZIMesh(3)), complex_rows(2, 3)
    assert net.n_in == 3
    assert net.takes_fields
    refuses(DataError, "x must be complex amplitudes.*Encode", net.predict, x.real)
    refuses(ShapeError, r"\(samples, 3\)", net.predict, x[:, :2])
    x[1, 2] = np.nan
    refuses(DataError, "row 1, column 2", net.predict, x)
    real = pnn.systems.Stack([layers.Linear(3, 2)], seed=0)
    refuses(
        DataError,
        "x must be an array of numbers without imaginary parts.*MZIMesh",
        real.predict,
        complex_rows(2, 3),
    )


def test_settings_go_to_files_and_back(tmp_path):
    errors = 0.01 * np.arange(12).reshape(6, 2)
    mesh = layers.MZIMesh(
        4, layout="reck", coupler_error=errors, bits=8, half_wave_voltage=2.0, loss=0.1
    )
    assert layers.from_config(json.loads(json.dumps(mesh.to_config()))) == mesh
    assert eval(repr(mesh), {"MZIMesh": layers.MZIMesh}) == mesh
    net = chip(mesh)
    x, y = complex_rows(20, 4), np.random.default_rng(0).uniform(size=(20, 4))
    trainer = pnn.Trainer(net, methods.PhysicsAware(), pnn.optim.SGD(0.1), seed=0)
    trainer.fit(x, y, epochs=2)
    trainer.save(tmp_path / "chip.pnn")
    again = pnn.Trainer.load(tmp_path / "chip.pnn")
    assert again.system.predict(x).tobytes() == net.predict(x).tobytes()
