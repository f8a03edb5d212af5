"""Methods for stacks of layers: errors that come back, or losses of their own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pnncore import _core
from pnncore._convert import FloatArray, as_system, shown
from pnncore._scores import score, warn_of_lost
from pnncore.errors import CapabilityError, DataError
from pnncore.layers import Crossbar, Linear
from pnncore.methods._base import Method
from pnncore.systems._stack import Stack

if TYPE_CHECKING:
    from pnncore.systems import System


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Backprop(Method):
    """Backpropagation through a model of the layers: training in silico.

    Parameters
    ----------
    model
        ``"twin"``: signals pass through the twins, and the hardware is never asked. ``"hardware"``:
        through the hardware itself, without its noise: the exact gradient, which only a simulation
        has; for audits.
    noise
        The standard deviation of noise that is added to the outputs of every layer of the twin.
    vaccination
        By how much, relatively, the twin's constants are off, drawn anew for every batch, so that
        what is learned does not depend on them.
    """

    model: Literal["twin", "hardware"] = "twin"
    noise: float = 0.0
    vaccination: float = 0.0


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PhysicsAware(Method):
    """Physics-aware training: forward on the hardware, back through the Jacobians of the twins.

    These are taken at the measured signals.
    The same as backpropagation where the twin is exact and nothing is noisy. Noise of constant
    deviation that is added to outputs leaves the mean gradient that of the mean loss. Noise whose
    size depends on signals or weights adds to the mean loss what no twin knows of, since twins
    answer with the derivative of the mean read: input noise and weight noise of crossbars, additive
    or of phase-change memory, and their output noise where the scale follows the inputs
    (``scale=None``, the default). For a read x W with input noise of deviation s, and the squared
    error, what W hears nothing of is s² W; for weight noise, what x hears nothing of is s² x per
    output.

    References
    ----------
    Wright et al., Nature 601, 549 (2022).
    """


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class InSituBackprop(Method):
    """Backpropagation in the hardware.

    Signals pass it forward, and errors back, where it can be run backwards.

    Crossbars read their transpose, through converters and with noise. Light measures its gradient
    itself, where there is a monitor behind every phase shifter, as in `layers.MZIMesh`: errors are
    sent back, and what comes out at the inputs is sent forward, conjugate, together with the
    signals. With fields F and A of signals and errors behind a shifter, intensities there tell the
    gradient 2 Re(i F A) by its phase. Only fields at inputs and outputs, and intensities, enter;
    the `History` counts passes, ``reversed`` samples and ``reads``. Where all light comes out that
    is exact; of light that is lost the conjugate errors know nothing, nor of what attenuators take
    away (`layers.SVDLayer`) or dark waveguides (the diamond).

    In free space and in a medium (`layers.Diffraction`, `layers.Waveguide`) phase-shifting
    interferometry reads both fields themselves, at every pixel, with four intensities of each. The
    gradient by what these set is then exact, whatever light is lost: it takes reciprocity alone.
    Meshes in the same run of light still lose by what is lost there. Coupled modes
    (`layers.CoupledModes`) need no light that goes back: derivatives are products of elements of
    their scattering matrix, which probes measure. Layers that do not answer by
    themselves do so by their twins, as in physics-aware training; so do all layers of a run of
    fields where light cannot be sent back through one of them, such as `layers.Fibre`.

    Parameters
    ----------
    protocol
        ``"difference"``: intensities of signals minus, and plus, i times the conjugate errors, half
        their difference; two passes more. ``"three-intensity"``: those of signals, of errors on
        their way back, and of both together; one pass more, and more harm by loss. None: the
        difference. It is for meshes.

    References
    ----------
    Gokmen, Vlasov, Front. Neurosci. 10, 333 (2016). Hughes et al., Optica 5, 864 (2018). Zhou et
    al., Photon. Res. 8, 940 (2020). Pai et al., Science 380, 398 (2023). Wanjura, Marquardt, Nat.
    Phys. 20, 1434 (2024).
    """

    protocol: Literal["difference", "three-intensity"] | None = None


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ForwardModeLearning(Method):
    """Forward mode learning: light measures its gradient, and none of it is sent back.

    Free space carries light both ways alike: its transfer equals its transpose. Errors are put on
    the plane of a mask, which is out of the way, and pass to the next plane as signals do; what
    arrives there would have come back. Their field, read by interferometry as that of the signals
    was, tells the gradient 2 Re(i F A). That is done for `layers.Diffraction` after
    `layers.Diffraction`, from the last one on; what a mask does to errors is multiplied in between,
    by what it is set to. Media whose transfer differs from its transpose are refused: meshes,
    waveguides, fibres.

    References
    ----------
    Xue et al., Nature 632, 280 (2024).
    """


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FeedbackAlignment(Method):
    """Feedback alignment: errors come back through matrices other than the transposed weights.

    Parameters
    ----------
    feedback
        ``"random"``: fixed matrices. ``"sign-symmetric"``: the signs of the weights, times their
        initial deviation. ``"kolen-pollack"``: matrices that change as the weights do; both decay,
        and so meet. That needs `SGD` without momentum and with ``weight_decay`` above zero.

    References
    ----------
    Lillicrap et al., Nat. Commun. 7, 13276 (2016); Liao, Leibo, Poggio, AAAI (2016); Akrout et al.,
    NeurIPS (2019).
    """

    feedback: Literal["random", "sign-symmetric", "kolen-pollack"] = "random"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DirectFeedbackAlignment(Method):
    """Direct feedback alignment: every layer hears the output error through a random matrix.

    Each has a fixed one of its own.

    Parameters
    ----------
    slope
        How layers that act on each signal by itself answer: ``"twin"`` by the slope of the twin;
        ``"one"``, ``"box"`` (one where |z| < 1) or ``"triangle"`` (1 - |z| / 2): augmented direct
        feedback alignment, which need not know the physics.

    References
    ----------
    Nøkland, NeurIPS (2016); Nakajima et al., Nat. Commun. 13, 7847 (2022).
    """

    slope: Literal["twin", "one", "box", "triangle"] = "twin"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ForwardForward(Method):
    """Forward-forward: every layer learns by itself to tell true labels from wrong ones.

    The last `classes` inputs carry the label, one of them at one; what data hold there is
    overwritten. The goodness of a group of layers (a linear map and what follows it) is the sum of
    squares of its outputs: it rises above the threshold for true labels, and falls below it for
    wrong ones. Put a `layers.Normalize` before the next linear map, or it would find the goodness
    ready-made. Labels are predicted by trying all: `predict` returns the goodness of each, summed
    over groups.

    With ``goodness="cosine"`` it is physical local learning as it was published: the goodness of
    outputs a of a linear map is the cosine of their magnitudes |a| to a direction p, which is
    random and fixed, and the loss of a sample softplus(tau [cos(|a_wrong|, p) - cos(|a_true|, p)]).
    What is between linear maps is never differentiated.

    Parameters
    ----------
    classes
        How many of the last inputs carry the label.
    goodness
        ``"squares"`` or ``"cosine"``.
    threshold
        The goodness per output that lies between true and wrong, of squares; None: 0.2.
    tau
        How steep the comparison of cosines is; None: 4.

    References
    ----------
    Hinton, "The forward-forward algorithm", arXiv 2212.13345 (2022). Momeni, Rahmani, Malléjac, del
    Hougne, Fleury, Science 382, 1297 (2023).
    """

    classes: int = 10
    goodness: Literal["squares", "cosine"] = "squares"
    threshold: float | None = None
    tau: float | None = None

    def predict(self, system: "System", x: Any, *, threads: int | None = None) -> FloatArray:
        """Return the goodness (samples, classes) of every label."""
        if not isinstance(system, Stack):
            raise CapabilityError(f"ForwardForward needs a Stack, got {shown(system)}")
        x = system.as_rows(x)
        ends = _linear_maps(system) if self.goodness == "cosine" else system.group_ends()
        goodness = np.zeros((len(x), self.classes), system.dtype)
        for label in range(self.classes):
            tried = x.copy()
            tried[:, -self.classes :] = np.eye(self.classes, dtype=system.dtype)[label]
            signals = system.measure(tried, threads=threads)
            with np.errstate(over="ignore"):
                goodness[:, label] = sum(
                    self._goodness(k, signals[end]) for k, end in enumerate(ends)
                )
        warn_of_lost(goodness, "goodnesses", stacklevel=2)
        return goodness

    def _goodness(self, number: int, outputs: FloatArray) -> FloatArray:
        """Return the goodness of outputs, row by row."""
        if self.goodness == "squares":
            return np.asarray((outputs**2).sum(axis=1))
        norm = np.linalg.norm(outputs, axis=1)
        direction = _core.goodness_direction(number, outputs.shape[1])
        return np.asarray(np.abs(outputs) @ direction / np.where(norm > 0, norm, 1))

    def score(self, system: "System", x: Any, y: Any, *, threads: int | None = None) -> float:
        """Return the accuracy of the labels of largest goodness."""
        x, y = as_system(system).as_batch(x, y)
        return score(self.predict(system, x, threads=threads), y)


def _linear_maps(system: Stack) -> list[int]:
    """Return the places of the linear maps among the layers."""
    return [
        place for place, layer in enumerate(system.layers) if isinstance(layer, Linear | Crossbar)
    ]


@dataclass(frozen=True)
class Collapse:
    """What the features of a linear map tell: see `PhysicalLocalLearning.collapse`.

    Attributes
    ----------
    layer
        The number of the layer, from 1.
    same, other
        The mean cosines between samples of one class, and of different classes.
    rank
        Over how many dimensions the directions of features spread (the participation ratio of their
        covariance).
    """

    layer: int
    same: float
    other: float
    rank: float

    @property
    def verdict(self) -> str:
        """What of the samples is left in the features.

        ``"constant"``: all samples look alike. ``"label"``: all of a class do, to a part in 10,000.
        ``"none"``: neither.

        Features of which nothing but the label is left come from a loss that can read the label off
        the input: the form with one-hot labels in the input ends there.
        """
        if self.other > 0.99 or not self.same - self.other > 0.001:
            return "constant"
        return "label" if self.same > 0.9999 else "none"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PhysicalLocalLearning(Method):
    """Physical local learning: every linear map has a loss of its own.

    Nothing goes back through the physics.

    The pair-contrastive form: with i and `same` two samples of a class, `other` one of another, and
    a the outputs of a linear map, its loss is softplus(tau [cos(a_i, a_other) - cos(a_i, a_same)]).
    The last linear map is a readout, and learns from the loss of the outputs. Only linear maps
    learn; the transforms between them may be unknown.

    Parameters
    ----------
    tau
        How steep the comparison is.

    References
    ----------
    Momeni, Rahmani, Malléjac, del Hougne, Fleury, Science 382, 1297 (2023).
    """

    tau: float = 10.0

    def collapse(
        self, system: "System", x: Any, y: Any, *, threads: int | None = None
    ) -> list[Collapse]:
        """Return what features of each linear map tell beyond a constant or the label.

        The readout is left out.

        Parameters
        ----------
        system
            A `Stack`.
        x, y
            Samples, and their labels: some of every class, best such as were not trained on.
        threads
            Threads to use.
        """
        if not isinstance(system, Stack):
            raise CapabilityError(f"PhysicalLocalLearning needs a Stack, got {shown(system)}")
        x, y = system.as_batch(x, y)
        if y.ndim != 1 or len(np.unique(y)) < 2:
            raise DataError("y must hold labels of at least two classes")
        maps = _linear_maps(system)[:-1]
        signals = system.measure(x, threads=threads)
        same = y[:, None] == y[None, :]
        found = []
        for place in maps:
            features = signals[place].astype(np.float64)
            norms = np.linalg.norm(features, axis=1, keepdims=True)
            directions = features / np.where(norms > 0, norms, 1)
            cosines = directions @ directions.T
            own = same & ~np.eye(len(y), dtype=bool)
            spectrum = np.linalg.svd(directions - directions.mean(axis=0), compute_uv=False) ** 2
            rank = (
                spectrum.sum() ** 2 / (spectrum**2).sum()
                if spectrum.sum() > 1e-12 * len(y)
                else 0.0
            )
            within = float(cosines[own].mean()) if own.any() else float("nan")
            found.append(Collapse(place + 1, within, float(cosines[~same].mean()), float(rank)))
        return found


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ForwardGradient(Method):
    """Forward gradients: the mean over random directions of each times the slope along it.

    The slope is that of the loss.

    Signals pass the hardware once per step; beside them, the twins tell how they change as the
    parameters move along a direction, and nothing goes back. The mean is the gradient; the cosine
    between both is sqrt(q / (q + D - 1)) for q directions in D dimensions, as a root mean square.

    Parameters
    ----------
    directions
        How many per step.

    References
    ----------
    Baydin et al., "Gradients without backpropagation", arXiv 2202.08587 (2022).
    """

    directions: int = 1


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RidgeReadout(Method):
    """Ridge regression of the last linear layer on what the layers before it put out.

    This is reservoir computing.

    Recursive least squares, batch by batch: without forgetting, one epoch is ridge regression on
    all samples. The regression is to the targets, or to one at the label and zero elsewhere. The
    optimizer's rates do not matter, except that a rate of zero leaves a parameter where it is.

    Parameters
    ----------
    regularization
        What is added to the squares of features; the bias has no penalty.
    forgetting
        By what earlier batches are multiplied, in (0, 1].

    References
    ----------
    Lukoševičius and Jaeger, Comput. Sci. Rev. 3, 127 (2009).
    """

    regularization: float = 1e-2
    forgetting: float = 1.0
