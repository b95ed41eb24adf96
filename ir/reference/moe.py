"""The meaning of the `moe` ops in numpy, fp64 inside."""

from __future__ import annotations

import numpy as np

from lostwax.ir.reference.core import sigmoid, silu
from lostwax.ir.reference.dtype import Array, Real, Scaled, Value, dtype_name, widen
from lostwax.ir.reference.quant import product, quantise


def _best(scores: Real, k: int) -> Array:
    """Indexes of the k largest, descending; the lowest index wins ties."""
    return np.argsort(-scores, kind="stable")[:k]


def route(
    logits: Array,
    bias: Array,
    positions: Array,
    *,
    top_k: int,
    n_group: int,
    topk_group: int,
    normalise: bool,
    scale: float,
) -> tuple[Array, Real]:
    """noaux_tc: choose experts by biased scores within the best groups, weigh by unbiased ones.

    logits [T, E], bias [E] -> ids [T, K], weights [T, K]. A group's score is the sum of its two
    best biased scores; other groups' experts are excluded (not zeroed: a biased score may be
    negative). Padded rows get ids -1 and weights 0.
    """
    scores = sigmoid(widen(logits))
    biased = scores + widen(bias)
    tokens, experts = scores.shape
    ids = np.full((tokens, top_k), -1, dtype=np.int64)
    weights = np.zeros((tokens, top_k))
    for row in np.flatnonzero(positions >= 0):
        groups = biased[row].reshape(n_group, -1)
        group_scores = np.sort(groups, axis=-1)[:, -2:].sum(axis=-1)
        allowed = np.full((n_group, experts // n_group), -np.inf)
        kept = _best(group_scores, topk_group)
        allowed[kept] = groups[kept]
        ids[row] = _best(allowed.reshape(-1), top_k)
        chosen = scores[row, ids[row]]
        total = chosen.sum() + 1e-20 if normalise else 1.0
        weights[row] = chosen / total * scale
    return ids, weights


def experts(
    x: Value,
    ids: Array,
    weights: Array,
    gate: Value,
    up: Value,
    down: Value,
    *,
    hidden_fmt: str | None = None,
) -> Real:
    """sum_k weights[t, k] * down_e(silu(gate_e x) * up_e x) with e = ids[t, k]; -1 adds nothing.

    x [T, D], gate and up [E, I, D], down [E, D, I] -> [T, D]. With `hidden_fmt`, down_e reads fp8
    in x's encoding and blocks.
    """

    def entering_down(hidden: Real) -> Real:
        if hidden_fmt is None:
            return hidden
        assert isinstance(given, Scaled)  # the op's verifier
        dtype = dtype_name(given.values)
        return widen(quantise(hidden, dtype=dtype, block=given.cols, scale_fmt=hidden_fmt))

    given, x, weights = x, widen(x), widen(weights)
    out = np.zeros((x.shape[0], down.shape[1]))
    for e in np.unique(ids[ids >= 0]):
        rows, slots = np.nonzero(ids == e)
        w_gate, w_up, w_down = (w[int(e)] for w in (gate, up, down))
        hidden = silu(product(x[rows], w_gate)) * product(x[rows], w_up)
        result = product(entering_down(hidden), w_down)
        np.add.at(out, rows, weights[rows, slots, None] * result)
    return out
