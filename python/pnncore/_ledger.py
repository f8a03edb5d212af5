"""Ledgers of what training takes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pnncore._display import html_table, text_table

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ledger:
    """What `pnncore.costs.estimate` and `estimate_light` return: arrays over epochs.

    Attributes
    ----------
    counts
        Of crossbars: ``reads`` (of arrays, or of a line that is transferred), ``cells`` (that were
        read), ``inputs`` and ``outputs`` (conversions), ``pulses`` and ``operations`` (digital
        multiply-adds). Of light: ``photons``, ``modulations``, ``detections``, ``heaters`` and
        ``operations``.
    energy
        In joules, by the same names, and ``conversions``.
    seconds
        The time of reads and of trains of full length, or of samples, one after the other.
    """

    counts: dict[str, Array]
    energy: dict[str, Array]
    seconds: Array

    @property
    def total(self) -> float:
        """The energy of all epochs, in joules."""
        return float(sum(values.sum() for values in self.energy.values()))

    def _rows(self) -> list[list[str]]:
        rows = [["", "count", "energy, J"]]
        for name, count in self.counts.items():
            energy = f"{self.energy[name].sum():.3g}" if name in self.energy else ""
            rows.append([name, f"{count.sum():.3g}", energy])
        return [*rows, [f"together, in {self.seconds.sum():.3g} s", "", f"{self.total:.3g}"]]

    def __repr__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())
