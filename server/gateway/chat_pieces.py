"""Renders a chat's messages as the text of its prompt. Knows no tokens, no engine and no answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lostwax.server.formats.encoders import FORMAT_OF, EncodingError, encode_chat
from lostwax.server.formats.encoding_v32 import EOS, THINK, THINK_END
from lostwax.server.formats.pieces import Piece
from lostwax.server.gateway.chat_models import ChatRequest, Message, ToolCall
from lostwax.server.gateway.errors import ApiError, Way
from lostwax.server.gateway.unanswered_calls import without_unanswered

_OPENED, _CLOSED = Piece(THINK, True), Piece(THINK_END, True)


def chat_pieces(request: ChatRequest, encoding: str, *, needs_turn: bool = True) -> list[Piece]:
    """The prompt in an encoding (`encode_chat`); ApiError where the messages do not allow one, or,
    where it `needs_turn`, leave the model no turn."""
    if needs_turn:
        _require_turn(request)
    if request.continue_final_message and request.messages[-1].tool_calls:  # one that broke, too
        raise refused("the last message calls tools; add a result of each call")
    request = without_unanswered(request)
    _require_order(request.messages)
    try:
        pieces = encode_chat(
            encoding,
            request.turns(),
            request.of_request,
            thinking=request.thinks,
            trust_content=bool(request.template.trust_content),
        )
    except EncodingError as error:
        raise refused(error.reason, index=error.index) from error
    if request.continue_final_message:
        pieces = _without_end(request, pieces, FORMAT_OF.get(encoding, encoding))
    else:
        _require_results(request.messages, of_last=needs_turn)
    return pieces


def ends_inside_reasoning(request: ChatRequest, pieces: Sequence[Piece]) -> bool:
    """Whether the model goes on with reasoning."""
    return _reasons_on(request) or pieces[-1] == _OPENED


def _require_turn(request: ChatRequest) -> None:
    last = request.messages[-1]
    if last.role == "system" or (last.role == "assistant" and not request.continue_final_message):
        is_own = last.role == "assistant"
        raise refused(
            f"the last message is of role {last.role}, which leaves the model no turn; end with a"
            " user's message or a tool's result",
            Way("send", "continue_final_message", ": true to go on with it") if is_own else None,
        )


def _require_results(messages: Sequence[Message], *, of_last: bool) -> None:
    """Each call of a turn that has results has its own: results that end before the calls do would
    be read on into what follows. Those of the last turn need them where the model's is next."""
    for index, message in enumerate(messages):
        if not message.tool_calls:
            continue
        num_calls, end = len(message.tool_calls), index + 1
        while end < len(messages) and messages[end].role == "tool":
            end += 1
        num_results = end - index - 1
        needs_all = of_last if end == len(messages) else num_results > 0
        if needs_all and num_results < num_calls:
            raise refused(
                f"has fewer results than calls behind it, {num_results} of {num_calls}; add a"
                " result each",
                index=index,
            )


def _without_end(request: ChatRequest, pieces: list[Piece], format: str) -> list[Piece]:
    """The prompt up to where its last message breaks off: in the content, or in reasoning that no
    content follows."""
    before = request.messages[-2].role if len(request.messages) > 1 else None
    if before not in ("user", "developer", "tool"):
        raise refused("the message that is continued must follow a user's, developer's or tool's")
    _require_results(request.messages[:-1], of_last=True)
    pieces = pieces[: _last(pieces, Piece(EOS, True))]
    if _reasons_on(request):
        if format == "deepseekv31":
            raise refused("this model's chats keep no reasoning, so none can be continued")
        # The encoder closed the reasoning before the empty content.
        pieces = pieces[: _last(pieces, _CLOSED)]
    return pieces


def _last(pieces: list[Piece], mark: Piece) -> int:
    return max(index for index, piece in enumerate(pieces) if piece == mark)


def _reasons_on(request: ChatRequest) -> bool:
    """Whether the last message is continued in its reasoning."""
    last = request.messages[-1]
    return bool(request.continue_final_message and request.thinks and not last.text)


def _require_order(messages: Sequence[Message]) -> None:
    """The encoding has no ids: a result in another place would be read as another call's."""
    calls: Iterator[ToolCall] = iter(())
    for index, message in enumerate(messages):
        if message.role != "tool":
            calls = iter(message.tool_calls or ())
        elif (call := next(calls, None)) is not None:
            ids = {call.id, message.tool_call_id} - {None}
            if len(ids) > 1:
                raise refused(
                    f"answers call {message.tool_call_id!r} in the place of {call.id!r}; bring a"
                    " result of each call, in the order of the calls",
                    index=index,
                )


def refused(message: str, way: Way | None = None, *, index: int | None = None) -> ApiError:
    """What is wrong with the messages, or with one of them."""
    return ApiError(400, message, code="invalid_value", param="messages", way=way, index=index)
