"""Models of diodes and transistors: what of them acts at an operating point."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pnncore._netlist._cards import Card
from pnncore._netlist._flat import Model, Placed, Scope, words
from pnncore.elements import THERMAL_VOLTAGE

KELVIN = 273.15
# k T / q is that of 27 degrees.
NOMINAL = 300.15
# Brings a breakdown, IS exp(v), within rounding of a diode, IS (exp(v) - 1).
_FAINTER = 1e-12


@dataclass(frozen=True)
class Known:
    """What is known of a kind of model.

    Attributes
    ----------
    kind, title
        The kind as cards have it, and as messages say it.
    defaults
        What acts at an operating point, with its defaults.
    aliases
        Other names of those.
    idle
        What does not act at an operating point: capacitances, transit times, noise.
    """

    kind: str
    title: str
    defaults: Mapping[str, float]
    aliases: Mapping[str, str]
    idle: frozenset[str]


DIODE = Known(
    "d",
    "a diode",
    {
        "level": 1.0,
        "is": 1e-14,
        "n": 1.0,
        "rs": 0.0,
        "bv": math.inf,
        "ibv": 1e-3,
        "nbv": math.nan,
        "eg": 1.11,
        "xti": 3.0,
        "tnom": math.nan,
    },
    {"js": "is", "vb": "bv", "ib": "ibv", "pt": "xti", "tref": "tnom"},
    words(
        "cj0 cjo cj cjp cjsw cta ctp ctc fc fcs m mj mjsw vj pb vjsw php tt kf af tlevc jmax imax "
        "vpk mfg type icrating iave ave_current bv_max id_max fv_max pd_max te_max rth0 cth0 nr iss"
    ),
)
MOS = Known(
    "nmos",
    "an NMOS transistor",
    {
        "level": 1.0,
        "kp": 2e-5,
        "vto": 0.0,
        "lambda": 0.0,
        "gamma": 0.0,
        "is": 1e-14,
        "js": 0.0,
        "rd": 0.0,
        "rs": 0.0,
        "rsh": 0.0,
        "ld": 0.0,
        "tnom": math.nan,
    },
    {"vt0": "vto"},
    words(
        "cgso cgdo cgbo cbd cbs cj cjsw mj mjsw pb fc kf af tpg nss uexp utra ucrit vmax xj xqc "
        "neff delta phi mfg vds ron qg"
    ),
)
# What acts only where the temperature is not that at which the model was measured.
_WARM = words("trs trs1 trs2 tcv tbv1 tbv2 tm1 tm2 ttt1 ttt2 tikf tlev")
# What KP is computed from where it is not given.
_MOBILITY = words("tox uo u0")
# Below, SPICE takes this saturation current of a diode.
LEAST_SATURATION = 1e-28


def parameters(
    one: Placed, name: str, known: Known, ignored: Callable[[str, str], None]
) -> dict[str, float]:
    """Return the parameters of a model that act at an operating point.

    Raises
    ------
    ConfigError
        Without such a model, or if it has others that act there.
    """
    model: Model = one.scope.model(name, one.card)
    if model.kind != known.kind:
        raise one.card.refuse(f"model {name} is of kind {model.kind.upper()}, not of {known.title}")
    values = dict(known.defaults)
    for given, text in model.settings.items():
        own = known.aliases.get(given, given)
        if own in values:
            values[own] = model.scope.value(text, model.card, given.upper()) if text else 1.0
        elif (
            given in known.idle
            or (known is DIODE and given in _WARM)
            or (known is MOS and given in _MOBILITY and "kp" in model.settings)
        ):
            ignored(f"{given.upper()} of model {name}", model.card.place)
        elif text and not _is_nothing(model.scope, text, model.card):
            raise model.card.refuse(f"{given.upper()} of model {name} is not modelled: it may act")
    return values


def check_warm(one: Placed, name: str) -> None:
    """Refuse what a model has for other temperatures than that it was measured at."""
    model = one.scope.model(name, one.card)
    for setting in sorted(_WARM & set(model.settings)):
        if not _is_nothing(model.scope, model.settings[setting], model.card):
            raise model.card.refuse(
                f"{setting.upper()} of model {name} is modelled at the temperature of TNOM only"
            )


def _is_nothing(scope: Scope, text: str, card: Card) -> bool:
    """Whether a parameter is zero: it is then as good as not there."""
    return scope.value(text, card, "a parameter of a model") == 0


def saturation(
    one: Placed, model: Mapping[str, float], nominal: float, kelvin: float
) -> tuple[float, float]:
    """Return the saturation current at a temperature, and the ideality over 27 degrees.

    As the diode of SPICE has it (Antognetti and Massobrio, Semiconductor Device Modeling with
    SPICE, 1988). The models of the netlist were measured at `nominal` degrees.

    Raises
    ------
    ConfigError
        If the current is too small for SPICE, or not finite.
    """
    tnom = (nominal if math.isnan(model["tnom"]) else model["tnom"]) + KELVIN
    if min(model["is"], model["n"], kelvin, tnom) <= 0:
        raise one.card.refuse("IS, N and the temperatures in kelvins must be positive")
    ratio = kelvin / tnom
    thermal = THERMAL_VOLTAGE * kelvin / NOMINAL
    grown = (ratio - 1) * model["eg"] / thermal + model["xti"] * math.log(ratio)
    # Where the logarithm of a current leaves those of floats, no current is meant.
    exponent = math.log(model["is"]) + grown / model["n"]
    if model["is"] < LEAST_SATURATION or abs(exponent) > 600:
        raise one.card.refuse(
            f"{one.name} has a saturation current of e^{exponent:.3g} A: SPICE takes none below "
            f"{LEAST_SATURATION:g} A"
        )
    return model["is"] * math.exp(grown / model["n"]), model["n"] * kelvin / NOMINAL


def breakdown(
    model: Mapping[str, float], saturation: float, size: float, kelvin: float
) -> tuple[float, float, float]:
    """Return the diode of a breakdown: its source, its saturation current, its ideality.

    IBV flows at BV. The current is IS exp((v - BV')/(NBV Vt)), without the 1 that a diode takes
    away.
    """
    slope = model["n"] if math.isnan(model["nbv"]) else model["nbv"]
    thermal = THERMAL_VOLTAGE * kelvin / NOMINAL
    current = model["ibv"] * size
    at = model["bv"]
    if current >= saturation * model["bv"] / thermal:
        at -= slope * thermal * math.log1p(current / saturation)
        for _ in range(25):
            beyond = current / saturation + 1 - at / thermal
            at = model["bv"] - slope * thermal * math.log(beyond)
    at += slope * thermal * math.log(_FAINTER)
    return at, saturation * _FAINTER, slope * kelvin / NOMINAL
