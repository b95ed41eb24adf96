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


def test_penalties_are_those_of_openai_and_of_keskar():
    logits = np.array([[3.0, -3.0, 1.0, 2.0, 0.5]] * 2)
    counts = np.array([[0, 0, 0, 0, 0], [1, 5, 4, 0, 0]])  # in the prompt, both, twice, never
    asked = [np.full(2, x) for x in (1.5, 0.25, 0.5)]
    got = sample.penalise(logits, counts, np.array([-1, 1]), np.array([[3, 3], [3, 2]]), *asked)
    np.testing.assert_array_equal(got[0], logits[0])
    want = [2.0, -4.5 - 0.5 - 0.5, 1 / 1.5 - 0.75 - 0.5, 2 / 1.5 - 0.25 - 0.5, 0.5]
    np.testing.assert_allclose(got[1], want, rtol=1e-12)


def test_a_bias_is_added_to_the_rows_that_name_one():
    logits = np.array([[1.0, 2.0, -np.inf]] * 3)
    biases = np.array([[0.5, -np.inf, 7.0], [0.0, 0.0, 0.25]])
    got = sample.bias(logits, biases, np.array([1, -1, 0]))
    np.testing.assert_array_equal(got, [[1, 2, -np.inf], [1, 2, -np.inf], [1.5, -np.inf, -np.inf]])


def narrowed(
    logits: np.ndarray,
    temperature: float | list[float],
    top_k: int | list[int] = 0,
    top_p: float | list[float] = 1.0,
    min_p: float | list[float] = 0.0,
) -> np.ndarray:
    """The reference's nucleus; a number stands for all rows."""
    rows = len(logits)
    asked = [np.broadcast_to(np.asarray(x), rows) for x in (temperature, top_k, top_p, min_p)]
    return sample.nucleus(logits, *asked)


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
    got = narrowed(logits, temperature, top_p=top_p)
    want = [in_nucleus(row, temperature, top_p) for row in logits.tolist()]
    np.testing.assert_array_equal(got, np.where(want, logits, -np.inf))


def test_the_lowest_of_equal_ids_are_in_the_nucleus():
    got = narrowed(np.array([[0.0, 1.0, 1.0, 1.0]]), 1.0, top_p=0.5)
    np.testing.assert_array_equal(np.isfinite(got), [[False, True, True, False]])


def test_greedy_rows_and_rows_of_all_ids_have_no_nucleus():
    logits = np.random.default_rng(1).normal(0, 2, (2, 40))
    got = narrowed(logits, [0.0, 1.0], [3, 0], [0.1, 1.0], [0.5, 0.0])
    np.testing.assert_array_equal(got, logits)


def kept(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float):
    """What may be sampled, as vLLM, SGLang and transformers say it: top_k, then top_p of what is
    left, whose mass counts as one, then min_p."""
    left = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[: top_k or None]
    weights = {i: math.exp(logits[i] / temperature) for i in left}
    total, before, inside = math.fsum(weights.values()), 0.0, list[int]()
    for i in left:
        if before < top_p * total:
            inside.append(i)
        before += weights[i]
    return {i for i in inside if weights[i] >= min_p * weights[left[0]]} | {left[0]}


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(1, 1.0, 0.0), (5, 1.0, 0.0), (5, 0.8, 0.0), (40, 0.8, 0.0), (99, 0.8, 0.0), (0, 1.0, 0.1),
     (0, 0.9, 0.1), (7, 0.9, 0.1), (7, 0.9, 1.0), (3, 1e-6, 0.0)],
)  # fmt: skip
def test_top_k_goes_before_top_p_and_min_p_comes_last(top_k: int, top_p: float, min_p: float):
    logits = np.random.default_rng(2).normal(0, 1.5, (5, 40))
    logits[1] = np.round(logits[1])
    got = narrowed(logits, 0.8, top_k, top_p, min_p)
    for row, found in zip(logits.tolist(), np.isfinite(got), strict=True):
        assert {*np.flatnonzero(found).tolist()} == kept(row, 0.8, top_k, top_p, min_p)


def test_only_masses_at_their_bounds_are_left_to_rounding():
    logits = np.log(np.array([[0.4, 0.3, 0.2, 0.1]]))
    ones, none = np.ones(1), np.zeros(1)

    def border(top_k: int, top_p: float, min_p: float) -> list[int]:
        open_ids = sample.nucleus_border(logits, ones, none + top_k, none + top_p, none + min_p)
        return np.flatnonzero(open_ids[0]).tolist()

    assert border(0, 0.7, 0.0) == [2]
    assert border(2, 0.7, 0.0) == []  # it is behind the first two
    assert border(3, 7 / 9, 0.0) == [2]  # of what top_k leaves
    assert border(0, 1.0, 0.5) == [2]
    assert border(0, 0.7, 0.6) == []  # min_p leaves it out whatever top_p says
    assert border(0, 0.65, 0.45) == []


def test_sampling_from_a_nucleus_draws_from_what_is_left():
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    n, temperature = 20000, 0.7
    inside = narrowed(np.tile(logits, (n, 1)), temperature, top_p=0.9)
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
