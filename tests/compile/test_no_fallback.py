"""At V3.2's widths nothing is planned on a portable lowering for Hopper, whatever the step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from lostwax.backends import compile as compiling
from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.cover import Cover
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import HEADS

CONFIG = Path(__file__).parents[2] / "examples" / "deepseek-v3.2.json"
FIVE = {
    "num_hidden_layers": 5, "first_k_dense_replace": 1, "n_routed_experts": 32,
    "num_experts_per_tok": 8, "vocab_size": 16160, "num_nextn_predict_layers": 0,
}  # fmt: skip
"""A dense layer and four of experts, those of one rank of eight."""
FORMATS = {
    "official": Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0"),
    "fp8 activations": Formats(activations="fp8_ue8m0"),
    "bf16 activations": Formats(),
}
CHEAP = {"portable_zeros_like"}
"""A fill of memory, once a step: torch's is the target's own."""
TARGET = "cuda-sm90a"


class Planned(Exception):
    """Ends a compile where all is chosen."""


def chosen(formats: Formats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """PROGRAM BLOCK OPS LOWERING of each region of the programs, as chosen."""
    found: Counter[str] = Counter()

    def keep(contexts: Sequence[compiling.ProgramContext], covers: Iterable[dict[str, Cover]]):
        for context, blocks in zip(contexts, covers, strict=True):
            for name, cover in blocks.items():
                for priced in cover.chosen:
                    if context.segment not in HEADS and priced.candidate.lowering is not None:
                        ops = "+".join(op.name for op in priced.candidate.region.members)
                        found[f"{context.name} {name} {ops} {priced.candidate.name}"] += 1
        raise Planned

    monkeypatch.setattr(compiling, "needed_programs", keep)
    captured = capture(parse_config(json.loads(CONFIG.read_text()) | FIVE))
    options = CompileOptions(
        formats=formats, sizes=Sizes(max_context=8192, max_tokens=4096, max_reqs=128)
    )
    with pytest.raises(Planned):
        compile_module(captured.module, captured.facts, {}, TARGET, tmp_path / "a", options)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_planned_on_a_portable_lowering(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, target = find_target(TARGET)
    fallbacks = {lowering.name for lowering in portable_lowerings(target)}
    found = chosen(FORMATS[name], tmp_path, monkeypatch)
    assert any("sm90_fp8_linear" in place for place in found), "weights are fp8"
    portable = [place for place in found if place.split()[-1] in fallbacks]
    assert [place for place in portable if place.split()[-1] not in CHEAP] == []
