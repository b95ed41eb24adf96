"""The `moe` references against brute force."""

from itertools import combinations
from typing import Any

import numpy as np

from lostwax.ir.reference import moe

CONFIG: dict[str, Any] = {
    "top_k": 3,
    "n_group": 4,
    "topk_group": 2,
    "normalise": True,
    "scale": 2.5,
}


def brute_force(logits: np.ndarray, bias: np.ndarray) -> tuple[set[int], dict[int, float]]:
    """Try every choice of groups and of experts in them: the best sum wins."""
    s = 1 / (1 + np.exp(-logits))
    b = s + bias
    members = [range(g * 4, g * 4 + 4) for g in range(4)]
    value = [max(b[i] + b[j] for i, j in combinations(m, 2)) for m in members]
    groups = max(combinations(range(4), 2), key=lambda gs: sum(value[g] for g in gs))
    allowed = [e for g in groups for e in members[g]]
    chosen = max(combinations(allowed, 3), key=lambda es: sum(b[e] for e in es))
    total = sum(s[e] for e in chosen)
    return set(chosen), {e: s[e] / total * 2.5 for e in chosen}


def test_route_equals_brute_force_with_negative_biases():
    rng = np.random.default_rng(0)
    logits, bias = rng.standard_normal((20, 16)), rng.standard_normal(16) - 1.5
    ids, weights = moe.route(logits, bias, np.arange(20), **CONFIG)
    for row in range(20):
        chosen, want = brute_force(logits[row], bias)
        assert set(ids[row]) == chosen
        np.testing.assert_allclose(weights[row], [want[e] for e in ids[row]], rtol=1e-12)
        biased = 1 / (1 + np.exp(-logits[row])) + bias
        assert (np.diff(biased[ids[row]]) <= 0).all()


def test_route_gives_lowest_index_among_equals_and_nothing_to_padding():
    ids, weights = moe.route(np.zeros((2, 16)), np.zeros(16), np.array([7, -1]), **CONFIG)
    np.testing.assert_array_equal(ids, [[0, 1, 2], [-1, -1, -1]])
    np.testing.assert_allclose(weights, [[2.5 / 3] * 3, [0] * 3])


def test_experts_sum_weighted_mlps_and_skip_minus_one():
    rng = np.random.default_rng(1)
    x, gate, up = (rng.standard_normal(s) for s in ((3, 5), (4, 6, 5), (4, 6, 5)))
    down, weights = rng.standard_normal((4, 5, 6)), rng.standard_normal((3, 2))
    ids = np.array([[2, 0], [1, -1], [-1, -1]], np.int32)
    want = np.zeros((3, 5))
    for t in range(3):
        for e, w in zip(ids[t], weights[t], strict=True):
            if e >= 0:
                g = gate[e] @ x[t]
                want[t] += w * (down[e] @ (g / (1 + np.exp(-g)) * (up[e] @ x[t])))
    np.testing.assert_allclose(moe.experts(x, ids, weights, gate, up, down), want, rtol=1e-12)
