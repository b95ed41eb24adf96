"""What a chat request asks of the engine, and the form of its answer. Knows no HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from lostwax.server.formats.encoding_v32 import THINK_END
from lostwax.server.formats.message import CallDelta
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.chat_prompt import render_chat
from lostwax.server.gateway.chat_reader import ChatDelta, ChatReader
from lostwax.server.gateway.choices import ChoicesWire
from lostwax.server.gateway.forced_calls import asked_calls
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.long_json import long_list
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn, Job, Prepared
from lostwax.server.gateway.submits import (
    answer_options,
    form_submit,
    prompt_runs,
    require_few_choices,
    require_few_tokens,
    require_format,
    require_prompt,
    require_ranks,
    require_stops,
)
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.transcript import Scored


def prepare_chat(request: ChatRequest, job: Job, codec: Codec) -> Prepared:
    """What the engine is asked of a chat, checked against what it can do."""
    info, num_top = job.info, request.top_logprobs or 0
    require_few_choices(request)
    require_ranks(num_top, info, "top_logprobs")
    prompt = render_chat(request, info, codec, job.chats)
    require_stops(request, codec)
    asked = asked_calls(request, prompt.format) or request.format
    require_format(asked, codec)
    left = max(info.max_context - len(prompt.ids), 1)
    max_tokens = left if request.most_tokens is None else request.most_tokens
    require_prompt(prompt.ids, max_tokens, info, "messages", _longest(request))
    require_few_tokens(request, len(prompt.ids), job, "messages")
    submit = form_submit(
        request,
        uuid.uuid4().hex,
        prompt.ids,
        max_tokens,
        info,
        stop_ids=() if request.ignore_eos else prompt.ends,
        top_logprobs=num_top,
        asked=asked,
        grammar_after=codec.marks[THINK_END] if prompt.thinks else None,
    )
    options = answer_options(request, scored=bool(request.logprobs), asked=asked)
    turn = ChatTurn(
        thinks=prompt.thinks,
        splits_reasoning=job.chats.splits_reasoning,
        silent=prompt.silent,
        ends=frozenset((*prompt.ends, *info.eos_token_ids)),
        # Who offers no tools is answered in text, whatever that looks like.
        format=prompt.format if request.offered else "none",
        tools=[each["function"]["name"] for each in request.offered],
        one_call=bool(request.offered) and request.parallel_tool_calls is False,
        joined=request.separate_reasoning is False,
    )
    num_asked = request.most_tokens or request.min_tokens or 0
    if request.most_tokens is None and request.ignore_eos:
        num_asked = max_tokens  # it is as long as the context lets it be
    return Prepared(
        interface="chat",
        options=options,
        submits=[submit],
        prompt_runs=prompt_runs(request, info),
        asked_tokens=num_asked,
        turn=turn,
    )


def _longest(request: ChatRequest) -> str | None:
    """The field that says how long the answer may be, if one does."""
    fields = ("max_completion_tokens", "max_tokens")
    return next((name for name in fields if getattr(request, name) is not None), None)


class ChatForm:
    """Choices as `/v1/chat/completions` has them; reasoning under the two names clients read."""

    id_prefix = "chatcmpl-"
    kinds = ("chat.completion", "chat.completion.chunk")

    def __init__(self, options: AnswerOptions, turn: ChatTurn, codec: Codec) -> None:
        self._options = options
        self._codec = codec
        self._begun: set[int] = set()
        self.readers = [ChatReader(options, turn, codec) for _ in range(options.num_choices)]

    def wire(self, head: Head, usage: Callable[[], Usage]) -> ChoicesWire[ChatDelta]:
        """The choices' JSON."""
        return ChoicesWire(self, head, usage, streams_usage=self._options.streams_usage)

    def whole(self, index: int, answer: ChatDelta) -> dict[str, Any]:
        """A choice with its message. Content is null where the answer ended before it began, and
        where calls stand in its place."""
        reader = self.readers[index]
        calls = answer.calls[: reader.num_calls]
        is_nothing = reader.in_reasoning or (calls and not answer.content)
        reasoning = answer.reasoning or None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if is_nothing else answer.content,
            "reasoning_content": reasoning,
            "reasoning": reasoning,
        }
        if calls:
            message["tool_calls"] = [
                {
                    "id": reader.call_id(call.index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in calls
            ]
        return self._choice(index, {"message": message}, answer)

    def parts(self, index: int, delta: ChatDelta) -> list[dict[str, Any]]:
        """The role at first, then what the client asked for of the delta."""
        first: list[dict[str, Any]] = []
        if index not in self._begun:
            # With the first output and not before: what a client measures is the first token.
            self._begun.add(index)
            begin = {"role": "assistant", "content": ""}
            first.append(self._choice(index, {"delta": begin}, ChatDelta()))
        has_ids = self._options.token_ids and delta.token_ids
        is_news = delta.reasoning or delta.content or delta.calls or delta.finish or delta.scored
        if not (is_news or has_ids):
            return first
        said: dict[str, Any] = {}
        if delta.reasoning:
            said |= {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
        if delta.content:
            said |= {"content": delta.content}
        if delta.calls:
            said["tool_calls"] = [self._call(index, call) for call in delta.calls]
        return [*first, self._choice(index, {"delta": said}, delta)]

    def usage_details(self) -> dict[str, Any]:
        """How many of the tokens were reasoning."""
        num_reasoning = sum(reader.num_reasoning for reader in self.readers)
        return {"completion_tokens_details": {"reasoning_tokens": num_reasoning}}

    def _call(self, index: int, call: CallDelta) -> dict[str, Any]:
        """A part of a call, as streams have it: who is called comes first."""
        if call.name is None:
            return {"index": call.index, "function": {"arguments": call.arguments}}
        return {
            "index": call.index,
            "id": self.readers[index].call_id(call.index),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }

    def _choice(self, index: int, said: dict[str, Any], delta: ChatDelta) -> dict[str, Any]:
        scored = delta.scored
        logprobs = {"content": long_list(map(self._scored, scored))} if scored else None
        choice = {"index": index, **said, "logprobs": logprobs, "finish_reason": delta.finish}
        if self._options.token_ids:
            choice["token_ids"] = delta.token_ids
        return choice

    def _scored(self, scored: Scored) -> dict[str, Any]:
        """A token as chats have it; every generated one is told of, reasoning's too."""
        top = [self._token(token, logprob) for token, logprob in scored.top or ()]
        return self._token(scored.token, scored.logprob) | {"top_logprobs": top}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        as_bytes = self._codec.token_bytes(token)
        return {
            "token": self._codec.piece(token),
            "logprob": logprob,
            "bytes": None if as_bytes is None else list(as_bytes),
        }
