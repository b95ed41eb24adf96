"""Reads typed fields of a JSON object, with errors that name the field. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from lostwax.ir.contract.one_line import one_line


class ConfigError(ValueError):
    """The configuration is not one that lostwax can serve; the message names the field."""


MAX_INTEGER = (1 << 31) - 1
MAX_VALUE = 80  # characters of a value in a message
MAX_NUMBER = 1e12  # no field of a real config comes near; larger ones are nonsense


def shown(value: object) -> str:
    """A foreign value in a message: one line of bounded length, control characters escaped."""
    return one_line(repr(value), MAX_VALUE)


def same(one: object, other: object) -> bool:
    """Whether JSON says the same with both: true is no 1, and false no 0, as Python takes them."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def one_of(value: object, values: Iterable[object]) -> bool:
    """Whether JSON says the same with the value and one of the others."""
    return any(same(value, other) for other in values)


@dataclass(frozen=True, slots=True)
class Fields:
    """Typed access to a JSON object. `path` prefixes the names in messages."""

    raw: Mapping[str, Any]
    path: str = ""

    def integer(
        self, name: str, default: int | None = None, *, least: int = 1, most: int = MAX_INTEGER
    ) -> int:
        """An integer in `least`..`most`; required when there is no default."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{self.path}{name} is {shown(value)}, wants an integer")
        if not least <= value <= most:
            wants = f"at least {least}" if value < least else f"at most {most}"
            raise ConfigError(f"{self.path}{name} is {shown(value)}, wants {wants}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive finite number."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{self.path}{name} is {shown(value)}, wants a number")
        if not 0 < value <= MAX_NUMBER:  # nor NaN
            raise ConfigError(
                f"{self.path}{name} is {shown(value)}, wants a positive number up to {MAX_NUMBER:g}"
            )
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.path}{name} is {shown(value)}, wants true or false")
        return value

    def token(self, name: str) -> int | None:
        """A token id, or None."""
        return None if self.raw.get(name) is None else self.integer(name, least=0)

    def tokens(self, name: str) -> tuple[int, ...]:
        """Token ids: absent, one, or a list; each once."""
        value = self.raw.get(name)
        if not isinstance(value, list):
            one = self.token(name)
            return () if one is None else (one,)
        items = cast("list[Any]", value)
        each = (Fields({name: item}, self.path).integer(name, least=0) for item in items)
        return tuple(dict.fromkeys(each))

    def only(self, name: str, *values: object) -> None:
        """The field is absent, null or has one of the values that are implemented."""
        got = self.raw.get(name)
        if got is not None and not one_of(got, values):
            only = " or ".join(map(repr, values))
            raise ConfigError(f"{self.path}{name} is {shown(got)}; lostwax implements {only} only")

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, None where it is absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        items = tuple(cast("list[Any]", value)) if isinstance(value, list) else (None,)
        if not all(isinstance(item, str) for item in items):
            got = shown(self.raw[name])
            raise ConfigError(f"{self.path}{name} is {got}, wants a list of strings")
        return cast("tuple[str, ...]", items)

    def child(self, name: str) -> Fields:
        """A nested object."""
        value = self.raw.get(name)
        if not isinstance(value, dict):
            raise ConfigError(f"{self.path}{name} is {shown(value)}, wants an object")
        return Fields(cast("dict[str, Any]", value), f"{self.path}{name}.")

    def _get(self, name: str, default: Any) -> Any:
        value = self.raw.get(name)
        if value is None:
            value = default
        if value is None:
            raise ConfigError(
                f"{self.path}{name} is missing; take it from the official config.json"
            )
        return value
