"""Seeded, consistent step inputs of a bucket: unequal requests, cached prefixes, padding.

Knows no op and no lowering.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from lostwax.backends.plan.state_rows import StateRows
from lostwax.ir.contract.program import HEADS, Bucket
from lostwax.ir.contract.step import MAX_DRAFTS, STEP_INPUTS, TRASH_PAGE, input_shape
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array

LEAST_LOGITS = 3
"""Logit rows of a case of several requests, where the bucket takes as many: with fewer, what
narrows a sample most would hide what else does."""


@dataclass(frozen=True)
class StepCase:
    """Step inputs padded to a bucket, the symbols' values (N too), and how they were made."""

    inputs: Mapping[str, Array]
    env: Mapping[str, int]
    page_tokens: int
    seed: int


def _split(rng: np.random.Generator, total: int, parts: int, at_most: int) -> Array:
    """`parts` positive numbers of sum `total`, or less where `at_most` a part leaves a rest."""
    share = rng.multinomial(total - parts, rng.dirichlet(np.ones(parts)))
    return np.minimum(share + 1, at_most)


def _lengths(
    rng: np.random.Generator,
    bucket: Bucket,
    segment: str,
    limit: int,
    page_tokens: int,
    seed: int,
    least_reqs: int,
) -> tuple[Array, Array]:
    """New tokens and whole length of each real request.

    Even seeds fill the bucket, odd ones leave padding where there is room. The first request is as
    long as the bucket allows, the second has no cached prefix, the third ends a page.
    """
    full = seed % 2 == 0
    most = min(bucket.reqs, bucket.tokens)
    reqs = most if full or most <= least_reqs else int(rng.integers(least_reqs, most))
    if segment == "decode":
        most_rows = min(bucket.rows_a_req, limit)
        new = np.full(reqs, most_rows) if full else rng.integers(1, most_rows + 1, reqs)
    else:
        least, most = (bucket.tokens,) * 2 if full else (reqs, max(bucket.tokens - 1, reqs))
        total = int(rng.integers(least, most + 1))
        new = _split(rng, total, reqs, limit)
    lengths = rng.integers(new, limit + 1)
    lengths[0] = limit
    if reqs > 1:
        lengths[1] = new[1]
    if reqs > 2:
        rounded = -(-lengths[2] // page_tokens) * page_tokens
        lengths[2] = min(int(rounded), limit)
    return new, lengths


def _first_of(prefixes: Array, together: int) -> Array:
    """The prefixes cut so that they have at most `together` positions, the last ones first."""
    before = np.cumsum(prefixes) - prefixes
    return np.clip(together - before, 0, prefixes)


def _padded(name: str, bucket: Bucket, real: Array) -> Array:
    spec = STEP_INPUTS[name]
    out = np.full(input_shape(name, bucket), spec.padding, NUMPY_DTYPES[spec.dtype])
    out[tuple(slice(0, n) for n in real.shape)] = real
    return out


def step_case(
    bucket: Bucket,
    segment: str,
    seed: int,
    *,
    page_tokens: int,
    vocab_size: int,
    max_kv: int | None = None,
    max_total_kv: int | None = None,
    states: StateRows | None = None,
    least_reqs: int = 1,
) -> StepCase:
    """Step inputs for one program; `max_kv` bounds lengths where a guard does, `max_total_kv` their
    sum: then later requests have shorter prefixes, or none.

    At least `least_reqs` requests are real, where the bucket takes as many. Drafts read any of the
    hidden rows that the step before left, heads of those that their body left, and some of the
    masks, biases and counts; `states` says how many there are (None: those of the bucket alone).
    """
    rng = np.random.default_rng(seed)
    states = states or StateRows.least(bucket)
    if segment in HEADS:
        least = LEAST_LOGITS if least_reqs > 1 else 1
        full = seed % 2 == 0 or bucket.rows <= least
        count = bucket.rows if full else int(rng.integers(least, bucket.rows))
        rows: Array = rng.integers(0, states.hidden, count)
        inputs = _head_inputs(rng, bucket, rows, vocab_size, states)
        return StepCase(inputs, {"R": bucket.rows, **states.env}, page_tokens, seed)
    limit = min(bucket.pages * page_tokens, max_kv or bucket.pages * page_tokens)
    new, lengths = _lengths(rng, bucket, segment, limit, page_tokens, seed, least_reqs)
    if max_total_kv is not None:
        lengths = new + _first_of(lengths - new, max_total_kv - int(new.sum()))
    counts = -(-lengths // page_tokens)
    num_pages = 1 + int(counts.sum())
    ids = rng.permutation(np.arange(1, num_pages))  # page 0 is the trash page
    tables = np.split(ids, np.cumsum(counts)[:-1])
    page_table = np.full((len(new), bucket.pages), TRASH_PAGE)
    for b, pages in enumerate(tables):
        page_table[b, : pages.size] = pages
    starts: Array = np.concatenate([[0], np.cumsum(new)])
    request: Array = np.repeat(np.arange(len(new)), new)
    positions: Array = np.arange(int(starts[-1])) - starts[request] + (lengths - new)[request]
    pages = page_table[request, positions // page_tokens]
    real: dict[str, Array] = {
        "tokens": rng.integers(0, vocab_size, starts[-1]),
        "positions": positions,
        "slots": pages * page_tokens + positions % page_tokens,
        "kv_lens": lengths,
        "page_table": page_table,
        "hidden_rows": rng.integers(0, states.hidden, starts[-1]),
        "num_rows": starts[-1:],
    }
    inputs = {name: _padded(name, bucket, value) for name, value in real.items()}
    q_starts = np.full(bucket.reqs + 1, starts[-1], np.int32)
    q_starts[: starts.size] = starts
    inputs["q_starts"] = q_starts
    env = {
        "T": bucket.tokens,
        "B": bucket.reqs,
        "P": bucket.pages,
        "S": states.hidden,
        "N": num_pages,
    }
    return StepCase(inputs, env, page_tokens, seed)


def _head_inputs(
    rng: np.random.Generator,
    bucket: Bucket,
    rows: Array,
    vocab_size: int,
    states: StateRows,
) -> dict[str, Array]:
    """Real logit rows with every way to sample them, then padding.

    Of several, the first goes without whatever a row may go without and the second has all of it,
    so that neither passes for the other; the third has a min_p that leaves few ids, the fourth a
    nucleus and no heat, the fifth heat alone. The second and third have the first and the last
    mask and bias, and the last row always has one.
    """
    count = rows.size
    temperature = rng.choice(np.array([0.0, 0.5, 1.0, 1.7]), count)
    top_k = rng.choice(np.array([0, 1, 5, vocab_size]), count)
    top_p = rng.choice(np.array([1e-6, 0.3, 0.9, 0.95, 1.0]), count)
    min_p = rng.choice(np.array([0.0, 0.02, 0.5]), count)
    targets = np.where(rng.random(count) < 0.2, -1, rng.integers(0, vocab_size, count))
    named = rng.integers(0, states.masks, count)
    mask_rows = np.where(rng.random(count) < 0.4, -1, named)
    mask_rows[-1] = named[-1]
    biased = rng.integers(0, states.biases, count)
    bias_rows = np.where(rng.random(count) < 0.4, -1, biased)
    bias_rows[-1] = biased[-1]
    counted = rng.integers(0, states.counts, count)
    count_rows = np.where(rng.random(count) < 0.4, -1, counted)
    count_rows[-1] = counted[-1]
    recent = rng.integers(-1, vocab_size, (count, MAX_DRAFTS))
    recent[rng.random(count) < 0.5] = -1
    repetition = rng.choice(np.array([0.8, 1.0, 1.3]), count)
    frequency, presence = rng.choice(np.array([-0.5, 0.0, 0.7]), (2, count))
    if count > 1:
        _set_first(count_rows, -1, 0, states.counts - 1)
        _set_first(repetition, 1.0, 1.3, 1.0)
        _set_first(frequency, 0.0, 0.7, 0.0)
        _set_first(presence, 0.0, -0.5, 0.7)
        recent[0] = -1
        recent[1, 0] = int(rng.integers(0, vocab_size))
        _set_first(temperature, 0.0, rng.choice(np.array([0.5, 1.0, 1.7])), 1.0, 0.0, 1.0)
        _set_first(top_k, 0, int(rng.choice(np.array([5, 40]))), 0, 5, 0)
        _set_first(top_p, 1.0, rng.choice(np.array([0.3, 0.9, 0.95])), 1.0, 0.3, 1.0)
        _set_first(min_p, 0.0, 0.02, 0.5, 0.5, 0.0)
        _set_first(targets, -1, int(rng.integers(0, vocab_size)))
        _set_first(mask_rows, -1, 0, states.masks - 1)
        _set_first(bias_rows, -1, 0, states.biases - 1)
    real: dict[str, Array] = {
        "logit_rows": rows,
        "temperature": temperature,
        "seeds": rng.integers(-(2**31), 2**31, count),
        "counters": rng.integers(0, 2**20, count),
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "targets": targets,
        "num_rows": np.array([count]),
        "count_rows": count_rows,
        "recent": recent,
        "repetition": repetition,
        "frequency": frequency,
        "presence": presence,
        "bias_rows": bias_rows,
        "mask_rows": mask_rows,
    }
    return {name: _padded(name, bucket, value) for name, value in real.items()}


def _set_first(drawn: Array, *values: float) -> None:
    drawn[: len(values)] = values[: drawn.size]


def far_case(case: StepCase, max_context: int) -> StepCase:
    """The same step at the end of the context, for ops that read positions and no cache.

    The last row lies on position `max_context - 1`: angles there are large, and rounded in f32 they
    are wrong in the third decimal.
    """
    near = case.inputs["positions"]
    far = np.where(near < 0, near, near + (max_context - 1 - near.max())).astype(near.dtype)
    return replace(case, inputs={**case.inputs, "positions": far})


def edge_buckets(
    segment: str, *, tokens: int = 13, reqs: int = 3, pages: int = 3
) -> Iterator[Bucket]:
    """Small buckets at the edges: one row, one request, primes, a power of two."""
    if segment in HEADS:
        for rows in (1, reqs, 8):
            yield Bucket(rows=rows)
        return
    if segment == "decode":
        shapes = [(1, 1, 1), (reqs, reqs, pages), (8, 8, 2)]
    else:
        shapes = [(1, 1, 1), (tokens, 1, pages), (tokens, reqs, pages), (16, 4, 2)]
    for t, b, p in shapes:
        yield Bucket(tokens=t, reqs=b, pages=p)
