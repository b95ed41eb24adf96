"""Greedy generation straight on a runtime, for benchmarks: no scheduler, fixed page layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lostwax.backends.runtime.load import Runtime
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import Span, StepPlan, append_span
from lostwax.ir.contract.step_state import Enter


@dataclass
class Sequence:
    """One prompt with what was generated after it, in its own pages."""

    seq: int
    tokens: list[int]
    pages: list[int]
    limit: int
    cached: int = 0

    @property
    def enter(self) -> Enter:
        """Its row of the sequences' state, before it has generated anything."""
        return Enter(self.seq, tuple(self.pages), 0, self.limit, len(self.tokens))


def start(runtime: Runtime, prompts: list[list[int]], max_new: int) -> list[Sequence]:
    """Give every prompt its pages; ValueError where the cache is too small."""
    page_tokens = runtime.limits.page_tokens
    next_page, sequences = 1, list[Sequence]()
    for seq, prompt in enumerate(prompts, start=1):
        count = -(-(len(prompt) + max_new) // page_tokens)
        pages = list(range(next_page, next_page + count))
        sequences.append(Sequence(seq, list(prompt), pages, count * page_tokens))
        next_page += count
    if next_page > runtime.limits.num_pages:
        raise ValueError(
            f"{next_page} pages are needed, the runtime has {runtime.limits.num_pages}"
        )
    return sequences


def step_plan(rows: list[tuple[Sequence, int]], entry: Literal["extend", "decode"]) -> StepPlan:
    """One step over (sequence, tokens to add): the last row of each sequence gets logits."""
    logits: list[Span] = []
    tokens: list[int] = []
    for seq, count in rows:
        tokens += seq.tokens[seq.cached : seq.cached + count]
        append_span(logits, len(tokens) - 1, 1)
    return StepPlan(
        entry=entry,
        seqs=tuple(seq.seq for seq, _ in rows),
        counts=tuple(count for _, count in rows),
        ends=tuple(seq.cached + count for seq, count in rows),
        tokens=tuple(tokens) if entry == "extend" else (),
        entering=tuple(seq.enter for seq, _ in rows if not seq.cached),
        logits=tuple(logits),
    )


def prefill(runtime: Runtime, seq: Sequence) -> StepResult:
    """Run the prompt in the largest chunks that the artifact takes, and append the first token."""
    while True:
        count = min(len(seq.tokens) - seq.cached, runtime.limits.max_tokens)
        result = runtime.run(step_plan([(seq, count)], "extend"))
        seq.cached += count
        if seq.cached == len(seq.tokens):
            seq.tokens.append(result.ids[0])
            return result


def decode(runtime: Runtime, sequences: list[Sequence]) -> StepResult:
    """One decode step of all sequences."""
    result = runtime.run(step_plan([(s, 1) for s in sequences], "decode"))
    for seq, token in zip(sequences, result.ids, strict=True):
        seq.cached += 1
        seq.tokens.append(token)
    return result


def greedy(runtime: Runtime, prompts: list[list[int]], max_new: int) -> list[list[int]]:
    """The greedy continuations of several prompts, decoded as one batch."""
    sequences = start(runtime, prompts, max_new)
    for seq in sequences:
        prefill(runtime, seq)
    for _ in range(max_new - 1):
        decode(runtime, sequences)
    return [s.tokens[len(p) :] for s, p in zip(sequences, prompts, strict=True)]
