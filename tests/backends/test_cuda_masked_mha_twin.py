"""Expanded attention to a selection for Hopper: the lowering's launches, run on the CPU by fibers.

What is proven is which numbers meet, over ragged steps, against the fp64 reference of the region.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guarded_buffers import NOTHING_HERE
from mha_twin import BOUND, Step, attend, require_right
from twin_launches import KERNELS, Twins

SCRIPT = Path(__file__).parent / "interpreted" / "run_masked_mha.py"
FAULTS = {
    "a bit is the neighbour's": ("masked_mha/bits.h", "+ key % 2;", "+ (key + 1) % 2;"),
    "a word is another lane's": ("masked_mha/bits.h", "key % 8 / 2;", "key % 4;"),
    "a tile's bits are the next one's": (
        "masked_mha/bits.h", "key / BIT_KEYS * BIT_WORDS", "(key / BIT_KEYS + 1) * BIT_WORDS",
    ),
    "bits of the row before stay": (
        "selection_bits.cu", "THREADS) store_word(shared + 4 * i, 0);",
        "THREADS) store_word(shared + 4 * i, i == 1 ? ~0u : 0);",
    ),
    "a row's positions are those of the row before": (
        "selection_bits.cu", "selection + row * selection_stride",
        "selection + (row / 2 * 2) * selection_stride",
    ),
    "a thread takes one position": (
        "selection_bits.cu", "i < keys; i += THREADS", "i < keys && i < THREADS; i += THREADS",
    ),
    "a hole is the first position": (
        "selection_bits.cu", "(u32)selected[i];", "(u32)max(selected[i], 0);",
    ),
    "a position that comes twice is none": (
        "selection_bits.cu", "or_word(shared + 4 * word_of(key), 1u << bit_of(key));",
        "store_word(shared + 4 * word_of(key),"
        " load_word(shared + 4 * word_of(key)) ^ 1u << bit_of(key));",
    ),
    "positions in the last tile are none": (
        "selection_bits.cu", "if (key < behind)", "if (key < 256)",
    ),
    "both rows of a lane take the first one's bits": (
        "masked_mha.cu", "min(row + 8 * r, tile.rows - 1)", "min(row, tile.rows - 1)",
    ),
    "bits of rows behind the tile's last are read": (
        "masked_mha.cu", "min(row + 8 * r, tile.rows - 1)", "row + 8 * r",
    ),
    "rows are counted from the step's first": ("masked_mha.cu", "(tile.row + min(", "(min("),
    "a lane takes another one's word": ("masked_mha.cu", "+ (lane & 3);", "+ (lane >> 2 & 3);"),
    "a tile of keys takes the bits of the tile before": (
        "masked_mha.cu", "look_ahead(t - 1)", "look_ahead(t)",
    ),
    "the first tile of keys is the last but one": (
        "masked_mha.cu", "look_ahead(key_tiles(tile) - 1);",
        "look_ahead(max(key_tiles(tile) - 2, 0));",
    ),
    "the second row is hidden by the first one's bits": (
        "masked_mha.cu", "selected[i >> 1 & 1]", "selected[0]",
    ),
    "odd keys are not hidden": ("masked_mha.cu", "(i / 4 * 2 + (i & 1))", "(i / 4 * 2)"),
    "values behind the context stay": (
        "causal_mha/attend.h", "if ((last + 1) * KEYS > tile.length)", "if (last < 0)",
    ),
    "a row with nothing selected is divided by zero": (
        "causal_mha/attend.h", "fmaxf(sum_over_columns(rows.sum[r]), 1e-30f)",
        "sum_over_columns(rows.sum[r])",
    ),
}  # fmt: skip
"""By what is wrong: a source, what stands there, what takes its place."""


def run_steps(folder: Path, kernels: Path) -> subprocess.CompletedProcess[str]:
    """A ragged step in a process of its own: who waits in vain ends it."""
    tests = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(kernels)],
        env=os.environ | {"PYTHONPATH": tests},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """Kernels by what they are compiled for."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to run the kernels' sources on the CPU")
    return Twins(tmp_path_factory.mktemp("twin"))


def test_rows_see_what_they_selected(twins: Twins, tmp_path: Path) -> None:
    """Of rows that see fewer positions all; the query tiles end at and inside tiles of keys."""
    step = Step([(0, 200)], top=40)
    require_right(step, attend(step, twins, tmp_path))


@pytest.mark.parametrize("layout", ["bf16", "fp8_656", "fp8_576"])
def test_requests_of_any_length_behind_a_cached_prefix(
    twins: Twins, tmp_path: Path, layout: str
) -> None:
    """One row and many, without a row, without a prefix; the bucket has more requests."""
    step = Step([(0, 1), (70, 130), (0, 0), (257, 3), (0, 64)], layout, heads=2, reqs=7, top=30)
    require_right(step, attend(step, twins, tmp_path))


@pytest.mark.parametrize("take_turns", [0, 1])
def test_both_orders_of_products(twins: Twins, tmp_path: Path, take_turns: int) -> None:
    step = Step([(130, 150), (0, 20)], top=33)
    require_right(step, attend(step, twins, tmp_path, {"take_turns": take_turns}))


def test_whole_tiles_and_a_workspace_without_room_behind(twins: Twins, tmp_path: Path) -> None:
    step = Step([(128, 128), (0, 128)], together=384, pages=4, top=64)
    require_right(step, attend(step, twins, tmp_path))


def test_heads_a_few_at_a_time(twins: Twins, tmp_path: Path) -> None:
    step = Step([(40, 90), (0, 9)], heads=5, top=20)
    require_right(step, attend(step, twins, tmp_path, {"heads_at_once": 2}))


def test_a_row_with_nothing_selected_gives_zeros(twins: Twins, tmp_path: Path) -> None:
    """Beside rows of one position, the first, the last, and of tiles of keys none of whose is."""
    step = Step([(300, 12)], top=16)
    step.selection[:12] = -1
    for row, position in enumerate((0, 300, 127, 128, 63, 64, 299, 256)):
        step.selection[row, 0] = position
    got = attend(step, twins, tmp_path)
    require_right(step, got)
    assert not got[8:12].any()


def test_entries_in_any_order_and_more_than_once(twins: Twins, tmp_path: Path) -> None:
    """As no row of `dsa.topk` has them: holes, falling positions, the same one again."""
    step = Step([(200, 30)], top=24)
    step.selection[:30] = step.selection[:30, ::-1]
    step.selection[:30, 3] = step.selection[:30, 4]
    step.selection[:30, 7] = -1
    require_right(step, attend(step, twins, tmp_path))


def test_scores_that_are_not_selected_weigh_nothing(twins: Twins, tmp_path: Path) -> None:
    """However far they are above those that are: scores of 100."""
    step = Step([(60, 100)], large=6.0, top=5)
    require_right(step, attend(step, twins, tmp_path), bound=5e-2)


def test_a_request_of_nan_reaches_no_other(twins: Twins, tmp_path: Path) -> None:
    """Its latents lie beside its neighbours' in the workspace, in the same tiles."""
    step = Step([(10, 40), (30, 60), (0, 50)], "fp8_576", top=25)
    step.cache[step.slots(1, 90)] = NOTHING_HERE
    got = attend(step, twins, tmp_path)
    want = step.expected()
    own = np.r_[0:40, 100:150]
    off = np.linalg.norm(got[own] - want[own]) / np.linalg.norm(want[own])
    assert off <= BOUND


def test_no_row_has_a_token(twins: Twins, tmp_path: Path) -> None:
    step = Step([(0, 0)], reqs=2, top=8)
    assert np.isnan(attend(step, twins, tmp_path)).all()


@pytest.mark.slow
def test_the_kernels_are_right_where_no_fault_is(twins: Twins, tmp_path: Path) -> None:
    """Else each fault would seem to be noticed."""
    done = run_steps(tmp_path, KERNELS)
    assert not done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_kernels_is_noticed(twins: Twins, fault: str, tmp_path: Path) -> None:
    file, before, after = FAULTS[fault]
    kernels = tmp_path / "kernels"
    shutil.copytree(KERNELS, kernels)
    text = (kernels / file).read_text()
    assert text.count(before) == 1
    (kernels / file).write_text(text.replace(before, after))
    done = run_steps(tmp_path, kernels)
    assert "CalledProcessError" not in done.stderr, "it does not compile"
    assert done.returncode, "right, and nobody waited in vain"
