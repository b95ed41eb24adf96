"""Every Ascend lowering beside the fp64 reference, over CPU twins: interpreted, never executed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache, partial, wraps
from typing import Any

import pytest
import torch
from ascend_kit import BODIES, OWN, WEIGHTS, certified, module_of
from ascend_operators import change, forget
from ascend_twin import TARGETS, TWIN_TARGET

from lostwax.backends.ascend.kernels import attention, experts, norms, planes, products, rope
from lostwax.backends.ascend.kernels import cache as cache_kernels
from lostwax.backends.ascend.kernels.composed import COMPOSED
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.views import aliased_operand
from lostwax.backends.proof.check import NotConformant
from lostwax.backends.proof.kit import Outcome, Variant, contexts
from lostwax.ir.contract.target import Target
from lostwax.ir.op import LostwaxOp
from lostwax.ir.region import find_matches

WAIVED = {
    "ascend_attend", "ascend_attend_all", "ascend_quant_experts", "ascend_norm_rope_append",
}  # fmt: skip
"""Of which CANN's operators round inside to what no type says."""


@cache
def outcomes(weights: str) -> list[Outcome]:
    """Of the int8 model every lowering; of the other those that int8 has no place for."""
    plain = tuple(low for low in OWN if low.name in ("ascend_gate_up", "ascend_experts"))
    return certified(weights, OWN if weights == "int8" else plain)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_lowering_gives_what_its_region_means(weights: str) -> None:
    found = outcomes(weights)
    states = {o.certificate.state for o in found if o.certificate is not None}
    assert states == {"interpreted"}
    assert any(o.certificate is not None for o in found)
    waived = {o.candidate.name: o.certificate.waiver for o in found if o.certificate is not None}
    assert {name for name, waiver in waived.items() if waiver} <= WAIVED


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS[1:], ids=lambda each: each.name)
def test_every_target_has_every_lowering(target: Target) -> None:
    """Those of captured steps, too: nothing there asks the host."""
    found = certified("int8", target=target)
    certificates = [o.certificate for o in found if o.certificate is not None]
    assert {each.state for each in certificates} == {"interpreted"}
    placed = {o.candidate.name for o in found if o.certificate is not None}
    assert placed == {o.candidate.name for o in outcomes("int8") if o.certificate is not None}


@pytest.fixture
def without_cann(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """No operator that torch's can stand in for."""
    register()
    change(monkeypatch, dict.fromkeys(COMPOSED))
    yield
    forget()


@pytest.mark.slow
@pytest.mark.usefixtures("without_cann")
def test_every_lowering_gives_that_with_what_torch_has_in_place_of_operators() -> None:
    found = certified("int8", variants=BODIES[:1])
    assert {o.candidate.name for o in found if o.certificate is not None} >= {
        "ascend_norm_rope_append", "ascend_rope", "ascend_route", "ascend_quant_experts",
        "ascend_quantise", "ascend_append", "ascend_rms_norm", "ascend_quant_gate_up",
    }  # fmt: skip


def test_every_lowering_has_a_place_in_some_model() -> None:
    placed = {o.candidate.name for w in WEIGHTS for o in outcomes(w) if o.certificate is not None}
    head_only = {"ascend_take_rows", "ascend_concat"}
    assert placed == {low.name for low in OWN} - head_only


@pytest.mark.parametrize("variant", BODIES, ids=str)
def test_every_op_of_a_body_has_a_lowering_of_its_own(variant: Variant) -> None:
    module, facts = module_of("int8")
    (context, *_) = contexts(module, facts, TWIN_TARGET, variant)
    everything: set[LostwaxOp] = set()
    covered: set[object] = set()
    for block in context.blocks.values():
        ops = block.function.body.block.ops
        everything |= {
            op for op in ops if isinstance(op, LostwaxOp) and aliased_operand(op) is None
        }
        for lowering in OWN:
            for match in find_matches(lowering.pattern, block.function.body.block):
                if lowering.when.refusal(Candidate(context, block, match, lowering)) is None:
                    covered |= match.members
    assert {op.name for op in everything - covered} == set()


Plant = Callable[[pytest.MonkeyPatch], None]


def in_place_of(module: Any, name: str, wrong: Callable[..., Any]) -> Plant:
    """Plant a function that gets the right one first."""
    right = getattr(module, name)

    @wraps(right)  # the module's own name: a program may name only what its target defines
    def planted(*args: Any, **kwargs: Any) -> Any:
        return wrong(right, *args, **kwargs)

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, name, planted)

    return plant


def _scale_lost(right: Any, x: Any, x_scale: Any, weight: Any, scale: Any) -> Any:
    return right(x, torch.ones_like(x_scale), weight, scale)


def _half_is_interleaved(right: Any, x: Any, angles: Any, out: Any, **consts: Any) -> None:
    right(x, angles, out, **(consts | {"interleaved": not consts["interleaved"]}))


def _stride_of_joined_rows(right: Any, cache: torch.Tensor, widths: Any) -> Any:
    """Parts side by side in each row, where they lie apart."""
    blocks, block, _ = cache.shape
    rows = cache.view(torch.bfloat16).view(blocks, block, 1, -1)
    return [part.contiguous() for part in rows.split(list(widths), -1)]


def _first_rows_win(right: Any, *args: Any) -> None:
    right(*args)
    out = args[-1]
    out.copy_(torch.where(out >= 0, out.clamp(min=1), out))


def _unsorted(right: Any, *args: Any) -> None:
    right(*args)
    out = args[-1]
    flipped = out.flip(-1)
    out.copy_(torch.where((out >= 0).all(-1, keepdim=True), flipped, out))


def _each_by_itself(right: Any, *args: Any, **consts: Any) -> None:
    """Rows of each request where those up to its end are wanted."""
    right(*args, **consts)
    ends = args[3]
    ends[1:-1] = ends[1:-1] - ends[:-2]


def _group_of_padding_lost(right: Any, *args: Any, **consts: Any) -> None:
    right(*args, **consts)
    args[3][-1:] = args[3][-2:-1]


def _last_first(right: Any, x: Any, *args: Any, **options: Any) -> Any:
    """Of equals the last one."""
    values, indices = right(x.flip(-1), *args, **options)
    return torch.return_types.sort((values, x.shape[-1] - 1 - indices))


def _sort_of_another_tie_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "sort", partial(_last_first, torch.sort))


def _pairs_stay_side_by_side(right: Any, x: Any) -> Any:
    return x.contiguous()


def _half_tables(right: Any, positions: Any, out: Any, **consts: Any) -> None:
    right(positions, out, **(consts | {"interleaved": not consts["interleaved"]}))


def _row_scale_lost(right: Any, x: Any, x_scale: Any, *rest: Any) -> Any:
    return right(x, torch.ones_like(x_scale), *rest)


def _padding_is_written(right: Any, positions: Any, slots: Any, out: Any) -> None:
    right(torch.zeros_like(positions), slots + 1, out)


def _weights_swapped(right: Any, rows: Any, place: Any, ids: Any, weights: Any, out: Any) -> None:
    right(rows, place, ids, weights.flip(-1), out)


def _sum_rounded_first(right: Any, x: Any, weight: Any, out: Any, *, eps: float) -> None:
    right(x, weight, out, eps=eps + 0.1)


def _biased_weights(right: Any, logits: Any, bias: Any, *rest: Any, **consts: Any) -> None:
    right(logits + bias, bias, *rest, **consts)


def _scales_of_the_row_before(right: Any, x: Any, values: Any, scales: Any) -> None:
    right(x, values, scales)
    scales.copy_(scales.roll(1, 0))


PLANTED: dict[str, tuple[Plant, str, str]] = {
    "a token's scale is lost": (
        in_place_of(products, "_quant_product", _scale_lost), "ascend_quant_linear", "int8"),
    "gate and up lose the token's scale": (
        in_place_of(products, "_quant_product", _scale_lost), "ascend_quant_gate_up", "int8"),
    "scales stand one row off": (
        in_place_of(products, "quantise", _scales_of_the_row_before), "ascend_quantise", "int8"),
    "pairs are a half apart": (
        in_place_of(rope, "rotate", _half_is_interleaved), "ascend_rope", "int8"),
    "a page is strided as joined rows when read": (
        in_place_of(attention, "parts_of", _stride_of_joined_rows), "ascend_attend", "int8"),
    "all positions are read with that stride": (
        in_place_of(attention, "parts_of", _stride_of_joined_rows), "ascend_attend_all", "int8"),
    "a page is strided as joined rows when written": (
        in_place_of(cache_kernels, "parts_of", _stride_of_joined_rows), "ascend_append_apart",
        "int8"),
    "position 0 is never selected": (
        in_place_of(attention, "index_topk", _first_rows_win), "ascend_index_topk", "int8"),
    "the selection descends": (
        in_place_of(attention, "index_topk", _unsorted), "ascend_index_topk", "int8"),
    "rows are counted by request": (
        in_place_of(attention, "row_groups", _each_by_itself), "ascend_index_topk", "int8"),
    "rows without a token have no group": (
        in_place_of(attention, "row_groups", _group_of_padding_lost), "ascend_index_topk", "int8"),
    "of equal positions the last is selected": (
        _sort_of_another_tie_order, "ascend_index_topk", "int8"),
    "queries are not in the order of their keys": (
        in_place_of(attention, "halves", _pairs_stay_side_by_side), "ascend_attend", "int8"),
    "keys are kept as pairs": (
        in_place_of(cache_kernels, "halves", _pairs_stay_side_by_side), "ascend_append_apart",
        "int8"),
    "pairs are turned by others' angles": (
        in_place_of(rope, "table", _half_tables), "ascend_norm_rope_append", "int8"),
    "rows are written one slot on": (
        in_place_of(cache_kernels, "kept_slots", _padding_is_written), "ascend_norm_rope_append",
        "int8"),
    "scales of experts' rows are lost": (
        in_place_of(experts, "_quant_grouped", _row_scale_lost), "ascend_quant_experts", "int8"),
    "weights of experts are exchanged": (
        in_place_of(experts, "_finalise", _weights_swapped), "ascend_quant_experts", "int8"),
    "the same in bf16": (
        in_place_of(experts, "_finalise", _weights_swapped), "ascend_experts", "dequantised"),
    "experts are weighed by biased scores": (
        in_place_of(experts, "route", _biased_weights), "ascend_route", "int8"),
    "epsilon is another": (
        in_place_of(norms, "rms_norm", _sum_rounded_first), "ascend_rms_norm", "int8"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, name, weights = PLANTED[fault]
    chosen = tuple(low for low in OWN if low.name == name)
    plant(monkeypatch)
    with pytest.raises((NotConformant, ValueError), match=rf"{name} is wrong|npu_"):
        certified(weights, chosen)


def test_parts_that_lie_apart_are_dense_tensors_of_one_memory() -> None:
    cache = torch.arange(2 * 16 * 12, dtype=torch.int16).view(torch.uint8).view(2, 16, 24)
    first, second = planes.parts_of(cache, (8, 4))
    assert first.shape == (2, 16, 1, 8)
    assert second.shape == (2, 16, 1, 4)
    assert first.is_contiguous()
    assert second.is_contiguous()
    flat = cache.view(torch.int16).view(-1)
    assert torch.equal(second.view(torch.int16).view(-1), flat[2 * 16 * 8 :])
