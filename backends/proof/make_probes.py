"""Makes golden probes: each distinct chosen lowering on one small step, beside the fp64 reference.

Runs no lowering. What is too large for the reference here is refused and stays unproven until
`lostwax certify` has run it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover, Priced
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.storage import Storage
from lostwax.backends.proof.check import region_dtypes
from lostwax.backends.proof.inputs import reads_positions_alone
from lostwax.backends.proof.probe_inputs import ProbeInputs, probe_inputs
from lostwax.backends.proof.probe_outputs import expected_outputs
from lostwax.backends.proof.run_alone import Alone
from lostwax.backends.proof.step_cases import StepCase, far_case, step_case
from lostwax.backends.proof.tolerance import tolerance_of
from lostwax.backends.records.record_key import boundary_types
from lostwax.ir.contract.canonical import canonical_json
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.probe import Probe
from lostwax.ir.contract.program import KernelLaunch, Launch
from lostwax.ir.reference.interpret import evaluate_ops

MAX_ELEMENTS = 1 << 24
"""Of weights and caches together that a probe's reference reads."""
MAX_FLOPS = 1 << 33
"""Operations of a probe: about a second of the host's fp64 while compiling."""
BEST_TOKENS = 4
"""A probe has so many rows where there is such a program: one row alone shows little."""


class _NotTheProgram(ValueError):
    """By itself the lowering asks for a kernel that the programs do not launch."""


@dataclass(frozen=True)
class _Chosen:
    """One choice of one program, with its launches by itself."""

    program: int
    candidate: Candidate
    knobs: Mapping[str, int]
    storage: Storage


def _rank(chosen: _Chosen) -> tuple[bool, int, int, int]:
    bucket = chosen.candidate.bucket
    return (bucket.tokens < BEST_TOKENS, bucket.tokens, bucket.pages, chosen.program)


def _is_probed(priced: Priced) -> bool:
    """Views cost nothing, and collectives mean nothing on one rank."""
    ops = priced.candidate.region.ops.values()
    return priced.candidate.lowering is not None and not any(
        o.name.startswith("dist.") for o in ops
    )


class ProbeMaker:
    """Finds the distinct choices of all programs, then makes a probe of each."""

    def __init__(self, facts: ModelFacts, kernels: Sequence[CompiledKernel]) -> None:
        self._facts = facts
        self._kernels = {k.source: k for k in kernels}
        self._found: dict[str, list[_Chosen]] = {}

    def add(
        self, program: int, covers: Mapping[str, Cover], storage: Mapping[str, Storage]
    ) -> dict[Candidate, str]:
        """The probe id of every choice of one program."""
        ids: dict[Candidate, str] = {}
        for block, cover in covers.items():
            for priced in filter(_is_probed, cover.chosen):
                chosen = _Chosen(program, priced.candidate, priced.price.knobs, storage[block])
                key = self._id(chosen)
                self._found.setdefault(key, []).append(chosen)
                ids[priced.candidate] = key
        return ids

    def _build(self, source: KernelSource) -> CompiledKernel:
        found = self._kernels.get(source.digest())
        if found is None:
            raise _NotTheProgram(f"by itself it takes another kernel {source.symbol}")
        return found

    def _launches(self, chosen: _Chosen) -> tuple[Alone, tuple[Launch, ...]]:
        candidate = chosen.candidate
        assert candidate.lowering is not None
        alone = Alone(candidate, chosen.knobs, self._build, chosen.storage)
        placed = replace(candidate, placement=alone)
        return alone, (*alone.prepare(), *candidate.lowering.emit(placed, chosen.knobs))

    def _id(self, chosen: _Chosen) -> str:
        """Digest of what may make a difference to the numbers."""
        candidate = chosen.candidate
        binaries: list[str] = []
        if self._kernels:
            try:
                launches = self._launches(chosen)[1]
                binaries = sorted({x.binary for x in launches if isinstance(x, KernelLaunch)})
            except _NotTheProgram:
                binaries = [candidate.context.name]
        key = (
            candidate.name,
            candidate.region.digest(),
            boundary_types(candidate),
            dict(chosen.knobs),
            binaries,
            _stored_as(chosen),
        )
        return hashlib.sha256(canonical_json(key)).hexdigest()

    def probes(self, programs: Sequence[str]) -> Iterator[Probe]:
        """A probe of each distinct choice, at the smallest sizes that show something."""
        for key, all_chosen in sorted(self._found.items()):
            chosen = min(all_chosen, key=_rank)
            bare = Probe(
                id=key,
                lowering=chosen.candidate.name,
                ops=tuple(op.name for op in chosen.candidate.region.ops.values()),
                program=programs[chosen.program],
            )
            try:
                yield self._probe(bare, chosen)
            except (ValueError, NotImplementedError) as error:
                yield _refused(bare, str(error))

    def _probe(self, bare: Probe, chosen: _Chosen) -> Probe:
        _require_small(chosen)
        alone, launches = self._launches(chosen)
        case = self._case(chosen.candidate.context)
        if reads_positions_alone(chosen.candidate.region):
            case = far_case(case, self._facts.max_context)
        inputs: ProbeInputs = probe_inputs(alone, launches, case, bare.id)
        evaluate_ops(list(chosen.candidate.region.ops.values()), inputs.values, case.env)
        tolerance = tolerance_of(region_dtypes(chosen.candidate.region))
        return Probe(
            id=bare.id,
            lowering=bare.lowering,
            ops=bare.ops,
            program=bare.program,
            launches=launches,
            given=inputs.given,
            weights=inputs.weights,
            expected=tuple(expected_outputs(alone, inputs, tolerance)),
            max_error=tolerance.max_error,
            rms_error=tolerance.rms_error,
        )

    def _case(self, context: ProgramContext) -> StepCase:
        """Two requests and padding where there is room, just longer than the selection."""
        facts, bucket = self._facts, context.bucket
        longest = facts.index_topk + (0 if context.guard.terms else facts.page_tokens // 2)
        seed = 1 if bucket.reqs > 1 else 0
        return step_case(
            bucket,
            context.segment,
            seed,
            page_tokens=facts.page_tokens,
            vocab_size=facts.vocab_size,
            max_kv=longest,
            state_rows=context.state_rows,
            least_reqs=2,
        )


def _stored_as(chosen: _Chosen) -> dict[str, object]:
    """How each weight operand lies in memory, whatever its name: two layers' may be one probe."""
    storage = chosen.storage
    found: dict[str, object] = {}
    for operand, weight in chosen.candidate.weight_operands.items():
        holder = storage.holder[weight]
        shapes = [storage.types[part].shape for part in holder.parts]
        found[operand] = (shapes, holder.parts.index(weight), holder.perm, holder.axis)
    return found


def _refused(bare: Probe, reason: str) -> Probe:
    return Probe(
        id=bare.id, lowering=bare.lowering, ops=bare.ops, program=bare.program, refusal=reason
    )


def _require_small(chosen: _Chosen) -> None:
    candidate, types = chosen.candidate, chosen.storage.types
    parts = {
        part
        for weight in candidate.weight_operands.values()
        for part in chosen.storage.holder[weight].parts
    }
    elements = sum(prod(types[part].shape) for part in parts)
    flops = candidate.work().flops
    if elements > MAX_ELEMENTS or flops > MAX_FLOPS:
        raise ValueError(
            f"too large for a probe ({elements:.1e} weights, {flops:.1e} operations at the smallest"
            " size): run `lostwax certify ARTIFACT` on the device"
        )
