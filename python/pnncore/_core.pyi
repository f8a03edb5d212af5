"""The compiled core of pnncore. Not a public interface: see the package `pnncore`."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]

__all__ = [
    "Journal",
    "Pass",
    "Phases",
    "System",
    "__version__",
    "after_fork",
    "after_fork_in_child",
    "before_fork",
    "check_device",
    "check_method",
    "check_optimizer",
    "check_pair",
    "check_tile",
    "check_wires",
    "clip",
    "close",
    "currents",
    "fibre_field",
    "fields",
    "finish_epoch",
    "goodness_direction",
    "gradient",
    "info",
    "initialise_memory",
    "load",
    "loss",
    "measure",
    "mesh_circuit",
    "methods",
    "no_progress",
    "note_main",
    "padded_shape",
    "permutation",
    "predict",
    "program_mesh",
    "program_rings",
    "pulse_response",
    "run_pass",
    "run_phases",
    "salvage",
    "save",
    "send_back",
    "settle",
    "solve_wires",
    "train",
    "vjp",
    "waveguide_field",
]

__version__: str

_Matrix = tuple[int, int, bool, bytes]

@final
class Journal:
    """A journal, open for appending or reading."""

    @staticmethod
    def append_to(path: str, durability: str) -> tuple[Journal, str | None]: ...
    @staticmethod
    def read(path: str) -> tuple[Journal, int | None]: ...
    def __len__(self) -> int: ...
    def answer(self, sequence: int) -> tuple[int, _Matrix]: ...
    def check_mark(self, sequence: int, hash: str) -> None: ...
    def close(self, flush: bool) -> None: ...
    def fail(self, shot: int, attempt: int, duration: int, text: str) -> None: ...
    def intend(
        self,
        again: bool,
        purpose: str,
        time: int,
        rows: int,
        columns: int,
        double: bool,
        x: bytes,
        params: bytes,
    ) -> tuple[int, int]: ...
    def intent(self, sequence: int) -> tuple[int, _Matrix]: ...
    def mark(self) -> tuple[int, str]: ...
    def note(self, kind: str, text: str) -> None: ...
    def notes(self) -> list[tuple[int, str, int, int, int, str]]: ...
    def params(self, sequence: int) -> bytes: ...
    def records(self) -> int: ...
    def result(
        self,
        shot: int,
        attempt: int,
        duration: int,
        rows: int,
        columns: int,
        double: bool,
        y: bytes,
    ) -> None: ...
    def shot(self, k: int) -> tuple[str, int, int, int, int | None, bool]: ...
    def spent(self) -> tuple[int, int]: ...

@final
class System:
    """The physics of a system, without parameters."""

    @staticmethod
    def build(name: str, spec: str) -> System: ...
    @staticmethod
    def stack(spec: str, foreign: Sequence[Any]) -> System: ...
    @staticmethod
    def outline_stack(spec: str) -> tuple[list[tuple[str, list[int]]], int]: ...
    @staticmethod
    def user(object: Any) -> System: ...
    def check(
        self, params: Sequence[npt.NDArray[np.float64]], seed: int
    ) -> list[tuple[str, bool, str]]: ...
    def group_ends(self) -> list[int]: ...
    def initialise(self, params: Sequence[_Array], seed: int, gain: float) -> None: ...
    def memory(self) -> list[tuple[str, list[int]]]: ...
    def takes(self) -> tuple[int, bool]: ...
    def layers(self) -> list[int]: ...
    def methods(self) -> list[str]: ...
    def operations(self) -> int: ...
    def specs(self) -> list[tuple[str, list[int]]]: ...
    def widths(self) -> list[int]: ...

@final
class Pass:
    """A pass of a batch through a system."""

    def outputs(
        self, system: System, like: _Array
    ) -> tuple[_Array, npt.NDArray[np.uint8], npt.NDArray[np.uint32]]: ...
    def signals(self, system: System, like: _Array) -> list[Any]: ...

@final
class Phases:
    """Phases of a batch on a system that settles."""

    def outputs(
        self, system: System, like: _Array
    ) -> tuple[list[_Array], npt.NDArray[np.uint8], npt.NDArray[np.uint32]]: ...
    def read(
        self,
        system: System,
        params: Sequence[_Array],
        x: _Array,
        y: _Array,
        weights: Sequence[float],
        threads: int | None,
    ) -> list[_Array]: ...
    def states(self, p: int, like: _Array) -> list[_Array]: ...

def check_device(device: str) -> None: ...
def check_method(method: str) -> None: ...
def check_optimizer(optimizer: str) -> None: ...
def check_tile(tile: str) -> None: ...
def check_wires(wires: str) -> None: ...
def clip(system: System, params: Sequence[_Array]) -> None: ...
def check_pair(
    system: System, dtype: str, method: Any, optimizer: str
) -> list[tuple[str, list[int]]]: ...
def currents(
    system: System, params: Sequence[_Array], x: _Array, threads: int | None
) -> npt.NDArray[np.float64]: ...
def finish_epoch(
    record: dict[str, Any],
    changes: dict[str, Any],
    rows: list[dict[str, float]],
    row: dict[str, float],
) -> None: ...
def after_fork() -> None: ...
def after_fork_in_child() -> None: ...
def before_fork() -> None: ...
def close() -> None: ...
def note_main() -> None: ...
def gradient(
    system: System,
    params: Sequence[_Array],
    x: _Array,
    y: _Array,
    method: Any,
    seed: int,
    step: int,
    threads: int | None,
) -> tuple[list[npt.NDArray[np.float64]], dict[str, Any]]: ...
def info() -> dict[str, Any]: ...
def initialise_memory(system: System, method: Any, memory: Sequence[_Array], seed: int) -> None: ...
def load(path: str) -> tuple[str, dict[str, _Array]]: ...
def loss(outputs: _Array, y: _Array, loss: str) -> tuple[npt.NDArray[np.float64], _Array]: ...
def measure(
    system: System, params: Sequence[_Array], x: _Array, repeat: int, threads: int | None
) -> list[Any]: ...
def fields(
    system: System, params: Sequence[_Array], x: _Array, hardware: bool, threads: int | None
) -> list[Any]: ...
def mesh_circuit(mesh: str) -> tuple[int, list[int], list[int], list[list[list[int]]]]: ...
def program_mesh(
    mesh: str, matrices: Sequence[npt.NDArray[np.complex128]], values: Sequence[float]
) -> tuple[list[float], list[float], list[float]]: ...
def goodness_direction(map: int, width: int) -> npt.NDArray[np.float64]: ...
def fibre_field(
    fibre: str, phases: list[float], x: npt.NDArray[np.complex128]
) -> npt.NDArray[np.complex128]: ...
def waveguide_field(
    waveguide: str, logits: list[float], x: npt.NDArray[np.complex128]
) -> npt.NDArray[np.complex128]: ...
def padded_shape(diffraction: str) -> list[int]: ...
def program_rings(bank: str, weights: Sequence[float]) -> list[float]: ...
def methods() -> list[tuple[str, str]]: ...
def no_progress() -> dict[str, float]: ...
def permutation(n: int, seed: int, epoch: int) -> npt.NDArray[np.uint64]: ...
def pulse_response(
    tile: str, start: npt.NDArray[np.float64], pulses: npt.NDArray[np.int8], seed: int
) -> npt.NDArray[np.float64]: ...
def predict(
    system: System,
    params: Sequence[_Array],
    x: _Array,
    settling: str,
    repeat: int,
    threads: int | None,
) -> tuple[_Array, npt.NDArray[np.uint8]]: ...
def run_pass(
    system: System,
    params: Sequence[_Array],
    x: _Array,
    injected: Sequence[_Array | None],
    settling: str,
    seed: int,
    at: tuple[int, int],
    threads: int | None,
) -> Pass: ...
def run_phases(
    system: System,
    params: Sequence[_Array],
    x: _Array,
    y: _Array,
    boundaries: Sequence[tuple[str, float]],
    start: Sequence[_Array] | None,
    loss: str,
    settling: str,
    seed: int,
    at: tuple[int, int],
    threads: int | None,
) -> Phases: ...
def salvage(path: str, to: str) -> tuple[int, int, list[tuple[int, int]]]: ...
def save(path: str, metadata: str, tensors: dict[str, _Array]) -> None: ...
def send_back(
    run: Pass,
    system: System,
    params: Sequence[_Array],
    errors: _Array,
    physics: bool,
    feedback: Sequence[_Array],
    at: tuple[int, int] | None,
    threads: int | None,
) -> tuple[_Array, list[_Array]]: ...
def settle(
    system: System,
    params: Sequence[_Array],
    x: _Array,
    y: _Array | None,
    beta: float | None,
    loss: str,
    settling: str,
    threads: int | None,
) -> dict[str, Any]: ...
def train(
    system: System,
    params: Sequence[_Array],
    memory: Sequence[_Array],
    x: _Array,
    y: _Array,
    order: npt.NDArray[np.uint64],
    *,
    method: Any,
    optimizer: str,
    rates: Sequence[float],
    batch_size: int,
    record: dict[str, Any],
    before: int,
    steps: int,
    seconds: float,
    first_epoch: float,
    seed: int,
    threads: int | None,
) -> str | None: ...
def vjp(
    system: System, params: Sequence[_Array], x: _Array, dy: _Array, threads: int | None
) -> tuple[_Array, list[_Array]]: ...
def solve_wires(
    conductances: npt.NDArray[np.float64],
    voltages: npt.NDArray[np.float64],
    resistances: tuple[float, float, float, float],
    turned: bool,
    tolerance: float,
    threads: int | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], int]: ...
