"""Which programs a step runs, against every small step and the rule said without `StepPrograms`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, product

import msgspec
import pytest

from lostwax.backends.plan.sizes import program_specs
from lostwax.backends.runtime.step_programs import RuntimeLimits, StepError, StepPrograms
from lostwax.ir.contract.artifact import Limits, ProgramRef
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import HEADS, Bucket, Entry, Guard, Head, Linear, Segment
from lostwax.ir.contract.step_plan import StepPlan

PAGE = 2
LIMITS = RuntimeLimits(
    max_tokens=6, max_reqs=3, max_context=6, max_score_rows=2, page_tokens=PAGE, vocab_size=9,
    max_drafts=2, num_pages=9,
)  # fmt: skip
FACTS = ("num_reqs", "max_q", "total_q", "max_kv", "total_kv")


def steps(entry: Entry, most_rows: int, longest: int) -> Iterator[StepPlan]:
    """Every step of up to three sequences, in any order of which the first stands for all."""
    assert entry != "draft"
    each = [(q, end) for q in range(1, most_rows + 1) for end in range(q, longest + 1)]
    for number in (1, 2, 3):
        for chosen in combinations_with_replacement(each, number):
            counts, ends = zip(*chosen, strict=True)
            rows = sum(counts)
            logits = ((0, rows),) if entry == "decode" else ((rows - 1, 1),)
            yield StepPlan(
                entry=entry, seqs=tuple(range(1, number + 1)), counts=counts, ends=ends,
                tokens=() if entry == "decode" else (0,) * rows, logits=logits,
            )  # fmt: skip


def asking(plan: StepPlan, head: Head, drafts: int, *, picks: bool = True) -> StepPlan:
    """The step with a head and drafts; an extend step may pick nothing."""
    is_silent = plan.entry == "extend" and not picks
    logits = () if is_silent else plan.logits
    draft_head: Head = "pick" if head == "score" else head
    return msgspec.structs.replace(
        plan, head=head, drafts=drafts, draft_head=draft_head, logits=logits
    )


def facts_of(counts: Sequence[int], ends: Sequence[int]) -> dict[str, int]:
    return {
        "num_reqs": len(counts), "max_q": max(counts), "total_q": sum(counts),
        "max_kv": max(ends), "total_kv": sum(ends),
    }  # fmt: skip


def admits(ref: ProgramRef, entry: Entry, facts: dict[str, int]) -> bool:
    """Whether a body takes a step, said once more: every bound holds, and every inequality."""
    bounds = [
        facts["total_q"] <= ref.bucket.tokens,
        facts["num_reqs"] <= ref.bucket.reqs,
        facts["max_kv"] <= ref.bucket.pages * PAGE,
        entry != "decode" or facts["max_q"] * ref.bucket.reqs <= ref.bucket.tokens,
    ]
    for term in ref.guard.terms:
        total = sum(n * facts[fact] for fact, n in term.coefficients.items())
        bounds.append(total <= term.bound)
    return ref.segment == entry and all(bounds)


def expected(refs: Sequence[ProgramRef], plan: StepPlan, least: int = 0) -> list[list[str]] | None:
    """Files of each stage, None where no body takes one of them."""

    def stage(entry: Entry, facts: dict[str, int], head: Head, rows: int) -> list[str] | None:
        bodies = [ref.file for ref in refs if admits(ref, entry, facts)]
        heads = [ref for ref in refs if ref.segment == head]
        wide = [ref.file for ref in heads if ref.bucket.rows >= rows] or [heads[-1].file]
        return [bodies[0], *wide[: rows > 0]] if bodies else None

    facts = facts_of(plan.counts, plan.ends)
    found = [stage(plan.entry, facts, plan.head, max(plan.num_logits, least))]
    picking = len(plan.seqs) if plan.entry == "decode" else plan.num_logits
    for number in range(plan.drafts):
        if number and not picking:
            break
        if number:
            end = min(max(plan.ends) + number, LIMITS.max_context)
            facts = facts_of([1] * picking, [end] * picking)
        found.append(stage("draft", facts, plan.draft_head, picking))
    return None if None in found else [files for files in found if files]


def picked(programs: StepPrograms, plan: StepPlan) -> list[list[str]] | None:
    try:
        return [[ref.file for ref in stage] for stage in programs.pick(plan)]
    except StepError:
        return None


def random_table(rng: random.Random) -> list[ProgramRef]:
    """Programs in any order, with any guards; heads are there."""

    def guard() -> Guard:
        facts = rng.sample(FACTS, rng.randint(0, 2))
        terms = [Linear({fact: rng.choice((1, 1, 2, -1))}, rng.randint(2, 12)) for fact in facts]
        return Guard("some", tuple(terms))

    found: list[ProgramRef] = []
    entries: tuple[Entry, ...] = ("extend", "decode", "draft")
    for entry in entries:
        for _ in range(rng.randint(2, 6)):
            reqs = rng.randint(1, 3)
            tokens = reqs * rng.randint(1, 3) if entry == "decode" else rng.randint(2, 12)
            bucket = Bucket(tokens, reqs, rng.randint(2, 3))
            found.append(_ref(len(found), entry, bucket, guard()))
    for head in HEADS:
        for rows in sorted(rng.sample(range(1, 8), rng.randint(1, 3))):
            found.append(_ref(len(found), head, Bucket(rows=rows), Guard("always")))
    return found


def _ref(number: int, segment: Segment, bucket: Bucket, guard: Guard) -> ProgramRef:
    return ProgramRef(
        file=f"{number}-{segment}", segment=segment, bucket=bucket, guard=guard, arena_bytes=0
    )  # fmt: skip


def test_the_first_program_that_admits_a_step_is_picked_whatever_the_table() -> None:
    rng, refused, taken = random.Random(0), 0, 0
    plans = [*steps("decode", 3, LIMITS.max_context), *steps("extend", 4, LIMITS.max_context)]
    for _ in range(60):
        refs = random_table(rng)
        least = rng.randint(0, 1)
        programs = StepPrograms(refs, LIMITS, least)
        for plan in rng.sample(plans, 120):
            drafts = rng.randint(0, LIMITS.max_drafts)
            asked = asking(plan, rng.choice(HEADS), drafts, picks=rng.random() < 0.8)
            want = expected(refs, asked, least)
            assert picked(programs, asked) == want, (refs, asked)
            refused, taken = refused + (want is None), taken + (want is not None)
    assert min(refused, taken) > 500


SMALL = ModelFacts(
    name="small", architecture="small", digest="0", vocab_size=9, num_layers=1, hidden_size=1,
    index_topk=3, max_context=6, page_tokens=PAGE, bos_token_id=0, eos_token_ids=(8,),
)  # fmt: skip


@pytest.mark.parametrize("max_drafts", range(3))
@pytest.mark.parametrize("max_reqs", [1, 2, 3])
def test_every_step_within_the_limits_has_a_program_and_no_smaller_one(
    max_reqs: int, max_drafts: int
) -> None:
    """Of a compiled table: no other body that admits the step is smaller in all that it takes."""
    limits = Limits(
        max_tokens=6, max_reqs=max_reqs, max_context=6, max_score_rows=2, page_tokens=PAGE,
        vocab_size=9, max_drafts=max_drafts,
    )  # fmt: skip
    specs = program_specs(SMALL, limits)
    refs = [_ref(n, s.segment, s.bucket, s.guard) for n, s in enumerate(specs)]
    by_file = {ref.file: ref for ref in refs}
    programs, used = StepPrograms(refs, LIMITS, 0), set[str]()
    rows: dict[Entry, int] = {"decode": max_drafts + 1, "extend": 6}
    for entry, most in rows.items():
        for plan in steps(entry, most, limits.max_context):
            if len(plan.seqs) > max_reqs or (entry == "extend" and plan.num_rows > 6):
                continue
            for drafts, head in product(range(max_drafts + 1), HEADS):
                asked = asking(plan, head, drafts)
                files = picked(programs, asked)
                assert files == expected(refs, asked)
                assert files is not None, asked
                used.update(file for stage in files for file in stage)
            body = by_file[picked(programs, plan)[0][0]]  # pyright: ignore[reportOptionalSubscript]
            facts = facts_of(plan.counts, plan.ends)
            for other in refs:
                if admits(other, entry, facts):
                    assert not _is_smaller(other.bucket, body.bucket), (plan, body, other)
    heads = {ref.file for ref in refs if ref.segment in HEADS}
    assert set(by_file) - used <= heads, "a body that no step picks"


def _is_smaller(one: Bucket, other: Bucket) -> bool:
    pairs = list(
        zip((one.tokens, one.reqs, one.pages), (other.tokens, other.reqs, other.pages), strict=True)
    )
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
