"""What meshes of interferometers have in common: their hardware, and how they are programmed."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._config import ByValue
from pnncore._convert import as_numbers, number
from pnncore.errors import ConfigError
from pnncore.layers._base import Layer
from pnncore.layers._detect import Detect
from pnncore.layers._programmed import ProgrammedLayer, alone, as_params

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("theta", "phi", "gamma")
ComplexArray = npt.NDArray[np.complex128]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Mesh(Layer, listed=False):
    """Base of meshes of Mach-Zehnder interferometers.

    Parameters
    ----------
    loss
        What each coupler of the hardware loses, in decibels of power; the twin loses nothing.
    coupler_error
        A number: the standard deviation, in radians, of what the angle of each coupler of the
        hardware is off from π/4. An array (interferometers, 2): what the angles of the two couplers
        of each are off by, as it was measured; the twin then knows it, and `program` makes up for
        it.
    phase_error
        The standard deviation, in radians, of what every phase of the hardware is off by.
    crosstalk
        The share of a heater's phase that each neighbour in its column gets, in the hardware.
        Phases are heated from 0 to 2π.
    bits
        Settings of the hardware are rounded to 2^bits of them in a turn; None: they are not.
    half_wave_voltage
        V_π, where settings are voltages and heaters turn phases by π (V / V_π)², in volts, or in
        what units one likes; they begin away from zero, where the law is flat. None: settings are
        phases.
    drift
        How far heat moves every phase of the hardware from one step of training to the next, in
        radians: the standard deviation of a step of a random walk. The system's `memory` has how
        far it has come: ``theta_drift``, ``phi_drift`` and ``gamma_drift``. The twin does not
        drift.
    tap_noise
        The standard deviation of what a monitor behind a phase shifter of the hardware reads, in
        mean powers that are sent into a mode. `methods.InSituBackprop` reads them.
    """

    loss: float = 0.0
    coupler_error: Any = 0.0
    phase_error: float = 0.0
    crosstalk: float = 0.0
    bits: int | None = None
    half_wave_voltage: float | None = None
    drift: float = 0.0
    tap_noise: float = 0.0

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        given = self.coupler_error
        if not isinstance(given, list | tuple) and getattr(given, "ndim", 0) == 0:
            object.__setattr__(self, "coupler_error", number(given, "coupler_error"))
            return
        errors = as_numbers(given, "coupler_error", refusal=ConfigError)
        if errors.ndim != 2 or errors.shape[1] != 2 or len(errors) == 0:
            raise ConfigError(
                "coupler_error must be a number, or an array (interferometers, 2), got shape "
                f"{errors.shape}"
            )
        # Plain data: settings are compared, printed and saved.
        known = tuple((float(first), float(second)) for first, second in errors)
        object.__setattr__(self, "coupler_error", known)

    def _spec(self, layout: str, n_in: int, n_out: int) -> dict[str, Any]:
        known = isinstance(self.coupler_error, tuple)
        return {
            "kind": "mzi-mesh",
            "layout": layout,
            "inputs": n_in,
            "outputs": n_out,
            "loss": self.loss,
            "coupler_error": 0.0 if known else self.coupler_error,
            "coupler_errors": self.coupler_error if known else [],
            "phase_error": self.phase_error,
            "crosstalk": self.crosstalk,
            "bits": self.bits,
            "half_wave_voltage": self.half_wave_voltage,
            "drift": self.drift,
            "tap_noise": self.tap_noise,
        }

    def circuit(self) -> "Circuit":
        """Return where light goes."""
        return Circuit(*_core.mesh_circuit(self._settings()))

    def _settings(self) -> str:
        return json.dumps({name: own for name, own in self.spec().items() if name != "kind"})

    def plot(self, params: dict[str, Any], x: Any = None, axes: "Axes | None" = None) -> "Figure":
        """Draw the twin as a circuit, with its phases, and the powers of light; needs matplotlib.

        Parameters
        ----------
        params
            ``theta``, ``phi`` and ``gamma``, as a stack's `params` have them, without the number of
            the layer.
        x
            The field that goes in (inputs,); None: light in the first mode.
        axes
            Where to draw; None makes a figure.
        """
        from pnncore import _mesh_plot

        phases = as_params(params, NAMES)
        alone([self, Detect()], phases)
        return _mesh_plot.draw(self, phases, x, axes)

    def _programmed(
        self, wanted: ComplexArray, matrices: list[ComplexArray], values: list[float], scale: float
    ) -> "ProgrammedLayer":
        found = _core.program_mesh(
            self._settings(), [np.ascontiguousarray(own) for own in matrices], values
        )
        params = {name: np.asarray(own) for name, own in zip(NAMES, found, strict=True)}
        return ProgrammedLayer(self, params, self.matrix(params), wanted, scale)

    def matrix(self, params: dict[str, Any]) -> ComplexArray:
        """Return the matrix (outputs, inputs) that the twin makes of fields at these settings.

        Parameters
        ----------
        params
            ``theta``, ``phi`` and ``gamma``, as a stack's `params` have them, without the number of
            the layer.
        """
        core, arrays = alone([self, Detect()], as_params(params, NAMES))
        n_in, _ = core.takes()
        parts = _core.fields(core, arrays, np.eye(n_in, dtype=np.complex128), False, None)[0]
        real, imaginary = np.split(parts, 2, axis=1)
        return np.ascontiguousarray((real + 1j * imaginary).T)


@dataclass(frozen=True, repr=False, eq=False)
class Circuit(ByValue):
    """Where light goes in a mesh.

    Attributes
    ----------
    waveguides
        How many there are.
    inputs, outputs
        Those that light goes into, and comes out of.
    columns
        Pairs of waveguides that meet in an interferometer, column by column: parameters are in this
        order.
    """

    waveguides: int
    inputs: list[int]
    outputs: list[int]
    columns: list[list[list[int]]]
