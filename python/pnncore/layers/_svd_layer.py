"""Meshes of Mach-Zehnder interferometers that make any matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pnncore._convert import as_complex
from pnncore.layers._mesh import Mesh
from pnncore.layers._programmed import ProgrammedLayer, check_size


@dataclass(frozen=True, repr=False, eq=False)
class SVDLayer(Mesh):
    """Two meshes with attenuators between them: any map W = U Σ V^H of fields that adds no light.

    A rectangle of interferometers makes V^H, an interferometer in each mode, whose second
    waveguide begins dark and ends nowhere, attenuates it by sin(θ/2), and another rectangle makes
    U. Parameters are those of `MZIMesh`: ``theta`` and ``phi`` of all
    n_in (n_in - 1) / 2 + min(n_in, n_out) + n_out (n_out - 1) / 2 interferometers, and ``gamma``
    (n_out).

    Parameters
    ----------
    n_in, n_out
        The numbers of modes that go in and come out.

    References
    ----------
    Miller, Photon. Res. 1, 1 (2013). Shen et al., Nat. Photon. 11, 441 (2017).
    """

    n_in: int
    n_out: int

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        return self._spec("svd", self.n_in, self.n_out)

    def program(self, matrix: Any) -> ProgrammedLayer:
        """Return the settings that make a matrix, divided by its largest singular value.

        Parameters
        ----------
        matrix
            Any matrix (n_out, n_in) other than zero: outputs are its product with inputs, over
            `ProgrammedLayer.scale`.
        """
        wanted = as_complex(matrix, "matrix", (self.n_out, self.n_in))
        largest = check_size(wanted)
        u, values, v = np.linalg.svd(wanted / largest)
        relative = [float(value) for value in values / values[0]]
        return self._programmed(wanted, [u, v], relative, float(values[0]) * largest)
