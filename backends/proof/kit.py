"""Certifies every lowering of a target on every site of a captured model where it may stand.

Knows no particular target: a driver and a kernel compiler are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from xdsl.dialects import builtin

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.form_steps import form_refusal
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.want import want_of
from lostwax.backends.plan.weight_type import weight_types
from lostwax.backends.proof.check import certify_lowering
from lostwax.backends.proof.inputs import reads_positions_alone
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import StepCase, edge_buckets, far_case, step_case
from lostwax.backends.records.record_key import boundary_types
from lostwax.backends.runtime.driver import Driver
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import Bucket, Guard, Linear, Segment
from lostwax.ir.contract.record import Certificate, State
from lostwax.ir.contract.target import Target
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass
from lostwax.ir.region import find_matches


@dataclass(frozen=True, slots=True)
class Variant:
    """One specialisation of the model: segment, and whether every position is selected."""

    segment: Segment
    every: bool


VARIANTS = (
    Variant("decode", every=False),
    Variant("decode", every=True),
    Variant("extend", every=False),
    Variant("extend", every=True),
    Variant("score", every=False),
)
"""Between them they have every op."""


@dataclass(frozen=True)
class Environment:
    """How lowerings run: the target, its driver and compiler, and what that makes of evidence."""

    target: Target
    driver: Callable[[], Driver]
    compile_kernel: Callable[[KernelSource], CompiledKernel]
    state: State
    tool_versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A lowering at one site: certified, or refused with the predicate's sentence."""

    candidate: Candidate
    knobs: Mapping[str, int]
    certificate: Certificate | None
    refusal: str | None


def specialised(module: builtin.ModuleOp, variant: Variant) -> builtin.ModuleOp:
    """The module of one variant; `module` already has its formats."""
    chosen = SpecialisePass(segment=variant.segment, all=variant.every)
    return run(module.clone(), (chosen, CleanUpPass()))


def contexts(
    module: builtin.ModuleOp,
    facts: ModelFacts,
    target: Target,
    variant: Variant,
    buckets: Sequence[Bucket] = (),
) -> Iterator[ProgramContext]:
    """Programs of one variant at edge sizes."""
    made = specialised(module, variant)
    bound = Linear({"max_kv": 1}, facts.index_topk)
    guard = Guard("all", (bound,), selects_all=True) if variant.every else Guard("chosen")
    for bucket in buckets or tuple(edge_buckets(variant.segment)):
        yield ProgramContext(made, target, variant.segment, bucket, guard)


def candidates(context: ProgramContext, lowerings: Sequence[Lowering]) -> Iterator[Candidate]:
    """Every site of every lowering whose weights can be stored as it wants, equal sites once."""
    seen: set[tuple[str, str, str]] = set()
    for block in context.blocks.values():
        types = weight_types(block.function)
        for lowering in lowerings:
            for match in find_matches(lowering.pattern, block.function.body.block):
                candidate = Candidate(context, block, match, lowering)
                wants = [want_of(candidate, o) for o in candidate.weight_operands]
                storable = all(w is None or form_refusal(types, w) is None for w in wants)
                types_text = str(boundary_types(candidate))
                key = (candidate.name, match.digest(), types_text)
                if storable and key not in seen:
                    seen.add(key)
                    yield candidate


def cases(context: ProgramContext, facts: ModelFacts, seeds: Sequence[int]) -> list[StepCase]:
    """Seeded steps of the context's bucket under its guard."""
    return [
        step_case(
            context.bucket,
            context.segment,
            seed,
            page_tokens=facts.page_tokens,
            vocab_size=facts.vocab_size,
            max_kv=facts.index_topk if context.guard.selects_all else None,
            states=context.states,
        )
        for seed in seeds
    ]


def certify_candidate(
    candidate: Candidate,
    facts: ModelFacts,
    environment: Environment,
    seeds: Sequence[int] = (0, 1),
    knobs: Mapping[str, int] | None = None,
) -> Outcome:
    """Run one candidate on its cases. Raises NotConformant if it disagrees with its reference."""
    assert candidate.lowering is not None  # views are not lowerings
    chosen = {**candidate.lowering.default_knobs(), **(knobs or {})}
    refusal = candidate.lowering.when.refusal(candidate)
    if refusal is not None:
        return Outcome(candidate, chosen, None, refusal)
    steps = cases(candidate.context, facts, seeds)
    if reads_positions_alone(candidate.region):
        steps.append(far_case(steps[-1], facts.max_context))
    certificate = certify_lowering(
        run_alone(candidate, environment.driver, environment.compile_kernel, chosen),
        candidate.region,
        steps,
        lowering=candidate.name,
        state=environment.state,
        waiver=candidate.waiver,
        tool_versions=environment.tool_versions,
    )
    return Outcome(candidate, chosen, certificate, None)


def certify_all(
    module: builtin.ModuleOp,
    facts: ModelFacts,
    lowerings: Sequence[Lowering],
    environment: Environment,
    *,
    variants: Sequence[Variant] = VARIANTS,
    seeds: Sequence[int] = (0, 1),
) -> Iterator[Outcome]:
    """Every lowering at every site of the model's variants, at edge sizes."""
    for variant in variants:
        for context in contexts(module, facts, environment.target, variant):
            for candidate in candidates(context, lowerings):
                yield certify_candidate(candidate, facts, environment, seeds)
