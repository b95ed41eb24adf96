"""Which programs a step runs: a body and its head, then those of its drafts. Runs none."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lostwax.ir.contract.artifact import ProgramRef
from lostwax.ir.contract.program import Entry, Head, Segment, StepFacts
from lostwax.ir.contract.step_plan import StepPlan

Stage = tuple[ProgramRef, ...]
"""A body, and its head where rows are asked for."""


class StepError(ValueError):
    """No program of the artifact fits the step; the message gives its size and the limits."""


class RuntimeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The artifact's limits with the number of cache pages of this process (page 0 is trash), and
    of pages of host memory beside them."""

    max_tokens: int
    max_reqs: int
    max_context: int
    max_score_rows: int
    page_tokens: int
    vocab_size: int
    max_drafts: int
    num_pages: int
    num_host_pages: int = 0


class StepPrograms:
    """The programs of an artifact, in order of preference: the first that admits a step wins."""

    def __init__(self, programs: Sequence[ProgramRef], limits: RuntimeLimits, least: int) -> None:
        """At least `least` rows get a head: where it ends a step's body, one."""
        self._of: dict[Segment, list[ProgramRef]] = {}
        for ref in programs:
            self._of.setdefault(ref.segment, []).append(ref)
        self._limits = limits
        self._least = least

    def pick(self, plan: StepPlan) -> tuple[Stage, ...]:
        """The stages of a step. A head is replayed where there are more rows than it takes.

        Raises StepError where no program fits.
        """
        num_logits = max(plan.num_logits, self._least)
        stages = [self._stage(plan.entry, plan.facts, plan.head, num_logits)]
        if not plan.drafts:
            return tuple(stages)
        head, picking = plan.draft_head, plan.num_picking
        stages.append(self._stage("draft", plan.facts, head, picking))
        for number in range(1, plan.drafts if picking else 1):
            ends = min(plan.facts.max_kv + number, self._limits.max_context)
            facts = StepFacts(picking, 1, picking, ends, picking * ends)
            stages.append(self._stage("draft", facts, head, picking))
        return tuple(stages)

    def _stage(self, entry: Entry, facts: StepFacts, head: Head, num_logits: int) -> Stage:
        body = self._body(entry, facts)
        return (body, self._head(head, num_logits)) if num_logits else (body,)

    def _head(self, head: Head, count: int) -> ProgramRef:
        heads = self._of.get(head)
        if not heads:
            raise StepError(f"the artifact has no head {head!r}; recompile it")
        return next((ref for ref in heads if ref.bucket.rows >= count), heads[-1])

    def _body(self, entry: Entry, facts: StepFacts) -> ProgramRef:
        pages = -(-facts.max_kv // self._limits.page_tokens)
        for ref in self._of.get(entry, ()):
            b = ref.bucket
            if (
                facts.total_q <= b.tokens
                and (entry != "decode" or facts.max_q <= b.rows_a_req)
                and facts.num_reqs <= b.reqs
                and pages <= b.pages
                and ref.guard.holds(facts)
            ):
                return ref
        raise StepError(f"no {entry} program fits {facts} with {self._limits}")
