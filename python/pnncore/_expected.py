"""What the gradient of every method is worth on every kind of system, and why: data.

Small systems with fixed seeds, the settings of methods under which their bias is small, and bounds
on the cosine to the exact gradient and on the ratio of norms. `pnncore.audit_all` measures them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pnncore import layers, methods, systems
from pnncore.elements import Current, Difference, Diode, Element, Resistor, VoltageSource
from pnncore.settling import Settling

_TIGHT = Settling(tolerance=1e-12, max_sweeps=20_000)
_STEP = 1e-4


@dataclass(frozen=True)
class Expectation:
    """What a method is expected to measure.

    Attributes
    ----------
    settings
        Those that the method is audited with, by name.
    cosine
        The least cosine; None: any, for the method does not follow this gradient.
    ratio
        The least and the largest ratio of norms; None: any.
    why
        The reason, in words.
    draws
        How many gradients are averaged: of methods that draw directions at random.
    """

    settings: dict[str, Any]
    cosine: float | None
    ratio: tuple[float, float] | None
    why: str
    draws: int = 1


def _exact(why: str, **settings: Any) -> Expectation:
    return Expectation(settings, 1 - 1e-6, (0.999, 1.001), why)


def _mean(why: str, **settings: Any) -> Expectation:
    return Expectation(settings, 0.85, (0.8, 1.4), why, draws=16)


def _other(why: str, cosine: float | None = None, **settings: Any) -> Expectation:
    return Expectation(settings, cosine, None, why)


_NUDGED = "the exact gradient as the nudge goes to zero"
_TWINS = "exact where twins are the hardware"

EXPECTED: dict[str, Expectation] = {
    "EquilibriumPropagation": Expectation(
        {"beta": 1e-3, "settling": _TIGHT}, 1 - 1e-5, (0.99, 1.01), f"{_NUDGED}, to order β²"
    ),
    "FrequencyPropagation": Expectation(
        {"amplitude": 1e-3, "settling": _TIGHT},
        1 - 1e-5,
        (0.99, 1.01),
        "the exact gradient as the force goes to zero",
    ),
    "AgnosticEquilibriumPropagation": Expectation(
        {"beta": 1e-4, "softness": 1e-4, "settling": _TIGHT},
        0.999,
        (0.97, 1.03),
        f"{_NUDGED}, and springs grow stiff",
    ),
    "ContrastiveLearning": _other("no gradient: clamps outputs, which resist", settling=_TIGHT),
    "CoupledLearning": _other(
        "no gradient where outputs are several: clamps resist", 0.0, eta=1e-3, settling=_TIGHT
    ),
    "ImplicitDifferentiation": _exact("is the reference", settling=_TIGHT),
    "RecurrentBackprop": Expectation(
        {"steps": 2000, "settling": _TIGHT},
        1 - 1e-4,
        (0.98, 1.02),
        "the exact gradient as steps grow",
    ),
    "Backprop": _exact(_TWINS),
    "PhysicsAware": _exact(_TWINS),
    "InSituBackprop": _exact("exact where hardware answers as its derivatives do"),
    "ForwardModeLearning": _exact("exact where the transfer of the medium equals its transpose"),
    "FeedbackAlignment": _other("no gradient at first: forward weights come to align"),
    "DirectFeedbackAlignment": _other("no gradient at first: forward weights come to align"),
    "ForwardForward": _other("gradients of losses of the layers' own"),
    "PhysicalLocalLearning": _other("gradients of losses of the layers' own"),
    "FiniteDifference": _exact("exact to the square of the step", epsilon=_STEP),
    "ParameterShift": _exact("exact for sinusoidal outputs"),
    "SPSA": _mean("right in the mean over directions", epsilon=_STEP, directions=32),
    "EvolutionStrategy": _mean("right in the mean, of a smoothed loss", sigma=_STEP, directions=32),
    "ForwardGradient": _mean("right in the mean over directions", directions=32),
    "SurrogateOptimization": _other(
        "a surrogate that has seen nothing knows nothing", exploration=_STEP, samples=64, fits=1
    ),
    "HamiltonianEcho": Expectation(
        {"kick": 1e-3}, 1 - 1e-5, (0.999, 1.001), "exact to the square of the kick"
    ),
}
"""By method. Those that are not here give new parameters, and no gradient."""

_WRONG = "derivatives are those of a twin that is off by a tenth"
_BARE = "the first layer's converters and noise are in the loss: differences drown in them"
OVERRIDES: dict[tuple[str, str], Expectation] = {
    # Conductances give way easily: springs must be stiffer.
    ("DeepResistive", "AgnosticEquilibriumPropagation"): replace(
        EXPECTED["AgnosticEquilibriumPropagation"],
        settings={"beta": 1e-4, "softness": 1e-8, "settling": _TIGHT},
    ),
    ("wrong twin", "Backprop"): Expectation({}, 0.9, None, f"{_WRONG}, signals too"),
    ("wrong twin", "PhysicsAware"): Expectation({}, 0.93, None, _WRONG),
    ("wrong twin", "InSituBackprop"): Expectation({}, 0.93, None, _WRONG),
    ("wrong twin", "ForwardGradient"): replace(EXPECTED["ForwardGradient"], cosine=0.8, ratio=None),
    ("crossbar", "Backprop"): Expectation({}, 0.99, (0.9, 1.1), "the twin has no converters"),
    ("crossbar", "PhysicsAware"): Expectation(
        {}, 0.999, (0.97, 1.03), "reads draw their own noise"
    ),
    ("crossbar", "InSituBackprop"): Expectation({}, 0.99, (0.9, 1.1), "transposed reads are noisy"),
    ("crossbar", "FiniteDifference"): _other(_BARE, epsilon=_STEP),
    ("crossbar", "SPSA"): _other(_BARE, epsilon=_STEP),
    ("crossbar", "EvolutionStrategy"): _other(_BARE, sigma=_STEP),
}
"""Where a system changes what a method is worth."""


def _circuit(*more: Element, outputs: tuple[str | Current | Difference, ...]) -> systems.System:
    ends = "in0-a in0-b in1-b in1-c a-o0 b-o0 b-o1 c-o1 a-0 c-0 o0-0 o1-0"
    g = np.random.default_rng(1).uniform(0.5, 2, 12)
    pairs = [pair.split("-") for pair in ends.split()]
    found = [Resistor(a, b, float(own)) for (a, b), own in zip(pairs, g, strict=True)]
    diodes = [Diode("a", "b", 1e-3, 4.0), Diode("c", "b", 1e-3, 4.0)]
    return systems.Circuit([*found, *diodes, *more], inputs=["in0", "in1"], outputs=list(outputs))


def _flow() -> systems.System:
    at = [(i, j) for i in range(3) for j in range(3)]
    pipes = [
        (str(a), str(b)) for a in at for b in at if a < b and np.abs(np.subtract(a, b)).sum() == 1
    ]
    g = np.random.default_rng(2).uniform(0.5, 2, len(pipes)).tolist()
    ends: dict[str, Any] = {"inputs": ["(0, 0)", "(2, 0)"], "outputs": ["(0, 2)", "(2, 2)"]}
    return systems.Flow(pipes, conductance=g, **ends)


def _elastic() -> systems.System:
    rng = np.random.default_rng(0)
    at = [(i + 0.1 * rng.normal(), j + 0.1 * rng.normal()) for i in range(3) for j in range(3)]
    springs = [
        (a, b) for a in range(9) for b in range(a) if np.hypot(*np.subtract(at[a], at[b])) < 1.6
    ]
    ends: dict[str, Any] = {"inputs": [(3, 0), (5, 1)], "outputs": [(8, 0), (6, 1)]}
    return systems.Elastic(at, springs, fixed=[0, 1, 2], **ends)


def _stack(*chain: layers.Layer, **settings: Any) -> systems.System:
    return systems.Stack(list(chain), dtype="float64", seed=0, **settings)


def _plane(detectors: layers.Layer) -> systems.System:
    geometry: dict[str, Any] = {"distance": 12.0, "wavelength": 1.0, "pitch": 0.8}
    image = layers.Encode(4, modes=16, ports=layers.image_ports((2, 2), (4, 4)))
    masks = [layers.Diffraction((4, 4), **geometry) for _ in range(2)]
    return _stack(image, *masks, detectors)


Maker = Callable[[], systems.System]
SYSTEMS: dict[str, Maker] = {
    "Hopfield": lambda: systems.Hopfield([4, 6, 3], dtype="float64", seed=0),
    "Hopfield tanh": lambda: systems.Hopfield(
        [4, 6, 5, 3], activation="tanh", dtype="float64", seed=0
    ),
    "DeepResistive": lambda: systems.DeepResistive([4, 8, 3], dtype="float64", seed=0),
    "Circuit": lambda: _circuit(outputs=("o0", "o1")),
    "meters": lambda: _circuit(
        Resistor("o1", "column", 0.6),
        VoltageSource("column", "0", 0.0),
        outputs=(Current("column", "0"), Difference("o0", "o1")),
    ),
    "Flow": _flow,
    "Elastic": _elastic,
    "HamiltonianChain": lambda: systems.HamiltonianChain(5, n_in=2, n_out=2, steps=100),
    "Stack": lambda: _stack(layers.Linear(4, 6), layers.Tanh(), layers.Linear(6, 3)),
    "optics": lambda: _stack(layers.Encode(4), layers.MZIMesh(4), layers.Detect()),
    "diffraction": lambda: _plane(layers.Detect()),
    "diffraction, shares": lambda: _plane(layers.DetectorRegions(3, (4, 4))),
    "waveguide": lambda: _stack(
        layers.Encode(4, modes=16, ports=[2, 6, 9, 13]),
        layers.Waveguide(16, 16.0, 60.0, 1.0, index_range=0.02, steps=8),
        layers.Detect(),
    ),
    "fibre": lambda: _stack(
        layers.Encode(4, "phase", modes=16, ports=[6, 7, 8, 9]),
        layers.Fibre(16, 8.0, 1.0, -1.0, 2.0, steps=20),
        layers.Detect(),
    ),
    "rings": lambda: _stack(layers.MicroringBank(4, 6), layers.Tanh(), layers.MicroringBank(6, 3)),
    "scattering": lambda: _stack(
        layers.Linear(4, 5), layers.CoupledModes([5, 4, 3]), layers.Detect("imaginary")
    ),
    "wrong twin": lambda: _stack(
        layers.Linear(4, 6), layers.Pendula(6), layers.Linear(6, 3), mismatch=0.1
    ),
    "crossbar": lambda: _stack(layers.Crossbar(4, 6), layers.Tanh(), layers.Crossbar(6, 3)),
}
"""One small system of each kind, in float64."""


def expectation(system: str, method: str) -> Expectation | None:
    """Return what a method is expected to measure on a system; None: it gives no gradient."""
    return OVERRIDES.get((system, method), EXPECTED.get(method))


def made(name: str, own: Expectation, net: systems.System) -> methods.Method | None:
    """Return the method of `System.methods` to audit; None for one of the same gradient."""
    kind, _, more = name.partition("(")
    settings = dict(own.settings)
    if more:
        settings |= {"variant": "holomorphic", "points": 4, "beta": 0.02}
    if kind == "ForwardForward":
        if net.n_out >= net.n_in:
            return None
        settings["classes"] = net.n_out
    method: methods.Method = methods.Method.kinds()[kind](**settings)
    return method
