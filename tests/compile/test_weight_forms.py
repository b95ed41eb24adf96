"""A lowering's weight form is made by the loader as it asks: rounded anew, padded, tiled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from msgspec import structs
from safetensors import safe_open
from small import PROMPT, SMALL, greedy, options, plan
from small_fixtures import Compiled
from xdsl.dialects import builtin, func

from lostwax.backends import predicates as P
from lostwax.backends.compile import compile_module
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.plan.cover import Forced, NoCover
from lostwax.backends.plan.form_steps import form_refusal
from lostwax.backends.plan.want import Want
from lostwax.backends.plan.weight_type import WeightType
from lostwax.backends.portable.lowerings.calls import launch, torch_calls
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.bound_program import WeightBuffers
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.load_weights import load_weights
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.scale_layout import MX, BlockScale, ChannelScale, StoredFormat
from lostwax.ir.contract.weights import (
    Concat,
    Pad,
    Quantised,
    Requantise,
    Select,
    StoredWeight,
    Tile,
    Transpose,
    WeightForm,
    WeightPlan,
)
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region
from lostwax.ir.scale_layouts import STORED, StoredAttr

KERNELS = "lostwax.backends.portable.kernels.packed_linear"
NAME = "packed_linear"
ROWS, COLS = 48, 20
"""A tile that divides few of the small model's weights."""


def tiled_linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Write x W^T of tiles [N/n, K/k, n, k] of the padded W."""
    high, wide, rows, cols = weight.shape
    whole = weight.permute(0, 2, 1, 3).reshape(high * rows, wide * cols)
    padding = whole[out.shape[1] :].abs().sum() + whole[:, x.shape[1] :].abs().sum()
    assert float(padding) == 0
    torch.mm(x, whole[: out.shape[1], : x.shape[1]].t(), out=out)


def scaled_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, out: torch.Tensor, *, cols: int
) -> None:
    """Write x W^T of fp8 [K, N] with scales [ceil(K / cols), N]."""
    spread = scale.float().repeat_interleave(cols, 0)[: weight.shape[0]]
    torch.mm(x, weight.float() * spread, out=out)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions, where a target's kernels lie."""
    module = ModuleType(KERNELS)
    for function in (tiled_linear, scaled_linear):
        monkeypatch.setattr(function, "__module__", KERNELS)
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, KERNELS, module)


def _emit_tiled(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, cols = match.shape("weight")
    view = match.view("weight")
    assert view.shape == (-(-rows // ROWS), -(-cols // COLS), ROWS, COLS)
    return launch(NAME, "packed_linear:tiled_linear", (match.view("x"), view, match.view("op.out")))


def _lowering(form: WeightForm, emit: Callable[[Match, Knobs], tuple[Launch, ...]]) -> Lowering:
    return Lowering(
        name=NAME,
        pattern=Region.single(LinearOp),
        emit=emit,
        when=P.plain("weight"),
        weights={"weight": form},
        work=torch_calls(1),
    )


TILED = _lowering(WeightForm(name="tiles", pad=(ROWS, COLS), tile=(ROWS, COLS)), _emit_tiled)


def _quantised(scale: BlockScale | ChannelScale) -> Lowering:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        rows, cols = match.shape("weight")
        wide = scale.block((rows, cols))[1]
        weight, scales = match.view("weight"), match.view("weight:scale")
        assert (weight.dtype, weight.shape) == ("f8E4M3FN", (cols, rows))
        assert (scales.dtype, scales.shape) == (scale.dtype, (-(-cols // wide), rows))
        views = (match.view("x"), weight, scales, match.view("op.out"))
        return launch(NAME, "packed_linear:scaled_linear", views, {"cols": wide})

    wanted = Quantised(dtype="f8E4M3FN", scale=scale)
    return _lowering(WeightForm(name="fp8", perm=(1, 0), quantised=wanted), emit)


def _answer(artifact: Path, checkpoint: Path) -> list[int]:
    return [token for token, _ in greedy(load(artifact, checkpoint=checkpoint), PROMPT, 8)]


def _steps(artifact: Path) -> set[type[object]]:
    plan = ArtifactReader(artifact).weight_plan()
    return {type(s) for tensors in plan.stored.values() for t in tensors for s in t.steps}


def test_padded_tiles_give_the_same_answer(
    small_artifact: Compiled, compile_small: Callable[..., Manifest], tmp_path: Path
) -> None:
    forced = (Forced("quant.linear", NAME),)
    compile_small(tmp_path / "a", extra_lowerings=(TILED,), forced=forced)
    assert {Pad, Tile} <= _steps(tmp_path / "a")
    want = _answer(small_artifact.artifact, small_artifact.checkpoint)
    assert _answer(tmp_path / "a", small_artifact.checkpoint) == want


@pytest.mark.parametrize("scale", [ChannelScale(dtype="f32"), MX], ids=["channels", "mx"])
def test_weights_rounded_anew_are_read_with_their_scales(
    compile_small: Callable[..., Manifest],
    small_artifact: Compiled,
    tmp_path: Path,
    scale: BlockScale | ChannelScale,
) -> None:
    forced = (Forced("quant.linear", NAME),)
    made = compile_small(tmp_path / "a", extra_lowerings=(_quantised(scale),), forced=forced)
    assert made.weight_bytes < small_artifact.manifest.weight_bytes
    assert {Requantise, Select, Transpose} <= _steps(tmp_path / "a")
    load(tmp_path / "a", checkpoint=small_artifact.checkpoint).run(plan(PROMPT, 0))
    weights = ArtifactReader(tmp_path / "a").weight_plan()
    made = load_weights(weights, small_artifact.checkpoint, CpuDriver(CPU, no_kernels, {}))
    near = 0
    for tensors in weights.stored.values():
        for values in (t for t in tensors if Select("values") in t.steps):
            near += _is_near(weights, values, made, small_artifact.checkpoint, scale)
    assert near > 5


def _is_near(
    plan: WeightPlan,
    values: StoredWeight,
    made: WeightBuffers,
    checkpoint: Path,
    scale: BlockScale | ChannelScale,
) -> int:
    """How many layers' weights, times their scales, are the checkpoint's within fp8's steps."""
    found = [prefix for prefix, group in plan.groups.items() if values in plan.stored[group]]
    for prefix in found:
        codes = (
            torch.from_numpy(made[prefix, values.name])
            .view(torch.float8_e4m3fn)
            .view(values.shape)
            .t()
        )
        (source,) = plan.sources[prefix + values.parts[0].name]
        with safe_open(checkpoint / source.file, framework="pt") as file:
            want: torch.Tensor = file.get_tensor(source.tensor)
        wide = scale.block(tuple(want.shape))[1]
        shape = (-(-want.shape[1] // wide), want.shape[0])
        raw = torch.from_numpy(made[prefix, f"{values.name}:scale"])
        raw = raw.view(TORCH_DTYPES[scale.dtype]).view(shape)
        scales = raw.float().t().repeat_interleave(wide, 1)[:, : want.shape[1]]
        error = (codes.float() * scales - want).abs()
        assert bool((error <= want.abs() / 16 + scales * 2**-10).all())
    return len(found)


def test_tiles_that_nothing_pads_are_refused_with_the_weight(
    compile_small: Callable[..., Manifest], tmp_path: Path
) -> None:
    ragged = _lowering(WeightForm(name="tiles", tile=(ROWS, COLS)), _emit_tiled)
    forced = (Forced("quant.linear", NAME),)
    with pytest.raises(NoCover, match=r"tiles of \[48, 20\] cut \[.*\]: pad it first"):
        compile_small(tmp_path / "a", extra_lowerings=(ragged,), forced=forced)


def test_every_program_reads_parts_of_what_is_joined(torch_artifact: Compiled) -> None:
    assert Concat in _steps(torch_artifact.artifact)


def test_other_blocks_than_a_kernels_are_refused_by_their_type(tmp_path: Path) -> None:
    """Every lowering of a product asks the weight's type how its scales lie."""
    quant = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    captured = capture(parse_config(SMALL | {"quantization_config": quant}))
    module = captured.module.clone()
    for function in (f for f in module.ops if isinstance(f, func.FuncOp) and f.arg_attrs):
        attrs = [{**a.data} for a in function.arg_attrs or ()]
        for each in attrs:
            stored = each.get(STORED)
            if isinstance(stored, StoredAttr) and stored.format.scale is not None:
                each[STORED] = StoredAttr.of(structs.replace(stored.format, scale=MX))
        function.arg_attrs = builtin.ArrayAttr([builtin.DictionaryAttr(a) for a in attrs])
    with pytest.raises(
        NoCover, match="weight is in blocks of 1 x 32 with f32 scales, wants values"
    ):
        compile_module(module, captured.facts, {}, "cpu", tmp_path / "a", options(dtype="bf16"))


def test_weights_that_are_stored_differently_are_not_joined() -> None:
    """One list of steps makes all parts, so what is held alike may still have to lie apart."""
    types = {
        name: WeightType((8, 4), "f32", None, StoredFormat(dtype=dtype))
        for name, dtype in (("a", "bf16"), ("b", "f32"), ("c", "bf16"))
    }
    assert form_refusal(types, Want(("a", "c"))) is None
    refusal = form_refusal(types, Want(("a", "b"))) or ""
    assert refusal.startswith("b is stored as f32")
    types["c"] = replace(types["a"], split=-2, ranks=2)
    assert "split along -2" in (form_refusal(types, Want(("a", "c"))) or "")
