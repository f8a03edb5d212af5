"""What training with light takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pnncore._convert import instance, number
from pnncore._ledger import Array, Ledger
from pnncore.errors import CapabilityError, ConfigError
from pnncore.history import History
from pnncore.layers import (
    Detect,
    DetectorRegions,
    Encode,
    Layer,
    MicroringBank,
    MZIMesh,
    SVDLayer,
)
from pnncore.systems import Stack


@dataclass(frozen=True, kw_only=True)
class LightPrices:
    """What single events of light cost.

    The defaults are round numbers of silicon photonics, to be replaced by one's own.

    Parameters
    ----------
    photon
        The energy of a photon, in joules: of 1550 nm.
    laser_efficiency
        What of the power of a plug comes out as light, and arrives at detectors where nothing is
        lost in between: a tenth.
    modulation, detection
        Of a value that is put on light, and of one that is told from it, in joules: 100 fJ each
        (Miller, J. Lightwave Technol. 35, 346 (2017), tens to hundreds of fJ).
    level
        Of a conversion per level of the converter, in joules: 10 fJ (Murmann, ADC Performance
        Survey 1997-2024).
    bits
        Of converters, where detectors do not say.
    heater
        The power that turns a phase by π, in watts: 20 mW, and `ring` that of a ring at its
        resonance: 1 mW (Bogaerts et al., Nature 586, 207 (2020)).
    ring
        See `heater`.
    sample
        The time of a sample, in seconds: 1 ns.
    operation
        Of a digital multiply-add, in joules: 1 pJ.
    """

    photon: float = 1.28e-19
    laser_efficiency: float = 0.1
    modulation: float = 1e-13
    detection: float = 1e-13
    level: float = 1e-14
    bits: float = 8.0
    heater: float = 0.02
    ring: float = 1e-3
    sample: float = 1e-9
    operation: float = 1e-12

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the price."""
        for name in self.__dataclass_fields__:
            number(getattr(self, name), name, positive=True)
        if self.laser_efficiency > 1:
            raise ConfigError(f"laser_efficiency must be at most 1, got {self.laser_efficiency}")


_OPTICS = (Encode, Detect, DetectorRegions, MZIMesh, SVDLayer, MicroringBank)


def estimate_light(net: Stack, history: History, prices: LightPrices | None = None) -> Ledger:
    """Return what training with light took: photons, conversions, heaters, at these prices.

    Every sample that is measured is modulated once and detected once; errors that are sent back are
    modulated at the outputs, and what monitors read is detected, too. Photons are those of
    detectors that count them, of samples whose amplitudes have squares that add up to one. Heaters
    hold the phases that the mesh has now. Masks that are printed, and fibres, take nothing.

    Parameters
    ----------
    net
        A `Stack` with layers of light.
    history
        Of its training.
    prices
        None: those of `LightPrices`.
    """
    prices = prices if prices is not None else LightPrices()
    instance(history, History, "history", "a pnncore History")
    instance(prices, LightPrices, "prices", "pnncore LightPrices")
    chain: list[Layer] = list(getattr(net, "layers", ()))
    if not any(isinstance(layer, _OPTICS) for layer in chain):
        raise CapabilityError(f"{net!r} has no light to count")
    times, back = history["measured"], history["reversed"]
    counts: dict[str, Array] = {
        name: np.zeros(history.epochs)
        for name in ("photons", "modulations", "detections", "heaters")
    }
    energy = {"conversions": np.zeros(history.epochs)}
    widths = [net.n_in, *net.core.widths()]
    heat = 0.0
    for place, layer in enumerate(chain):
        signals, outputs = widths[place], widths[place + 1]
        if isinstance(layer, Encode | MicroringBank):
            counts["modulations"] += times * signals
        if isinstance(layer, MicroringBank):
            heat += prices.ring * layer.n_in * layer.n_out
            counts["heaters"] += layer.n_in * layer.n_out
        if isinstance(layer, Detect | DetectorRegions | MicroringBank):
            bits = prices.bits if isinstance(layer, MicroringBank) else layer.bits or prices.bits
            read = times * outputs
            counts["detections"] += read
            counts["modulations"] += back * outputs
            energy["conversions"] += read * 2.0**bits * prices.level
        if isinstance(layer, Detect | DetectorRegions):
            counts["photons"] += times * (layer.photons or 0.0)
        if isinstance(layer, MZIMesh | SVDLayer):
            phases = _phases(net, layer, place)
            heat += prices.heater * float(phases.sum()) / np.pi
            counts["heaters"] += len(phases)
    counts["detections"] += history["reads"]
    seconds = (times + back) * prices.sample
    energy |= {
        "photons": counts["photons"] * prices.photon / prices.laser_efficiency,
        "modulations": counts["modulations"] * prices.modulation,
        "detections": counts["detections"] * prices.detection,
        "heaters": heat * seconds,
    }
    counts["operations"] = history["operations"]
    energy["operations"] = history["operations"] * prices.operation
    return Ledger(counts, energy, seconds)


def _phases(net: Stack, layer: Layer, place: int) -> Array:
    """Return the phases that heaters of a mesh hold, each the least one that is not negative."""
    suffix = str(place + 1) if f"theta{place + 1}" in net.params else ""
    settings = np.concatenate(
        [np.ravel(net.params[name + suffix]).astype(float) for name in ("theta", "phi", "gamma")]
    )
    voltage = getattr(layer, "half_wave_voltage", None)
    if voltage is not None:
        return np.asarray(np.pi * (settings / voltage) ** 2)
    return np.asarray(np.mod(settings, 2 * np.pi))


def photons_per_multiply_add(net: Stack, x: Any, error: float) -> float:
    """Return how many photons a multiply-add takes for outputs to be that exact.

    The noise of light alone makes outputs off by `error`, relative to their root mean square, where
    the detectors of the last layer detect so many photons of an intensity of one. Those of the
    light of a sample, in the mean, are divided by the multiply-adds of a matrix of as many modes
    and outputs.

    Parameters
    ----------
    net
        A `Stack` whose last layer is `layers.Detect`: of intensities, or of quadratures.
    x
        Samples, such as the run has.
    error
        The relative error, such as 0.01.
    """
    instance(net, Stack, "net", "a pnncore Stack")
    relative = number(error, "error", positive=True)
    detect = net.layers[-1]
    if not isinstance(detect, Detect):
        raise CapabilityError(f"the last layer must be Detect, got {detect!r}")
    first = next((k for k, layer in enumerate(net.layers) if isinstance(layer, Encode)), None)
    fields = [net.as_rows(x), *net.fields(x, model="twin")]
    field, ends = fields[0 if first is None else first + 1], fields[-2]
    if field is None or ends is None or not np.iscomplexobj(field):
        raise CapabilityError("photons are counted of light: put Encode in the stack")
    power = float((np.abs(field) ** 2).sum(axis=1).mean())
    light = np.abs(ends) ** 2
    # What is detected, without any noise, and its variance times the photons of an intensity of
    # one: both intensities of a pair add theirs.
    told: dict[str, tuple[Any, float]] = {
        "intensity": (light, float(light.mean())),
        "balanced": (light[:, 0::2] - light[:, 1::2], 2 * float(light.mean())),
        "real": (ends.real, 0.25),
        "imaginary": (ends.imag, 0.25),
        "quadratures": (np.concatenate([ends.real, ends.imag], axis=1), 0.5),
    }
    exact, variance = told[detect.quantity]
    mean_square = float((exact.astype(float) ** 2).mean())
    if mean_square == 0:
        raise ConfigError("x must give outputs that are not all zero")
    photons = variance / (relative**2 * mean_square)
    return float(photons * power / (field.shape[1] * exact.shape[1]))
