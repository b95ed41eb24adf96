"""The artifact's manifest: what was compiled, for what, out of what. Names and digests only."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.bounds import Bytes, Count, Few, Package, RelativePath, Word
from lostwax.ir.contract.caches import CachePlane
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import Bucket, Guard, Segment
from lostwax.ir.contract.target import Target

SCHEMA = 11
"""Version of all files of an artifact together; every other is refused at load.

2: programs with scores read `top_p`; those of 1 would sample from all ids without a word.
3: targets have `memory_bytes`, choices say what is portable, probes draw edge rows.
4: bodies and heads are programs of their own, which meet in the hidden state; a choice's place in
its function is its `site`; a guard says whether it selects all; a manifest says what packages it
`requires`; probes hold samples, drawn by an integer hash, and say which inputs are undefined; steps
have `num_rows`; weight plans say every step, and dtype, shape and scales of what it takes; kernels
take blobs and tensor maps, launches have attributes that targets may lack, and `zeroed_bytes` lie
outside the arena.
5: programs have launches that `finish` them, and a manifest says how steps lie in device memory.
6: heads that sample read masks, a state of their own, by the step's `mask_rows`; probes draw bits;
binaries say what code they were compiled from.
7: heads that sample read `top_k`, `min_p`, penalties, and counts and biases, states of their own,
by the step's `count_rows` and `bias_rows`.
8: targets say which prefill steps are captured.
9: choices say which part of a price is for what a step prepares.
10: targets say whether parts of cached rows lie apart; values may be si8, with a scale a row.
11: kernels may be symbols of a library for the processor, written in C++.
"""


MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.json"
CERTIFICATES = "certificates.json"
OUTSIDE = frozenset({MANIFEST, CHECKPOINT, CERTIFICATES})
"""Files of the folder that the digest leaves out: what belongs to one machine, and itself."""


class CheckpointNote(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `checkpoint.json`: where the checkpoint lay when it was compiled.

    `files` gives each of its files' content digest (`backends/runtime/checkpoint_content.py`).
    """

    path: str
    files: dict[RelativePath, str] = {}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a step that the artifact's programs can run.

    `max_tokens` rows of an extend step, `max_reqs` requests of any step, `max_context` tokens of
    one request, `max_score_rows` logit rows that the head with scores takes at once, `max_drafts`
    tokens drafted for one request between two decode steps.
    """

    max_tokens: Count
    max_reqs: Count
    max_context: Count
    max_score_rows: Count
    page_tokens: Count
    vocab_size: Count
    max_drafts: Few = 0


class ProgramRef(msgspec.Struct, frozen=True, kw_only=True):
    """A program's file and what the host needs to pick it. Listed in order of preference."""

    file: RelativePath
    segment: Segment
    bucket: Bucket
    guard: Guard
    arena_bytes: Bytes


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `manifest.json`. `digest` covers everything else in it, and `files` by sha256
    covers everything else in the folder but what belongs to one machine (`OUTSIDE`).
    """

    schema: int
    digest: str
    model: ModelFacts
    target: Target
    dtype: Word
    world_size: Count
    limits: Limits
    planes: tuple[CachePlane, ...]
    weight_bytes: Bytes
    arena_bytes: Bytes
    state_bytes: Bytes
    """Hiddens of the largest body, which heads and drafts read."""
    zeroed_bytes: Bytes
    """The most that one lowering wants zeroed once, and leaves zero; all launches share it."""
    step_layout: Word = ""
    """How plan and state lie in device memory (`step_layout.LAYOUT`), which kernels were compiled
    for; empty where the host keeps the state."""
    batch_invariant: bool = False
    """An answer does not depend on its neighbours, on chunking nor on drafting."""
    programs: tuple[ProgramRef, ...]
    kernels: tuple[CompiledKernel, ...]
    requires: dict[Package, tuple[Word, ...]] = {}
    """Installed packages that the chosen lowerings call, each with the lowerings that do."""
    toolchain: dict[Word, Word]
    files: dict[RelativePath, str]

    @property
    def step_on_device(self) -> bool:
        """Whether the device keeps the sequences' state, and kernels derive programs' inputs."""
        return bool(self.step_layout)
