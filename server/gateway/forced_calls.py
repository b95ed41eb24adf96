"""The calls that a chat must make, or may make, as the grammar of its answer. Knows no engine."""

from __future__ import annotations

from typing import Any

import msgspec

from lostwax.server.engine.messages import INVALID_GRAMMAR
from lostwax.server.formats.encoders import Format
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.response_format import Asked
from lostwax.server.gateway.tool_models import NamedChoice
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.tool_grammar import Choice, tool_grammar


def asked_calls(request: ChatRequest, format: Format) -> Asked | None:
    """What `tool_choice`, strict tools and a `response_format` beside tools ask of an answer in
    this format of calls; None where it is free. ApiError where a strict tool's schema, or that
    format's, cannot be held."""
    if not request.forces_calls:
        return None
    is_free = request.tool_choice in (None, "auto")
    param = "tools" if is_free else "tool_choice"
    if is_free and request.format is not None:
        param = request.format.param  # it alone asks, where no tool is strict
    if format == "none":
        if is_free and not any(function.strict for function in request.functions_told):
            return None  # no call is read: the answer is of the format
        message = (
            "no calls are read here (this model has none, or serve got --tool-call-parser none), so"
            " none can be required or held to a schema; send "
        )
        message += "tools without strict" if is_free else "tool_choice auto"
        raise ApiError(400, message, code="unsupported_value", param=param)
    asked = request.tool_choice or "auto"
    choice: Choice = {"name": asked.function.name} if isinstance(asked, NamedChoice) else asked
    tools = [function.held() for function in request.functions_told]
    is_parallel = request.parallel_tool_calls is not False
    try:
        answer = _answer(request) if is_free else None
        grammar = tool_grammar(format, tools, choice, parallel=is_parallel, answer=answer)
    except BadGrammar as error:
        raise ApiError(400, str(error), code=INVALID_GRAMMAR, param=param) from error
    return None if grammar is None else Asked(grammar, param)


def _answer(request: ChatRequest) -> dict[str, Any] | None:
    """The JSON schema of an answer that calls nothing. BadGrammar where it is none."""
    if request.format is None:
        return None
    grammar = request.format.grammar
    if grammar.kind == "json_object":
        return {"type": "object"}
    assert grammar.kind == "json_schema", "requests refuse other forms beside tools"
    grammar.require_small()
    try:
        return msgspec.json.decode(grammar.text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadGrammar(f"{request.format.param}: {error}") from error
