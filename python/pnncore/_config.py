"""Settings that check themselves, and go to files and back."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from pnncore._convert import flag, made, number, positive_int


@dataclass(frozen=True)
class Config:
    """Base of plain settings, whose `repr` tells those that are not the default."""

    def __post_init__(self) -> None:
        """Validate at once: `ConfigError` names the setting. Ranges are checked by the core."""
        for setting in dataclasses.fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if setting.type is bool:
                object.__setattr__(self, name, flag(value, name))
            if setting.type is int or (setting.type == int | None and value is not None):
                object.__setattr__(self, name, positive_int(value, name))
            if setting.type is float or (setting.type == float | None and value is not None):
                object.__setattr__(self, name, number(value, name))

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, as checkpoints keep them."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}

    @classmethod
    def restore(cls, settings: dict[str, Any]) -> Self:
        """Return what `to_config` told, less the name."""
        return made(cls, settings, cls.__name__)

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(shown)})"
