"""The calls that a chat must make, as the grammar of its answer. Knows no engine."""

from __future__ import annotations

from lostwax.server.engine.messages import INVALID_GRAMMAR
from lostwax.server.formats.encoders import Format
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.response_format import Asked
from lostwax.server.gateway.tool_models import NamedChoice
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.tool_grammar import Choice, tool_grammar


def asked_calls(request: ChatRequest, format: Format) -> Asked | None:
    """What `tool_choice` and strict tools ask of an answer in this format of calls; None where it
    is free. ApiError where a strict tool's schema cannot be held."""
    if not request.forces_calls:
        return None
    param = "tools" if request.tool_choice in (None, "auto") else "tool_choice"
    if format == "none":
        message = (
            "no calls are read here (this model has none, or serve got --tool-call-parser none), so"
            " none can be required or held to a schema; send tool_choice auto, and tools without"
            " strict"
        )
        raise ApiError(400, message, code="unsupported_value", param=param)
    asked = request.tool_choice or "auto"
    choice: Choice = {"name": asked.function.name} if isinstance(asked, NamedChoice) else asked
    tools = [function.held() for function in request.functions_told]
    try:
        grammar = tool_grammar(
            format, tools, choice, parallel=request.parallel_tool_calls is not False
        )
    except BadGrammar as error:
        raise ApiError(400, str(error), code=INVALID_GRAMMAR, param=param) from error
    return None if grammar is None else Asked(grammar, param)
