"""A grammar as a request brings it, and the bounds that hold before anything is done with it."""

from __future__ import annotations

from typing import Literal

import msgspec

MAX_BYTES = 64 << 10
"""Of a grammar's text."""
MAX_TOOLS_BYTES = 160 << 10
"""Of one that was made of tools: it repeats their names, and options for each parameter."""
MAX_TOLD_BYTES = 40 << 10
"""Of what such a one says for its refusals alone, which nobody follows."""
MAX_DEPTH = 64
"""Brackets inside one another."""
Kind = Literal["json_object", "json_schema", "regex", "choice", "lark", "ebnf", "tools"]
_OPENING, _CLOSING = frozenset("[{("), frozenset("]})")


class BadGrammar(ValueError):
    """A grammar that is not followed; the message says why, and what to do."""


class TooLarge(BadGrammar):
    """More than is followed."""


class Held(msgspec.Struct, frozen=True):
    """A rule of a grammar that was made of tools: JSON of a `schema` (with the library's options in
    it), then `end` in Lark's form.

    Where the library cannot hold the schema, the rule `free` comes in its place; where that is
    empty, the grammar is refused in the name of `whose`, with a `remedy`.
    """

    rule: str
    schema: str
    end: str
    whose: str = ""
    remedy: str = ""
    free: str = ""

    @property
    def line(self) -> str:
        """The rule in Lark's form."""
        return f"{self.rule}: %json {self.schema} {self.end}\n"

    @property
    def freed(self) -> str:
        """The one in its place."""
        return f"{self.rule}: {self.free}\n"

    @property
    def told(self) -> str:
        """What it says for a refusal."""
        return self.whose + self.remedy


class Grammar(msgspec.Struct, frozen=True):
    """What an answer has to be, from its first token to its last.

    `text` is the JSON schema, the regular expression (of the whole answer), the JSON list of
    choices, or the grammar in Lark's form (one that was made of `tools`, too, whose rules of JSON
    are `held`) or in EBNF (GBNF's form); empty for a `json_object`.
    """

    kind: Kind
    text: str = ""
    held: tuple[Held, ...] = ()

    def require_small(self) -> None:
        """Raises BadGrammar where it is larger, or nested deeper, than any is read."""
        num_bytes = num_bytes_of(self.text) + sum(num_bytes_of(each.line) for each in self.held)
        most = MAX_TOOLS_BYTES if self.kind == "tools" else MAX_BYTES
        if num_bytes > most:
            raise BadGrammar(f"it has {num_bytes} bytes, more than {most}; send a smaller one")
        if sum(num_bytes_of(each.told) for each in self.held) > MAX_TOLD_BYTES:
            raise BadGrammar(f"its names have more than {MAX_TOLD_BYTES} bytes; send shorter ones")
        skips = self.kind in ("json_schema", "choice", "tools")
        texts = (self.text, *(each.schema for each in self.held))
        depth = max(depth_of(text, skips_strings=skips) for text in texts)
        if depth > MAX_DEPTH:
            raise BadGrammar(f"it is nested {depth} deep, more than {MAX_DEPTH}; make it flatter")


def num_bytes_of(text: str) -> int:
    """Bytes of a text, half a character included."""
    return len(text.encode(errors="replace"))


def depth_of(text: str, *, skips_strings: bool) -> int:
    """How many brackets stand inside one another, those behind a backslash left out."""
    depth = most = 0
    in_string = is_escaped = False
    for character in text:
        if is_escaped or character == "\\":
            is_escaped = not is_escaped
        elif character == '"' and skips_strings:
            in_string = not in_string
        elif in_string:
            continue
        elif character in _OPENING:
            depth += 1
            most = max(most, depth)
        elif character in _CLOSING:
            depth = max(depth - 1, 0)
    return most
