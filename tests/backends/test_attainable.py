"""The state that a lowering's evidence can have without its device is never rounded up."""

from __future__ import annotations

from functools import cache

import pytest
from tiny import PLAIN

from lostwax.backends.compile import CompileOptions, ModulePlan, plan_module
from lostwax.backends.plan.cover import Forced
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.proof.attainable import Attainable, Evidence, least
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.record import State

RANKS = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "index_head_dim": 128}
"""Which CANN's operators ask for."""


@cache
def captured() -> Captured:
    """One dense layer and one of experts."""
    return capture(parse_config(PLAIN | {"num_hidden_layers": 2} | RANKS))


def planned(
    target: str, *forced: Forced, dtype: str = "bf16", max_tokens: int = 16
) -> tuple[ModulePlan, Attainable]:
    sizes = Sizes(max_context=512, max_tokens=max_tokens, max_reqs=2)
    options = CompileOptions(dtype=dtype, sizes=sizes, forced=forced)
    plan = plan_module(captured().module, captured().facts, target, options)
    return plan, Attainable.of(plan.contexts, plan.covers, find_target(target)[0])


def states_of(target: str, *forced: Forced, dtype: str = "bf16") -> dict[str, State]:
    """By lowering, over all programs of a small plan: the least."""
    plan, known = planned(target, *forced, dtype=dtype)
    found: dict[str, State] = {}
    for covers in plan.covers:
        for name, evidence in known.evidence(covers).items():
            assert not evidence.otherwise, "its programs are all interpreted"
            found[name] = least(found.get(name, evidence.state), evidence.state)
    return found


def test_this_machines_own_target_is_certified_by_running() -> None:
    assert set(states_of("cpu", dtype="f32").values()) == {"executed"}


@pytest.mark.parametrize("target", ["rocm-gfx942", "ascend-910b"])
def test_what_is_interpreted_is_never_called_executed(target: str) -> None:
    states = states_of(target)
    assert set(states.values()) == {"interpreted"}
    assert any(name.startswith(("smxx_", "ascend_")) for name in states)


def test_a_library_that_nothing_stands_in_for_is_compiled_only() -> None:
    states = states_of("rocm-gfx942", Forced("moe.route", "aiter_route"))
    assert states["aiter_route"] == "compiled"
    assert set(states.values()) == {"compiled", "interpreted"}


def test_cuda_cpp_is_compiled_only() -> None:
    states = states_of("cuda-sm90a")
    assert {state for name, state in states.items() if name.startswith("sm90_")} == {"compiled"}
    assert states["smxx_embed"] == "interpreted"


def test_what_large_programs_alone_choose_is_compiled_only() -> None:
    """Interpreting runs steps of few rows: another block is another kernel of the same source."""
    plan, known = planned("rocm-gfx942", max_tokens=256)
    by_rows = {
        context.bucket.most_rows: known.evidence(covers)
        for context, covers in zip(plan.contexts, plan.covers, strict=True)
        if context.segment == "extend"
    }
    assert {evidence.state for evidence in by_rows[64].values()} == {"interpreted"}
    left = {name: each for name, each in by_rows[256].items() if each.state != "interpreted"}
    assert left["smxx_route"] == Evidence("compiled"), "64 rows choose another lowering"
    assert left["smxx_linear_plain"] == Evidence("compiled", otherwise=True)
    assert len(left) < len(by_rows[256])


def test_what_another_segment_chose_is_no_word_on_this_one() -> None:
    """`certify` runs a lowering once a segment: heads choose the same ones of the same types."""
    plan, _ = planned("rocm-gfx942")
    pairs = list(zip(plan.contexts, plan.covers, strict=True))
    sampling = [pair for pair in pairs if pair[0].segment == "sample"]
    backend, _ = find_target("rocm-gfx942")
    known = Attainable.of([c for c, _ in sampling], [each for _, each in sampling], backend)
    states: dict[str, dict[str, State]] = {"sample": {}, "score": {}}
    for context, covers in pairs:
        for name, evidence in known.evidence(covers).items():
            states.get(context.segment, {})[name] = evidence.state
    assert states["sample"].keys() & states["score"].keys()
    assert {*states["sample"].values()} == {"interpreted"}
    assert {*states["score"].values()} == {"compiled"}
