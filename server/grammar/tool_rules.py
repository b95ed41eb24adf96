"""The rules of a grammar of tool calls as they are made, of which there may be so many bytes: which
tools' arguments are held, and which are free. Knows no form that calls are written in.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from lostwax.server.grammar.compile_grammar import JSON_OPTIONS
from lostwax.server.grammar.grammar import (
    MAX_DEPTH,
    MAX_TOLD_BYTES,
    MAX_TOOLS_BYTES,
    BadGrammar,
    Held,
    TooLarge,
    depth_of,
    num_bytes_of,
)
from lostwax.server.grammar.tool_schema import require_form

Function = Mapping[str, Any]
"""A tool: its `name`, `parameters`, and whether it is `strict`."""
MAX_SHOWN_CHARS = 64
"""Of a name in a refusal."""
_AROUND_BYTES = 1024
"""Of a grammar's lines that all tools share."""
_AROUND_DEPTH = 2
"""Brackets around a property: its schema's, and those of `properties`."""
_FREE_BYTES = 4096
"""Of the rules that free arguments need, at most."""


class Owner(NamedTuple):
    """Whose arguments are written."""

    name: str
    is_strict: bool

    def part(self, name: str = "", kind: str = "") -> str:
        """A part of them, for a refusal: there is none where they need not be held."""
        whose = f"tool {self.name[:MAX_SHOWN_CHARS]!r}"
        if name:
            whose += f", {kind}{name[:MAX_SHOWN_CHARS]!r}"
        return whose if self.is_strict else ""


class Rules(ABC):
    """Rules of a grammar in Lark's form, as they are made, of which there may be so many bytes."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._held: dict[tuple[str, str, str], Held] = {}
        self._num_bytes = self._num_told = 0
        self._most = MAX_TOOLS_BYTES - _AROUND_BYTES

    @abstractmethod
    def _arguments_of(self, function: Function, *, free: bool) -> str:
        """A rule of the arguments of a call."""

    @abstractmethod
    def _body(self, name: str, arguments: str) -> str:
        """A call of the tool of this name."""

    def all_calls(self, functions: Sequence[Function], *, is_free: bool) -> list[str]:
        """A rule of a call of each tool; where the answer `is_free`, strict ones alone are held.

        Where the grammar would become too large, the arguments of the first tool that need not be
        held and has no room, and of all such behind it, are free: no schema is looked at in vain
        but one.
        """
        owners = [Owner(str(each.get("name")), bool(each.get("strict"))) for each in functions]
        for function, owner in zip(functions, owners, strict=True):
            if owner.is_strict or not is_free:
                _require_form(function)
        heads = sum(num_bytes_of(self._body(owner.name, "r0000")) + 24 for owner in owners)
        most_free = self._most - heads
        arguments, is_full = dict[int, str](), is_free
        for number in sorted(range(len(owners)), key=lambda each: not owners[each].is_strict):
            function, must = functions[number], owners[number].is_strict
            if must or not is_full:
                before = len(self._names), len(self._held), self._num_bytes, self._num_told
                self._most = most_free - _FREE_BYTES
                try:
                    arguments[number] = self._arguments_of(function, free=False)
                    continue
                except TooLarge:
                    if must:
                        raise
                self._go_back(*before)
                is_full = True
            self._most = most_free
            arguments[number] = self._arguments_of(function, free=True)
        self._most = most_free + heads
        return [self.rule(self._body(own.name, arguments[n])) for n, own in enumerate(owners)]

    def _go_back(self, num_names: int, num_held: int, num_bytes: int, num_told: int) -> None:
        """Forget the rules that were made since then."""
        self._names = dict(list(self._names.items())[:num_names])
        self._held = dict(list(self._held.items())[:num_held])
        self._num_bytes, self._num_told = num_bytes, num_told

    def rule(self, body: str, *, is_lexeme: bool = False) -> str:
        """The name of a body: equal ones have the same. Raises TooLarge where all are too much:
        what is not going to be followed is not made to its end."""
        if body not in self._names:
            name = f"{'T' if is_lexeme else 'r'}{len(self._names)}"
            self._count(f"{name}: {body}\n")
            self._names[body] = name
        return self._names[body]

    def held(self, schema: Any, end: str, whose: str, remedy: str = "", *, free: str = "") -> str:
        """The name of a rule of JSON, which has none of `rule`'s names: as a `Held` says. Of a
        schema that is nested too deep it is `free`, or BadGrammar names whose it is."""
        said = _json(schema)
        key = (said, end, free)
        if key not in self._held:
            its = Held(f"j{len(self._held)}", said, end, whose, remedy, free)
            self._count(its.line, its.told)  # first, also of what is freed: looking takes time
            depth = depth_of(said, skips_strings=True)
            if depth > MAX_DEPTH and free:
                return free
            if depth > MAX_DEPTH:
                raise BadGrammar(
                    f"{whose}{_deep_part(schema)}: it is nested {depth} deep, more than"
                    f" {MAX_DEPTH}; make it flatter, or {remedy}"
                )
            self._held[key] = its
        return self._held[key].rule

    @property
    def all_held(self) -> tuple[Held, ...]:
        """All rules of JSON."""
        return tuple(self._held.values())

    def _count(self, read: str, told: str = "") -> None:
        """Add what the library reads, and what a refusal tells."""
        self._num_bytes += num_bytes_of(read)
        self._num_told += num_bytes_of(told)
        if self._num_bytes > self._most or self._num_told > MAX_TOLD_BYTES:
            raise TooLarge(
                f"the tools' schemas make a grammar of more than {MAX_TOOLS_BYTES} bytes; send"
                " fewer tools, smaller schemas, or fewer that are strict"
            )

    @property
    def lines(self) -> list[str]:
        """All but those of JSON."""
        return [f"{name}: {body}" for body, name in self._names.items()]


def _require_form(function: Function) -> None:
    try:
        require_form(function.get("parameters") or {})
    except BadGrammar as error:
        raise BadGrammar(f"tool {function.get('name')!r}: {error}") from error


def _deep_part(schema: Mapping[str, Any]) -> str:
    """The property that is nested too deep alone, where one is."""
    own: Any = schema.get("properties")
    properties = cast("Mapping[str, Any]", own if isinstance(own, Mapping) else {})
    for name, its in properties.items():
        if depth_of(json.dumps(its), skips_strings=True) > MAX_DEPTH - _AROUND_DEPTH:
            return f", in {name[:MAX_SHOWN_CHARS]!r}"
    return ""


def _json(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": JSON_OPTIONS}, ensure_ascii=False)
