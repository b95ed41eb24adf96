"""A boot notices whatever is wrong with the step's kernels, and runs each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_proof.py"
KERNELS = ("receive", "derive", "derive_draft", "derive_logits", "advance", "send")
FAULTS = {
    "the length lacks the pick": ("start + last + 1 - begin", "start + last - begin"),
    "every draft is accepted": ("(draft < 0) | (draft != before)", "(draft < 0)"),
    "a draft continues the row of its own number": (
        "tl.where(stage == 2, last, row), mask=inside",
        "row, mask=inside",
    ),
    "the last slice is not noticed": (
        "first + R >= tl.load(header + NUM_LOGITS)",
        "first + R > tl.load(header + NUM_LOGITS)",
    ),
    "a row stands at the limit": ("(position < limit)", "(position <= limit)"),
    "results go to the place before": ("+ PLACES - 1)", "+ PLACES - 2)"),
    "drafting is listed by the sequence's number": (
        "tl.store(drafting + place, seq",
        "tl.store(drafting + b, seq",
    ),
    "the next head begins where the last one ended": (
        "tl.where(is_last, 0, cursor + R)",
        "cursor + R",
    ),
    "old drafts follow the pick": ("tail = number < FOLLOWING", "tail = number < 1"),
    "padding keeps its slots": ("tl.store(slots + row, 0, mask=inside)", "pass"),
    "pages are those of the first sequence": ("state_pages + seq * max_pages", "state_pages"),
    "noise is counted from the row": ("row - begun + 1, stage)", "row + 1, stage)"),
}


def prove(*fault: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *fault],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )


def test_a_boot_runs_every_kernel_of_the_step() -> None:
    done = prove()
    assert done.returncode == 0, done.stderr + done.stdout
    assert {code.split(":")[1] for code in done.stdout.split()} == {*KERNELS}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_steps_kernels_is_named_at_boot(fault: str) -> None:
    done = prove(*FAULTS[fault])
    assert done.returncode == 1, done.stderr + done.stdout
    assert done.stdout.startswith("the step's kernels are wrong on this device: "), done.stderr
