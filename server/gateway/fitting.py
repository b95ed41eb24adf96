"""Refuses a text that cannot fit the context before it is tokenised whole. Knows no request.

Tokenising costs time and memory for every token, whatever becomes of it. So a text is refused by
its length where it is longer than a full context of the longest tokens, and a text that may be too
long is counted in slices until it is a quarter too long. A cut changes a few tokens beside it, of
hundreds in a slice; what is not refused so is tokenised whole, at a cost of little more than a
context.
"""

from __future__ import annotations

from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.tokenizer import Codec

SLICE_CHARS = 65536
MARGIN = 1.25
"""Times a context, as slices count it, from which on a text surely does not fit."""


def require_fitting(text: str, max_tokens: int, codec: Codec, param: str) -> None:
    """ApiError (context_length_exceeded) where `text` surely has more than `max_tokens` tokens."""
    num_bytes = len(text.encode())
    if codec.longest is not None and num_bytes > max_tokens * codec.longest:
        raise _too_long(f"{num_bytes} bytes of text", max_tokens, param)
    if num_bytes <= max(2 * max_tokens, SLICE_CHARS):
        return
    num_tokens = 0
    for start in range(0, len(text), SLICE_CHARS):
        num_tokens += len(codec.encode_rendered(text[start : start + SLICE_CHARS]))
        if num_tokens > MARGIN * max_tokens:
            raise _too_long(f"more than {num_tokens} tokens", max_tokens, param)


def _too_long(what: str, max_tokens: int, param: str) -> ApiError:
    message = (
        f"this model's maximum context length is {max_tokens} tokens, but {what} were sent;"
        f" shorten them"
    )
    return ApiError(400, message, code="context_length_exceeded", param=param)
