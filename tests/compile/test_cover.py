"""The cheapest exact cover is chosen, ties go by name, and every refusal can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
from xdsl.ir import Operation
from xdsl.parser import Parser

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.null.target import NULL
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import (
    Budget,
    CandidateSet,
    Cover,
    Forced,
    NoCover,
    cover,
    find_candidates,
    find_sites,
)
from lostwax.backends.plan.price import Measurements, NoMeasurements
from lostwax.backends.plan.program_context import BlockFunction, ProgramContext
from lostwax.ir.contract.program import Bucket, Guard
from lostwax.ir.dialects import context
from lostwax.ir.dialects.core import AddOp, CastOp, RmsNormOp
from lostwax.ir.region import Node, Region

BLOCK = """
func.func @b(%a: !F, %b: !F, %w: !W) -> (!H, !H) {
  %s = "core.add"(%a, %b) : (!F, !F) -> !F
  %c = "core.cast"(%s) : (!F) -> !H
  %n = "core.rms_norm"(%s, %w) <{eps = 1.0e-06 : f64}> : (!F, !W) -> !H
  func.return %c, %n : !H, !H
}
"""
TYPES = {
    "!F": "!lostwax.tensor<[T, 8], f32>",
    "!H": "!lostwax.tensor<[T, 8], bf16>",
    "!W": "!lostwax.tensor<[8], f32>",
}
ADD, CAST, NORM = map(Region.single, (AddOp, CastOp, RmsNormOp))
SUM = Node("core.add", {"a": "a", "b": "b"})
ADD_CAST = Region({"sum": SUM, "cast": Node("core.cast", {"x": "sum"})}, ("sum", "cast"))
ALL = Region(
    {
        "sum": SUM,
        "cast": Node("core.cast", {"x": "sum"}),
        "norm": Node("core.rms_norm", {"x": "sum", "weight": "weight"}),
    },
    ("cast", "norm"),
)


def lowering(name: str, pattern: Region, us: int, when: P.Predicate = P.ALWAYS) -> Lowering:
    """A lowering whose estimate is `us` microseconds: the null target's launches cost one each."""
    return Lowering(
        name=name,
        pattern=pattern,
        emit=lambda match, knobs: (),
        when=when,
        work=lambda match, knobs: Work(0, 0, us),
    )


def candidates(
    *lowerings: Lowering,
    forced: tuple[Forced, ...] = (),
    budget: Budget | None = None,
    measured: Measurements | None = None,
) -> CandidateSet:
    text = BLOCK
    for short, full in TYPES.items():
        text = text.replace(short, full)
    module = Parser(context(), text).parse_module()
    program = ProgramContext(module, NULL, "decode", Bucket(4, 4, 1, 4), Guard("always"))
    block = BlockFunction(program.functions["b"])
    sites = find_sites(block, lowerings)
    return find_candidates(program, block, sites, measured or NoMeasurements(), forced, budget)


def cheapest(
    *lowerings: Lowering,
    forced: tuple[Forced, ...] = (),
    measured: Measurements | None = None,
) -> Cover:
    found = candidates(*lowerings, forced=forced, measured=measured)
    return cover(found, lambda candidate: None)


def names(chosen: Cover) -> list[str]:
    return [p.candidate.name for p in chosen.chosen]


PARTS = (lowering("add", ADD, 3), lowering("cast", CAST, 3), lowering("norm", NORM, 3))


def test_a_region_of_three_ops_is_chosen_when_it_is_cheaper_than_its_parts() -> None:
    chosen = cheapest(*PARTS, lowering("fused", ALL, 8))
    assert names(chosen) == ["fused"]
    assert chosen.total == 8_000_000


def test_the_parts_are_chosen_when_the_region_costs_more() -> None:
    assert names(cheapest(*PARTS, lowering("fused", ALL, 10))) == ["add", "cast", "norm"]


def test_the_cover_is_the_cheapest_of_all_exact_covers() -> None:
    for one, two, three in product((1, 4, 6, 9, 13), repeat=3):
        everything = (
            *PARTS,
            lowering("add_cast", ADD_CAST, one),
            lowering("all", ALL, two),
            lowering("norm_too", NORM, three),
        )
        least = min(two, min(one, 6) + min(three, 3))
        assert cheapest(*everything).total == least * 1_000_000


def test_ties_go_by_name_whatever_the_order_of_import() -> None:
    twins = [lowering("b_norm", NORM, 3), lowering("a_norm", NORM, 3)]
    for order in (twins, twins[::-1]):
        assert names(cheapest(*PARTS[:2], *order)) == ["add", "cast", "a_norm"]


def test_regions_come_in_the_order_of_their_dependencies() -> None:
    last = lowering("add_cast", ADD_CAST, 1)
    assert names(cheapest(PARTS[2], last)) == ["add_cast", "norm"]


def test_no_cover_lists_each_candidate_with_the_predicate_that_refused() -> None:
    refused = (
        lowering("half_norm", NORM, 1, P.dtype("x", "bf16", "f16")),
        lowering("wide_norm", NORM, 1, P.axis_multiple("x", 1, 64)),
        lowering("mma_norm", NORM, 1, P.fact("matrix_units", "wgmma")),
    )
    with pytest.raises(NoCover) as error:
        cheapest(*PARTS[:2], *refused)
    assert str(error.value).splitlines() == [
        "b: no lowering covers core.rms_norm in decode Bucket(tokens=4, reqs=4, pages=1, rows=4)"
        " under always:",
        "  half_norm: dtype of x is f32, wants bf16 or f16",
        "  mma_norm: target fact matrix_units is (), wants ('wgmma',)",
        "  wide_norm: axis 1 of x is 8, wants a multiple of 64",
    ]


def test_no_cover_says_that_nothing_matches() -> None:
    with pytest.raises(NoCover, match="target null has no lowering whose pattern matches it"):
        cheapest(*PARTS[:2])


def test_what_the_weight_plan_refuses_is_listed_too() -> None:
    found = candidates(*PARTS)
    with pytest.raises(NoCover, match="norm: wants it elsewhere"):
        cover(found, lambda c: "wants it elsewhere" if c.name == "norm" else None)


def test_a_forced_lowering_beats_cheaper_ones_only_in_its_entry() -> None:
    dear = lowering("dear_norm", NORM, 50)
    for entry, expected in ((None, "dear_norm"), ("decode", "dear_norm"), ("extend", "norm")):
        rule = Forced("core.rms_norm", "dear_norm", entry)
        assert names(cheapest(*PARTS, dear, forced=(rule,)))[-1] == expected


def test_a_forced_lowering_that_may_not_run_is_refused_with_its_rule() -> None:
    half = lowering("half_norm", NORM, 1, P.dtype("x", "bf16"))
    with pytest.raises(NoCover) as error:
        cheapest(*PARTS, half, forced=(Forced("core.rms_norm", "half_norm"),))
    assert "half_norm: dtype of x is f32, wants bf16" in str(error.value)
    assert "norm: --lowering asks for half_norm on core.rms_norm" in str(error.value)


def _bytes(count: int) -> Callable[[Match, Knobs], int]:
    return lambda match, knobs: count


def test_the_budget_counts_results_workspace_and_what_a_call_allocates() -> None:
    add = PARTS[0]
    hungry = replace(add, name="hungry", workspace=_bytes(100), allocates=_bytes(28))
    results = 4 * 8 * 4  # T x 8 of f32
    for budget, refused in ((results + 127, True), (results + 128, False)):
        found = candidates(hungry, budget=Budget(budget))
        assert bool(found.refusals) is refused
    (refusal,) = candidates(hungry, budget=Budget(200)).refusals
    assert refusal.reason == (
        "needs 256 bytes of results, workspace and temporaries, the budget is 200; give a larger"
        " --budget"
    )
    # A default says what is preferred, and keeps nothing from being compiled.
    loose = candidates(hungry, budget=Budget(200, strict=False))
    assert loose.refusals == ()
    assert [p.candidate.name for p in loose.priced if p.candidate.lowering] == [hungry.name]
    small = replace(hungry, name="small", workspace=_bytes(0), allocates=_bytes(0))
    both = candidates(hungry, small, budget=Budget(200, strict=False))
    assert [p.candidate.name for p in both.priced if p.candidate.lowering] == ["small"]
    assert [r.lowering for r in both.refusals] == [hungry.name]


def test_only_knobs_that_take_memory_are_tried_where_the_budget_is_exceeded() -> None:
    """Twenty knobs of ten values each would be walked for ever."""
    asked: list[Knobs] = []

    def room(match: Match, knobs: Knobs) -> int:
        asked.append(knobs)
        return 1000 - 500 * knobs["tile"]

    many = tuple(Knob(f"k{i}", tuple(range(10)), takes_memory=False) for i in range(20))
    knobs = (*many, Knob("tile", (0, 1)))
    hungry = replace(PARTS[0], name="hungry", workspace=room, knobs=knobs)
    found = candidates(hungry, budget=Budget(4 * 8 * 4 + 500))
    (chosen,) = [p for p in found.priced if p.candidate.name == "hungry"]
    assert chosen.price.knobs == {k.name: 0 for k in many} | {"tile": 1}
    assert len(asked) < 10


def test_regions_that_wait_for_each_other_are_given_up() -> None:
    """Two convex regions can form a circle; the larger goes, its parts do the work."""
    cross = """
    func.func @b(%a: !F, %b: !F, %w: !W) -> (!F, !F) {
      %s = "core.add"(%a, %b) : (!F, !F) -> !F
      %t = "core.add"(%b, %b) : (!F, !F) -> !F
      %n = "core.rms_norm"(%t, %w) <{eps = 1.0e-06 : f64}> : (!F, !W) -> !F
      %m = "core.rms_norm"(%s, %w) <{eps = 1.0e-06 : f64}> : (!F, !W) -> !F
      func.return %n, %m : !F, !F
    }
    """
    for short, full in TYPES.items():
        cross = cross.replace(short, full)
    module = Parser(context(), cross).parse_module()
    program = ProgramContext(module, NULL, "decode", Bucket(4, 4, 1, 4), Guard("always"))
    block = BlockFunction(program.functions["b"])
    # Independent ops in one region: (s, n) and (t, m). s feeds m, t feeds n: a circle.
    norm = Node("core.rms_norm", {"x": "x", "weight": "w"})
    pair = Region({"sum": SUM, "norm": norm}, ("sum", "norm"))
    everything = (*PARTS, lowering("pair", pair, 1))
    sites = find_sites(block, everything)
    chosen = cover(find_candidates(program, block, sites, NoMeasurements()), lambda c: None)
    assert names(chosen).count("pair") == 1
    position = {op: i for i, p in enumerate(chosen.chosen) for op in p.candidate.region.members}
    for op in position:
        for value in op.operands:
            if isinstance(value.owner, Operation):
                assert position[value.owner] <= position[op]


def test_what_is_chosen_by_name_wins_only_where_it_is_named() -> None:
    cheap = replace(lowering("cheap_norm", NORM, 1), by_name=True, requires=("a-package",))
    assert names(cheapest(*PARTS, cheap)) == ["add", "cast", "norm"]
    refusal = {r.lowering: r.reason for r in candidates(*PARTS, cheap).refusals}["cheap_norm"]
    assert refusal == (
        "is chosen only where --lowering names it or a record has timed it; it calls the package"
        " a-package"
    )
    rule = Forced("core.rms_norm", "cheap_norm")
    assert names(cheapest(*PARTS, cheap, forced=(rule,))) == ["add", "cast", "cheap_norm"]
    elsewhere = Forced("core.add", "add")
    assert names(cheapest(*PARTS, cheap, forced=(elsewhere,))) == ["add", "cast", "norm"]


def test_what_is_chosen_by_name_is_a_choice_where_a_record_has_timed_it() -> None:
    class Timed:
        def best(self, candidate: Candidate) -> tuple[float, dict[str, int]] | None:
            return (0.5, {}) if candidate.name == "cheap_norm" else None

    cheap = replace(lowering("cheap_norm", NORM, 9), by_name=True)
    assert names(cheapest(*PARTS, cheap, measured=Timed())) == ["add", "cast", "cheap_norm"]


def test_a_rule_of_steps_that_select_does_not_speak_of_others() -> None:
    rule = Forced("mla.attend", "a", "extend", selecting=True)
    assert rule.applies("extend", Guard("chosen"))
    assert not rule.applies("extend", Guard("short", selects_all=True))
    assert not rule.applies("decode", Guard("chosen"))
    assert replace(rule, selecting=False).applies("extend", Guard("short", selects_all=True))
