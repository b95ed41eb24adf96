"""A new lowering that fuses two ops, in two small files."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from native_kernels import torch_alone
from small import PROMPT, greedy
from small_fixtures import Compiled
from tutorial_files import MOST_LINES, install, lines_of

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import find_sites
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.proof.check import certify_lowering
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import edge_buckets, step_case
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.load import load
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.program import HEADS, Guard
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

NAME = "portable_gather_linear"


@pytest.fixture(scope="module", autouse=True)
def of_torch() -> Generator[None]:
    """Beside torch's operators."""
    with torch_alone():
        yield


@pytest.fixture
def lowering(monkeypatch: pytest.MonkeyPatch) -> Any:  # a module made at run time
    """The lowering, its files in their places."""
    install(monkeypatch, "lowering/kernels.py", "lostwax.backends.portable.kernels.gather_linear")
    name = "lostwax.backends.portable.lowerings.gather_linear"
    made: Any = install(monkeypatch, "lowering/lowerings.py", name)
    return made.LOWERING


def test_the_lowering_takes_less_than_sixty_lines() -> None:
    assert lines_of("lowering") < MOST_LINES


def test_the_lowering_passes_the_conformance_kit(small_capture: Any, lowering: Any) -> None:
    passes = (
        AssignFormatsPass(dtype="f32"),
        SpecialisePass(segment="pick"),
    )
    module = run(small_capture.module.clone(), passes)
    for bucket in edge_buckets("pick"):
        context = ProgramContext(module, CPU, "pick", bucket, Guard("always"))
        head = context.blocks["pick_head"]
        ((_, match),) = find_sites(head, [lowering])
        candidate = Candidate(context, head, match, lowering)
        alone = run_alone(candidate, lambda: CpuDriver(CPU, no_kernels, {}), _no_kernel, {})
        cases = [step_case(bucket, "pick", seed, page_tokens=64, vocab_size=64) for seed in (0, 1)]
        certificate = certify_lowering(
            alone, match, cases, lowering=NAME, state="executed", tool_versions={}
        )
        assert certificate.max_error is not None
        assert certificate.max_error < 1e-5


def _no_kernel(source: object) -> Any:
    raise AssertionError("a host call needs no kernel")


def test_the_lowering_is_chosen_where_it_is_cheaper_and_gives_the_same_tokens(
    small_artifact: Compiled,
    compile_small: Callable[..., Manifest],
    lowering: Any,
    tmp_path: Path,
) -> None:
    compile_small(tmp_path / "a", extra_lowerings=(lowering,))
    choices = ArtifactReader(tmp_path / "a").structure("choices.json", Choices)
    heads = [c for name, c in choices.programs.items() if name.split("-")[0] in HEADS]
    assert heads
    for program in heads:
        (chosen,) = [c for c in program if c.lowering == NAME]
        assert {x.lowering for x in chosen.losers} >= {"portable_gather_rows", "portable_linear"}
    checkpoint = small_artifact.checkpoint
    expected = greedy(load(small_artifact.artifact, checkpoint=checkpoint), PROMPT, 12)
    assert greedy(load(tmp_path / "a", checkpoint=checkpoint), PROMPT, 12) == expected
