"""Programmable waveguides and fibres: against closed forms, and a plain split step."""

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import ConfigError

RNG = np.random.default_rng(4)


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def stack(layer, **settings):
    given = {"dtype": "float64", "seed": 0, **settings}
    return pnn.systems.Stack([layer, layers.Detect("quadratures")], **given)


def logits(share):
    """Return the logits of shares of the range."""
    share = np.clip(share, 1e-12, 1 - 1e-12)
    return np.log(share / (1 - share))


def positions(layer):
    return (np.arange(layer.points) - 0.5 * (layer.points - 1)) * layer.width / layer.points


def plain(layer, change, field):
    """Propagate in plain NumPy; returns the field, and what the edges absorbed, step by step."""
    n, dz = layer.points, layer.length / layer.steps
    k0 = 2 * np.pi / layer.wavelength
    kx = 2 * np.pi * np.fft.fftfreq(n, layer.width / n)
    half = np.exp(-0.5j * kx**2 * dz / (2 * k0 * layer.index))
    spacing, edge = layer.width / n, max(layer.absorber * layer.width, 1e-300)
    depth = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) * spacing
    depth = np.maximum(0, 1 - depth / edge)
    rate = 1.5 * 4.6 * layer.wavelength / (4 * layer.index * spacing) / edge
    kept = np.where(depth > 0, np.exp(-rate * depth**2 * dz), 1.0)
    absorbed = 0.0
    rows = np.repeat(np.repeat(change, layer.steps // len(change), 0), n // change.shape[1], 1)
    for row in rows:
        field = np.fft.ifft(half * np.fft.fft(field))
        absorbed += ((1 - kept**2) * np.abs(field) ** 2).sum()
        field = kept * np.exp(1j * k0 * row * dz) * field
        field = np.fft.ifft(half * np.fft.fft(field))
    return field, absorbed


@pytest.mark.parametrize("absorber", [0.0, 0.2])
@pytest.mark.parametrize(("sections", "pixels"), [(None, None), (6, 16), (1, 64)])
def test_light_goes_as_in_a_plain_split_step(absorber, sections, pixels):
    layer = layers.Waveguide(
        64, 64.0, 900.0, 1.5, index=1.8, index_range=0.02, steps=90, sections=sections,
        pixels=pixels, absorber=absorber,
    )  # fmt: skip
    net = stack(layer)
    net.params["logit1"][:] = RNG.normal(0, 2, net.params["logit1"].shape)
    change = layer.index_change({"logit": net.params["logit1"]})
    x = np.exp(-((positions(layer) - 5) ** 2) / 80) * np.exp(0.2j * positions(layer))
    wanted, absorbed = plain(layer, change, x)
    found = net.fields(x[None])[0][0]
    assert error(found, wanted) < 1e-12
    single = stack(layer, dtype="float32")
    single.params["logit1"][:] = net.params["logit1"]
    assert error(single.fields(x[None])[0][0], wanted) < 1e-5
    # The edges' own loss, counted where it happens, and what comes out are all that went in.
    power = (np.abs(x) ** 2).sum()
    assert abs((np.abs(found) ** 2).sum() + absorbed - power) < 1e-12 * power
    assert (absorbed > 0.01 * power) == (absorber > 0)


@pytest.mark.parametrize("angle", [0.1, 0.25])
@pytest.mark.parametrize("length", [1e-3, 2e-3, 5e-3, 2e-2])
def test_light_that_leaves_does_not_come_back(angle, length):
    """However long the slab is: beside one that is so wide that its edges do not matter."""

    def inner(points):
        layer = layers.Waveguide(
            points, points * 1e-6, length, 1.55e-6, index_range=1e-9, steps=int(length / 2e-5)
        )
        net = stack(layer)
        net.params["logit1"][:] = -40.0
        x = positions(layer)
        k = 2 * np.pi * 1.5 / 1.55e-6
        beam = np.exp(-((x / 12e-6) ** 2) + 1j * k * angle * x)
        found = net.fields(beam[None])[0][0]
        return found[points // 2 - 100 : points // 2 + 100], (np.abs(beam) ** 2).sum()

    (found, power), (wanted, _) = inner(256), inner(16384)
    assert (np.abs(found - wanted) ** 2).sum() < 1.2e-3 * power


def test_a_guided_mode_keeps_its_shape():
    # dn = dn0 / cosh^2(x / w) with k0 dn0 = 1 / (k w^2) has the mode 1 / cosh(x / w).
    wave, index, w, length = 1.0, 1.5, 4.0, 400.0
    k0 = 2 * np.pi / wave
    peak = 1 / (k0 * k0 * index * w**2)
    off = []
    for steps in (25, 50, 100):
        layer = layers.Waveguide(
            256, 128.0, length, wave, index=index, index_range=2 * peak, steps=steps
        )
        x = positions(layer)
        net = stack(layer)
        net.params["logit1"][:] = logits(0.5 / np.cosh(x / w) ** 2)
        mode = 1 / np.cosh(x / w)
        turned = mode * np.exp(1j * length / (2 * k0 * index * w**2))
        off.append(error(net.fields(mode[None] + 0j)[0][0], turned))
    assert off[2] < 1e-4
    # Second order.
    assert 3.5 < off[0] / off[1] < 4.5
    assert 3.5 < off[1] / off[2] < 4.5


def test_a_beam_spreads_as_it_should():
    layer = layers.Waveguide(512, 512.0, 3000.0, 1.0, index=1.5, index_range=1e-4, steps=20)
    net = stack(layer)
    net.params["logit1"][:] = -40.0
    x, waist, k = positions(layer), 20.0, 2 * np.pi * 1.5
    q = 1 + 2j * layer.length / (k * waist**2)
    wanted = np.exp(-(x**2) / (waist**2 * q)) / np.sqrt(q)
    assert error(net.fields(np.exp(-(x**2) / waist**2)[None] + 0j)[0][0], wanted) < 1e-9


def test_light_goes_both_ways_alike():
    # Reciprocity: the transfer matrix of the reversed map is the transpose.
    layer = layers.Waveguide(16, 20.0, 70.0, 1.5, index_range=0.02, steps=8, absorber=0.2)
    net = stack(layer)
    net.params["logit1"][:] = RNG.normal(0, 2, (8, 16))
    forward = net.fields(np.eye(16, dtype=complex))[0].T
    net.params["logit1"][:] = net.params["logit1"][::-1].copy()
    assert error(net.fields(np.eye(16, dtype=complex))[0].T, forward.T) < 1e-13


def test_light_measures_its_gradient_whatever_is_absorbed():
    layer = layers.Waveguide(
        32, 40.0, 300.0, 1.5, index_range=0.02, steps=40, sections=10, pixels=8, absorber=0.3
    )
    for mismatch in (0.0, 0.2):
        net = pnn.systems.Stack(
            [layers.Encode(32), layer, layers.Detect()],
            dtype="float64", seed=1, mismatch=mismatch,
        )  # fmt: skip
        x, y = RNG.normal(size=(20, 32)), RNG.normal(size=(20, 32))
        exact = methods.Backprop(model="hardware").gradient(net, x, y)["logit2"]
        found = methods.InSituBackprop().gradient(net, x, y)["logit2"]
        # What pixels do of what they should, nobody knows: it is missing.
        off = error(found, exact)
        assert off < 1e-9 if mismatch == 0 else 0.1 < off < 0.5
        cosine = (found * exact).sum() / np.linalg.norm(found) / np.linalg.norm(exact)
        assert cosine > 0.95


FIBRE = {"points": 256, "window": 30.0, "length": 1.0, "dispersion": 0.0, "nonlinearity": 0.0}


def in_time(spectrum, layer):
    """Return the field in time of what comes out, in units of the pulse's peak."""
    field = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(spectrum, axes=-1)), axes=-1)
    t = (np.arange(layer.points) - layer.points // 2) * layer.window / layer.points
    shape = (
        1 / np.cosh(t / layer.duration)
        if layer.pulse == "sech"
        else np.exp(-(t**2) / (2 * layer.duration**2))
    )
    return field * np.sqrt(layer.points * (shape**2).sum()), t, shape


def out_of(**settings):
    layer = layers.Fibre(**{**FIBRE, **settings})
    net = stack(layer)
    net.params["phase1"][:] = 0
    spectrum = net.fields(np.ones((1, layer.points), complex))[0][0]
    assert abs((np.abs(spectrum) ** 2).sum() - 1) < 1e-12
    return (*in_time(spectrum, layer), layer)


@pytest.mark.parametrize("pulse", ["sech", "gaussian"])
def test_power_turns_phases(pulse):
    field, _, shape, _ = out_of(nonlinearity=5.0, peak_power=2.0, pulse=pulse, steps=100)
    assert error(field, shape * np.exp(10j * shape**2)) < 1e-12


def test_dispersion_spreads_a_pulse():
    field, t, _, layer = out_of(dispersion=-3.0, pulse="gaussian", steps=3, window=90.0, points=512)
    # A_z = -i (beta2 / 2) A_tt.
    q = 1 - 1j * layer.dispersion
    assert error(field, np.exp(-(t**2) / (2 * q)) / np.sqrt(q)) < 1e-12


def test_a_soliton_keeps_its_shape_for_ten_periods():
    off = []
    for steps in (500, 1000, 2000):
        settings = {"length": 5 * np.pi, "dispersion": -1.0, "nonlinearity": 2.0}
        field, _, shape, _ = out_of(**settings, peak_power=0.5, steps=steps)
        off.append(error(field, shape * np.exp(0.5j * 5 * np.pi)))
    assert off[2] < 1e-4
    assert 3.5 < off[1] / off[2] < 4.5


def test_a_shaper_moves_a_pulse():
    layer = layers.Fibre(**FIBRE, steps=1)
    net = stack(layer)
    late = 32 * layer.window / layer.points
    net.params["phase1"][:] = -2 * np.pi * layer.frequencies * late
    field, _, shape = in_time(net.fields(np.ones((1, 256), complex))[0][0], layer)
    assert error(field, np.roll(shape, 32)) < 1e-12
    # What arrives does so alike.
    net.params["phase1"][:] = 0
    ramp = np.exp(-2j * np.pi * layer.frequencies * late)
    field, _, shape = in_time(net.fields(ramp[None])[0][0], layer)
    assert error(field, np.roll(shape, 32)) < 1e-12


def test_bad_settings_are_refused():
    wave = {"points": 64, "width": 64.0, "length": 900.0, "wavelength": 1.5}
    for settings, text in [
        ({"points": 200}, "waves along the axis"),
        ({"index_range": 0.5}, "take at least"),
        ({"sections": 7}, "sections must divide steps, 200, got 7"),
        ({"pixels": 7}, "pixels must divide points, 64, got 7"),
        ({"absorber": 0.5}, r"absorber must be in \[0, 0.5\), got 0.5"),
        ({"index_range": 0.02, "sections": 50, "steps": 50}, "take at least 100 steps, 2 to a sec"),
        ({"wavelength": 1550.0}, "give width and wavelength in the same unit"),
        ({"wavelength": 0.0}, "wavelength must be a positive number"),
        ({"points": 0}, "points must be"),
    ]:
        refuses(ConfigError, text, lambda own=settings: stack(layers.Waveguide(**{**wave, **own})))
    for settings, text in [
        ({"window": 3.0}, "at least four times as much"),
        ({"points": 16}, "needs points at most that far apart"),
        ({"nonlinearity": 200.0}, "take at least 2000 steps"),
        ({"nonlinearity": -1.0}, "nonlinearity must be at least 0"),
        ({"dispersion": np.nan}, "dispersion must be a finite number"),
        ({"pulse": "square"}, "pulse must be one of"),
        ({"steps": 0}, "steps must be"),
    ]:
        refuses(ConfigError, text, lambda own=settings: stack(layers.Fibre(**{**FIBRE, **own})))
