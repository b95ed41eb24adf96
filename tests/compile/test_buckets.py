"""Every step within the limits has a program, and guards say what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import plan

from lostwax.backends.plan.sizes import (
    ProgramSpec,
    SizeError,
    Sizes,
    bounds_contexts,
    limits_of,
    program_specs,
)
from lostwax.backends.plan.variants import Variant
from lostwax.ir.contract.artifact import Limits
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import HEADS, Bucket, Fact, Guard, Linear, StepFacts

FACTS = ModelFacts(
    name="m",
    architecture="a",
    digest="d",
    vocab_size=64,
    num_layers=2,
    hidden_size=64,
    index_topk=256,
    max_context=4096,
    page_tokens=64,
    bos_token_id=None,
    eos_token_ids=(),
)

ALL_SIZES = st.builds(
    Sizes,
    max_context=st.integers(1, 4096),
    max_tokens=st.integers(8, 300),
    max_reqs=st.integers(1, 8),
    max_score_rows=st.integers(1, 100),
)


@given(ALL_SIZES, st.data())
def test_every_step_within_the_limits_fits_a_program(sizes: Sizes, data: st.DataObject) -> None:
    limits = limits_of(FACTS, sizes)
    reqs = data.draw(st.integers(1, limits.max_reqs))
    longest = data.draw(st.integers(1, limits.max_context))
    if entry_is_decode := data.draw(st.booleans()):
        rows = reqs
    else:
        rows = data.draw(st.integers(reqs, min(limits.max_tokens, reqs * longest)))
    facts = StepFacts(reqs, rows, rows, longest, longest)
    entry = "decode" if entry_is_decode else "extend"
    fits = [
        s
        for s in program_specs(FACTS, limits)
        if s.segment == entry
        and s.bucket.tokens >= rows
        and s.bucket.reqs >= reqs
        and s.bucket.pages * 64 >= longest
        and s.guard.holds(facts)
    ]
    assert fits
    if longest <= FACTS.index_topk:
        assert fits[0].guard.selects_all, (
            "where both hold, the program without an indexer comes first"
        )


@given(ALL_SIZES, st.integers(1, 3), st.data())
def test_drafts_are_verified_and_follow_any_step(
    sizes: Sizes, drafts: int, data: st.DataObject
) -> None:
    limits = limits_of(FACTS, replace(sizes, max_drafts=drafts))
    specs = program_specs(FACTS, limits)
    reqs = data.draw(st.integers(1, limits.max_reqs))
    longest = data.draw(st.integers(1, limits.max_context))
    verified = data.draw(st.integers(reqs, reqs * min(drafts + 1, longest)))

    def fits(entry: str, rows: int) -> bool:
        return any(
            s.segment == entry
            and (entry != "decode" or s.rows_a_req in (1, drafts + 1))
            and (entry != "decode" or rows <= reqs * s.rows_a_req)
            and s.bucket.tokens >= rows
            and s.bucket.reqs >= reqs
            and s.bucket.pages * 64 >= longest
            for s in specs
        )

    assert fits("decode", verified)
    assert fits("draft", verified)
    assert fits("draft", reqs)
    extended = data.draw(st.integers(reqs, min(limits.max_tokens, reqs * longest)))
    assert fits("draft", extended)


def test_without_drafts_no_program_verifies_or_drafts() -> None:
    specs = program_specs(FACTS, limits_of(FACTS, Sizes()))
    assert {s.segment for s in specs} == {"extend", "decode", *HEADS}
    assert {s.rows_a_req for s in specs} == {1}


@given(ALL_SIZES, st.integers(0, 3))
def test_heads_grow_up_to_what_a_decode_step_asks_for(sizes: Sizes, drafts: int) -> None:
    limits = limits_of(FACTS, replace(sizes, max_drafts=drafts))
    specs = program_specs(FACTS, limits)
    verified = limits.max_reqs * min(drafts + 1, limits.max_context)
    for head, most in (("pick", verified), ("sample", verified), ("score", limits.max_score_rows)):
        buckets = [s.bucket for s in specs if s.segment == head]
        assert buckets == [Bucket(rows=b.rows) for b in sorted(buckets)]
        assert (buckets[0].rows, buckets[-1].rows) == (1, most)


@pytest.mark.parametrize(
    ("drafts", "sizes"),
    [(0, [1, 8, 64]), (1, [1, 8, 16, 64]), (2, [1, 8, 16, 24, 64]), (3, [1, 8, 16, 32, 64])],
)
def test_scores_have_sizes_for_the_rows_that_verify_drafts(drafts: int, sizes: list[int]) -> None:
    specs = program_specs(FACTS, limits_of(FACTS, Sizes(max_drafts=drafts)))
    assert [s.bucket.rows for s in specs if s.segment == "score"] == sizes


@given(ALL_SIZES, st.integers(1, 3), st.data())
def test_a_verifying_step_with_scores_runs_at_most_twice_its_rows(
    sizes: Sizes, drafts: int, data: st.DataObject
) -> None:
    limits = limits_of(FACTS, replace(sizes, max_drafts=drafts))
    reqs = data.draw(st.integers(1, limits.max_reqs))
    rows = reqs * min(drafts + 1, limits.max_context)
    heads = [s.bucket.rows for s in program_specs(FACTS, limits) if s.segment == "score"]
    if 8 < rows <= heads[-1]:
        assert min(n for n in heads if n >= rows) < 2 * rows


@given(ALL_SIZES, st.integers(0, 3), st.integers(1, 9))
def test_no_head_takes_more_rows_than_a_body_gives(sizes: Sizes, drafts: int, context: int) -> None:
    sizes = replace(sizes, max_drafts=drafts, max_context=context)
    specs = program_specs(FACTS, limits_of(FACTS, sizes))
    given_rows = max(s.bucket.tokens for s in specs)
    assert max(s.bucket.rows for s in specs) <= given_rows


def test_what_samples_multiplies_no_body() -> None:
    sizes = Sizes(max_context=163_840, max_tokens=8192, max_reqs=128)
    model = msgspec.structs.replace(FACTS, index_topk=2048, max_context=163_840)
    specs = program_specs(model, limits_of(model, sizes))
    bodies = [s for s in specs if s.segment not in HEADS]
    assert len({(s.segment, s.bucket, s.guard.name) for s in bodies}) == len(bodies)
    assert all(s.bucket.rows == 0 for s in bodies)


@given(ALL_SIZES)
def test_programs_are_distinct_and_have_at_most_four_guards(sizes: Sizes) -> None:
    specs = program_specs(FACTS, limits_of(FACTS, sizes))
    assert len({(s.segment, s.bucket, s.guard.name) for s in specs}) == len(specs)
    assert len({str(s.guard) for s in specs if s.segment not in HEADS}) <= 4


def picked(specs: Sequence[ProgramSpec], like: ProgramSpec, facts: StepFacts) -> ProgramSpec:
    """What `Runtime.pick` takes for a step of `like`'s entry."""
    return next(
        s
        for s in specs
        if s.segment == like.segment
        and s.bucket.tokens >= facts.total_q
        and s.bucket.reqs >= facts.num_reqs
        and s.bucket.pages * 64 >= facts.max_kv
        and (s.segment != "decode" or s.rows_a_req >= facts.max_q)
        and s.guard.holds(facts)
    )


@given(ALL_SIZES, st.integers(0, 3), st.sampled_from([64, 200, 256, 512, 1024]))
def test_every_program_is_picked_by_the_largest_step_it_takes(
    sizes: Sizes, drafts: int, index_topk: int
) -> None:
    model = msgspec.structs.replace(FACTS, index_topk=index_topk)
    limits = limits_of(model, replace(sizes, max_drafts=drafts))
    specs = program_specs(model, limits)
    for spec in (s for s in specs if s.segment not in HEADS):
        b = spec.bucket
        bound = min((t.bound for t in spec.guard.terms), default=limits.max_context)
        longest = min(b.pages * 64, bound, limits.max_context)
        rows = spec.rows_a_req if spec.segment == "decode" else b.tokens
        total = min(b.tokens, b.reqs * longest)  # a request has no more rows than positions
        facts = StepFacts(b.reqs, min(rows, longest), total, longest, longest)
        assert picked(specs, spec, facts) == spec


def test_long_contexts_make_no_program_of_all_positions_that_a_smaller_bucket_replaces() -> None:
    model = msgspec.structs.replace(FACTS, index_topk=2048, max_context=163_840)
    sizes = Sizes(max_context=163_840, max_tokens=8192, max_reqs=128)
    specs = program_specs(model, limits_of(model, sizes))
    bodies = [s for s in specs if s.segment not in HEADS]
    assert len(bodies) == 90  # with one of all positions in every rung: 210
    assert {s.bucket.pages for s in specs if s.guard.selects_all} == {8, 32}


def test_a_bucket_within_index_topk_needs_no_indexer() -> None:
    specs = program_specs(FACTS, limits_of(FACTS, Sizes(max_context=256)))
    guards = [s.guard for s in specs if s.segment not in HEADS]
    assert {(g.name, g.terms, g.selects_all) for g in guards} == {("all", (), True)}


def drawn_facts(limits: Limits, data: st.DataObject) -> StepFacts:
    """Of any extend step."""
    reqs = data.draw(st.integers(1, limits.max_reqs))
    longest = data.draw(st.integers(1, limits.max_context))
    rows = data.draw(st.integers(reqs, max(reqs, min(limits.max_tokens, reqs * longest))))
    total = data.draw(st.integers(max(rows, longest), max(rows, reqs * longest)))
    return StepFacts(reqs, min(rows, longest), rows, longest, total)


@given(ALL_SIZES, st.sampled_from([64, 200, 256, 1024]), st.integers(1, 8), st.data())
def test_short_contexts_have_programs_of_their_own_where_a_lowering_asks(
    sizes: Sizes, index_topk: int, contexts_a_row: int, data: st.DataObject
) -> None:
    """Each is picked by some step, and no step takes another bucket for them."""
    model = msgspec.structs.replace(FACTS, index_topk=index_topk)
    limits = limits_of(model, sizes)
    plain, specs = program_specs(model, limits), program_specs(model, limits, contexts_a_row)
    assert [s for s in specs if not bounds_contexts(s.guard)] == list(plain)
    for spec in (s for s in specs if bounds_contexts(s.guard)):
        b = spec.bucket
        total = spec.guard.together(limits.max_context * b.reqs)
        assert (spec.segment, total) == ("extend", contexts_a_row * b.tokens)
        longest = spec.guard.longest(min(b.pages * 64, limits.max_context, total))
        assert total < b.reqs * min(b.pages * 64, limits.max_context, index_topk)
        rows = min(b.tokens, b.reqs * longest)
        facts = StepFacts(b.reqs, min(rows, longest), rows, longest, max(longest, rows))
        assert picked(specs, spec, facts) == spec
    facts = drawn_facts(limits, data)
    like = next(s for s in specs if s.segment == "extend")
    own, without = picked(specs, like, facts), picked(plain, like, facts)
    assert own.bucket == without.bucket
    assert own.guard.selects_all == without.guard.selects_all


@given(
    ALL_SIZES, st.sampled_from([64, 200, 256, 1024]), st.integers(1, 40), st.integers(0, 4096),
    st.data(),
)  # fmt: skip
def test_longer_contexts_have_programs_of_their_own_where_a_lowering_asks(
    sizes: Sizes, index_topk: int, a_row: int, bound: int, data: st.DataObject
) -> None:
    """Each is picked by some step, and no step takes another bucket for them."""
    model = msgspec.structs.replace(FACTS, index_topk=index_topk)
    limits = limits_of(model, sizes)

    def most(rows: int) -> int:
        return min(a_row * rows, bound)

    plain, specs = program_specs(model, limits), program_specs(model, limits, 0, most)
    assert [s for s in specs if not bounds_contexts(s.guard)] == list(plain)
    for spec in (s for s in specs if bounds_contexts(s.guard)):
        b = spec.bucket
        total = spec.guard.together(limits.max_context * b.reqs)
        assert (spec.segment, total) == ("extend", most(b.tokens))
        assert not spec.guard.selects_all
        longest = min(b.pages * 64, limits.max_context, total)
        assert index_topk < longest, "else all are selected"
        assert total < b.reqs * min(b.pages * 64, limits.max_context), "else the bucket implies it"
        rows = min(b.tokens, total)
        facts = StepFacts(b.reqs, min(rows, longest), rows, longest, max(longest, rows))
        assert picked(specs, spec, facts) == spec
    facts = drawn_facts(limits, data)
    like = next(s for s in specs if s.segment == "extend")
    own, without = picked(specs, like, facts), picked(plain, like, facts)
    assert own.bucket == without.bucket
    assert own.guard.selects_all == without.guard.selects_all


def test_the_most_positions_of_all_requests_follow_from_the_guard() -> None:
    guard = Guard("g", (Linear({"total_kv": 1}, 90), Linear({"total_kv": 2, "total_q": 1}, 7)))
    assert guard.together(100) == 90
    assert guard.together(80) == 80
    assert Guard("always").together(100) == 100


def test_a_guard_is_a_conjunction_of_linear_inequalities() -> None:
    few = Linear({"total_q": -512, "total_kv": 1}, 0)
    guard = Guard("g", (Linear({"max_kv": 1}, 32), few))
    assert str(guard) == "max_kv <= 32 and total_kv + -512*total_q <= 0"
    assert guard.holds(StepFacts(1, 1, 1, 32, 512))
    assert not guard.holds(StepFacts(1, 1, 1, 33, 512))
    assert guard.holds(StepFacts(1, 1, 2, 32, 1024))
    assert not guard.holds(StepFacts(1, 1, 1, 32, 513))
    assert Guard("always").holds(StepFacts(9, 9, 9, 9, 9))


@pytest.mark.parametrize("fact", ["max_kv", "total_kv"])
def test_a_negative_coefficient_of_a_length_does_not_compile(fact: Fact) -> None:
    guard = Guard("g", (Linear({"max_kv": 1}, 32), Linear({"total_q": 512, fact: -1}, 0)))
    with pytest.raises(SizeError, match=f"negative coefficient of {fact}.*at least 0"):
        ProgramSpec("decode", Bucket(1, 1, 1, 1), guard)
    ProgramSpec("decode", Bucket(1, 1, 1, 1), Guard("g", (Linear({"total_q": -1, fact: 0}, 0),)))


def test_the_guards_name_decides_no_module() -> None:
    bucket = Bucket(4, 4, 8, 4)
    for selects_all in (False, True):
        names = ("all", "chosen", "anything")
        specs = [ProgramSpec("decode", bucket, Guard(n, selects_all=selects_all)) for n in names]
        assert {Variant.of(s).every for s in specs} == {selects_all}


def test_facts_of_a_plan() -> None:
    two = msgspec.structs.replace(plan([1, 2, 3], 5), seqs=(1, 2), counts=(1, 2), ends=(6, 40))
    assert two.facts == StepFacts(num_reqs=2, max_q=2, total_q=3, max_kv=40, total_kv=46)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (Sizes(max_context=5000), "--max-context 5000 is beyond the model's 4096 positions"),
        (Sizes(max_context=0), "--max-context must be at least 1"),
        (Sizes(max_context=-5), "--max-context must be at least 1"),
        (Sizes(max_tokens=0), "--max-tokens must be at least 1"),
        (Sizes(max_reqs=9, max_tokens=8), "--max-reqs 9 exceeds --max-tokens 8"),
        (Sizes(max_drafts=4), r"--drafts 4 is not one of 0\.\.3"),
    ],
)
def test_impossible_sizes_are_refused_by_name(sizes: Sizes, message: str) -> None:
    with pytest.raises(SizeError, match=message):
        limits_of(FACTS, sizes)
