"""Diffractive layers: against integrals, closed forms, and transforms that are padded more."""

import itertools

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import ConfigError, ShapeError

RNG = np.random.default_rng(3)


def across(x, shape, distance, pitch, wavelength=1.0, dtype="float64"):
    """Send fields (rows, height, width) through free space."""
    height, width = shape
    space = layers.Diffraction(shape, distance, wavelength, pitch, mask=None)
    net = pnn.systems.Stack([space, layers.Detect("quadratures")], dtype=dtype, seed=0)
    flat = np.reshape(x, (-1, height * width)).astype(complex)
    return net.fields(flat)[0].reshape(-1, height, width)


def coordinates(count, pitch):
    return (np.arange(count) - 0.5 * (count - 1)) * pitch


def rayleigh_sommerfeld(shape, distance, pitch, waist, at):
    """Sum the first Rayleigh-Sommerfeld integral of a beam, on a finer grid, in plain NumPy."""
    fine, places = pitch / 4, [coordinates(n, pitch) for n in shape]
    y, x = (coordinates(4 * n, fine) for n in shape)
    field = np.exp(-(y[:, None] ** 2 + x**2) / waist**2)
    found = []
    for i, j in at:
        r = np.sqrt((y[:, None] - places[0][i]) ** 2 + (x - places[1][j]) ** 2 + distance**2)
        kernel = distance / (2 * np.pi * r**2) * (1 / r - 2j * np.pi) * np.exp(2j * np.pi * r)
        found.append((field * kernel).sum() * fine**2)
    return np.array(found)


def angular_spectrum(field, distance, pitch, fold):
    """Transform a field padded to `fold` times its size, turn all waves, and transform back."""
    n = field.shape[0]
    f = np.fft.fftfreq(fold * n, pitch)
    axial = np.sqrt((1 - f[:, None] ** 2 - f**2).astype(complex))
    spectrum = np.fft.fft2(field, (fold * n, fold * n))
    return np.fft.ifft2(spectrum * np.exp(2j * np.pi * distance * axial))[:n, :n]


def beam(shape, pitch, waist, shift=(0.0, 0.0)):
    """Return a Gaussian beam at its waist."""
    y, x = coordinates(shape[0], pitch)[:, None] - shift[0], coordinates(shape[1], pitch) - shift[1]
    return np.exp(-(x**2 + y**2) / waist**2)


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


# Both ways to find what a pixel sends: small and large pixels, near and far planes.
GEOMETRIES = [(8.0, 0.4), (30.0, 0.53), (40.0, 0.75), (60.0, 1.5), (900.0, 1.0), (5e4, 4.0)]


@pytest.mark.parametrize(("distance", "pitch"), GEOMETRIES)
def test_smooth_fields_obey_the_rayleigh_sommerfeld_integral(distance, pitch):
    shape = (56, 60)
    # Wide enough that pixels resolve all of it, and dark at the edges.
    field = beam(shape, pitch, 5.0 * pitch)
    at = [(28, 30), (20, 41), (3, 50), (0, 0)]
    wanted = rayleigh_sommerfeld(shape, distance, pitch, 5.0 * pitch, at)
    found = across(field, shape, distance, pitch)[0]
    largest = np.abs(found).max()
    assert np.abs([found[i, j] for i, j in at] - wanted).max() < 1e-10 * largest
    single = across(field, shape, distance, pitch, dtype="float32")[0]
    assert np.abs(single - found).max() < 3e-6 * largest


def test_a_gaussian_beam_spreads_as_it_should():
    # The closed form is paraxial: off by about the square of the angle, 1 / (pi waist).
    shape, pitch, waist, distance = (96, 96), 4.0, 60.0, 9000.0
    found = across(beam(shape, pitch, waist), shape, distance, pitch)[0]
    rayleigh = np.pi * waist**2
    q = 1 + 1j * distance / rayleigh
    y, x = coordinates(96, pitch)[:, None], coordinates(96, pitch)
    closed = np.exp(2j * np.pi * distance - (x**2 + y**2) / (waist**2 * q)) / q
    assert error(found, closed) < 3e-3
    assert error(np.abs(found), np.abs(closed)) < 1e-4


@pytest.mark.parametrize(("distance", "pitch"), [(15.0, 0.8), (40.0, 1.0), (300.0, 5.0)])
def test_random_pixels_are_the_limit_of_more_padding(distance, pitch):
    # Waves at the edge of what pixels resolve go far: what they bring back in a padded transform
    # falls only as the square of how much it is padded.
    field = np.exp(2j * np.pi * RNG.random((40, 40)))
    found = across(field, (40, 40), distance, pitch)[0]
    off = [error(angular_spectrum(field, distance, pitch, fold), found) for fold in (2, 8, 32)]
    assert off[0] > 5e-3
    assert off[1] < 0.02
    assert off[2] < 0.15 * off[1]


def test_random_pixels_in_the_geometry_of_a_diffractive_network():
    # Pixels of .53 wavelengths are points that send waves; what is stated in docs/light.md.
    field = np.exp(2j * np.pi * RNG.random((200, 200)))
    found = across(field, (200, 200), 40.0, 0.53)[0]
    off = [error(angular_spectrum(field, 40.0, 0.53, fold), found) for fold in (1, 2, 8)]
    assert 0.7 < off[0] < 1.2
    assert 0.1 < off[1] < 0.16
    assert 0.015 < off[2] < 0.03


def test_light_is_in_the_next_plane_or_beside_it():
    # What a plane three times as large gets, and the plane itself, is all that comes in.
    field = beam((30, 30), 1.0, 4.0) * np.exp(2j * np.pi * RNG.random((30, 30)))
    power = (np.abs(field) ** 2).sum()
    own = across(field, (30, 30), 40.0, 1.0)[0]
    wide = np.pad(field, 60)
    all_of_it = across(wide, wide.shape, 40.0, 1.0)[0]
    middle = all_of_it[60:-60, 60:-60]
    assert error(own, middle) < 1e-12
    beside = (np.abs(all_of_it) ** 2).sum() - (np.abs(middle) ** 2).sum()
    assert 0.02 * power < beside < 0.5 * power
    assert abs((np.abs(own) ** 2).sum() + beside - power) < 2e-3 * power


@pytest.mark.filterwarnings("ignore:at most")
def test_units_do_not_matter():
    field = np.exp(2j * np.pi * RNG.random((12, 12)))
    for distance, pitch in GEOMETRIES:
        a = across(field, (12, 12), distance, pitch)
        b = across(field, (12, 12), distance * 7e-7, pitch * 7e-7, wavelength=7e-7)
        assert error(a, b) < 1e-9


MASKS = [
    {"mask": mask, "absorption": absorption, "bits": bits}
    for mask, absorption, bits in itertools.product(
        ("phase", "amplitude", "complex"), (0.0, 0.2), (None, 3)
    )
    if mask != "amplitude" or absorption == 0.0
]


@pytest.mark.parametrize("settings", MASKS)
def test_masks_are_what_they_say(settings):
    layer = layers.Diffraction((5, 6), 9.0, 1.0, 0.9, **settings)
    net = pnn.systems.Stack([layer, layers.Detect("quadratures")], dtype="float64", seed=0)
    rng = np.random.default_rng(1)
    for values in net.params.values():
        values[:] = rng.normal(0, 2, values.shape)
    own = {name.removesuffix("1"): values for name, values in net.params.items()}
    x = rng.normal(size=(3, 30)) + 1j * rng.normal(size=(3, 30))
    masked = x.reshape(3, 5, 6) * layer.transmission(own)
    wanted = across(masked, (5, 6), 9.0, 0.9).reshape(3, 30)
    assert error(net.fields(x, model="twin")[0], wanted) < 1e-12
    if settings["bits"] is None:
        assert np.array_equal(net.fields(x)[0], net.fields(x, model="twin")[0])
        return
    # Steps: a turn in 8, amplitudes in 8 levels from 0 to 1; absorption is that of the step.
    rounded = {}
    if "phase" in own:
        rounded["phase"] = np.round(own["phase"] / (np.pi / 4)) * np.pi / 4
    if "logit" in own:
        amplitude = np.round(7 / (1 + np.exp(-own["logit"]))) / 7
        amplitude = np.clip(amplitude, 1e-300, 1 - 1e-16)
        rounded["logit"] = np.log(amplitude / (1 - amplitude))
    masked = x.reshape(3, 5, 6) * layer.transmission(rounded)
    wanted = across(masked, (5, 6), 9.0, 0.9).reshape(3, 30)
    assert error(net.fields(x)[0], wanted) < 1e-12


@pytest.mark.parametrize("settings", MASKS)
def test_light_measures_its_gradient_whatever_is_absorbed(settings):
    """Fields at the masks alone: exact, but for rounded settings, which the twin does not know."""
    first = layers.Diffraction((4, 6), 7.0, 1.0, 0.9, **{**settings, "bits": None})
    second = layers.Diffraction((4, 6), 5.0, 1.0, 0.9, **{**settings, "bits": None})
    regions = layers.DetectorRegions(2, (4, 6))
    net = pnn.systems.Stack([layers.Encode(24), first, second, regions], dtype="float64", seed=2)
    x, y = RNG.normal(size=(9, 24)), RNG.integers(0, 2, 9)
    found = methods.InSituBackprop().gradient(net, x, y)
    exact = methods.Backprop().gradient(net, x, y)
    for name, wanted in exact.items():
        assert np.abs(wanted).max() > 0
        assert error(found[name], wanted) < 1e-9


def test_reads_and_passes_are_counted():
    mask = layers.Diffraction((4, 6), 7.0, 1.0, 0.9)
    space = layers.Diffraction((4, 6), 7.0, 1.0, 0.9, mask=None)
    net = pnn.systems.Stack([layers.Encode(24), mask, space, layers.DetectorRegions(2, (4, 6))])
    trainer = pnn.Trainer(net, methods.InSituBackprop(), pnn.optim.Adam(0.01), seed=0)
    history = trainer.fit(RNG.normal(size=(10, 24)), RNG.integers(0, 2, 10), epochs=1)
    # Four intensities of either field at 24 pixels, and the fields at both ends of the light.
    assert history["reads"].tolist() == [10 * (8 * 24 + 2 * 48)]
    assert history["reversed"].tolist() == [10]
    assert history["measured"].tolist() == [10]
    refuses(
        ConfigError,
        "monitors of intensities",
        methods.InSituBackprop(protocol="difference").gradient,
        net,
        RNG.normal(size=(4, 24)),
        [0, 1, 0, 1],
    )


def test_light_that_was_measured_knows_of_its_hardware():
    # Masks of random phases that are off by a tenth of a pixel: the gradient in situ is that of the
    # hardware, nearly, and the twin's is not.
    mask = [layers.Diffraction((8, 8), 20.0, 1.0, 0.9, mismatch=0.1) for _ in range(3)]
    net = pnn.systems.Stack(
        [layers.Encode(64), *mask, layers.DetectorRegions(2, (8, 8))], dtype="float64", seed=2
    )
    x, y = RNG.random((9, 64)), RNG.integers(0, 2, 9)
    flat = lambda found: np.concatenate([v.ravel() for v in found.values()])  # noqa: E731
    exact = flat(methods.Backprop(model="hardware").gradient(net, x, y))
    cosine = {}
    for method in (methods.InSituBackprop(), methods.Backprop(model="twin")):
        found = flat(method.gradient(net, x, y))
        cosine[type(method).__name__] = (
            exact @ found / np.linalg.norm(exact) / np.linalg.norm(found)
        )
    assert cosine["InSituBackprop"] > 0.9
    assert cosine["Backprop"] < 0.8


def test_regions_gather_light():
    regions = layers.DetectorRegions(3, (9, 12), size=2, gain=None)
    x = RNG.normal(size=(5, 108)) + 1j * RNG.normal(size=(5, 108))
    space = layers.Diffraction((9, 12), 20.0, 1.0, 1.0, mask=None)
    net = pnn.systems.Stack([space, regions], dtype="float64", seed=0)
    intensity = np.abs(net.fields(x)[0].reshape(5, 9, 12)) ** 2
    powers = np.stack(
        [intensity[:, t:b, lef:r].sum(axis=(1, 2)) for t, lef, b, r in regions.regions], axis=1
    )
    assert error(net.predict(x), powers) < 1e-12

    def outputs(**settings):
        layer = layers.DetectorRegions(3, (9, 12), size=2, **settings)
        return pnn.systems.Stack([space, layer], dtype="float64", seed=0), layer

    shares, _ = outputs(gain=7.0)
    assert error(shares.predict(x), 7 * powers / powers.sum(axis=1, keepdims=True)) < 1e-12
    contrasts, layer = outputs(differential=True, gain=2.0)
    pairs = np.stack(
        [intensity[:, t:b, lef:r].sum(axis=(1, 2)) for t, lef, b, r in layer.regions], axis=1
    ).reshape(5, 3, 2)
    wanted = 2 * (pairs[..., 0] - pairs[..., 1]) / pairs.sum(axis=2)
    assert error(contrasts.predict(x), wanted) < 1e-12
    # No light, no share.
    assert not shares.predict(np.zeros((1, 108), complex)).any()
    # Photons: the mean of many counts, with their variance.
    counted, _ = outputs(gain=None, photons=50.0, dark_counts=3.0)
    drawn = counted.predict(np.tile(x[:1], (4000, 1)))
    spread = np.sqrt((50 * powers[0] + 3) / 50**2)
    assert np.abs((drawn.mean(axis=0) - powers[0]) / (spread / np.sqrt(4000))).max() < 4.5
    assert np.abs(drawn.std(axis=0) / spread - 1).max() < 0.06


@pytest.mark.parametrize("classes", range(1, 13))
@pytest.mark.parametrize("differential", [False, True])
@pytest.mark.parametrize("shape", [(60, 60), (40, 100), (90, 30)])
def test_regions_lie_apart_within_the_plane(classes, differential, shape):
    layer = layers.DetectorRegions(classes, shape, differential=differential)
    seen = np.zeros(shape, int)
    for top, left, bottom, right in layer.regions:
        assert 0 <= top < bottom <= shape[0]
        assert 0 <= left < right <= shape[1]
        seen[top:bottom, left:right] += 1
    assert seen.max() == 1
    assert len(layer.regions) == classes * (2 if differential else 1)


def test_images_are_shown_in_the_middle_of_a_plane():
    ports = layers.image_ports((2, 3), (7, 8), size=(5, 6))
    image = np.arange(1.0, 7.0)
    net = pnn.systems.Stack(
        [layers.Encode(6, modes=56, ports=ports), layers.Detect()], dtype="float64", seed=0
    )
    shown = np.sqrt(net.predict(image[None])[0]).reshape(7, 8)
    wanted = np.zeros((7, 8))
    wanted[1:6, 1:7] = [[1, 1, 2, 2, 3, 3]] * 3 + [[4, 4, 5, 5, 6, 6]] * 2
    assert np.array_equal(shown, wanted)
    refuses(ConfigError, "size must be from that of the image", layers.image_ports, (4, 4), (3, 3))
    refuses(ConfigError, r"plane must be \(height, width\)", layers.image_ports, (4, 4), 5)


@pytest.mark.filterwarnings("ignore:at most")
def test_bad_settings_are_refused():
    def stack(**settings):
        given = {"shape": (20, 20), "distance": 30.0, "wavelength": 1.0, "pitch": 0.6, **settings}
        return pnn.systems.Stack([layers.Diffraction(**given), layers.Detect()])

    stack()
    for settings, text in [
        ({"distance": 1.0}, "distance must be at least 2 times the pitch"),
        ({"distance": 5.0}, "take a distance of at least 7.56"),
        ({"distance": -1.0}, "distance must be a positive number"),
        ({"wavelength": 0.0}, "wavelength must be a positive number"),
        ({"pitch": np.inf}, "pitch must be a finite number"),
        ({"shape": (0, 3)}, "shape must be a pair of positive integers"),
        ({"shape": 7}, r"shape must be \(height, width\)"),
        ({"mask": "holes"}, "mask must be one of"),
        ({"mask": None, "bits": 3}, "bits are for masks"),
        ({"mask": "amplitude", "absorption": 0.1}, "absorption is for masks with phases"),
        ({"absorption": -0.1}, "absorption must be at least 0"),
        ({"bits": 0}, "bits must be"),
    ]:
        refuses(ConfigError, text, lambda settings=settings: stack(**settings))
    refuses(ConfigError, "memory", lambda: stack(shape=(10**5, 10**5), pitch=1.0))
    for settings, text in [
        ({"size": 11}, "leaves 10 x 10 pixels for a region, got 11 x 11"),
        ({"size": (3, 11)}, "leaves 10 x 10 pixels for a region, got 3 x 11"),
        ({"size": 0}, "size must be a pair of positive integers"),
        ({"gain": 0.0}, "gain must be a positive number"),
        ({"bits": 4}, "bits and full_scale go together"),
        ({"dark_counts": 1.0}, "dark_counts are for detectors that count"),
    ]:
        refuses(
            ConfigError,
            text,
            lambda settings=settings: pnn.systems.Stack(
                [
                    layers.Diffraction((20, 20), 30.0, 1.0, 0.6),
                    layers.DetectorRegions(4, (20, 20), **settings),
                ]
            ),
        )
    refuses(
        ShapeError,
        "takes 36 complex amplitudes",
        pnn.systems.Stack,
        [layers.Encode(4), layers.Diffraction((6, 6), 30.0, 1.0, 0.6), layers.Detect()],
    )
    mask = layers.Diffraction((3, 3), 30.0, 1.0, 0.6)
    refuses(ConfigError, "params must be a dictionary of phase", mask.transmission, {})


def test_a_layer_tells_how_far_it_pads():
    assert layers.Diffraction((200, 100), 40.0, 1.0, 0.53).padded_shape == (432, 216)
    net = pnn.systems.Stack([layers.Diffraction((6, 6), 30.0, 1.0, 0.6), layers.Detect()])
    again = layers.from_config(net.layers[0].to_config())
    assert again == net.layers[0]


def test_whole_turns_of_steps_absorb_nothing():
    layer = layers.Diffraction((1, 40), 9.0, 1.0, 0.9, absorption=0.3, bits=4)
    net = pnn.systems.Stack([layer, layers.Detect("quadratures")], dtype="float64", seed=0)
    net.params["phase1"][:] = 2 * np.pi * np.arange(-20, 20)
    x = RNG.normal(size=(2, 40)) + 1j * RNG.normal(size=(2, 40))
    assert error(net.fields(x)[0], across(x, (1, 40), 9.0, 0.9).reshape(2, 40)) < 1e-13


@pytest.mark.parametrize("size", [1e-16, 1e-11, 1.0, 1e10])
@pytest.mark.parametrize("differential", [False, True])
def test_slopes_of_shares_do_not_depend_on_units(size, differential):
    regions = layers.DetectorRegions(2, (4, 4), size=1, differential=differential)
    x = (1 + np.arange(16.0))[None]
    wanted = pnn.systems.Stack([layers.Encode(16), regions], dtype="float64", seed=0).vjp(
        x, np.array([[1.0, 0.3]])
    )[0]
    net = pnn.systems.Stack([layers.Encode(16), regions], seed=0)
    found = net.vjp((size * x).astype("f4"), np.array([[1, 0.3]], "f4"))[0].astype(float)
    assert error(found * size, wanted) < 1e-5


def test_arrays_of_other_shapes_are_refused():
    mask = layers.Diffraction((3, 4), 5.0, 1.0, 0.6)
    guide = layers.Waveguide(8, 16.0, 30.0, 1.0, steps=4)
    fibre, rings = layers.Fibre(8, 6.0, 1.0, -1.0, 1.0, steps=10), layers.MicroringBank(3, 2)
    x = np.ones(8)
    for call in (
        lambda: mask.transmission({"phase": np.ones((4, 3))}),
        lambda: mask.plot({"phase": np.ones((4, 3))}),
        lambda: guide.index_change({"logit": np.ones((8, 4))}),
        lambda: guide.plot({"logit": np.ones((8, 4))}, x),
        lambda: fibre.plot({"phase": np.ones(9)}),
        lambda: rings.plot({"detuning": np.ones((3, 2))}),
    ):
        refuses(ShapeError, "must have shape", call)


def test_a_share_of_one_region_is_refused():
    plane = layers.Diffraction((6, 6), 30.0, 1.0, 0.6)
    refuses(
        ConfigError,
        "gain is for shares",
        pnn.systems.Stack,
        [plane, layers.DetectorRegions(1, (6, 6))],
    )
    pnn.systems.Stack([plane, layers.DetectorRegions(1, (6, 6), gain=None)])
    pnn.systems.Stack([plane, layers.DetectorRegions(1, (6, 6), differential=True)])


def test_planes_that_do_not_lie_on_each_other_are_refused():
    first = layers.Diffraction((8, 8), 30.0, 1.0, 0.8)
    for other, kind, text in [
        (layers.Diffraction((4, 16), 30.0, 1.0, 0.8), ShapeError, r"plane of \(4, 16\) pixels"),
        (layers.DetectorRegions(2, (16, 4)), ShapeError, r"plane of \(16, 4\) pixels"),
        (layers.Diffraction((8, 8), 30.0, 1.0, 0.9), ConfigError, "pixels 1.125 times as large"),
        (layers.Diffraction((8, 8), 30.0, 0.9, 0.8), ConfigError, "pixels 1.111 times as large"),
    ]:
        refuses(kind, text, pnn.systems.Stack, [first, other, layers.Detect()])
    # Another unit, and another distance.
    same = layers.Diffraction((8, 8), 5e-6, 1e-6, 8e-7)
    pnn.systems.Stack([first, same, layers.DetectorRegions(2, (8, 8))])


def test_parameters_with_the_number_of_a_layer_are_refused_with_advice():
    mask = layers.Diffraction((3, 3), 5.0, 1.0, 0.6)
    net = pnn.systems.Stack([layers.Encode(9), mask, layers.Detect()])
    refuses(
        ConfigError, r'such as \{"phase": net.params\["phase2"\]\}', mask.plot, dict(net.params)
    )


def test_planes_that_light_does_not_reach_are_warned_of():
    """A distance in another unit than the rest: the first mode of two planes carries all there is.

    The largest singular value of the transfer is what the best field loses least by.
    """
    plane = {"shape": (8, 8), "distance": 800.0, "wavelength": 1.0, "pitch": 1.0}
    with pytest.warns(UserWarning, match="at most 0.006 of the light can reach the next plane"):
        layer = layers.Diffraction(**plane, mask=None)
    net = pnn.systems.Stack([layer, layers.Detect()], dtype="float64")
    transfer = net.fields(np.eye(64, dtype=complex))[0]
    best = np.linalg.svd(transfer, compute_uv=False)[0] ** 2
    assert best == pytest.approx((64 / 800) ** 2, rel=0.02)


def test_refusals_name_the_layer():
    short = layers.Diffraction((8, 8), -1.0, 1.0, 1.0, mask=None)
    refuses(ConfigError, r"^layer 2: distance must", pnn.systems.Stack, [layers.Encode(64), short])
