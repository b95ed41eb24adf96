"""Reads the body of a server's answer. Knows OpenAI's two shapes and V3.2's text, no task."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from lostwax.evals.request import Request
from lostwax.evals.task import Answer, ToolCall
from lostwax.server.formats.encoding_v32 import (
    EOS,
    MAX_SHOWN_CHARS,
    THINK_END,
    EncodingError,
    Mode,
    encode_messages,
)
from lostwax.server.formats.parse_v32 import ParseError, parse_completion, require_no_mark
from lostwax.server.formats.strict_json import read_json


class InvalidAnswer(ValueError):
    """A body is no answer of an OpenAI-compatible server."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Choice(msgspec.Struct, frozen=True):
    text: str
    finish_reason: str | None = None


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct, frozen=True):
    function: _Function


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _ChatChoice(msgspec.Struct, frozen=True):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: Usage | None = None


class _ChatCompletion(msgspec.Struct, frozen=True):
    choices: list[_ChatChoice]
    usage: Usage | None = None


def read_answer(request: Request, body: bytes) -> tuple[Answer, Usage]:
    """The answer to a request, and what it took. Fields that are not needed are not looked at."""
    is_chat = request.path == "/chat/completions"
    try:
        read = msgspec.json.decode(body, type=_ChatCompletion if is_chat else _Completion)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidAnswer(f"no OpenAI-compatible answer: {error}") from error
    if len(read.choices) != 1:
        raise InvalidAnswer(f"{len(read.choices)} choices where 1 was asked for")
    choice, usage = read.choices[0], read.usage or Usage()
    finish = choice.finish_reason or "stop"
    if isinstance(choice, _ChatChoice):
        thinks = "chat_template_kwargs" in request.body
        if "tools" in request.body:
            return _of_tool_message(choice.message, finish, thinks), usage
        return _of_message(choice.message, finish, thinks), usage
    if request.encoding is None:
        text = choice.text.removesuffix(EOS)
        return Answer(content=text, finish=finish, text=text), usage
    return _of_rendered(choice.text.removesuffix(EOS), request.encoding, finish), usage


def _of_message(message: _Message, finish: str, thinks: bool) -> Answer:
    content = message.content or ""
    reasoning = message.reasoning_content or message.reasoning or ""
    text = f"{reasoning}{THINK_END}{content}" if thinks else content
    return Answer(content=content, reasoning=reasoning, finish=finish, text=text)


def _of_tool_message(message: _Message, finish: str, thinks: bool) -> Answer:
    """The same where tools were offered: what the strict parser calls malformed is so here."""
    plain = _of_message(message, finish, thinks)
    try:
        if thinks and message.content is None and not message.tool_calls:
            raise ParseError(f"the reasoning has no {THINK_END}")
        for part, name in ((plain.reasoning, "reasoning"), (plain.content, "content")):
            require_no_mark(part, name)
        calls = tuple(_called(call.function) for call in message.tool_calls or ())
        text = _written(plain, calls, thinks) if calls else plain.text
    except (ParseError, EncodingError) as error:
        return msgspec.structs.replace(plain, content="", malformed=str(error))
    return msgspec.structs.replace(plain, calls=calls, text=text)


def _called(function: _Function) -> ToolCall:
    what = f"the arguments of {function.name[:MAX_SHOWN_CHARS]!r}"
    try:
        arguments = read_json(function.arguments or "{}")
    except ValueError as error:
        raise ParseError(f"{what} are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ParseError(f"{what} are no JSON object")
    call = ToolCall(function.name, cast("dict[str, Any]", arguments))
    _require_writable((call,))
    return call


def _written(answer: Answer, calls: tuple[ToolCall, ...], thinks: bool) -> str:
    """The whole text as the model's encoder writes the message: chats do not bring it."""
    made = [{"name": call.name, "arguments": call.arguments} for call in calls]
    message = {
        "role": "assistant",
        "content": answer.content,
        "reasoning_content": answer.reasoning,
        "tool_calls": made,
    }
    asked = {"role": "user", "content": ""}
    mode: Mode = "thinking" if thinks else "chat"
    before = encode_messages([asked], mode)
    whole = encode_messages([asked, message], mode, trust_content=True)
    return whole.removeprefix(before).removesuffix(EOS)


def _require_writable(calls: tuple[ToolCall, ...]) -> None:
    """ParseError where a sample could not hold them."""
    try:
        msgspec.json.encode(calls)
    except (OverflowError, RecursionError) as error:
        raise ParseError(f"arguments: {error}") from error


def _of_rendered(text: str, mode: Mode, finish: str) -> Answer:
    try:
        parsed = parse_completion(text, mode)
        calls = tuple(ToolCall(call.name, call.arguments) for call in parsed.tool_calls)
        _require_writable(calls)
    except ParseError as error:
        return Answer(content="", malformed=str(error), finish=finish, text=text)
    return Answer(
        content=parsed.content, reasoning=parsed.reasoning, calls=calls, finish=finish, text=text
    )
