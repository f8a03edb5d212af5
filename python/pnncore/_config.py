"""Settings that check themselves, and go to files and back."""

import dataclasses
import reprlib
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pnncore._convert import as_settings, flag, made, number, one_of, positive_int, shown
from pnncore.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def types_of(kind: type) -> dict[str, Any]:
    """Return the types of the settings of a dataclass, also where annotations are text."""
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):
        # Names that only a type checker sees: nothing is known of these.
        return {}


class Registered:
    """Base of the families of classes that configurations name.

    Each class of pnncore puts itself into its family.

    Classes of a user are of this process only: no file makes one by its name.

    Parameters
    ----------
    family
        What the classes that derive from this one are called in messages; only the base of a family
        says so.
    listed
        Whether the class is one that a configuration names.
    """

    _family: ClassVar[str]
    _kinds: ClassVar[dict[str, Any]]

    def __init_subclass__(
        cls, *, family: str | None = None, listed: bool = True, **rest: Any
    ) -> None:
        super().__init_subclass__(**rest)
        if family is not None:
            cls._family, cls._kinds = family, {}
        elif listed and cls.__module__.partition(".")[0] == "pnncore":
            cls._kinds[cls.__name__] = cls

    @classmethod
    def kinds(cls) -> dict[str, type[Self]]:
        """Return all classes of the family by name, in the order in which they are defined."""
        return dict(cls._kinds)

    @classmethod
    def chosen(cls, config: Any) -> tuple[type[Self], dict[str, Any]]:
        """Return the class that a `to_config` dictionary names, and its other settings.

        `ConfigError` for none.
        """
        settings, kinds = as_settings(config, f"a {cls._family}"), cls.kinds()
        name = settings.pop("name", None)
        if not isinstance(name, str) or name not in kinds:
            raise ConfigError(f"unknown {cls._family} {shown(name)}; known: {', '.join(kinds)}")
        return kinds[name], settings


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def check_settings(settings: "DataclassInstance") -> None:
    """Check flags, whole numbers, numbers and choices among the settings of a dataclass.

    They become plain values of Python; `ConfigError` names the setting.
    """
    kinds = types_of(type(settings))
    for setting in dataclasses.fields(settings):
        name, value, kind = setting.name, getattr(settings, setting.name), kinds.get(setting.name)
        choices = next(filter(_is_literal, (kind, *typing.get_args(kind))), None)
        if choices is not None and kind in (choices, choices | None):
            one_of(value, name, typing.get_args(choices), optional=kind != choices)
        if kind is bool:
            object.__setattr__(settings, name, flag(value, name))
        if kind is int or (kind == int | None and value is not None):
            object.__setattr__(settings, name, positive_int(value, name))
        if kind is float or (kind == float | None and value is not None):
            object.__setattr__(settings, name, number(value, name))


def _compared(settings: Any) -> tuple[Any, ...]:
    """Return the values of the fields that make dataclasses equal."""
    return tuple(getattr(settings, f.name) for f in dataclasses.fields(settings) if f.compare)


class ByValue:
    """Base of dataclasses that are what their fields are: equal ones are one.

    Says once what a dataclass would compile for every class by itself, which half of the time of an
    import would go to: derive by ``@dataclass(frozen=True, repr=False, eq=False)``.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _compared(self) == _compared(other)

    def __hash__(self) -> int:
        return hash(_compared(self))

    def __repr__(self: "DataclassInstance") -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr]
        return f"{type(self).__qualname__}({', '.join(shown)})"


def _brief(value: Any) -> str:
    """Return the `repr` of a setting; of long lists only how they begin."""
    text = repr(value)
    return text if len(text) <= 400 else reprlib.repr(value)


@dataclass(frozen=True, repr=False, eq=False)
class Config(ByValue):
    """Base of plain settings, whose `repr` tells those that are not the default."""

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting. Ranges are checked by the core."""
        check_settings(self)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, as checkpoints keep them."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}

    @classmethod
    def restore(cls, settings: dict[str, Any]) -> Self:
        """Return what `to_config` told, less the name."""
        return made(cls, settings, cls.__name__)

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)
        shown = [
            f"{f.name}={_brief(getattr(self, f.name))}"
            for f in fields
            if getattr(self, f.name) != f.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"
