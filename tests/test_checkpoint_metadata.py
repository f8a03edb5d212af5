"""Sound files that say nonsense: refused at load, or a trainer that works; and small files that
claim large systems."""

import contextlib
import copy
import json
import os
import warnings

import numpy as np
import pnncore as pnn
import pytest
from helpers import run_python
from pnncore import _core, devices, elements, layers, methods, optim, systems
from pnncore.errors import CheckpointError, PnnError

TORTURE = os.environ.get("PNNCORE_TORTURE") == "1"
EP = methods.EquilibriumPropagation

DIVIDER = [
    elements.Resistor("in", "a", 1.0),
    elements.Resistor("a", "out", 2.0),
    elements.Resistor("out", "0", 3.0),
]
SQUARE = [(0, 0), (1, 0), (1, 1), (0, 1)]
PAIRS = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]


def stack(*given, **settings):
    return systems.Stack(list(given), seed=5, **settings)


def crossbar(**settings):
    return stack(layers.Crossbar(3, 4, **settings), layers.Tanh(), layers.Linear(4, 2))


# A system of every kind and with every kind of part, every method, both optimizers with all their
# settings.
CASES = {
    "Hopfield": lambda: (
        systems.Hopfield([3, 4, 2], seed=1),
        EP(),
        optim.SGD([0.1, 0.2], momentum=0.5),
    ),
    "Hopfield with cells": lambda: (
        systems.Hopfield([3, 4, 2], device=devices.ReRamSB(), algorithm=devices.TikiTaka(), seed=1),
        EP(variant="one-sided", sign="random"),
        optim.SGD(0.1),
    ),
    "holomorphic": lambda: (
        systems.Hopfield([3, 4, 2], activation="tanh", dtype="float64", seed=1),
        EP(variant="holomorphic", settling=pnn.Settling(tolerance=1e-6)),
        optim.Adam({"W1": 0.01}, weight_decay=0.1, schedule=optim.StepDecay(2, 0.5)),
    ),
    "DeepResistive": lambda: (
        systems.DeepResistive([3, 4, 2], input_gain=10.0, seed=1),
        methods.CoupledLearning(),
        optim.SGD(0.1, schedule=optim.CosineDecay(9, 0.1)),
    ),
    "Circuit": lambda: (
        systems.Circuit(
            DIVIDER,
            inputs=["in"],
            outputs=["out"],
            device=devices.Device(lower=0.0, upper=9.0, levels=64),
        ),
        methods.FrequencyPropagation(),
        optim.Adam(0.01),
    ),
    "Circuit of everything": lambda: (
        systems.Circuit(
            [
                *DIVIDER,
                elements.Cubic("in", "out", 1.0),
                elements.Diode("a", "0"),
                elements.IdealDiode("a", "0"),
                elements.Transistor("in", "a"),
                elements.CurrentSource("0", "a", 0.1, trained=True),
                elements.VoltageSource("a", "b", 0.1),
            ],
            inputs=["in"],
            outputs=["out"],
        ),
        methods.ImplicitDifferentiation(),
        optim.SGD(0.01),
    ),
    "Flow": lambda: (
        systems.Flow([("a", "b"), ("b", "c"), ("c", "d")], inputs=["a", "d"], outputs=["b", "c"]),
        methods.ContrastiveLearning(settling=pnn.Settling(sweeps=(5, 3))),
        optim.SGD(0.1),
    ),
    "Elastic": lambda: (
        systems.Elastic(SQUARE, PAIRS, inputs=[(1, 0)], outputs=[(2, 0)], fixed=[0]),
        methods.AgnosticEquilibriumPropagation(),
        optim.SGD({"k": 0.01}),
    ),
    "recurrent": lambda: (
        systems.Hopfield([3, 4, 2], seed=1),
        methods.RecurrentBackprop(steps=5),
        optim.SGD(0.1),
    ),
    "Linear": lambda: (
        stack(layers.Linear(3, 4, noise=0.1), layers.ReLU(), layers.Linear(4, 2), mismatch=0.1),
        methods.Backprop(noise=0.1),
        optim.SGD(0.1, schedule=optim.ExponentialDecay(0.9)),
    ),
    "Crossbar": lambda: (
        crossbar(
            tile=(2, 2),
            io=layers.AnalogIO(scale="learned"),
            backward=layers.AnalogIO(),
            remap="array",
            clip=2.0,
        ),
        methods.InSituBackprop(),
        optim.Adam(),
    ),
    "Wires": lambda: (
        crossbar(wires=layers.Wires(exact=False)),
        methods.Backprop(model="hardware"),
        optim.SGD(0.1),
    ),
    "Pair": lambda: (
        crossbar(device=devices.PCM(), algorithm=devices.MixedPrecision()),
        methods.PhysicsAware(),
        optim.SGD(0.1),
    ),
    "MultiCell": lambda: (
        crossbar(
            device=devices.MultiCell(devices.TableStep(up=(2.0, 1.0), down=(1.0, 2.0)), (1.0, 0.5))
        ),
        methods.FeedbackAlignment(feedback="kolen-pollack"),
        optim.SGD(0.1, weight_decay=0.01),
    ),
    "transfer": lambda: (
        crossbar(
            device=devices.LinearStep(),
            algorithm=devices.TikiTaka(version="agad", fast=devices.PowerStep()),
            trains=devices.PulseTrains(kind="mean-count"),
        ),
        methods.DirectFeedbackAlignment(slope="box"),
        optim.SGD(0.1),
    ),
    "Speckle": lambda: (stack(layers.Speckle(3, 2, 0.1)), methods.ParameterShift(), optim.SGD(0.1)),
    "SecondHarmonic": lambda: (
        stack(layers.SecondHarmonic(3, 2), layers.ElectroOptic(), layers.Linear(9, 2)),
        methods.ForwardGradient(directions=2),
        optim.SGD(0.01),
    ),
    "Pendula": lambda: (
        stack(layers.Pendula(3, steps=5), layers.Logistic(), layers.Linear(3, 2)),
        methods.SPSA(directions=2),
        optim.SGD(0.01),
    ),
    "Plate": lambda: (
        stack(layers.Plate(3, 2, modes=4), layers.Normalize(), layers.Linear(5, 2), mismatch=0.1),
        methods.RidgeReadout(),
        optim.SGD(0.1),
    ),
    "TransistorCircuit": lambda: (
        stack(layers.TransistorCircuit(3, 2), layers.SaturableAbsorber(), layers.Linear(5, 2)),
        methods.PhysicalLocalLearning(),
        optim.SGD(0.1),
    ),
    "ForwardForward": lambda: (
        stack(
            layers.Linear(3, 4),
            layers.ReLU(),
            layers.Normalize(),
            layers.Linear(4, 2),
            layers.ReLU(),
        ),
        methods.ForwardForward(classes=2),
        optim.SGD(0.01),
    ),
    "FiniteDifference": lambda: (
        stack(layers.Linear(3, 2)),
        methods.FiniteDifference(),
        optim.SGD(0.1),
    ),
    "EvolutionStrategy": lambda: (
        stack(layers.Linear(3, 2, bias=False), numbered=False),
        methods.EvolutionStrategy(directions=2, adaptation=0.1),
        optim.SGD(0.1),
    ),
    "CoordinateDescent": lambda: (
        stack(layers.Linear(3, 2)),
        methods.CoordinateDescent(coordinates=2),
        optim.SGD(0.1),
    ),
    "CMAES": lambda: (stack(layers.Linear(3, 2)), methods.CMAES(), optim.SGD(0.1)),
    "GeneticAlgorithm": lambda: (
        stack(layers.Linear(3, 2)),
        methods.GeneticAlgorithm(population=4),
        optim.SGD(0.1),
    ),
    "SurrogateOptimization": lambda: (
        stack(layers.Linear(3, 2)),
        methods.SurrogateOptimization(hidden=4, samples=32, fits=2),
        optim.SGD(0.1),
    ),
}

# What a part of the metadata becomes. Numbers are such that settings which they fit make nothing
# slow.
NONSENSE = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    2**63,
    -(2**63),
    2**70,
    0.5,
    -0.5,
    100.0,
    "",
    "x",
    "NaN",
    "Infinity",
]
NONSENSE += [[], {}, [[]], [None], [1, 2], {"name": "x"}, {"name": []}, "in", "\x00", "é" * 300]


def data(system):
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 1, (10, system.n_in)).astype(system.dtype)
    return x, (
        np.arange(10) % 2
        if system.n_out == 2
        else rng.uniform(0, 1, (10, system.n_out)).astype(system.dtype)
    )


class After(pnn.Callback):
    """Saves in the middle of an epoch."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_step(self, trainer):
        if (trainer.epoch, trainer.step) == (1, self.step):
            trainer.save(self.path)


def saved_in_mid_epoch(make, path):
    system, method, optimizer = make()
    trainer = pnn.Trainer(
        system, method, optimizer, batch_size=4, seed=2, callbacks=[After(path, 2)], progress=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pnn.SettlingWarning)
        trainer.fit(*data(system), epochs=2)
    return trainer


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for k, (name, make) in enumerate(CASES.items()):
        saved_in_mid_epoch(make, folder / f"{k}.pnn")
        text, tensors = _core.load(folder / f"{k}.pnn")
        found[name] = json.loads(text), tensors
    return found


def put(path, metadata, tensors):
    _core.save(str(path), json.dumps(metadata), tensors)


def places(value, at=()):
    """All ways to a part of plain data."""
    yield at
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in parts:
        yield from places(part, (*at, key))


def at(value, place):
    for key in place:
        value = value[key]
    return value


def mutate(metadata, tensors, rng):
    """Change one thing, and say what."""
    metadata, tensors = copy.deepcopy(metadata), dict(tensors)
    if rng.random() < 0.2:
        return metadata, tensors, mutate_tensors(tensors, rng)
    ways = [place for place in places(metadata) if place]
    place = ways[rng.integers(len(ways))]
    parent, key = at(metadata, place[:-1]), place[-1]
    kind = rng.choice(["replace", "replace", "drop", "add", "nest", "nudge", "move"])
    if kind == "drop":
        del parent[key]
    elif kind == "add":
        new = copy.deepcopy(parent[key])
        parent.append(new) if isinstance(parent, list) else parent.update({f"{key}'": new})
    elif kind == "nest":
        for _ in range(rng.integers(1, 50)):
            parent[key] = [parent[key]]
    elif (
        kind == "nudge"
        and isinstance(parent[key], int | float)
        and not isinstance(parent[key], bool)
    ):
        parent[key] = parent[key] + 1 if rng.random() < 0.5 else float(parent[key])
    elif kind == "move":
        parent[key] = copy.deepcopy(at(metadata, ways[rng.integers(len(ways))]))
    else:
        parent[key] = copy.deepcopy(NONSENSE[rng.integers(len(NONSENSE))])
    return metadata, tensors, f"{kind} {place}: {json.dumps(metadata)[:3000]}"


def mutate_tensors(tensors, rng):
    name = sorted(tensors)[rng.integers(len(tensors))]
    array = tensors.pop(name)
    kind = rng.choice(["drop", "rename", "shape", "type", "value", "longer"])
    if kind == "rename":
        tensors[name + "'"] = array
    elif kind == "shape":
        tensors[name] = array[None]
    elif kind == "type":
        tensors[name] = array.astype(np.float32 if array.dtype == np.float64 else np.float64)
    elif kind == "value":
        tensors[name] = np.full_like(array, rng.choice([np.nan, np.inf, -1.0, 1e30]))
    elif kind == "longer":
        tensors[name] = np.concatenate([np.atleast_1d(array)] * 2)
    return f"{kind} {name}"


def is_refused_or_works(path, other):
    """Whether a file is refused; what is not must work."""
    try:
        trainer = pnn.Trainer.load(path, progress=False)
    except CheckpointError:
        return True
    assert repr(trainer)
    assert repr(trainer.history)
    trainer.save(other)
    assert json.loads(_core.load(other)[0]) == {
        **json.loads(_core.load(path)[0]),
        "pnncore": pnn.__version__,
    }
    # What training does with odd numbers that are in range is its own affair: it may diverge.
    with contextlib.suppress(PnnError):
        trainer.fit(*data(trainer.system), epochs=1)
        trainer.save(other)
    return False


def attack(name, files, folder, count, seed):
    metadata, tensors = files[name]
    rng = np.random.default_rng([seed, list(CASES).index(name)])
    refused = 0
    for _ in range(count):
        *changed, what = mutate(metadata, tensors, rng)
        put(folder / "run.pnn", *changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                refused += is_refused_or_works(folder / "run.pnn", folder / "other.pnn")
        except BaseException as error:
            raise AssertionError(f"{name}: {what}") from error
    return refused


@pytest.mark.parametrize("name", CASES)
def test_nonsense_is_refused_or_works(name, files, tmp_path):
    count = 2000 if TORTURE else 60
    assert attack(name, files, tmp_path, count, seed=0) > 0.7 * count


@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_on_in_mid_epoch_as_if_undisturbed(name, tmp_path):
    trainer = saved_in_mid_epoch(CASES[name], tmp_path / "run.pnn")
    loaded = pnn.Trainer.load(tmp_path / "run.pnn", progress=False)
    assert (loaded.epoch, loaded.step) == (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pnn.SettlingWarning)
        loaded.fit(*data(loaded.system), epochs=1)
    for key, array in trainer.system.params.items():
        np.testing.assert_array_equal(loaded.system.params[key], array)


def claims(metadata):
    """The metadata with sizes that are not those of the arrays: one, all that are alike, or all
    of them large."""
    for part in ("system", "method", "optimizer"):
        whole = metadata[part]
        ways = [
            place
            for place in places(whole)
            if type(at(whole, place)) is int and place[-1] != "seed"
        ]
        sizes = {at(whole, place) for place in ways}
        chosen = [
            *([place] for place in ways),
            *([w for w in ways if at(whole, w) == n] for n in sizes),
            ways,
        ]
        for group in chosen:
            for size in (20_000, 2**31 - 1):
                changed = copy.deepcopy(metadata)
                for place in group:
                    at(changed[part], place[:-1])[place[-1]] = size
                yield changed


def claim_large_systems(folder):
    """Load small files that claim large systems: run where there is little memory."""
    import resource

    files = {}
    for k, (name, make) in enumerate(CASES.items()):
        saved_in_mid_epoch(make, folder / f"{k}.pnn")
        text, tensors = _core.load(folder / f"{k}.pnn")
        files[name] = json.loads(text), tensors
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tried = refused = 0
    for metadata, tensors in files.values():
        for claim in claims(metadata):
            put(folder / "run.pnn", claim, tensors)
            tried += 1
            try:
                pnn.Trainer.load(folder / "run.pnn", progress=False)
            except CheckpointError:
                refused += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(tried, refused, grown)


def test_small_files_that_claim_large_systems_cost_nothing(tmp_path):
    code = """
        import pathlib, resource, sys
        import test_checkpoint_metadata as tests
        told = pathlib.Path("/proc/self/status").read_text().splitlines()
        lines = dict(line.split(":", 1) for line in told)
        limit = (int(lines["VmSize"].split()[0]) << 10) + (512 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        tests.claim_large_systems(pathlib.Path(sys.argv[1]))
    """
    tried, refused, grown = map(int, run_python(code, tmp_path, PNNCORE_NUM_THREADS="1").split())
    assert refused > 0.5 * tried
    assert grown < 100, f"{grown} MiB were allocated"


@pytest.mark.parametrize("value", [1e30, 2.0**63, -1.0, 0.5])
@pytest.mark.parametrize("name", ["Hopfield with cells", "transfer"])
def test_clocks_of_transfers_that_no_clock_shows_end(name, value, files, tmp_path):
    metadata, tensors = files[name]
    clocks = {
        key: np.full_like(array, value) for key, array in tensors.items() if key.endswith("/clock")
    }
    assert clocks
    put(tmp_path / "run.pnn", metadata, tensors | clocks)
    is_refused_or_works(tmp_path / "run.pnn", tmp_path / "other.pnn")
