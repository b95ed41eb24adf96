"""Follows JSON text that comes in pieces: up to where it may yet be a value. Keeps no text.

A call's arguments are streamed before they are whole. What is passed on is always the beginning of
some JSON value, so no part of a call that turns out to be malformed can be read as a whole one; and
`misfit` ends it so that nobody can complete it.
"""

from __future__ import annotations

import re
from typing import Literal

_State = Literal[
    "value", "first item", "first key", "key", "colon", "after", "string", "escape", "hex",
    "number", "word",
]  # fmt: skip

SPACE = " \t\n\r"
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
"""What stands in a string as it is."""
_HEX = frozenset("0123456789abcdefABCDEF")
_WORDS = {"t": "rue", "f": "alse", "n": "ull"}
_NUMBER: dict[str, dict[str, str]] = {
    "-": {"0": "0", "9": "9"},
    "0": {".": ".", "e": "e"},
    "9": {"0": "9", "9": "9", ".": ".", "e": "e"},
    ".": {"0": "fraction", "9": "fraction"},
    "fraction": {"0": "fraction", "9": "fraction", "e": "e"},
    "e": {"+": "sign", "-": "sign", "0": "exponent", "9": "exponent"},
    "sign": {"0": "exponent", "9": "exponent"},
    "exponent": {"0": "exponent", "9": "exponent"},
}
"""What may follow in a number, by what its last character was; 9 stands for 1 to 9."""
_NUMBER_ENDS = frozenset(("0", "9", "fraction", "exponent"))


class JsonPrefix:
    """The state behind the text so far."""

    def __init__(self) -> None:
        self._state: _State = "value"
        self._open: list[str] = []
        self._is_key = False
        self._num_hex = 0
        self._number = ""
        self._word = ""
        self.closed_at: int | None = None
        """Behind the end of the outermost object or array, in the text of the last push."""

    def push(self, text: str, start: int = 0) -> int:
        """Where the text stops to be a part of one JSON value; its end if it does not."""
        self.closed_at = None
        at = start
        while at < len(text):
            if self._state == "string":
                found = _PLAIN.match(text, at)
                at = found.end() if found else at
                if at == len(text):
                    break
            if not self._take(text[at]):
                return at
            at += 1
            if self._state == "after" and not self._open and text[at - 1] in "]}":
                self.closed_at = at
        return at

    def misfit(self) -> str:
        """What makes the text so far the beginning of no JSON object, also for parsers that
        complete what is cut: outside of strings, a bracket that closes nothing that is open, where
        a value or a key belongs. Other text, or a bracket right behind a value, they leave out."""
        hex_digits = "0" * (4 - self._num_hex)
        ends = {"string": '"', "escape": '\\"', "hex": f'{hex_digits}"'}
        bracket = "}" if self._open and self._open[-1] == "]" else "]"
        return f"{ends.get(self._state, '')},{bracket}"

    def _take(self, char: str) -> bool:
        """Whether the character may stand here."""
        if self._state in ("string", "escape", "hex"):
            return self._in_string(char)
        if self._state == "number":
            kind = "9" if char in "123456789" else "e" if char == "E" else char
            if following := _NUMBER[self._number].get(kind):
                self._number = following
                return True
            if self._number not in _NUMBER_ENDS:
                return False
            self._state = "after"
        if self._state == "word":
            fits, self._word = char == self._word[0], self._word[1:]
            self._state = "word" if self._word else "after"
            return fits
        return char in SPACE or self._between(char)

    def _between(self, char: str) -> bool:
        """A character outside strings, numbers and words."""
        state = self._state
        if state in ("first key", "key") and char == '"':
            self._state, self._is_key = "string", True
        elif (state == "first key" and char == "}") or (state == "first item" and char == "]"):
            self._open.pop()
            self._state = "after"
        elif state == "colon" and char == ":":
            self._state = "value"
        elif state == "after":
            return self._after(char)
        elif state in ("value", "first item"):
            return self._value(char)
        else:
            return False
        return True

    def _value(self, char: str) -> bool:
        if char == '"':
            self._state, self._is_key = "string", False
        elif char in "{[":
            self._open.append("}" if char == "{" else "]")
            self._state = "first key" if char == "{" else "first item"
        elif char in _WORDS:
            self._state, self._word = "word", _WORDS[char]
        elif char in "-0123456789":
            self._state, self._number = "number", char if char in "-0" else "9"
        else:
            return False
        return True

    def _after(self, char: str) -> bool:
        """Behind a value: a comma, or the end of what it stands in."""
        if not self._open:
            return False
        if char == ",":
            self._state = "key" if self._open[-1] == "}" else "value"
            return True
        return char == self._open[-1] and bool(self._open.pop())

    def _in_string(self, char: str) -> bool:
        if self._state == "hex":
            self._num_hex += 1
            self._state = "hex" if self._num_hex < 4 else "string"
            return char in _HEX
        if self._state == "escape":
            self._state, self._num_hex = ("hex", 0) if char == "u" else ("string", 0)
            return char in '"\\/bfnrtu'
        if char == '"':
            self._state = "colon" if self._is_key else "after"
        elif char == "\\":
            self._state = "escape"
        else:
            return False
        return True
