"""Digests of the parameters that every method leaves in every system, in both precisions.

They are pinned in `digests.json` by what decides about the last bit: the instruction set of the
core, and the functions of the system's mathematical library. A change that is to leave all results
as they are leaves all digests as they are.

    python tests/digests.py  # print what differs from the pinned digests of this machine
    python tests/digests.py --pin                        # pin the digests of this machine anew
    PNNCORE_SIMD=portable python tests/digests.py --pin  # those of a lower instruction set
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pnncore as pnn
from pnncore import Settling, devices, layers, methods, optim, systems
from pnncore.elements import Cubic, Diode, Resistor
from pnncore.errors import CapabilityError, ConfigError, ShapeError

PINNED = Path(__file__).with_name("digests.json")
DTYPES = ("float32", "float64")
SAMPLES, BATCH, EPOCHS = 10, 4, 2

EP = methods.EquilibriumPropagation
#: Methods that need a setting, and further ways through methods that all systems share.
SETTINGS: dict[str, methods.Method] = {
    "EquilibriumPropagation one-sided": EP(variant="one-sided", sign="random"),
    "EquilibriumPropagation holomorphic": EP(variant="holomorphic", points=3, beta=0.1),
    "EquilibriumPropagation cross-entropy": EP(loss="cross-entropy"),
    "EquilibriumPropagation given sweeps": EP(beta=0.1, settling=Settling(sweeps=(9, 5))),
    "EquilibriumPropagation synchronous": EP(
        beta=0.1, settling=Settling(sweeps=(9, 5), order="synchronous")
    ),
    "EquilibriumPropagation explicit": EP(
        beta=0.1, settling=Settling(sweeps=(9, 5), output_update="explicit")
    ),
    "CoupledLearning centered": methods.CoupledLearning(variant="centered"),
    "RecurrentBackprop": methods.RecurrentBackprop(steps=5),
    "FiniteDifference": methods.FiniteDifference(epsilon=1e-3),
    "SPSA": methods.SPSA(epsilon=1e-3, directions=2),
    "EvolutionStrategy": methods.EvolutionStrategy(sigma=1e-3, directions=3),
    "EvolutionStrategy adapted": methods.EvolutionStrategy(
        sigma=1e-3, directions=3, adaptation=0.1
    ),
    "CoordinateDescent": methods.CoordinateDescent(epsilon=1e-3, coordinates=3),
    "CMAES": methods.CMAES(sigma=1e-3, population=6),
    "GeneticAlgorithm": methods.GeneticAlgorithm(population=6, mutation=1e-3),
    "SurrogateOptimization": methods.SurrogateOptimization(
        hidden=4, samples=32, fits=3, exploration=1e-3
    ),
    "ForwardForward": methods.ForwardForward(classes=2),
}

OPTIMIZERS: dict[str, optim.Optimizer] = {
    "momentum": optim.SGD(
        0.01, momentum=0.9, weight_decay=0.01, schedule=optim.ExponentialDecay(0.9)
    ),
    "Adam": optim.Adam(0.002),
}


class Anharmonic(systems.EnergySystem):
    """A chain of states between inputs, each on a spring that hardens."""

    def __init__(self, dtype: str):
        start = {"k": np.linspace(0.5, 1.5, 5)}
        super().__init__(n_in=1, n_states=5, n_out=2, params=start, dtype=dtype)

    def _stretch(self, x, s):
        return np.diff(np.concatenate([x, s], axis=1), axis=1)

    def energy(self, params, x, s):
        d = self._stretch(x, s)
        # Products: the last bit of a power is that of NumPy's instruction set.
        return (params["k"] * d * d / 2 + d * d * d * d / 4).sum(axis=1) + 0.15 * (s * s).sum(
            axis=1
        )

    def state_gradient(self, params, x, s):
        d = self._stretch(x, s)
        force = params["k"] * d + d * d * d
        return force - np.concatenate([force[:, 1:], 0 * force[:, :1]], axis=1) + 0.3 * s

    def param_gradient(self, params, x, s, weights):
        # Not a product of matrices: the last bit of those is another library's.
        return {"k": (weights[:, None] * np.square(self._stretch(x, s)) / 2).sum(axis=0)}


def circuit(dtype: str) -> systems.Circuit:
    found = [
        Resistor("a", "m", 1.0),
        Resistor("b", "m", 2.0),
        Diode("m", "u", 1e-3, 1.5),
        Cubic("m", "v", 1.0, 0.3),
        Resistor("u", "0", 1.0),
        Resistor("v", "0", 0.5),
        Resistor("u", "v", 0.7),
    ]
    return systems.Circuit(found, inputs=["a", "b"], outputs=["u", "v"], dtype=dtype)


def flow(dtype: str) -> systems.Flow:
    """A square lattice."""
    at = [(i, j) for i in range(4) for j in range(4)]
    edges = [(f"{a}", f"{b}") for a in at for b in at if a < b and math.dist(a, b) == 1]
    return systems.Flow(
        edges, inputs=["(0, 0)", "(3, 3)"], outputs=["(0, 3)", "(2, 1)"], dtype=dtype
    )


def elastic(dtype: str) -> systems.Elastic:
    at = [
        (i + 0.1 * math.sin(3 * i + j), j + 0.1 * math.sin(i - 2 * j))
        for i in range(3)
        for j in range(3)
    ]
    springs = [(a, b) for a in range(9) for b in range(a) if math.dist(at[a], at[b]) < 1.7]
    return systems.Elastic(
        at, springs, inputs=[(6, 0), (8, 1)], outputs=[(5, 0), (7, 1)], fixed=[0, 1, 2], dtype=dtype
    )


def instrument(dtype: str) -> systems.Instrument:
    mixing = np.linspace(-1, 1, 6).reshape(3, 2)

    def measure(x, params):
        return np.round(np.tanh((x * params["gain"]) @ mixing), 6)

    return systems.Instrument(measure, 3, 2, params={"gain": np.ones(3)}, seed=0, dtype=dtype)


def stack(*chain: layers.Layer) -> Callable[[str], systems.Stack]:
    return lambda dtype: systems.Stack([*chain], seed=0, dtype=dtype)


def lit(layer: layers.Layer) -> list[layers.Layer]:
    """Return a chain with the layer that takes four real signals and gives real ones; a field
    has no noise."""
    for own in (layer, dataclasses.replace(layer, noise=None)):
        for before, behind in itertools.product(([], [layers.Encode()]), ([], [layers.Detect()])):
            with suppress(ShapeError, ConfigError):
                systems.Stack([layers.Linear(3, 4), *before, own, *behind], seed=0)
                return [*before, own, *behind]
    raise AssertionError(f"no chain has {layer}")


OPTICS = {
    "shape": (2, 2),
    "points": 4,
    "sections": 2,
    "classes": 2,
    "distance": 9.0,
    "wavelength": 0.8,
    "pitch": 1.0,
    "length": 20.0,
    "window": 4.0,
    "dispersion": -1.0,
    "nonlinearity": 1.0,
    "couplings": (4, 3, 2),
}


def layered() -> Iterator[tuple[str, Callable[[str], systems.System]]]:
    sizes = {"n_in": 4, "n_out": 4, "n": 4, "width": 4, "n_params": 5, **OPTICS}
    noisy = {"noise": 0.01, "mismatch": 0.02}
    for name, kind in sorted(layers.Layer.kinds().items()):
        fields = getattr(kind, "__dataclass_fields__", {})
        given = {field: sizes[field] for field in fields if field in sizes}
        for ideal, settings in ((" ", {}), (" disordered ", noisy)):
            chain = [layers.Linear(3, 4), *lit(kind(**given, **settings))]
            outputs = systems.Stack(chain, seed=0).n_out
            yield f"Stack {name}{ideal}".rstrip(), stack(*chain, layers.Linear(outputs, 2))
    yield "Stack Speckle alone", stack(layers.Speckle(3, 2, reference=0.5))
    deep = [
        layers.Linear(3, 6),
        layers.Tanh(),
        layers.Linear(6, 5, noise=0.01),
        layers.ReLU(),
        layers.Linear(5, 2),
    ]
    yield "Stack deep", stack(*deep)
    low = [layers.Linear(3, 20, precision="bfloat16"), layers.Tanh()]
    yield "Stack bfloat16", stack(*low, layers.Linear(20, 2, precision="bfloat16"))
    yield "Stack int8", stack(*low, layers.Crossbar(20, 2, precision="int8"))


def arrays() -> Iterator[tuple[str, Callable[[str], systems.System]]]:
    """Crossbars of every kind of cell, and every algorithm that writes them."""
    for name, kind in sorted(vars(devices).items()):
        if not isinstance(kind, type) or name.startswith("_"):
            continue
        if issubclass(kind, devices.Cells) and kind is not devices.Cells:
            try:
                crossbar = layers.Crossbar(3, 2, device=kind())
            except TypeError:
                continue
            yield f"Crossbar {name}", stack(crossbar)
        if issubclass(kind, devices.Algorithm) and kind is not devices.Algorithm:
            yield (
                f"Crossbar {name}",
                stack(layers.Crossbar(3, 2, device=devices.SoftBounds(), algorithm=kind())),
            )


def all_systems() -> dict[str, Callable[[str], systems.System]]:
    return {
        "Hopfield": lambda dtype: systems.Hopfield([5, 9, 3], seed=0, dtype=dtype),
        "Hopfield tanh": lambda dtype: systems.Hopfield(
            [5, 9, 7, 3], activation="tanh", seed=0, dtype=dtype
        ),
        "Hopfield logistic": lambda dtype: systems.Hopfield(
            [5, 8, 7, 6, 3], activation="logistic", seed=0, dtype=dtype
        ),
        "Hopfield alone": lambda dtype: systems.Hopfield([5, 3], seed=0, dtype=dtype),
        "Hopfield bfloat16": lambda dtype: systems.Hopfield(
            [5, 9, 7, 3], activation="tanh", precision="bfloat16", seed=0, dtype=dtype
        ),
        "DeepResistive": lambda dtype: systems.DeepResistive([5, 8, 7, 3], seed=0, dtype=dtype),
        "Circuit": circuit,
        "Flow": flow,
        "Elastic": elastic,
        "EnergySystem": Anharmonic,
        "Instrument": instrument,
        **dict(layered()),
    }


def all_methods() -> dict[str, methods.Method]:
    found = dict(SETTINGS)
    for name, kind in vars(methods).items():
        if isinstance(kind, type) and issubclass(kind, methods.Method) and name not in found:
            if kind.__subclasses__():
                continue
            found[name] = kind()
    return dict(sorted(found.items()))


def trained(system: systems.System, method: methods.Method, optimizer: optim.Optimizer) -> str:
    """The digest of parameters and outputs after some training.

    Raises `pnncore.errors.CapabilityError` where the method does not train the system.
    """
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.3, 0.6, (SAMPLES, system.n_in)).astype(system.dtype)
    y = rng.integers(0, min(system.n_out, 2), SAMPLES)
    trainer = pnn.Trainer(system, method, optimizer, batch_size=BATCH, seed=1, progress=False)
    trainer.fit(x, y, epochs=EPOCHS)
    arrays = [*system.params.values(), system.predict(x)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:12]


def cases() -> Iterator[tuple[str, Callable[[str], str]]]:
    """All combinations by name, as functions of the precision."""
    plain = optim.SGD(0.01)

    def case(make, method, optimizer=plain):
        return lambda dtype: trained(make(dtype), method, optimizer)

    every = all_methods()
    for system, make in all_systems().items():
        yield from ((f"{system}, {name}", case(make, method)) for name, method in every.items())
    for system, make in arrays():
        yield f"{system}, Backprop", case(make, methods.Backprop())
    for name, optimizer in OPTIMIZERS.items():
        yield f"Hopfield, {name}", case(all_systems()["Hopfield"], EP(), optimizer)
        yield (
            f"Stack deep, {name}",
            case(all_systems()["Stack deep"], methods.Backprop(), optimizer),
        )


def machine() -> str:
    """What decides about the last bit: the instruction set, and the functions of the
    mathematical library."""
    points = [0.01 * k for k in range(1, 400)]
    functions = (math.exp, math.log, math.sin, math.cos, math.tanh, math.log1p, math.atan)
    values = np.array([[f(p) for p in points] for f in functions])
    return (
        f"{pnn._core.info()['simd']}, mathematics "
        f"{hashlib.sha256(values.tobytes()).hexdigest()[:8]}"
    )


def digests(wanted: Callable[[str], bool] = lambda _: True) -> dict[str, str]:
    """The digests, in single and in double precision, of the cases that are wanted and that can
    be trained."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, digest in cases():
            if wanted(name):
                with suppress(CapabilityError):
                    found[name] = " ".join(digest(dtype) for dtype in DTYPES)
    return found


def pinned() -> dict[str, Any]:
    return json.loads(PINNED.read_text("utf-8")) if PINNED.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pin", action="store_true", help="write the digests of this machine")
    options = parser.parse_args()
    known, found = pinned(), digests()
    before = known.get(machine(), {})
    changed = {name for name in found.keys() | before.keys() if found.get(name) != before.get(name)}
    for name in sorted(changed):
        print(f"{name}: {before.get(name)} -> {found.get(name)}")
    print(f"{machine()}: {len(changed)} of {len(found)} cases differ")
    if options.pin:
        known[machine()] = found
        PINNED.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
