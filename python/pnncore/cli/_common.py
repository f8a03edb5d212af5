"""What the commands share.

Parsing, the choices of data, systems and methods, and how results are shown.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from pnncore import _core, data, layers, methods, systems
from pnncore._scores import score
from pnncore.errors import ConfigError, DataError, PnnError
from pnncore.settling import Settling

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
FloatArray: TypeAlias = npt.NDArray[Any]
Split: TypeAlias = tuple[FloatArray, npt.NDArray[np.int64], FloatArray, npt.NDArray[np.int64]]

RawHelp = argparse.RawDescriptionHelpFormatter

#: All methods by what they are called in commands.
METHODS: dict[str, type[methods.Method]] = {
    re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower(): kind
    for name, kind in methods.Method.kinds().items()
}
_FUNCTIONS = {"tanh": layers.Tanh, "logistic": layers.Logistic, "relu": layers.ReLU}
DATA = ("digits", "iris", "mnist", "fashion-mnist", "vowels")
SYSTEMS = ("hopfield", "resistive", "stack")
ACTIVATIONS = ("hard-sigmoid", "tanh", "logistic", "relu")
LOSSES = ("squared-error", "cross-entropy")
_METHOD_SETTINGS = ("loss", "beta", "variant", "sign", "points", "eta", "steps")


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        """Print one line on standard error, and exit with code 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def name_of(kind: type[methods.Method]) -> str:
    """Return what a method is called in commands."""
    return next(name for name, known in METHODS.items() if known is kind)


def add_command(commands: Commands, name: str, summary: str, description: str, run: Any) -> Parser:
    """Add a command, with its ``--json`` and what to run."""
    parser = commands.add_parser(
        name, help=summary, description=description, formatter_class=RawHelp
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, and nothing else"
    )
    parser.set_defaults(run=run)
    return parser


def add_threads(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Add ``--threads``."""
    parser.add_argument(
        "--threads",
        type=count,
        help="threads; default PNNCORE_NUM_THREADS, otherwise all cores. Results do not depend on "
        "it",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a data set."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        type=_data_name,
        default="digits",
        metavar="SET|FILE",
        help=f"one of {', '.join(DATA)} (default: digits, which ships with pnncore, as iris does), "
        "a .npz file with x and y, or a .csv table whose last column is the label",
    )
    group.add_argument("--target", metavar="COLUMN", help="the column of the label in a .csv table")
    group.add_argument(
        "--data-path",
        metavar="FOLDER",
        help="where the set is; default: PNNCORE_DATA, then the cache",
    )
    group.add_argument(
        "--download", action="store_true", help="fetch mnist or fashion-mnist if it is not there"
    )


def add_system(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a system; defaults are None, so that a conflict with a file can be seen."""
    group = parser.add_argument_group("system")
    group.add_argument(
        "--system",
        metavar="NAME|FILE.json",
        help=f"the physics: {', '.join(SYSTEMS)} (default: hopfield), or any other as a file with "
        "json.dumps(system.to_config()), which has initial values: what was trained is in RUN.pnn",
    )
    group.add_argument(
        "--layers",
        type=counts,
        metavar="N,N,...",
        help="sizes, inputs first (default: from the data, one hidden layer of 128)",
    )
    group.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        help="of hidden units (default: hard-sigmoid; of a stack: tanh, logistic or relu (tanh))",
    )
    group.add_argument(
        "--mismatch", type=float, help="stack: how far hardware is off its twin (default: 0)"
    )
    group.add_argument("--noise", type=float, help="stack: of every measurement (default: 0)")
    group.add_argument(
        "--gain",
        type=float,
        help="initial couplings are uniform in +-gain/sqrt(fan-in) (default: 0.7)",
    )


def add_method(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the choice of a method (or, with `several`, of all) and its settings."""
    group = parser.add_argument_group("method")
    names = (*METHODS, "all") if several else tuple(METHODS)
    default = (
        "all that read steady states or layers"
        if several
        else "physics-aware for stacks, equilibrium-propagation or what else suits the system"
    )
    group.add_argument(
        "--method",
        type=lambda text: next((k for k, v in METHODS.items() if v.__name__ == text), text),
        choices=names,
        metavar="NAME",
        help=f"one of {', '.join(names)} (default: {default})",
    )
    group.add_argument("--loss", choices=LOSSES, help="default: squared-error")
    group.add_argument(
        "--beta",
        type=float,
        help="equilibrium propagation: strength of nudging (default: 0.2 for Hopfield networks)",
    )
    group.add_argument(
        "--variant",
        help="equilibrium propagation: centered (default), one-sided, holomorphic; "
        "coupled learning: positive (default), negative, centered",
    )
    group.add_argument(
        "--sign", help="one-sided equilibrium propagation: positive (default), negative, random"
    )
    group.add_argument(
        "--points",
        type=count,
        help="holomorphic equilibrium propagation: points on the circle (default: 8)",
    )
    group.add_argument(
        "--eta",
        type=float,
        help="coupled learning: fraction of the way to the target (default: 0.1)",
    )
    group.add_argument(
        "--steps", type=count, help="recurrent backprop: steps of the adjoint (default: 20)"
    )
    group.add_argument(
        "--sweeps",
        type=counts,
        metavar="FREE,NUDGED",
        help="settle for fixed numbers of sweeps (default: each sample until settled)",
    )
    group.add_argument(
        "--tolerance", type=float, help="settle until no unit moves by more than this in a sweep"
    )
    if not several:
        group.add_argument(
            "--set",
            action="append",
            metavar="NAME=VALUE",
            help="any other setting of the method, such as directions=8",
        )


def _data_name(text: str) -> str:
    """Read the name of a data set, or of a file."""
    if text in DATA or Path(text).suffix.lower() in (".npz", ".csv"):
        return text
    raise argparse.ArgumentTypeError(
        f"needs one of {', '.join(DATA)}, or a .npz or .csv file, got {text!r}"
    )


def count(text: str) -> int:
    """Read a positive integer."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"needs a positive integer, got {text!r}")
    return value


def counts(text: str) -> list[int]:
    """Read positive integers with commas between them."""
    return [count(part) for part in text.split(",")]


def numbers(text: str) -> list[float]:
    """Read numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"needs a number, or numbers with commas between them, got {text!r}"
        ) from None


def given(arguments: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
    """Return the options among `names` that the user gave, as they are typed."""
    return [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) is not None]


def load_data(arguments: argparse.Namespace) -> Split:
    """Load the data set that was chosen."""
    name, path, download = arguments.data, arguments.data_path, arguments.download
    if name not in DATA:
        if path is not None or download:
            raise ConfigError("--data-path and --download are for sets by name, not for a file")
        return data.from_file(name, target=arguments.target)
    if arguments.target is not None:
        raise ConfigError("--target is the column of a .csv file that --data names")
    if name in ("digits", "iris"):
        if path is not None or download:
            raise ConfigError(
                f"{name} ships with pnncore; --data-path and --download are for the other sets"
            )
        return data.digits() if name == "digits" else data.iris()
    if name == "vowels" and download:
        raise ConfigError("vowels cannot be downloaded; --download is for mnist and fashion-mnist")
    try:
        if name == "vowels":
            return data.vowels(path)
        return (data.mnist if name == "mnist" else data.fashion_mnist)(path, download=download)
    except DataError as error:
        message, looked, _ = str(error).partition("\nTo get it:")
        if not looked:
            raise
        fix = "" if name == "vowels" else ", or fetch it with --download"
        first, _, *places = (line.strip() for line in message.split("\n"))
        raise DataError(
            f"{first}. Looked in: {'; '.join(places)}. Name its folder with --data-path or "
            f"PNNCORE_DATA{fix}"
        ) from None


def make_settling(arguments: argparse.Namespace) -> Settling:
    """Return how phases are settled; an audit with a tolerance settles for as long as it takes."""
    if (
        arguments.sweeps is None
        and arguments.command == "audit"
        and arguments.tolerance is not None
    ):
        return Settling(tolerance=arguments.tolerance, max_sweeps=100_000)
    if arguments.sweeps is None:
        return Settling(tolerance=arguments.tolerance)
    if len(arguments.sweeps) > 2:
        raise ConfigError(
            f"--sweeps needs FREE,NUDGED or one number, got {len(arguments.sweeps)} numbers"
        )
    free, nudged = arguments.sweeps[0], arguments.sweeps[-1]
    return Settling(sweeps=(free, nudged), tolerance=arguments.tolerance)


def make_method(arguments: argparse.Namespace, name: str) -> methods.Method:
    """Return the method of this name with the given settings.

    `ConfigError` for one that it lacks.
    """
    kind = METHODS[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    settings = {
        key: getattr(arguments, key)
        for key in _METHOD_SETTINGS
        if getattr(arguments, key) is not None
    }
    for key in settings:
        if key not in fields:
            known = ", ".join(f"--{field}" for field in _METHOD_SETTINGS if field in fields)
            raise ConfigError(f"--{key} is no setting of {name}, which has {known}")
    for text in getattr(arguments, "set", None) or []:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise ConfigError(f"--set needs NAME=VALUE, got {text!r}")
        if key in settings:
            raise ConfigError(f"--set {text}: {key} is given twice")
        if key not in fields - {"settling"}:
            others = ", ".join(sorted(fields - {"settling"}))
            raise ConfigError(f"--set {text}: {key} is no setting of {name}, which has {others}")
        settings[key] = _value(value)
    if "settling" in fields:
        settings["settling"] = make_settling(arguments)
    elif arguments.sweeps is not None or arguments.tolerance is not None:
        raise ConfigError(
            f"--sweeps and --tolerance are for methods that let a system settle, which {name} "
            "does not"
        )
    return kind(**settings)


def _value(text: str) -> Any:
    """Read a number, or leave the text as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _sizes(arguments: argparse.Namespace, x: FloatArray, y: npt.NDArray[np.int64]) -> list[int]:
    """Return the sizes of the layers, checked against the data."""
    n_in, n_out = x.shape[1], int(y.max()) + 1
    if arguments.layers is None:
        return [n_in, 128, n_out]
    sizes: list[int] = arguments.layers
    if len(sizes) < 2 or sizes[0] != n_in or sizes[-1] != n_out:
        shown = ",".join(map(str, sizes))
        raise ConfigError(
            f"--layers must begin with {n_in} and end with {n_out} for {arguments.data}, got "
            f"{shown}"
        )
    return sizes


def make_system(
    arguments: argparse.Namespace,
    x: FloatArray,
    y: npt.NDArray[np.int64],
    seed: int,
    dtype: str = "float32",
) -> systems.System:
    """Return the system that was chosen; `ConfigError` for settings that it lacks."""
    name = arguments.system or "hopfield"
    own = {
        "hopfield": ("layers", "activation", "gain"),
        "resistive": ("layers",),
        "stack": ("layers", "activation", "mismatch", "noise"),
    }.get(name, ())
    settings = ("layers", "activation", "gain", "mismatch", "noise")
    if wrong := given(arguments, tuple(key for key in settings if key not in own)):
        raise ConfigError(f"{', '.join(wrong)} is no setting of --system {name}")
    if name not in SYSTEMS:
        return _system_of_file(arguments, name, x, y)
    sizes = _sizes(arguments, x, y)
    if name == "resistive":
        return systems.DeepResistive(sizes, dtype=dtype, seed=seed)
    if name == "hopfield":
        chosen = {key: getattr(arguments, key) for key in ("activation", "gain")}
        chosen = {key: value for key, value in chosen.items() if value is not None}
        return systems.Hopfield(sizes, dtype=dtype, seed=seed, **chosen)
    function = arguments.activation or "tanh"
    if function not in _FUNCTIONS:
        raise ConfigError(
            f"--activation of a stack is one of {', '.join(_FUNCTIONS)}; got {function}"
        )
    chain: list[layers.Layer] = []
    for n_in, n_out in itertools.pairwise(sizes):
        chain += [layers.Linear(n_in, n_out), _FUNCTIONS[function]()]
    noise, mismatch = arguments.noise or 0.0, arguments.mismatch or 0.0
    return systems.Stack(chain[:-1], mismatch=mismatch, noise=noise, dtype=dtype, seed=seed)


def _system_of_file(
    arguments: argparse.Namespace, name: str, x: FloatArray, y: npt.NDArray[np.int64]
) -> systems.System:
    """Return the system of a configuration in a file, checked against the data."""
    path = Path(name)
    if path.suffix != ".json" or not path.is_file():
        raise ConfigError(
            f"--system needs one of {', '.join(SYSTEMS)}, or a .json file that is there, got {name}"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"--system {name} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"--system {name} holds no system.to_config(), but {config!r:.40}")
    try:
        system = systems.from_config(config)
    except PnnError as error:
        raise type(error)(f"--system {name}: {error}") from None
    check_fits(system, x, y, f"--system {name}", arguments.data)
    return system


def check_fits(
    system: systems.System, x: FloatArray, y: npt.NDArray[np.int64], what: str, name: str
) -> None:
    """Refuse data that a system has no inputs or outputs for."""
    if system.n_in != x.shape[1] or system.n_out <= y.max():
        raise ConfigError(
            f"{what} is a system with {system.n_in} inputs and {system.n_out} outputs, and {name} "
            f"has {x.shape[1]} inputs and {int(y.max()) + 1} classes; give the --data it is for"
        )


def audited(system: systems.System | None = None) -> list[str]:
    """Return the methods that train a system by more than its outputs: a Hopfield network's."""
    system = systems.Hopfield([1, 1], seed=0) if system is None else system
    only_outputs = {name for name, needs in _core.methods() if needs == "outputs"}
    train = {name for name in system.methods() if name not in only_outputs}
    return [name for name, kind in METHODS.items() if kind.__name__ in train]


def describe(method: methods.Method) -> str:
    """Return the method with its own settings, in words."""
    name = name_of(type(method))
    settings = {
        f.name: getattr(method, f.name)
        for f in dataclasses.fields(method)
        if f.name not in ("loss", "settling")
    }
    if settings.get("variant") != "one-sided":
        settings.pop("sign", None)
    if settings.get("variant") != "holomorphic":
        settings.pop("points", None)
    # None is what suits the system.
    text = ", ".join(
        f"{key} {'by default' if value is None else value}" for key, value in settings.items()
    )
    return f"{name} ({text})" if text else name


def writable(path: Path | None, option: str) -> None:
    """Refuse a file that could not be written at the end, before the work begins."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise ConfigError(f"{option} needs a file, got the folder {path}")
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"{option} needs a file, got {path}, which is a pipe, a socket or a device"
        )
    if not folder.is_dir():
        raise ConfigError(f"{option} {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{option} {path}: cannot write into {folder}")


def linear_control(
    x: FloatArray, y: npt.NDArray[np.int64], x_test: FloatArray, y_test: npt.NDArray[np.int64]
) -> float:
    """Return the test accuracy of a linear readout.

    Ridge regression of one-hot labels, in closed form.
    """
    width, classes = x.shape[1], int(y.max()) + 1
    targets = np.eye(classes, dtype=x.dtype)[y]
    gram, cross = np.zeros((width, width)), np.zeros((width, classes))
    for start in range(
        0, len(x), 4096
    ):  # in blocks: products in the precision of the data, sums in float64
        block = x[start : start + 4096]
        gram += block.T @ block
        cross += block.T @ targets[start : start + 4096]
    mean, base = x.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    gram -= len(x) * np.outer(mean, mean)
    gram[np.diag_indices(width)] += 1e-3 * len(x)
    weights = np.linalg.solve(gram, cross - len(x) * np.outer(mean, base))
    outputs = x_test @ weights + (base - mean @ weights)
    return score(outputs, y_test)


def plain(value: Any) -> Any:
    """Return what strict JSON can hold: no NumPy types, null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def emit(arguments: argparse.Namespace, report: dict[str, Any], text: str) -> None:
    """Print the report as JSON or as text."""
    print(json.dumps(plain(report), allow_nan=False) if arguments.json else text)
