"""``pnncore info``: what this installation can do."""

import argparse
import importlib.metadata
import platform
from typing import Any

import numpy as np

from pnncore import _core, data
from pnncore.cli._common import Commands, add_command, emit
from pnncore.data import _sets
from pnncore.errors import DataError

_DESCRIPTION = """\
Show what this installation can do: its version, the SIMD instructions in use, the number of
threads, the training methods with what they need from a system, the data sets that were found, and
the optional packages.

example:
  pnncore info
  PNNCORE_DATA=~/data pnncore info --json
"""
_OPTIONAL = {
    "matplotlib": "pictures",
    "scipy": "cells fitted to measurements",
    "safetensors": "checkpoints in other programs",
    "scikit-learn": "Classifier and Regressor",
}


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, "info", "what this installation can do", _DESCRIPTION, run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    core: dict[str, Any] = dict(_core.info())
    found = _data_sets()
    packages = {name: _version(name) for name in _OPTIONAL}
    report = {
        "version": core["version"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "simd": core["simd"],
        "simd_available": core["simd_available"],
        "threads": core["threads"],
        "methods": [{"name": name, "needs": needs} for name, needs in core["methods"]],
        "data": found,
        "packages": packages,
    }
    width = max(len(name) for name, _ in core["methods"])
    lines = [
        f"pnncore {core['version']}, Python {report['python']}, NumPy {np.__version__}, "
        f"{report['platform']}",
        f"SIMD {core['simd']} (of {', '.join(core['simd_available'])}); {core['threads']} threads",
        "",
        "methods, and what they need",
        *(f"  {name:{width}}  {needs}" for name, needs in core["methods"]),
        "",
        "data sets",
        *(f"  {name:14} {folder or 'not found'}" for name, folder in found.items()),
    ]
    if None in found.values():
        lines.append(
            "  (looked in PNNCORE_DATA and the cache; `pnncore train --data mnist --download` "
            "fetches MNIST)"
        )
    lines += ["", "optional packages"]
    lines += [
        f"  {name:14} {packages[name] or 'not installed':14} {use}"
        for name, use in _OPTIONAL.items()
    ]
    emit(arguments, report, "\n".join(lines))
    return 0


def _data_sets() -> dict[str, str | None]:
    """Return where each data set lies; None for what is not there, or is damaged."""
    found: dict[str, str | None] = {"digits": "in the package", "iris": "in the package"}
    idx = {
        "mnist": (_sets._MNIST, data.mnist),
        "fashion-mnist": (_sets._FASHION_MNIST, data.fashion_mnist),
    }
    for name, (spec, load) in idx.items():
        names = [_sets._names_of(file) for file in spec.files]
        files, _ = _sets.search(None, (spec.folder, *spec.folders), names)
        found[name] = None
        if files is not None:
            try:
                load()  # tells sets with equal file names apart
                found[name] = str(files[0].parent)
            except DataError as error:
                found[name] = None if "is not found" in str(error) else f"damaged: {error}"
    single = {
        "vowels": ("vowel", "pat_vowels.npz"),
        "acoustic": ("acoustic", "acoustic.npz"),
        "optical digits": ("optdigits", "optdigits.npz"),
    }
    for name, (folder, file) in single.items():
        files, _ = _sets.search(None, (folder,), [(file,)])
        found[name] = str(files[0].parent) if files is not None else None
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
