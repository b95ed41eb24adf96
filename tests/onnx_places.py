"""Ops of captured models, once a signature, with step inputs at the edges, for ONNX bodies."""

from __future__ import annotations

from functools import cache
from typing import Any

from onnx_body import Change, body_runner
from tiny import MTP, ODD, PLAIN, WIDE
from xdsl.dialects import builtin, func
from xdsl.irdl import IRDLOperation

from lostwax.backends.proof.check import certify_lowering
from lostwax.backends.proof.step_cases import StepCase, edge_buckets, step_case
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.record import Certificate
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass
from lostwax.ir.region import Region, RegionMatch, find_matches

PAGE = 16
BF16 = {"torch_dtype": "bfloat16"}
FP8 = BF16 | {
    "vocab_size": 64,
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
}

# name: (config, options of assign-formats)
FORMATS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "f32": (ODD, {"dtype": "f32"}),
    "bf16": (PLAIN | BF16, {}),
    "fp8": (WIDE | FP8, {}),
    "fp8-656": (
        PLAIN | FP8,
        {"kv": "fp8_656", "indexer": "fp8_ue8m0", "activations": "fp8_fp32"},
    ),
    "fp8-576": (
        PLAIN | FP8,
        {
            "kv": "fp8_576",
            "indexer": "fp8_fp32",
            "index_pages": "index_row",
            "activations": "fp8_ue8m0",
            "fp8": "f8E4M3FNUZ",
        },
    ),
    "int8": (PLAIN | FP8, {"weights": "int8", "activations": "int8", "kv": "bf16_apart"}),
    "mtp": (MTP, {"dtype": "f32"}),
}
Variant = tuple[str, bool]  # segment, every position selected
SPARSE, DENSE, DECODE = ("extend", False), ("extend", True), ("decode", False)
DRAFT, SCORE = ("draft", False), ("score", False)
PLACES = [
    *((name, v) for name in ("f32", "bf16", "fp8") for v in (SPARSE, DENSE, DECODE, SCORE)),
    *((name, v) for name in ("fp8-656", "fp8-576", "int8") for v in (SPARSE, DECODE)),
    ("mtp", DRAFT),
]


@cache
def _captured(name: str):
    config, options = FORMATS[name]
    captured = capture(parse_config(config), PAGE)
    return run(captured.module, (AssignFormatsPass(**options),), None), captured.facts


@cache
def _specialised(name: str, segment: str, every: bool) -> builtin.ModuleOp:
    passes = (SpecialisePass(segment=segment, all=every), CleanUpPass())
    return run(_captured(name)[0].clone(), passes, None)


def _key(op: IRDLOperation) -> str:
    types = [str(v.type) for v in (*op.operands, *op.results)]
    return f"{op.name} {types} {sorted((k, str(v)) for k, v in op.properties.items())}"


@cache
def places(name: str, variant: Variant) -> tuple[RegionMatch, ...]:
    """Every op of the variant's blocks, once for each signature."""
    found: dict[str, RegionMatch] = {}
    for function in _specialised(name, *variant).ops:
        assert isinstance(function, func.FuncOp)
        if function.sym_name.data == variant[0]:
            continue  # the step function only calls
        for kind in {type(op): None for op in function.body.block.ops}:
            if issubclass(kind, IRDLOperation) and kind is not func.ReturnOp:
                for match in find_matches(Region.single(kind), function.body.block):
                    found.setdefault(_key(match.ops["op"]), match)
    return tuple(found.values())


@cache
def cases(name: str, variant: Variant) -> tuple[StepCase, ...]:
    segment, every = variant
    facts = _captured(name)[1]
    return tuple(
        step_case(
            bucket,
            segment,
            seed,
            page_tokens=PAGE,
            vocab_size=facts.vocab_size,
            max_kv=facts.index_topk if every else None,
        )
        for bucket in edge_buckets(segment)
        for seed in (0, 1)
    )


def certified(
    match: RegionMatch,
    steps: tuple[StepCase, ...],
    compute: str = "f32",
    change: Change | None = None,
) -> Certificate:
    runner = body_runner(match.ops["op"], compute, change)
    return certify_lowering(runner, match, steps, lowering="onnx", state="interpreted")
