"""Says what a server can hold, in words for its operator. Knows no page."""

from __future__ import annotations

LENGTHS = {"4k": 4096, "32k": 32768}
"""Requests that an operator thinks in: prompt and answer together."""


def capacity(cache_tokens: int, page_tokens: int, max_context: int, max_running: int) -> str:
    """How many tokens `cache_tokens` are, and how many requests of some lengths run at once in
    them, each in whole pages and at most `max_running`."""
    parts = [
        f"{_at_once(cache_tokens, page_tokens, tokens, max_running)} of {name}"
        for name, tokens in LENGTHS.items()
        if tokens < max_context
    ]
    full = _at_once(cache_tokens, page_tokens, max_context, max_running)
    parts.append(f"{full} of the full context ({max_context})")
    return f"the cache holds {cache_tokens} tokens; requests that run at once: {', '.join(parts)}"


def host_capacity(host_tokens: int) -> str:
    """What host memory holds beside the cache, as the end of the same sentence."""
    return f"; host memory holds {host_tokens} more of prefixes" if host_tokens else ""


def _at_once(cache_tokens: int, page_tokens: int, tokens: int, max_running: int) -> int:
    whole = -(-tokens // page_tokens) * page_tokens
    return min(cache_tokens // whole, max_running)
