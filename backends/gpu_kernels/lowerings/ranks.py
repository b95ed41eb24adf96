"""The parts of DeepSeek-V3.2's cached rows, which its kernels ask for. Knows no kernel."""

from __future__ import annotations

from lostwax.backends.lowering import Match
from lostwax.backends.predicates import Predicate

RANKS = LATENT, ROPE = 512, 64
"""config: kv_lora_rank, qk_rope_head_dim."""


def has_ranks() -> Predicate:
    """The cache's rows are those of DeepSeek-V3.2."""

    def refusal(match: Match) -> str | None:
        got = match.parts("cache_in")
        if got == RANKS:
            return None
        return f"cache rows of {' + '.join(map(str, got))}, wants 512 + 64 (latent and rope)"

    return Predicate(refusal)
