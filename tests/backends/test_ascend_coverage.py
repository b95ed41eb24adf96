"""At V3.2's widths nothing but the sampling is planned on a portable lowering, in W8A8."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from lostwax.backends.ascend.target import ASCEND_910B, GRAPHS, TARGETS
from lostwax.backends.asked import UnsupportedRanks, require_ranks
from lostwax.backends.compile import CompileOptions, ModulePlan, plan_module
from lostwax.backends.plan.cover import Priced
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.config import parse_config

CONFIG = Path(__file__).parents[2] / "examples" / "deepseek-v3.2.json"
FEWER = {"num_hidden_layers": 4, "num_nextn_predict_layers": 0}
"""Three dense layers and one of experts: block kinds cost the same, whatever their number."""
LAYERS = {"moe": 58, "dense": 3}
"""Of the whole model; what stands around them is once in a step."""
STATED_GAPS = 0.05
"""The most that portable lowerings may take of a predicted step."""


@cache
def captured() -> Captured:
    return capture(parse_config(json.loads(CONFIG.read_text()) | FEWER))


def planned(target: str) -> ModulePlan:
    options = CompileOptions(sizes=Sizes(max_context=8192, max_tokens=4096, max_reqs=64))
    return plan_module(captured().module, captured().facts, target, options)


def runs(plan: ModulePlan) -> list[tuple[str, str, Priced]]:
    """Program, block and what was chosen there, of everything that is launched."""
    return [
        (context.name, name, priced)
        for context, blocks in zip(plan.contexts, plan.covers, strict=True)
        for name, cover in blocks.items()
        for priced in cover.chosen
        if priced.candidate.lowering is not None
    ]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(each.name, marks=() if each is ASCEND_910B else pytest.mark.slow)
        for each in TARGETS
    ],
)
def test_nothing_but_sampling_is_planned_on_a_portable_lowering(target: str) -> None:
    found = runs(planned(target))
    fallbacks = {low.name for low in portable_lowerings(find_target(target)[1])}
    names = {priced.candidate.name for *_, priced in found}
    assert {"ascend_quant_linear", "ascend_quant_experts", "ascend_route"} <= names
    assert {"ascend_attend", "ascend_attend_all", "ascend_index_topk"} <= names
    assert {"ascend_norm_rope_append", "ascend_append"} <= names
    assert "ascend_append_apart" not in names, "norm, rope and append are one operator"
    portable = [
        (program, op.name)
        for program, _, priced in found
        for op in priced.candidate.region.members
        if priced.candidate.name in fallbacks
    ]
    assert portable, "what picks tokens"
    assert [each for each in portable if not each[1].startswith("sample.")] == []
    prices: dict[str, dict[bool, float]] = {}
    for program, block, priced in found:
        is_portable = priced.candidate.name in fallbacks
        by_kind = prices.setdefault(program, {True: 0.0, False: 0.0})
        by_kind[is_portable] += priced.price.total * LAYERS.get(block, 1)
    decode = max(sum(each.values()) for name, each in prices.items() if name.startswith("decode"))
    for head in ("pick", "sample", "score"):
        largest = max(n for n in prices if n.startswith(head))
        gap = prices[largest][True]
        assert 0 < gap < STATED_GAPS * (decode + sum(prices[largest].values())), largest


def test_ranks_are_refused_in_captured_steps_only() -> None:
    require_ranks(2, ASCEND_910B)
    graphs = next(each for each in TARGETS if each.name == ASCEND_910B.name + GRAPHS)
    with pytest.raises(UnsupportedRanks, match="replays captured graphs, in which ranks cannot"):
        require_ranks(2, graphs)
