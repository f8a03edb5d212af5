"""Meshes of Mach-Zehnder interferometers that make unitary matrices."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pnncore._convert import as_complex
from pnncore.errors import DataError
from pnncore.layers._mesh import Mesh
from pnncore.layers._programmed import ProgrammedLayer


@dataclass(frozen=True, repr=False, eq=False)
class MZIMesh(Mesh):
    """A mesh of Mach-Zehnder interferometers: any unitary map of the fields of n modes.

    An interferometer mixes two neighbouring modes by T = B diag(e^{iθ}, 1) B diag(e^{iφ}, 1), with
    the coupler B = [[1, i], [i, 1]] / √2. Light meets columns of them, and then a phase γ in each
    mode. Parameters are the phases in radians, ``theta`` and ``phi`` of the interferometers, in the
    order in which light meets them, column by column and each from above, and ``gamma`` (n), drawn
    uniform on the circle; or the voltages of heaters that make them.

    Fields go in and out: give complex inputs, or put `Encode` before a chain of meshes, and
    `Detect` behind. In hardware with a mismatch m, the angle π/4 of each coupler is (1 + m ξ) π/4,
    with ξ standard normal, and its loss (1 + m ξ') times what it should be.

    Parameters
    ----------
    n
        The number of modes, at least 2.
    layout
        ``"clements"``: a rectangle of n columns, n (n - 1) / 2 interferometers. ``"reck"``: a
        triangle of as many, in 2 n - 3 columns. ``"diamond"``: the triangle and its mirror image,
        (n - 1)² interferometers, n - 2 dark waveguides, and paths of more even lengths.

    References
    ----------
    Clements et al., Optica 3, 1460 (2016). Reck et al., Phys. Rev. Lett. 73, 58 (1994). Shokraneh
    et al., Opt. Express 28, 23495 (2020). Errors made up for: Bandyopadhyay et al., Optica 8, 1247
    (2021).
    """

    n: int
    layout: Literal["clements", "reck", "diamond"] = "clements"

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return self._spec(self.layout, self.n, self.n)

    def program(self, matrix: Any) -> ProgrammedLayer:
        """Return the settings that make a unitary matrix, with what they make.

        Known errors of couplers are made up for, where the couplers allow the power of every
        interferometer to be split as it should; `ProgrammedLayer.fidelity` tells how well.

        Parameters
        ----------
        matrix
            A unitary matrix (n, n): outputs are its product with inputs.

        Raises
        ------
        DataError
            Where it is not unitary to 1e-6.
        """
        wanted = as_complex(matrix, "matrix", (self.n, self.n))
        off = float(np.abs(wanted.conj().T @ wanted - np.eye(self.n)).max())
        if off > 1e-6:
            raise DataError(
                f"matrix must be unitary, but an element of its product with its conjugate "
                f"transpose is off by {off:.2g}: SVDLayer makes any matrix, and of the factors of "
                "numpy.linalg.svd the product of the first and the last is the nearest unitary one"
            )
        return self._programmed(wanted, [wanted], [], 1.0)
