"""What a chat request asks of the engine, and the form of its answer. Knows no HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lostwax.server.engine.messages import Output
from lostwax.server.formats.encoding_v32 import THINK_END
from lostwax.server.formats.reasoning import ReasoningSplitter
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.chat_prompt import render_chat
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
from lostwax.server.gateway.transcript import Scored, Transcript


def prepare_chat(request: ChatRequest, job: Job, codec: Codec) -> Prepared:
    """What the engine is asked of a chat, checked against what it can do."""
    info, num_top = job.info, request.top_logprobs or 0
    require_few_choices(request)
    require_ranks(num_top, info, "top_logprobs")
    prompt = render_chat(request, info, codec)
    require_stops(request, codec)
    require_format(request, codec)
    left = max(info.max_context - len(prompt.ids), 1)
    max_tokens = left if request.most_tokens is None else request.most_tokens
    require_prompt(prompt.ids, max_tokens, info, "messages")
    require_few_tokens(request, len(prompt.ids), job, "messages")
    submit = form_submit(
        request,
        uuid.uuid4().hex,
        prompt.ids,
        max_tokens,
        info,
        stop_ids=() if request.ignore_eos else prompt.ends,
        top_logprobs=num_top,
        grammar_after=codec.marks[THINK_END] if prompt.thinks else None,
    )
    options = answer_options(request, scored=bool(request.logprobs))
    turn = ChatTurn(thinks=prompt.thinks, silent=prompt.silent)
    asked = request.most_tokens or request.min_tokens or 0
    if request.most_tokens is None and request.ignore_eos:
        asked = max_tokens  # it is as long as the context lets it be
    return Prepared(
        options=options,
        submits=[submit],
        prompt_runs=prompt_runs(request, info),
        asked_tokens=asked,
        turn=turn,
    )


@dataclass(slots=True)
class ChatDelta:
    """What one output adds to a message."""

    reasoning: str = ""
    content: str = ""
    scored: list[Scored] = field(default_factory=list[Scored])
    token_ids: list[int] = field(default_factory=list[int])
    finish: str | None = None

    def extend(self, other: ChatDelta) -> None:
        """Append what follows."""
        self.reasoning += other.reasoning
        self.content += other.content
        self.scored += other.scored
        self.token_ids += other.token_ids
        self.finish = other.finish or self.finish


class ChatReader:
    """The growing message. Stop strings hold in reasoning too, as in SGLang."""

    def __init__(self, options: AnswerOptions, turn: ChatTurn, codec: Codec) -> None:
        self._transcript = Transcript(
            [],
            codec,
            stops=options.stops,
            with_scores=options.scored,
            silent=turn.silent,
        )
        self._splitter = ReasoningSplitter(turn.thinks)

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        return self._transcript.finished

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return self._transcript.num_output

    @property
    def in_reasoning(self) -> bool:
        """Whether content has not begun."""
        return self._splitter.in_reasoning

    @property
    def num_reasoning(self) -> int:
        """Tokens of the reasoning, its closing mark included."""
        if self._splitter.in_reasoning:
            return self.num_output
        end = self._splitter.reasoning_end or 0
        return sum(offset < end for offset in self._transcript.offsets)

    def opening(self) -> Iterator[ChatDelta]:
        """Nothing comes before the first output."""
        return iter(())

    def feed(self, output: Output) -> ChatDelta:
        """What an output adds."""
        delta = self._transcript.feed(output)
        reasoning, content = self._splitter.push(delta.text)
        if delta.finish is not None:
            last_reasoning, last_content = self._splitter.flush()
            reasoning, content = reasoning + last_reasoning, content + last_content
        return ChatDelta(reasoning, content, delta.scored, delta.token_ids, delta.finish)


class ChatForm:
    """Choices as `/v1/chat/completions` has them; reasoning under the two names clients read."""

    id_prefix = "chatcmpl"
    kinds = ("chat.completion", "chat.completion.chunk")

    def __init__(self, options: AnswerOptions, turn: ChatTurn, codec: Codec) -> None:
        self._options = options
        self._codec = codec
        self._begun: set[int] = set()
        self.readers = [ChatReader(options, turn, codec) for _ in range(options.num_choices)]

    def whole(self, index: int, answer: ChatDelta) -> dict[str, Any]:
        """A choice with its message. Content is null where the answer ended before it began."""
        content = None if self.readers[index].in_reasoning else answer.content
        reasoning = answer.reasoning or None
        message = {
            "role": "assistant",
            "content": content,
            "reasoning_content": reasoning,
            "reasoning": reasoning,
        }
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
        if not (delta.reasoning or delta.content or delta.finish or delta.scored or has_ids):
            return first
        said: dict[str, str] = {}
        if delta.reasoning:
            said |= {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
        if delta.content:
            said |= {"content": delta.content}
        return [*first, self._choice(index, {"delta": said}, delta)]

    def usage_details(self) -> dict[str, Any]:
        """How many of the tokens were reasoning."""
        num_reasoning = sum(reader.num_reasoning for reader in self.readers)
        return {"completion_tokens_details": {"reasoning_tokens": num_reasoning}}

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
