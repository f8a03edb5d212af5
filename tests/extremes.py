"""Every number that a setting can be, one at a time: constructed and used for a step. Run by
`test_runs`.

Prints a line for each case that ends in anything but success or an error of pnncore.
"""

import dataclasses
import resource
import signal
import sys
import time
import warnings

import numpy as np
import pnncore as pnn
from pnncore import analog, devices, layers, methods, optim, systems
from pnncore.errors import PnnError

FLOATS = [0.0, -1.0, 1e-300, 1e-30, 1e-12, 1e12, 1e30, 1e300, float("inf"), float("nan"), 2**63]
INTS = [0, -1, 1, 3, 31, 32, 64, 2**16, 2**31 - 1, 2**32 - 1, 2**32, 2**64]
WIDTH = 4
# Bytes beyond those of the process at the start, and seconds: floats must be done with, counts
# interruptible.
ROOM, SECONDS, COUNTED, ANSWER = 3 << 30, 10.0, 0.4, 0.5


class Late(Exception):  # noqa: N818 - it is the case that is late
    """The time for a case is over."""


def step(system, method, optimizer=None):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (6, system.n_in)).astype(system.dtype)
    trainer = pnn.Trainer(
        system, method, optimizer or optim.SGD(0.1), batch_size=3, seed=0, progress=False
    )
    trainer.fit(x, rng.integers(0, system.n_out, 6), epochs=1)
    assert all(np.isfinite(array).all() for array in system.params.values()), (
        "parameters are not finite"
    )
    system.predict(x)


def stack(*chain):
    return systems.Stack([*chain], seed=0)


def use_layer(layer):
    if not hasattr(layer, "n_in"):
        return step(stack(layers.Linear(WIDTH, 3), layer, layers.Linear(3, 2)), methods.Backprop())
    if not hasattr(layer, "n_out"):
        return step(stack(layer), methods.Backprop())
    chain = [] if layer.n_in == WIDTH else [layers.Linear(WIDTH, layer.n_in)]
    return step(stack(*chain, layer, layers.Linear(layer.n_out, 2)), methods.Backprop())


def use_method(method):
    hopfield = systems.Hopfield([WIDTH, 3, 2], activation="tanh", seed=0)
    plain = stack(layers.Linear(WIDTH, 3), layers.Tanh(), layers.Linear(3, 2))
    for system in (hopfield, plain, stack(layers.Speckle(WIDTH, 2))):
        try:
            pnn.Trainer(system, method, optim.SGD(0.1))
        except pnn.errors.CapabilityError:
            continue
        step(system, method)


def use_crossbar(**settings):
    step(stack(layers.Crossbar(WIDTH, 2, **settings)), methods.Backprop())


def use_algorithm(algorithm):
    use_crossbar(device=devices.SoftBounds(), algorithm=algorithm)


def use_settling(settling):
    system = systems.Hopfield([WIDTH, 3, 2], seed=0)
    step(system, methods.EquilibriumPropagation(settling=settling))
    system.settle(np.ones((2, WIDTH), system.dtype), settling=settling)


def use_optimizer(optimizer):
    step(stack(layers.Linear(WIDTH, 2)), methods.Backprop(), optimizer)


def use_schedule(schedule):
    use_optimizer(optim.SGD(0.1, schedule=schedule))


def use_system(system):
    method = "PhysicsAware" if "PhysicsAware" in system.methods() else "EquilibriumPropagation"
    step(system, getattr(methods, method)())


def use_wires(wires):
    use_crossbar(wires=wires)


def use_io(io):
    use_crossbar(io=io)


def use_cells(cells):
    use_crossbar(device=cells)


def use_device(device):
    step(
        systems.DeepResistive([WIDTH, 3, 2], device=device, seed=0),
        methods.EquilibriumPropagation(),
    )


def of_module(module, base, use, given=dict):
    """Every dataclass of a module, with its settings."""
    for name in dir(module):
        kind = getattr(module, name)
        if (
            name.startswith("_")
            or not isinstance(kind, type)
            or not issubclass(kind, base)
            or not dataclasses.is_dataclass(kind)
        ):
            continue
        if kind is not base:
            fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
            start = dict(given(kind, fields)) if given is not dict else {}
            try:
                kind(**start)
            except (TypeError, PnnError):
                continue
            yield kind, use, start, list(fields)


def of_layer(kind, fields):
    sizes = {"n_in": WIDTH, "n_out": 3, "n": WIDTH, "width": WIDTH, "parameters": 5, "n_params": 5}
    return {name: sizes[name] for name, field in fields.items() if name in sizes}


def constructors():
    yield from of_module(methods, methods.Method, use_method)
    yield from of_module(layers, layers.Layer, use_layer, of_layer)
    yield from of_module(devices, devices.Cells, use_cells)
    yield from of_module(devices, devices.Algorithm, use_algorithm)
    yield analog.AnalogIO, use_io, {}, [field.name for field in dataclasses.fields(analog.AnalogIO)]
    yield analog.Wires, use_wires, {}, [field.name for field in dataclasses.fields(analog.Wires)]
    yield (
        devices.Device,
        use_device,
        {},
        [field.name for field in dataclasses.fields(devices.Device)],
    )
    yield pnn.Settling, use_settling, {}, [field.name for field in dataclasses.fields(pnn.Settling)]
    yield (
        optim.SGD,
        use_optimizer,
        {"learning_rate": 0.1},
        ["learning_rate", "momentum", "weight_decay"],
    )
    yield (
        optim.Adam,
        use_optimizer,
        {"learning_rate": 0.1},
        ["learning_rate", "epsilon", "weight_decay"],
    )
    for kind in (optim.ExponentialDecay, optim.StepDecay, optim.CosineDecay):
        fields = dataclasses.fields(kind)
        defaults = {field.name: 1 if field.type is int else 0.5 for field in fields}
        yield kind, use_schedule, defaults, list(defaults)
    sizes = {"a": WIDTH, "b": 3}
    for kind in (systems.Hopfield, systems.DeepResistive):

        def make(a, b, kind=kind, **settings):
            return kind([a, b, 2], seed=0, **settings)

        make.__name__ = kind.__name__
        extra = ["gain"] if kind is systems.Hopfield else ["gain", "input_gain"]
        yield make, use_system, sizes, ["a", "b", *extra]

    def disordered(a, b, mismatch=0.0, noise=0.0):
        return systems.Stack([layers.Linear(a, b, mismatch=mismatch, noise=noise)], seed=0)

    yield disordered, use_system, sizes, ["a", "b", "mismatch", "noise"]


def cases():
    for make, use, start, names in constructors():
        for name in names:
            present = start.get(name, getattr(make, name, None))
            values = (
                INTS
                if isinstance(present, int) and not isinstance(present, bool)
                else [*FLOATS, *INTS]
            )
            yield from ((make, use, start, name, value) for value in values)


def outcome(make, use, start, name, value):
    """What is wrong with a case, if anything."""

    def late(number, frame):
        raise Late

    counted = isinstance(value, int) and value > 1000
    limit = COUNTED if counted else SECONDS
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    begin = time.monotonic()
    try:
        use(make(**{**start, name: value}))
    except PnnError:
        pass
    except Late:
        if not counted:
            return f"is not done after {limit} s"
    except BaseException as error:
        return f"raises {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took = time.monotonic() - begin
    return f"takes {took:.2f} s to be interrupted" if took > limit + ANSWER else None


def main(part, parts):
    warnings.simplefilter("ignore")
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    count = 0
    for k, (make, use, start, name, value) in enumerate(cases()):
        if k % parts != part:
            continue
        count += 1
        print(f"{make.__name__}({name}={value})", end=" ", flush=True)
        print(outcome(make, use, start, name, value) or "ok", flush=True)
    print(f"{count} cases done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
