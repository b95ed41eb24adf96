"""Turns one request's engine outputs into a choice's text, log-probabilities and ids.

Knows text and stop strings; knows neither HTTP nor where the engine runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lostwax.server.engine.messages import Output, TokenScore
from lostwax.server.gateway.models import CompletionRequest
from lostwax.server.gateway.stop import StopFinder
from lostwax.server.gateway.tokenizer import Codec, IncrementalDecoder

LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot carry."""


@dataclass(slots=True)
class Logprobs:
    """The four parallel lists of an OpenAI completion."""

    tokens: list[str] = field(default_factory=list[str])
    token_logprobs: list[float | None] = field(default_factory=list[float | None])
    top_logprobs: list[dict[str, float] | None] = field(
        default_factory=list[dict[str, float] | None]
    )
    text_offset: list[int] = field(default_factory=list[int])

    def extend(self, other: Logprobs) -> None:
        """Append what follows."""
        self.tokens += other.tokens
        self.token_logprobs += other.token_logprobs
        self.top_logprobs += other.top_logprobs
        self.text_offset += other.text_offset


@dataclass(slots=True)
class Delta:
    """What one output adds to a choice. A whole answer is the sum of its deltas."""

    text: str = ""
    logprobs: Logprobs = field(default_factory=Logprobs)
    token_ids: list[int] = field(default_factory=list[int])
    finish: str | None = None

    def extend(self, other: Delta) -> None:
        """Append what follows."""
        self.text += other.text
        self.logprobs.extend(other.logprobs)
        self.token_ids += other.token_ids
        self.finish = other.finish or self.finish

    def choice(self, index: int, request: CompletionRequest) -> dict[str, Any]:
        """The delta as an element of `choices`."""
        logprobs = None
        if request.logprobs is not None:
            logprobs = {
                "tokens": self.logprobs.tokens,
                "token_logprobs": self.logprobs.token_logprobs,
                "top_logprobs": self.logprobs.top_logprobs,
                "text_offset": self.logprobs.text_offset,
            }
        choice = {
            "index": index,
            "text": self.text,
            "logprobs": logprobs,
            "finish_reason": self.finish,
        }
        return choice | ({"token_ids": self.token_ids} if request.return_token_ids else {})


class Transcript:
    """The growing answer to one prompt."""

    def __init__(self, request: CompletionRequest, prompt: list[int], codec: Codec) -> None:
        self._request = request
        self._prompt = prompt
        self._codec = codec
        self._text = IncrementalDecoder(codec)
        self._stop = StopFinder(request.stops)
        self._num_chars = 0
        self._echo_started = False
        self.num_output = 0
        self.finished = False

    def feed(self, output: Output) -> Delta:
        """What an output adds. After a stop string was found, nothing more does."""
        delta = Delta()
        if self.finished:
            return delta
        if self._request.echo and not self._echo_started:
            self._echo_started = True
            self._echo_first(delta)
        for score in output.prompt_scores:
            self._add_scored(delta, score, self._advance_prompt(delta, score.token))
        for score in output.tokens:
            self._add_generated(delta, score)
            if self._stop.found:
                delta.finish = "stop"
                break
        else:
            if output.finish is not None:
                delta.text += self._stop.push(self._text.flush()) + self._stop.flush()
                delta.finish = "stop" if self._stop.found else output.finish
        self.finished = delta.finish is not None
        return delta

    def _echo_first(self, delta: Delta) -> None:
        if self._request.logprobs is None:
            # Nothing scores the prompt: its text comes whole, as it would have come in parts.
            for token in self._prompt:
                delta.text += self._text.push(token)
            return
        first = self._prompt[0]
        offset = self._advance_prompt(delta, first)
        self._append(delta, first, None, None, offset)

    def _advance_prompt(self, delta: Delta, token: int) -> int:
        offset = self._num_chars
        text = self._text.push(token)
        self._num_chars += len(text)
        delta.text += text
        return offset

    def _add_generated(self, delta: Delta, score: TokenScore) -> None:
        self.num_output += 1
        delta.token_ids.append(score.token)
        offset = self._num_chars
        text = self._text.push(score.token)
        self._num_chars += len(text)
        delta.text += self._stop.push(text)
        if self._request.logprobs is not None:
            self._add_scored(delta, score, offset)

    def _add_scored(self, delta: Delta, score: TokenScore, offset: int) -> None:
        logprob = _finite(score.logprob)
        top = dict[str, float]()
        for other, other_logprob in score.top:
            top.setdefault(self._codec.piece(other), _finite(other_logprob))
        top[self._codec.piece(score.token)] = logprob
        self._append(delta, score.token, logprob, top, offset)

    def _append(
        self,
        delta: Delta,
        token: int,
        logprob: float | None,
        top: dict[str, float] | None,
        offset: int,
    ) -> None:
        delta.logprobs.tokens.append(self._codec.piece(token))
        delta.logprobs.token_logprobs.append(logprob)
        delta.logprobs.top_logprobs.append(top)
        delta.logprobs.text_offset.append(offset)


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST_LOGPROB)
