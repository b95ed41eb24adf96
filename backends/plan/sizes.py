"""The programs an artifact holds: segments, buckets and guards. Compiles none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from lostwax.ir.contract.artifact import Limits
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import HEADS, Bucket, Entry, Guard, Head, Linear, Segment
from lostwax.ir.contract.step import MAX_DRAFTS

ALL, CHOSEN = "all", "chosen"
"""What is attended to: every visible position, or those that the indexer chooses."""

SHORT = "short"
"""As `all`, where the contexts of a step have together no more than a few times its rows."""

MIDDLE = "middle"
"""As `chosen`, where the contexts of a step have together at most so many positions as a lowering
says for its rows."""

ContextsOfRows = Callable[[int], int]
"""Most positions of all requests by the rows of a bucket; 0 asks for no program."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the steps may be. Contexts count tokens; None takes the model's own bound.

    `max_drafts` tokens are drafted at most before the model verifies them; 0 leaves drafting out.
    """

    max_context: int | None = None
    max_tokens: int = 512
    max_reqs: int = 8
    max_score_rows: int = 64
    max_drafts: int = 0


DEFAULT_CONTEXT = 8192
"""Bound of a request where neither the user nor a smaller model gives one: pages are tables too."""


class SizeError(ValueError):
    """The user asks for steps that cannot be; the message names the option."""


def limits_of(facts: ModelFacts, sizes: Sizes) -> Limits:
    """Bounds of an artifact's steps; SizeError names the size that cannot be."""
    context = sizes.max_context
    if context is None:
        context = min(facts.max_context, DEFAULT_CONTEXT)
    if context < 1:
        raise SizeError("--max-context must be at least 1")
    if context > facts.max_context:
        raise SizeError(
            f"--max-context {context} is beyond the model's {facts.max_context} positions"
        )
    for name in ("max_tokens", "max_reqs", "max_score_rows"):
        if getattr(sizes, name) < 1:
            raise SizeError(f"--{name.replace('_', '-')} must be at least 1")
    if not 0 <= sizes.max_drafts <= MAX_DRAFTS:
        raise SizeError(f"--drafts {sizes.max_drafts} is not one of 0..{MAX_DRAFTS}")
    if sizes.max_reqs > sizes.max_tokens:
        raise SizeError(f"--max-reqs {sizes.max_reqs} exceeds --max-tokens {sizes.max_tokens}")
    return Limits(
        max_tokens=sizes.max_tokens,
        max_reqs=sizes.max_reqs,
        max_context=context,
        max_score_rows=min(sizes.max_score_rows, sizes.max_tokens, sizes.max_reqs * context),
        page_tokens=facts.page_tokens,
        vocab_size=facts.vocab_size,
        max_drafts=sizes.max_drafts,
    )


def _ladder(first: int, last: int, factor: int) -> list[int]:
    """first, first*factor, … and last itself, but for a later step from which last is near."""
    steps: list[int] = []
    size = first
    while size < last and (not steps or size * factor <= 2 * last):
        steps.append(size)
        size *= factor
    return [*steps, last]


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """One program to compile."""

    segment: Segment
    bucket: Bucket
    guard: Guard

    def __post_init__(self) -> None:
        """Raise SizeError for a guard that the host cannot decide."""
        if why := self.guard.refusal():
            raise SizeError(f"{self.segment} {self.bucket}: {why}")

    @property
    def rows_a_req(self) -> int:
        """What `specialise` takes as `rows`: above 1 in decode programs that verify drafts."""
        return self.bucket.rows_a_req if self.segment == "decode" else 1


def bounds_contexts(guard: Guard) -> bool:
    """Whether the guard bounds the contexts of all requests together."""
    return any("total_kv" in term.coefficients for term in guard.terms)


def _guards(
    facts: ModelFacts, limits: Limits, bucket: Bucket, contexts_a_row: int, selecting: int
) -> list[Guard]:
    """All positions where no request is longer than index_topk, else the chosen; first wins.

    With `contexts_a_row` the first program is for steps whose contexts have together at most so
    many positions for each of the bucket's rows, unless the bucket implies that. With `selecting`
    the last but one is for those that have together at most so many, unless the bucket implies
    that, or that all of so many are selected.
    """
    longest = min(bucket.pages * limits.page_tokens, limits.max_context)
    # a bucket of short requests itself implies the bound
    bounds = () if longest <= facts.index_topk else (Linear({"max_kv": 1}, facts.index_topk),)
    guards = [Guard(ALL, bounds, selects_all=True)]
    together = contexts_a_row * bucket.tokens
    if 0 < together < bucket.reqs * min(longest, facts.index_topk):
        total = Linear({"total_kv": 1}, together)
        guards.insert(0, Guard(SHORT, (*bounds, total), selects_all=True))
    if not bounds:
        return guards
    if facts.index_topk < selecting < bucket.reqs * longest:
        guards.append(Guard(MIDDLE, (Linear({"total_kv": 1}, selecting),)))
    return [*guards, Guard(CHOSEN)]


def _demand(spec: ProgramSpec, limits: Limits) -> tuple[int, ...]:
    """The most that a step may ask of the body: rows, rows a request, requests, pages.

    A bound on max_kv or total_kv bounds the pages, too, however many the bucket has room for; and
    requests have no more rows in a step than they have positions.
    """
    b = spec.bucket
    longest = spec.guard.longest(min(b.pages * limits.page_tokens, limits.max_context))
    longest = spec.guard.together(longest)
    rows = min(b.tokens, spec.guard.together(b.reqs * longest))
    pages = -(-longest // limits.page_tokens)
    return (rows, min(spec.rows_a_req, longest), b.reqs, pages)


def _takes_all_of(earlier: ProgramSpec, later: ProgramSpec, limits: Limits) -> bool:
    """Whether every step that `later` admits is already taken by `earlier`."""
    b = earlier.bucket
    if earlier.segment != later.segment:
        return False
    has = (b.tokens, earlier.rows_a_req, b.reqs, b.pages)
    wanted = _demand(later, limits)
    implied = all(term in later.guard.terms for term in earlier.guard.terms)
    return implied and all(h >= w for h, w in zip(has, wanted, strict=True))


def _reachable(specs: Iterable[ProgramSpec], limits: Limits) -> tuple[ProgramSpec, ...]:
    """The specs that some step picks: the first that admits a step wins, so one that takes all
    steps of a later one makes that a program which is compiled, captured and never run."""
    kept: list[ProgramSpec] = []
    for spec in specs:
        if not any(_takes_all_of(earlier, spec, limits) for earlier in kept):
            kept.append(spec)
    return tuple(kept)


def program_specs(
    facts: ModelFacts,
    limits: Limits,
    contexts_a_row: int = 0,
    selecting: ContextsOfRows = lambda rows: 0,
) -> tuple[ProgramSpec, ...]:
    """Every program in order of preference: smaller buckets first, then the narrower guard.

    Each is picked by some step within the limits. `contexts_a_row` asks for extend programs of
    steps whose contexts have together at most so many positions for each of the bucket's rows,
    `selecting` for those that have at most what it gives for its rows, not all of them selected.
    """
    return (*_bodies(facts, limits, contexts_a_row, selecting), *_heads(limits))


def _bodies(
    facts: ModelFacts, limits: Limits, contexts_a_row: int, selecting: ContextsOfRows
) -> tuple[ProgramSpec, ...]:
    max_pages = -(-limits.max_context // limits.page_tokens)
    pages = _ladder(min(8, max_pages), max_pages, 4)
    reqs = limits.max_reqs
    decode, verified = _ladder(1, reqs, 2), limits.max_drafts + 1
    buckets: list[tuple[Entry, Bucket]] = []
    for p in pages:
        for b, k in product(decode, sorted({1, verified})):
            buckets.append(("decode", Bucket(b * k, b, p)))
        for t in _ladder(min(16, limits.max_tokens), limits.max_tokens, 2):
            buckets.append(("extend", Bucket(t, min(t, reqs), p)))
        if limits.max_drafts:  # the first draft takes all rows of its step, the next one a request
            drafts = {(b * k, b) for b, k in product(decode, (1, verified))}
            wide = _ladder(min(16, limits.max_tokens), limits.max_tokens, 4)
            drafts |= {(t, min(t, reqs)) for t in wide}
            buckets.extend(("draft", Bucket(t, b, p)) for t, b in drafts)
    specs = (
        ProgramSpec(entry, bucket, guard)
        for entry, bucket in sorted(buckets)
        for guard in _guards(
            facts,
            limits,
            bucket,
            contexts_a_row if entry == "extend" else 0,
            selecting(bucket.tokens) if entry == "extend" else 0,
        )
    )
    return _reachable(specs, limits)


def _heads(limits: Limits) -> Iterator[ProgramSpec]:
    """Heads are replayed where there are more rows than their largest bucket takes.

    Those that few steps ask for have few sizes. `score`, which all rows of a step go through where
    one wants scores, has those of `pick` above 8 rows, too: steps that verify drafts have so many.
    None takes more rows than a body gives: a request has no more of them than positions.
    """
    most = limits.max_reqs * min(limits.max_drafts + 1, limits.max_context)
    scored = limits.max_score_rows
    picked = _ladder(1, most, 2)
    rows: dict[Head, list[int]] = {
        "pick": picked,
        "sample": _ladder(1, most, 4),
        "score": sorted({*_ladder(1, scored, 8), *(n for n in picked if 8 < n < scored)}),
    }
    for head in HEADS:
        for count in rows[head]:
            yield ProgramSpec(head, Bucket(rows=count), Guard("always"))
