"""Reads DeepSeek-V3.2's tool calls (DSML) from text that comes in pieces. Knows no reasoning.

A call's JSON object is written while its parameters come: a string is escaped as it comes, any
other value is passed on as far as it is the beginning of JSON. A value that turns out to be none
makes the call malformed (`scanner.py`): its object never closes.

Beyond what the model's own encoder writes, calls outside a block (`bare`), white space between
tags, an empty element (`invoke name="f"/`) and a JSON object in place of parameters are calls:
models write them, and nobody can take them for something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lostwax.server.formats.coercion import Types, coerced, types_of
from lostwax.server.formats.encoding_v32 import DSML, is_name
from lostwax.server.formats.json_prefix import JsonPrefix
from lostwax.server.formats.scanner import CallScanner, Malformed, Waiting, in_string

_TAG = re.compile(f"</?{DSML}")
_TAG_BEGINS = (f"<{DSML}", f"</{DSML}")
_NAME_END = re.compile('["\x00-\x1f\x7f\x85\u2028\u2029]')
_CALL_END = f"</{DSML}invoke>"
_PARAMETER = f'<{DSML}parameter name="'
_PARAMETER_END = f"</{DSML}parameter>"
_IS_STRING = {'" string="true">': True, '" string="false">': False}


class DsmlCalls(CallScanner):
    """`schemas` are the parameters' by tool: with them, values are read by their types there."""

    _begin = re.compile(f"(?:\n\n)?</?{DSML}")
    _begins = tuple(blank + tag for blank in ("\n\n", "") for tag in _TAG_BEGINS)
    _block = f"<{DSML}function_calls>"
    _block_end = f"</{DSML}function_calls>"
    _call_begin = f'<{DSML}invoke name="'

    def __init__(
        self,
        names: frozenset[str] | None,
        *,
        bare: bool,
        schemas: Mapping[str, Mapping[str, Any]] | None,
    ) -> None:
        super().__init__(names, bare=bare)
        self._schemas = schemas

    def _call(self) -> Waiting[None]:
        name = yield from self._name("a call")
        what = f"the call of {self._shown(name)}"
        if not name:
            raise Malformed("a call names no tool")
        head_end = yield from self._one_of(f"{what} has more than a name", '">', '"/>')
        self._begin_call(name)
        if head_end == '"/>':
            self._end_call("{}")
            return
        yield from self._skip_space()
        wrong = f"{what} holds something else than parameters"
        mark = yield from self._one_of(wrong, _PARAMETER, _CALL_END, "{")
        if mark == "{":
            yield from self._object(f"the arguments of {self._shown(name)} are no JSON object")
            yield from self._skip_space()
            yield from self._one_of(f"{what} holds more than its JSON object", _CALL_END)
            self._end_call("}")
            return
        keys = set[str]()
        while mark == _PARAMETER:
            yield from self._parameter(name, keys)
            yield from self._skip_space()
            mark = yield from self._one_of(wrong, _PARAMETER, _CALL_END)
        self._end_call("}" if keys else "{}")

    def _parameter(self, call: str, keys: set[str]) -> Waiting[None]:
        key = yield from self._name("a parameter")
        what = f"parameter {self._shown(key)} of {self._shown(call)}"
        attribute = yield from self._one_of(f"{what} says not whether it is a string", *_IS_STRING)
        if key in keys:
            raise Malformed(f"{what} stands twice")
        self._add_arguments(f'{", " if keys else "{"}"{in_string(key)}": ')
        keys.add(key)
        is_string = _IS_STRING[attribute]
        types = None if self._schemas is None else types_of(self._schemas.get(call, {}), key)
        if types is not None and not (is_string and types.takes_any_string):
            yield from self._coerced(types, is_string)
        elif is_string:
            self._add_arguments('"')
            yield from self._stream(_TAG, _TAG_BEGINS, self._add_escaped)
            self._add_arguments('"')
        else:
            yield from self._json(f"{what} is no JSON")
        yield from self._one_of(f"a tag of the calls stands in {what}", _PARAMETER_END)

    def _coerced(self, types: Types, is_string: bool) -> Waiting[None]:
        """A value whose type the whole of it decides."""
        text = yield from self._until(_TAG, _TAG_BEGINS)
        self._add_arguments(coerced(text, types, is_string))

    def _json(self, wrong: str) -> Waiting[None]:
        json_text, parts = JsonPrefix(), list[str]()

        def give(text: str) -> None:
            end = json_text.push(text)
            self._add_arguments(text[:end])
            if end < len(text):
                raise Malformed(wrong)
            parts.append(text)

        yield from self._stream(_TAG, _TAG_BEGINS, give)
        self._require_json("".join(parts), wrong)

    def _add_escaped(self, text: str) -> None:
        self._add_arguments(in_string(text))

    def _name(self, what: str) -> Waiting[str]:
        """A name up to its closing quote, which the text stands at."""
        name = yield from self._until(_NAME_END)
        if not (self._text.startswith('"', self._at) and is_name(name)):
            raise Malformed(f"the name of {what} breaks off, or holds the tool calls' mark")
        return name
