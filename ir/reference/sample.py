"""The meaning of the `sample` ops in numpy, fp64 inside; the noise's integers are exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lostwax.ir.reference.dtype import Array, Real, widen

_MASK = np.uint64(0xFFFFFFFF)

BORDER = 1e-6
"""So near to top_p or min_p, a mass leaves open whether its id is in the nucleus."""


def _u32(x: Array) -> NDArray[np.uint64]:
    """Any integer modulo 2^32, kept in 64 bits so that a product may be masked after."""
    return x.astype(np.int64).view(np.uint64) & _MASK


def noise_bits(seeds: Array, counters: Array, vocab: int) -> NDArray[np.uint64]:
    """32 random bits for each (seed, counter, index): [R, vocab].

    x = seed*0x9E3779B1 + counter*0x85EBCA77 + index*0xC2B2AE3D, then the `lowbias32` finaliser
    (C. Wellons, "Prospecting for Hash Functions"), all modulo 2^32.
    """
    index = np.arange(vocab, dtype=np.uint64)
    row = _u32(seeds) * np.uint64(0x9E3779B1) + _u32(counters) * np.uint64(0x85EBCA77)
    x = ((row & _MASK)[:, None] + index * np.uint64(0xC2B2AE3D)) & _MASK
    x ^= x >> np.uint64(16)
    x = x * np.uint64(0x7FEB352D) & _MASK
    x ^= x >> np.uint64(15)
    x = x * np.uint64(0x846CA68B) & _MASK
    return x ^ (x >> np.uint64(16))


def gumbel(seeds: Array, counters: Array, vocab: int) -> Real:
    """-log(-log(u)) with u = (top 24 bits + 1/2) / 2^24, which is never 0 or 1."""
    top = (noise_bits(seeds, counters, vocab) >> np.uint64(8)).astype(np.float64)
    return -np.log(-np.log((top + 0.5) / 2**24))


def log_softmax(logits: Real) -> Real:
    """Log-probabilities over the last axis."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def pick(logits: Array, temperature: Array, seeds: Array, counters: Array) -> tuple[Array, Real]:
    """The largest logit at temperature 0, else the largest logit/temperature + gumbel noise.

    logits [R, V] -> ids [R], logprobs [R] of the ids under the unscaled logits. The lowest index
    wins ties.
    """
    logits = widen(logits)
    divisor = widen(temperature)[:, None]
    noisy = logits / np.where(divisor > 0, divisor, 1.0) + gumbel(seeds, counters, logits.shape[1])
    ids = np.argmax(np.where(divisor > 0, noisy, logits), axis=-1)
    logprobs = log_softmax(logits)[np.arange(ids.size), ids]
    return ids, logprobs


def penalise(
    logits: Array,
    counts: Array,
    count_rows: Array,
    recent: Array,
    repetition: Array,
    frequency: Array,
    presence: Array,
) -> Real:
    """Logits less what is asked for ids that have come; -1 names no row of counts.

    logits [R, V], counts [C, V] (twice the outputs, and 1 where the prompt has the id), recent
    [R, N] (outputs more), the others [R] -> [R, V].
    """
    logits = widen(logits)
    ids: NDArray[np.int64] = np.arange(logits.shape[1], dtype=np.int64)
    held: NDArray[np.int64] = counts.astype(np.int64)[np.maximum(count_rows, 0)]
    outputs = held // 2 + np.sum(recent[:, :, None] == ids, axis=1)
    is_seen = np.logical_or(outputs > 0, held % 2 == 1)
    factor, often, once = (widen(each)[:, None] for each in (repetition, frequency, presence))
    repeated = np.where(logits > 0, logits / factor, logits * factor)
    out = np.where(is_seen, repeated, logits) - often * outputs - once * (outputs > 0)
    return np.where((count_rows >= 0)[:, None], out, logits)


def bias(logits: Array, biases: Array, bias_rows: Array) -> Real:
    """Logits plus the bias that their row names; -1 names none.

    logits [R, V], biases [Q, V], bias_rows [R] -> [R, V].
    """
    own = widen(biases)[np.maximum(bias_rows, 0)]
    return np.where((bias_rows >= 0)[:, None], widen(logits) + own, widen(logits))


def mask(logits: Array, masks: Array, mask_rows: Array) -> Real:
    """Logits, -inf for ids whose bit is 0 in the mask that their row names; -1 names none.

    logits [R, V], masks [M, words of 32 bits], mask_rows [R] -> [R, V]. Id i's is bit i % 32, the
    least significant first, of word i // 32.
    """
    ids: NDArray[np.int64] = np.arange(logits.shape[1], dtype=np.int64)
    own: NDArray[np.int64] = masks.astype(np.int64)[np.maximum(mask_rows, 0)]
    bits = np.right_shift(own[:, ids // 32], ids % 32) & 1
    forbidden = np.logical_and(bits == 0, (mask_rows >= 0)[:, None])
    return np.where(forbidden, -np.inf, widen(logits))


def _inside(
    logits: Real, temperature: Array, top_k: Array, top_p: Array, min_p: Array, slack: float
) -> Array:
    """Which ids stay, bool [R, V], where every mass may pass its bound by `slack`."""
    divisor, count, share, least = (
        widen(each)[:, None] for each in (temperature, top_k, top_p, min_p)
    )
    order = np.argsort(-logits, axis=-1, kind="stable")
    ranked = np.take_along_axis(logits, order, axis=-1) / np.where(divisor > 0, divisor, 1.0)
    rank: NDArray[np.int64] = np.arange(logits.shape[1], dtype=np.int64)[None, :]
    is_ranked: Array = np.logical_or(np.less(rank, count), count <= 0)
    mass = np.exp(log_softmax(np.where(is_ranked, ranked, -np.inf)))
    upto = np.cumsum(mass, axis=-1)
    before = np.concatenate([np.zeros_like(upto[:, :1]), upto[:, :-1]], axis=-1)
    in_share = (before < share + slack) | (share >= 1)
    is_likely = (mass / mass[:, :1] >= least - slack) | (least <= 0)
    kept = (is_ranked & in_share & is_likely) | (divisor <= 0)
    kept[:, 0] = True
    inside = np.empty_like(kept)
    np.put_along_axis(inside, order, kept, axis=-1)
    return inside


def nucleus(logits: Array, temperature: Array, top_k: Array, top_p: Array, min_p: Array) -> Real:
    """Logits, -inf for ids that are not among the top_k first (0: all), and of these under
    p = softmax(logits / temperature) for those before which p has a mass of top_p (1: all) or more,
    or whose own p is below min_p times the largest.

    Of equal logits the lowest index is first; the likeliest id always stays. Rows of temperature 0
    pass as they are. logits [R, V] -> [R, V].
    """
    logits = widen(logits)
    return np.where(_inside(logits, temperature, top_k, top_p, min_p, 0.0), logits, -np.inf)


def nucleus_border(
    logits: Array, temperature: Array, top_k: Array, top_p: Array, min_p: Array
) -> Array:
    """Which ids rounding may put in the nucleus or out of it: bool [R, V]."""
    logits = widen(logits)
    wide, narrow = (
        _inside(logits, temperature, top_k, top_p, min_p, slack) for slack in (BORDER, -BORDER)
    )
    return np.logical_and(wide, np.logical_not(narrow))


def logprob(logits: Array, targets: Array) -> Real:
    """Log-probability of each row's target (-1: 0). logits [R, V], targets [R] -> [R]."""
    of_target = log_softmax(widen(logits))[np.arange(targets.size), np.maximum(targets, 0)]
    return np.where(targets >= 0, of_target, 0.0)


def score(logits: Array, targets: Array, *, n: int) -> tuple[Real, Array, Real]:
    """Log-probability of each row's target (-1: 0) and the n likeliest ids with theirs.

    logits [R, V] -> [R], ids [R, n] descending with the lowest index first among equals, [R, n].
    """
    logits = widen(logits)
    if n > logits.shape[1]:
        raise ValueError(f"sample.score wants {n} likeliest ids of {logits.shape[1]}; lower n")
    top_ids = np.argsort(-logits, axis=-1, kind="stable")[:, :n]
    top = np.take_along_axis(log_softmax(logits), top_ids, axis=-1)
    return logprob(logits, targets), top_ids, top
