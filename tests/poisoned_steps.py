"""Steps over memory that holds NaN wherever nothing may be read: right code gives the same bits.

Before every replay these are NaN: the arena, the trash page, pages of nobody, what the pages of a
request hold behind its length, and hidden rows behind those of the last body.
"""

from __future__ import annotations

import torch

from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.load import Runtime
from lostwax.ir.contract.program import HEADS, Bucket, Segment
from lostwax.ir.contract.step import HIDDEN, TRASH_PAGE

NAN = 0xFF
"""Every byte of a NaN in f32 and bf16."""


class Poison:
    """Knows which cached tokens are written, and poisons the others.

    Drafts write the layers from `mtp_layer` on, other bodies those before. Only for caches in plain
    layouts, whose tokens lie one behind another.
    """

    def __init__(self, runtime: Runtime, mtp_layer: int) -> None:
        self._memory, self._limits = runtime.memory, runtime.limits
        self._mtp_layer = mtp_layer
        most = max(ref.bucket.tokens for ref in runtime.manifest.programs)
        self._row_bytes = self._memory.states[HIDDEN].nbytes // most
        slots = self._limits.num_pages * self._limits.page_tokens
        self._written = {drafts: torch.zeros(slots, dtype=torch.bool) for drafts in (False, True)}
        self._last_rows = 0
        self.padded: set[str] = set()
        """Entries of bodies that had rows without a token."""

    def release(self, pages: list[int]) -> None:
        """These pages belong to nobody now."""
        for written in self._written.values():
            written.view(-1, self._limits.page_tokens)[pages] = False

    def before(self, segment: Segment, bucket: Bucket, inputs: StepInputs) -> None:
        """Poison what a segment must not read, once its inputs are filled; note what it writes."""
        self._memory.arena.fill(NAN)
        self._memory.states[HIDDEN][self._last_rows * self._row_bytes :] = NAN
        if segment in HEADS:
            return  # it touches no page
        self._last_rows = len(inputs.values["tokens"])
        if bucket.tokens > self._last_rows:
            self.padded.add(segment)
        written, tokens = self._written[segment == "draft"], self._limits.page_tokens
        for seq, length in zip(inputs.seqs, inputs.values["kv_lens"], strict=True):
            listed = torch.from_numpy(inputs.state.pages[seq].copy())
            pages = listed[listed != TRASH_PAGE].long()
            places = torch.arange(len(pages) * tokens)
            slots = pages[places // tokens] * tokens + places % tokens
            written[slots[length:]] = False
        written[:tokens] = False
        for (_, layer), plane in self._memory.planes.items():
            held = self._written[layer >= self._mtp_layer]
            torch.from_numpy(plane).view(held.numel(), -1)[~held] = NAN
        written[torch.from_numpy(inputs.values["slots"]).long()] = True
