"""Reads DeepSeek-V3.1's tool calls, and V3.2-Exp's, from text that comes in pieces.

The arguments are JSON already and are passed on as they come; where they end is for JSON to say,
so that a mark inside one of their strings is a part of it. White space between marks and around the
arguments is taken, and calls outside a block (`bare`), which the models leave out at times.
"""

from __future__ import annotations

import re

from lostwax.server.formats.encoding_v31 import (
    CALL,
    CALL_END,
    CALLS,
    CALLS_END,
    SEPARATOR,
    is_tool_name,
)
from lostwax.server.formats.scanner import CallScanner, Malformed, Waiting

_NAME_END = re.compile("[<\x00-\x1f\x7f\x85\u2028\u2029]")


class V31Calls(CallScanner):
    """Calls of a name, a separator and a JSON object."""

    _begins = (CALLS, CALLS_END, CALL, CALL_END, SEPARATOR)
    _begin = re.compile("|".join(_begins))
    _block = CALLS
    _block_end = CALLS_END
    _call_begin = CALL

    def _call(self) -> Waiting[None]:
        name = yield from self._until(_NAME_END)
        yield from self._one_of("a call has no name, or one that holds a mark", SEPARATOR)
        if not is_tool_name(name):
            raise Malformed("a call names no tool")
        self._begin_call(name)
        yield from self._skip_space()
        wrong = f"the arguments of {self._shown(name)} are no JSON object"
        yield from self._one_of(wrong, "{")
        yield from self._object(wrong)
        yield from self._skip_space()
        more = f"the call of {self._shown(name)} holds more than its JSON object"
        yield from self._one_of(more, CALL_END)
        self._end_call("}")
