"""What a lowering says that it allocates outside the arena is at least what torch sees it take."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from model_formats import FORMATS
from torch.profiler import ProfilerActivity, profile
from xdsl.dialects import builtin

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.proof.check import check_case
from lostwax.backends.proof.kit import VARIANTS, Variant, candidates, cases, contexts
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.runtime.driver import Resolve, no_kernels
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import Bucket, Launch
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run

BUCKETS = {"extend": Bucket(96, 3, 6, 3), "decode": Bucket(8, 8, 6, 8)}
SMALL_BYTES = 256
"""Scalars, which torch keeps as tensors."""
LIBRARY_BYTES = 256 << 10
"""oneDNN's scratch for products in bf16, whatever their size: at most 193 KiB seen (torch 2.13)."""


class MeteredDriver(CpuDriver):
    """Notes the most that one of a lowering's own launches held beyond what it was given."""

    peak = 0

    def bind(self, launch: Launch, resolve: Resolve) -> Callable[[], None]:
        call = super().bind(launch, resolve)

        def metered() -> None:
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
                call()
            events = seen.profiler.kineto_results.events()  # pyright: ignore
            named = (e for e in events if e.name() == "[memory]")
            changes = sorted((e.start_ns(), e.nbytes()) for e in named)  # pyright: ignore
            held = 0
            for _, change in changes:
                held += change
                if launch.op:  # what prepares a step has no lowering
                    self.peak = max(self.peak, held)

        return metered


def no_kernel(source: KernelSource) -> CompiledKernel:
    raise AssertionError(f"a CPU lowering asked for a kernel: {source}")


def fitting(module: builtin.ModuleOp, facts: ModelFacts, variant: Variant) -> Iterator[Candidate]:
    bucket = (BUCKETS.get(variant.segment, Bucket(rows=BUCKETS["extend"].reqs)),)
    for context in contexts(module, facts, CPU, variant, bucket):
        for candidate in candidates(context, lowerings(CPU)):
            assert candidate.lowering is not None
            if candidate.lowering.when.refusal(candidate) is None:
                yield candidate


def peak_and_bound(candidate: Candidate, facts: ModelFacts) -> tuple[int, int]:
    """Bytes that the lowering was seen to hold, and what it says it may."""
    lowering = candidate.lowering
    assert lowering is not None
    driver = MeteredDriver(CPU, no_kernels, {})
    runner = run_alone(candidate, lambda: driver, no_kernel)
    check_case(runner, candidate.region, cases(candidate.context, facts, (1,))[0])
    said = lowering.allocates(candidate, lowering.default_knobs())
    is_product = "x" in candidate.region.values and candidate.dtype("x") == "bf16"
    return driver.peak, said + SMALL_BYTES + is_product * LIBRARY_BYTES


@pytest.mark.parametrize("name", ["f32", "bf16", "all_fp8", "caches"])
def test_no_lowering_takes_more_memory_than_it_says(name: str) -> None:
    config, chosen = FORMATS[name]
    captured = capture(parse_config(config), 16)
    module = run(captured.module, (AssignFormatsPass(**chosen),), None)
    measured = 0
    for variant in VARIANTS:
        for candidate in fitting(module, captured.facts, variant):
            peak, bound = peak_and_bound(candidate, captured.facts)
            measured += peak > 0
            assert peak <= bound, f"{candidate.name} on {candidate.context.name}: {peak} > {bound}"
    assert measured > 40
