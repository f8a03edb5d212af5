"""Stacks of layers."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pnncore import _core, layers
from pnncore._convert import (
    FloatArray,
    Seed,
    as_dtype,
    as_inputs,
    as_list,
    as_repeat,
    as_seed,
    as_threads,
    flag,
    made,
    number,
    one_of,
    shown,
)
from pnncore.errors import CapabilityError, ConfigError, ShapeError
from pnncore.systems._base import Outline, System, with_arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pnncore.instruments._driver import Driver
    from pnncore.systems._instrument import Instrument


class Stack(System):
    """A chain of layers that signals pass through: digital maps, and physics.

    Parameters
    ----------
    layers
        `pnncore.layers` objects, and `pnncore.systems.Instrument` objects, the first one first;
        outputs of one are inputs of the next.
    mismatch
        By how much, relatively, the constants of the hardware are off from those of the twins, for
        layers that do not say so themselves.
    noise
        The standard deviation of what each measurement adds, for layers that do not say so
        themselves.
    dtype
        ``"float32"``, or ``"float64"`` for reference runs.
    seed
        Of initial parameters, disordered media, mismatches and noise; None draws one, which `seed`
        then tells.
    numbered
        Whether the names of parameters end with the number of their layer; False for a single
        layer.

    Attributes
    ----------
    params
        Parameters by name and number of the layer: ``W1``, ``b1``, ``W3``, ...: NumPy arrays,
        writable in place.

    Examples
    --------
    >>> from pnncore.layers import Linear, Tanh
    >>> net = Stack([Linear(64, 16), Tanh(), Linear(16, 10)], mismatch=0.1, seed=0)
    >>> list(net.params)
    ['W1', 'b1', 'W3', 'b3']
    """

    def __init__(
        self,
        layers: "Sequence[layers.Layer | Instrument]",
        *,
        mismatch: float = 0.0,
        noise: float = 0.0,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        numbered: bool = True,
    ) -> None:
        self.layers = _checked(layers)
        self.mismatch = number(mismatch, "mismatch")
        self.noise = number(noise, "noise")
        self.seed = as_seed(seed)
        self.numbered = flag(numbered, "numbered")
        called: list[Any] = [getattr(layer, "called", None) for layer in self.layers]
        if not self.numbered and len(self.layers) > 1:
            raise ConfigError(
                "numbered=False is for stacks of one layer: names of parameters would coincide"
            )
        _check_planes(self.layers)
        resolved = as_dtype(dtype)
        spec = _spec(self.layers, self.mismatch, self.noise, self.seed, self.numbered)
        if any(one is not None for one in called):
            core = _core.System.stack(json.dumps(spec), called)
        else:
            core = _core.System.build("Stack", json.dumps(spec))
        super().__init__(core, resolved)
        core.initialise(self.arrays(), self.seed, 1.0)
        for place, layer in enumerate(self.layers, start=1):
            for name, values in getattr(layer, "initial", {}).items():
                self.params[self.parameter(name, place)][...] = values

    def parameter(self, name: str, place: int) -> str:
        """Return the name in `params` of a layer's parameter, such as ``"W"`` of layer 1."""
        return f"{name}{place}" if self.numbered else name

    def in_full_precision(self) -> System:
        """See `System.in_full_precision`."""
        whole = [_in_full_precision(layer) for layer in self.layers]
        if all(one is layer for one, layer in zip(whole, self.layers, strict=True)):
            return self
        system = Stack(
            whole,
            mismatch=self.mismatch,
            noise=self.noise,
            dtype=self.dtype,
            seed=self.seed,
            numbered=self.numbered,
        )
        return with_arrays(system, self.params, self.memory)

    def measure(self, x: Any, *, repeat: int = 0, threads: int | None = None) -> list[Any]:
        """Return what is measured after every layer.

        Arrays (samples, outputs of the layer), as `predict` measures.

        After a layer that gives a field there is None: nothing measures it.
        """
        x = self.as_rows(x)
        with self.lock:
            return _core.measure(self.core, self.lent(), x, as_repeat(repeat), as_threads(threads))

    def plot_planes(self, x: Any) -> "Figure":
        """Draw the field of a sample in the planes of `layers.Diffraction`; needs matplotlib.

        Intensities and phases, in simulation alone: before the first of them, and behind each.

        Parameters
        ----------
        x
            A sample (inputs,).

        Raises
        ------
        CapabilityError
            There are no such layers.
        """
        from pnncore import _light_plot

        sample = self.as_sample(x)
        fields = [sample, *self.fields(sample)]
        shown: list[tuple[str, npt.NDArray[Any]]] = []
        for place, layer in enumerate(self.layers):
            if isinstance(layer, layers.Diffraction):
                before, behind = fields[place], fields[place + 1]
                assert before is not None
                assert behind is not None
                if not shown:
                    shown.append((f"before layer {place + 1}", before.reshape(layer.shape)))
                shown.append((f"behind layer {place + 1}", behind.reshape(layer.shape)))
        if not shown:
            raise CapabilityError(f"{self!r} has no layers of Diffraction")
        return _light_plot.planes(shown)

    def fields(
        self,
        x: Any,
        *,
        model: Literal["hardware", "twin"] = "hardware",
        threads: int | None = None,
    ) -> "list[npt.NDArray[np.complexfloating[Any, Any]] | None]":
        """Return the field behind every layer that gives one, as a simulation alone sees it.

        Complex arrays (samples, outputs of the layer), without the stack's noise; None where
        signals are real: `measure` tells those. Detectors in front count their photons.

        Parameters
        ----------
        x
            Inputs (samples, n_in).
        model
            The ``"hardware"``, or its ``"twin"``.
        threads
            Threads to use; the result does not depend on it.
        """
        one_of(model, "model", ("hardware", "twin"))
        x = self.as_rows(x)
        with self.lock:
            found = _core.fields(
                self.core, self.lent(), x, model == "hardware", as_threads(threads)
            )
        return [None if own is None else _as_complex(own) for own in found]

    def _signals(self, x: FloatArray) -> tuple[str, list[tuple[str, FloatArray | None]]]:
        """See `System._signals`."""
        names = [type(layer).__name__ for layer in self.layers]
        return "signal", list(zip(names, self.measure(x), strict=True))

    def vjp(
        self, x: Any, dy: Any, *, threads: int | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, FloatArray]]:
        """Return dy times the Jacobians of the twins.

        By inputs (samples, n_in), and by parameter, summed over samples. Where inputs are complex,
        that by their real parts plus i times that by their imaginary parts.

        Parameters
        ----------
        x
            Inputs (samples, n_in).
        dy
            What multiplies the outputs (samples, n_out).
        threads
            Threads to use; the result does not depend on it.
        """
        x = self.as_rows(x)
        dy = as_inputs(dy, self.n_out, self.dtype, "dy")
        with self.lock:
            dx, found = _core.vjp(self.core, self.lent(), x, dy, as_threads(threads))
        by_inputs = _as_complex(dx) if self.takes_fields else dx
        return by_inputs, dict(zip(self.names, found, strict=True))

    @property
    def instruments(self) -> "list[Driver]":
        """The drivers of the layers that are instruments."""
        drivers = (getattr(layer, "driver", None) for layer in self.layers)
        return [driver for driver in drivers if driver is not None]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as layers, parameters and memory; `CapabilityError` for what holds an instrument.

        There is one of that, and it is in one place.
        """
        if self.instruments:
            raise CapabilityError(
                "an instrument is hardware: it cannot be copied or pickled; make another one"
            )
        settings = {
            "layers": self.layers,
            "mismatch": self.mismatch,
            "noise": self.noise,
            "dtype": str(self.dtype),
            "seed": self.seed,
            "numbered": self.numbered,
        }
        return _made_again, (settings, *self.copied_arrays())

    def group_ends(self) -> list[int]:
        """Return where groups of layers end.

        Before each next linear map, and the normalisation in front of it.
        """
        return self.core.group_ends()

    def to_config(self) -> dict[str, Any]:
        """Return what makes an equal system, as plain data; checkpoints keep it."""
        return {
            "name": "Stack",
            "layers": [layer.to_config() for layer in self.layers],
            "mismatch": self.mismatch,
            "noise": self.noise,
            "dtype": str(self.dtype),
            "seed": self.seed,
            **({} if self.numbered else {"numbered": False}),
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Stack":
        """Return the stack of a `to_config` dictionary, its name left out."""
        return made(cls, {**settings, "layers": _restored(settings)}, "Stack")

    @classmethod
    def outline(cls, settings: dict[str, Any]) -> Outline:
        """See `System.outline`."""
        mismatch, noise = (
            number(settings["mismatch"], "mismatch"),
            number(settings["noise"], "noise"),
        )
        spec = _spec(
            _checked(_restored(settings)),
            mismatch,
            noise,
            0,
            flag(settings.get("numbered", True), "numbered"),
        )
        shapes, constants = _core.System.outline_stack(json.dumps(spec))
        return Outline(dict(shapes), as_dtype(settings["dtype"]), constants)

    def __repr__(self) -> str:
        extra = "".join(f", {name}={value}" for name, value in self._differences() if value)
        own = "" if self.numbered else ", numbered=False"
        return f"Stack({self.layers}{extra}, dtype={str(self.dtype)!r}, seed={self.seed}{own})"

    def _differences(self) -> list[tuple[str, float]]:
        return [("mismatch", self.mismatch), ("noise", self.noise)]


def _as_complex(parts: FloatArray) -> npt.NDArray[np.complexfloating[Any, Any]]:
    """Return complex numbers of rows of real parts, then imaginary parts."""
    n = parts.shape[1] // 2
    return parts[:, :n] + 1j * parts[:, n:]


def _made_again(
    settings: dict[str, Any], params: dict[str, FloatArray], memory: dict[str, FloatArray]
) -> System:
    """Return the stack that was pickled."""
    return with_arrays(Stack(**settings), params, memory)


def _in_full_precision(layer: Any) -> Any:
    """Return a layer that rounds nothing where it multiplies: itself, where it does not."""
    if isinstance(layer, layers.Linear | layers.Crossbar) and layer.precision is not None:
        return dataclasses.replace(layer, precision=None)
    return layer


def _check_planes(chain: "Sequence[layers.Layer | Instrument]") -> None:
    """Refuse planes of pixels that do not lie on each other: their sizes alone would not tell."""
    planes = (layers.Diffraction, layers.DetectorRegions)
    for place, (before, behind) in enumerate(itertools.pairwise(chain), start=2):
        if not isinstance(before, layers.Diffraction) or not isinstance(behind, planes):
            continue
        if before.shape != behind.shape:
            raise ShapeError(
                f"layer {place} has a plane of {behind.shape} pixels, but the layer before one of "
                f"{before.shape}"
            )
        if isinstance(behind, layers.Diffraction):
            ratio = (behind.pitch / behind.wavelength) / (before.pitch / before.wavelength)
            if abs(ratio - 1) > 1e-9:
                raise ConfigError(
                    f"layer {place} has pixels {ratio:.4g} times as large, in wavelengths, as the "
                    "layer before: fields go from pixel to pixel, so that both must be the same"
                )


def _checked(given: Any) -> list[layers.Layer]:
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(f"layers must be a list of pnncore.layers objects, got {shown(given)}")
    # An instrument is a stack of one layer, which is what counts here.
    found: list[Any] = [getattr(layer, "layer", layer) for layer in given]
    for layer in found:
        if not isinstance(layer, layers.Layer):
            raise ConfigError(f"layers must be pnncore.layers objects, got {shown(layer)}")
    return found


def _restored(settings: dict[str, Any]) -> list[layers.Layer]:
    given = as_list(settings["layers"], "layers", "a list of layers")
    return [layers.from_config(layer) for layer in given]


def _spec(
    given: list[layers.Layer], mismatch: float, noise: float, seed: int, numbered: bool
) -> dict[str, Any]:
    """Return what the core makes the stack of."""
    entries = [
        {"layer": layer.spec(), "noise": layer.noise, "mismatch": layer.mismatch} for layer in given
    ]
    return {
        "layers": entries,
        "noise": noise,
        "mismatch": mismatch,
        "seed": seed,
        "numbered": numbered,
    }
