"""The artifact's manifest: what was compiled, for what, out of what. Names and digests only."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.caches import CachePlane
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import Bucket, Guard
from lostwax.ir.contract.target import Target

SCHEMA = 2
"""Version of manifest, programs and weight plan together; every other is refused at load.

2: programs with scores read `top_p`; those of 1 would sample from all ids without a word."""


CHECKPOINT = "checkpoint.json"
CERTIFICATES = "certificates.json"
OUTSIDE = frozenset({"manifest.json", CHECKPOINT, CERTIFICATES})
"""Files of the folder that the digest leaves out: what belongs to one machine, and itself."""


class CheckpointNote(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `checkpoint.json`: where the checkpoint lay when it was compiled.

    `files` gives each of its files' content digest (`backends/runtime/checkpoint_content.py`).
    """

    path: str
    files: dict[str, str] = {}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a step that the artifact's programs can run.

    `max_tokens` rows of an extend step, `max_reqs` requests of any step, `max_context` tokens of
    one request, `max_score_rows` logit rows of a step that asks for scores, `max_drafts` tokens
    drafted for one request between two decode steps.
    """

    max_tokens: int
    max_reqs: int
    max_context: int
    max_score_rows: int
    page_tokens: int
    vocab_size: int
    max_drafts: int = 0


class ProgramRef(msgspec.Struct, frozen=True, kw_only=True):
    """A program's file and what the host needs to pick it. Listed in order of preference."""

    file: str
    entry: str
    bucket: Bucket
    guard: Guard
    arena_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `manifest.json`. `digest` covers everything else in it, and `files` by sha256
    covers everything else in the folder but what belongs to one machine (`OUTSIDE`).
    """

    schema: int
    digest: str
    model: ModelFacts
    target: Target
    dtype: str
    world_size: int
    limits: Limits
    planes: tuple[CachePlane, ...]
    weight_bytes: int
    arena_bytes: int
    state_bytes: int = 0
    """Hiddens of the largest step, which drafts read; 0 without drafts."""
    batch_invariant: bool = False
    """An answer does not depend on its neighbours, on chunking nor on drafting."""
    programs: tuple[ProgramRef, ...]
    kernels: tuple[CompiledKernel, ...]
    toolchain: dict[str, str]
    files: dict[str, str]
