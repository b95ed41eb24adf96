"""Ollama's `/api/chat`: what a request is as a chat, and the lines of its answer. Knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from lostwax.server.engine.messages import Output
from lostwax.server.gateway.chat import prepare_chat
from lostwax.server.gateway.chat_models import ChatRequest, Message, TemplateKwargs
from lostwax.server.gateway.chat_reader import ChatDelta, ChatReader
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.foreign_errors import ollama_error
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.history import History, named
from lostwax.server.gateway.ollama_models import OllamaMessage, OllamaOptions, OllamaRequest
from lostwax.server.gateway.one_line_json import line_of, one_line_json
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn, Job, Prepared
from lostwax.server.gateway.response_format import (
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    ResponseFormat,
)
from lostwax.server.gateway.stream import Framing
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.tool_models import Tool
from lostwax.server.gateway.unsupported import FieldError

_NAMES = {
    "response_format": "format",
    "response_format.json_schema.schema": "format",
    "max_completion_tokens": "options.num_predict",
    "stop": "options.stop",
    "continue_final_message": "messages",
    "chat_template_kwargs": None,
    "chat_template_kwargs.thinking": "think",
}


def prepare_ollama(request: OllamaRequest, job: Job, codec: Codec) -> Prepared:
    """What the engine is asked of a request, checked against what it can do."""
    options = request.options or OllamaOptions()
    if options.num_ctx is not None and options.num_ctx > job.info.max_context:
        most = job.info.max_context
        message = f"this model's maximum context length is {most} tokens; ask for no more"
        name = "options.num_ctx"
        raise ApiError(400, f"{name!r}: {message}", code="context_length_exceeded", param=name)
    history = History("messages")
    with named(_NAMES, history):
        prepared = prepare_chat(_chat(request, options, history), job, codec)
    answer = prepared.options
    if answer.format_param is not None:
        param = _NAMES.get(answer.format_param) or answer.format_param
        answer = msgspec.structs.replace(answer, format_param=param)
    return msgspec.structs.replace(prepared, interface="ollama", options=answer)


def _chat(request: OllamaRequest, options: OllamaOptions, history: History) -> ChatRequest:
    messages = _messages(request.messages, history)
    return ChatRequest(
        messages=messages,
        tools=[Tool("function", tool.function) for tool in request.tools or ()] or None,
        chat_template_kwargs=TemplateKwargs(thinking=bool(request.think)),
        continue_final_message=messages[-1].role == "assistant",
        response_format=_format(request.form),
        stream=request.streams,
        max_completion_tokens=options.most_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        seed=options.seed,
        stop=options.stop,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        repetition_penalty=options.repeat_penalty,
    )


def _format(form: bytes | None) -> ResponseFormat | None:
    if form in (None, b'""'):
        return None
    if form == b'"json"':
        return JsonObjectFormat()
    return JsonSchemaFormat(json_schema=NamedSchema(schema=Raw(form)))


def _messages(turns: list[OllamaMessage], history: History) -> list[Message]:
    open_calls: list[tuple[str, str]] = []
    """Id and name of the calls of the last turn that have no result yet."""
    for number, turn in enumerate(turns):
        history.place = f"messages[{number}]"
        if turn.role == "tool":
            history.answer(_answered(open_calls, turn), turn.content or "")
            continue
        if turn.role != "assistant":
            history.add(turn.role, turn.content or "")
            continue
        if turn.thinking:
            history.think(turn.thinking)
        history.say(turn.content or "")
        if turn.tool_calls:
            open_calls = []
        for index, call in enumerate(turn.tool_calls or ()):
            call_id = call.id or f"messages[{number}].tool_calls[{index}]"
            arguments = call.function.arguments
            given = Raw(b"{}") if arguments is UNSET else arguments
            history.call(call_id, call.function.name, given)
            open_calls.append((call_id, call.function.name))
    return history.messages()


def _answered(open_calls: list[tuple[str, str]], result: OllamaMessage) -> str:
    """The id of the call that a result is of, which is no longer open."""
    for place, (call_id, name) in enumerate(open_calls):
        if result.tool_call_id not in (None, call_id) or result.tool_name not in (None, name):
            continue
        del open_calls[place]
        return call_id
    raise FieldError(
        "messages", "a result is of no call of the turn before that has none yet; remove it"
    )


class OllamaReader(ChatReader):
    """A message that notes when it began."""

    begun_ns: int | None = None

    def feed(self, output: Output) -> ChatDelta:
        """What an output adds."""
        if self.begun_ns is None:
            self.begun_ns = time.monotonic_ns()
        return super().feed(output)


class OllamaForm:
    """One answer, as `/api/chat` has it."""

    id_prefix = ""

    def __init__(self, options: AnswerOptions, turn: ChatTurn, codec: Codec) -> None:
        self.readers = [OllamaReader(options, turn, codec)]

    def wire(self, head: Head, usage: Callable[[], Usage]) -> OllamaWire:
        """The answer's JSON."""
        return OllamaWire(self.readers[0], head, usage)


def _error_line(error: ApiError) -> bytes:
    return line_of(ollama_error(error.status, error.message)) + b"\n"


class OllamaWire:
    """The JSON of an answer, and the lines of a stream, in which a call comes when it is whole."""

    def __init__(self, reader: OllamaReader, head: Head, usage: Callable[[], Usage]) -> None:
        self._reader = reader
        self._usage = usage
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(head.created))
        self._head = {"model": head.model, "created_at": created}
        said_nothing = line_of(self._part("", "", [])) + b"\n"
        self.framing = Framing(
            b"",
            b"",
            _error_line,
            between=b"\n",
            media_type="application/x-ndjson",
            waits=said_nothing,
            lives=said_nothing,
        )
        self._asked_ns = time.monotonic_ns()
        self._so_far = ChatDelta()
        self._num_called = 0

    def whole(self, wholes: Mapping[int, ChatDelta]) -> Any:
        """The answer."""
        answer = wholes[0]
        calls = [self._call(*each) for each in self._new_calls(answer)]
        return self._ended(self._turn(answer.content, answer.reasoning, calls), answer.finish)

    def events(self, index: int, delta: ChatDelta) -> list[bytes]:
        """What a delta adds, where that is anything for the client."""
        # Only calls are gathered: nothing else is needed again.
        self._so_far.extend(ChatDelta(calls=delta.calls, finish=delta.finish))
        calls = [self._call(*each) for each in self._new_calls(self._so_far)]
        if not (delta.content or delta.reasoning or calls):
            return []
        return [line_of(self._part(delta.content, delta.reasoning, calls))]

    def last(self) -> Iterable[bytes]:
        """Why it ended, and what it took."""
        ended = self._ended(self._turn("", "", []), self._so_far.finish)
        return (line_of(ended),)

    def _new_calls(self, answer: ChatDelta) -> list[tuple[int, str | None, str]]:
        """Those that have become whole since the last time."""
        whole = answer.calls[self._num_called : self._reader.num_calls]
        self._num_called += len(whole)
        return [(call.index, call.name, call.arguments) for call in whole]

    def _call(self, index: int, name: str | None, arguments: str) -> dict[str, Any]:
        written = one_line_json(arguments.encode())  # the model's own
        function = {"index": index, "name": name, "arguments": written}
        return {"id": self._reader.call_id(index), "function": function}

    def _part(self, content: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        return self._head | {"message": self._turn(content, thinking, calls), "done": False}

    @staticmethod
    def _turn(content: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": "assistant", "content": content}
        if thinking:
            turn["thinking"] = thinking
        if calls:
            turn["tool_calls"] = calls
        return turn

    def _ended(self, turn: dict[str, Any], finish: str | None) -> dict[str, Any]:
        usage, now = self._usage(), time.monotonic_ns()
        begun = self._reader.begun_ns or now
        return self._head | {
            "message": turn,
            "done": True,
            "done_reason": "length" if finish == "length" else "stop",
            "total_duration": now - self._asked_ns,
            "load_duration": 0,
            "prompt_eval_count": usage.num_prompt,
            "prompt_eval_duration": begun - self._asked_ns,
            "eval_count": usage.num_output,
            "eval_duration": now - begun,
        }
