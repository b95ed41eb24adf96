"""Turns one request's engine outputs into text, scored tokens and ids.

Knows text and stop strings; knows neither HTTP nor where the engine runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lostwax.server.engine.messages import Output, TokenScore
from lostwax.server.formats.growing_text import grow
from lostwax.server.formats.stop import StopFinder
from lostwax.server.gateway.tokenizer import Codec, IncrementalDecoder

ECHO_TOKENS = 256
"""Tokens of an echoed prompt that are read at once: about a millisecond's work."""
LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot carry."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A token where it starts in the text, if it `has_text`; the first of an echoed prompt has no
    score."""

    token: int
    offset: int
    logprob: float | None = None
    top: list[tuple[int, float]] | None = None
    has_text: bool = True


@dataclass(slots=True)
class Delta:
    """What one output adds to a choice. A whole answer is the sum of its deltas."""

    text: str = ""
    scored: list[Scored] = field(default_factory=list[Scored])
    token_ids: list[int] = field(default_factory=list[int])
    finish: str | None = None

    def extend(self, other: Delta) -> None:
        """Append what follows."""
        grow(self, "text", other.text)
        self.scored += other.scored
        self.token_ids += other.token_ids
        self.finish = other.finish or self.finish


class Transcript:
    """The growing answer to one prompt.

    `echo` puts the prompt before it, `with_scores` tells of every token. Tokens in `silent` are
    counted but have no text.
    """

    def __init__(
        self,
        prompt: list[int],
        codec: Codec,
        *,
        stops: list[str],
        with_scores: bool,
        echo: bool = False,
        silent: frozenset[int] = frozenset(),
    ) -> None:
        self._prompt = prompt
        self._with_scores = with_scores
        self._silent = silent
        self._text = IncrementalDecoder(codec)
        self._stop = StopFinder(stops)
        self._num_chars = 0
        self._must_echo = echo and not with_scores
        self._must_score_first = echo and with_scores
        self._offsets: list[int] = []
        self.finished = False

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return len(self._offsets)

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stop.stop

    @property
    def offsets(self) -> Sequence[int]:
        """Where the text of each generated token starts."""
        return self._offsets

    def opening(self) -> Iterator[Delta]:
        """What comes before the first output, in parts that are quickly made: the text of a prompt
        that is echoed and that nothing scores."""
        if not self._must_echo:
            return
        for start in range(0, len(self._prompt), ECHO_TOKENS):
            part = self._prompt[start : start + ECHO_TOKENS]
            yield Delta(text="".join(map(self._text.push, part)))

    def feed(self, output: Output) -> Delta:
        """What an output adds. After a stop string was found, nothing more does."""
        delta = Delta()
        if self.finished:
            return delta
        if self._must_score_first:
            self._must_score_first = False
            first = self._prompt[0]
            delta.scored.append(Scored(first, self._advance_prompt(delta, first)))
        for score in output.prompt_scores:
            delta.scored.append(_scored(score, self._advance_prompt(delta, score.token)))
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

    def _advance_prompt(self, delta: Delta, token: int) -> int:
        offset = self._num_chars
        text = self._text.push(token)
        self._num_chars += len(text)
        delta.text += text
        return offset

    def _add_generated(self, delta: Delta, score: TokenScore) -> None:
        delta.token_ids.append(score.token)
        offset = self._num_chars
        self._offsets.append(offset)
        has_text = score.token not in self._silent
        text = self._text.push(score.token) if has_text else ""
        self._num_chars += len(text)
        delta.text += self._stop.push(text)
        if self._with_scores:
            delta.scored.append(_scored(score, offset, has_text))


def _scored(score: TokenScore, offset: int, has_text: bool = True) -> Scored:
    top = [(token, _finite(logprob)) for token, logprob in score.top]
    return Scored(score.token, offset, _finite(score.logprob), top, has_text)


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST_LOGPROB)
