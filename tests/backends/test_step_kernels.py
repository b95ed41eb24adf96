"""The step's kernels give what the oracle gives in Triton's interpreter, and faults in them do not.

A fault is a replacement in the text of a copy of `backends/gpu_kernels/step.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_steps.py"
KERNELS = Path(__file__).parents[2] / "backends" / "gpu_kernels" / "step.py"

FAULTS: dict[str, tuple[str, str]] = {
    "the length lacks the pick": ("start + last + 1 - begin", "start + last - begin"),
    "every draft is accepted": ("((draft < 0) | (draft != before))", "(draft < 0)"),
    "the second draft continues its own row": (
        "tl.where(stage == 2, last, row), mask",
        "row, mask",
    ),
    "the last slice is not noticed": (
        "if first + R >= tl.load(header + NUM_LOGITS)",
        "if first + R > tl.load(header + NUM_LOGITS)",
    ),
    "a head that ends the rows is not the last": (
        "is_last = cursor + R >= wanted",
        "is_last = cursor + R > wanted",
    ),
    "a row stands at the limit": ("(position < limit)", "(position <= limit)"),
    "results go to the place before": ("PLACES - 1) % PLACES", "PLACES - 2) % PLACES"),
    "who drafts stands where it stood in the step": (
        "tl.store(drafting + place,",
        "tl.store(drafting + b,",
    ),
    "last rows stand where they stood in the step": (
        "tl.store(last_rows + place, last)",
        "tl.store(last_rows + b, last)",
    ),
    "the cursor is not reset": ("tl.where(is_last, 0, cursor + R)", "cursor + R"),
    "tokens behind the pick are kept": ("kept, mask=tail)", "kept, mask=tail & (number == 0))"),
    "drafts stand behind the limit": ("is_missing | behind_limit", "is_missing"),
    "a draft gets the counter before": (
        "tl.where(stage == 0, row - begun + 1, stage)",
        "tl.where(stage == 0, row - begun + 1, stage - 1)",
    ),
    "all rows get the counter of the first": (
        "tl.where(stage == 0, row - begun + 1, stage)",
        "tl.where(stage == 0, 1, stage)",
    ),
    "the draft layer sees rows that were rejected": (
        "tl.where(row <= stop, seen, -1)",
        "seen",
    ),
    "a plan is received from the place before": (
        "(tl.load(turn) % PLACES)",
        "((tl.load(turn) + PLACES - 1) % PLACES)",
    ),
}


def play(histories: int, steps: int, *mutants: Path) -> subprocess.CompletedProcess[str]:
    """Histories from seed 0 on, over the kernels or what stands in for them."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(histories), "0", str(steps), *map(str, mutants)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )


def test_a_few_histories_give_the_oracles_steps() -> None:
    done = play(5, 6)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_many_histories_give_the_oracles_steps() -> None:
    done = play(200, 10)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_kernels_is_noticed(fault: str, tmp_path: Path) -> None:
    old, new = FAULTS[fault]
    text = KERNELS.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"the kernels say no longer, or more than once: {old}"
    (tmp_path / "mutants").mkdir()
    (tmp_path / "mutants" / "step.py").write_text(text.replace(old, new), encoding="utf-8")
    done = play(60, 10, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "\nAssertionError" in done.stderr, done.stderr


def test_a_copy_without_a_fault_stands_in_for_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "mutants").mkdir()
    (tmp_path / "mutants" / "step.py").write_text(KERNELS.read_text(encoding="utf-8"))
    done = play(2, 4, tmp_path)
    assert done.returncode == 0, done.stderr
