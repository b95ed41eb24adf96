"""A boot notices whatever is wrong with the step's kernels, and runs each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from interpreting import environment
from step_faults import FAULTS, RESULT_FAULTS, write_mutants

from lostwax.ir.contract.program import Segment
from lostwax.ir.contract.step import inputs_of
from lostwax.ir.contract.step_layout import RESULT_WIDTHS
from lostwax.ir.contract.step_state import STEP_STATE

pytest.importorskip("triton", reason="the extra `aot` is not installed")

FOLDER = Path(__file__).parent / "interpreted"
SEGMENTS: tuple[Segment, ...] = ("decode", "extend", "draft", "pick", "score")
KERNELS = ("receive", "derive", "derive_draft", "derive_logits", "advance", "send")


def interpret(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
    )


def prove(*mutants: Path) -> subprocess.CompletedProcess[str]:
    return interpret("run_proof.py", *map(str, mutants))


def test_a_boot_runs_every_kernel_of_the_step() -> None:
    done = prove()
    assert done.returncode == 0, done.stderr + done.stdout
    assert {code.split(":")[1] for code in done.stdout.split()} == {*KERNELS}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS | RESULT_FAULTS)
def test_a_fault_in_the_steps_kernels_is_named_at_boot(fault: str, tmp_path: Path) -> None:
    write_mutants(tmp_path, *(FAULTS | RESULT_FAULTS)[fault])
    done = prove(tmp_path)
    assert done.returncode == 1, done.stderr + done.stdout
    assert done.stdout.startswith("the step's kernels are wrong on this device: "), done.stderr


def compared() -> Iterator[tuple[str, str, str]]:
    """What a boot must compare: a segment's inputs, and what a step leaves; both ends of each."""
    for end in ("first", "last"):
        for segment in SEGMENTS:
            yield from ((f"the input {name!r}", segment, end) for name in inputs_of(segment))
        yield from ((f"the state's {name!r}", "score", end) for name in STEP_STATE)
        yield "the state 'counts'", "score", end
        yield from ((f"the result {name!r}", "score", end) for name in (*RESULT_WIDTHS, "drafts"))


def spoilt(*arguments: str) -> dict[tuple[str, str, str], str]:
    """What boots say of each thing that is spoilt."""
    done = interpret("run_spoilt.py", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line["what"], line["segment"], line["end"]): line["said"] for line in lines}


@pytest.mark.slow
def test_each_thing_that_a_step_leaves_is_compared_to_its_ends() -> None:
    found = spoilt()
    assert found.keys() == set(compared())
    for (what, segment, end), said in found.items():
        wanted = f"the step's kernels are wrong on this device: {what} differs"
        assert said.startswith(wanted), (end, said)
        assert f"of program {segment}-" in said


@pytest.mark.slow
def test_nothing_but_its_own_comparison_sees_a_fault() -> None:
    found = spoilt("blind")
    assert found.keys() == set(compared())
    assert set(found.values()) == {""}, "a boot that leaves one comparison out is content"
