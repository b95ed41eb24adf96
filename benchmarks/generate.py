"""Greedy generation straight on a runtime, for benchmarks: no scheduler, fixed page layout."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.runtime.load import Runtime
from lostwax.ir.contract.step import StepBatch, StepResult


@dataclass
class Sequence:
    """One prompt with what was generated after it, in its own pages."""

    tokens: list[int]
    pages: list[int]
    cached: int = 0

    def slot(self, position: int, page_tokens: int) -> int:
        """Where a position's cache rows lie."""
        return self.pages[position // page_tokens] * page_tokens + position % page_tokens


def start(runtime: Runtime, prompts: list[list[int]], max_new: int) -> list[Sequence]:
    """Give every prompt its pages; ValueError where the cache is too small."""
    page_tokens = runtime.limits.page_tokens
    next_page, sequences = 1, list[Sequence]()
    for prompt in prompts:
        count = -(-(len(prompt) + max_new) // page_tokens)
        sequences.append(Sequence(list(prompt), list(range(next_page, next_page + count))))
        next_page += count
    if next_page > runtime.limits.num_pages:
        raise ValueError(
            f"{next_page} pages are needed, the runtime has {runtime.limits.num_pages}"
        )
    return sequences


def step_batch(runtime: Runtime, entry: str, rows: list[tuple[Sequence, int]]) -> StepBatch:
    """One step over (sequence, tokens to add): the last row of each sequence gets logits."""
    page_tokens = runtime.limits.page_tokens
    tokens, positions, slots, q_starts, kv_lens, logit_rows, table = [], [], [], [0], [], [], []
    for seq, count in rows:
        here = range(seq.cached, seq.cached + count)
        tokens += [seq.tokens[p] for p in here]
        positions += list(here)
        slots += [seq.slot(p, page_tokens) for p in here]
        q_starts.append(len(tokens))
        kv_lens.append(here.stop)
        logit_rows.append(len(tokens) - 1)
        table.append(seq.pages[: -(-here.stop // page_tokens)])
    n = len(rows)
    return StepBatch(
        entry="decode" if entry == "decode" else "extend",
        tokens=tokens,
        positions=positions,
        slots=slots,
        q_starts=q_starts,
        kv_lens=kv_lens,
        page_table=table,
        logit_rows=logit_rows,
        temperature=[0.0] * n,
        seeds=[0] * n,
        counters=[0] * n,
        targets=[-1] * n,
        top_p=[1.0] * n,
    )


def prefill(runtime: Runtime, seq: Sequence) -> StepResult:
    """Run the prompt in the largest chunks that the artifact takes, and append the first token."""
    while True:
        count = min(len(seq.tokens) - seq.cached, runtime.limits.max_tokens)
        result = runtime.run(step_batch(runtime, "extend", [(seq, count)]))
        seq.cached += count
        if seq.cached == len(seq.tokens):
            seq.tokens.append(result.ids[0])
            return result


def decode(runtime: Runtime, sequences: list[Sequence]) -> StepResult:
    """One decode step of all sequences."""
    result = runtime.run(step_batch(runtime, "decode", [(s, 1) for s in sequences]))
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
