"""Builds a step's inputs from a plan. Knows slots and rows, never programs or padding."""

from __future__ import annotations

from lostwax.ir.contract.step import StepBatch
from lostwax.server.engine.request import Chunk
from lostwax.server.engine.scheduler import StepPlan


def build_step(plan: StepPlan, page_tokens: int) -> StepBatch:
    """The batch of a plan: chunks become consecutive rows, one logit row a wanted position."""
    batch = StepBatch(
        entry=plan.entry,
        tokens=[], positions=[], slots=[], q_starts=[0], kv_lens=[], page_table=[],
        logit_rows=[], temperature=[], seeds=[], counters=[], targets=[],
        scores=plan.scores,
    )  # fmt: skip
    for chunk in plan.chunks:
        _append_chunk(batch, chunk, page_tokens)
    return batch


def _append_chunk(batch: StepBatch, chunk: Chunk, page_tokens: int) -> None:
    req, first_row = chunk.req, len(batch.tokens)
    positions = range(chunk.start, chunk.end)
    num_pages = -(-chunk.end // page_tokens)
    batch.tokens += req.tokens[chunk.start : chunk.end]
    batch.positions += positions
    batch.slots += [req.pages[p // page_tokens] * page_tokens + p % page_tokens for p in positions]
    batch.q_starts.append(first_row + chunk.length)
    batch.kv_lens.append(chunk.end)
    batch.page_table.append(req.pages[:num_pages])
    for position in chunk.logit_positions:
        is_sampled = position + 1 == len(req.tokens)
        batch.logit_rows.append(first_row + position - chunk.start)
        batch.temperature.append(req.submit.temperature if is_sampled else 0.0)
        batch.seeds.append(_as_int32(req.submit.seed))
        # Counting outputs makes a token's noise independent of chunking and of its neighbours.
        batch.counters.append(req.num_output)
        batch.targets.append(-1 if is_sampled else req.tokens[position + 1])


def _as_int32(seed: int) -> int:
    """The seed modulo 2^32, in the two's complement that step inputs carry."""
    return (seed + 2**31) % 2**32 - 2**31
