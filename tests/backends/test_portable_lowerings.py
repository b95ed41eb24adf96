"""Every portable and CPU lowering, at every place of a captured model, against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import pytest
from model_formats import FORMATS
from native_kernels import build_native, native_driver

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import find_sites
from lostwax.backends.plan.form_steps import form_refusal
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.want import want_of
from lostwax.backends.plan.weight_type import weight_types
from lostwax.backends.proof.check import certify_lowering
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import edge_buckets, step_case
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import Bucket, Guard, Linear, Segment
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

PAGE = 16
THOROUGH = ("f32", "bf16")
"""With all buckets and two seeds; the others bring few lowerings that these do not have."""
Kind = tuple[Segment, bool]
"""Segment, and whether every position is selected."""
VARIANTS: list[Kind] = [
    ("extend", False),
    ("extend", True),
    ("decode", False),
    ("decode", True),
    ("pick", False),
    ("score", False),
]
DRAFT: Kind = ("draft", False)
READ_ON_HOST = {
    "portable_pick_greedy_or_warm",
    "portable_mask_where_wanted",
    "portable_nucleus_where_wanted",
}
ACROSS_RANKS = {"portable_all_gather", "portable_all_reduce", "portable_all_reduce_in_order"}
"""What one process has no place for."""


@cache
def _captured(name: str):
    config, chosen = FORMATS[name]
    captured = capture(parse_config(config), PAGE)
    formats = AssignFormatsPass(**chosen)
    return run(captured.module, (formats,), None), captured.facts


@cache
def _specialised(name: str, segment: Segment, every: bool):
    module, facts = _captured(name)
    passes = (SpecialisePass(segment=segment, all=every), CleanUpPass())
    return run(module.clone(), passes, None), facts


def _candidates(name: str, variant: Kind, bucket: Bucket) -> Iterator[Candidate]:
    module, facts = _specialised(name, *variant)
    segment, every = variant
    bound = Guard("all", (Linear({"max_kv": 1}, facts.index_topk),)) if every else Guard("always")
    context = ProgramContext(module, CPU, segment, bucket, bound)
    for block in context.blocks.values():
        types = weight_types(block.function)
        for lowering, match in find_sites(block, lowerings(CPU)):
            candidate = Candidate(context, block, match, lowering)
            wants = [want_of(candidate, operand) for operand in candidate.weight_operands]
            storable = all(w is None or form_refusal(types, w) is None for w in wants)
            if storable and lowering.when.refusal(candidate) is None:
                yield candidate


def _shape_key(candidate: Candidate) -> tuple[object, ...]:
    """Places with the same types and properties need one check."""
    ops = candidate.region.ops.values()
    types = tuple(str(v.type) for op in ops for v in (*op.operands, *op.results))
    properties = tuple(sorted((k, str(v)) for op in ops for k, v in op.properties.items()))
    return (candidate.name, types, properties)


@pytest.mark.parametrize(
    ("name", "variant"),
    [*product(FORMATS, VARIANTS), ("f32", DRAFT)],
    ids=lambda v: v if isinstance(v, str) else f"{v[0]}{'-all' * v[1]}",
)
def test_every_lowering_gives_what_its_region_means(name: str, variant: Kind) -> None:
    facts = _captured(name)[1]
    limit = facts.index_topk if variant[1] else None
    failed: list[str] = []
    buckets = list(edge_buckets(variant[0]))
    for bucket in buckets if name in THOROUGH else buckets[::2]:
        cases = [
            step_case(
                bucket,
                variant[0],
                seed,
                page_tokens=PAGE,
                vocab_size=facts.vocab_size,
                max_kv=limit,
            )
            for seed in ((0, 1) if name in THOROUGH else (1,))
        ]
        seen: set[tuple[object, ...]] = set()
        for candidate in _candidates(name, variant, bucket):
            if (key := _shape_key(candidate)) in seen:
                continue
            seen.add(key)
            try:
                certify_lowering(
                    run_alone(candidate, native_driver, build_native),
                    candidate.region,
                    cases,
                    lowering=candidate.name,
                    state="executed",
                )
            except (ValueError, AssertionError, RuntimeError) as error:
                failed.append(f"{candidate.name} {bucket}: {error}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v[0]}{'-all' * v[1]}")
@pytest.mark.parametrize("name", FORMATS)
def test_every_op_of_the_model_has_a_lowering_that_may_be_captured(
    name: str, variant: Kind
) -> None:
    """What reads on the host may not; without it every op must still be covered."""
    bucket = next(iter(edge_buckets(variant[0])))
    covered: set[object] = set()
    everything: set[object] = set()
    for candidate in _candidates(name, variant, bucket):
        if candidate.name.startswith("portable_") and candidate.name not in READ_ON_HOST:
            covered |= {id(op) for op in candidate.region.members}
        everything |= {id(op) for op in candidate.region.members}
    assert covered == everything


def test_every_lowering_has_a_place_in_some_model() -> None:
    """So that the test above says something about each of them."""
    bucket = Bucket(16, 16, 3, 16)
    placed = {
        candidate.name
        for name, variant in [*product(FORMATS, VARIANTS), ("f32", DRAFT)]
        for candidate in _candidates(name, variant, bucket)
    }
    assert placed == {lowering.name for lowering in lowerings(CPU)} - ACROSS_RANKS
