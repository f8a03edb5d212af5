"""Results do not depend on units: what is scaled goes in, what is scaled comes out."""

import numpy as np
import pnncore as pnn
import pytest
from pnncore import methods
from pnncore.elements import Cubic, CurrentSource, Diode, Resistor, Transistor
from pnncore.errors import ConfigError
from pnncore.systems import Circuit, DeepResistive, Elastic, EnergySystem, Flow

# Of states (volts, metres), and of stiffness (siemens, newtons per metre).
SCALES = [(1.0, 1e-3), (1.0, 1e-9), (1e-6, 1.0), (1e6, 1.0), (1e-6, 1e6), (1e3, 1e-6)]


class Scaled:
    """A system in units of one's choice, with data, and how its parameters scale."""

    def __init__(self, net, x, y, powers):
        self.net, self.x, self.y, self.powers = net, x, y, powers


def resistive(v, g):
    net = DeepResistive([3, 6, 5, 2], input_gain=1.5 * v, seed=2, dtype="float64")
    rng = np.random.default_rng(1)
    for name, array in net.params.items():
        array[...] = (
            array * g if name.startswith("g") else 0.2 * g * v * rng.normal(size=array.shape)
        )
    x = rng.uniform(0, 1, (4, 3))
    return Scaled(net, x, v * rng.uniform(0, 1, (4, 2)), {"g": (0, 1), "b": (1, 1)})


def shallow(v, g):
    net = DeepResistive([3, 6, 2], input_gain=0.7 * v, seed=3, dtype="float64")
    for name, array in net.params.items():
        array[...] *= g if name.startswith("g") else g * v
    rng = np.random.default_rng(1)
    return Scaled(
        net, rng.uniform(0, 1, (4, 3)), v * rng.uniform(0, 1, (4, 2)), {"g": (0, 1), "b": (1, 1)}
    )


def flow(v, g):
    edges = [
        ("a", "b"),
        ("b", "c"),
        ("c", "0"),
        ("a", "c"),
        ("b", "d"),
        ("d", "0"),
        ("e", "d"),
        ("c", "e"),
    ]
    net = Flow(
        edges,
        inputs=["a"],
        outputs=["c", "e"],
        ground="0",
        conductance=[g * (1 + 0.3 * k) for k in range(8)],
    )
    rng = np.random.default_rng(1)
    return Scaled(net, v * rng.normal(size=(4, 1)), v * rng.normal(size=(4, 2)), {"g": (0, 1)})


def circuit(v, g):
    net = Circuit(
        [
            Resistor("in", "a", 1.0 * g),
            Cubic("a", "b", 0.7 * g, scale=0.8 * v),
            Diode("b", "0", saturation=1e-3 * g * v, ideality=0.2 * v / 0.02585),
            Resistor("b", "out", 0.5 * g),
            Resistor("out", "0", 0.9 * g),
            CurrentSource("0", "a", 0.1 * g * v, trained=True),
            Cubic("a", "out", 0.2 * g, scale=1.5 * v),
        ],
        inputs=["in"],
        outputs=["out", "b"],
    )
    rng = np.random.default_rng(1)
    return Scaled(
        net, v * rng.normal(size=(4, 1)), v * rng.normal(size=(4, 2)), {"g": (0, 1), "i": (1, 1)}
    )


def transistors(v, g):
    net = Circuit(
        [
            Transistor("in", "out", gate=3.0 * v, strength=0.4 * g / v, threshold=0.5 * v),
            Transistor("out", "a", gate=2.5 * v, strength=0.3 * g / v, threshold=0.5 * v),
            Resistor("a", "0", 0.8 * g),
            Resistor("out", "0", 0.3 * g),
        ],
        inputs=["in"],
        outputs=["out"],
    )
    rng = np.random.default_rng(1)
    return Scaled(
        net,
        v * rng.uniform(0.2, 1, (4, 1)),
        v * rng.uniform(0, 1, (4, 1)),
        {"g": (0, 1), "gate": (1, 0)},
    )


def elastic(v, g):
    rng = np.random.default_rng(4)
    positions = np.array([[i, j] for i in range(3) for j in range(3)]) + rng.uniform(
        -0.15, 0.15, (9, 2)
    )
    springs = [
        (a, b) for a in range(9) for b in range(a) if np.hypot(*(positions[a] - positions[b])) < 1.7
    ]
    net = Elastic(
        positions * v,
        springs,
        inputs=[(8, 0)],
        outputs=[(5, 1), (7, 0)],
        fixed=[0, 1],
        stiffness=g * rng.uniform(0.5, 2, len(springs)),
    )
    net.params["l0"] *= rng.uniform(0.97, 1.03, len(springs))
    x, y = v * rng.uniform(-0.2, 0.2, (3, 1)), v * rng.uniform(-0.1, 0.1, (3, 2))
    return Scaled(net, x, y, {"k": (0, 1), "l0": (1, 0)})


class Anharmonic(EnergySystem):
    """A chain of states between inputs, each on a spring that hardens: E = k d²/2 + c d⁴/4 along
    the chain."""

    def __init__(self, v, g):
        self.unit, self.stiffness = v, g
        super().__init__(
            n_in=1, n_states=4, n_out=1, params={"k": g * np.array([1.0, 0.6, 0.8, 1.5])}
        )

    def _bends(self, x, s):
        return np.diff(np.concatenate([x, s], axis=1), axis=1)

    def energy(self, params, x, s):
        d, hard = self._bends(x, s), self.stiffness / self.unit**2
        own = 0.3 * self.stiffness * (s**2).sum(axis=1) / 2
        return (params["k"] * d**2 / 2 + hard * d**4 / 4).sum(axis=1) + own

    def state_gradient(self, params, x, s):
        d = self._bends(x, s)
        force = params["k"] * d + self.stiffness / self.unit**2 * d**3
        return (
            force
            - np.concatenate([force[:, 1:], 0 * force[:, :1]], axis=1)
            + 0.3 * self.stiffness * s
        )

    def param_gradient(self, params, x, s, weights):
        return {"k": weights @ (self._bends(x, s) ** 2 / 2)}


def user(v, g):
    rng = np.random.default_rng(1)
    return Scaled(
        Anharmonic(v, g), v * rng.normal(size=(4, 1)), v * rng.normal(size=(4, 1)), {"k": (0, 1)}
    )


SYSTEMS = {f.__name__: f for f in (resistive, shallow, flow, circuit, transistors, elastic, user)}


def relative(a, b):
    return np.linalg.norm(np.ravel(a) - np.ravel(b)) / np.linalg.norm(np.ravel(b))


@pytest.mark.parametrize(("v", "g"), SCALES)
@pytest.mark.parametrize("name", SYSTEMS)
def test_predictions_scale(name, v, g):
    own, other = SYSTEMS[name](1.0, 1.0), SYSTEMS[name](v, g)
    assert relative(other.net.predict(other.x) / v, own.net.predict(own.x)) < 2e-4
    assert abs(other.net.score(other.x, other.y) - own.net.score(own.x, own.y)) < 1e-2
    if hasattr(own.net, "power"):
        assert relative(other.net.power(other.x) / (v * v * g), own.net.power(own.x)) < 1e-3


@pytest.mark.parametrize("name", SYSTEMS)
def test_predictions_are_steady(name):
    own = SYSTEMS[name](1.0, 1.0)
    tight = own.net.predict(
        own.x, settling=pnn.Settling(relative_tolerance=1e-12, max_sweeps=100_000)
    )
    assert relative(own.net.predict(own.x), tight) < 5e-4


METHODS = [
    methods.EquilibriumPropagation(),
    methods.EquilibriumPropagation(variant="one-sided"),
    methods.FrequencyPropagation(),
    methods.AgnosticEquilibriumPropagation(),
    methods.ContrastiveLearning(),
    methods.CoupledLearning(),
    methods.ImplicitDifferentiation(),
    methods.RecurrentBackprop(),
]


@pytest.mark.parametrize(("v", "g"), SCALES)
@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_scale(name, v, g):
    own, other = SYSTEMS[name](1.0, 1.0), SYSTEMS[name](v, g)
    for method in METHODS:
        here = method.gradient(own.net, own.x, own.y)
        there = method.gradient(other.net, other.x, other.y)
        # Contrasts of energies without a loss: energy over the parameter; gradients: loss over the
        # parameter.
        contrast = isinstance(method, methods.ContrastiveLearning | methods.CoupledLearning)
        for parameter, found in there.items():
            volts, siemens = own.powers[parameter if parameter in own.powers else parameter[0]]
            unit = v**2 * (g if contrast else 1) / (v**volts * g**siemens)
            assert relative(found / unit, here[parameter]) < 2e-2, (method, parameter)


@pytest.mark.parametrize(("v", "g"), [(1.0, 1.0), *SCALES])
@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "transistors"])
def test_default_strengths_give_the_gradient(name, v, g):
    """Up to the bias, of the order of a hundredth, and of a tenth where ideal diodes switch on the
    way.

    Circuits with transistors have no energy.
    """
    own = SYSTEMS[name](v, g)
    for method in (methods.EquilibriumPropagation(), methods.FrequencyPropagation()):
        found = pnn.audit(own.net, method, own.x, own.y)
        for cosine, error in found.by_parameter.values():
            assert cosine > (0.97 if name == "shallow" else 0.99), str(found)
            assert error < (0.3 if name == "shallow" else 0.1), str(found)


def test_strengths_are_measured_once_and_kept(tmp_path):
    own = circuit(1.0, 1e-3)
    method = methods.EquilibriumPropagation()
    trainer = pnn.Trainer(own.net, method, pnn.optim.SGD(1e-7), batch_size=2, seed=0)
    assert trainer.memory["method/strength"][0] == 0
    trainer.fit(own.x, own.y, epochs=1)
    strength = float(trainer.memory["method/strength"][0])
    # A tenth of a millisiemens or so.
    assert 1e-5 < strength < 1e-3
    trainer.save(tmp_path / "run.pnn")
    resumed = pnn.Trainer.load(tmp_path / "run.pnn")
    trainer.fit(own.x, own.y, epochs=1)
    resumed.fit(own.x, own.y, epochs=1)
    assert trainer.memory["method/strength"][0] == resumed.memory["method/strength"][0] == strength
    assert own.net.params["g"].tobytes() == resumed.system.params["g"].tobytes()
    # Hopfield networks have units of stiffness one: nothing is measured.
    net = pnn.systems.Hopfield([3, 4, 2], seed=0)
    assert "method/strength" not in pnn.Trainer(net, method, pnn.optim.SGD(0.1), seed=0).memory


@pytest.mark.parametrize(("v", "g"), [(1.0, 1.0), *SCALES])
@pytest.mark.parametrize("name", SYSTEMS)
def test_converged_means_that_no_force_is_left(name, v, g):
    own = SYSTEMS[name](v, g)
    fine = pnn.Settling(relative_tolerance=1e-8, max_sweeps=100_000)
    for y, beta in ((None, None), (own.y, 0.1 * g), (own.y, -0.02 * g)):
        settled = own.net.settle(own.x, y, beta=beta, settling=fine)
        assert settled.converged, (y is None, beta)
        assert settled.residual.max() < 1e-6 * v * g


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "transistors"])
def test_agnostic_gradients_do_not_grow_wrong_as_errors_fall(name):
    own = SYSTEMS[name](1.0, 1.0)
    rest = own.net.predict(
        own.x, settling=pnn.Settling(relative_tolerance=1e-12, max_sweeps=100_000)
    )
    fine = pnn.Settling(relative_tolerance=1e-6, max_sweeps=100_000)
    for error in (1e-1, 1e-2, 1e-3):
        y = rest + error * np.random.default_rng(1).normal(size=rest.shape)
        for relaxations in (2, 10):
            method = methods.AgnosticEquilibriumPropagation(relaxations=relaxations, settling=fine)
            found = pnn.audit(own.net, method, own.x, y)
            assert found.cosine > 0.97, (error, relaxations, str(found))
            assert found.relative_error < 0.4, (error, relaxations, str(found))


@pytest.mark.parametrize(
    ("voltage", "target"), [(0.6, 2.0), (1.0, 1.0), (1.0, 0.1), (2.0, 0.2), (5.0, 0.1)]
)
def test_default_strengths_where_the_response_is_one_sided(voltage, target):
    """A diode at the output: stiff where it conducts, soft where it blocks."""
    net = Circuit(
        [
            Resistor("in", "a", 1e-3),
            Resistor("a", "out", 1e-3),
            Diode("out", "0"),
            Resistor("out", "0", 1e-4),
        ],
        inputs=["in"],
        outputs=["out"],
    )
    found = pnn.audit(net, methods.EquilibriumPropagation(), [[voltage]], [[target]])
    assert found.cosine > 0.9
    assert found.relative_error < 0.5


STEPS = [
    methods.FiniteDifference(),
    methods.SPSA(),
    methods.EvolutionStrategy(),
    methods.CoordinateDescent(),
    methods.CMAES(),
    methods.GeneticAlgorithm(),
    methods.SurrogateOptimization(),
]


@pytest.mark.parametrize("method", STEPS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("name", SYSTEMS)
def test_steps_of_candidates_have_units_and_must_be_given(name, method):
    own = SYSTEMS[name](1.0, 1.0)
    with pytest.raises(ConfigError, match=r"must be given: the parameters of .* have units"):
        pnn.Trainer(own.net, method, pnn.optim.SGD(0.1))
    # Those of networks are plain numbers.
    pnn.Trainer(pnn.systems.Hopfield([3, 4, 2], seed=0), method, pnn.optim.SGD(0.1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "method", [methods.ImplicitDifferentiation(), methods.RecurrentBackprop(steps=300)]
)
def test_the_origin_of_an_elastic_network_does_not_matter(method, dtype):
    rng = np.random.default_rng(2)
    places = (
        np.array([[i, j] for i in range(3) for j in range(3)]) + rng.integers(-8, 8, (9, 2)) / 64
    )
    springs = [
        (a, b) for a in range(9) for b in range(a) if np.hypot(*(places[a] - places[b])) < 1.7
    ]
    x, y = rng.normal(size=(3, 1)).astype(dtype) / 16, rng.normal(size=(3, 2)).astype(dtype) / 16

    def found(shift):
        net = Elastic(
            places + shift,
            springs,
            inputs=[(8, 0)],
            outputs=[(4, 1), (5, 0)],
            fixed=[0, 1],
            dtype=dtype,
        )
        net.params["l0"] *= np.linspace(0.97, 1.03, len(springs), dtype=dtype)
        return method.gradient(net, x, y), net.predict(x)

    # Sixty-fourths keep all their digits at 1e9.
    (here, outputs), (there, moved) = found(0.0), found(1e9)
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])
    np.testing.assert_array_equal(outputs, moved)
