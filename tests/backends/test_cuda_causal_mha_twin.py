"""Expanded causal attention for Hopper: the launches of its lowering, run on the CPU by fibers.

Matrix instructions and tensor maps are the twin's (cuda_twin/hopper.h): what is proven is which
numbers meet, over ragged steps, against the fp64 reference of the region.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from guarded_buffers import NOTHING_HERE
from mha_twin import BOUND, Step, attend, require_right
from twin_launches import Twins


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """Kernels by what they are compiled for."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to run the kernels' sources on the CPU")
    return Twins(tmp_path_factory.mktemp("twin"))


def test_one_request_from_its_first_token(twins: Twins, tmp_path: Path) -> None:
    """Two query tiles, the first ends at a border of keys, the second inside a tile of them."""
    step = Step([(0, 200)])
    require_right(step, attend(step, twins, tmp_path))


@pytest.mark.parametrize("layout", ["bf16", "fp8_656", "fp8_576"])
def test_requests_of_any_length_behind_a_cached_prefix(
    twins: Twins, tmp_path: Path, layout: str
) -> None:
    """One row and many, without a row, without a prefix; the bucket has more requests."""
    step = Step([(0, 1), (70, 130), (0, 0), (257, 3), (0, 64)], layout, heads=2, reqs=7)
    require_right(step, attend(step, twins, tmp_path))


@pytest.mark.parametrize("keys", [128, 96, 64])
@pytest.mark.parametrize("take_turns", [0, 1])
def test_every_tile_of_keys(twins: Twins, tmp_path: Path, keys: int, take_turns: int) -> None:
    """A prefix that no tile ends at, and a tile of queries that a border of keys lies inside of."""
    step = Step([(130, 150), (0, 20)])
    knobs = {"keys": keys, "take_turns": take_turns}
    require_right(step, attend(step, twins, tmp_path, knobs))


def test_whole_tiles_and_a_workspace_without_room_behind(twins: Twins, tmp_path: Path) -> None:
    step = Step([(128, 128), (0, 128)], together=384)
    require_right(step, attend(step, twins, tmp_path))


def test_heads_a_few_at_a_time(twins: Twins, tmp_path: Path) -> None:
    """The last group has fewer; of the others each has more tiles than CTAs, which draw them."""
    step = Step([(40, 90), (0, 9)], heads=5)
    require_right(step, attend(step, twins, tmp_path, {"heads_at_once": 2}))


def test_large_scores(twins: Twins, tmp_path: Path) -> None:
    """Scores of 100, the later ones far above those before: keys are rounded to bf16."""
    step = Step([(60, 100)], large=6.0)
    require_right(step, attend(step, twins, tmp_path), bound=5e-2)


def test_a_request_of_nan_reaches_no_other(twins: Twins, tmp_path: Path) -> None:
    """Its latents lie beside its neighbours' in the workspace, in the same tiles."""
    step = Step([(10, 40), (30, 60), (0, 50)], "fp8_576")
    step.cache[step.slots(1, 90)] = NOTHING_HERE
    got = attend(step, twins, tmp_path)
    want = step.expected()
    own = np.r_[0:40, 100:150]
    off = np.linalg.norm(got[own] - want[own]) / np.linalg.norm(want[own])
    assert off <= BOUND
    assert np.isnan(got[40:100]).all()


def test_no_row_has_a_token(twins: Twins, tmp_path: Path) -> None:
    step = Step([(0, 0)], reqs=2)
    assert np.isnan(attend(step, twins, tmp_path)).all()


def test_more_heads_than_are_under_way_at_once(twins: Twins, tmp_path: Path) -> None:
    """Of two tiles and three CTAs two heads at a time; of five heads the last is alone."""
    step = Step([(0, 70), (20, 30)], heads=5)
    require_right(step, attend(step, twins, tmp_path))
