"""Estimators for scikit-learn; needs it.

>>> from pnncore.estimators import Classifier
>>> Classifier(epochs=5, random_state=0)
Classifier(epochs=5, random_state=0)
"""

import inspect
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from pnncore import layers, methods, optim, systems
from pnncore._convert import FloatArray, flag, made, shown
from pnncore._scores import NO_LABEL, labels_of
from pnncore.methods._base import Loss
from pnncore.methods._suited import suited
from pnncore.trainer import Trainer

__all__ = ["Classifier", "Regressor"]

# Settings that have settings.
_PARTS = ("method", "optimizer")

Builder = Callable[[int, int, int], systems.System]


def _default(n_in: int, n_out: int, seed: int) -> systems.System:
    chain = [layers.Linear(n_in, 32), layers.Tanh(), layers.Linear(32, n_out)]
    return systems.Stack(chain, seed=seed)


def _counted(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Return the samples that have a weight, and the weights, or None where all count alike."""
    if sample_weight is None:
        return x, y, None
    weights = _check_sample_weight(sample_weight, x, ensure_non_negative=True)
    counts = weights > 0
    if not counts.any():
        raise ValueError("sample_weight must contain at least one non-zero number")
    x, y, weights = x[counts], y[counts], weights[counts]
    return x, y, None if (weights == weights[0]).all() else weights


def _moments(values: Any, weights: Any) -> tuple[FloatArray, FloatArray]:
    """Return means and standard deviations of columns."""
    mean = np.average(values, axis=0, weights=weights)
    return mean, np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))


def _settings(part: Any) -> dict[str, Any]:
    """Return the settings that an equal method or optimizer is made with."""
    return {name: getattr(part, name) for name in inspect.signature(type(part)).parameters}


def _no_class(classes: Any) -> Any:
    """Return what is none of the classes."""
    if classes.dtype.kind in "biuf":
        least = classes.min().item()
        return least - 1 if classes.dtype.kind != "f" else least - max(1.0, abs(least))
    name = "no label"
    while name in classes:
        name += "'"
    return name


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share."""

    _loss: Loss = "squared-error"

    def __init__(
        self,
        system: Builder | None = None,
        *,
        method: methods.Method | None = None,
        optimizer: optim.Optimizer | None = None,
        epochs: int = 100,
        batch_size: int = 32,
        standardize: bool = True,
        random_state: Any = None,
    ) -> None:
        self.system = system
        self.method = method
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.standardize = standardize
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings, with those of method and optimizer as ``optimizer__momentum``."""
        params: dict[str, Any] = super().get_params(deep=False)
        for part in _PARTS if deep else ():
            if isinstance(params[part], methods.Method | optim.Optimizer):
                own = _settings(params[part]).items()
                params |= {f"{part}__{name}": value for name, value in own}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set settings; one of a method or an optimizer makes another of that, of its kind."""
        own = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**own)
        for part in _PARTS:
            begins = f"{part}__"
            new = {k.removeprefix(begins): v for k, v in params.items() if k.startswith(begins)}
            if new:
                default = optim.Adam(1e-2) if part == "optimizer" else self._method(None)
                before = getattr(self, part)
                before = default if before is None else before
                setattr(self, part, made(type(before), _settings(before) | new, part))
        if stray := set(params) - set(own) - {k for k in params if k.split("__")[0] in _PARTS}:
            raise ValueError(f"{type(self).__name__} has no settings {sorted(stray)}")
        return self

    def _method(self, system: systems.System | None) -> methods.Method:
        """Return the method where none is given."""
        return suited(system)(loss=self._loss)

    def _inputs(self, x: Any) -> Any:
        scaled = (np.asarray(x, dtype=np.float64) - self.mean_) / self.scale_
        return scaled.astype(self.system_.dtype)

    def _fit(self, x: Any, y: Any, n_out: int, sample_weight: Any) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31))
        if self.system is not None and not callable(self.system):
            raise TypeError(
                "system must be a function of the numbers of inputs and outputs and a seed, which "
                f"makes a new system at every fit, got {shown(self.system)}"
            )
        make = self.system if self.system is not None else _default
        self.system_ = make(x.shape[1], n_out, seed)
        standardize = flag(self.standardize, "standardize")
        self.mean_, self.scale_ = np.zeros(x.shape[1]), np.ones(x.shape[1])
        if standardize:
            self.mean_, self.scale_ = _moments(x, sample_weight)
        # A feature that is constant up to rounding stays where it is.
        self.scale_[self.scale_ <= 1e-9 * np.abs(self.mean_)] = 1.0
        self.scale_[self.scale_ == 0] = 1.0
        self.method_ = self.method if self.method is not None else self._method(self.system_)
        optimizer = self.optimizer if self.optimizer is not None else optim.Adam(1e-2)
        trainer = Trainer(
            self.system_,
            self.method_,
            optimizer,
            batch_size=self.batch_size,
            seed=seed,
            progress=False,
        )
        target = y if y.ndim == 1 else y.astype(self.system_.dtype)
        self.history_ = trainer.fit(
            self._inputs(x), target, epochs=self.epochs, sample_weight=sample_weight
        )
        self.n_iter_ = trainer.epoch

    def _outputs(self, x: Any) -> Any:
        check_is_fitted(self)
        x = validate_data(self, x, reset=False)
        return self.method_.predict(self.system_, self._inputs(x))


class Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A physical neural network as a classifier.

    Parameters
    ----------
    system
        What makes the system: a function of the numbers of inputs and outputs and a seed. None: a
        `systems.Stack` of two linear maps with 32 hidden units.
    method
        How it is trained; None: with the cross-entropy, by physics-aware training, equilibrium
        propagation, Hamiltonian echo or SPSA, the first that trains the system.
    optimizer
        None: ``Adam(0.01)``.
    epochs, batch_size
        As for `Trainer`.
    standardize
        Whether inputs are shifted and scaled to mean zero and variance one, as measured on the
        training data.
    random_state
        Of the system and the training.

    Attributes
    ----------
    classes_
        The labels.
    system_
        The trained system.
    history_
        What was measured, epoch by epoch.
    """

    _loss = "cross-entropy"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a new system on inputs (samples, features) and labels (samples,).

        Samples are drawn as often as `sample_weight` says; see `Trainer.fit`.
        """
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        X, y, weights = _counted(X, y, sample_weight)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "Classifier needs samples of at least 2 classes, got one class: "
                f"{self.classes_[0]!r}"
            )
        self._fit(X, labels.astype(np.int64), len(self.classes_), weights)
        return self

    def decision_function(self, X: Any) -> Any:
        """Return the outputs (samples, classes); for two classes their difference (samples,)."""
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    @available_if(  # type: ignore[untyped-decorator]
        lambda self: getattr(self.method, "loss", self._loss) == "cross-entropy"
    )
    def predict_proba(self, X: Any) -> Any:
        """Return probabilities (samples, classes): the softmax of the outputs.

        There are some where the network was trained with the cross-entropy, of which they are the
        model; NaN for samples whose outputs are not finite.
        """
        outputs = self._outputs(X).astype(np.float64)
        grown = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return grown / grown.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Any:
        """Return the label of the largest output.

        A sample whose outputs are not finite gets what is no class: the least one minus one, or
        ``"no label"``.
        """
        best = labels_of(self._outputs(X))
        if (best != NO_LABEL).all():
            return self.classes_[best]
        return np.where(best == NO_LABEL, _no_class(self.classes_), self.classes_[best])


class Regressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A physical neural network as a regressor of one or more targets, which are standardised, too.

    Parameters
    ----------
    system
        What makes the system: a function of the numbers of inputs and outputs and a seed. None: a
        `systems.Stack` of two linear maps with 32 hidden units.
    method
        How it is trained; None: with the squared error, by physics-aware training, equilibrium
        propagation, Hamiltonian echo or SPSA, the first that trains the system.
    optimizer
        None: ``Adam(0.01)``.
    epochs, batch_size
        As for `Trainer`.
    standardize
        Whether inputs are shifted and scaled to mean zero and variance one, as measured on the
        training data.
    random_state
        Of the system and the training.

    Attributes
    ----------
    system_
        The trained system.
    history_
        What was measured, epoch by epoch.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a new system on inputs (samples, features) and targets.

        These are (samples,) or (samples, targets). Samples are drawn as often as `sample_weight`
        says; see `Trainer.fit`.
        """
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        X, y, weights = _counted(X, y, sample_weight)
        self._single = y.ndim == 1
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        self.target_mean_, self.target_scale_ = _moments(targets, weights)
        self.target_scale_[self.target_scale_ == 0] = 1.0
        scaled = (targets - self.target_mean_) / self.target_scale_
        self._fit(X, scaled, targets.shape[1], weights)
        return self

    def predict(self, X: Any) -> Any:
        """Return the targets."""
        outputs = self._outputs(X).astype(np.float64) * self.target_scale_ + self.target_mean_
        return outputs[:, 0] if self._single else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
