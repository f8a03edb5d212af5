"""What training measured, epoch by epoch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import number
from pnncore._display import html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Wall time differs between equal runs: checkpoints leave it out, so that equal runs give equal
# files.
_NOT_SAVED = ("seconds",)


class History(Mapping[str, npt.NDArray[np.float64]]):
    """A mapping from quantities to arrays, one element per finished epoch.

    ``pandas.DataFrame(dict(history))`` is a table of it.

    Quantities: ``epoch`` (1 is the first), ``loss`` and ``accuracy`` (mean over the epoch, at the
    free state, before each step; accuracy only for labels; the loss over samples that did not
    diverge), ``validation`` (`System.score` after the epoch; NaN without validation data),
    ``free_sweeps`` and ``other_sweeps`` (mean per sample; the second sums over all phases but the
    free one), ``unconverged``, ``diverged`` and ``unbounded`` (numbers of rows), ``passes`` (how
    often the physics was run on a batch: once per phase, or candidate), ``measured`` (samples that
    it was run on, all passes together), ``writes`` (elements of parameters that were written) and
    ``operations`` (multiply-adds of the digital computer beside it), ``pulses`` (that came to
    cells), ``reversed`` (samples whose errors were sent back through the physics) and ``reads``
    (numbers that were read within the physics, such as by monitors of light): what the epoch would
    cost on hardware, ``seconds`` (wall time of the epoch's training; NaN for epochs
    read from a file).

    Attributes
    ----------
    epochs
        How many epochs are finished.
    rows
        The quantities, epoch by epoch.
    diverged
        Where the last fit stopped because its next step diverged, or because the validation after
        an epoch said that its steps had: the epochs and the steps of the epoch under way that were
        done; None if it did not.
    """

    KEYS = (
        "epoch",
        "loss",
        "accuracy",
        "validation",
        "free_sweeps",
        "other_sweeps",
        "unconverged",
        "diverged",
        "unbounded",
        "passes",
        "measured",
        "writes",
        "operations",
        "pulses",
        "reversed",
        "reads",
        "seconds",
    )

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.diverged: tuple[int, int] | None = None

    @classmethod
    def row(cls, **values: float) -> dict[str, float]:
        """Return the row of an epoch."""
        return {key: float(values[key]) for key in cls.KEYS}

    def append(self, **values: float) -> None:
        """Add the row of a finished epoch."""
        self.rows.append(self.row(**values))

    def __getitem__(self, key: str) -> npt.NDArray[np.float64]:
        """Return a quantity as an array over epochs; `KeyError` lists the quantities."""
        if key not in self.KEYS:
            raise KeyError(f"{key!r}; a history has {', '.join(self.KEYS)}")
        return np.array([row[key] for row in self.rows], dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self.KEYS)

    def __len__(self) -> int:
        return len(self.KEYS)

    # A history is equal to itself alone: arrays have no one answer.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.rows)

    def energy(
        self, *, power: float, settling_time: float, write_energy: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return the energy (epochs,) that training would have taken on hardware, in joules.

        Parameters
        ----------
        power
            The power in watts that the system dissipates while it settles: the mean of
            ``net.power(x)``.
        settling_time
            The time in seconds that a settling takes.
        write_energy
            The energy in joules to write one element of a parameter.
        """
        joules = number(power, "power") * number(settling_time, "settling_time")
        return self["measured"] * joules + self["writes"] * number(write_energy, "write_energy")

    def to_dict(self) -> dict[str, list[float]]:
        """Return all quantities as lists."""
        return {key: self[key].tolist() for key in self.KEYS}

    def to_tensors(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the quantities that a checkpoint keeps."""
        return {key: self[key] for key in self.KEYS if key not in _NOT_SAVED}

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]]) -> "History":
        """Return the history of `to_tensors`."""
        history = cls()
        for i in range(len(tensors["epoch"])):
            row = {key: float(tensors[key][i]) for key in cls.KEYS if key not in _NOT_SAVED}
            history.rows.append(cls.row(**row, **dict.fromkeys(_NOT_SAVED, float("nan"))))
        return history

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw loss, accuracy and sweeps over epochs.

        Needs matplotlib. Written to `path` where one is given.
        """
        from pnncore import plot

        return plot.history(self, path)

    def _repr_html_(self) -> str:
        keys = [key for key in self.KEYS if (np.nan_to_num(self[key]) != 0).any()]
        last = range(max(self.epochs - 10, 0), self.epochs)
        rows = [[f"{self[key][i]:.4g}" for key in keys] for i in last]
        return html_table([keys, *rows]) if rows else "History(no epochs)"

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        last = self.rows[-1]
        shown = {
            key: last[key] for key in ("loss", "accuracy", "validation") if np.isfinite(last[key])
        }
        text = ", ".join(f"{key} {value:.4g}" for key, value in shown.items())
        return f"History({self.epochs} epochs; last: {text})"
