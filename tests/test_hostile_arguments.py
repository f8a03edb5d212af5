"""Every public call, with each of its arguments replaced by each of many hostile objects: it works,
or refuses in type.

`CALLS` holds a valid call of everything that is public; a test sees that nothing is missing.
"""

import importlib
import os
import warnings

import numpy as np
import pnncore as pnn
import pytest
from helpers import Springs, make_batch
from hostile import HOSTILE
from hostile_makers import (
    DIVIDER,
    Absolute,
    X,
    Y,
    batch,
    by_field,
    circuit,
    compare_with,
    elastic,
    fit_with,
    fitted,
    hopfield,
    light,
    of,
    on,
    sizes,
    springs_with,
    stack,
    table,
    trainer,
)
from pnncore import (
    analog,
    costs,
    data,
    devices,
    elements,
    layers,
    memories,
    methods,
    optim,
    systems,
    testing,
    twins,
)
from pnncore.errors import PnnError

TORTURE = os.environ.get("PNNCORE_TORTURE") == "1"
EP = methods.EquilibriumPropagation
FIELD = np.ones((4, 3), dtype=complex)
PHASES = {name: np.ones(3) for name in ("theta", "phi", "gamma")}


CALLS = {
    "Hopfield": of(
        systems.Hopfield,
        layers=[3, 4, 2],
        activation="tanh",
        gain=0.5,
        device=devices.ReRamSB(),
        trains=devices.PulseTrains(),
        algorithm=devices.MixedPrecision(),
        dtype="float32",
        seed=1,
    ),
    "DeepResistive": of(
        systems.DeepResistive,
        layers=[3, 4, 2],
        input_gain=1.0,
        gain=1.0,
        device=devices.Device(lower=0.0),
        dtype="float32",
        seed=1,
    ),
    "Circuit": of(
        systems.Circuit,
        elements=DIVIDER,
        inputs=["in"],
        outputs=["out"],
        ground="0",
        device=devices.Device(lower=0.0),
        dtype="float64",
    ),
    "Circuit.from_graph": of(systems.Circuit.from_graph, graph=None, inputs=["a"], outputs=["b"]),
    "Circuit.from_spice": of(
        systems.Circuit.from_spice,
        source="a divider\nR1 in out 1 $ trained\nR2 out 0 1\n",
        trained=["R1"],
        inputs=["in"],
        outputs=["out"],
    ),
    "Flow": of(
        systems.Flow,
        edges=[("a", "b"), ("b", "c")],
        inputs=["a", "c"],
        outputs=["b"],
        ground=None,
        conductance=[1.0, 2.0],
        device=devices.Device(lower=1e-6),
        dtype="float64",
    ),
    "Elastic": of(
        systems.Elastic,
        positions=[[0, 0], [1, 0], [2, 0]],
        springs=[[0, 1], [1, 2]],
        inputs=[(2, 0)],
        outputs=[(1, 0)],
        fixed=[0],
        stiffness=1.0,
        rest_length=[1.0, 1.0],
        device=devices.Device(lower=0.0),
        dtype="float64",
    ),
    "HamiltonianChain": of(
        systems.HamiltonianChain,
        masses=4,
        n_in=2,
        n_out=2,
        time=1.0,
        steps=10,
        damping=0.0,
        stiffness=1.0,
        quartic=0.5,
        bond=1.0,
        dtype="float64",
    ),
    "EnergySystem": of(
        Springs,
        n_in=2,
        n_states=1,
        n_out=1,
        params={"k": np.array([1.0, 3.0])},
        bounds=(0.0, 1.0),
        bounded_outputs=False,
        dtype="float64",
    ),
    "EnergySystem of": of(
        lambda k: Springs(n_in=2, n_states=1, n_out=1, params={"k": k}), k=np.array([1.0, 3.0])
    ),
    "Stack": of(
        systems.Stack,
        layers=[layers.Linear(3, 2)],
        mismatch=0.1,
        noise=0.1,
        dtype="float32",
        seed=1,
        numbered=False,
    ),
    "Instrument": of(
        lambda **settings: systems.Instrument(lambda x, params: x[:, :1], **settings),
        n_in=2,
        n_out=1,
        params={"W": [[1.0], [1.0]]},
        twin=layers.Linear(2, 1, bias=False),
        dtype="float64",
        seed=1,
    ),
    "systems.from_config": of(systems.from_config, config=hopfield().to_config()),
    "methods.from_config": of(methods.from_config, config=EP().to_config()),
    "optim.from_config": of(optim.from_config, config=optim.SGD(0.1).to_config()),
    "layers.from_config": of(layers.from_config, config=layers.Linear(2, 3).to_config()),
    "devices.from_config": of(devices.from_config, config=devices.ReRamSB().to_config()),
    "elements.from_config": of(
        elements.from_config, config=elements.Resistor("a", "b").to_config()
    ),
    "devices.storage": of(
        devices.storage,
        device=devices.ReRamSB(),
        trains=devices.PulseTrains(),
        algorithm=devices.TikiTaka(),
    ),
    "Custom": of(
        layers.Custom,
        n_in=2,
        n_out=2,
        forward=lambda x, params: x * params["gain"],
        vjp=lambda x, params, dy: (dy * params["gain"], {"gain": (dy * x).sum(axis=0)}),
        jvp=lambda x, params, dx, along: dx * params["gain"] + x * along["gain"],
        params={"gain": np.ones(2)},
        noise=0.1,
    ),
    "AnalogIO": by_field(analog.AnalogIO),
    "Wires": by_field(analog.Wires),
    "PulseTrains": by_field(devices.PulseTrains),
    "Device": by_field(devices.Device),
    "Device.from_config": of(devices.Device.from_config, config=devices.Device().to_config()),
    "ConstantStep": by_field(devices.ConstantStep),
    "LinearStep": by_field(devices.LinearStep),
    "SoftBounds": by_field(devices.SoftBounds),
    "ExpStep": by_field(devices.ExpStep),
    "PowerStep": by_field(devices.PowerStep),
    "TableStep": by_field(devices.TableStep),
    "TableStep.of": of(
        devices.TableStep.of, up=lambda w: 1 + 0 * w, down=lambda w: 1 + 0 * w, places=9, lower=-1.0
    ),
    "TableStep.measured": of(
        devices.TableStep.measured,
        states=[-1.0, 0.0, 1.0],
        up=[1.0, 1.0, 1.0],
        down=[1.0, 1.0, 1.0],
        places=9,
    ),
    "Cells.pulse": on(devices.ConstantStep, "pulse", w=0.1, n=[2, -1], seed=0),
    "devices.fit": of(
        devices.fit,
        measured=([0.0, 0.3, 0.5, 0.6], [0.6, 0.3, 0.1, 0.0]),
        cells=devices.TableStep,
        bounds=(-1.0, 1.0),
        columns="cycles",
    ),
    "Pair": by_field(devices.Pair, cells=devices.PCM().cells),
    "MultiCell": by_field(devices.MultiCell, cells=devices.ReRamSB()),
    "MixedPrecision": by_field(devices.MixedPrecision),
    "TikiTaka": by_field(devices.TikiTaka),
    "Resistor": by_field(elements.Resistor, plus="a", minus="b"),
    "Current": by_field(elements.Current, plus="a", minus="b"),
    "Difference": by_field(elements.Difference, plus="a", minus="b"),
    "Cubic": by_field(elements.Cubic, plus="a", minus="b"),
    "Diode": by_field(elements.Diode, plus="a", minus="b"),
    "IdealDiode": by_field(elements.IdealDiode, plus="a", minus="b"),
    "Transistor": by_field(elements.Transistor, plus="a", minus="b"),
    "CurrentSource": by_field(elements.CurrentSource, plus="a", minus="b"),
    "VoltageSource": by_field(elements.VoltageSource, plus="a", minus="b"),
    **{kind.__name__: by_field(kind) for kind in methods.Method.kinds().values()},
    **{kind.__name__: by_field(kind, **sizes(kind)) for kind in layers.Layer.kinds().values()},
    "Settling": by_field(pnn.Settling),
    "Settling.from_config": of(pnn.Settling.from_config, config=pnn.Settling().to_config()),
    "SGD": of(
        optim.SGD, learning_rate=0.1, momentum=0.5, weight_decay=0.1, schedule=optim.StepDecay(2)
    ),
    "Adam": of(
        optim.Adam,
        learning_rate=[0.1],
        betas=(0.9, 0.99),
        epsilon=1e-8,
        weight_decay=0.1,
        schedule=optim.StepDecay(2),
    ),
    "rates by name": of(lambda rate: optim.SGD({"W1": rate}), rate=0.1),
    "ExponentialDecay": by_field(optim.ExponentialDecay, gamma=0.9),
    "StepDecay": by_field(optim.StepDecay, every=2),
    "CosineDecay": by_field(optim.CosineDecay, epochs=2),
    "EarlyStopping": of(pnn.EarlyStopping, patience=2, quantity="loss", margin=0.1, restore=True),
    "Checkpoint": of(pnn.Checkpoint, path="run.pnn", epochs=1, minutes=1.0),
    "Prices": by_field(costs.Prices),
    "LightPrices": by_field(costs.LightPrices),
    "costs.estimate_light": of(
        costs.estimate_light,
        net=light,
        history=lambda: fitted().history,
        prices=costs.LightPrices(),
    ),
    "costs.photons_per_multiply_add": of(
        costs.photons_per_multiply_add, net=light, x=FIELD, error=0.1
    ),
    "costs.estimate": of(
        costs.estimate,
        net=lambda: stack(layers.Crossbar(3, 2)),
        history=lambda: fitted().history,
        prices=costs.Prices(),
    ),
    "costs.hours": of(
        costs.hours,
        system=lambda: systems.Instrument(
            lambda x, params: x[:, :1] * params["gain"], 3, 1, params={"gain": np.ones(1)}
        ),
        methods=lambda: [methods.SPSA()],
        seconds=0.1,
        samples=8,
        epochs=2,
        batch_size=4,
    ),
    "PhaseChange": by_field(memories.PhaseChange),
    "Resistive": by_field(memories.Resistive),
    "Mapping": by_field(memories.Mapping),
    "fields": on(light, "fields", x=lambda net: FIELD, model="twin", threads=1),
    "MZIMesh.program": on(lambda: layers.MZIMesh(3), "program", matrix=lambda mesh: np.eye(3)),
    "MZIMesh.matrix": on(lambda: layers.MZIMesh(3), "matrix", params=lambda mesh: PHASES),
    "MZIMesh.plot": on(
        lambda: layers.MZIMesh(3), "plot", params=lambda mesh: PHASES, x=lambda mesh: FIELD[0]
    ),
    "SVDLayer.program": on(
        lambda: layers.SVDLayer(3, 2), "program", matrix=lambda mesh: np.ones((2, 3))
    ),
    "MicroringBank.program": on(
        lambda: layers.MicroringBank(3, 2), "program", matrix=lambda rings: np.ones((2, 3))
    ),
    "MicroringBank.matrix": on(
        lambda: layers.MicroringBank(3, 2),
        "matrix",
        params=lambda rings: {"detuning": np.ones((2, 3))},
    ),
    "CoupledModes.scattering": on(
        lambda: layers.CoupledModes([2, 3]),
        "scattering",
        params=lambda modes: {"detuning": np.ones(5), "coupling": np.ones(6)},
        x=lambda modes: np.ones((4, 2)),
        frequency=lambda modes: np.ones(3),
    ),
    "CoupledModes.plot": on(
        lambda: layers.CoupledModes([2, 3]),
        "plot",
        params=lambda modes: {"detuning": np.ones(5), "coupling": np.ones(6)},
        x=lambda modes: np.ones(2),
    ),
    "Diffraction.transmission": on(
        lambda: layers.Diffraction((2, 3), 9.0, 1.0, 1.0),
        "transmission",
        params=lambda mask: {"phase": np.ones((2, 3))},
    ),
    "Waveguide.index_change": on(
        lambda: layers.Waveguide(4, 8.0, 20.0, 1.0, steps=2),
        "index_change",
        params=lambda guide: {"logit": np.ones((2, 4))},
    ),
    "Diffraction.plot": on(
        lambda: layers.Diffraction((2, 3), 9.0, 1.0, 1.0),
        "plot",
        params=lambda mask: {"phase": np.ones((2, 3))},
    ),
    "Waveguide.plot": on(
        lambda: layers.Waveguide(4, 8.0, 20.0, 1.0, steps=2),
        "plot",
        params=lambda guide: {"logit": np.ones((2, 4))},
        x=lambda guide: np.ones(4),
    ),
    "Fibre.plot": on(
        lambda: layers.Fibre(8, 6.0, 1.0, -1.0, 1.0, steps=10),
        "plot",
        params=lambda fibre: {"phase": np.ones(8)},
        x=lambda fibre: np.ones(8),
    ),
    "MicroringBank.plot": on(
        lambda: layers.MicroringBank(3, 2),
        "plot",
        params=lambda rings: {"detuning": np.ones((2, 3))},
    ),
    "plot_planes": on(
        lambda: stack(layers.Encode(6), layers.Diffraction((2, 3), 9.0, 1.0, 1.0), layers.Detect()),
        "plot_planes",
        x=lambda net: np.ones(6),
    ),
    "image_ports": of(layers.image_ports, image=(2, 2), plane=(5, 5), size=(4, 4)),
    "ProgrammedLayer.write": on(
        lambda: layers.MZIMesh(3).program(np.eye(3)), "write", net=lambda made: light(), place=1
    ),
    "memories.program": of(
        memories.program, net=stack, memory=memories.Resistive(), mapping=memories.Mapping(), seed=1
    ),
    "Programmed": of(
        memories.Programmed,
        net=stack,
        memory=memories.Resistive(),
        mapping=memories.Mapping(),
        seed=1,
    ),
    "Programmed.at": on(
        lambda: memories.program(stack(), seed=1), "at", seconds=9.0, compensation="none", repeat=1
    ),
    "Programmed.scores": on(
        lambda: memories.program(stack(), seed=1),
        "scores",
        x=lambda made: X(made.net),
        y=lambda made: Y(made.net),
        times=[1.0],
        compensations=["none"],
        repeats=1,
    ),
    "settle": on(
        hopfield,
        "settle",
        x=X,
        y=Y,
        beta=0.1,
        loss="cross-entropy",
        settling=pnn.Settling(),
        threads=1,
    ),
    "predict": on(hopfield, "predict", x=X, settling=pnn.Settling(), repeat=1, threads=1),
    "classify": on(hopfield, "classify", x=X, settling=pnn.Settling(), repeat=1, threads=1),
    "score": on(hopfield, "score", x=X, y=Y, settling=pnn.Settling(), repeat=1, threads=1),
    "as_batch": on(hopfield, "as_batch", x=X, y=Y),
    "parameter": on(lambda: hopfield().params, "update", W1=lambda params: params["W1"]),
    "measure": on(stack, "measure", x=X, repeat=1, threads=1),
    "vjp": on(stack, "vjp", x=X, dy=lambda net: np.ones((4, 2), np.float32), threads=1),
    "Circuit.voltages": on(circuit, "voltages", x=X, threads=1),
    "Circuit.currents": on(circuit, "currents", x=X, threads=1),
    "Circuit.power": on(circuit, "power", x=X, threads=1),
    "Circuit.to_spice": on(circuit, "to_spice", x=lambda net: X(net)[0]),
    "DeepResistive.power": on(
        lambda: systems.DeepResistive([3, 4, 2], seed=0),
        "power",
        x=lambda net: make_batch(net, 4)[0],
        threads=1,
    ),
    "Elastic.shape": on(elastic, "shape", x=X, threads=1),
    "Elastic.lengths": on(elastic, "lengths", positions=lambda net: net.positions),
    "Method.gradient": of(
        lambda **settings: EP().gradient(**settings),
        system=hopfield,
        **batch(hopfield()),
        seed=1,
        step=1,
        threads=1,
    ),
    "Method.predict": of(
        lambda **settings: EP().predict(**settings),
        system=hopfield,
        x=batch(hopfield())["x"],
        threads=1,
    ),
    "Method.score": of(
        lambda **settings: EP().score(**settings), system=hopfield, **batch(hopfield()), threads=1
    ),
    "ForwardForward.predict": of(
        methods.ForwardForward(classes=2).predict, system=stack, x=batch(stack())["x"], threads=1
    ),
    "ForwardForward.score": of(
        methods.ForwardForward(classes=2).score, system=stack, **batch(stack()), threads=1
    ),
    "PhysicalLocalLearning.collapse": of(
        methods.PhysicalLocalLearning().collapse, system=stack, **batch(stack()), threads=1
    ),
    "Trainer": of(
        pnn.Trainer,
        system=hopfield,
        method=EP(),
        optimizer=optim.SGD(0.1),
        batch_size=2,
        seed=1,
        threads=1,
        callbacks=[],
        progress=False,
    ),
    "Trainer.fit": on(
        trainer,
        "fit",
        x=lambda made: X(made.system),
        y=lambda made: Y(made.system),
        epochs=1,
        validation=lambda made: (X(made.system), Y(made.system)),
        sample_weight=lambda made: np.ones(len(X(made.system))),
    ),
    "Trainer.save": on(trainer, "save", path="run.pnn"),
    "Trainer.load": of(
        pnn.Trainer.load,
        path="kept.pnn",
        system=hopfield,
        method=EP(),
        loss=None,
        optimizer=optim.SGD(0.1),
        threads=1,
        callbacks=[],
        progress=False,
    ),
    "Trainer.memory_shapes": of(
        pnn.Trainer.memory_shapes, system=hopfield, method=EP(), optimizer=optim.SGD(0.1)
    ),
    "History.energy": on(
        lambda: fitted().history, "energy", power=1.0, settling_time=1.0, write_energy=1.0
    ),
    "audit": of(pnn.audit, system=hopfield, method=EP(), **batch(hopfield()), draws=1, threads=1),
    "audit_all": of(pnn.audit_all, only="Flow", threads=1),
    "check_layer": of(testing.check_layer, layer=layers.Speckle(2, 3), seed=1, raises=False),
    "check_loss": of(testing.check_loss, loss=Absolute(), n_out=3, seed=1, raises=False),
    "check_method": of(testing.check_method, method=EP(), system=hopfield, seed=1, raises=False),
    "check_system": of(testing.check_system, system=hopfield, seed=1, raises=False),
    "compare": of(
        pnn.compare,
        system=stack,
        methods={"a": methods.Backprop(model="hardware")},
        data=(*batch(stack()).values(), *batch(stack()).values()),
        passes=4,
        batch_size=2,
        seed=1,
        threads=1,
        progress=False,
    ),
    **{
        f"compare: {name}": compare_with(name)
        for name in ("x", "y", "x_test", "y_test", "entry", "method", "rule")
    },
    "one of validation": of(
        lambda part: fit_with((part, batch(hopfield())["y"])), part=batch(hopfield())["x"]
    ),
    "other of validation": of(
        lambda part: fit_with((batch(hopfield())["x"], part)), part=batch(hopfield())["y"]
    ),
    "one of betas": of(lambda beta: optim.Adam(betas=(beta, 0.9)), beta=0.5),
    "one of rates": of(lambda rate: optim.SGD([rate]), rate=0.5),
    "one of layers": of(lambda size: systems.Hopfield([3, size]), size=2),
    "layer of a stack": of(lambda layer: stack(layer), layer=layers.Linear(2, 3)),
    "one of tile": of(lambda size: layers.Crossbar(2, 3, tile=(size, 2)), size=2),
    "one of significance": of(
        lambda part: devices.MultiCell(devices.ReRamSB(), (part, 1.0)), part=0.5
    ),
    "one of sweeps": of(lambda sweeps: pnn.Settling(sweeps=(sweeps, 2)), sweeps=3),
    "one of up": of(lambda part: devices.TableStep(up=(part, 1.0)), part=0.5),
    "one of bounds": of(lambda part: springs_with(bounds=(part, 1.0)), part=0.5),
    "element": of(
        lambda part: systems.Circuit([*DIVIDER, part], inputs=["in"], outputs=["out"]),
        part=DIVIDER[0],
    ),
    "node": of(lambda node: systems.Circuit(DIVIDER, inputs=[node], outputs=["out"]), node="in"),
    "edge": of(
        lambda edge: systems.Flow([edge, ("b", "c")], inputs=["a", "c"], outputs=["b"]),
        edge=("a", "b"),
    ),
    "coordinate": of(
        lambda pair: systems.Elastic(
            [[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 2]], inputs=[pair], outputs=[(1, 0)]
        ),
        pair=(2, 0),
    ),
    "callback": of(lambda one: trainer(callbacks=[one]), one=pnn.Callback()),
    "compensation": of(
        lambda one: memories.program(stack(), seed=1).scores(
            **batch(stack()), times=[1.0], compensations=[one]
        ),
        one="none",
    ),
    "array of a source": of(
        lambda part: twins.fit(
            {"x": np.zeros((20, 2)), "y": part}, hidden=[2], epochs=1, progress=False
        ),
        part=np.ones((20, 1)),
    ),
    "analog.solve": of(
        analog.solve,
        conductances=np.ones((3, 2)),
        voltages=np.ones((4, 3)),
        row_resistance=1.0,
        column_resistance=1.0,
        driver_resistance=1.0,
        sense_resistance=1.0,
        side="rows",
        tolerance=1e-9,
        threads=1,
    ),
    "analog.calibrate": of(
        analog.calibrate,
        net=lambda: stack(layers.Crossbar(3, 2, io=layers.AnalogIO(scale="learned"))),
        x=batch(stack())["x"],
        quantile=0.9,
    ),
    "twins.LayerTwin": of(twins.LayerTwin, layer=layers.Linear(2, 3), seed=1),
    "twins.Analytic": of(twins.Analytic, forward=lambda x, p: x, vjp=lambda x, p, dy: (dy, {})),
    "twins.fit": of(
        twins.fit,
        source={"x": np.random.default_rng(0).normal(size=(20, 2)), "y": np.ones((20, 1))},
        hidden=[3],
        epochs=1,
        rate=0.1,
        batch_size=8,
        holdout=0.2,
        latest=20,
        dtype="float32",
        seed=0,
        progress=False,
    ),
    "twins.quality": of(
        twins.quality,
        system=stack,
        method=methods.Backprop(),
        **batch(stack()),
        directions=2,
        step=0.1,
        seed=0,
        threads=1,
    ),
    "twins.TwinMonitor": of(twins.TwinMonitor, **batch(stack()), every=1),
    "data.iris": of(data.iris),
    "data.digits": of(data.digits),
    "data.from_file": on(
        lambda: data, "from_file", path=lambda _: table(), target=None, test_size=0.5, seed=0
    ),
}

# Public, and not called with what users make: results that are returned, bases, drawings, and what
# other files test.
RESULTS_AND_BASES = """
Audit AuditTable Comparison Settled Status NodalVoltages Ledger Scores Collapse Finding Fit
DeviceFit Experiment Quality FittedTwin ProgrammedLayer
Outline NewParameters SettledPhases Loss History Examination State
Shot Salvage Journal Curves Trajectory Demo Callback Config Algorithm Cells Element Layer Memory
Method SettlingMethod Schedule Optimizer System Twin Budget Reference read_idx mnist fashion_mnist
optical_digits vowels acoustic read salvage answer quality fit of solve calibrate program
from_config outline storage iris digits
"""
ELSEWHERE = {*RESULTS_AND_BASES.split(), *devices.PRESETS}

MODULES = (
    "analog costs data devices elements instruments journal layers losses memories methods optim "
    "systems testing twins"
)


def test_every_public_call_is_tried():
    called = {name.split(".")[0] for name in CALLS} | {name.split(".")[-1] for name in CALLS}
    for module in [pnn, *(importlib.import_module(f"pnncore.{name}") for name in MODULES.split())]:
        for name in getattr(module, "__all__", None) or [n for n in vars(module) if n[0].isupper()]:
            value = getattr(module, name)
            if not callable(value) or not value.__module__.startswith("pnncore"):
                continue
            is_error = isinstance(value, type) and issubclass(value, Exception)
            assert is_error or name in called or name in ELSEWHERE, (
                f"{module.__name__}.{name} is not tried"
            )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer().save("kept.pnn")


def attempts(call):
    """Ways to spoil a call: the name of the argument, that of what it becomes, and what makes that.

    All of them in the long tests; otherwise some for each argument, others for the next.
    """
    few = 1 if TORTURE else 4
    for k, argument in enumerate(call()[1]):
        for name in list(HOSTILE)[k % few :: few]:
            yield argument, name, HOSTILE[name]


@pytest.mark.parametrize("name", CALLS)
def test_hostile_arguments_work_or_are_refused_in_type(name, folder):
    call, arguments = CALLS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "from_graph" not in name:
            call(**arguments)
        for argument, what, make in attempts(CALLS[name]):
            call, arguments = CALLS[name]()
            arguments[argument] = make()
            try:
                call(**arguments)
            except PnnError:
                pass
            except OSError:
                assert argument in ("path", "journal", "source"), (argument, what)
            except Exception as error:
                raise AssertionError(f"{name}: {argument} = {what}: {error!r:.200}") from error
