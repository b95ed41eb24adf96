"""The indexer's logits for Hopper: the launches of the lowerings, run on the CPU by fibers.

Matrix instructions and tensor maps are the twin's (cuda_twin/tiles.h): what is proven is which
numbers meet and who waits for whom, over ragged steps, against the fp64 meaning of the op.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_steps import (
    LONG,
    LONG_PAGES,
    MANY,
    RAGGED,
    Keys,
    Step,
    require_listed,
    require_right,
    score,
)
from twin_launches import KERNELS, Twins

from lostwax.backends.cuda.lowerings.index_logits import FORMS

SCRIPT = Path(__file__).parent / "interpreted" / "run_index_step.py"
FAULTS = {
    "all groups of rows take the queries of the first": (
        "index_logits/load.h", "(tile.row + g * ROWS_EACH) * HEADS", "tile.row * HEADS",
    ),
    "queries are waited for that no row has": (
        "index_logits/load.h", "has_rows ? QUERY_BYTES : 0", "QUERY_BYTES",
    ),
    "a tile's queries are replaced while they are still multiplied": (
        "index_logits.cu", "ROW_GROUPS : KEY_GROUPS", "ROW_GROUPS : 1",
    ),
    "the queries of one place are replaced before they are done with": (
        "index_logits/load.h", "    wait_for(empty_barrier(shared, at), place.parity ^ 1);\n", "",
    ),
    "both halves of bf16 queries are the first": (
        "index_logits/load.h", "&queries, full, box * BOX_DIMS", "&queries, full, 0",
    ),
    "both halves of bf16 keys are the first": (
        "index_logits/load.h", "&keys, full, box * BOX_DIMS", "&keys, full, 0",
    ),
    "the first half of bf16 keys meets the second half's queries": (
        "index_logits/score.h", "queries + box * QUERY_BOX",
        "queries + (BOXES - 1 - box) * QUERY_BOX",
    ),
    "the second half's products take the place of the first's": (
        "index_logits/score.h", "box + k);", "k);",
    ),
    "a place is free before its products are done": (
        "index_logits/score.h", "  products_begin();\n",
        "  arrive(empty_barrier(shared, place.at));\n  products_begin();\n",
    ),
    "the page behind what a row sees stays as it was": (
        "index_logits/load.h", "+ PAGE) / PAGE * PAGE", "+ 2 * PAGE) / PAGE * PAGE",
    ),
    "scales are read where they lie without the swizzle": (
        "index_logits/score.h", "((chunk ^ (row & 7)) << 4)", "(chunk << 4)",
    ),
    "weights are those of other heads": (
        "index_logits/score.h", "j / 2 * 8 + j % 2", "j",
    ),
    "a lane writes another key's logit": (
        "index_logits/score.h", "8 * (lane & 1)", "8 * (lane >> 1 & 1)",
    ),
    "a row does not see its own position": (
        "index_logits/score.h", "column + key <= rows.position[i]",
        "column + key < rows.position[i]",
    ),
    "products below zero count": (
        "index_logits/score.h", "max_or_nan(found[at + 2], 0.f)", "found[at + 2]",
    ),
    "a key out of range is worth nothing": (
        "index_logits/score.h", "max_or_nan(found[at], 0.f)", "fmaxf(found[at], 0.f)",
    ),
    "the first of four products is lost": (
        "index_logits/score.h", "box + k);", "box + k > 32);",
    ),
    "the pages of a tile are those that its first row sees": (
        "index_tiles.cu", "max(last, positions[tile.row + i])", "positions[tile.row]",
    ),
    "a CTA begins a page too late": ("index_tiles.cu", "cut - begin}", "cut - begin + 1}"),
    "rows that are not real are scored": (
        "index_tiles.cu", "min(first_row + rows, *real_rows)", "first_row + rows",
    ),
    "a request's second tile begins where its first does": (
        "index_tiles.cu", "(t - first_tile[tile.request]) * ROWS", "0",
    ),
    "pages behind a CTA's first 32 are those again": (
        "index_logits/load.h", "if (start > span.begin) numbers", "if (false) numbers",
    ),
    "columns from the 4,097th on stay as they were": (
        "index_logits/load.h", "start = part % parts * FILLED", "start = 0",
    ),
    "a warp of requests does not count the one before it": (
        "index_tiles.cu", "if (w < warp)", "if (w + 1 < warp)",
    ),
    "tiles from the 1,025th on begin at the first page": (
        "index_tiles.cu", "    before += together;\n", "",
    ),
    "pages of tiles from the 1,025th on do not count": (
        "index_tiles.cu", "total += together", "total = together",
    ),
    "a step without pages keeps the lists of the one before": (
        "index_tiles.cu", "total ? CTAS + thread : thread", "CTAS + thread",
    ),
}  # fmt: skip
"""By what is wrong: a source, what stands there, what takes its place."""


def run_step(folder: Path, kernels: Path) -> subprocess.CompletedProcess[str]:
    """Two forms over a ragged step in a process of its own: who waits in vain ends it."""
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


@pytest.mark.parametrize("form", range(1, len(FORMS) + 1))
@pytest.mark.parametrize("stored", ["fp8", "bf16"])
def test_every_form_agrees_with_the_reference(
    twins: Twins, tmp_path: Path, form: int, stored: Keys
) -> None:
    """Requests of any length: without a row, of one, of more than a tile; pages cut anywhere."""
    step = Step(RAGGED, reqs=8, stored=stored)
    require_right(step, score(step, twins, tmp_path, form=form, stages=4))


@pytest.mark.parametrize("stored", ["fp8", "bf16"])
def test_some_rows_at_once_are_all_rows_once(twins: Twins, tmp_path: Path, stored: Keys) -> None:
    """As the selection behind has them: parts begin within a request, and at one's first row."""
    step = Step(RAGGED, reqs=8, unreal=2, stored=stored)
    require_right(step, score(step, twins, tmp_path, at_once=9))


@pytest.mark.parametrize("stored", ["fp8", "bf16"])
def test_a_key_out_of_range_has_no_logit(twins: Twins, tmp_path: Path, stored: Keys) -> None:
    """It would be chosen before those below zero otherwise; those beside it are right."""
    for position in (0, 70, 140):
        step = Step(RAGGED, reqs=8, stored=stored, out_of_range=(1, position))
        require_right(step, score(step, twins, tmp_path))


def test_more_units_than_pages(twins: Twins, tmp_path: Path) -> None:
    """Some take nothing; each writes what no row sees."""
    step = Step([(0, 1), (3, 1)])
    require_right(step, score(step, twins, tmp_path, units=6))


def test_rows_that_are_not_real_are_left_alone(twins: Twins, tmp_path: Path) -> None:
    step = Step([(0, 7), (100, 6)], unreal=3)
    require_right(step, score(step, twins, tmp_path))


def test_a_step_without_a_token_lists_nothing(twins: Twins, tmp_path: Path) -> None:
    step = Step([(0, 0)])
    assert np.isnan(score(step, twins, tmp_path)).all()


@pytest.mark.parametrize("stored", ["fp8", "bf16"])
def test_a_row_is_the_same_in_any_form(twins: Twins, tmp_path: Path, stored: Keys) -> None:
    """Bit for bit: sums over heads go in one order."""
    step = Step([(70, 4), (130, 2)], padding=0, stored=stored)
    first, *others = (score(step, twins, tmp_path, form=form) for form in (1, 2, 4, 7))
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_more_requests_and_tiles_than_threads_are_listed(twins: Twins, tmp_path: Path) -> None:
    require_listed(Step(MANY), twins, tmp_path, form=1)


def test_more_pages_and_columns_than_are_taken_at_once(twins: Twins, tmp_path: Path) -> None:
    step = Step(LONG, pages=LONG_PAGES)
    require_right(step, score(step, twins, tmp_path, units=1, form=5, stages=4))


@pytest.mark.slow
def test_the_step_that_faults_are_shown_by_is_right(tmp_path: Path) -> None:
    done = run_step(tmp_path, KERNELS)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_kernels_is_noticed(fault: str, tmp_path: Path) -> None:
    file, before, after = FAULTS[fault]
    kernels = tmp_path / "kernels"
    shutil.copytree(KERNELS, kernels)
    text = (kernels / file).read_text()
    assert text.count(before) == 1
    (kernels / file).write_text(text.replace(before, after))
    done = run_step(tmp_path, kernels)
    assert "CalledProcessError" not in done.stderr, "it does not compile"
    assert done.returncode, "right, and nobody waited in vain"
