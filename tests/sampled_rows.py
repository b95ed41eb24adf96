"""Rows of logits that samplers are wrong about, and what else a row is sampled with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sample_states import biases_of, masks_of

Arrays = dict[str, np.ndarray]
Row = tuple[Callable[[np.ndarray], np.ndarray], float, float, int, float]
SEEDS = np.array([0, 1, -1, 2**31 - 1, -(2**31), 7, 7, 7, 9], np.int32)
COUNTERS = np.array([0, 5, -1, 2**31 - 1, 3, 0, 1, 2, 4], np.int32)


def put(value: float, *places: float) -> Callable[[np.ndarray], np.ndarray]:
    """Rows with a value at these shares of their length."""

    def edit(x: np.ndarray) -> np.ndarray:
        x[[int(share * (x.size - 1)) for share in places]] = value
        return x

    return edit


def holes(x: np.ndarray) -> np.ndarray:
    """Three of five logits are -inf."""
    return np.where(np.arange(x.size) % 5 < 3, -np.inf, x)


def zeros(x: np.ndarray) -> np.ndarray:
    """Neighbours of zero: as likely as one another, but two of them are equal."""
    return np.array([0.0, 1e-45, -0.0, -1e-45, 1e-30])[np.arange(x.size) % 5]


def broken(x: np.ndarray) -> np.ndarray:
    """NaN behind a +inf."""
    return put(np.nan, 0.9, 1.0)(put(np.inf, 0.1)(x))


ROWS: dict[str, Row] = {
    "greedy": (put(12.0, 0.4, 1.0), 0.0, 0.5, 0, 0.0),
    "all ids": (put(-1e4, 0.5), 1.0, 1.0, 0, 0.0),
    "plain": (lambda x: x, 0.7, 0.95, 0, 0.0),
    "tied": (np.round, 2.0, 0.95, 0, 0.0),
    "one value": (lambda x: np.full_like(x, -1.1), 1.0, 0.3001, 0, 0.0),
    "zeros": (zeros, 1.0, 0.4321, 0, 0.0),
    "broken": (broken, 1.0, 0.95, 0, 0.0),
    "infinite": (put(np.inf, 0.3, 1.0), 1.0, 0.95, 0, 0.0),
    "cold": (put(12.0, 0.4, 1.0), 1e-6, 0.999, 0, 0.0),
    "broken and greedy": (broken, 0.0, 1.0, 0, 0.0),
    "narrow": (holes, 1.0, 1e-30, 0, 0.0),
    "no finite": (lambda x: np.full_like(x, -np.inf), 1.0, 0.95, 0, 0.0),
    "hot": (holes, 30.0, 0.999, 0, 0.0),
    "late": (lambda x: np.full_like(x, -1.1), 1.0, 0.9976, 0, 0.0),
    "flat": (lambda x: x / 3, 1.0, 0.5, 0, 0.0),
    "corner": (lambda x: np.where(np.arange(x.size) < 400, x, -np.inf), 9.0, 1.0, 300, 0.0),
    "few": (np.round, 1.0, 1.0, 7, 0.0),
    "few of few": (holes, 0.8, 0.6, 40, 0.0),
    "few of equals": (lambda x: np.full_like(x, 2.5), 1.0, 1.0, 300, 0.0),
    "first": (lambda x: x, 3.0, 1.0, 1, 0.0),
    "more than all": (lambda x: x, 1.0, 0.9, 2**31 - 1, 0.0),
    "likely": (lambda x: x, 1.5, 1.0, 0, 0.05),
    "as likely": (np.round, 1.0, 1.0, 0, 1.0),
    "all three": (np.round, 2.0, 0.8, 90, 0.02),
    "greedy of few": (lambda x: x, 0.0, 0.9, 3, 0.5),
}
"""Edits of normal logits, temperature, top_p, top_k and min_p."""


def rows_of(names: tuple[str, ...], vocab: int) -> Arrays:
    """The inputs of all ops."""
    rng = np.random.default_rng(vocab)
    chosen = [ROWS[name] for name in names]
    logits = [edit(3 * rng.standard_normal(vocab)) for edit, *_ in chosen]
    return {
        "logits": np.stack(logits).astype(np.float32),
        "temperature": np.array([row[1] for row in chosen], np.float32),
        "top_p": np.array([row[2] for row in chosen], np.float32),
        "top_k": np.array([row[3] for row in chosen], np.int32),
        "min_p": np.array([row[4] for row in chosen], np.float32),
        "seeds": SEEDS[: len(names)],
        "counters": COUNTERS[: len(names)],
        "counts": np.where(rng.random((4, vocab)) < 0.5, 0, rng.integers(0, 9, (4, vocab))).astype(
            np.int32
        ),
        "count_rows": np.full(len(names), -1, np.int32),
        "recent": rng.integers(-1, vocab, (len(names), 3)).astype(np.int32),
        "repetition": rng.choice([0.7, 1.0, 1.4], len(names)).astype(np.float32),
        "frequency": rng.choice([-0.5, 0.0, 0.8], len(names)).astype(np.float32),
        "presence": rng.choice([-0.6, 0.0, 0.3], len(names)).astype(np.float32),
        "biases": biases_of(rng, vocab),
        "bias_rows": np.full(len(names), -1, np.int32),
        "masks": masks_of(rng, vocab),
        "mask_rows": np.full(len(names), -1, np.int32),
    }
