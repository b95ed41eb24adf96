"""What is left of a request when it was read: what the engine is asked, and how it is answered.

Plain data, because a large request is read in another process.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.server.engine.messages import EngineInfo, Submit
from lostwax.server.formats.encoders import Format
from lostwax.server.gateway.chat_settings import OF_CHECKPOINT, ChatSettings

Route = Literal[
    "completions",
    "chat",
    "responses",
    "messages",
    "count_tokens",
    "generate",
    "ollama",
    "tokenize",
    "detokenize",
]
CHAT_ROUTES: tuple[Route, ...] = (
    "chat", "responses", "messages", "ollama", "count_tokens", "tokenize",
)  # fmt: skip
"""Those whose bodies may be rendered as a chat."""
MIXED_ROUTES: tuple[Route, ...] = ("tokenize",)
"""Those of them whose bodies may as well be texts."""
Interface = Literal["completions", "chat", "responses", "messages", "generate", "ollama"]
"""In whose shape a request is answered."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a body depends on beside the body. All prompts of a request may hold
    `max_tokens` together."""

    route: Route
    model: str
    info: EngineInfo
    max_tokens: int
    chats: ChatSettings = OF_CHECKPOINT


class AnswerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for of its answer; `scored` is OpenAI's `logprobs`,
    `num_choices` its `n`. `is_list` wants a list also of one answer, where an interface has both.
    `format_param` is the parameter that says what the answer is to be.
    """

    stops: list[str] = []
    num_choices: int = 1
    stream: bool = False
    streams_usage: bool = False
    token_ids: bool = False
    scored: bool = False
    echo: bool = False
    is_list: bool = False
    format_param: str | None = None


class ChatTurn(msgspec.Struct, frozen=True, kw_only=True):
    """How a chat's answer is read: whether it begins inside reasoning, the tokens in it that have
    no text, those that end the turn, the format of its calls, and the names of the tools.

    `one_call` ends it at the first of these. `joined` leaves the reasoning in the content, with its
    marks as they would be; where nobody `splits_reasoning`, it is never looked for.
    """

    thinks: bool = False
    splits_reasoning: bool = True
    silent: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()
    format: Format = "none"
    tools: list[str] = []
    one_call: bool = False
    joined: bool = False


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """A request that was read: a submit for each prompt, which is run `prompt_runs` times. An
    answer has `asked_tokens` at most; 0 where the client has not said how many it wants. A chat, by
    whatever interface, has a turn. `echo` is the JSON of what the answer repeats of the request."""

    interface: Interface = "completions"
    options: AnswerOptions
    submits: list[Submit]
    prompt_runs: int = 1
    asked_tokens: int = 0
    turn: ChatTurn | None = None
    echo: bytes = b"{}"

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
