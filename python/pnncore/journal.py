"""Journals of instruments: all that was measured, to look at, to learn from, and to answer again.

An `Instrument` with ``journal=`` writes one; `read` opens it, also while the instrument goes on.
The format is in the documentation of the Rust crate, module ``journal``.
"""

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from pnncore import _core
from pnncore._convert import FloatArray, as_path, shown
from pnncore._records import load
from pnncore.errors import ConfigError, JournalError

__all__ = ["Journal", "Salvage", "Shot", "answer", "read", "salvage"]


@dataclass(frozen=True, eq=False)
class Shot:
    """A call of an instrument, with all attempts.

    Attributes
    ----------
    number
        Shots are counted from 0.
    purpose
        ``"run"``, ``"reference"`` or ``"check"``.
    time
        When the last attempt began, in seconds since 1970.
    seconds
        How long it took; NaN without an answer.
    attempts
        How often it was tried.
    x, params
        Inputs (rows, n_in), and parameters by name.
    y
        Outputs (rows, n_out); None without an answer.
    """

    number: int
    purpose: str
    time: float
    seconds: float
    attempts: int
    x: FloatArray
    params: dict[str, FloatArray]
    y: FloatArray | None

    def __repr__(self) -> str:
        answer = "no answer" if self.y is None else f"{self.y.shape} in {1e3 * self.seconds:.3g} ms"
        return (
            f"Shot({self.number}, {self.purpose}, {self.x.shape} -> {answer}, {self.attempts} "
            "attempts)"
        )


class Journal(Sequence[Shot]):
    """A journal that is read; a sequence of `Shot` objects, which are read as they are asked for.

    Attributes
    ----------
    path
        The file.
    torn
        Where the last whole record ends, if something comes after it: a process was killed while it
        wrote. None otherwise.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = as_path(path)
        self._core, self.torn = _core.Journal.read(self.path)
        self._notes = [
            (kind, shot, attempt, load(text))
            for _, kind, shot, attempt, _, text in self._core.notes()
        ]
        if not self.runs:
            raise JournalError(
                f"{self.path} holds no run, that is, not what its instrument is; where it was "
                "salvaged, open it once "
                f"with the instrument, Instrument(..., journal={self.path!r}), which says so anew"
            )
        for kind, _, _, note in self._notes:
            _check_note(self.path, kind, note)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What processes said when they began to write.

        The instrument, its policy, the version of pnncore.
        """
        return [note for kind, _, _, note in self._notes if kind == "run-start"]

    @property
    def instrument(self) -> dict[str, Any]:
        """The instrument: n_in, n_out, batch, and names and shapes of its parameters."""
        found: dict[str, Any] = self.runs[0]["instrument"]
        return found

    @property
    def failures(self) -> list[tuple[int, int, str, str]]:
        """All failures: shot, attempt, reason, text."""
        return [
            (shot, attempt, n["reason"], n["text"])
            for kind, shot, attempt, n in self._notes
            if kind == "fail"
        ]

    @property
    def states(self) -> list[tuple[str, str]]:
        """All changes of the state that are not those of a shot: from, to."""
        return [(note["from"], note["to"]) for kind, _, _, note in self._notes if kind == "state"]

    def __len__(self) -> int:
        return len(self._core)

    @overload
    def __getitem__(self, k: int) -> Shot: ...
    @overload
    def __getitem__(self, k: slice) -> list[Shot]: ...

    def __getitem__(self, k: int | slice) -> Shot | list[Shot]:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        if not -len(self) <= k < len(self):
            raise IndexError(f"there are {len(self)} shots")
        k %= len(self)
        purpose, attempts, intent, held, result, _ = self._core.shot(k)
        time, (rows, columns, double, data) = self._core.intent(intent)
        dtype = np.float64 if double else np.float32
        x = np.frombuffer(data, dtype).reshape(rows, columns)
        params, at, theta = {}, 0, self._core.params(held)
        for name, shape in self.instrument["params"]:
            end = at + math.prod(shape) * x.itemsize
            if end > len(theta):
                raise JournalError(
                    f"{self.path}: shot {k} holds fewer parameters than the instrument has"
                )
            params[name] = np.frombuffer(theta[at:end], dtype).reshape(shape)
            at = end
        y, seconds = None, float("nan")
        if result is not None:
            nanoseconds, (rows, columns, double, data) = self._core.answer(result)
            y = np.frombuffer(data, np.float64 if double else np.float32).reshape(rows, columns)
            seconds = nanoseconds / 1e9
        return Shot(k, purpose, time / 1e9, seconds, attempts, x, params, y)

    def answered(self, upto: int | None = None) -> Iterator[Shot]:
        """Yield the shots that have answers, up to a number."""
        for k in range(len(self) if upto is None else min(upto, len(self))):
            if self._core.shot(k)[4] is not None:
                yield self[k]

    def arrays(self, upto: int | None = None) -> dict[str, FloatArray]:
        """Return all answered samples.

        That is ``x`` (samples, n_in), each parameter by its name (samples, ...), and ``y``
        (samples, n_out).

        Parameters
        ----------
        upto
            Leave out shots from this number on.
        """
        names = ["x", *(name for name, _ in self.instrument["params"]), "y"]
        found: dict[str, list[FloatArray]] = {name: [] for name in names}
        for shot in self.answered(upto):
            assert shot.y is not None
            found["x"].append(shot.x)
            found["y"].append(shot.y)
            for name, array in shot.params.items():
                found[name].append(np.broadcast_to(array, (len(shot.x), *array.shape)))
        if not found["x"]:
            raise JournalError(f"{self.path} holds no answered shot")
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write `arrays` to an ``.npz`` file, or as columns to a ``.csv`` file.

        `ConfigError` for files with another ending.
        """
        path = as_path(path)
        if path.endswith(".csv"):
            self._write_table(path)
            return
        if not path.endswith(".npz"):
            raise ConfigError(f"path must end in .npz or .csv, got {shown(path)}")
        # Not `numpy.savez`, which takes some names of arrays for its own arguments.
        import zipfile

        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
            for name, array in self.arrays().items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)

    def _write_table(self, path: str) -> None:
        """Write a row for each sample: every element of its inputs, parameters and outputs."""
        head, columns = [], []
        for name, array in self.arrays().items():
            places = [list(place) for place in np.ndindex(array.shape[1:])]
            head += [f"{name}{place}" if place else name for place in places]
            columns.append(array.reshape(len(array), -1))
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(head)
            # Python's shortest digits that give the same number again.
            table.writerows(row.tolist() for row in np.concatenate(columns, axis=1))

    def __repr__(self) -> str:
        fates = Counter(
            "answered" if self._core.shot(k)[4] is not None else "unanswered"
            for k in range(len(self))
        )
        parts = [
            f"{len(self)} shots",
            *(f"{n} {fate}" for fate, n in fates.items()),
            f"{len(self.runs)} runs",
        ]
        if self.failures:
            parts.append(f"{len(self.failures)} failures")
        if self.torn is not None:
            parts.append("torn end")
        return f"Journal({self.path!r}: {', '.join(parts)})"


# What notes of a kind say, and of which type that is.
_SAID: dict[str, dict[str, type]] = {
    "run-start": {"instrument": dict},
    "fail": {"reason": str, "text": str},
    "state": {"from": str, "to": str},
}


def _check_note(path: str, kind: str, note: dict[str, Any]) -> None:
    """Refuse a note that pnncore has not written."""
    wrong = [name for name, of in _SAID.get(kind, {}).items() if not isinstance(note.get(name), of)]
    if not wrong and kind == "run-start":
        own = note["instrument"]
        sizes = [own.get("n_in"), own.get("n_out")]
        params = own.get("params")
        if isinstance(params, list) and all(
            isinstance(p, list) and list(map(type, p)) == [str, list] for p in params
        ):
            sizes += [size for _, shape in params for size in shape]
            names = [name for name, _ in params]
            bad = (
                name
                for name in names
                if name in ("", "x", "y") or "\0" in name or names.count(name) > 1
            )
            wrong += [f"the name {name!r}" for name in bad]
        else:
            wrong.append("params")
        if not isinstance(own.get("batch"), bool):
            wrong.append("batch")
        # A size of 0 belongs to a parameter without elements.
        wrong += [
            f"a size of {n!r}"
            for n in sizes
            if isinstance(n, bool) or not isinstance(n, int) or n < 0
        ]
    if wrong:
        raise JournalError(
            f"{path}: a record {kind!r} is not what pnncore writes: {', '.join(wrong)}"
        )


def read(path: str | os.PathLike[str]) -> Journal:
    """Open a journal for reading; its instrument may go on writing.

    Raises
    ------
    JournalError
        If the file is corrupt (`salvage` helps), no journal, or holds no run.
    OSError
        If it cannot be read.
    """
    return Journal(path)


@dataclass(frozen=True)
class Salvage:
    """What `salvage` saved.

    Answered shots, records that say nothing any more, and gaps as (first byte, end).
    """

    shots: int
    dropped: int
    gaps: list[tuple[int, int]]


def salvage(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> Salvage:
    """Copy all shots of a damaged journal that are whole, with their answers, to a new one.

    Raises
    ------
    JournalError
        If there is a file at `to` already.
    """
    return Salvage(*_core.salvage(as_path(path), as_path(to, "to")))


def answer(path: str | os.PathLike[str]) -> Callable[..., FloatArray]:
    """Return a callable that answers as a journal says: its instrument, without the hardware.

    Give it to an `Instrument` in the place of the original callable. It answers to inputs and
    parameters that the journal holds, whatever their order; of several answers to the same, each is
    given in turn, and then the first again.

    Raises
    ------
    ConfigError
        From the callable, for inputs that were never measured.
    """
    journal = read(path)
    known: dict[bytes, list[FloatArray]] = {}
    for shot in journal.answered():
        assert shot.y is not None
        known.setdefault(_key(shot.x, shot.params), []).append(shot.y)
    turns: Counter[bytes] = Counter()
    batch = journal.instrument["batch"]

    def recorded(x: FloatArray, params: dict[str, FloatArray] | None = None) -> FloatArray:
        key = _key(x if batch else x[None], params or {})
        if key not in known:
            raise ConfigError(f"{journal.path} holds no shot with these inputs and parameters")
        found = known[key][turns[key] % len(known[key])]
        turns[key] += 1
        return found if batch else found[0]

    return recorded


def _key(x: FloatArray, params: dict[str, FloatArray]) -> bytes:
    return b"".join(
        [str(x.dtype).encode(), x.tobytes(), *(array.tobytes() for array in params.values())]
    )
