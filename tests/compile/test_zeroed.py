"""A workspace that is zeroed once: one for all launches, counted, checked, left zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from small import PROMPT, greedy
from small_fixtures import Compiled, CompileSmall
from tutorial_files import install

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Forced, find_sites
from lostwax.backends.plan.memory_plan import plan_memory
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.portable.lowerings.linear import LINEAR
from lostwax.backends.proof.check import certify_lowering
from lostwax.backends.proof.kit import cases
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.fenced_buffers import NotLeftZero
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.run_probe import WrongKernel, run_probe
from lostwax.cli.plan import _lines  # pyright: ignore[reportPrivateUsage]  # what `plan` prints
from lostwax.frontend.capture import Captured
from lostwax.ir.contract.check_probes import check_probes
from lostwax.ir.contract.check_program import ProgramCheck, symbols_of
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.check_weights import weight_sizes
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.probe import Probes
from lostwax.ir.contract.program import Bucket, Guard, HostCall, Launch, launches_of, views_of
from lostwax.ir.contract.weights import WeightPlan
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

MODULE = "lostwax.backends.portable.kernels.zeroed_kernel"


def zeroed_bytes(match: Match, knobs: Knobs) -> int:
    return 4 * match.shape("x")[0] + 4


def using(function: str) -> Lowering:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        views = (match.view("x"), match.view("weight"), match.view("op.out"), match.zeroed)
        return (HostCall(function=f"{MODULE}:{function}", args=views, op=function),)

    (plain,) = [low for low in LINEAR if low.name == "portable_linear"]
    return replace(plain, name=function, emit=emit, zeroed=zeroed_bytes, knobs=())


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    install(monkeypatch, str(Path(__file__).parents[1] / "zeroed_kernel.py"), MODULE)


def compiled(compile_small: CompileSmall, out: Path, function: str) -> ArtifactReader:
    forced = (Forced("quant.linear", function),)
    compile_small(out, forced=forced, extra_lowerings=(using(function),))
    return ArtifactReader(out)


@pytest.fixture
def art(compile_small: CompileSmall, tmp_path: Path) -> ArtifactReader:
    return compiled(compile_small, tmp_path / "art", "counted")


def no_kernel(source: KernelSource) -> CompiledKernel:
    raise AssertionError(f"no kernel is needed for {source}")


def driver() -> CpuDriver:
    return CpuDriver(CPU, no_kernels, {})


def test_the_kit_checks_that_it_is_left_zero(small_capture: Captured) -> None:
    passes = (AssignFormatsPass(dtype="f32"), SpecialisePass(segment="decode"), CleanUpPass())
    module = run(small_capture.module.clone(), passes)
    context = ProgramContext(module, CPU, "decode", Bucket(4, 4, 2), Guard("chosen"))
    for function in ("counted", "forgetful"):
        lowering = using(function)
        block = context.blocks["dense"]
        _, match = find_sites(block, [lowering])[0]
        candidate = Candidate(context, block, match, lowering)
        alone = run_alone(candidate, driver, no_kernel)
        steps = cases(context, small_capture.facts, (0, 1))
        if function == "counted":
            certify_lowering(alone, match, steps, lowering=function, state="executed")
            continue
        with pytest.raises(NotLeftZero, match="1 bytes of its zeroed workspace are not zero"):
            certify_lowering(alone, match, steps, lowering=function, state="executed")


def test_all_launches_share_one_of_the_largest_size_which_plan_counts(
    art: ArtifactReader, small_artifact: Compiled
) -> None:
    views = [
        view
        for ref in art.manifest.programs
        for launch in launches_of(art.program(ref.file))
        for view in views_of(launch)
        if view.space == "zeroed"
    ]
    most = max(view.num_bytes for view in views)
    assert most == 4 * 64 + 4, "of the step of 64 rows"
    assert {view.offset for view in views} == {0}
    assert most <= art.manifest.zeroed_bytes < most + 256
    assert all(ref.arena_bytes % 256 == 0 for ref in art.manifest.programs)
    plan = plan_memory(art.folder)
    assert plan.zeroed == art.manifest.zeroed_bytes
    assert [line for line in _lines(plan) if line.startswith("  zeroed  ")]
    plain = plan_memory(small_artifact.artifact)
    assert plain.zeroed == small_artifact.manifest.zeroed_bytes == 0
    assert not [line for line in _lines(plain) if line.startswith("  zeroed  ")]


def test_every_step_finds_it_zero(art: ArtifactReader, small_artifact: Compiled) -> None:
    runtime = load(art.folder, checkpoint=small_artifact.checkpoint)
    plain = load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)
    found, wanted = (greedy(each, PROMPT, 6) for each in (runtime, plain))
    assert [token for token, _ in found] == [token for token, _ in wanted]
    assert runtime.memory.zeroed.nbytes == art.manifest.zeroed_bytes
    assert not runtime.memory.zeroed.any()


def test_a_golden_probe_names_what_does_not_leave_it_zero(
    art: ArtifactReader, compile_small: CompileSmall, tmp_path: Path
) -> None:
    (good, *_) = [p for p in art.probes().probes if p.lowering == "counted"]
    run_probe(good, driver())
    text = msgspec.json.encode(good).replace(b":counted", b":forgetful")
    bad = msgspec.json.decode(text, type=type(good))
    with pytest.raises(WrongKernel, match=r"counted, probed at .*zeroed workspace are not zero"):
        run_probe(bad, driver())


def test_views_beyond_it_are_refused(art: ArtifactReader) -> None:
    manifest = art.manifest
    weights = weight_sizes(art.structure("weights.json", WeightPlan))
    smaller: Any = msgspec.structs.replace(manifest, zeroed_bytes=256)
    refs = [ref for ref in manifest.programs if ref.bucket.tokens == 64]
    for ref in refs:
        program = art.program(ref.file)
        ProgramCheck(manifest, weights)(program, ref)
        with pytest.raises(Inconsistent, match="zeroed memory '' ends at byte 260 of a buffer"):
            ProgramCheck(smaller, weights)(program, ref)
    assert refs
    probes: Probes = art.probes()
    check_probes(probes, symbols_of(manifest), manifest)
    none: Any = msgspec.structs.replace(manifest, zeroed_bytes=0)
    with pytest.raises(Inconsistent, match=r"the probe of 'counted': .* zeroed memory"):
        check_probes(probes, symbols_of(manifest), none)
