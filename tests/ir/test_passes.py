"""Passes on a whole module: names, options, order, dumps, and what one program's module holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.parser import Parser
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from lostwax.ir.dialects import context
from lostwax.ir.passes import PASSES, UnknownPass, find_pass, pipeline

MODEL = Path(__file__).with_name("tiny_model.mlir")


def _model() -> builtin.ModuleOp:
    return Parser(context(), MODEL.read_text()).parse_module()


def _functions(module: builtin.ModuleOp) -> list[str]:
    return [f.sym_name.data for f in module.ops if isinstance(f, func.FuncOp)]


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_loads_by_its_name_and_has_a_reason(name: str) -> None:
    assert find_pass(name).name == name
    assert pipeline.REASONS[name]


def test_an_unknown_pass_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownPass, match="Did you mean 'specialise'"):
        pipeline.parse("specialize{segment=decode}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("specialise{segment=verify}", "segment=verify is not one of"),
        ("specialise", "requires argument \"segment\""),
        ("assign-formats{dtype=f16}", "dtype=f16 is not one of"),
        ("assign-formats{weights=int4}", "weights=int4 is not one of"),
        ("clean-up{", "Expected argument name"),
        ("clean-up{fast=true}", "\"fast\""),
    ],
)  # fmt: skip
def test_a_wrong_pipeline_is_refused_before_it_runs(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.parse(text)


def test_a_pipelines_text_parses_back_to_the_same_passes() -> None:
    passes = pipeline.program_pipeline(dtype="f32", segment="decode", all=True)
    text = ",".join(pipeline.spec_text(p) for p in passes)
    assert text == "assign-formats{dtype=f32},specialise{segment=decode all=true},clean-up"
    assert pipeline.parse(text) == passes


def test_the_printed_pipeline_gives_a_reason_a_pass() -> None:
    formats, *rest = pipeline.program_pipeline(dtype="bf16", segment="extend")
    passes = (formats, *pipeline.rank_passes(2), *rest)
    lines = pipeline.describe(passes).splitlines()
    assert len(lines) == len(PASSES)
    assert all(r in line for line, r in zip(lines, pipeline.REASONS.values(), strict=True))


def test_a_dump_folder_gets_the_module_after_each_pass(tmp_path: Path) -> None:
    passes = pipeline.program_pipeline(dtype="bf16", segment="decode")
    module = pipeline.run(_model(), passes, tmp_path / "dump")
    names = ["00-input", "01-assign-formats", "02-specialise", "03-clean-up"]
    assert sorted(f.name for f in (tmp_path / "dump").iterdir()) == [f"{n}.mlir" for n in names]
    last = (tmp_path / "dump" / "03-clean-up.mlir").read_text()
    assert last == str(module) + "\n"
    assert str(Parser(context(), last).parse_module()) == str(module)


BODY = ["embed", "dense", "norm"]


@pytest.mark.parametrize(
    ("segment", "blocks"),
    [("extend", BODY), ("decode", BODY), ("pick", ["pick_head"]), ("score", ["score_head"])],
)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_program_module_holds_one_segment_and_what_it_calls(
    segment: str, blocks: list[str], dtype: str
) -> None:
    module = pipeline.run(_model(), pipeline.program_pipeline(dtype=dtype, segment=segment))
    assert _functions(module) == [*blocks, segment]


def test_f32_leaves_no_other_float_and_no_scales() -> None:
    module = pipeline.run(_model(), pipeline.program_pipeline(dtype="f32", segment="extend"))
    types = str(module).replace("lostwax.stored<bf16>", "")
    assert "bf16" not in types
    held = re.sub(r"#lostwax.stored<f8E4M3FN, #lostwax.block_scale<[^>]*>>", "", types)
    assert "block_scale" not in held


def test_decode_speaks_of_requests_only() -> None:
    module = pipeline.run(_model(), pipeline.program_pipeline(dtype="bf16", segment="decode"))
    assert "[T" not in str(module)
    assert "[B, 64*P]" in str(module)


def test_selecting_all_drops_index_queries_and_keeps_the_key_append() -> None:
    passes = pipeline.program_pipeline(dtype="bf16", segment="decode", all=True)
    text = str(pipeline.run(_model(), passes))
    assert "dsa.all" in text
    for dead in ("dsa.index_logits", "dsa.topk", "%iq", "%iw1"):
        assert dead not in text
    assert '%index_key1 = "kv.append"' in text


def test_the_same_module_gives_the_same_text() -> None:
    passes = pipeline.program_pipeline(dtype="bf16", segment="decode", all=True)
    assert str(pipeline.run(_model(), passes)) == str(pipeline.run(_model(), passes))


@dataclass(frozen=True)
class BreakPass(ModulePass):
    """Leaves a module that does not verify."""

    name = "break"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for function in op.ops:
            if isinstance(function, func.FuncOp) and function.sym_name.data == "embed":
                function.sym_name = builtin.StringAttr("elsewhere")


def test_a_pass_that_breaks_the_module_is_named() -> None:
    with pytest.raises(
        VerifyException, match=r"after break: @body: core\.call: no function @embed"
    ):
        pipeline.run(_model(), (BreakPass(),))


@pytest.mark.parametrize("kv_b", ["stored", "dequantised"])
def test_only_the_attentions_kv_b_may_be_held_apart_from_other_weights(kv_b: str) -> None:
    module = pipeline.run(_model(), pipeline.parse(f"assign-formats{{kv_b={kv_b}}}"))
    held: dict[str, bool] = {}
    for function in (f for f in module.ops if isinstance(f, func.FuncOp)):
        for argument, attrs in zip(function.args, function.arg_attrs or (), strict=False):
            stored = str(attrs.data.get("lostwax.stored"))
            if "f8E4M3FN" in stored:
                held[str(attrs.data["lostwax.weight"])] = "f8E4M3FN" in str(argument.type)
    kept = {name for name, is_fp8 in held.items() if not is_fp8}
    assert len(held) > 3
    assert kept == ({'"self_attn.kv_b_proj.weight"'} if kv_b == "dequantised" else set())
