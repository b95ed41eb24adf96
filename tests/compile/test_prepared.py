"""What is computed once a step: by host functions or kernels, under knobs. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from native_kernels import NATIVE
from small_fixtures import CompileSmall
from xdsl.dialects import builtin

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.plan.arena import align
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.choose_storage import choose_storage
from lostwax.backends.plan.cover import Cover, Forced, cover, find_candidates, find_sites
from lostwax.backends.plan.emit import EmitError, emit_program
from lostwax.backends.plan.memory_plan import plan_memory
from lostwax.backends.plan.price import NoMeasurements
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.storage import Storage
from lostwax.backends.proof.run_alone import launches_alone
from lostwax.backends.records.record_key import record_key
from lostwax.frontend.capture import Captured
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import Null, Pointer, Scalar
from lostwax.ir.contract.program import (
    Bucket,
    Guard,
    HostCall,
    KernelLaunch,
    Launch,
    Program,
    views_of,
)
from lostwax.ir.contract.step_kernel import Prepared, StepKernel
from lostwax.ir.contract.target import Target
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

BUCKET = Bucket(4, 4, 2)
LOWERINGS = "lostwax.backends.cpu.lowerings.lowerings"
SOURCE = KernelSource(
    language="triton",
    path="lostwax.backends.gpu_kernels.norms",
    symbol="splits",
    signature={"kv_lens": "*i32", "splits": "*i32", "most": "i32"},
)


def splits(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
    return (
        StepKernel(
            source=SOURCE,
            arguments=("kv_lens", "splits", Scalar("i32", knobs["most"])),
            outputs=(("splits", "i32", (match.bucket.reqs, 2)),),
            grid=(match.bucket.reqs, 1, 1),
        ),
    )


def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), match.step("splits"), match.view("op.out"))
    return (HostCall(function="lostwax.backends.portable.kernels.linear:linear", args=views),)


def split_linear(most: int = 7, prepare: Callable[..., tuple[Prepared, ...]] = splits) -> Lowering:
    plain = next(low for low in lowerings(CPU) if low.name == "portable_linear")
    knobs = (Knob("most", (most, 100)),)
    return replace(plain, name="split_linear", emit=emit, knobs=knobs, prepare=prepare)


def build(source: KernelSource) -> CompiledKernel:
    """Stands where a compiler does."""
    return CompiledKernel(
        binary="b", symbol=source.symbol, digest="", num_warps=source.num_warps,
        shared_bytes=96, registers=1, trailing_nulls=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def module(small_capture: Captured) -> builtin.ModuleOp:
    passes = (AssignFormatsPass(dtype="f32"), SpecialisePass(segment="decode"), CleanUpPass())
    return run(small_capture.module.clone(), passes)


def program_of(module: builtin.ModuleOp, lowering: Lowering) -> Program:
    context = ProgramContext(module, CPU, "decode", BUCKET, Guard("chosen"))
    covers: dict[str, Cover] = {}
    storage: dict[str, Storage] = {}
    for name, block in context.blocks.items():
        sites = find_sites(block, [*lowerings(CPU), lowering])
        forced = (Forced("quant.linear", lowering.name),)
        found = find_candidates(context, block, sites, NoMeasurements(), forced)
        storage[name], _ = choose_storage([found])
        covers[name] = cover(found, storage[name].refusal)
    return emit_program(context, covers, storage, build)


def kernels_of(program: Program) -> list[KernelLaunch]:
    """Those of `splits`; others are the CPU's own."""
    kernels = [launch for launch in program.prepare if isinstance(launch, KernelLaunch)]
    return [launch for launch in kernels if launch.symbol == SOURCE.symbol]


def test_equal_kernels_are_launched_once_a_step_into_the_arena(module: builtin.ModuleOp) -> None:
    program = program_of(module, split_linear())
    (made,) = kernels_of(program)
    lengths, out, most, *nulls = made.params
    assert isinstance(lengths, Pointer)
    assert isinstance(out, Pointer)
    assert (lengths.view.space, lengths.view.name) == ("input", "kv_lens")
    assert (out.view.space, out.view.shape, out.view.dtype) == ("arena", (4, 2), "i32")
    assert (most, nulls) == (Scalar("i32", 7), [Null(), Null()])
    assert (made.grid, made.block, made.shared_bytes) == ((4, 1, 1), (SOURCE.num_warps, 1, 1), 96)
    readers = [
        launch.args[1]
        for block in program.blocks.values()
        for launch in block
        if isinstance(launch, HostCall) and len(launch.args) == 3 and launch.args[1] == out.view
    ]
    assert len(readers) > 5
    others = [
        view for launch in program.prepare for view in views_of(launch) if view.space == "arena"
    ]
    places = sorted({(v.offset, v.num_bytes) for v in (*others, out.view)})
    assert len(places) > 1
    for (start, size), (after, _) in pairwise(places):
        assert after == align(start + size), "each once, behind one another"


def test_the_knobs_reach_what_is_prepared(module: builtin.ModuleOp) -> None:
    (made,) = kernels_of(program_of(module, split_linear(most=9)))
    assert made.params[2] == Scalar("i32", 9)


def test_an_argument_that_does_not_exist_is_refused(module: builtin.ModuleOp) -> None:
    def wrong(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
        (op,) = splits(match, knobs)
        assert isinstance(op, StepKernel)
        return (msgspec.structs.replace(op, arguments=("lengths", "splits")),)

    with pytest.raises(ValueError, match="'lengths', which is neither a step input nor one of"):
        program_of(module, split_linear(prepare=wrong))


def test_a_kernel_that_its_target_lacks_is_refused_when_emitted(module: builtin.ModuleOp) -> None:
    def clustered(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        launch = KernelLaunch(
            binary="b", symbol="f", grid=(2, 1, 1), block=(1, 1, 1), params=(),
            cluster=(2, 1, 1), op="split_linear",
        )  # fmt: skip
        return (launch,)

    with pytest.raises(
        EmitError, match=r"split_linear emitted what cannot be launched: .*clusters"
    ):
        program_of(module, replace(split_linear(), emit=clustered))


def candidate_of(module: builtin.ModuleOp, lowering: Lowering) -> Candidate:
    context = ProgramContext(module, CPU, "decode", BUCKET, Guard("chosen"))
    block = context.blocks["dense"]
    return Candidate(context, block, find_sites(block, [lowering])[0][1], lowering)


def test_by_itself_a_lowering_launches_what_it_prepares(module: builtin.ModuleOp) -> None:
    alone, (made, _) = launches_alone(candidate_of(module, split_linear()), build, {"most": 100})
    assert isinstance(made, KernelLaunch)
    assert made.params[2] == Scalar("i32", 100)
    assert made.params[1] == Pointer(alone.step(alone.candidate, "splits"))


def test_what_is_prepared_counts_in_a_record_s_key(module: builtin.ModuleOp) -> None:
    def other(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
        (op,) = splits(match, knobs)
        assert isinstance(op, StepKernel)
        return (msgspec.structs.replace(op, grid=(1, 1, 1)),)

    keys = [
        record_key(candidate_of(module, split_linear(prepare=each)), "H200")
        for each in (splits, splits, other)
    ]
    assert keys[0] == keys[1]
    assert keys[0].source != keys[2].source


def test_what_a_prepare_allocates_is_planned(
    compile_small: CompileSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(lowering: Lowering) -> Lowering:
        def prepare(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
            ops = lowering.prepare(match, knobs)
            return tuple(msgspec.structs.replace(op, allocates=1 << 40) for op in ops)

        return replace(lowering, prepare=prepare)

    def host_calls(target: Target) -> tuple[Lowering, ...]:
        own = (low for low in lowerings(target) if not low.name.startswith(NATIVE))
        return tuple(map(greedy, own))

    monkeypatch.setattr(LOWERINGS, host_calls)
    compile_small(tmp_path / "a")
    assert plan_memory(tmp_path / "a").host_calls == 1 << 40
