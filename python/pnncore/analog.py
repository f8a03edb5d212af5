"""How analog arrays are read."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from pnncore._convert import number, one_of, positive_int
from pnncore.errors import ConfigError

__all__ = ["AnalogIO"]


@dataclass(frozen=True, kw_only=True)
class AnalogIO:
    """How an analog array is read: converters and noise.

    Inputs are divided by a scale a, rounded and clipped, and get input noise. Products get weight noise, pass an output
    stage y / (1 + |s y|), get output noise, are rounded and clipped, and are multiplied by a. Deviations and bounds
    are in units of the largest input and of the weights.

    Parameters
    ----------
    input_bits, output_bits
        Of the converters, which have 2^bits - 1 levels between their bounds; None: no rounding.
    input_bound, output_bound
        What they clip at; None: nothing is clipped (and rounded: give both or none).
    input_noise, output_noise
        Standard deviations.
    weight_noise
        The standard deviation of every weight in every read, times sqrt(|w|) for phase-change memory.
    weight_noise_kind
        ``"additive"`` or ``"phase-change"``.
    s_shape
        s of the output stage.
    stochastic_rounding
        Whether converters round at random, so that the mean is the value.
    scale
        a; None: the largest magnitude of each sample's inputs.
    bound_management
        Whether a sample some of whose outputs are clipped is read again at half the input scale, up to ten times.

    References
    ----------
    Gokmen, Onen, Haensch, Front. Neurosci. 11, 538 (2017); Rasch et al., AICAS (2021), arXiv 2104.02184.
    """

    input_bits: int | None = 7
    input_bound: float | None = 1.0
    input_noise: float = 0.0
    output_bits: int | None = 9
    output_bound: float | None = 12.0
    output_noise: float = 0.06
    weight_noise: float = 0.0
    weight_noise_kind: Literal["additive", "phase-change"] = "additive"
    s_shape: float = 0.0
    stochastic_rounding: bool = False
    scale: float | None = None
    bound_management: bool = True

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting; ranges are checked by the core when a stack is made."""
        for setting in dataclasses.fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if setting.type is float or (setting.type == float | None and value is not None):
                object.__setattr__(self, name, number(value, name))
        one_of(self.weight_noise_kind, "weight_noise_kind", ("additive", "phase-change"))
        for side in ("input", "output"):
            bits, bound = getattr(self, f"{side}_bits"), getattr(self, f"{side}_bound")
            if bits is not None and not 2 <= positive_int(bits, f"{side}_bits") <= 24:
                raise ConfigError(f"{side}_bits must be 2 to 24, got {bits!r}")
            if bits is not None and bound is None:
                raise ConfigError(f"{side}_bits need an {side}_bound that their levels lie between")

    @classmethod
    def ideal(cls) -> "AnalogIO":
        """Return a read without converters and noise."""
        return cls(
            input_bits=None,
            input_bound=None,
            output_bits=None,
            output_bound=None,
            output_noise=0.0,
            bound_management=False,
        )

    def spec(self) -> dict[str, Any]:
        """Return the settings as the core reads them."""
        own = dataclasses.asdict(self)
        own["scale"] = "absmax" if self.scale is None else {"constant": self.scale}
        for side in ("input", "output"):
            bits = own.pop(f"{side}_bits")
            own[f"{side}_steps"] = 0 if bits is None else 2**bits - 2
        return own
