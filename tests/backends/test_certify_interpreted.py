"""An artifact for a GPU is certified here by running its source: interpreted, never executed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small import SMALL, options
from tiny import write_config

from lostwax.backends.compile import compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.gpu_kernels.interpreter import bind_interpreted
from lostwax.backends.gpu_kernels.lowerings import FP8_FORMATS, GPU
from lostwax.backends.gpu_kernels.lowerings.attend import ATTENDS, ATTENDS_ALL
from lostwax.backends.gpu_kernels.lowerings.attention_inputs import ATTENTION_INPUTS
from lostwax.backends.gpu_kernels.lowerings.cached_projections import CACHED_PROJECTIONS
from lostwax.backends.gpu_kernels.lowerings.joined_queries import JOINED_QUERIES
from lostwax.backends.plan.cover import Forced, NoCover
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.draw import array_of
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.program import HEADS, SEGMENTS, KernelLaunch, Program, views_of
from lostwax.ir.contract.step_layout import step_launches

pytest.importorskip("triton", reason="the extra `aot` is not installed")

TENSOR_MAPPED = ("smxx_fp8_linear", "smxx_fp8_experts", "smxx_fp8_moe")
"""What reads tiles: by tensor maps, or through pointers on targets without them."""
BY_PLACES = ("gated_tiles", "down_tiles")
"""Kernels over the tiles that `place_pairs`, which is told the count, has filled."""
JOINED = ("smxx_fp8_gate_up", "smxx_fp8_projections", "smxx_fp8_mlp")
"""The same over joined weights, which must end with a block of scales."""
WITH_ALL_BEHIND = tuple(
    low.name for low in (*CACHED_PROJECTIONS, *JOINED_QUERIES, *ATTENTION_INPUTS)
)
"""Joined products of attention with all that stands behind them."""
ENDED = tuple(low.name for low in (*ATTENDS[1:], *ATTENDS_ALL[1:]))
"""Attention with what follows: its heads must give a block of scales, 128 values."""
SAMPLE_PARTS = ("nucleus", "pick", "logprob")
Line = dict[str, Any]  # a line of `certify --json`


def certify(artifact: Path) -> tuple[int, list[Line]]:
    command = [sys.executable, "-m", "lostwax", "certify", str(artifact), "--interpret", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy())
    assert done.stdout, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def fp8_capture(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """A model whose weights are smaller than a block of scales, or end inside one."""
    folder = tmp_path_factory.mktemp("fp8")
    sizes = SMALL | {"intermediate_size": 160, "moe_intermediate_size": 144}
    config = write_config(folder, sizes)
    new_checkpoint(config, folder / "ckpt", seed=0, format="fp8")
    return capture(open_checkpoint(folder / "ckpt"))


def compiled(captured: Captured, out: Path, target: str, **changes: Any) -> Path:
    module, facts, weights = captured.module, captured.facts, captured.weights
    compile_module(module, facts, weights, target, out, options(dtype="bf16", **changes))
    return out


@pytest.fixture(scope="module")
def artifact(fp8_capture: Captured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its head `sample` is covered op by op, `score` by the kernel of whole rows; `extend` chooses
    experts apart from their logits, `decode` with them, and runs them a pair at a time."""
    parts = tuple(Forced(f"sample.{op}", f"smxx_{op}", "sample") for op in SAMPLE_PARTS)
    parts += (Forced("moe.route", "smxx_route", "extend"),)
    parts += (Forced("moe.experts", "smxx_experts_few_rows", "decode"),)
    out = tmp_path_factory.mktemp("rocm") / "artifact"
    return compiled(fp8_capture, out, "rocm-gfx942", forced=parts)


@pytest.fixture(scope="module")
def lines(artifact: Path) -> list[Line]:
    code, found = certify(artifact)
    assert code == 0, [line for line in found if line["error"]]
    return found


@pytest.mark.slow
def test_every_lowering_of_a_rocm_artifact_agrees_with_the_reference(lines: list[Line]) -> None:
    assert {line["certificate"]["state"] for line in lines} == {"interpreted"}
    own = {line["lowering"] for line in lines if line["kernels"]}
    elsewhere = {"smxx_rms_norm", *TENSOR_MAPPED, *JOINED, *WITH_ALL_BEHIND, *ENDED}
    elsewhere |= {low.name for low in FP8_FORMATS}
    elsewhere |= {"smxx_fp8_moe_quantised", "smxx_fp8_mlp_quantised"}
    assert own >= {low.name for low in GPU} - elsewhere, "each kernel family was chosen"


@pytest.mark.slow
def test_the_kernels_of_the_step_are_interpreted_over_drawn_steps(lines: list[Line]) -> None:
    (step,) = [line for line in lines if line["lowering"] == "the step around the layers"]
    every = {op for segment in SEGMENTS for half in step_launches(segment) for op in half}
    assert {*step["ops"]} == every - {"step.derive_draft"}, "the model was compiled without drafts"
    assert step["certificate"]["max_error"] == 0


def _bodies(artifact: Path) -> dict[str, Program]:
    """By name."""
    reader = ArtifactReader(artifact)
    every = map(reader.program, (ref.file for ref in reader.manifest.programs))
    return {program.name: program for program in every if program.segment not in HEADS}


def test_every_kernel_of_a_layer_reads_how_many_rows_are_real(artifact: Path) -> None:
    ArtifactReader(artifact).check()
    kernels = [
        launch
        for body in _bodies(artifact).values()
        for launches in body.blocks.values()
        for launch in launches
        if isinstance(launch, KernelLaunch)
    ]
    assert kernels
    for launch in kernels:
        inputs = {view.name for view in views_of(launch) if view.space == "input"}
        assert "num_rows" in inputs or launch.symbol in BY_PLACES, launch.symbol


def test_golden_probes_say_how_many_rows_are_real_and_hold_padding(artifact: Path) -> None:
    counts: list[tuple[int, int]] = []  # real, of the bucket
    bodies = _bodies(artifact)
    for probe in ArtifactReader(artifact).probes().probes:
        if probe.program not in bodies:
            continue
        told = [array_of(each.data) for each in probe.given if each.name == "step.num_rows"]
        kernels = [launch for launch in probe.launches if isinstance(launch, KernelLaunch)]
        assert bool(told) is bool(kernels), probe.lowering
        rows = bodies[probe.program].bucket.most_rows
        counts += [(int(each[0]), rows) for each in told]
    assert counts
    assert all(0 < real <= rows for real, rows in counts)
    assert any(real < rows for real, rows in counts)


OP_BY_OP = {
    "dsa.hadamard": "smxx_hadamard", "kv.append": "smxx_append_scaled",
    "moe.experts": "smxx_fp8_experts",
}  # fmt: skip


@pytest.mark.slow
def test_the_official_formats_run_on_kernels_that_agree_with_the_reference(
    fp8_capture: Captured, tmp_path: Path
) -> None:
    """Its `extend` programs are covered op by op where `decode` fuses."""
    formats = Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0")
    forced = tuple(Forced(op, name, "extend") for op, name in OP_BY_OP.items())
    out = compiled(fp8_capture, tmp_path / "a", "cuda-sm100a", formats=formats, forced=forced)
    code, found = certify(out)
    assert code == 0, [line for line in found if line["error"]]
    assert {line["lowering"] for line in found} >= {low.name for low in FP8_FORMATS}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["rocm-gfx942", "rocm-gfx950"])
@pytest.mark.parametrize("kind", ["official", "bf16 activations"])
def test_all_of_an_artifact_for_amds_gpus_agrees_with_the_reference(
    target: str, kind: str, wide_capture: Captured, tmp_path: Path
) -> None:
    """In either encoding of fp8; nothing is left `compiled`, and no op of a layer is portable."""
    official = Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0")
    out = compiled(
        wide_capture, tmp_path / "a", target,
        formats=official if kind == "official" else Formats(),
    )  # fmt: skip
    code, found = certify(out)
    assert code == 0, [line for line in found if line["error"]]
    assert {line["certificate"]["state"] for line in found} == {"interpreted"}
    names = {line["lowering"] for line in found}
    assert names & {"smxx_topk_parts", "smxx_index_topk_parts"}
    assert any(name.startswith("smxx_mla_attend_splitkv") for name in names)
    assert any(name.startswith("smxx_fp8_") for name in names), names
    assert {n for n in names if n.startswith("portable")} <= {"portable_zeros_like"}, names


@pytest.mark.slow
def test_rounded_activations_meet_fp8_weights_in_the_matrix_units(
    fp8_capture: Captured, tmp_path: Path
) -> None:
    formats = Formats(activations="fp8_ue8m0")
    forced = (Forced("moe.experts", "smxx_fp8_experts", "extend"),)
    out = compiled(fp8_capture, tmp_path / "a", "cuda-sm100a", formats=formats, forced=forced)
    code, found = certify(out)
    assert code == 0, [line for line in found if line["error"]]
    chosen = Counter(line["lowering"] for line in found)
    mapped = ("smxx_fp8_linear", "smxx_fp8_experts", "smxx_fp8_moe_quantised")
    assert all(chosen[name] > 0 for name in mapped), chosen
    assert {x["lowering"] for x in found if x["certificate"]["state"] == "compiled"} == {
        "sm90_index_topk_tiles"
    }


@pytest.fixture(scope="module")
def wide_capture(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """Widths of whole blocks, and one from which few rows are split, too."""
    folder = tmp_path_factory.mktemp("wide")
    widths = {"intermediate_size": 1024, "moe_intermediate_size": 128}
    config = write_config(folder, SMALL | widths | {"q_lora_rank": 128, "index_head_dim": 128})
    new_checkpoint(config, folder / "ckpt", seed=0, format="fp8")
    return capture(open_checkpoint(folder / "ckpt"))


PARTS = {"moe.experts": "smxx_fp8_experts", "core.silu_mul": "smxx_fp8_gate_up"}
"""What `extend` runs apart where `decode` fuses."""


@pytest.mark.slow
def test_plain_activations_meet_fp8_weights_in_two_terms(
    wide_capture: Captured, tmp_path: Path
) -> None:
    forced = tuple(Forced(op, name, "extend") for op, name in PARTS.items())
    forced += (
        Forced("moe.experts", "smxx_fp8_moe", "decode"),
        Forced("core.layer_norm", "smxx_fp8_projections", "extend"),
    )
    out = compiled(wide_capture, tmp_path / "a", "cuda-sm90a", forced=forced)
    code, found = certify(out)
    assert code == 0, [line for line in found if line["error"]]
    chosen = Counter(line["lowering"] for line in found)
    behind = ("smxx_fp8_attention_cached", "smxx_fp8_cached_projections_heads")
    assert all(chosen[name] > 0 for name in (*TENSOR_MAPPED, *JOINED, *behind)), chosen
    terms = [x for x in found if x["lowering"] in (*TENSOR_MAPPED, *JOINED)]
    makes_terms = {"quantise_rows", "place_and_quantise"}
    assert all(makes_terms & {*line["kernels"]} for line in terms)


@pytest.mark.slow
def test_rounded_activations_pass_through_an_mlp_of_joined_weights(
    wide_capture: Captured, tmp_path: Path
) -> None:
    formats = Formats(activations="fp8_ue8m0")
    out = compiled(wide_capture, tmp_path / "a", "cuda-sm90a", formats=formats)
    code, found = certify(out)
    assert code == 0, [line for line in found if line["error"]]
    chosen = Counter(line["lowering"] for line in found)
    assert chosen["smxx_fp8_mlp_quantised"] > 0, chosen


def test_an_fp8_encoding_that_the_target_lacks_is_refused_by_the_fact(
    fp8_capture: Captured, tmp_path: Path
) -> None:
    forced = (Forced("moe.experts", "smxx_experts_few_rows", "decode"),)
    with pytest.raises(NoCover) as error:
        compiled(
            fp8_capture, tmp_path / "a", "rocm-gfx942",
            formats=Formats(fp8="f8E4M3FN"), forced=forced,
        )  # fmt: skip
    assert (
        "smxx_experts_few_rows: dtype of gate is f8E4M3FN,"
        " target fact fp8_encoding is 'f8E4M3FNUZ'" in str(error.value)
    )
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_a_certificate_names_the_binaries_whose_source_ran(lines: list[Line]) -> None:
    for line in lines:
        assert bool(line["certificate"]["binary_digest"]) is bool(line["kernels"])
        assert "triton" in line["certificate"]["tool_versions"]


def test_a_process_that_compiles_refuses_to_interpret() -> None:
    source = KernelSource(
        language="triton", path="lostwax.backends.gpu_kernels.norms", symbol="rms_norm"
    )
    launch = KernelLaunch(binary="", symbol="", grid=(1, 1, 1), block=(1, 1, 1), params=())

    def nothing(view: object) -> Any:
        raise AssertionError(view)

    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        bind_interpreted(source, launch, nothing)
