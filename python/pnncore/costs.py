"""What training would cost: conversions and pulses of crossbars, light, hours of instruments.

>>> import pnncore as pnn
>>> crossbar = pnn.layers.Crossbar(64, 10, device=pnn.devices.ConstantStep())
>>> net = pnn.systems.Stack([crossbar], seed=0)
>>> x, y, *_ = pnn.data.digits()
>>> method, optimizer = pnn.methods.InSituBackprop(), pnn.optim.SGD(0.1)
>>> trainer = pnn.Trainer(net, method, optimizer, seed=0, progress=False)
>>> history = trainer.fit(x, y, epochs=1)
>>> ledger = estimate(net, history)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_list, instance, number, positive_int, shown
from pnncore._ledger import Ledger
from pnncore._light_costs import LightPrices, estimate_light, photons_per_multiply_add
from pnncore.devices import MixedPrecision, MultiCell, Pair, TikiTaka
from pnncore.errors import CapabilityError, ConfigError
from pnncore.history import History
from pnncore.layers import Crossbar
from pnncore.methods import Method
from pnncore.optim import SGD
from pnncore.systems import Instrument, Stack
from pnncore.trainer import Trainer

__all__ = [
    "Ledger",
    "LightPrices",
    "Prices",
    "estimate",
    "estimate_light",
    "hours",
    "photons_per_multiply_add",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What single events cost.

    The defaults are round numbers of today's circuits, to be replaced by one's own.

    Parameters
    ----------
    input_level, output_level
        The energy of a conversion per level of the converter, in joules: 1 fJ and 10 fJ. Output
        converters of good design take some 10 fJ per conversion step: Murmann, ADC Performance
        Survey 1997-2024.
    voltage, read_time, conductance
        Of a read, in volts and seconds, and the mean of the conductances in siemens: a cell takes G
        V² t, here 40 fJ (Le Gallo et al., Nat. Electron. 6, 680 (2023), reads in 133 ns).
    pulse, slot
        The energy of a programming pulse at a cell, in joules, and the time of a slot of a train,
        in seconds: 1 pJ and 10 ns (Yu, Proc. IEEE 106, 260 (2018), table of devices).
    operation
        The energy of a digital multiply-add, in joules: 1 pJ; 4.6 pJ at 45 nm (Horowitz, ISSCC
        (2014)).
    """

    input_level: float = 1e-15
    output_level: float = 1e-14
    voltage: float = 0.2
    read_time: float = 1e-7
    conductance: float = 1e-5
    pulse: float = 1e-12
    slot: float = 1e-8
    operation: float = 1e-12

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the price."""
        for name in self.__dataclass_fields__:
            number(getattr(self, name), name, positive=True)


def estimate(net: Stack, history: History, prices: Prices | None = None) -> Ledger:
    """Return what training took: every read and conversion, and every pulse, at these prices.

    Reads that bound management repeats are counted once.

    Parameters
    ----------
    net
        A `Stack` with crossbars.
    history
        Of its training.
    prices
        None: those of `Prices`.
    """
    prices = prices if prices is not None else Prices()
    for value, kind in ((history, History), (prices, Prices)):
        if not isinstance(value, kind):
            raise ConfigError(f"expected a {kind.__name__}, got {shown(value)}")
    layers = [layer for layer in getattr(net, "layers", ()) if isinstance(layer, Crossbar)]
    if not layers:
        raise CapabilityError(f"{shown(net)} has no crossbars to count reads of")
    names = ("reads", "cells", "inputs", "outputs")
    counts: dict[str, Array] = {name: np.zeros(history.epochs) for name in names}
    energy: dict[str, Array] = {
        name: np.zeros(history.epochs) for name in ("cells", "inputs", "outputs")
    }
    seconds = np.zeros(history.epochs)

    def level(bits: int | None) -> float:
        return float(2 ** (bits if bits is not None else 8))

    def read(times: Array, cells: int, inputs: float, outputs: float) -> None:
        for name, count in zip(names, (1, cells, inputs, outputs), strict=True):
            counts[name] += times * count

    for k, layer in enumerate(layers):
        rows, columns = layer.tile if layer.tile is not None else (layer.n_in, layer.n_out)
        high, wide = -(-layer.n_in // rows), -(-layer.n_out // columns)
        cells = layer.n_in * layer.n_out * _per_weight(layer)
        passes = [(history["measured"], cells, layer.n_in * wide, layer.n_out * high, layer.io)]
        if k > 0 or layer.io.scale == "learned":
            # Errors go back to all layers but the first, and to that where the range of its inputs
            # is learned.
            back = layer.backwards()
            passes.append((history["reversed"], cells, layer.n_out * high, layer.n_in * wide, back))
        if isinstance(layer.algorithm, TikiTaka):
            # Of the fast array, which has one cell per weight.
            lines = history["measured"] / layer.algorithm.every
            passes.append((lines, layer.n_out, wide, layer.n_out, layer.algorithm.io))
        for once, read_cells, inputs, outputs, io in passes:
            times = once * io.reads
            read(times, read_cells, inputs, outputs)
            bits = 1 if io.passes == "bits" else io.input_bits
            energy["inputs"] += times * inputs * level(bits) * prices.input_level
            energy["outputs"] += times * outputs * level(io.output_bits) * prices.output_level
            seconds += times * prices.read_time
        if layer.device is not None and not isinstance(layer.algorithm, MixedPrecision):
            seconds += history["measured"] * layer.trains.slots * prices.slot
    energy["cells"] = counts["cells"] * prices.conductance * prices.voltage**2 * prices.read_time
    for name, price in (("pulses", prices.pulse), ("operations", prices.operation)):
        counts[name] = history[name]
        energy[name] = history[name] * price
    return Ledger(counts, energy, seconds)


def hours(
    system: Stack,
    methods: Mapping[str, Method] | Sequence[Method],
    *,
    seconds: float,
    samples: int,
    epochs: int = 1,
    batch_size: int = 32,
) -> dict[str, float]:
    """Return the hours of shots that training an instrument would take, by method.

    A stand-in of the same shape makes one step, and counts its shots; the instrument makes none.

    Parameters
    ----------
    system
        What is to be trained: an `Instrument`, or a `Stack` with one.
    methods
        The methods to compare, by name; those of a sequence go by the names of their classes.
    seconds
        The time of a shot, such as `Instrument.check` finds.
    samples, epochs, batch_size
        Of the planned run.

    Returns
    -------
    dict
        Hours, by name.
    """
    instance(system, Stack, "system", "a pnncore instrument, or a Stack with one")
    if len(system.instruments) != 1:
        raise ConfigError(f"system must have one instrument, got {shown(system)}")
    if not isinstance(methods, Mapping):
        given = as_list(methods, "methods", "pnncore methods, in a list or by name")
        methods = {type(method).__name__: method for method in given}
        if len(methods) < len(given):
            raise ConfigError("methods of one class need names: give them as a dictionary")
    seconds = number(seconds, "seconds", positive=True)
    samples = positive_int(samples, "samples")
    epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
    steps = epochs * -(-samples // batch_size)
    found = {}
    for name, method in methods.items():
        instance(method, Method, "a method to time", "a pnncore method")
        shots = _shots_of_step(system, method, min(batch_size, samples))
        found[name] = steps * shots * seconds / 3600
    return found


def _shots_of_step(system: Stack, method: Method, rows: int) -> float:
    """Let a stand-in of the same shape count the shots of one step."""
    random, (driver,) = np.random.default_rng(0), system.instruments

    def instead(layer: Any) -> Any:
        if getattr(layer, "driver", None) is None:
            return layer
        return Instrument(
            lambda x, *params: random.normal(size=(len(x), driver.n_out)),
            driver.n_in,
            driver.n_out,
            params=layer.initial,
            device=layer.device,
            twin=driver.twin,
            dtype=system.dtype,
        )

    layers = [instead(layer) for layer in system.layers]
    other = Stack(layers, dtype=system.dtype, seed=0, numbered=system.numbered)
    trainer = Trainer(other, method, SGD(0.01), batch_size=rows, seed=0, progress=False)
    x = np.zeros((rows, system.n_in), system.dtype)
    history = trainer.fit(x, np.arange(rows) % system.n_out, epochs=1)
    shots = "passes" if driver.policy.batch else "measured"
    return float(history[shots][-1])


def _per_weight(layer: Crossbar) -> int:
    if isinstance(layer.device, MultiCell):
        return len(layer.device.significance)
    return 2 if isinstance(layer.device, Pair) else 1
