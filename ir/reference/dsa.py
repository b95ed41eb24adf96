"""The meaning of the `dsa` ops in numpy, fp64 inside."""

from __future__ import annotations

import numpy as np

from lostwax.ir.reference.cache_bytes import Cache
from lostwax.ir.reference.dtype import Array, Real, Value, widen
from lostwax.ir.reference.paging import cached_rows, rows_with_request, visible


def index_logits(
    q: Value,
    weights: Array,
    cache_in: Cache,
    positions: Array,
    q_starts: Array,
    page_table: Array,
    *,
    scale: float,
) -> Real:
    """I[t, s] = scale * sum_h weights[t, h] * relu(q[t, h] . k[s]); -inf where s > positions[t].

    q [T, Hi, Di], weights [T, Hi] (may be negative), cache [N, page, Di] -> [T, page*P].
    """
    columns = cache_in.shape[1] * page_table.shape[1]
    q, weights = widen(q), widen(weights)
    out = np.full((q.shape[0], columns), -np.inf)
    for row, b in rows_with_request(positions, q_starts):
        seen = visible(int(positions[row]))
        k = cached_rows(cache_in, page_table[b], seen)  # [s, Di]
        scores = np.maximum(q[row] @ k.T, 0.0)  # [Hi, s]: ReLU a head, before its weight
        out[row, : seen.size] = scale * (weights[row] @ scores)
    return out


def topk(logits: Array, *, k: int) -> Array:
    """The k largest of each row as a set: ascending positions, then -1; lowest index wins ties.

    -inf and NaN are never chosen.
    """
    logits = widen(logits)
    out = np.full((logits.shape[0], k), -1, dtype=np.int64)
    for row, values in enumerate(logits):
        candidates = np.flatnonzero(values > -np.inf)  # false for NaN too
        order = np.argsort(-values[candidates], kind="stable")
        chosen = np.sort(candidates[order[:k]])
        out[row, : chosen.size] = chosen
    return out


def all_(positions: Array, *, k: int) -> Array:
    """Every visible position of each row, ascending, then -1; at most k of them."""
    out = np.full((positions.shape[0], k), -1, dtype=np.int64)
    for row, position in enumerate(positions):
        chosen = visible(int(position))[:k]
        out[row, : chosen.size] = chosen
    return out


def hadamard(x: Array) -> Real:
    """x H / sqrt(D) over the last axis; H is doubled as [[H, H], [H, -H]] from [[1]]."""
    width = x.shape[-1]
    signs = np.ones((1, 1))
    while signs.shape[0] < width:
        signs = np.block([[signs, signs], [signs, -signs]])
    return widen(x) @ signs / np.sqrt(width)
