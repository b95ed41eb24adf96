"""What a lowering says that it allocates outside the arena is at least what torch sees it take."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from held_bytes import most_held
from model_formats import FORMATS
from native_kernels import build_native
from xdsl.dialects import builtin

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.library import library_bytes
from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.step_launch import PREPARE
from lostwax.backends.proof.check import check_case
from lostwax.backends.proof.kit import VARIANTS, Variant, candidates, cases, contexts
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.runtime.driver import ReadKernel, Resolve
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import Bucket, HostCall, Launch
from lostwax.ir.contract.target import Target
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run

BUCKETS = {"extend": Bucket(96, 3, 6, 3), "decode": Bucket(8, 8, 6, 8)}
SMALL_BYTES = 256
"""Scalars, which torch keeps as tensors."""
LIBRARY_BYTES = 1 << 20
"""oneDNN's scratch for products in bf16, whatever their size: at most 193 KiB seen (torch 2.13),
and 518 KiB where the processor has tiles for them (AMX)."""


class MeteredDriver(CpuDriver):
    """Notes the most that one of a lowering's own launches held beyond what it was given, and of
    what prepares its step, by function, with the bound that the launch carries."""

    peak = 0

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        super().__init__(target, kernels, compiled)
        self.prepared: dict[str, tuple[int, int]] = {}

    def bind(self, launch: Launch, resolve: Resolve) -> Callable[[], None]:
        call = super().bind(launch, resolve)

        def watched() -> None:
            most = most_held(call)
            if launch.op == PREPARE and isinstance(launch, HostCall):
                self.prepared[launch.function] = most, launch.allocates
            else:
                self.peak = max(self.peak, most)

        return watched


def fitting(module: builtin.ModuleOp, facts: ModelFacts, variant: Variant) -> Iterator[Candidate]:
    bucket = (BUCKETS.get(variant.segment, Bucket(rows=BUCKETS["extend"].reqs)),)
    for context in contexts(module, facts, CPU, variant, bucket):
        for candidate in candidates(context, lowerings(CPU)):
            assert candidate.lowering is not None
            if candidate.lowering.when.refusal(candidate) is None:
                yield candidate


def metered(candidate: Candidate, facts: ModelFacts) -> MeteredDriver:
    """The driver, after one step of the lowering by itself."""
    kernel = build_native(KernelSource(language="cpp", path="native.cpp", symbol="add_f32"))
    driver = MeteredDriver(CPU, lambda _: library_bytes(CPU.arch), {kernel.binary: kernel})
    runner = run_alone(candidate, lambda: driver, build_native)
    check_case(runner, candidate.region, cases(candidate.context, facts, (1,))[0])
    return driver


def bound_of(candidate: Candidate) -> int:
    """Bytes that the lowering says it may hold."""
    lowering = candidate.lowering
    assert lowering is not None
    said = lowering.allocates(candidate, lowering.default_knobs())
    is_product = "x" in candidate.region.values and candidate.dtype("x") == "bf16"
    return said + SMALL_BYTES + is_product * LIBRARY_BYTES


@pytest.mark.parametrize(
    "name",
    [
        "caches",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("f32", "bf16", "all_fp8")),
    ],
)
def test_no_lowering_takes_more_memory_than_it_says(name: str) -> None:
    config, chosen = FORMATS[name]
    captured = capture(parse_config(config), 16)
    module = run(captured.module, (AssignFormatsPass(**chosen),), None)
    measured, prepared = 0, dict[str, int]()
    for variant in VARIANTS:
        for candidate in fitting(module, captured.facts, variant):
            driver, bound = metered(candidate, captured.facts), bound_of(candidate)
            peak = driver.peak
            measured += peak > 0
            assert peak <= bound, f"{candidate.name} on {candidate.context.name}: {peak} > {bound}"
            for function, (most, said) in driver.prepared.items():
                assert most <= said + SMALL_BYTES, f"{function}: {most} > {said}"
                prepared[function] = max(most, prepared.get(function, 0))
    assert measured > 40
    assert sum(most > SMALL_BYTES for most in prepared.values()) >= 2, prepared
