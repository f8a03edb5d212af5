"""Methods in general."""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from pnncore import _core, losses
from pnncore._config import ByValue, Registered, check_settings, types_of
from pnncore._convert import (
    FloatArray,
    Seed,
    as_seed,
    as_system,
    as_threads,
    instance,
    one_of,
    shown,
)
from pnncore.errors import ConfigError, SettlingWarning
from pnncore.methods._own import Experiment, NewParameters, OwnSteps
from pnncore.settling import Settling

if TYPE_CHECKING:
    from pnncore.systems import System

Loss = Literal["squared-error", "cross-entropy"] | losses.Loss


@dataclass(frozen=True)
class Measured:
    """What a gradient comes from.

    Attributes
    ----------
    samples
        Samples of the batch.
    usable
        Those all of whose phases are usable: the gradient comes from these.
    phases
        How many phases of samples ended as unconverged, diverged and unbounded.
    """

    samples: int
    usable: int
    phases: dict[str, int]

    def warn(self, method: "Method", stacklevel: int) -> None:
        """Say what is missing, if anything is; `stacklevel` 1 is the caller."""
        ends = {name: count for name, count in self.phases.items() if count}
        settling = getattr(method, "settling", None)
        if settling is not None and settling.sweeps is not None:
            # Whoever says how many sweeps there are knows that they may be too few.
            ends.pop("unconverged", None)
        if not ends and self.usable == self.samples:
            return
        name = type(method).__name__
        missing = ", ".join(f"{count} {end}" for end, count in ends.items()) or "none"
        text = (
            f"the gradient of {name} comes from {self.usable} of {self.samples} samples; phases "
            f"not settled: {missing}"
        )
        if self.usable == 0:
            text = (
                f"{name} measured nothing: none of {self.samples} samples is usable; phases that "
                "did not settle: "
                f"{missing}"
            )
        warnings.warn(text, SettlingWarning, stacklevel=stacklevel + 1)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Method(ByValue, Registered, family="method"):
    """Base of all methods: a loss, "squared-error", "cross-entropy" or a `pnncore.losses.Loss`.

    A method of one's own is a subclass with a `step`; what else it may say of itself is `needs` and
    `memory`. Settings are fields of a frozen dataclass, as those of the methods here.
    `pnncore.testing.check_method` examines it.

    Attributes
    ----------
    needs
        What a method of one's own needs of a system, beside outputs: some of ``"layers"``,
        ``"twins"``, ``"linear-readout"``, ``"linear-maps"``, ``"phases"``,
        ``"symmetric-light"``, ``"local-rule"``,
        ``"state-derivatives"``, ``"holomorphic"``, ``"echoes"``.
    """

    loss: Loss = "squared-error"
    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def kinds(cls) -> dict[str, type[Self]]:
        """Return all methods by name, in the order of the core."""
        found = super().kinds()
        return {name: found[name] for name, _ in _core.methods() if name in found}

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        if isinstance(self.loss, losses.Loss):
            try:
                json.dumps(self.loss.to_config(), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"settings of a loss must be finite numbers, text or arrays of them: {error}"
                ) from None
        else:
            one_of(self.loss, "loss", ("squared-error", "cross-entropy"))
        check_settings(self)
        for name, kind in types_of(type(self)).items():
            if kind is Settling:
                instance(getattr(self, name), Settling, name, "a pnncore.Settling")
        if self.is_own:
            return
        if type(self).__name__ not in type(self).kinds():
            name = type(self).__name__
            raise ConfigError(
                f"{name} must define step(self, experiment): see pnncore.methods.Method"
            )
        _core.check_method(self._settings())

    @property
    def is_own(self) -> bool:
        """Whether the method is one of a user's own."""
        return type(self).step is not Method.step

    def step(self, experiment: Experiment) -> "Mapping[str, npt.ArrayLike] | NewParameters":
        """Make a step of a method of one's own.

        Run experiments, and return the gradient by parameter.

        Parameters
        ----------
        experiment
            The batch, the parameters, and what can be asked of the physics.

        Returns
        -------
        mapping of arrays, or NewParameters
            dL/dθ by name, of all parameters, which the optimizer takes; or new values of the
            parameters.
        """
        raise NotImplementedError(f"{type(self).__name__} is made by the core")

    def memory(
        self, system: "System", random: "np.random.Generator"
    ) -> "Mapping[str, npt.ArrayLike]":
        """Return what a method of one's own keeps from step to step: arrays by name, as at first.

        `random` depends on the seed of the training alone. The arrays are in every checkpoint.
        """
        return {}

    def for_core(
        self, system: "System", *, seed: int = 0, threads: int | None = None
    ) -> "str | OwnSteps | OwnLoss":
        """Return what the core makes the steps of.

        A configuration, or an object with what is the user's own.
        """
        if self.is_own:
            return OwnSteps(self, system, seed, threads)
        if isinstance(self.loss, losses.Loss):
            return OwnLoss(self._settings(), losses.Evaluated(self.loss, system.n_out))
        return self._settings()

    def _settings(self) -> str:
        """Return what the core reads of the settings.

        A loss of the user's own is handed beside them.
        """
        config = self.to_config()
        return json.dumps(
            config if isinstance(self.loss, str) else {**config, "loss": "squared-error"}
        )

    def to_config(self) -> dict[str, Any]:
        """Return the configuration as plain data, as the core reads it and checkpoints keep it."""
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if isinstance(settling := config.get("settling"), Settling):
            config["settling"] = settling.to_config()
        if isinstance(self.loss, losses.Loss):
            config["loss"] = self.loss.to_config()
        return {"own" if self.is_own else "name": type(self).__name__, **config}

    def gradient(
        self,
        system: "System",
        x: Any,
        y: Any,
        *,
        seed: Seed = 0,
        step: int = 0,
        threads: int | None = None,
    ) -> dict[str, FloatArray]:
        """Return the gradient that a step of training on this batch would use, in float64.

        Samples of which a phase diverged, or whose energy has no minimum under it, contribute
        nothing to it; a `SettlingWarning` counts them, and phases that ran out of sweeps.

        Parameters
        ----------
        system
            The system, with its present parameters.
        x
            Inputs (samples, n_in).
        y
            Labels (samples,) or targets (samples, n_out).
        seed, step
            What random choices of the method depend on.
        threads
            Threads to use; the result does not depend on it.

        Raises
        ------
        CapabilityError
            If the system lacks what the method needs; the message lists the methods that train it.
        """
        gradient, found = self._measure(system, x, y, seed=seed, step=step, threads=threads)
        found.warn(self, stacklevel=3)
        return gradient

    def _measure(
        self,
        system: "System",
        x: Any,
        y: Any,
        *,
        seed: Seed = 0,
        step: int = 0,
        threads: int | None = None,
    ) -> tuple[dict[str, FloatArray], "Measured"]:
        """Return the gradient of `gradient`, and what it comes from."""
        as_system(system)
        if (
            isinstance(step, bool)
            or not isinstance(step, int | np.integer)
            or not 0 <= step < 2**39
        ):
            raise ConfigError(f"step must be an integer in 0..2**39, got {shown(step)}")
        x, y = system.as_batch(x, y)
        losses.check_targets(self.loss, y, system.n_out)
        seed, threads = as_seed(seed), as_threads(threads)
        with system.lock:
            method = self.for_core(system, seed=seed, threads=threads)
            gradient, found = _core.gradient(
                system.core, system.lent(), x, y, method, seed, step, threads
            )
        phases = {name: int(found[name]) for name in ("unconverged", "diverged", "unbounded")}
        return dict(zip(system.names, gradient, strict=True)), Measured(
            len(x), int(found["whole"]), phases
        )

    def predict(self, system: "System", x: Any, *, threads: int | None = None) -> FloatArray:
        """Return the outputs (samples, n_out) that the method teaches.

        As a rule these are the outputs of the system.
        """
        predicted: FloatArray = as_system(system).predict(x, threads=threads)
        return predicted

    def score(self, system: "System", x: Any, y: Any, *, threads: int | None = None) -> float:
        """Return the accuracy (labels) or coefficient of determination (targets) of `predict`."""
        return float(as_system(system).score(x, y, threads=threads))


@dataclass(frozen=True)
class OwnLoss:
    """A method of the core, by its configuration, with a loss of the user's own."""

    config: str
    own_loss: losses.Evaluated


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SettlingMethod(Method, listed=False):
    """Base of the methods that may let a system settle: how phases are settled."""

    settling: Settling = field(default_factory=Settling)
