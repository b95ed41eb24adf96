"""Costs count what an op moves and does, by hand-computed numbers on small shapes."""

from __future__ import annotations

from pathlib import Path

from xdsl.dialects import func
from xdsl.parser import Parser

from lostwax.ir.dialects import context
from lostwax.ir.op import Cost, LostwaxOp

OPS = Path(__file__).parents[1] / "filecheck" / "ops"
SIZES = {"T": 3, "B": 2, "P": 5, "R": 2, "N": 9, "M": 100, "Q": 100, "C": 100}


def _cost(dialect: str, function: str) -> Cost:
    """The cost of the first op of a function in the round-trip file of its dialect."""
    module = Parser(context(), (OPS / f"{dialect}.mlir").read_text()).parse_module()
    found = next(
        f for f in module.ops if isinstance(f, func.FuncOp) and f.sym_name.data == function
    )
    op = found.body.block.first_op
    assert isinstance(op, LostwaxOp)
    return op.cost(SIZES)


def test_add_moves_every_tensor_once() -> None:
    # two bf16 [3, 8] in, one f32 [3, 8] out
    assert _cost("core", "add") == Cost(2 * 48 + 96, 24)


def test_a_mask_is_read_by_the_rows_that_have_one_and_by_no_more() -> None:
    # logits [2, 48] in and out, a row of the masks for each, whose state has 100, and the rows' own
    assert _cost("sample", "mask") == Cost(2 * 4 * 96 + 4 * 2 * 2 + 4 * 2, 96)


def test_a_bias_is_read_by_the_rows_that_have_one_and_by_no_more() -> None:
    # logits [2, 48] in and out, a row of the biases for each, and the rows' own
    assert _cost("sample", "bias") == Cost(3 * 4 * 96 + 4 * 2, 96)


def test_counts_are_read_by_the_rows_that_have_some_and_by_no_more() -> None:
    # logits [2, 48] in and out, a row of the counts for each, and the rows' own: 3 ids, 4 numbers
    assert _cost("sample", "penalise") == Cost(3 * 4 * 96 + 4 * 2 * 7, 8 * 96)


def test_views_move_nothing() -> None:
    assert _cost("core", "reshape") == Cost(0, 0)
    assert _cost("core", "slice") == Cost(0, 0)


def test_embed_reads_only_the_chosen_rows() -> None:
    assert _cost("core", "embed") == Cost(2 * 3 * 8 * 2, 0)


def test_linear_counts_scales_and_two_flops_a_product() -> None:
    # x [3, 8] bf16, weight [6, 8] fp8 with one f32 scale, y [3, 6] bf16
    assert _cost("quant", "linear_scaled") == Cost(48 + 48 + 4 + 36, 2 * 3 * 6 * 8)


def test_experts_read_at_most_the_chosen_ones() -> None:
    # 3 rows choose 2 each of 4 experts: all 4 may be read
    tensors = 3 * 8 * 2 + 3 * 2 * 4 * 2 + 3 * 8 * 4
    weights = 3 * (4 * 3 * 8) * 2
    assert _cost("moe", "experts") == Cost(tensors + weights, 6 * 3 * 2 * 3 * 8)


def test_append_reads_and_writes_rows_not_the_cache() -> None:
    rows, slots = 3 * 8 * 2, 3 * 4
    assert _cost("kv", "append_two_parts") == Cost(rows + slots + rows, 0)


def test_index_logits_grow_with_the_context() -> None:
    cost, columns = _cost("dsa", "index_logits"), 64 * SIZES["P"]
    assert cost.flops == 2 * 3 * columns * 2 * (4 + 1)
    keys = 2 * columns * 4 * 2
    assert (
        cost.num_bytes
        == 3 * 2 * 4 * 2 + 3 * 2 * 4 + 3 * 4 + 3 * 4 + 2 * 5 * 4 + 3 * columns * 4 + keys
    )


def test_attend_reads_the_selected_rows_only() -> None:
    keys, latent, rope, heads, nope, value = 32, 6, 2, 2, 4, 3
    absorb = 2 * 3 * heads * latent * (nope + value)
    attend = 2 * 3 * heads * keys * (2 * latent + rope)
    assert _cost("mla", "attend").flops == absorb + attend
