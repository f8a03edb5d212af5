"""Linear scattering networks: against dense matrices, motions in time, and measured gradients."""

import itertools

import numpy as np
import pnncore as pnn
import pytest
from helpers import refuses
from pnncore import layers, methods
from pnncore.errors import ConfigError, DataError, ShapeError

RNG = np.random.default_rng(11)

# Inputs that are coupled to each other, outputs at inputs, transmissions, and a mode of its own.
PAIRS = [(0, 3), (1, 3), (1, 4), (2, 4), (0, 1), (3, 4), (4, 5)]
NETWORKS = {
    "layers": {"couplings": [4, 3, 2]},
    "two layers": {"couplings": [3, 2]},
    "fewer inputs": {"couplings": [4, 3, 2], "n_in": 2},
    "graph": {"couplings": PAIRS, "n_in": 3, "outputs": [(5, 5), (4, 0), (0, 4), (2, 2), (6, 6)]},
    "no inputs alone": {"couplings": [(0, 1)], "n_in": 2, "outputs": [(0, 1)]},
    "nothing near": {"couplings": [(1, 2)], "n_in": 1, "outputs": [(0, 0), (2, 1)]},
}
SETTINGS = {
    "plain": {},
    "lossy": {"decay": 0.7, "loss": 0.2, "frequency": 0.4, "probe": 3.0},
    "tunable": {"decay": 0.6, "loss": 0.1, "tunable_decay": True},
}
CASES = list(itertools.product(NETWORKS, SETTINGS))


def network(name, settings, *, quantity="quadratures", dtype="float64", **stack):
    layer = layers.CoupledModes(**NETWORKS[name], **SETTINGS[settings])
    net = pnn.systems.Stack([layer, layers.Detect(quantity)], dtype=dtype, seed=1, **stack)
    rng = np.random.default_rng(2)
    for values in net.params.values():
        values[...] += 0.3 * rng.normal(size=values.shape)
    return layer, net, rng.normal(size=(5, net.n_in))


def own(net):
    return {name[:-1]: values for name, values in net.params.items()}


def hamiltonian(layer, params, x):
    """Return detunings, inputs and couplings of a sample as a matrix, and decay rates."""
    spec = layer.spec()
    matrix = np.diag(params["detuning"].astype(float))
    matrix[range(len(x)), range(len(x))] += x
    for (i, j), coupling in zip(spec["edges"], params["coupling"], strict=True):
        matrix[i, j] = matrix[j, i] = coupling
    decay = np.full(layer.modes, layer.decay)
    if layer.tunable_decay:
        decay = np.exp(params["log_decay"])
    return matrix, decay


def scattering(layer, params, x):
    """Return the whole matrix S of a sample, by a dense inverse."""
    matrix, decay = hamiltonian(layer, params, x)
    root = np.diag(np.sqrt(decay))
    bare = layer.frequency * np.eye(len(decay)) - matrix + 0.5j * np.diag(decay + layer.loss)
    return np.eye(len(decay)) - 1j * root @ np.linalg.inv(bare) @ root


def fields(layer, net, x):
    n = len(layer.spec()["outputs"])
    found = net.predict(x)
    return found[:, :n] + 1j * found[:, n:]


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_outputs_are_elements_of_the_scattering_matrix(name, settings, dtype, tolerance):
    layer, net, x = network(name, settings, dtype=dtype)
    whole = [scattering(layer, own(net), row) for row in x]
    wanted = [[s[pair] for pair in map(tuple, layer.spec()["outputs"])] for s in whole]
    found = fields(layer, net, x)
    np.testing.assert_allclose(found, layer.probe * np.array(wanted), atol=tolerance * layer.probe)


def test_without_loss_no_light_is_lost_and_both_ways_are_alike():
    pairs = list(itertools.product(range(7), repeat=2))
    layer = layers.CoupledModes(PAIRS, n_in=3, outputs=[*pairs[:48], (6, 6)])
    net = pnn.systems.Stack([layer, layers.Detect("quadratures")], dtype="float64", seed=0)
    for whole in fields(layer, net, RNG.normal(size=(4, 3))).reshape(4, 7, 7):
        np.testing.assert_allclose(whole @ whole.conj().T, np.eye(7), atol=1e-13)
        np.testing.assert_allclose(whole, whole.T, atol=1e-13)


def test_what_does_not_come_out_is_lost_in_the_modes():
    layer = layers.CoupledModes([2, 2], outputs=[(k, 0) for k in range(4)], decay=0.8, loss=0.3)
    net = pnn.systems.Stack([layer, layers.Detect("quadratures")], dtype="float64", seed=0)
    x = RNG.normal(size=2)
    found = fields(layer, net, x[None])[0]
    # Amplitudes of the modes, from what comes out: out = in + sqrt(decay) a.
    modes = (found - np.eye(4)[0]) / np.sqrt(layer.decay)
    lost = layer.loss * (np.abs(modes) ** 2).sum()
    assert (np.abs(found) ** 2).sum() + lost == pytest.approx(1, abs=1e-13)


def test_light_comes_to_rest_there_in_time():
    """da/dt = -i H a - (decay + loss) a / 2 - sqrt(decay) s, from dark modes."""
    layer, net, x = network("graph", "lossy")
    matrix, decay = hamiltonian(layer, own(net), x[0])
    rates = -1j * (matrix - layer.frequency * np.eye(layer.modes))
    rates -= 0.5 * np.diag(decay + layer.loss)
    drive = -np.sqrt(decay) * np.eye(layer.modes)[4]

    def rate(a):
        return rates @ a + drive

    a, step = np.zeros(layer.modes, complex), 0.02
    for _ in range(5000):
        k1 = rate(a)
        k2 = rate(a + step / 2 * k1)
        k3 = rate(a + step / 2 * k2)
        a = a + step / 6 * (k1 + 2 * k2 + 2 * k3 + rate(a + step * k3))
    comes_out = np.eye(layer.modes)[4] + np.sqrt(decay) * a
    # The third output is from mode 4 to mode 0.
    assert abs(fields(layer, net, x)[0, 2] / layer.probe - comes_out[0]) < 1e-10


def losses(net, x, y):
    return 0.5 * ((net.predict(x) - y) ** 2).sum(axis=1).mean()


def differences(net, x, y, step=1e-5):
    """Return the gradient by differences of the hardware, parameter by parameter."""
    found = {}
    for name, values in net.params.items():
        found[name] = np.zeros(values.shape)
        for k in range(values.size):
            kept = values.flat[k]
            ends = []
            for sign in (1, -1):
                values.flat[k] = kept + sign * step
                ends.append(losses(net, x, y))
            values.flat[k] = kept
            found[name].flat[k] = (ends[0] - ends[1]) / (2 * step)
    return found


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_measured_gradients_are_those_of_differences(name, settings):
    _, net, x = network(name, settings)
    y = RNG.normal(size=(5, net.n_out))
    wanted = differences(net, x, y)
    for method in (methods.Backprop(), methods.InSituBackprop()):
        found = method.gradient(net, x, y)
        for key, values in wanted.items():
            np.testing.assert_allclose(found[key], values, atol=1e-8 * (1 + abs(values).max()))


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_errors_of_inputs_come_back(name, settings):
    _, net, x = network(name, settings)
    dy = RNG.normal(size=(5, net.n_out))
    dx, _ = net.vjp(x, dy)
    step = 1e-6
    for k in range(net.n_in):
        moved = step * np.eye(net.n_in)[k]
        slopes = (net.predict(x + moved) - net.predict(x - moved)) / (2 * step)
        np.testing.assert_allclose(dx[:, k], (slopes * dy).sum(axis=1), rtol=1e-6, atol=1e-7)


def test_hardware_measures_its_own_gradient():
    """Detunings and couplings are off by what nobody knows; a gradient by the twin is another one.

    What is not measured is taken to be as it should be: the decay rates, by which products are
    divided. So each element is off by a factor that is the same for all samples.
    """
    settings = NETWORKS["graph"] | SETTINGS["lossy"] | {"mismatch": 0.3}
    chain = [layers.CoupledModes(**settings), layers.Detect("quadratures")]
    net = pnn.systems.Stack(chain, dtype="float64", seed=1)
    rng = np.random.default_rng(5)
    measured, modelled = [], []
    for _ in range(3):
        x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, net.n_out))
        exact = differences(net, x, y)
        for method, found in (
            (methods.InSituBackprop(), measured),
            (methods.PhysicsAware(), modelled),
        ):
            own = method.gradient(net, x, y)
            found.append(np.concatenate([own[name] / exact[name] for name in exact]))
    spread = [np.ptp(found, axis=0) for found in (measured, modelled)]
    assert spread[0].max() < 1e-4
    assert 0.02 < abs(measured[0] - 1).max() < 1
    assert np.median(spread[1]) > 0.1


def test_reads_are_counted_and_no_light_goes_back():
    layer, net, x = network("graph", "plain")
    trainer = pnn.Trainer(net, methods.InSituBackprop(), pnn.optim.SGD(0.01), seed=0)
    history = trainer.fit(x, RNG.normal(size=(5, net.n_out)), epochs=2)
    # Both quadratures at seven modes, with light from each of the five modes of outputs.
    assert history["reads"].tolist() == [5 * 2 * 7 * 5] * 2
    assert history["reversed"].tolist() == [0, 0]
    assert history["measured"].tolist() == [5, 5]
    assert layer.modes == 7


def test_noise_of_probes_leaves_no_bias():
    settings = NETWORKS["graph"] | {"probe_noise": 0.05}
    layer = layers.CoupledModes(**settings)
    net = pnn.systems.Stack([layer, layers.Detect("imaginary")], dtype="float64", seed=1)
    x, y = RNG.normal(size=(5, 3)), RNG.normal(size=(5, net.n_out))
    exact = methods.Backprop().gradient(net, x, y)
    method = methods.InSituBackprop()
    found = [method.gradient(net, x, y, step=k) for k in range(600)]
    for name, values in exact.items():
        drawn = np.array([one[name] for one in found])
        spread = drawn.std(axis=0) / np.sqrt(len(drawn))
        assert spread.max() > 0
        assert np.abs((drawn.mean(axis=0) - values) / spread).max() < 4.5


def test_units_do_not_matter():
    """Rates in another unit, with detunings, couplings and inputs in the same one."""
    scale = 1e9
    nets = []
    for unit in (1.0, scale):
        layer = layers.CoupledModes([4, 3, 2], decay=0.7 * unit, loss=0.1 * unit)
        nets.append(pnn.systems.Stack([layer, layers.Detect("imaginary")], seed=1))
    x = RNG.normal(size=(6, 4)).astype("float32")
    np.testing.assert_allclose(nets[1].predict(scale * x), nets[0].predict(x), atol=2e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads):
    net = pnn.systems.Stack(
        [layers.CoupledModes([6, 5, 3]), layers.Detect("imaginary")], seed=1, mismatch=0.1
    )
    x, y = RNG.normal(size=(80, 6)).astype("float32"), RNG.integers(0, 3, 80)
    x = np.sin(np.arange(480.0).reshape(80, 6)).astype("float32")
    y = np.arange(80) % 3
    wanted = methods.InSituBackprop().gradient(net, x, y, threads=1)
    found = methods.InSituBackprop().gradient(net, x, y, threads=threads)
    assert all(found[name].tobytes() == values.tobytes() for name, values in wanted.items())


def test_spectra_are_those_of_other_detunings():
    layer, net, x = network("graph", "tunable")
    frequencies = np.linspace(-2, 2, 5)
    found = layer.scattering(own(net), x, frequencies)
    assert found.shape == (5, 5, 5)
    for frequency, at in zip(frequencies, found, strict=True):
        settings = NETWORKS["graph"] | SETTINGS["tunable"] | {"frequency": frequency}
        moved = layers.CoupledModes(**settings)
        np.testing.assert_allclose(at, moved.scattering(own(net), x), atol=1e-13)
    np.testing.assert_allclose(layer.scattering(own(net), x), fields(layer, net, x), atol=1e-14)


def test_graphs_of_networkx():
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph([("a", "h"), ("b", "h"), ("h", "out"), ("b", "out")])
    layer = layers.CoupledModes.from_graph(
        graph, inputs=["b", "a"], outputs=["out", ("h", "b")], decay=0.5
    )
    order = ["b", "a", "h", "out"]
    edges = {frozenset((order[i], order[j])) for i, j in layer.couplings}
    assert edges == {frozenset(edge) for edge in graph.edges}
    assert layer.n_in == 2
    assert layer.outputs == ((3, 3), (2, 0))
    assert layers.from_config(layer.to_config()) == layer
    refuses(ConfigError, "undirected", layers.CoupledModes.from_graph, graph.to_directed(),
            inputs=["a"], outputs=["h"])  # fmt: skip
    refuses(ConfigError, "nodes of the graph, or pairs", layers.CoupledModes.from_graph, graph,
            inputs=["a"], outputs=["x"])  # fmt: skip
    refuses(ConfigError, "inputs must be nodes", layers.CoupledModes.from_graph, graph,
            inputs=["a", "x"], outputs=["h"])  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"couplings": [3]}, "at least two layers"),
        ({"couplings": []}, "at least one pair"),
        ({"couplings": "abc"}, "couplings must be"),
        ({"couplings": [(0, 1)]}, "n_in must be given"),
        ({"couplings": [(0, 1)], "n_in": 1}, "outputs must be given"),
        ({"couplings": [(0, 0)], "n_in": 1, "outputs": [(0, 0)]}, "between two modes"),
        ({"couplings": [(0, 1), (1, 0)], "n_in": 1, "outputs": [(0, 0)]}, "a pair of modes once"),
        ({"couplings": [(0, 1, 2)], "n_in": 1, "outputs": [(0, 0)]}, "pairs of modes"),
        ({"couplings": [3, 2], "n_in": 9}, "n_in must be at most the 5 modes"),
        ({"couplings": [3, 2], "outputs": [(5, 0)]}, "modes from 0 to 4, got 5"),
        ({"couplings": [3, 2], "outputs": [(-1, 0)]}, "modes, counted from 0"),
        ({"couplings": [3, 2], "decay": 0.0}, "decay must be"),
        ({"couplings": [3, 2], "loss": -0.1}, "loss must be"),
        ({"couplings": [3, 2], "probe": 0.0}, "probe must be"),
        ({"couplings": [3, 2], "probe_noise": -1.0}, "probe_noise must be"),
        ({"couplings": [3, 2], "frequency": np.nan}, "frequency must be"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    def build():
        chain = [layers.CoupledModes(**settings), layers.Detect("imaginary")]
        return pnn.systems.Stack(chain)

    refuses(ConfigError, message, build)


def test_bad_arguments_are_refused():
    layer, net, x = network("graph", "plain")
    refuses(ShapeError, "detuning must have shape", layer.scattering,
            {"detuning": np.ones(3), "coupling": np.ones(7)}, x)  # fmt: skip
    refuses(ConfigError, "without the number of a layer", layer.scattering, dict(net.params), x)
    refuses(DataError, "frequency", layer.scattering, own(net), x, [np.nan])
    refuses(ShapeError, "gives a field, which nothing measures", pnn.systems.Stack, [layer])


@pytest.mark.filterwarnings("error")
def test_pictures():
    pytest.importorskip("matplotlib")
    layer, net, x = network("graph", "lossy")
    figure = layer.plot(own(net), x[0])
    power, phase = figure.axes
    assert power.get_ylabel() == "power, of what is sent in"
    assert phase.get_xlabel() == "frequency, in the unit of decay rates"
    assert len(power.get_legend().get_texts()) == 5
