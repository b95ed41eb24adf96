"""Lowerings on torch operators for every op and any device that torch has. Knows no target."""

from __future__ import annotations

from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings.attention import ATTENTION
from lostwax.backends.portable.lowerings.cache import CACHE
from lostwax.backends.portable.lowerings.collectives import COLLECTIVES
from lostwax.backends.portable.lowerings.elementwise import ELEMENTWISE
from lostwax.backends.portable.lowerings.experts import EXPERTS
from lostwax.backends.portable.lowerings.fp8 import FP8
from lostwax.backends.portable.lowerings.indexer import INDEXER
from lostwax.backends.portable.lowerings.linear import LINEAR
from lostwax.backends.portable.lowerings.norms import NORMS
from lostwax.backends.portable.lowerings.rope import ROPE
from lostwax.backends.portable.lowerings.sample import SAMPLE
from lostwax.ir.contract.target import Target


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """Every portable lowering; their predicates ask the target's facts."""
    return (
        *ELEMENTWISE,
        *NORMS,
        *ROPE,
        *LINEAR,
        *ATTENTION,
        *INDEXER,
        *EXPERTS,
        *CACHE,
        *FP8,
        *SAMPLE,
        *COLLECTIVES,
    )
