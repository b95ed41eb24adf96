"""Reads the body of a server's answer. Knows OpenAI's two shapes and V3.2's text, no task."""

from __future__ import annotations

import msgspec

from lostwax.evals.request import Request
from lostwax.evals.task import Answer, ToolCall
from lostwax.server.formats.encoding_v32 import EOS, THINK_END, Mode
from lostwax.server.formats.parse_v32 import ParseError, parse_completion


class InvalidAnswer(ValueError):
    """A body is no answer of an OpenAI-compatible server."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Choice(msgspec.Struct, frozen=True):
    text: str
    finish_reason: str | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


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


def _of_rendered(text: str, mode: Mode, finish: str) -> Answer:
    try:
        parsed = parse_completion(text, mode)
    except ParseError as error:
        return Answer(content="", malformed=str(error), finish=finish, text=text)
    calls = tuple(ToolCall(call.name, call.arguments) for call in parsed.tool_calls)
    try:
        msgspec.json.encode(calls)
    except (OverflowError, RecursionError) as error:
        return Answer(content="", malformed=f"arguments: {error}", finish=finish, text=text)
    return Answer(
        content=parsed.content, reasoning=parsed.reasoning, calls=calls, finish=finish, text=text
    )
