"""The `sample` references: exact noise, the sampled distribution, scores."""

import math

import numpy as np
import pytest
import torch

from lostwax.ir.reference import sample


def test_noise_bits_equal_plain_integer_arithmetic():
    def bits(seed: int, counter: int, index: int) -> int:
        m = 2**32
        x = (seed * 0x9E3779B1 + counter * 0x85EBCA77 + index * 0xC2B2AE3D) % m
        x ^= x >> 16
        x = x * 0x7FEB352D % m
        x ^= x >> 15
        x = x * 0x846CA68B % m
        return x ^ (x >> 16)

    seeds, counters = np.array([0, -1, 123456789], np.int32), np.array([0, 7, 2**31 - 1], np.int32)
    got = sample.noise_bits(seeds, counters, 50)
    want = [
        [bits(int(s), int(c), i) for i in range(50)] for s, c in zip(seeds, counters, strict=True)
    ]
    np.testing.assert_array_equal(got, want)


def test_temperature_zero_is_argmax_with_lowest_index_and_true_logprobs():
    logits = np.array([[0.0, 2.0, 2.0], [5.0, 1.0, 0.0]], np.float32)
    ids, logprobs = sample.pick(logits, np.zeros(2), np.zeros(2, int), np.zeros(2, int))
    np.testing.assert_array_equal(ids, [1, 0])
    want = torch.log_softmax(torch.from_numpy(logits).double(), -1).numpy()
    np.testing.assert_allclose(logprobs, want[[0, 1], [1, 0]], rtol=1e-12)


def test_sampling_draws_from_the_tempered_softmax():
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    n = 20000
    ids, _ = sample.pick(np.tile(logits, (n, 1)), np.full(n, 0.7), np.full(n, 42), np.arange(n))
    p = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    share = np.bincount(ids, minlength=4) / n
    assert np.abs(share - p).max() < 4 * np.sqrt(0.25 / n)


def test_a_mask_keeps_the_ids_whose_bits_are_one():
    allowed = {0, 5, 31, 32, 63, 64}
    bits = sum(1 << i for i in allowed)
    words = np.array([[(bits >> 32 * w) % 2**32 for w in range(3)]], np.uint32).view(np.int32)
    masks = np.concatenate([np.full((1, 3), 6, np.int32), words])
    logits = np.arange(3 * 66, dtype=np.float32).reshape(3, 66)
    logits[0, 7] = np.nan
    got = sample.mask(logits, masks, np.array([-1, 1, 0]))
    np.testing.assert_array_equal(got[0], logits[0])
    assert set(np.flatnonzero(got[1] > -np.inf)) == allowed
    assert set(np.flatnonzero(got[2] > -np.inf)) == {1, 2, 33, 34, 65}
    np.testing.assert_array_equal(got[1, sorted(allowed)], logits[1, sorted(allowed)])


def test_where_a_mask_allows_no_id_the_lowest_is_picked_at_any_temperature():
    logits, none = np.array([[1.0, 5.0, 2.0]] * 2), np.zeros((1, 1), np.int32)
    masked = sample.mask(logits, none, np.zeros(2, int))
    assert (masked == -np.inf).all()
    with np.errstate(invalid="ignore"):
        ids, _ = sample.pick(masked, np.array([0.0, 1.0]), np.arange(2), np.arange(2))
    np.testing.assert_array_equal(ids, [0, 0])


def in_nucleus(logits: list[float], temperature: float, top_p: float) -> list[bool]:
    """Id by id, likeliest first, until their mass reaches top_p."""
    weights = [math.exp(x / temperature) for x in logits]
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    inside, mass = [False] * len(logits), 0.0
    for i in order:
        inside[i] = True
        mass += weights[i] / math.fsum(weights)
        if mass >= top_p:
            return inside
    return inside


@pytest.mark.parametrize("top_p", [0.0, 1e-6, 0.3, 0.77, 0.95, 0.9999])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_the_nucleus_is_the_fewest_likeliest_ids_that_reach_top_p(top_p: float, temperature: float):
    logits = np.random.default_rng(0).normal(0, 2, (5, 40))
    logits[1] = np.round(logits[1])  # many ties
    got = sample.nucleus(logits, np.full(5, temperature), np.full(5, top_p))
    want = [in_nucleus(row, temperature, top_p) for row in logits.tolist()]
    np.testing.assert_array_equal(got, np.where(want, logits, -np.inf))


def test_the_lowest_of_equal_ids_are_in_the_nucleus():
    got = sample.nucleus(np.array([[0.0, 1.0, 1.0, 1.0]]), np.ones(1), np.array([0.5]))
    np.testing.assert_array_equal(np.isfinite(got), [[False, True, True, False]])


def test_greedy_rows_and_rows_of_all_ids_have_no_nucleus():
    logits = np.random.default_rng(1).normal(0, 2, (2, 40))
    got = sample.nucleus(logits, np.array([0.0, 1.0]), np.array([0.1, 1.0]))
    np.testing.assert_array_equal(got, logits)


def test_sampling_from_a_nucleus_draws_from_what_is_left():
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    n, temperature = 20000, 0.7
    inside = sample.nucleus(np.tile(logits, (n, 1)), np.full(n, temperature), np.full(n, 0.9))
    ids, _ = sample.pick(inside, np.full(n, temperature), np.full(n, 42), np.arange(n))
    p = np.exp(logits / temperature) * [
        0,
        1,
        1,
        0,
    ]  # masses: 0.77, both 0.96
    share = np.bincount(ids, minlength=4) / n
    assert np.abs(share - p / p.sum()).max() < 4 * np.sqrt(0.25 / n)


def test_scores_of_targets_and_of_the_likeliest():
    logits = np.array([[0.0, 2.0, 2.0, 1.0]] * 2)
    target, top_ids, top = sample.score(logits, np.array([3, -1]), n=3)
    want = torch.log_softmax(torch.from_numpy(logits[0]), -1).numpy()
    np.testing.assert_allclose(target, [want[3], 0.0])
    np.testing.assert_array_equal(top_ids, [[1, 2, 3]] * 2)
    np.testing.assert_allclose(top[0], want[[1, 2, 3]])
