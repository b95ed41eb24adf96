"""Builds a step's inputs from a plan. Knows slots and rows, never programs or padding."""

from __future__ import annotations

from collections.abc import Sequence

from lostwax.ir.contract.program import Entry, Head
from lostwax.ir.contract.step import StepBatch
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduler import StepPlan


def build_step(plan: StepPlan, page_tokens: int) -> StepBatch:
    """The batch of a plan: chunks become consecutive rows, one logit row a wanted position."""
    batch = empty_batch(plan.entry, plan.head)
    for chunk in plan.chunks:
        _append_chunk(batch, chunk, page_tokens)
    return batch


def empty_batch(entry: Entry, head: Head = "pick") -> StepBatch:
    """A batch without rows."""
    return StepBatch(
        entry=entry,
        tokens=[], positions=[], slots=[], q_starts=[0], kv_lens=[], page_table=[],
        logit_rows=[], temperature=[], seeds=[], counters=[], targets=[], top_p=[],
        head=head,
    )  # fmt: skip


def append_rows(
    batch: StepBatch, req: Req, tokens: Sequence[int], positions: range, page_tokens: int
) -> None:
    """Add the rows of one request, which end what it sees of its pages."""
    num_pages = -(-positions.stop // page_tokens)
    batch.tokens += tokens
    batch.positions += positions
    batch.slots += [req.pages[p // page_tokens] * page_tokens + p % page_tokens for p in positions]
    batch.q_starts.append(len(batch.tokens))
    batch.kv_lens.append(positions.stop)
    batch.page_table.append(req.pages[:num_pages])


def append_logits(batch: StepBatch, req: Req, row: int, output: int, target: int | None) -> None:
    """Ask for a row's logits: to score `target`, or to pick the request's output number `output`.

    Counting outputs makes a token's noise independent of chunking, drafting and neighbours.
    """
    batch.logit_rows.append(row)
    batch.temperature.append(req.submit.temperature if target is None else 0.0)
    batch.top_p.append(req.submit.top_p if target is None else 1.0)
    batch.seeds.append(_as_int32(req.submit.seed))
    batch.counters.append(output)
    batch.targets.append(-1 if target is None else target)


def _append_chunk(batch: StepBatch, chunk: Chunk, page_tokens: int) -> None:
    req, first_row = chunk.req, len(batch.tokens)
    append_rows(batch, req, chunk.tokens, range(chunk.start, chunk.end), page_tokens)
    for position in chunk.logit_positions:
        behind = position + 1
        target = req.tokens[behind] if behind < chunk.num_known else None
        output = max(behind - req.num_prompt, 0)
        append_logits(batch, req, first_row + position - chunk.start, output, target)


def _as_int32(seed: int) -> int:
    """The seed modulo 2^32, in the two's complement that step inputs carry."""
    return (seed + 2**31) % 2**32 - 2**31
