"""What is left of a request when it was read: what the engine is asked, and how it is answered.

Plain data, because a large request is read in another process.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.server.engine.messages import EngineInfo, Submit

Route = Literal["completions", "chat", "tokenize", "detokenize"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a body depends on beside the body. All prompts of a request may hold
    `max_tokens` together."""

    route: Route
    model: str
    info: EngineInfo
    max_tokens: int


class AnswerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for of its answer; `scored` is OpenAI's `logprobs`,
    `num_choices` its `n`. `format_param` is the parameter that says what it is to be."""

    stops: list[str] = []
    num_choices: int = 1
    stream: bool = False
    streams_usage: bool = False
    token_ids: bool = False
    scored: bool = False
    echo: bool = False
    format_param: str | None = None


class ChatTurn(msgspec.Struct, frozen=True, kw_only=True):
    """How a chat's answer is read: whether it begins inside reasoning, and the tokens in it that
    have no text."""

    thinks: bool = False
    silent: frozenset[int] = frozenset()


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """A request that was read: a submit for each prompt, which is run `prompt_runs` times. An
    answer has `asked_tokens` at most; 0 where the client has not said how many it wants. Only a
    chat has a turn."""

    options: AnswerOptions
    submits: list[Submit]
    prompt_runs: int = 1
    asked_tokens: int = 0
    turn: ChatTurn | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of the work that it brings: those of its prompts, as often as they are run, and
        those that were asked for of all answers."""
        num_prompt = sum(len(submit.prompt) for submit in self.submits)
        return self.prompt_runs * num_prompt + self.num_reqs * self.asked_tokens

    @property
    def num_reqs(self) -> int:
        """Requests of the engine."""
        return self.options.num_choices * len(self.submits)


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """A request that needs no engine: the JSON of its answer."""

    content: bytes


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A request that was read and is refused: the fields of an ApiError."""

    status: int
    message: str
    code: str | None
    param: str | None
