"""The `dsa` and `mla` references against brute force, torch and the absorbed form."""

import numpy as np
import torch

from lostwax.ir.reference import dsa, mla
from lostwax.ir.reference.dtype import Scaled, round_to, widen

PAGE, PAGES = 4, 3


def paged_requests(width: int, seed: int = 0):
    """Two requests (3 rows at 5.., 1 row at 9) and a padded row, over permuted pages."""
    rng = np.random.default_rng(seed)
    cache = rng.standard_normal((8, PAGE, width))
    page_table = np.array([[5, 2, 0], [7, 1, 3]], np.int32)
    positions = np.array([5, 6, 7, 9, -1], np.int32)
    q_starts = np.array([0, 3, 4], np.int32)
    rows = [cache[page_table[b]].reshape(-1, width) for b in (0, 0, 0, 1)]
    return rng, cache, page_table, positions, q_starts, rows


def test_index_logits_are_relu_before_weight_over_visible_keys():
    rng, cache, page_table, positions, q_starts, rows = paged_requests(6)
    q, w = rng.standard_normal((5, 2, 6)), rng.standard_normal((5, 2))
    got = dsa.index_logits(q, w, cache, positions, q_starts, page_table, scale=0.5)
    assert got.shape == (5, PAGE * PAGES)
    for t, keys in enumerate(rows):
        for s in range(PAGE * PAGES):
            want = 0.5 * sum(w[t, h] * max(q[t, h] @ keys[s], 0) for h in range(2))
            assert got[t, s] == -np.inf if s > positions[t] else np.isclose(got[t, s], want)
    assert (got[4] == -np.inf).all()


def test_topk_is_an_ascending_set_with_lowest_index_ties():
    inf, nan = np.inf, np.nan
    logits = np.array(
        [
            [1.0, 3.0, 2.0, 3.0, 0.0],
            [1.0, 1.0, 1.0, 1.0, 1.0],
            [nan, -inf, 5.0, nan, -inf],
            [-inf, inf, -1.0, inf, inf],
            [0.0, -0.0, nan, 0.0, -1.0],
        ],
        np.float32,
    )
    want = [[1, 2, 3], [0, 1, 2], [2, -1, -1], [1, 3, 4], [0, 1, 3]]
    np.testing.assert_array_equal(dsa.topk(logits, k=3), want)


def test_topk_equals_torch_as_a_set_without_ties():
    logits = np.random.default_rng(3).standard_normal((7, 100))
    want = np.sort(torch.from_numpy(logits).topk(9).indices.numpy(), axis=-1)
    np.testing.assert_array_equal(dsa.topk(logits, k=9), want)


def test_topk_of_short_rows_is_all():
    rng, cache, page_table, positions, q_starts, _ = paged_requests(6)
    q, w = rng.standard_normal((5, 2, 6)), rng.standard_normal((5, 2))
    logits = dsa.index_logits(q, w, cache, positions, q_starts, page_table, scale=1.0)
    np.testing.assert_array_equal(dsa.topk(logits, k=12), dsa.all_(positions, k=12))


def test_attend_equals_torch_attention_over_the_selection_and_the_absorbed_form():
    heads, nope, rope, value, latent = 2, 5, 4, 3, 6
    rng, cache, page_table, positions, q_starts, rows = paged_requests(latent + rope)
    q_nope, q_pe = rng.standard_normal((5, heads, nope)), rng.standard_normal((5, heads, rope))
    kv_b = rng.standard_normal((heads * (nope + value), latent))
    selection = np.array(
        [[0, 3, 5, -1], [2, -1, -1, -1], [-1] * 4, [0, 4, 8, 9], [-1] * 4], np.int32
    )
    got = mla.attend(
        q_nope, q_pe, kv_b, cache, selection, positions, q_starts, page_table, scale=0.3
    )
    w = kv_b.reshape(heads, nope + value, latent)
    for t, keys in enumerate(rows):
        chosen = keys[[s for s in selection[t] if s >= 0]]
        if not len(chosen):
            assert (got[t] == 0).all()
            continue
        c, k_pe = chosen[:, :latent], chosen[:, latent:]
        kv = (c @ kv_b.T).reshape(-1, heads, nope + value)
        pe = np.repeat(k_pe[:, None], heads, 1)
        q = torch.from_numpy(np.concatenate([q_nope[t], q_pe[t]], -1))[:, None]
        k = torch.from_numpy(np.concatenate([kv[..., :nope], pe], -1)).transpose(0, 1)
        v = torch.from_numpy(kv[..., nope:]).transpose(0, 1)
        expanded = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.3)
        np.testing.assert_allclose(got[t], expanded.reshape(-1), rtol=1e-10)
        for h in range(heads):
            absorbed_q = q_nope[t, h] @ w[h, :nope]
            p = np.exp((c @ absorbed_q + k_pe @ q_pe[t, h]) * 0.3)
            absorbed = (p / p.sum() @ c) @ w[h, nope:].T
            np.testing.assert_allclose(got[t, h * value : (h + 1) * value], absorbed, rtol=1e-10)
    assert (got[4] == 0).all()


def test_attend_takes_a_scaled_kv_b():
    rng, cache, page_table, positions, q_starts, _ = paged_requests(10)
    q_nope, q_pe = rng.standard_normal((5, 2, 5)), rng.standard_normal((5, 2, 4))
    kv_b = Scaled(
        round_to(rng.standard_normal((16, 6)), "f8E4M3FN"), np.full((1, 1), 0.5), 128, 128
    )
    rest = (cache, dsa.all_(positions, k=10), positions, q_starts, page_table)
    got = mla.attend(q_nope, q_pe, kv_b, *rest, scale=0.3)
    np.testing.assert_array_equal(got, mla.attend(q_nope, q_pe, widen(kv_b), *rest, scale=0.3))
