"""The step's kernels give what the oracle gives in Triton's interpreter, and faults in them do not.

`step_faults.py` has the faults.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from interpreting import environment
from step_faults import FAULTS, write_mutants

from lostwax.ir.contract.step_layout import HEADER, HEADER_SIZE, PLACES

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_steps.py"


def play(histories: int, steps: int, *mutants: Path) -> subprocess.CompletedProcess[str]:
    """Histories from seed 0 on, over the kernels or what stands in for them."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(histories), "0", str(steps), *map(str, mutants)],
        env=environment(),
        capture_output=True,
        text=True,
    )


def test_kernels_write_the_layouts_numbers_down_as_it_has_them() -> None:
    """They stand there again: kernels take constexpr alone, and the layout knows no Triton."""
    boxes = importlib.import_module("lostwax.backends.gpu_kernels.step_boxes")
    step = importlib.import_module("lostwax.backends.gpu_kernels.step")
    names = [*HEADER, "places", "header_size"]
    layout = {"PLACES": PLACES, "HEADER_SIZE": HEADER_SIZE}
    layout |= {name.upper(): number for number, name in enumerate(HEADER)}
    found = {
        name.upper(): vars(module)[name.upper()].value
        for module in (step, boxes)
        for name in names
        if name.upper() in vars(module)
    }
    assert found == layout
    assert PLACES & (PLACES - 1) == 0, "turns wrap around by their lower bits"


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
    write_mutants(tmp_path, *FAULTS[fault])
    done = play(60, 10, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "\nAssertionError" in done.stderr, done.stderr


def test_a_copy_without_a_fault_stands_in_for_the_kernels(tmp_path: Path) -> None:
    write_mutants(tmp_path)
    done = play(2, 4, tmp_path)
    assert done.returncode == 0, done.stderr
