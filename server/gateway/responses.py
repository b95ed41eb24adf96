"""`/v1/responses`: what a request is as a chat, and the items and events of its answer.

Knows no HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from lostwax.server.formats.message import in_order
from lostwax.server.gateway.chat import prepare_chat
from lostwax.server.gateway.chat_models import Message
from lostwax.server.gateway.chat_reader import ChatDelta, ChatReader
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.history import History, named
from lostwax.server.gateway.models import sampling_of
from lostwax.server.gateway.one_line_json import one_line_json
from lostwax.server.gateway.output_logprobs import OutputLogprobs
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn, Job, Prepared
from lostwax.server.gateway.response_format import formats_of
from lostwax.server.gateway.responses_models import (
    Item,
    ResponseChat,
    ResponsesRequest,
    text_of,
)
from lostwax.server.gateway.stream import Framing
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.tool_models import Tool

_NAMES: dict[str, str | None] = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "continue_final_message": None,
}
_PARTS = {"message": "output_text", "reasoning": "reasoning_text"}
"""What the text of an item is called."""


def prepare_response(request: ResponsesRequest, job: Job, codec: Codec) -> Prepared:
    """What the engine is asked of a request, checked against what it can do."""
    history = History("messages")
    with named(_names(request), history):
        chat = ResponseChat(
            messages=_messages(request, history),
            max_completion_tokens=request.max_output_tokens,
            tools=[Tool("function", tool) for tool in request.tools or ()] or None,
            tool_choice=request.choice,
            parallel_tool_calls=request.parallel_tool_calls,
            chat_template_kwargs=request.template,
            text=request.text,
            logprobs=request.scored,
            top_logprobs=request.top_logprobs,
            **sampling_of(request),
            **formats_of(request),
        )
        prepared = prepare_chat(chat, job, codec)
    echo = bytes(one_line_json(msgspec.json.encode(request.echo)))  # schemas are as they came
    return msgspec.structs.replace(prepared, interface="responses", echo=echo)


def _names(request: ResponsesRequest) -> dict[str, str | None]:
    """What fields of a chat are called here; thinking may be said in two ways."""
    if request.reasoning is None or request.reasoning.effort is None:
        return _NAMES
    return {**_NAMES, "chat_template_kwargs.thinking": "reasoning.effort"}


def _messages(request: ResponsesRequest, history: History) -> list[Message]:
    if request.instructions:
        history.place = "instructions"
        history.add("system", request.instructions)
    if isinstance(request.input, str):
        history.place = "input"
        history.add("user", request.input)
    else:
        for index, item in enumerate(request.input):
            history.place = f"input[{index}]"
            _tell(history, item)
    return history.messages()


def _tell(history: History, item: Item) -> None:
    if item.type == "function_call":
        # An item has them: it was checked when it was read.
        arguments = Raw(msgspec.json.encode(item.arguments or "{}"))
        history.call(item.call_id or "", item.name or "", arguments)
    elif item.type == "function_call_output":
        history.answer(item.call_id or "", text_of(item.output))
    elif item.type == "reasoning":
        history.think(text_of(item.content) or text_of(item.summary))
    elif item.role == "assistant":
        history.say(text_of(item.content))
    else:
        # In this interface a developer's word is an instruction, which is what the encoding's
        # system role is; its developer role is a user's question.
        history.add("user" if item.role == "user" else "system", text_of(item.content))


class ResponseForm:
    """One answer, as `/v1/responses` has it."""

    id_prefix = "resp_"

    def __init__(self, options: AnswerOptions, turn: ChatTurn, codec: Codec, echo: bytes) -> None:
        self.readers = [ChatReader(options, turn, codec)]
        self._logprobs = OutputLogprobs(self.readers[0], codec)
        self._echo = echo

    def wire(self, head: Head, usage: Callable[[], Usage]) -> ResponseWire:
        """The response's JSON."""
        return ResponseWire(self.readers[0], head, usage, self._logprobs, self._echo)


class ResponseWire:
    """The items of one response, and the events that tell of them."""

    def __init__(
        self,
        reader: ChatReader,
        head: Head,
        usage: Callable[[], Usage],
        logprobs: OutputLogprobs,
        echo: bytes,
    ) -> None:
        self.framing = Framing(b"", b"", self._error)
        self._reader = reader
        self._usage = usage
        self._head = {"id": head.id, "object": "response", "created_at": head.created}
        self._model = {"model": head.model}
        self._echo = echo
        self._encode = msgspec.json.Encoder().encode
        self._is_silent = False
        self._num_events = 0
        self._finish: str | None = None
        self._items: list[dict[str, Any]] = []
        self._texts: list[str] = []
        self._scores: list[Raw] = []
        """Of the last item, while it is open; scores of a message where they are asked for."""
        self._logprobs = logprobs
        self._is_open = False
        self._call = 0
        """The index of the last item, where that is a call."""

    def whole(self, wholes: Mapping[int, ChatDelta]) -> Any:
        """The response: what events would tell of, none of which is written."""
        self._is_silent = True
        self.events(0, wholes[0])
        return self._response()

    def events(self, index: int, delta: ChatDelta) -> list[bytes]:
        """What a delta adds, with the items that it begins and ends."""
        told: list[bytes] = []
        if not self._num_events:
            for kind in ("response.created", "response.in_progress"):
                told.append(self._event(kind, response=self._response()))
        self._logprobs.add(delta.scored)
        if delta.reasoning:
            self._text(told, "reasoning", delta.reasoning)
        for part in in_order(delta.content, delta.calls):
            if isinstance(part, str):
                self._text(told, "message", part)
                continue
            if part.name is not None:
                self._begin_call(told, part.index, part.name)
            if part.arguments:
                self._add(told, "response.function_call_arguments.delta", part.arguments)
        self._finish = delta.finish or self._finish
        if delta.finish is not None:
            self._close(told)
        return told

    def last(self) -> Iterable[bytes]:
        """The whole response, with its usage."""
        kind = "response.incomplete" if self._finish == "length" else "response.completed"
        return (self._event(kind, response=self._response()),)

    def _text(self, told: list[bytes], kind: str, text: str) -> None:
        part = _PARTS[kind]
        if not self._is_open or self._items[-1]["type"] != kind:
            self._close(told)
            empty: dict[str, Any] = {"content": []}
            if kind == "message":
                empty = {"role": "assistant", **empty}
            else:
                empty = {"summary": [], **empty}
            self._open(told, kind, "msg_" if kind == "message" else "rs_", empty)
            place = self._place | {"content_index": 0}
            told.append(self._event("response.content_part.added", **place, part=_part(part, "")))
            if kind == "message":
                self._logprobs.begin()
        more: dict[str, Any] = {"content_index": 0}
        if kind == "message":
            scores = self._logprobs.take(len(text))
            self._scores += scores
            more["logprobs"] = scores
        self._add(told, f"response.{part}.delta", text, **more)

    def _begin_call(self, told: list[bytes], index: int, name: str) -> None:
        self._close(told)
        self._call = index
        call = {"call_id": self._reader.call_id(index), "name": name, "arguments": ""}
        self._open(told, "function_call", "fc_", call)

    def _open(self, told: list[bytes], kind: str, prefix: str, fields: dict[str, Any]) -> None:
        name = f"{prefix}{uuid.uuid4().hex}"
        item = {"id": name, "type": kind, "status": "in_progress", **fields}
        self._items.append(item)
        self._texts, self._scores, self._is_open = [], [], True
        place = {"output_index": len(self._items) - 1}
        told.append(self._event("response.output_item.added", **place, item=item))

    def _add(self, told: list[bytes], kind: str, text: str, **more: Any) -> None:
        self._texts.append(text)
        told.append(self._event(kind, **self._place, **more, delta=text))

    def _close(self, told: list[bytes]) -> None:
        """End the item that is open."""
        if not self._is_open:
            return
        self._is_open = False
        item, text = self._items[-1], "".join(self._texts)
        is_cut = self._finish == "length"
        if item["type"] == "function_call":
            is_cut = self._call >= self._reader.num_calls
            item["arguments"] = text
            kind = "response.function_call_arguments.done"
            told.append(self._event(kind, **self._place, name=item["name"], arguments=text))
        else:
            part = _PARTS[item["type"]]
            item["content"] = [_part(part, text, self._scores)]
            place = self._place | {"content_index": 0}
            done: dict[str, Any] = {"text": text}
            if item["type"] == "message":
                done["logprobs"] = self._scores
            told.append(self._event(f"response.{part}.done", **place, **done))
            whole = item["content"][0]
            told.append(self._event("response.content_part.done", **place, part=whole))
        item["status"] = "incomplete" if is_cut else "completed"
        place = {"output_index": len(self._items) - 1}
        told.append(self._event("response.output_item.done", **place, item=item))

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _event(self, kind: str, **fields: Any) -> bytes:
        if self._is_silent:
            return b""
        told = {"type": kind, "sequence_number": self._num_events, **fields}
        self._num_events += 1
        return b"event: %b\ndata: %b" % (kind.encode(), self._encode(told))

    def _response(self) -> Raw:
        """The response so far; one that has ended has its items and its usage."""
        has_ended = self._finish is not None
        is_cut = self._finish == "length"
        status = ("incomplete" if is_cut else "completed") if has_ended else "in_progress"
        # A call that broke off is no call: its text is content.
        items = [
            item
            for item in self._items
            if not (item["type"] == "function_call" and item["status"] == "incomplete")
        ]
        fields = {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            **self._model,
            "output": items,
            "usage": self._sums() if has_ended else None,
        }
        head = self._encode(fields).removesuffix(b"}")
        return Raw(head + b"," + self._echo.removeprefix(b"{"))

    def _sums(self) -> dict[str, Any]:
        usage = self._usage()
        return {
            "input_tokens": usage.num_prompt,
            "input_tokens_details": {"cached_tokens": usage.num_cached, "cache_write_tokens": 0},
            "output_tokens": usage.num_output,
            "output_tokens_details": {"reasoning_tokens": self._reader.num_reasoning},
            "total_tokens": usage.num_prompt + usage.num_output,
        }

    def _error(self, error: ApiError) -> bytes:
        told = {"code": error.code, "message": error.message, "param": error.param}
        return self._event("error", **told) + b"\n\n"


def _part(kind: str, text: str, scores: Sequence[Raw] = ()) -> dict[str, Any]:
    """A piece of an item's content."""
    more: dict[str, Any] = {}
    if kind == "output_text":
        more = {"annotations": [], "logprobs": scores}
    return {"type": kind, "text": text, **more}
