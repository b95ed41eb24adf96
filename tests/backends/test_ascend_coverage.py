"""At V3.2's widths nothing but the sampling is planned on a portable lowering, in W8A8."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from lostwax.backends import compile as compiling
from lostwax.backends.ascend.target import ASCEND_910B
from lostwax.backends.asked import UnsupportedRanks, require_ranks
from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.cover import Cover
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config

CONFIG = Path(__file__).parents[2] / "examples" / "deepseek-v3.2.json"
FEWER = {"num_hidden_layers": 4, "num_nextn_predict_layers": 0}
"""Three dense layers and one of experts: block kinds cost the same, whatever their number."""


class Planned(Exception):
    """Ends a compile where all is chosen."""


@pytest.mark.parametrize(
    "target", ["ascend-910b", pytest.param("ascend-910_93", marks=pytest.mark.slow)]
)
def test_nothing_but_sampling_is_planned_on_a_portable_lowering(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Counter[str] = Counter()

    def keep(contexts: Sequence[compiling.ProgramContext], covers: Iterable[dict[str, Cover]]):
        for context, blocks in zip(contexts, covers, strict=True):
            for name, cover in blocks.items():
                for priced in cover.chosen:
                    if priced.candidate.lowering is not None:
                        ops = "+".join(op.name for op in priced.candidate.region.members)
                        found[f"{context.name} {name} {ops} {priced.candidate.name}"] += 1
        raise Planned

    monkeypatch.setattr(compiling, "needed_programs", keep)
    captured = capture(parse_config(json.loads(CONFIG.read_text()) | FEWER))
    options = CompileOptions(sizes=Sizes(max_context=8192, max_tokens=512, max_reqs=64))
    with pytest.raises(Planned):
        compile_module(captured.module, captured.facts, {}, target, tmp_path / "a", options)
    fallbacks = {low.name for low in portable_lowerings(find_target(target)[1])}
    names = {place.split()[-1] for place in found}
    assert {"ascend_quant_linear", "ascend_quant_experts", "ascend_route"} <= names
    assert {"ascend_attend", "ascend_attend_all", "ascend_index_topk"} <= names
    portable = [place for place in found if place.split()[-1] in fallbacks]
    assert portable, "what picks tokens"
    assert [place for place in portable if " sample." not in place] == []


def test_several_ranks_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedRanks, match="ascend-910b was ever called; leave --tp out"):
        require_ranks(2, ASCEND_910B)
