"""Top-k by sorting and by counting choose the same positions, on both sides of what parts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lostwax.backends.portable.kernels.selection import SORTED_ELEMENTS, topk

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


@pytest.mark.parametrize("rows", [3, 4])
def test_the_lowest_index_wins_ties_however_many_scores_there_are(rows: int) -> None:
    scores = _scores(rows)
    assert (scores.size > SORTED_ELEMENTS) is (rows == 4)
    out = torch.full((rows, K), -7, dtype=torch.int32)
    topk(torch.from_numpy(scores), out)
    for row, found in zip(scores, out.tolist(), strict=True):
        allowed = np.flatnonzero(~np.isnan(row) & (row != -np.inf))
        best = allowed[np.argsort(-row[allowed], kind="stable")][:K]
        assert found == [*sorted(best.tolist()), *[-1] * (K - len(best))]
