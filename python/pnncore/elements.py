"""Two-terminal elements of circuits, and what is fed in and measured.

Plain data, which `pnncore.systems.Circuit` joins by the names of their nodes.

Voltages are in volts, currents in amperes, conductances in siemens (or any units that fit each
other).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pnncore._config import ByValue, Registered
from pnncore._convert import flag, made, node_name, number, shown
from pnncore.errors import ConfigError

__all__ = [
    "Cubic",
    "Current",
    "CurrentSource",
    "Difference",
    "Diode",
    "Element",
    "IdealDiode",
    "Resistor",
    "Transistor",
    "VoltageSource",
    "from_config",
]

THERMAL_VOLTAGE = 1.380649e-23 * 300.15 / 1.602176634e-19
"""k T / q at 27 °C, the temperature that SPICE assumes: 25.9 mV."""


_POSITIVE = ("conductance", "scale", "saturation", "ideality", "strength")


@dataclass(frozen=True, repr=False, eq=False)
class Element(ByValue, Registered, family="element"):
    """Base of all elements: two terminals, and settings that are checked when it is made.

    Parameters
    ----------
    plus, minus
        The names of the nodes of the first and the second terminal; whole numbers become names. V
        is the voltage of the first over the second, and I flows through the element from the first
        to the second.
    """

    plus: str
    minus: str

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        what = type(self).__name__
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if setting.type is str:
                value = node_name(value)
                object.__setattr__(self, setting.name, value)
            if setting.type is str and not (isinstance(value, str) and value):
                raise ConfigError(
                    f"{what}: {setting.name} must be the name of a node, got {shown(value)}"
                )
            if setting.type is float:
                value = number(value, f"{what}: {setting.name}", positive=setting.name in _POSITIVE)
                object.__setattr__(self, setting.name, value)
            if setting.type is bool:
                object.__setattr__(self, setting.name, flag(value, f"{what}: {setting.name}"))
        if self.plus == self.minus:
            raise ConfigError(f"{what}: both terminals are at node {self.plus!r}")

    def law(self) -> dict[str, Any]:
        """Return what the core reads of it, terminals left out."""
        raise TypeError("use a concrete element, such as Resistor")

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, as checkpoints keep them."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}


@dataclass(frozen=True, repr=False, eq=False)
class Resistor(Element):
    """I = conductance * V.

    Parameters
    ----------
    conductance
        The conductance; where it is trained, the initial one.
    trained
        Whether it is a parameter of the circuit.
    """

    conductance: float = 1.0
    trained: bool = True

    def law(self) -> dict[str, Any]:
        """Return what the core reads of it, terminals left out."""
        return {"law": "resistor", "value": self.conductance, "trained": self.trained}


@dataclass(frozen=True, repr=False, eq=False)
class Cubic(Element):
    """I = conductance * V * (1 + (V / scale)²).

    Parameters
    ----------
    conductance
        The conductance at small voltages; where it is trained, the initial one.
    scale
        The voltage at which the cubic term equals the linear one.
    trained
        Whether the conductance is a parameter of the circuit.
    """

    conductance: float = 1.0
    scale: float = 1.0
    trained: bool = True

    def law(self) -> dict[str, Any]:
        """Return what the core reads of it, terminals left out."""
        return {
            "law": "cubic",
            "scale": self.scale,
            "value": self.conductance,
            "trained": self.trained,
        }


@dataclass(frozen=True, repr=False, eq=False)
class Diode(Element):
    """An exponential diode, from the anode (`plus`) to the cathode (`minus`).

    I = saturation * (exp(V / (ideality * 25.9 mV)) - 1).

    Parameters
    ----------
    saturation
        The saturation current.
    ideality
        The ideality factor.
    """

    saturation: float = 1e-14
    ideality: float = 1.0

    def law(self) -> dict[str, Any]:
        """Return what the core reads of it, terminals left out."""
        return {
            "law": "diode",
            "saturation": self.saturation,
            "slope": self.ideality * THERMAL_VOLTAGE,
        }


@dataclass(frozen=True, repr=False, eq=False)
class IdealDiode(Element):
    """V <= 0, by whatever current from the anode (`plus`) to the cathode (`minus`) keeps it so.

    Where one of the two is ground or held by a voltage source the diode is a wall for the voltage
    of the other, which costs nothing; between two free nodes it takes a few more Newton steps.
    """

    def law(self) -> dict[str, Any]:
        """Return what the core reads of it, terminals left out."""
        return {"law": "ideal-diode"}


@dataclass(frozen=True, repr=False, eq=False)
class Transistor(Element):
    """A field-effect transistor between drain and source, which may change places.

    It is an edge with a gate that learns.

    With V1 and V2 the voltages of `plus` and `minus` over ground, a = gate - threshold, I =
    strength / 2 * (max(a - V2, 0)² - max(a - V1, 0)²): MOS level 1 (Shichman and Hodges 1968).
    While both stay below a, that is a resistor of conductance ``strength * (a - (V1 + V2) / 2)``;
    beyond it saturates, and blocks.

    The current is not a function of V1 - V2 alone, so a circuit with transistors has no energy. It
    settles all the same; equilibrium propagation and its relatives then use the local rule of the
    learning circuits of Dillavou et al. (PNAS 2024), strength * V² / 2 for the gate, which is near
    to the gradient but not equal: `pnncore.audit` tells how near. `ImplicitDifferentiation` is
    exact.

    Parameters
    ----------
    gate
        The voltage of the gate over ground; where it is trained, the initial one.
    strength
        The conductance per volt of the gate.
    threshold
        The voltage of the gate over a terminal below which nothing flows out of it.
    trained
        Whether the gate is a parameter of the circuit.
    """

    gate: float = 3.0
    strength: float = 1.0
    threshold: float = 0.0
    trained: bool = True

    def law(self) -> dict[str, Any]:
        """Return what the core reads of it, terminals left out."""
        return {
            "law": "transistor",
            "strength": self.strength,
            "threshold": self.threshold,
            "value": self.gate,
            "trained": self.trained,
        }


@dataclass(frozen=True, repr=False, eq=False)
class CurrentSource(Element):
    """I = current, whatever the voltage: it takes current from `plus` and feeds it into `minus`.

    Parameters
    ----------
    current
        The current; where it is trained, the initial one.
    trained
        Whether it is a parameter of the circuit.
    """

    current: float = 0.0
    trained: bool = False

    def law(self) -> dict[str, Any]:
        """Return what the core reads of it, terminals left out."""
        return {"law": "current-source", "value": self.current, "trained": self.trained}


@dataclass(frozen=True, repr=False, eq=False)
class VoltageSource(Element):
    """V = voltage, whatever the current; between any two nodes.

    Parameters
    ----------
    voltage
        The voltage.
    """

    voltage: float = 0.0


@dataclass(frozen=True)
class Current:
    """A current, as an input or an output of a `pnncore.systems.Circuit`.

    As an input, x flows from `plus` to `minus` through a source, as in `CurrentSource`:
    ``Current("0", "a")`` feeds it into node ``a``. As an output, it is what flows from `plus` to
    `minus` through the `VoltageSource` between them, which is an ammeter where it has 0 V: that of
    a column of a crossbar at virtual ground, for one. With `plus` alone, it is what flows out of
    the circuit into that held node, an input or ground.

    Nudging such an output is a voltage in series with the source.

    Parameters
    ----------
    plus, minus
        Names of nodes.
    """

    plus: str
    minus: str | None = None

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        _check_ends(self, may_lack="minus")

    def __str__(self) -> str:
        return f"i({self.plus})" if self.minus is None else f"i({self.plus},{self.minus})"


@dataclass(frozen=True)
class Difference:
    """A difference of voltages, as an output of a `pnncore.systems.Circuit`.

    It is what a voltmeter shows: the voltage of `plus` over `minus`. Nudging it is a current
    between the two.

    Parameters
    ----------
    plus, minus
        Names of nodes.
    """

    plus: str
    minus: str

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting."""
        _check_ends(self)

    def __str__(self) -> str:
        return f"v({self.plus},{self.minus})"


def nodes_of(end: str | Current | Difference) -> list[str]:
    """Return the nodes that an input or an output of a circuit names."""
    if isinstance(end, str):
        return [end]
    return [end.plus] if end.minus is None else [end.plus, end.minus]


def _check_ends(one: Current | Difference, may_lack: str | None = None) -> None:
    for name in ("plus", "minus"):
        node = node_name(getattr(one, name))
        if not (isinstance(node, str) and node) and not (node is None and name == may_lack):
            raise ConfigError(
                f"{type(one).__name__}: {name} must be the name of a node, got {shown(node)}"
            )
        object.__setattr__(one, name, node)
    if one.plus == one.minus:
        raise ConfigError(f"{type(one).__name__}: both ends are at node {one.plus!r}")


def from_config(config: dict[str, Any]) -> Element:
    """Return the element of an `Element.to_config` dictionary."""
    kind, settings = Element.chosen(config)
    return made(kind, settings, kind.__name__)
