"""The log-probabilities of an answer's texts: which of its tokens are in a text, and as what they
are told. Knows no item and no event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from lostwax.server.gateway.chat_reader import ChatReader
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.transcript import Scored


class OutputLogprobs:
    """Scored tokens until the text that they are in is told. Those of reasoning, calls and marks
    are in none."""

    def __init__(self, reader: ChatReader, codec: Codec) -> None:
        self._reader = reader
        self._codec = codec
        self._scored = deque[Scored]()
        self._text = -1
        """Which of the texts that calls part is told of."""
        self._num_told = 0
        """Characters of it."""

    def add(self, scored: Iterable[Scored]) -> None:
        """Tokens that came, in their order. One without a text is in none, wherever it stands."""
        self._scored.extend(each for each in scored if each.has_text)

    def begin(self) -> None:
        """A text begins, behind all that were told."""
        self._text, self._num_told = self._text + 1, 0

    def take(self, count: int) -> list[Raw]:
        """The tokens, as JSON, of so many further characters of the text: each that begins in them,
        and one that began in a mark before them and ends there."""
        before = self._num_told
        self._num_told += count
        if not self._scored:
            return []
        start = self._reader.starts[self._text] + before
        taken = list[Raw]()
        while self._scored and self._scored[0].offset < start + count:
            each = self._scored.popleft()
            goes_on = not self._scored or self._scored[0].offset > start
            if each.offset >= start or goes_on:
                taken.append(Raw(msgspec.json.encode(self._told(each))))
        return taken

    def _told(self, scored: Scored) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in scored.top or ()]
        return self._token(scored.token, scored.logprob) | {"top_logprobs": top}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        # Its clients read a list, also of a token that stands for no bytes.
        as_bytes = self._codec.token_bytes(token) or b""
        return {"token": self._codec.piece(token), "logprob": logprob, "bytes": list(as_bytes)}
