"""`/v1/messages`: what a request is as a chat, and the blocks and events of its answer.

Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from lostwax.server.formats.message import in_order
from lostwax.server.gateway.chat import prepare_chat
from lostwax.server.gateway.chat_models import ChatRequest, Message, TemplateKwargs
from lostwax.server.gateway.chat_prompt import render_chat
from lostwax.server.gateway.chat_reader import ChatDelta, ChatReader
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.foreign_errors import anthropic_error
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.history import History, named
from lostwax.server.gateway.messages_models import (
    Block,
    CountTokensRequest,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
    text_of,
)
from lostwax.server.gateway.prepared import Answered, AnswerOptions, ChatTurn, Job, Prepared
from lostwax.server.gateway.stream import Framing
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.tool_models import Tool
from lostwax.server.gateway.unsupported import FieldError

_NAMES = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "continue_final_message": "messages",
    "chat_template_kwargs": None,
    "chat_template_kwargs.thinking": "thinking",
}
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def prepare_message(request: MessagesRequest, job: Job, codec: Codec) -> Prepared:
    """What the engine is asked of a request, checked against what it can do."""
    history = History("messages")
    with named(_NAMES, history):
        chat = _chat(
            request,
            history,
            max_completion_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            stop=request.stop_sequences,
            stream=request.stream,
            parallel_tool_calls=False if request.takes_one_call else None,
        )
        prepared = prepare_chat(chat, job, codec)
    return msgspec.structs.replace(prepared, interface="messages")


def counted_tokens(request: CountTokensRequest, job: Job, codec: Codec) -> Answered:
    """How many tokens the prompt has."""
    history = History("messages")
    with named(_NAMES, history):
        prompt = render_chat(_chat(request, history), job.info, codec, job.chats)
    return Answered(content=msgspec.json.encode({"input_tokens": len(prompt.ids)}))


def _chat(request: CountTokensRequest, history: History, **given: Any) -> ChatRequest:
    messages = _messages(request, history)
    return ChatRequest(
        messages=messages,
        tools=[Tool("function", tool.function) for tool in request.tools or ()] or None,
        tool_choice=request.tool_choice and request.tool_choice.choice,
        chat_template_kwargs=TemplateKwargs(thinking=request.thinks),
        continue_final_message=messages[-1].role == "assistant",
        **given,
    )


def _messages(request: CountTokensRequest, history: History) -> list[Message]:
    if system := text_of(request.system):
        history.place = "system"
        history.add("system", system)
    for index, turn in enumerate(request.messages):
        history.place = f"messages[{index}]"
        _tell(history, turn)
    return history.messages()


def _tell(history: History, turn: Turn) -> None:
    content = turn.content or ""  # a turn without blocks is one all the same
    blocks = [TextBlock(content)] if isinstance(content, str) else content
    if turn.role == "assistant":
        for block in blocks:
            _tell_own(history, block)
        return
    texts = [block for block in blocks if isinstance(block, TextBlock)]
    results = [block for block in blocks if isinstance(block, ToolResultBlock)]
    if any(isinstance(block, TextBlock) for block in blocks[: len(results)]):
        message = "a text stands before results of tools; put the results first"
        raise FieldError("messages", message)
    for block in results:
        history.answer(block.tool_use_id, text_of(block.content))
    if texts:
        history.add("user" if turn.role == "user" else "system", text_of(texts))


def _tell_own(history: History, block: Block) -> None:
    """A block of the assistant's."""
    if isinstance(block, TextBlock):
        history.say(block.text)
    elif isinstance(block, ThinkingBlock):
        history.think(block.thinking)
    elif isinstance(block, ToolUseBlock):
        history.call(block.id, block.name, block.input)


class MessageForm:
    """One answer, as `/v1/messages` has it."""

    id_prefix = "msg_"

    def __init__(self, options: AnswerOptions, turn: ChatTurn, codec: Codec) -> None:
        self.readers = [ChatReader(options, turn, codec)]

    def wire(self, head: Head, usage: Callable[[], Usage]) -> MessageWire:
        """The message's JSON."""
        return MessageWire(self.readers[0], head, usage)


def _error_event(error: ApiError) -> bytes:
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode(
        anthropic_error(error.status, error.message)
    )


class MessageWire:
    """The blocks of one message, and the events that tell of them."""

    # Anthropic's own streams have pings behind their first event alone.
    framing = Framing(b"", b"", _error_event, lives=_PING)

    def __init__(self, reader: ChatReader, head: Head, usage: Callable[[], Usage]) -> None:
        self._reader = reader
        self._usage = usage
        self._head = {
            "id": head.id,
            "type": "message",
            "role": "assistant",
            "model": head.model,
        }
        self._encode = msgspec.json.Encoder().encode
        self._has_begun = False
        self._num_blocks = 0
        self._open: str | None = None
        """The kind of the block that is not at its end."""
        self._finish: str | None = None
        self._arguments: list[str] = []
        self._name: str | None = None
        """Of the call that is not at its end. Its block comes when it is: the interface's clients
        complete what is cut, and run each call that was told."""

    def whole(self, wholes: Mapping[int, ChatDelta]) -> Any:
        """The message."""
        answer = wholes[0]
        blocks: list[dict[str, Any]] = []
        if answer.reasoning:
            blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        # A call that broke off is no call: its text is content.
        for part in in_order(answer.content, answer.calls[: self._reader.num_calls]):
            if isinstance(part, str):
                blocks.append({"type": "text", "text": part})
            else:
                # The arguments of a whole call are the JSON of an object.
                blocks.append(self._tool(part.index, part.name, Raw(part.arguments.encode())))
        self._finish = answer.finish
        return self._head | {"content": blocks} | self._ending() | {"usage": self._sums()}

    def events(self, index: int, delta: ChatDelta) -> list[bytes]:
        """What a delta adds, with the blocks that it begins and ends."""
        told: list[bytes] = []
        if not self._has_begun:
            self._has_begun = True
            empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
            message = self._head | empty | {"usage": self._sums() | {"output_tokens": 0}}
            told.append(self._event("message_start", message=message))
        if delta.reasoning:
            self._begin(told, "thinking", {"thinking": "", "signature": ""})
            self._add(told, {"type": "thinking_delta", "thinking": delta.reasoning})
        for part in in_order(delta.content, delta.calls):
            if isinstance(part, str):
                self._begin(told, "text", {"text": ""})
                self._add(told, {"type": "text_delta", "text": part})
                continue
            if part.name is not None:
                self._name, self._arguments = part.name, []
            self._arguments.append(part.arguments)
            if part.index < self._reader.num_calls:
                self._call(told, part.index)
        if delta.finish is not None:
            self._finish = delta.finish
            self._end(told)
        return told

    def last(self) -> Iterable[bytes]:
        """Why it ended, and the usage."""
        told = self._event("message_delta", delta=self._ending(), usage=self._sums())
        return (told, self._event("message_stop"))

    def _begin(self, told: list[bytes], kind: str, fields: dict[str, Any]) -> None:
        """Open a block of this kind, if it is not open."""
        if self._open == kind:
            return
        self._end(told)
        self._open = kind
        self._num_blocks += 1
        block = {"type": kind, **fields}
        told.append(self._event("content_block_start", **self._place, content_block=block))

    def _add(self, told: list[bytes], delta: dict[str, str]) -> None:
        told.append(self._event("content_block_delta", **self._place, delta=delta))

    def _call(self, told: list[bytes], index: int) -> None:
        """A block of a call, which has ended."""
        self._end(told)
        self._begin(told, "tool_use", self._tool(index, self._name, Raw(b"{}")))
        arguments = "".join(self._arguments)
        self._add(told, {"type": "input_json_delta", "partial_json": arguments})

    def _end(self, told: list[bytes]) -> None:
        if self._open is not None:
            self._open = None
            told.append(self._event("content_block_stop", **self._place))

    @property
    def _place(self) -> dict[str, int]:
        return {"index": self._num_blocks - 1}

    def _tool(self, index: int, name: str | None, arguments: Raw) -> dict[str, Any]:
        call_id = self._reader.call_id(index)
        return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}

    def _ending(self) -> dict[str, Any]:
        reason = _REASONS.get(self._finish or "", self._finish)
        stop = self._reader.stop if self._finish == "stop" else None
        return {"stop_reason": reason if stop is None else "stop_sequence", "stop_sequence": stop}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\ndata: %b" % (kind.encode(), self._encode({"type": kind, **fields}))

    def _sums(self) -> dict[str, int]:
        """Tokens: those of the prompt are told apart by whether they were cached."""
        usage = self._usage()
        return {
            "input_tokens": usage.num_prompt - usage.num_cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.num_cached,
            "output_tokens": usage.num_output,
        }
