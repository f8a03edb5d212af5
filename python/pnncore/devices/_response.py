"""Cells by themselves: what single pulses do."""

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._convert import as_list, as_numbers, integer
from pnncore.devices._trains import PulseTrains
from pnncore.errors import ShapeError

if TYPE_CHECKING:
    from pnncore.devices._cells import Cells


class PulseResponse(ABC):
    """Base of what pulses move."""

    @abstractmethod
    def parts(self) -> "tuple[Cells, dict[str, Any]]":
        """Return the cells, and how many of them a weight is made of, as the core reads it."""

    def tile(self, trains: PulseTrains, algorithm: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what a matrix of weights is stored in, as the core reads it."""
        cells, unit = self.parts()
        pulses = {"algorithm": "direct"} if algorithm is None else algorithm
        return {
            "device": cells.spec(),
            "unit": unit,
            "trains": trains.spec(),
            "algorithm": pulses,
        }

    def pulse(self, w: npt.ArrayLike, n: Any, *, seed: int = 0) -> npt.NDArray[np.float64]:
        """Send single pulses to cells, and return where they are after each.

        Every cell has constants of its own, drawn with `seed`; those of cell k are the same however
        many there are.

        Parameters
        ----------
        w
            The states at the start: a number, or one for each cell (cells,). They are brought into
            the range of the cells.
        n
            How many pulses: up, or down where negative; or a list of trains that come one after the
            other, such as ``[100, -100]``.
        seed
            What cells and noise are drawn with.

        Returns
        -------
        numpy.ndarray
            The states (pulses + 1, cells); first those at the start.

        Examples
        --------
        >>> from pnncore.devices import SoftBounds
        >>> SoftBounds(step=0.1, upper=1.0, lower=-1.0).without_spread().pulse(0.0, 3)[:, 0]
        array([0.   , 0.1  , 0.19 , 0.271])
        """
        start = np.atleast_1d(as_numbers(w, "w", np.float64))
        if start.ndim != 1 or not start.size:
            raise ShapeError(f"w must be a number, or one for each cell, got {start.shape}")
        trains = as_list(n, "n", "a number of pulses, or a list") if np.ndim(n) else [n]
        counts = [
            integer(one, "n", -(10**7), 10**7, "a whole number of at most 10 000 000 pulses")
            for one in trains
        ]
        signs = [np.full(abs(count), np.sign(count), dtype=np.int8) for count in counts]
        pulses = np.concatenate(signs) if signs else np.zeros(0, dtype=np.int8)
        seed = integer(seed, "seed", 0, 2**64, "a whole number from 0 on")
        return _core.pulse_response(json.dumps(self.tile(PulseTrains())), start, pulses, seed)
