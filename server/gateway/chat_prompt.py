"""Renders a chat's messages as the token ids of its prompt. Knows no engine and no answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lostwax.server.engine.messages import EngineInfo
from lostwax.server.formats.encoders import FORMAT_OF, Format, encode_chat
from lostwax.server.formats.encoding_v31 import TOOL_MARKS
from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    DSML,
    EOS,
    THINK,
    THINK_END,
    USER,
    EncodingError,
    encode_pieces,
)
from lostwax.server.formats.pieces import Piece, joined
from lostwax.server.gateway.chat_models import ChatRequest, Message, ToolCall
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.fitting import require_fitting
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


_OPENED, _CLOSED = Piece(THINK, True), Piece(THINK_END, True)


def render_chat(request: ChatRequest, info: EngineInfo, codec: Codec) -> ChatPrompt:
    """The prompt of a chat; ApiError where model, tokenizer or messages do not allow one."""
    encoding = _encoding(info, codec)
    format = FORMAT_OF[encoding]
    has_tools = bool(request.offered) or any(each.tool_calls for each in request.messages)
    if format == "deepseekv31" and has_tools:
        _require_marks(TOOL_MARKS, codec)
    pieces = _pieces(request, encoding)
    require_fitting(joined(pieces), info.max_context, codec, "messages")
    marks = codec.marks
    try:
        ids = codec.encode_pieces(pieces)
    except MarkInText as error:
        raise _refused(f"{error}; leave it out of the messages") from error
    return ChatPrompt(
        ids,
        format,
        _ends_inside_reasoning(request, pieces),
        (marks[EOS], marks[USER], marks[ASSISTANT]),
        frozenset(i for mark, i in marks.items() if mark not in _SPOKEN),
    )


def _encoding(info: EngineInfo, codec: Codec) -> str:
    """How the model's chats are written; ApiError where they cannot be here."""
    message = ""
    if info.chat_encoding is None:
        message = (
            "this artifact names no chat encoding: its checkpoint brings a chat template, which is"
            " not rendered here, or an older lostwax compiled it (then compile it again)"
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


def _pieces(request: ChatRequest, encoding: str) -> list[Piece]:
    last = request.messages[-1]
    if last.role == "system" or (last.role == "assistant" and not request.continue_final_message):
        raise _refused(
            f"the last message is of role {last.role}, which leaves the model no turn; end with a"
            " user, developer or tool message, or send continue_final_message: true to go on with"
            " an assistant's"
        )
    _require_order(request.messages)
    try:
        pieces = encode_chat(
            encoding,
            [message.rendered() for message in request.messages],
            request.offered,
            thinking=request.thinks,
            trust_content=bool(request.template.trust_content),
        )
    except EncodingError as error:
        raise _refused(str(error)) from error
    if request.continue_final_message:
        pieces = _without_end(request, pieces, FORMAT_OF[encoding])
    else:
        _require_results(request.messages)
    try:
        joined(pieces).encode()
    except UnicodeEncodeError as error:
        raise _refused(
            "a tool, or the arguments of a call, hold half a character (surrogate)"
        ) from error
    return pieces


def _require_results(messages: Sequence[Message]) -> None:
    """Each call before the model's turn has its result."""
    for num_results, message in enumerate(reversed(messages)):
        if message.role != "tool":
            if num_results < len(message.tool_calls or ()):
                raise _refused(
                    "the last tool calls have fewer results than calls; add a tool message each"
                )
            return


def _without_end(request: ChatRequest, pieces: list[Piece], format: Format) -> list[Piece]:
    """The prompt up to where its last message breaks off: in the content, or in reasoning that no
    content follows."""
    last = request.messages[-1]
    before = request.messages[-2].role if len(request.messages) > 1 else None
    if last.tool_calls:
        raise _refused("the last message has tool_calls, which tool messages answer")
    if before not in ("user", "developer", "tool"):
        raise _refused("the message that is continued must follow a user's, developer's or tool's")
    _require_results(request.messages[:-1])
    pieces = pieces[: _last(pieces, Piece(EOS, True))]
    if _reasons_on(request):
        if format == "deepseekv31":
            raise _refused("this model's chats keep no reasoning, so none can be continued")
        # The encoder closed the reasoning before the empty content.
        pieces = pieces[: _last(pieces, _CLOSED)]
    return pieces


def _last(pieces: list[Piece], mark: Piece) -> int:
    return max(index for index, piece in enumerate(pieces) if piece == mark)


def _reasons_on(request: ChatRequest) -> bool:
    """Whether the last message is continued in its reasoning."""
    last = request.messages[-1]
    return bool(request.continue_final_message and request.thinks and not last.text)


def _ends_inside_reasoning(request: ChatRequest, pieces: list[Piece]) -> bool:
    return _reasons_on(request) or pieces[-1] == _OPENED


def _require_order(messages: Sequence[Message]) -> None:
    """The encoding has no ids: a result in another place would be read as another call's."""
    calls: Iterator[ToolCall] = iter(())
    for index, message in enumerate(messages):
        if message.role != "tool":
            calls = iter(message.tool_calls or ())
        elif (call := next(calls, None)) is not None:
            ids = {call.id, message.tool_call_id} - {None}
            if len(ids) > 1:
                raise _refused(
                    f"messages[{index}] answers call {message.tool_call_id!r} in the place of"
                    f" {call.id!r}; bring the results in the order of the calls"
                )


def _refused(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_value", param="messages")
