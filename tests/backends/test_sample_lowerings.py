"""The sampling kernels of GPUs: right in the interpreter, compiled and chosen for every target."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from interpreting import environment
from tiny import ODD
from xdsl.dialects import builtin

pytest.importorskip("triton", reason="the extra `aot` is not installed")

from lostwax.backends.gpu_kernels.elf import ELF_MAGIC
from lostwax.backends.gpu_kernels.lowerings.sample import LOGPROB, MASK, NUCLEUS, PICK
from lostwax.backends.gpu_kernels.lowerings.sample_tail import SAMPLE_TAIL
from lostwax.backends.gpu_kernels.lowerings.score import SCORE
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.cover import cover, find_candidates, find_sites
from lostwax.backends.plan.price import NoMeasurements
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import Bucket, Guard, KernelLaunch, Segment
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

TARGETS = ("cuda-sm90a", "cuda-sm100a", "rocm-gfx942", "rocm-gfx950")
VALUES = {
    "temperature": "f32", "top_k": "i32", "top_p": "f32", "min_p": "f32", "seeds": "i32",
    "counters": "i32", "targets": "i32", "count_rows": "i32", "repetition": "f32",
    "frequency": "f32", "presence": "f32", "bias_rows": "i32", "mask_rows": "i32", "op.ids": "i32",
    "op.logprobs": "f32", "op.target_logprobs": "f32", "picked.ids": "i32", "logprob": "f32",
}  # fmt: skip


def failed_cases(script: str) -> dict[str, list[str]]:
    """What a script of `interpreted/` says must hold, with the cases in which it does not."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "interpreted" / script)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_kernels_agree_with_reference_and_torch_in_the_interpreter() -> None:
    failed = failed_cases("run_sample_cases.py")
    assert len(failed) > 6, "every claim is listed, with the cases that break it"
    assert not {what: cases for what, cases in failed.items() if cases}


@pytest.mark.slow
def test_rows_of_more_ids_than_are_listed_or_tried_once_are_right_in_the_interpreter() -> None:
    failed = failed_cases("run_long_samples.py")
    assert len(failed) == 2, "every claim is listed, with the cases that break it"
    assert not {what: cases for what, cases in failed.items() if cases}


def match_of(target: str, rows: int, vocab: int, folder: Path) -> PlainMatch:
    backend, facts = find_target(target)
    assert backend.compiler is not None
    values = {n: Value((rows,), dtype) for n, dtype in VALUES.items()}
    values |= dict.fromkeys(("logits", "op.out"), Value((rows, vocab), "f32"))
    values["counts"] = Value((9, vocab), "i32")
    values["recent"] = Value((rows, 3), "i32")
    values["biases"] = Value((18, vocab), "f32")
    values["masks"] = Value((128, -(-vocab // 32)), "i32")
    values |= {"op.top_ids": Value((rows, 20), "i32"), "op.top_logprobs": Value((rows, 20), "f32")}
    compiler = backend.load(backend.compiler)(facts)
    return PlainMatch(facts, Bucket(rows=rows), values, {}, compiler, folder)


@pytest.mark.parametrize("lowering", [PICK, MASK, NUCLEUS, LOGPROB], ids=lambda low: low.name)
@pytest.mark.parametrize("target", TARGETS)
def test_a_row_is_split_and_one_binary_serves_any_number_of_rows(
    target: str, lowering: Lowering, tmp_path: Path
) -> None:
    found: list[set[str]] = []
    built: dict[str, CompiledKernel] = {}
    for rows in (1, 64):
        match = match_of(target, rows, 129_280, tmp_path)
        match.built = built
        launches = match.emit(lowering)
        assert len(launches) == lowering.work(match, lowering.default_knobs()).launches
        for launch in launches:
            assert isinstance(launch, KernelLaunch)
            assert launch.grid[:2] in ((rows, -(-129_280 // 1024)), (rows, 1))
            assert launch.shared_bytes <= match.target.shared_memory_bytes
            assert (tmp_path / launch.binary).read_bytes().startswith(ELF_MAGIC)
        first = launches[0]
        assert isinstance(first, KernelLaunch)
        assert first.grid[1] > 1, "one row is work for many programs"
        found.append({x.binary for x in launches if isinstance(x, KernelLaunch)})
    assert found[0] == found[1]
    assert len(found[0]) <= 4


@pytest.mark.parametrize("lowering", [SAMPLE_TAIL, SCORE], ids=lambda low: low.name)
@pytest.mark.parametrize("target", TARGETS)
def test_a_tail_and_scores_are_two_launches_for_any_number_of_rows(
    target: str, lowering: Lowering, tmp_path: Path
) -> None:
    built: dict[str, CompiledKernel] = {}
    for rows in (1, 64):
        match = match_of(target, rows, 4096, tmp_path)
        match.built = built
        launches = match.emit(lowering)
        grids = [x.grid for x in launches if isinstance(x, KernelLaunch)]
        assert grids == [(rows, 4, 1), (rows, 4, 1)]
        assert lowering.work(match, lowering.default_knobs()).launches == 2
        for launch in launches:
            assert isinstance(launch, KernelLaunch)
            assert (tmp_path / launch.binary).read_bytes().startswith(ELF_MAGIC)
    assert len(built) == 2


def test_what_a_row_of_scores_takes_does_not_grow_with_its_ids(tmp_path: Path) -> None:
    small, large = (match_of("cuda-sm90a", 512, v, tmp_path) for v in (4096, 129_280))
    held = [SCORE.workspace(match, SCORE.default_knobs()) // 512 for match in (small, large)]
    assert held[1] < held[0] + 2048 < 12_000
    whole = 4 * 129_280
    assert held[1] < whole // 40


def test_more_ids_than_a_program_takes_are_refused(tmp_path: Path) -> None:
    match = match_of("cuda-sm90a", 1, 300_000, tmp_path)
    assert NUCLEUS.when.refusal(match) == "axis 1 of logits is 300000, wants <= 262144"
    assert SAMPLE_TAIL.when.refusal(match) == "axis 1 of logits is 300000, wants <= 262144"
    assert SCORE.when.refusal(match) == "axis 1 of logits is 300000, wants <= 262144"


VERBS = ("pick", "penalise", "bias", "mask", "nucleus", "logprob", "score")
TAIL = {f"sample.{verb}" for verb in VERBS}
CHOICES: dict[tuple[Segment, int], list[str]] = {
    ("pick", 211): ["smxx_pick"],
    ("sample", 211): ["smxx_sample_tail"],
    ("score", 211): ["smxx_sample_tail", "smxx_score"],
    ("pick", 129_280): ["smxx_pick"],
    ("sample", 129_280): ["smxx_sample_tail"],
    ("score", 129_280): ["smxx_sample_tail", "smxx_score"],
}
"""By head and vocabulary: what its tail is covered by."""


@pytest.fixture(scope="module", params=CHOICES, ids=lambda head: f"{head[0]} of {head[1]}")
def head(request: pytest.FixtureRequest) -> tuple[Segment, builtin.ModuleOp, list[str]]:
    segment, vocab = request.param
    config = parse_config(ODD | {"vocab_size": vocab})
    module = run(capture(config, 16).module, (AssignFormatsPass(dtype="f32"),), None)
    module = run(module, (SpecialisePass(segment=segment), CleanUpPass()), None)
    return segment, module, CHOICES[request.param]


@pytest.mark.parametrize("target", TARGETS)
def test_a_head_takes_them_for_any_number_of_rows(
    target: str, head: tuple[Segment, builtin.ModuleOp, list[str]]
) -> None:
    segment, module, wanted = head
    backend, facts = find_target(target)
    lowerings = backend.load(backend.lowerings)(facts)
    for rows in (1, 8, 64, 512):
        bucket, guard = Bucket(rows=rows), Guard("always")
        context = ProgramContext(module, facts, segment, bucket, guard)
        chosen: list[str] = []
        for block in context.blocks.values():
            sites = find_sites(block, lowerings)
            found = find_candidates(context, block, sites, NoMeasurements())
            for each in cover(found, lambda candidate: None).chosen:
                ops = {op.name for op in each.candidate.region.members}
                if ops & TAIL:
                    chosen.append(each.candidate.name)
        assert sorted(chosen) == wanted
