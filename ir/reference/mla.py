"""The meaning of the `mla` ops in numpy, fp64 inside."""

from __future__ import annotations

import numpy as np

from lostwax.ir.reference.cache_bytes import Cache
from lostwax.ir.reference.dtype import Array, Real, Value, widen
from lostwax.ir.reference.paging import cached_rows, rows_with_request


def softmax(x: Real) -> Real:
    """e^x / sum(e^x) over the last axis."""
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def attend(
    q_nope: Array,
    q_pe: Array,
    kv_b: Value,
    cache_in: Cache,
    selection: Array,
    positions: Array,
    q_starts: Array,
    page_table: Array,
    *,
    scale: float,
) -> Real:
    """Multi-head attention of each row over its selected cached positions.

    q_nope [T, H, Dn], q_pe [T, H, R], kv_b [H*(Dn+Dv), C], cache [N, page, C+R], selection [T, K]
    (-1: none), page_table [B, P] -> [T, H*Dv]. k_h = [c W_k,h^T || k_pe], v_h = c W_v,h^T; sums
    over the latent and over positions change places, which is a hundred times fewer operations.
    Rows with nothing selected give zeros; here those without a token do, too.
    """
    tokens, heads, nope = q_nope.shape
    latent = kv_b.shape[1]
    per_head = widen(kv_b).reshape(heads, -1, latent)
    w_k, w_v = per_head[:, :nope], per_head[:, nope:]  # [H, Dn, C], [H, Dv, C]
    q_pe = widen(q_pe)
    # k_h . q = c . (W_k,h^T q); all rows at once, since the weights are many times a row's numbers
    latent_q = (widen(q_nope).swapaxes(0, 1) @ w_k).swapaxes(0, 1)  # [T, H, C]
    mixed = np.zeros((tokens, heads, latent))
    for row, b in rows_with_request(positions, q_starts):
        chosen = selection[row][selection[row] >= 0]
        if chosen.size == 0:
            continue
        cached = cached_rows(cache_in, page_table[b], chosen)
        c, k_pe = cached[:, :latent], cached[:, latent:]
        p = softmax((latent_q[row] @ c.T + q_pe[row] @ k_pe.T) * scale)  # [H, n]
        mixed[row] = p @ c
    out = mixed.swapaxes(0, 1) @ w_v.swapaxes(1, 2)  # sum of p v_h = W_v,h (sum of p c)
    return out.swapaxes(0, 1).reshape(tokens, -1)
