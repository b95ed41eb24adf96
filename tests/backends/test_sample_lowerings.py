"""The sampling kernels of GPUs: right in the interpreter, compiled and chosen for every target."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ODD
from xdsl.dialects import builtin

pytest.importorskip("triton", reason="the extra `aot` is not installed")

from lostwax.backends.gpu_kernels.elf import ELF_MAGIC
from lostwax.backends.gpu_kernels.lowerings.sample import LOGPROB, NUCLEUS, PICK
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.price import NoMeasurements, price
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.proof.kit import candidates
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import Bucket, Guard, KernelLaunch
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

TARGETS = ("cuda-sm90a", "cuda-sm100a", "rocm-gfx942", "rocm-gfx950")
VALUES = {
    "temperature": "f32", "top_p": "f32", "seeds": "i32", "counters": "i32", "targets": "i32",
    "op.ids": "i32", "op.logprobs": "f32",
}  # fmt: skip


def test_kernels_agree_with_reference_and_torch_in_the_interpreter() -> None:
    script = Path(__file__).parent / "interpreted" / "run_sample_cases.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    failed: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert len(failed) > 6, "every claim is listed, with the cases that break it"
    assert not {what: cases for what, cases in failed.items() if cases}


def match_of(target: str, rows: int, vocab: int, folder: Path) -> PlainMatch:
    backend, facts = find_target(target)
    assert backend.compiler is not None
    values = {n: Value((rows,), dtype) for n, dtype in VALUES.items()}
    values |= dict.fromkeys(("logits", "op.out"), Value((rows, vocab), "f32"))
    compiler = backend.load(backend.compiler)(facts)
    return PlainMatch(facts, Bucket(rows=rows), values, {}, compiler, folder)


@pytest.mark.parametrize("lowering", [PICK, NUCLEUS, LOGPROB], ids=lambda low: low.name)
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
    assert len(found[0]) <= 3


def test_more_ids_than_a_program_sums_parts_of_are_refused(tmp_path: Path) -> None:
    match = match_of("cuda-sm90a", 1, 300_000, tmp_path)
    assert NUCLEUS.when.refusal(match) == "axis 1 of logits is 300000, wants <= 262144"


@pytest.fixture(scope="module")
def sample_head() -> builtin.ModuleOp:
    module = run(capture(parse_config(ODD), 16).module, (AssignFormatsPass(dtype="f32"),), None)
    return run(module, (SpecialisePass(segment="sample"), CleanUpPass()), None)


@pytest.mark.parametrize("target", TARGETS)
def test_a_head_takes_them_for_any_number_of_rows(
    target: str, sample_head: builtin.ModuleOp
) -> None:
    backend, facts = find_target(target)
    for rows in (1, 64, 512):
        bucket, guard = Bucket(rows=rows), Guard("always")
        context = ProgramContext(sample_head, facts, "sample", bucket, guard, rows)
        prices: dict[str, list[tuple[int, str]]] = {}
        for each in candidates(context, backend.load(backend.lowerings)(facts)):
            (first, *_) = each.region.ops.values()
            lowering = each.lowering
            if lowering is None or not first.name.startswith("sample."):
                continue
            if lowering.when.refusal(each) is None:
                found = price(each, NoMeasurements(), lowering.default_knobs())
                prices.setdefault(first.name, []).append((found.picoseconds, each.name))
        chosen = sorted(min(found)[1] for found in prices.values())
        assert chosen == ["smxx_logprob", "smxx_nucleus", "smxx_pick"]
