"""What a checkpoint holds of a trainer, and how a trainer is made of it again.

A file may say anything. It is believed only as far as it fits: what its configuration claims is
compared with the arrays in it before anything of that size is made, and the trainer that was made
must say the same of itself, word for word, as the file says.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from pnncore import _core, losses, methods, optim, systems
from pnncore._convert import FloatArray, as_settings, integer, shown
from pnncore.errors import CheckpointError, ConfigError, DataError, PnnError
from pnncore.history import History
from pnncore.settling import Settling
from pnncore.systems import System

if TYPE_CHECKING:
    from pnncore.trainer import Trainer

SCHEMA = 10

_KEYS = (
    "schema",
    "pnncore",
    "system",
    "system_class",
    "layers",
    "method",
    "optimizer",
    "trainer",
    "journals",
)
_STATE = ("batch_size", "seed", "epoch", "step", "steps_before", "sums")
_MARK = ("record", "hash", "shots", "since", "baseline", "drifts")

# JSON has no names for these.
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}

# A system may draw so many bytes from its seed however small its file is, and so many more per byte
# of the file.
_FREE_BYTES = 1 << 27
_BYTES_PER_BYTE = 64
# In single and in double precision.
_BYTES_PER_CONSTANT = 12

Tensors = dict[str, npt.NDArray[Any]]
AnyTrainer = TypeVar("AnyTrainer", bound="Trainer")


def describe(trainer: "Trainer") -> dict[str, Any]:
    """Return what a file says of a trainer beside its arrays, as plain data.

    Journals are left out.
    """
    system = trainer.system
    config = _plain(system)
    return {
        "schema": SCHEMA,
        "pnncore": _core.__version__,
        "system": config,
        "system_class": type(system).__name__,
        "layers": [_plain(layer) for layer in getattr(system, "layers", [])] if not config else [],
        "method": trainer.method.to_config(),
        "optimizer": trainer.optimizer.to_config(),
        "trainer": {
            "batch_size": trainer.batch_size,
            "seed": trainer.seed,
            "epoch": trainer.epoch,
            "step": trainer.step,
            "steps_before": trainer._steps_before,
            "sums": {name: _told(value) for name, value in trainer._sums.items()},
        },
    }


def _plain(part: Any) -> dict[str, Any] | None:
    """Return the configuration of a system or a layer; None for one that no file can hold."""
    try:
        config: dict[str, Any] = part.to_config()
    except TypeError:
        return None
    return config


def _probe(system: System) -> Tensors:
    """Return what a system that no file can hold makes of a few inputs.

    The system that is passed on loading must make the same of them. Instruments are not asked: a
    file costs no shots.
    """
    if system.instruments or _plain(system) is not None:
        return {}
    x = np.random.default_rng(0).uniform(0, 1, (3, system.n_in)).astype(system.dtype)
    with system.lock:
        found, _ = _core.predict(system.core, system.lent(), x, Settling().to_json(), 0, 1)
    return {"probe": found}


def _told(value: float) -> float | str:
    names = [
        name
        for name, other in _NOT_FINITE.items()
        if value == other or (value != value and other != other)
    ]
    return names[0] if names else value


def write(trainer: "Trainer", path: str) -> None:
    """Write a trainer to a file; `DataError` for one that `read` would refuse."""
    system = trainer.system
    metadata = describe(trainer)
    metadata["journals"] = [instrument.mark() for instrument in system.instruments]
    tensors: Tensors = _of_system(system)
    tensors |= {f"memory/{name}": array for name, array in trainer.memory.items()}
    wanted = trainer.memory_shapes(system, trainer.method, trainer.optimizer)
    if {name: array.shape for name, array in trainer.memory.items()} != wanted:
        raise DataError(
            "another optimizer or method was set within an epoch, which the one that it began "
            "with has to finish: save "
            f"at its end; nothing was written to {path}, and what is there is kept"
        )
    for k, instrument in enumerate(system.instruments):
        tensors |= {
            f"instrument/{k}/{name}": array for name, array in instrument.twin_arrays().items()
        }
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise DataError(
                f"{name} holds NaN or infinity: nothing was written to {path}, and what is there "
                "is kept"
            )
    tensors |= {f"history/{name}": array for name, array in trainer.history.to_tensors().items()}
    tensors |= _probe(system)
    _check_state(metadata["trainer"], trainer.history.epochs)
    _core.save(path, json.dumps(metadata, allow_nan=False), tensors)


def read(
    kind: type[AnyTrainer],
    path: str,
    *,
    system: System | None,
    method: methods.Method | None,
    loss: losses.Loss | None,
    optimizer: optim.Optimizer | None,
    **settings: Any,
) -> AnyTrainer:
    """Return the trainer that a file holds; `CheckpointError` for a file that holds none.

    The system that was passed changes only once everything fits.
    """
    text, tensors = _core.load(path)
    with _refusing(path):
        metadata = _metadata(text, path)
        state = metadata["trainer"]
        made = _system(metadata, tensors, len(text), path) if system is None else system
        method = _method(metadata["method"], path, loss) if method is None else method
        chosen = optim.from_config(metadata["optimizer"]) if optimizer is None else optimizer
        marks = [_mark(mark) for mark in _list(metadata["journals"], "journals")]
        if len(marks) != len(made.instruments):
            raise CheckpointError(
                f"{path} was made with {len(marks)} instruments; the system has "
                f"{len(made.instruments)}"
            )
        shapes = {f"params/{name}": shape for name, shape in made.shapes.items()}
        memory = kind.memory_shapes(made, method, chosen)
        shapes |= {f"system/{name}": shape for name, shape in made.memory_shapes.items()}
        shapes |= {f"memory/{name}": shape for name, shape in memory.items()}
        _check_shapes(shapes, made.dtype, tensors, path)
        batch_size, seed = state["batch_size"], state["seed"]
        trainer = kind(made, method, chosen, batch_size=batch_size, seed=seed, **settings)
        trainer.history = _history(tensors, state["epoch"])
        trainer.epoch, trainer.step = state["epoch"], state["step"]
        trainer._steps_before, trainer._sums = state["steps_before"], _sums(state["sums"])
        own = describe(trainer)
        _check_same(own, metadata, _not_compared(system, optimizer))
        if len(own["layers"]) != len(metadata["layers"]):
            raise CheckpointError(
                f"{path} was made with {len(metadata['layers'])} layers that it describes; the "
                f"system that was passed has {len(own['layers'])}"
            )
        for k, pair in enumerate(zip(own["layers"], metadata["layers"], strict=True), start=1):
            _check_same_layer(*pair, k, path)
        if system is not None and own["system"] and metadata["system"]:
            _check_same_system(own["system"], metadata["system"], path)
        probe = tensors.pop("probe", None)
        targets = _targets(trainer, tensors, path)
    before = {name: array.copy() for name, array in targets.items()}
    try:
        for name, array in targets.items():
            array[...] = tensors[name]
        if probe is not None and not _agrees(probe, _probe(made).get("probe")):
            raise CheckpointError(
                f"{path} was made with another {metadata['system_class']}: the one that was passed "
                "gives other outputs at the same parameters"
            )
        for instrument, mark in zip(made.instruments, marks, strict=True):
            if mark is not None:
                instrument.rewind(mark)
    except BaseException:
        for name, array in targets.items():
            array[...] = before[name]
        raise
    return trainer


def _agrees(told: npt.NDArray[Any], found: npt.NDArray[Any] | None) -> bool:
    """Whether outputs are equal but for rounding, on another machine too, and for settling."""
    if found is None or told.shape != found.shape:
        return False
    kept = np.isfinite(told) & np.isfinite(found)
    size = np.abs(told[kept]).max(initial=0.0)
    return np.array_equal(np.isfinite(told), np.isfinite(found)) and bool(
        np.all(np.abs(told[kept] - found[kept]) <= 5e-3 * size)
    )


def _method(told: Any, path: str, loss: losses.Loss | None) -> methods.Method:
    """Return the method that the file describes.

    `CheckpointError` where it or its loss is of the user's own.
    """
    if "own" in (config := as_settings(told, "a method")):
        raise CheckpointError(
            f"{path} was made with a method of the user's own, {shown(config['own'])}; make an "
            "equal one and pass it: "
            "Trainer.load(path, method=...)"
        )
    if not isinstance(config.get("loss"), dict):
        if loss is not None:
            raise CheckpointError(
                f"{path} was made with a loss of pnncore's, {shown(config.get('loss'))}: leave "
                "loss out"
            )
        return methods.from_config(config)
    if loss is None:
        raise CheckpointError(
            f"{path} was made with a loss of the user's own, {shown(config['loss'].get('own'))}; "
            "make an equal one and "
            "pass it: Trainer.load(path, loss=...)"
        )
    return methods.from_config({**config, "loss": loss})


def _not_compared(system: System | None, optimizer: optim.Optimizer | None) -> list[str]:
    """Return the parts that were passed: a user's own may say nothing of themselves."""
    return [
        *([] if system is None else ["system", "system_class", "layers"]),
        *([] if optimizer is None else ["optimizer"]),
    ]


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    """Whatever goes wrong with what a file says is a `CheckpointError` that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (
        PnnError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        MemoryError,
    ) as error:
        reason = str(error) if isinstance(error, PnnError) else repr(error)
        raise CheckpointError(
            f"{path} is no checkpoint that this trainer can go on from: {reason}"
        ) from error


def _metadata(text: str, path: str) -> dict[str, Any]:
    """Return what the file says, with all its parts there and of the right kind.

    The configurations are not read.
    """
    metadata = as_settings(json.loads(text), "a checkpoint")
    if type(metadata.get("schema")) is not int or metadata["schema"] != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {shown(metadata.get('schema'))}; this pnncore reads {SCHEMA}"
        )
    _check_keys(metadata, _KEYS, "a checkpoint")
    for name in ("pnncore", "system_class"):
        if not isinstance(metadata[name], str):
            raise ConfigError(f"{name} must be text, got {shown(metadata[name])}")
    if metadata["system"] is not None:
        as_settings(metadata["system"], "a system")
    _list(metadata["layers"], "layers")
    metadata["trainer"] = as_settings(metadata["trainer"], "a trainer")
    _check_keys(metadata["trainer"], _STATE, "a trainer")
    _check_state(metadata["trainer"], None)
    return metadata


def _check_keys(found: dict[str, Any], keys: tuple[str, ...], what: str) -> None:
    missing = [key for key in keys if key not in found]
    unknown = [key for key in found if key not in keys]
    if missing or unknown:
        raise ConfigError(
            f"the parts of {what} are {list(keys)}; missing {missing}, unknown {shown(unknown)}"
        )


def _check_state(state: dict[str, Any], epochs: int | None) -> None:
    """Refuse counters of a trainer that cannot be.

    `epochs` is the length of its history, where that is known.
    """
    batch = integer(state["batch_size"], "batch_size", 1, 2**32, "a positive integer")
    integer(state["seed"], "seed", 0, 2**64, "in 0..2**64")
    epoch = integer(state["epoch"], "epoch", 0, 2**32, "an integer from 0 on")
    step = integer(state["step"], "step", 0, 2**62, "an integer from 0 on")
    integer(
        state["steps_before"],
        "steps_before",
        epoch,
        2**62 if epoch else 1,
        "at least the number of epochs",
    )
    if epochs is not None and epochs != epoch:
        raise ConfigError(f"epoch is {epoch}, but the history has {epochs}")
    sums = as_settings(state["sums"], "the epoch under way")
    if step == 0 and not sums:
        return
    wanted = {name: type(value) for name, value in _core.no_progress().items() if name != "steps"}
    _check_keys(sums, tuple(wanted), "the epoch under way")
    for name, kind in wanted.items():
        value = (
            _NOT_FINITE.get(sums[name], sums[name]) if isinstance(sums[name], str) else sums[name]
        )
        if type(value) not in ({int, kind} if kind is float else {kind}) or (
            kind is int and value < 0
        ):
            raise ConfigError(
                f"{name} of the epoch under way must be a number ({kind.__name__}), got "
                f"{shown(value)}"
            )
    # Steps are as few as may be, and differ by one sample at most: their number follows from that
    # of the samples.
    if step != -(-sums["samples"] // batch):
        raise ConfigError(
            f"step is {step}, which is not what {sums['samples']} samples make in batches of "
            f"{batch}"
        )


def _sums(told: dict[str, Any]) -> dict[str, float]:
    return {
        name: _NOT_FINITE[value] if isinstance(value, str) else value
        for name, value in told.items()
    }


def _system(metadata: dict[str, Any], tensors: Tensors, length: int, path: str) -> System:
    """Return the system that the file describes, once the file is known to hold its parameters."""
    config = metadata["system"]
    if config is None:
        raise CheckpointError(
            f"{path} was made with a system of the user's own, {metadata['system_class']}; "
            "make an equal one and pass it: Trainer.load(path, system=...)"
        )
    outline = systems.outline(config)
    shapes = {f"params/{name}": tuple(shape) for name, shape in outline.shapes.items()}
    _check_shapes(shapes, outline.dtype, tensors, path)
    held = length + sum(array.nbytes for array in tensors.values())
    needed, free = _BYTES_PER_CONSTANT * outline.constants, _FREE_BYTES + _BYTES_PER_BYTE * held
    if needed > free:
        raise CheckpointError(
            f"{path} holds {held} bytes, but describes a system that draws {needed} bytes beside "
            "its parameters; "
            "where that is right, make the system and pass it: Trainer.load(path, system=...)"
        )
    return systems.from_config(config)


def _check_shapes(
    shapes: dict[str, tuple[int, ...]], dtype: np.dtype[Any], tensors: Tensors, path: str
) -> None:
    for name, shape in shapes.items():
        saved = tensors.get(name)
        if saved is None or saved.shape != shape or saved.dtype != dtype:
            got = "nothing" if saved is None else f"{saved.dtype} {saved.shape}"
            raise CheckpointError(
                f"{path} holds {got} for {name}, but the system needs {dtype} {shape}"
            )


def _history(tensors: Tensors, epochs: int) -> History:
    """Return the history that the file holds, of so many epochs."""
    found = {
        name.removeprefix("history/"): array
        for name, array in tensors.items()
        if name.startswith("history/")
    }
    _check_keys(found, tuple(History().to_tensors()), "a history")
    for name, array in found.items():
        if array.shape != (epochs,) or array.dtype != np.float64:
            raise ConfigError(
                f"history/{name} must hold {epochs} numbers, got {array.dtype} {array.shape}"
            )
    if not np.array_equal(found["epoch"], np.arange(1, epochs + 1)):
        raise ConfigError("history/epoch must count the epochs from 1 on")
    return History.from_tensors(found)


def _targets(trainer: "Trainer", tensors: Tensors, path: str) -> dict[str, FloatArray]:
    """Return the arrays that the file's arrays go to, by their names there.

    Every one has its place.
    """
    targets = _of_system(trainer.system)
    targets |= {f"memory/{name}": array for name, array in trainer.memory.items()}
    for k, instrument in enumerate(trainer.system.instruments):
        twin = {f"instrument/{k}/{name}": array for name, array in instrument.twin_arrays().items()}
        for name, array in twin.items():
            _check_shapes({name: array.shape}, array.dtype, tensors, path)
        targets |= twin
    if unknown := [
        name for name in tensors if name not in targets and not name.startswith("history/")
    ]:
        raise CheckpointError(
            f"{path} holds {shown(unknown[0])}, which the trainer has no place for: system, method "
            "and optimizer must be those that it was trained with"
        )
    for name in targets:
        if not np.isfinite(tensors[name]).all():
            raise CheckpointError(f"{path} holds NaN or infinity in {name}")
    return targets


def _of_system(system: System) -> dict[str, FloatArray]:
    """Return the parameters and the memory of a system, by their names in a file."""
    names = [f"params/{name}" for name in system.names] + [
        f"system/{name}" for name in system.memory_shapes
    ]
    return dict(zip(names, system.lent(), strict=True))


def _check_same(own: dict[str, Any], told: dict[str, Any], given: list[str]) -> None:
    """Refuse a file that says anything else of a trainer than the trainer that was made of it."""
    for part in ("system", "system_class", "layers", "method", "optimizer", "trainer"):
        if part not in given and (
            places := list(_differences(json.loads(json.dumps(own[part])), told[part], part))
        ):
            raise ConfigError(
                f"it was trained with {shown(told[part])} as its {part.replace('_', ' ')}, and the "
                f"trainer has {shown(own[part])}: {places[0]} differs"
            )


def _check_same_system(own: dict[str, Any], told: dict[str, Any], path: str) -> None:
    """Refuse a system that differs from what the file says of the one that was trained."""
    own = json.loads(json.dumps(own))
    if "noise" not in own and systems.outline(own).constants == 0:
        # Nothing was drawn from the seed but the first parameters, which the file has others of.
        own["seed"] = told.get("seed")
    for place in _differences(own, told, "system"):
        raise CheckpointError(
            f"{path} was made with {place}; the system that was passed is another one"
        )


def _check_same_layer(own: Any, told: Any, number: int, path: str) -> None:
    for place in _differences(json.loads(json.dumps(own)), told, f"layer {number}"):
        raise CheckpointError(
            f"{path} was made with {place}; the system that was passed is another one"
        )


def _differences(own: Any, told: Any, place: str) -> Iterator[str]:
    """Yield where two pieces of plain data differ; 1, 1.0 and True do."""
    if isinstance(own, dict) and isinstance(told, dict):
        for key in sorted(own.keys() | told.keys()):
            if key not in own or key not in told:
                yield f"{place}.{shown(key)[1:-1]} ({'missing' if key in own else 'unknown'})"
            else:
                yield from _differences(own[key], told[key], f"{place}.{key}")
    elif isinstance(own, list) and isinstance(told, list) and len(own) == len(told):
        for k, pair in enumerate(zip(own, told, strict=True)):
            yield from _differences(*pair, f"{place}[{k}]")
    elif type(own) is not type(told) or own != told:
        yield f"{place} = {shown(told)}"


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{name} must be a list, got {shown(value)}")
    return value


def _mark(told: Any) -> dict[str, Any] | None:
    """Return where the journal of an instrument was, as `Driver.rewind` takes it."""
    if told is None:
        return None
    mark = as_settings(told, "the mark of a journal")
    _check_keys(mark, _MARK, "a mark")
    for name in ("record", "shots", "since", "drifts"):
        integer(mark[name], f"{name} of a mark", 0, 2**62, "an integer from 0 on")
    if not isinstance(mark["hash"], str):
        raise ConfigError(f"hash of a mark must be text, got {shown(mark['hash'])}")
    if mark["baseline"] is not None:
        dtype, values = _list(mark["baseline"], "baseline")
        if dtype not in ("float32", "float64") or np.array(values, dtype).ndim not in (1, 2):
            raise ConfigError(
                f"baseline of a mark must be a type and numbers, got {shown(mark['baseline'])}"
            )
    return mark
