"""What the rules of the fp8 products choose was within 5 % of the fastest where it was timed."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.lowerings.expert_forms import choose_form
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import FP8_LINEAR
from lostwax.backends.gpu_kernels.lowerings.fp8_products import KNOBS, cut
from lostwax.backends.gpu_kernels.lowerings.grouped_experts import FP8_EXPERTS
from lostwax.backends.gpu_kernels.lowerings.linear import LINEAR
from lostwax.backends.lowering import Lowering, Match
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TIMED = BENCHMARKS / "results" / "2026-11-29-h200-fp8-products.json"
CELLS: list[dict[str, Any]] = json.loads(TIMED.read_text())["cells"]
LAYOUTS = {"": None, "square": FP8_BLOCKS, "row": FP8_ROW_BLOCKS}
WEIGHTS = {
    "linear": ("weight",),
    "gated": ("w_gate", "w_up"),
    "projections": ("w_q", "w_k", "w_kv"),
}
BY_RULE = {knob.name: 0 for knob in KNOBS}


class NoCompiler:
    """Stands where the compiler stands: nothing here is compiled."""

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        raise AssertionError(source)

    def toolchain(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="module")
def matches() -> dict[str, Match]:
    """What a lowering sees of each timed case, by its name."""
    sys.path.insert(0, str(BENCHMARKS))  # which is no package
    timed: Any = import_module("fp8_cases")
    found: dict[str, Match] = {}
    for case in timed.cases():
        given = {
            name: Value(shape, dtype, scale=LAYOUTS[scaled])
            for name, (shape, dtype, scaled) in timed.values(case).items()
        }
        bucket = Bucket(case.rows, case.rows, 1, case.rows)
        found[case.name] = PlainMatch(CUDA_SM90A, bucket, given, {}, NoCompiler(), Path())
    return found


def of_product(match: Match, weights: tuple[str, ...]) -> dict[str, int]:
    """Knobs that name what the rule chooses; of several weights they are joined."""
    rows, k = match.shape("x")
    n = sum(match.shape(weight)[0] for weight in weights)
    terms = 1 if match.is_scaled("x") else 2
    product = cut(match, BY_RULE, rows, n, k, terms, apart=len(weights) > 1)
    form = product.form
    return {
        "block_rows": form.block_rows, "side": 1 if form.swap else 2, "block_n": form.block_n,
        "num_stages": form.num_stages, "num_warps": form.num_warps, "splits": product.splits,
        "ahead": int(form.ahead),
    }  # fmt: skip


def of_experts(match: Match) -> dict[str, int]:
    """The same of the experts."""
    form = choose_form(match, FP8_EXPERTS.default_knobs())
    return {
        "block_rows": form.block_rows, "side": 1 if form.swap else 2, "group": form.group,
        "gated_warps": form.gated_warps, "gated_stages": form.gated_stages,
        "down_n": form.down_n, "down_warps": form.down_warps, "down_stages": form.down_stages,
        "ahead": int(form.ahead),
    }  # fmt: skip


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell["case"])
def test_the_rule_is_within_5_percent_of_the_fastest(
    cell: dict[str, Any], matches: dict[str, Match]
) -> None:
    match, op = matches[cell["case"]], cell["op"]
    chosen = of_experts(match) if op == "experts" else of_product(match, WEIGHTS[op])
    fast = [
        {name: int(value) for name, _, value in (knob.partition("=") for knob in said.split())}
        for said in cell["within_5_percent"]
    ]
    assert chosen in fast


def test_every_kind_of_product_was_timed() -> None:
    assert {cell["op"] for cell in CELLS} == {"experts", *WEIGHTS}


def estimate_us(lowering: Lowering, match: Match) -> float:
    """Bytes and operations as the roofline has them, without the region's own operations."""
    work = lowering.work(match, lowering.default_knobs())
    memory = work.num_bytes / (match.target.bandwidth_gbps * 1e3)
    compute = work.flops / (match.target.tflops[match.dtype("x")] * 1e6)
    return max(memory, compute) + work.launches * match.target.launch_us


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_the_estimate_prefers_fp8_products_to_widened_weights(
    rows: int, matches: dict[str, Match]
) -> None:
    """As they were timed: 1.09 ms for the 45 products of a step of one row, widened."""
    linears = [cell["case"] for cell in CELLS if cell["op"] == "linear"]
    products = [matches[name] for name in linears if name.endswith(f"M={rows} bf16")]
    assert len(products) == 7
    for match in products:
        assert estimate_us(FP8_LINEAR, match) < estimate_us(LINEAR, match), match.shape("weight")
