"""What gateway and engine say to one another: typed msgpack structs. Knows no socket and no HTTP.

Every choice of a submitted request ends with exactly one terminal event: an Output with `finish`
set, or a Failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from lostwax.server.grammar.counts import GrammarStats
from lostwax.server.grammar.grammar import Grammar

TIMED_OUT = "request_timeout"
"""The code of a request that had not ended in time."""
INVALID_GRAMMAR, GRAMMAR_FAILED = "invalid_grammar", "grammar_failed"
"""The codes of a grammar that is refused, and of an answer that cannot follow its own any more."""
Finish = Literal["stop", "length", "cancelled"]
MAX_CHOICES = 12
"""Of a prompt."""
MOST_MASS, MANY, UNLIKELY = 0.9, 16, 0.1
"""A top_p and a top_k from which, and a min_p up to which, what is picked from all ids lies in the
nucleus mostly."""


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Generate `max_tokens` tokens after `prompt`, each out of the `top_k` likeliest ids (0: all),
    of these out of the likeliest whose mass reaches `top_p`, none of which is less likely than
    `min_p` times the likeliest. Before, penalties change the logits of ids that came, by
    `repetition_penalty` those of the prompt, too; then `logit_bias` is added to those of some ids;
    `held_ids` are not among the first `min_tokens` tokens. `top_logprobs` counts alternatives a
    token. `log_id` is what client and operator know the request by; several may have the same.
    Of its `num_choices` choices, number i has the seed that is i above the request's: it is what
    the same request gives with that seed alone. Its events carry name i of `names`, and it ends, or
    is cancelled, by itself. Lower `priority` runs first. A request that has not ended `timeout_s`
    seconds after the engine took it, waiting or running, fails with TIMED_OUT.
    All answers follow the `grammar`, if there is one: from the first token on, or from behind the
    first token `grammar_after`; an answer then ends by itself only where the grammar lets it.
    """

    request: str
    prompt: list[int]
    max_tokens: int
    log_id: str = ""
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    held_ids: list[int] = []
    min_tokens: int = 0
    seed: int = 0
    num_choices: int = 1
    stop_ids: list[int] = []
    ignore_eos: bool = False
    top_logprobs: int = 0
    score_prompt: bool = False
    priority: int = 0
    timeout_s: float | None = None
    grammar: Grammar | None = None
    grammar_after: int | None = None

    @property
    def has_nucleus(self) -> bool:
        """Whether tokens are sampled from some ids only; greedy ones are in every nucleus."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)

    @property
    def leaves_little(self) -> bool:
        """Whether ids that are often picked otherwise may lie outside the nucleus: it is narrow, or
        counts ids while heat makes many of them likely."""
        is_narrow = self.top_p < MOST_MASS or 0 < self.top_k < MANY or self.min_p > UNLIKELY
        is_hot = self.temperature > 1 and (self.top_k > 0 or self.min_p > 0)
        return self.temperature > 0 and (is_narrow or is_hot)

    @property
    def has_penalty(self) -> bool:
        """Whether tokens that came change what comes."""
        additive = self.frequency_penalty or self.presence_penalty
        return bool(additive) or self.repetition_penalty != 1

    @property
    def num_tokens(self) -> int:
        """Tokens that a choice may come to hold."""
        return len(self.prompt) + self.max_tokens

    @property
    def names(self) -> list[str]:
        """What its choices are called: as itself, where there is one."""
        if self.num_choices == 1:
            return [self.request]
        return [f"{self.request}-{i}" for i in range(self.num_choices)]

    @property
    def choices(self) -> list[Submit]:
        """A request each, which share the prompt's ids."""
        return [
            msgspec.structs.replace(self, request=name, seed=(self.seed + i) % 2**32, num_choices=1)
            for i, name in enumerate(self.names)
        ]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a choice, of the name that `Submit.names` has for it, and free its pages. Unknown and
    finished ones are ignored."""

    request: str


Command = Submit | Cancel


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """One token with its log-probability and the likeliest (id, log-probability) in its place."""

    token: int
    logprob: float
    top: list[tuple[int, float]] = []


class Output(msgspec.Struct, frozen=True, kw_only=True, tag="output", omit_defaults=True):
    """What one step gave a request: scores of prompt tokens (from the second on) and new tokens.
    `cached_tokens` of the prompt were found in the prefix cache, as every output says.

    Of a request with a grammar the first only says that this `is_followed`: it waits for its turn
    now as any other, and is not refused any more."""

    request: str
    prompt_scores: list[TokenScore] = []
    tokens: list[TokenScore] = []
    finish: Finish | None = None
    cached_tokens: int = 0
    is_followed: bool = False


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request ended without its answer. `code` is an OpenAI error code; `message` is for the
    client: it never says what went wrong inside."""

    request: str
    code: str
    message: str


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The engine has run a real step and takes requests. `max_context` is what pages can hold;
    `chat_encoding` says how the model's chats are rendered, None where it is not known.
    `shares_prompts`: choices of a prompt that is not scored run it once."""

    model: str
    vocab_size: int
    max_context: int
    max_reqs: int
    max_top_logprobs: int
    eos_token_ids: tuple[int, ...]
    chat_encoding: str | None = None
    shares_prompts: bool = True


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """The engine process is alive; sent while it loads and while a long step runs, too: `step_s`
    seconds so far, 0 between steps."""

    beats: int
    step_s: float = 0.0


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """The engine has begun a phase of its start."""

    name: str


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """The engine ends after this; `message` says why, to the operator."""

    message: str


class Stats(msgspec.Struct, frozen=True, kw_only=True, tag="stats"):
    """What the engine does. Sums count from its start, its warm-up left out; tokens that a request
    runs again after a preemption count again.

    `segments` holds, by segment (extend, decode, draft, pick, sample, score), how many steps ran a
    program of it; `seconds` are the steps' by entry (extend, decode), `rows` those of known tokens
    (extend) and of answers (decode), whichever step ran them.
    """

    running: int
    waiting_for_slots: int
    """As many requests run as may."""
    waiting_for_room: int
    """Pages are lacking."""
    waiting_for_prompt: int
    """Another choice runs their prompt."""
    pages_used: int
    pages_idle: int
    """They hold a known prefix and belong to nobody."""
    pages_blank: int
    prefix_tokens: int
    """Prompt tokens that were found in the prefix cache."""
    host_pages_saved: int
    """Pages that were copied to host memory when they gave way."""
    host_pages_restored: int
    """Those that came back from there."""
    preemptions: int
    segments: dict[str, int]
    seconds: dict[str, float]
    rows: dict[str, int]
    drafted: int
    accepted: int
    grammars: GrammarStats | None = None
    """Of an engine that follows grammars."""


Event = Output | Failed | EngineInfo | Heartbeat | Phase | Fatal | Stats

_ENCODER = msgspec.msgpack.Encoder()
_COMMANDS = msgspec.msgpack.Decoder(list[Command])
_EVENTS = msgspec.msgpack.Decoder(list[Event])


def encode(messages: Sequence[Command] | Sequence[Event]) -> bytes:
    """One frame of messages."""
    return _ENCODER.encode(messages)


def decode_commands(frame: bytes) -> list[Command]:
    """The commands of a frame; raises msgspec.DecodeError on anything else."""
    return _COMMANDS.decode(frame)


def decode_events(frame: bytes) -> list[Event]:
    """The events of a frame; raises msgspec.DecodeError on anything else."""
    return _EVENTS.decode(frame)
