"""Networks of coupled modes that scatter light."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pnncore import _core
from pnncore._convert import as_inputs, as_list, as_numbers, integer, is_integer, shown
from pnncore.errors import ConfigError
from pnncore.layers._base import Layer
from pnncore.layers._detect import Detect
from pnncore.layers._programmed import alone, as_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pair = tuple[int, int]


@dataclass(frozen=True, repr=False, eq=False)
class CoupledModes(Layer):
    """A linear scattering network: coupled modes, detuned by the inputs.

    Modes a_j decay at the rates κ_j into waveguides, and light of one frequency ω is sent into
    these. What comes out is the scattering matrix S = 1 - i √κ M⁻¹ √κ with the matrix
    M = ω - Δ - x - J + i (κ + loss) / 2: inputs x are added to the detunings Δ of the first modes,
    and outputs are elements of S times the amplitude of the light that probes. The network is
    linear in light and nonlinear in its inputs. It gives a field: put `Detect("imaginary")`, or
    another quantity, behind it.

    Parameters of the layer: ``detuning`` Δ (modes,), at first uniform within four decay rates,
    ``coupling`` J (pairs,), at first 2 decay (1 ± 0.1), and with ``tunable_decay`` the logarithms
    ``log_decay`` of κ (modes,). Rates and frequencies have one unit, whichever it is.

    `methods.InSituBackprop` reads derivatives off the hardware: they are products of elements of S
    that probes at all modes measure, dS/dΔ_j = i s_{:,j} s_{j,:} / κ_j with s = S - 1, and so on.
    In hardware with a mismatch m, detunings are off by m ξ decay, couplings are 1 + m ξ and decay
    rates |1 + m ξ| of what they should be, with ξ standard normal, another one each time.

    Parameters
    ----------
    couplings
        The sizes of layers of modes, each coupled to the next in all pairs, such as
        ``[64, 80, 10]``; or pairs of modes (i, j), counted from 0. See `from_graph`.
    n_in
        The number of inputs, each of which detunes one of the first modes; None: those of the first
        of the layers.
    outputs
        Pairs of modes (to, from): elements of S that are outputs; None: reflections at the modes of
        the last of the layers.
    decay
        The decay rates κ, or with ``tunable_decay`` those at first.
    loss
        The rate at which modes lose light elsewhere.
    frequency
        Of the light that probes, from that of a mode without detuning.
    probe
        The amplitude of that light: outputs are that times elements of S.
    tunable_decay
        Whether decay rates are parameters.
    probe_noise
        The standard deviation of both quadratures of each element of S that is measured for
        gradients.

    References
    ----------
    Wanjura, Marquardt, Nat. Phys. 20, 1434 (2024).

    Examples
    --------
    >>> CoupledModes([64, 80, 10], decay=0.5)
    CoupledModes(couplings=(64, 80, 10), decay=0.5)
    """

    couplings: Any
    n_in: int | None = None
    outputs: Any = None
    decay: float = 1.0
    loss: float = 0.0
    frequency: float = 0.0
    probe: float = 1.0
    tunable_decay: bool = False
    probe_noise: float = 0.0

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        super().__post_init__()
        given = as_list(self.couplings, "couplings", "sizes of layers, or pairs of modes")
        if given and all(map(is_integer, given)):
            sizes = tuple(
                integer(n, "couplings", 1, 2**32, "sizes of at least one mode") for n in given
            )
            if len(sizes) < 2:
                raise ConfigError(
                    f"couplings must have the sizes of at least two layers, got {shown(given)}"
                )
            object.__setattr__(self, "couplings", sizes)
        else:
            object.__setattr__(self, "couplings", _pairs(given, "couplings"))
            for name in ("n_in", "outputs"):
                if getattr(self, name) is None:
                    raise ConfigError(f"{name} must be given where couplings are pairs of modes")
        if self.outputs is not None:
            object.__setattr__(self, "outputs", _pairs(self.outputs, "outputs"))

    @classmethod
    def from_graph(
        cls, graph: Any, *, inputs: Sequence[Any], outputs: Sequence[Any], **settings: Any
    ) -> "CoupledModes":
        """Return the modes at the nodes of a networkx graph, coupled along its edges.

        Modes are counted in the order of `inputs`, then in that of the other nodes.

        Parameters
        ----------
        graph
            A networkx graph, undirected.
        inputs
            The nodes whose modes are detuned by inputs, in their order.
        outputs
            Nodes, for reflections at these, or pairs of nodes (to, from).
        settings
            The other settings of `CoupledModes`.
        """
        if not (hasattr(graph, "nodes") and hasattr(graph, "edges")):
            raise ConfigError(f"graph must be a networkx graph, got {shown(graph)}")
        if graph.is_directed():
            raise ConfigError("graph must be undirected: couplings are the same both ways")
        first = list(inputs)
        place = {
            node: k for k, node in enumerate([*first, *(n for n in graph.nodes if n not in first)])
        }
        if len(place) != graph.number_of_nodes():
            raise ConfigError(f"inputs must be nodes of the graph, each once, got {shown(inputs)}")
        edges = [(place[u], place[v]) for u, v in graph.edges]
        ends = [(place[u], place[u]) if u in place else _ends(u, place) for u in outputs]
        return cls(edges, n_in=len(first), outputs=ends, **settings)

    @property
    def modes(self) -> int:
        """How many modes there are."""
        if is_integer(self.couplings[0]):
            total: int = sum(self.couplings)
            return total
        largest: int = max(itertools.chain(*self.couplings, *self.outputs))
        return max(self.n_in or 0, 1 + largest)

    def spec(self) -> dict[str, Any]:
        """See `Layer.spec`."""
        edges, inputs, outputs = self.couplings, self.n_in, self.outputs
        if is_integer(edges[0]):
            sizes, ends = edges, list(itertools.accumulate(edges))
            inputs = sizes[0] if inputs is None else inputs
            last = range(self.modes - sizes[-1], self.modes)
            outputs = outputs or [(mode, mode) for mode in last]
            starts = [0, *ends]
            edges = [
                pair
                for k in range(len(sizes) - 1)
                for pair in itertools.product(
                    range(starts[k], ends[k]), range(starts[k + 1], ends[k + 1])
                )
            ]
        return {
            "kind": "coupled-modes",
            "modes": self.modes,
            "inputs": inputs,
            "edges": edges,
            "outputs": outputs,
            "decay": self.decay,
            "loss": self.loss,
            "frequency": self.frequency,
            "probe": self.probe,
            "tunable_decay": self.tunable_decay,
            "probe_noise": self.probe_noise,
        }

    def scattering(
        self, params: dict[str, Any], x: Any, frequency: Any = None
    ) -> npt.NDArray[np.complex128]:
        """Return the outputs of the twin: elements of S times the amplitude of the probe.

        Complex numbers (samples, outputs), or where there are frequencies (frequencies, samples,
        outputs).

        Parameters
        ----------
        params
            ``detuning``, ``coupling`` and where it is tunable ``log_decay``, as a stack's `params`
            have them, without the number of the layer.
        x
            Inputs (samples, n_in).
        frequency
            Frequencies of the light (frequencies,); None: the one of the layer.
        """
        names = ("detuning", "coupling", *(("log_decay",) if self.tunable_decay else ()))
        given = as_params(params, names)
        core, arrays = alone([self, Detect("quadratures")], given)
        rows = as_inputs(x, core.takes()[0], np.dtype(np.float64))
        if frequency is None:
            return _measured(core, arrays, rows)
        shifts = as_numbers(frequency, "frequency") - self.frequency
        found = []
        for shift in np.ravel(shifts):
            # Another frequency is as good as other detunings of all modes.
            arrays[0] = given["detuning"] - shift
            found.append(_measured(core, arrays, rows))
        return np.array(found)

    def plot(self, params: dict[str, Any], x: Any) -> "Figure":
        """Draw what comes out at every frequency, for a sample; needs matplotlib.

        Powers and phases of up to six elements of S, and the frequency of the light that probes.

        Parameters
        ----------
        params
            As those of `scattering`.
        x
            A sample (n_in,).
        """
        from pnncore import _light_plot

        sample = as_numbers(x, "x")[None]
        self.scattering(params, sample)
        return _light_plot.scattering(self, params, sample)


def _measured(core: _core.System, arrays: Any, x: Any) -> npt.NDArray[np.complex128]:
    parts = _core.measure(core, arrays, x, 0, None)[1]
    re, im = np.split(parts, 2, axis=1)
    return np.asarray(re + 1j * im)


def _pairs(value: Any, name: str) -> tuple[Pair, ...]:
    """Return pairs of modes."""
    given = as_list(value, name, "pairs of modes")
    if not given:
        raise ConfigError(f"{name} must name at least one pair of modes")
    return tuple(_pair(pair, name) for pair in given)


def _pair(value: Any, name: str) -> Pair:
    given = as_list(value, name, "pairs of modes (i, j)")
    if len(given) != 2:
        raise ConfigError(f"{name} must be pairs of modes (i, j), got {shown(value)}")
    i, j = (integer(mode, name, 0, 2**32, "modes, counted from 0") for mode in given)
    return i, j


def _ends(value: Any, place: dict[Any, int]) -> Pair:
    """Return the two modes of an output that is told by their nodes."""
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or any(node not in place for node in value)
    ):
        raise ConfigError(f"outputs must be nodes of the graph, or pairs of them, got {value!r}")
    return place[value[0]], place[value[1]]
