"""Top-k by sorting, by counting and by partition choose the same positions, on both sides of what
parts them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lostwax.backends.cpu.kernels import selection as cpu
from lostwax.backends.portable.kernels import selection as portable
from lostwax.backends.portable.kernels.selection import SORTED_ELEMENTS

COLUMNS = 4100
K = 96


def _scores(rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Ties everywhere; of some rows all is equal, little is allowed or nothing is."""
    rng = np.random.default_rng(rows)
    scores = np.round(rng.standard_normal((rows, COLUMNS)) * 2).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    scores[0] = 1.0
    scores[1, 10:] = -np.inf
    scores[2:3] = -np.inf
    return scores


def _best(scores: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[list[int]]:
    found: list[list[int]] = []
    for row in scores:
        allowed = np.flatnonzero(~np.isnan(row) & (row != -np.inf))
        best = allowed[np.argsort(-row[allowed], kind="stable")][:K]
        found.append([*sorted(best.tolist()), *[-1] * (K - len(best))])
    return found


@pytest.mark.parametrize("topk", [portable.topk, cpu.topk], ids=["portable", "cpu"])
@pytest.mark.parametrize("rows", [3, 4])
def test_the_lowest_index_wins_ties_however_many_scores_there_are(
    rows: int, topk: Callable[[torch.Tensor, torch.Tensor], None]
) -> None:
    scores = _scores(rows)
    assert (scores.size > SORTED_ELEMENTS) is (rows == 4)
    out = torch.full((rows, K), -7, dtype=torch.int32)
    topk(torch.from_numpy(scores), out)
    assert out.tolist() == _best(scores)


@pytest.mark.parametrize("columns", [K - 1, K, K + 1, 4 * K])
@pytest.mark.parametrize("odd", [(), (0, 2), (0, 1, 2)], ids=str)
def test_rows_that_one_partition_settles_stand_beside_others(
    odd: tuple[int, ...], columns: int
) -> None:
    """Those have equals on both sides of the border, NaN, or too few that may be chosen."""
    scores = np.random.default_rng(columns).standard_normal((3, columns)).astype(np.float32)
    wrong = ((slice(None), 1.0), (slice(0, 5), np.nan), (slice(5, None), -np.inf))
    for row in odd:
        where, value = wrong[row]
        scores[row, where] = value
    out = torch.full((3, K), -7, dtype=torch.int32)
    cpu.topk(torch.from_numpy(scores), out)
    assert out.tolist() == _best(scores)


def test_as_many_nan_as_are_not_wanted_leave_nothing_hidden_chosen() -> None:
    """The count alone would say that all that is left is the set."""
    scores = np.full((1, 2 * K), -np.inf, np.float32)
    scores[0, :K] = np.nan
    scores[0, K + 3] = 1.0
    out = torch.full((1, K), -7, dtype=torch.int32)
    cpu.topk(torch.from_numpy(scores), out)
    assert out.tolist() == _best(scores)
