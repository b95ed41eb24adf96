"""Renders a chat's messages as the token ids of its prompt. Knows no engine and no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lostwax.server.engine.messages import EngineInfo
from lostwax.server.formats.brought_template import ChatTemplate
from lostwax.server.formats.encoders import FORMAT_OF, Format
from lostwax.server.formats.encoding_v31 import TOOL_MARKS
from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    DSML,
    EOS,
    THINK,
    THINK_END,
    USER,
    encode_pieces,
)
from lostwax.server.formats.pieces import Piece, joined
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.chat_pieces import chat_pieces, ends_inside_reasoning, refused
from lostwax.server.gateway.chat_settings import HAS_CHAT, OF_CHECKPOINT, ChatSettings
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.fitting import require_fitting
from lostwax.server.gateway.templated_chat import templated_pieces
from lostwax.server.gateway.tokenizer import Codec, MarkInText

_MARKS = (BOS, EOS, USER, ASSISTANT, THINK, THINK_END)
_SPOKEN = (THINK, THINK_END, DSML, *TOOL_MARKS)
"""Marks that an answer is read by; all others have no text in it."""
_REMEDY = "send the whole prompt to /v1/completions"
_SAMPLE = encode_pieces(
    [{"role": "system", "content": "a b"}, {"role": "user", "content": " c  "}], "thinking"
)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The prompt, and what its answer must be read with.

    `format` is that of calls, `thinks` that the prompt ends inside reasoning, `ends` are tokens
    after which the turn is not the model's, `silent` those that have no text in an answer.
    """

    ids: list[int]
    format: Format
    thinks: bool
    ends: tuple[int, ...]
    silent: frozenset[int]


def render_chat(
    request: ChatRequest, info: EngineInfo, codec: Codec, chats: ChatSettings = OF_CHECKPOINT
) -> ChatPrompt:
    """The prompt of a chat; ApiError where model, tokenizer or messages do not allow one."""
    if not chats.renders:
        raise ApiError(500, "the body holds a chat, and is read as a text", code=HAS_CHAT)
    if chats.template is not None:
        return _templated(request, info, codec, chats, chats.template)
    encoding = _encoding(info, codec)
    format = FORMAT_OF[encoding]
    has_tools = bool(request.offered) or any(each.tool_calls for each in request.messages)
    if format == "deepseekv31" and has_tools:
        _require_marks(TOOL_MARKS, codec)
    pieces = chat_pieces(request, encoding)
    thinks = ends_inside_reasoning(request, pieces)
    return _tokenised(pieces, info, codec, chats.calls or format, thinks=thinks)


def _templated(
    request: ChatRequest,
    info: EngineInfo,
    codec: Codec,
    chats: ChatSettings,
    template: ChatTemplate,
) -> ChatPrompt:
    """The prompt that a template writes. An open `<think>` of the template's at its end says that
    the model goes on reasoning."""
    if not codec.can_encode:
        message = f"this checkpoint has no tokenizer, which chats need; {_REMEDY}"
        raise ApiError(400, message, code="unsupported_value")
    _require_marks((EOS,), codec)
    pieces = templated_pieces(request, template, codec.marks)
    last = next((piece for piece in reversed(pieces) if piece.text.strip()), None)
    thinks = last is not None and last.is_structure and last.text.rstrip().endswith(THINK)
    if thinks:
        _require_marks((THINK, THINK_END), codec)
    format = chats.calls or FORMAT_OF.get(info.chat_encoding or "", "none")
    return _tokenised(pieces, info, codec, format, thinks=thinks)


def _tokenised(
    pieces: list[Piece], info: EngineInfo, codec: Codec, format: Format, *, thinks: bool
) -> ChatPrompt:
    require_fitting(joined(pieces), info.max_context, codec, "messages")
    marks = codec.marks
    try:
        ids = codec.encode_pieces(pieces)
    except MarkInText as error:
        raise refused(f"{error}; leave it out of the messages") from error
    return ChatPrompt(
        ids,
        format,
        thinks,
        tuple(marks[mark] for mark in (EOS, USER, ASSISTANT) if mark in marks),
        frozenset(i for mark, i in marks.items() if mark not in _SPOKEN),
    )


def _encoding(info: EngineInfo, codec: Codec) -> str:
    """How the model's chats are written; ApiError where they cannot be here."""
    message = ""
    if info.chat_encoding is None:
        message = (
            "this artifact names no chat encoding: its checkpoint brings a chat template, which is"
            " not run unless serve --chat-template FILE names it, or an older lostwax compiled it"
            " (then compile it again)"
        )
    elif info.chat_encoding not in FORMAT_OF:
        known = ", ".join(map(repr, FORMAT_OF))
        message = f"chat encoding {info.chat_encoding!r} is not known here; {known} are"
    elif not codec.can_encode:
        message = "this checkpoint has no tokenizer, which chats need"
    if message or info.chat_encoding is None:
        raise ApiError(400, f"{message}; {_REMEDY}", code="unsupported_value")
    _require_marks(_MARKS, codec)
    if codec.encode_pieces(_SAMPLE) != codec.encode_rendered(joined(_SAMPLE)):
        message = "the tokenizer joins its marks with the text around them, which chats cannot"
        raise ApiError(400, f"{message}; {_REMEDY}", code="unsupported_value")
    return info.chat_encoding


def _require_marks(marks: Sequence[str], codec: Codec) -> None:
    missing = [mark for mark in marks if mark not in codec.marks]
    if missing:
        message = f"the tokenizer has no token {' or '.join(missing)}, which chats need; {_REMEDY}"
        raise ApiError(400, message, code="unsupported_value")
