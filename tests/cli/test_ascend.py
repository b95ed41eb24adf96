"""Compiling for Ascend where there is no NPU, interpreting that, and being told what is lacking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import lostwax, one_sentence
from model_formats import LITTLE
from tiny import write_config

from lostwax.backends.compile import CompileOptions, plan_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.proof import attainable
from lostwax.backends.proof.attainable import Attainable
from lostwax.backends.registry import find_target
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint

SIZES = ("--max-context", "128", "--max-tokens", "16", "--max-reqs", "2")
CONFIG = LITTLE | {"n_group": 2, "topk_group": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ascend")
    new_checkpoint(write_config(folder / "source", CONFIG), folder / "ck", seed=0, format="fp8")
    return folder / "ck"


@pytest.mark.parametrize(
    "target", ["ascend-910b", pytest.param("ascend-910_93", marks=pytest.mark.slow)]
)
def test_an_artifact_is_made_the_same_twice_and_is_interpreted(
    target: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests: list[str] = []
    for name in ("a", "b"):
        made = ("compile", checkpoint, "--target", target, *SIZES, "--json", "-o", tmp_path / name)
        status, out, err = lostwax(capsys, *made)
        assert status == 0, err
        assert f"weights stored as fp8 become int8 with a scale a row: {target} has no fp8" in err
        digests.append(json.loads(out)["digest"])
        shares = json.loads(out)["portable_share"]
        assert [share for name, share in shares.items() if name.startswith("decode")] == [0.0]
    assert digests[0] == digests[1]
    status, out, err = lostwax(capsys, "certify", tmp_path / "a", "--interpret", "--json")
    assert status == 0, err
    found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert {each["certificate"]["state"] for each in found} == {"interpreted"}
    for each in found:  # nobody has asked this machine for what the calls were written for
        assert not {"CANN", "torch_npu", "device"} & each["certificate"]["tool_versions"].keys()
    waived = {each["lowering"] for each in found if each["certificate"]["waiver"]}
    attention = {"ascend_attend", "ascend_attend_all", "ascend_norm_rope_append"}
    assert waived == attention | {"ascend_quant_experts"}


def test_certify_leaves_out_what_a_plan_says_and_says_so(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One rule for both, here with programs of up to 8 rows: none of a prompt is among them."""
    monkeypatch.setattr(attainable, "MAX_INTERPRETED_ROWS", 8)
    status, _, err = lostwax(
        capsys, "compile", checkpoint, "--target", "ascend-910b", *SIZES, "-o", tmp_path / "a"
    )
    assert status == 0, err
    status, out, err = lostwax(capsys, "certify", tmp_path / "a", "--interpret", "--json")
    assert status == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    left = {(x["program"].split()[0], x["lowering"]) for x in lines if x["left_out"]}
    captured = capture(open_checkpoint(checkpoint))
    options = CompileOptions(sizes=Sizes(max_context=128, max_tokens=16, max_reqs=2))
    plan = plan_module(captured.module, captured.facts, "ascend-910b", options)
    found = Attainable.of(plan.contexts, plan.covers, find_target("ascend-910b")[0])
    assert left == {
        (context.segment, name)
        for context, covers in zip(plan.contexts, plan.covers, strict=True)
        for name, evidence in found.evidence(covers).items()
        if evidence.state == "compiled"
    }
    assert {segment for segment, _ in left} == {"extend"}
    count = sum(x["left_out"] is not None for x in lines)
    assert {x["certificate"]["state"] for x in lines if x["left_out"]} == {"compiled"}
    status, out, _ = lostwax(capsys, "certify", tmp_path / "a", "--interpret")
    assert f"{count} of these were left out: only programs of more than" in out
    assert out.count("compiled     left out") == count


def test_what_a_target_without_fp8_holds() -> None:
    """Weights in int8, and each part of a cached row by itself where rows are bf16."""
    _, target = find_target("ascend-910b")
    found = Formats().assign("bf16", "stored", target)
    assert (found.weights, found.kv, found.kv_b) == ("int8", "bf16_apart", "dequantised")
    assert Formats().assign("f32", "stored", target).kv == "model"
    assert Formats(kv="bf16").assign("bf16", "stored", target).kv == "bf16"
    assert Formats().assign("bf16", "stored", find_target("cuda-sm90a")[1]).weights == "stored"


def test_fp8_activations_are_refused_where_there_is_no_fp8(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ("compile", checkpoint, "--target", "ascend-910b", *SIZES, "--activations", "fp8")
    status, _, err = lostwax(capsys, *made, "-o", tmp_path / "a")
    assert status != 0
    assert "has no fp8, so activations cannot be fp8_fp32: leave that out" in one_sentence(err)


def test_an_npu_is_lacking_where_torch_npu_is() -> None:
    backend, target = find_target("ascend-910b")
    assert backend.presence is not None
    with pytest.raises(DeviceUnavailable, match=r"needs an Ascend NPU .* torch 9 reaches none"):
        backend.load(backend.presence)(target, TorchBuild("9", None, None))
