"""Pictures of light: what is in them, and what their labels say."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import layers
from pnncore.errors import CapabilityError

pytest.importorskip("matplotlib")


def labels(figure):
    return {text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel()) if text}


@pytest.mark.parametrize(("mask", "panels"), [("phase", 1), ("amplitude", 1), ("complex", 2)])
def test_masks_are_drawn(mask, panels):
    layer = layers.Diffraction((4, 6), 9.0, 1.0, 0.9, mask=mask)
    net = pnn.systems.Stack([layer, layers.Detect()], seed=0)
    own = {name[:-1]: values for name, values in net.params.items()}
    figure = layer.plot(own)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == panels
    if mask != "amplitude":
        shown = images[0].get_array()
        np.testing.assert_allclose(shown, np.mod(own["phase"], 2 * np.pi), atol=1e-5)
        assert images[0].get_clim() == (0, 2 * np.pi)
    with pytest.raises(CapabilityError, match="nothing to draw"):
        layers.Diffraction((4, 6), 9.0, 1.0, 0.9, mask=None).plot({})


def test_planes_show_the_field_on_its_way():
    geometry = {"distance": 9.0, "wavelength": 1.0, "pitch": 0.9}
    chain = [layers.Diffraction((5, 6), **geometry), layers.Diffraction((5, 6), **geometry)]
    net = pnn.systems.Stack([layers.Encode(30), *chain, layers.Detect()], seed=0)
    x = np.random.default_rng(0).random(30).astype(np.float32)
    figure = net.plot_planes(x)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["before layer 2", "behind layer 2", "behind layer 3"]
    images = [axes.images[0].get_array() for axes in figure.axes[:6] if axes.images]
    np.testing.assert_allclose(images[0], x.reshape(5, 6) ** 2, rtol=1e-5)
    behind = np.abs(net.fields(x[None])[2].reshape(5, 6)) ** 2
    assert any(np.allclose(image, behind) for image in images)
    with pytest.raises(CapabilityError, match="no layers of Diffraction"):
        pnn.systems.Stack([layers.Linear(3, 2)]).plot_planes([1, 2, 3])


def test_waveguides_show_the_field_on_its_way():
    layer = layers.Waveguide(32, 32.0, 60.0, 1.0, index_range=0.02, steps=10, absorber=0.2)
    logits = np.random.default_rng(0).normal(size=(10, 32))
    x = np.exp(-((np.arange(32) - 16) ** 2) / 20) + 0j
    figure = layer.plot({"logit": logits}, x)
    change, intensity, _ = (axes.images[0].get_array() for axes in figure.axes[:3])
    np.testing.assert_allclose(change, layer.index_change({"logit": logits}).T)
    # What is in the middle of a step went through those before: as in a shorter guide of theirs.
    assert intensity.shape == (32, 10)
    power = (10 ** (intensity / 10)).sum(axis=0)
    assert (power[1:] <= power[:-1] * (1 + 1e-6)).all()
    assert power[0] * (np.abs(x) ** 2).max() < 1.2 * (np.abs(x) ** 2).sum()
    assert {"x", "z, in the unit of the lengths that were given"} <= labels(figure)


def test_fibres_show_the_pulse_on_its_way():
    layer = layers.Fibre(64, 20.0, 1.0, 0.0, 2.0, steps=20)
    figure = layer.plot({"phase": np.zeros(64)})
    power = figure.axes[0].images[0].get_array()
    t = (np.arange(64) - 32) * 20 / 64
    # Without dispersion the power stays what it is, and the spectrum widens.
    np.testing.assert_allclose(power, np.repeat(1 / np.cosh(t[:, None]) ** 2, 20, 1), atol=1e-12)
    first, last = (line.get_ydata() for line in figure.axes[1].lines)
    assert (last > 0.01).sum() > (first > 0.01).sum()


def test_rings_show_their_spectra():
    bank = layers.MicroringBank(3, 2, spacing=8.0, finesse=60.0)
    detuning = np.array([[0.0, 1.0, 3.0], [0.5, 0.0, 0.0]])
    figure = bank.plot({"detuning": detuning})
    assert len(figure.axes) == 2
    for axes, own, weights in zip(
        figure.axes, detuning, bank.matrix({"detuning": detuning}), strict=True
    ):
        line = axes.lines[0]
        at = np.interp(8.0 * np.arange(3), line.get_xdata(), line.get_ydata())
        # A weight is 1 - 2 of what is let through, over the number of outputs.
        np.testing.assert_allclose((1 - 2 * at) / 2, weights, atol=2e-3)
        assert np.isfinite(own).all()
