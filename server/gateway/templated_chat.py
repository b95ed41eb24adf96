"""Renders a chat by a template that the operator brings. Knows no tokens and no answer.

The template sees what `apply_chat_template` of transformers would give it; what it would leave out
silently is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from lostwax.server.formats.brought_template import ChatTemplate
from lostwax.server.formats.call_arguments import readable_object
from lostwax.server.formats.encoding_v32 import BOS, EOS, THINK
from lostwax.server.formats.mark_pattern import mark_pattern
from lostwax.server.formats.pieces import Piece
from lostwax.server.formats.template_marks import GUARDS, CutMark, guarded, pieces_of
from lostwax.server.gateway.chat_models import ChatRequest, Message
from lostwax.server.gateway.errors import ApiError, Way
from lostwax.server.gateway.unanswered_calls import without_unanswered

GIVEN = ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token")
"""Variables that the server fills, whatever a request's chat_template_kwargs say."""
_REMEDY = "send the whole prompt to /v1/completions"
_TRUST = Way("send", "chat_template_kwargs", ': {"trust_content": true}')


def sampled_variables() -> dict[str, Any]:
    """What a template is tried with, beside messages."""
    return {"tools": None, "add_generation_prompt": True, "bos_token": BOS, "eos_token": EOS}


def templated_pieces(
    request: ChatRequest, template: ChatTemplate, marks: Collection[str]
) -> list[Piece]:
    """The prompt; ApiError where the template, or what a client brings, does not allow one.

    `marks` are the tokenizer's. Those that the template's own texts hold are structure. One that
    comes of other texts, whole or in parts, is refused, unless the request says trust_content:
    then all of the prompt is structure.
    """
    if request.continue_final_message:
        message = (
            "a chat template opens a turn of its own and cannot go on with the last message; leave"
            f" it out, or {_REMEDY}"
        )
        raise _refused("continue_final_message", message)
    if request.offered and "tools" not in template.reads:
        message = "the server's chat template shows no tools to the model; leave them out"
        raise _refused("tools", message)
    asked = request.variables
    for name in asked:
        if name in GIVEN:
            raise _refused(f"chat_template_kwargs.{name}", "the server sets it; leave it out")
    _require_read(asked, template)
    own = frozenset[str]() if request.template.trust_content else frozenset({*marks, THINK})
    request = without_unanswered(request)
    variables = sampled_variables() | {
        "bos_token": guarded(BOS, own),
        "eos_token": guarded(EOS, own),
        "messages": [
            _turn(index, rendered, message)
            for index, (rendered, message) in enumerate(
                zip(request.turns(), request.messages, strict=True)
            )
        ],
        "tools": request.offered or None,
    }
    if own:
        _require_no_guards([asked, variables["messages"], variables["tools"]])
    text = _rendered(template, variables | asked, own)
    if not own:
        return [Piece(text, True)]
    try:
        pieces = pieces_of(text, own)
    except CutMark as error:
        message = f"{error}; mend it, or {_TRUST}"
        raise ApiError(400, message, code="template_failed", param="messages") from error
    _require_no_marks(pieces, frozenset(marks))
    return pieces


def _rendered(template: ChatTemplate, variables: dict[str, Any], own: frozenset[str]) -> str:
    # Who brings no template needs no jinja2.
    from lostwax.server.formats.chat_template import TemplateFault, TemplateRefusal
    from lostwax.server.formats.template_apart import render_apart

    try:
        text = render_apart(template, variables, own)
    except TemplateRefusal as error:
        message = f"the server's chat template refuses them: {error}"
        raise _refused("messages", message) from error
    except TemplateFault as error:
        raise ApiError(400, str(error), code="template_failed", param="messages") from error
    if not text:
        raise _refused("messages", "the server's chat template writes nothing for them; add one")
    return text


def _require_read(asked: dict[str, Any], template: ChatTemplate) -> None:
    """ApiError where something is asked for of which the template knows nothing."""
    said = {"thinking", "enable_thinking"} & asked.keys()
    is_read = bool(said & template.reads)
    for name, value in asked.items():
        if value and name not in template.reads and not (name in said and is_read):
            message = f"the server's chat template reads no variable {name!r}; leave it out"
            raise _refused(f"chat_template_kwargs.{name}"[:256], message)


def _turn(index: int, rendered: dict[str, Any], message: Message) -> dict[str, Any]:
    """A message as templates read them: its content is one text, arguments of calls are objects."""
    if {"tools", "response_format"} & rendered.keys():
        said = (
            "a chat template reads no tools or schema of a message; send them beside the messages"
        )
        raise _refused(f"messages[{index}]", said)
    turn: dict[str, Any] = {**rendered, "content": message.text}
    if message.name is not None:
        turn["name"] = message.name
    for number, call in enumerate(message.tool_calls or ()):
        arguments = readable_object(call.function.arguments_text)
        turn["tool_calls"][number]["function"]["arguments"] = arguments
    return turn


def _require_no_marks(pieces: list[Piece], marks: frozenset[str]) -> None:
    pattern = mark_pattern(marks)
    for piece in pieces:
        if not piece.is_structure and (found := pattern.search(piece.text)):
            message = (
                f"the prompt holds {found[0]!r} as text: a client's texts bring it, whole or in"
                " parts, or the chat template puts it together of parts; leave it out"
            )
            raise _refused("messages", message, _TRUST)


def _require_no_guards(values: list[Any]) -> None:
    for text in _texts(values):
        for guard in GUARDS:
            if guard in text:
                message = f"a text holds U+{ord(guard):X}, which is no character; leave it out"
                raise _refused("messages", message)


def _texts(values: list[Any]) -> Iterator[str]:
    """All texts and names in these values, without recursion."""
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += [*value.keys(), *value.values()]  # pyright: ignore[reportUnknownMemberType]
        elif isinstance(value, list):
            left += value


def _refused(param: str, message: str, way: Way | None = None) -> ApiError:
    message = f"{param!r}: {message}"
    return ApiError(400, message, code="unsupported_value", param=param, way=way)
