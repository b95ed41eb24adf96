"""Makes golden probes: each distinct chosen lowering on one step, beside the fp64 reference.

Runs no lowering. The reference gives samples of rows, experts and columns, so that any width has a
probe. What reads too much even so is refused and stays unproven until `lostwax certify` ran it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import msgspec
import numpy as np
from xdsl.ir import SSAValue

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover, Priced
from lostwax.backends.plan.kernel_requests import stand_in
from lostwax.backends.plan.link import link
from lostwax.backends.plan.storage import Storage
from lostwax.backends.proof.check import region_tolerance, rounds_between
from lostwax.backends.proof.inputs import reads_positions_alone
from lostwax.backends.proof.probe_inputs import ProbeInputs, TooLarge, probe_inputs
from lostwax.backends.proof.probe_outputs import expected_outputs
from lostwax.backends.proof.run_alone import Alone
from lostwax.backends.proof.steady_rows import steady_rows
from lostwax.backends.proof.step_cases import StepCase, far_case, step_case
from lostwax.backends.records.record_key import boundary_types
from lostwax.ir.contract.canonical import canonical_json
from lostwax.ir.contract.check_probes import MAX_DRAWN_BITS, drawn_bits
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.probe import Probe
from lostwax.ir.contract.program import KernelLaunch, Launch
from lostwax.ir.reference.dtype import Array

MAX_ELEMENTS = 1 << 27
"""Numbers that the reference of one probe's samples reads: about a GB in fp64."""
BEST_ROWS = 4
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
    rows = bucket.most_rows
    return (rows < BEST_ROWS, rows, bucket.pages, chosen.program)


def _is_probed(priced: Priced) -> bool:
    """Views cost nothing, and collectives mean nothing on one rank."""
    ops = priced.candidate.region.ops.values()
    return priced.candidate.lowering is not None and not any(
        o.name.startswith("dist.") for o in ops
    )


class ProbeMaker:
    """Finds the distinct choices of all programs, then makes a probe of each."""

    def __init__(self, facts: ModelFacts, sources: Iterable[KernelSource]) -> None:
        """`sources` are the kernels that the programs launch: a probe launches no others."""
        self._facts = facts
        self._kernels = {k.binary: k for k in map(stand_in, sources)}
        self._found: dict[str, list[_Chosen]] = {}

    def add(
        self, program: int, covers: Mapping[str, Cover], storage: Mapping[str, Storage]
    ) -> None:
        """Note every choice of one program."""
        for block, cover in covers.items():
            for priced in filter(_is_probed, cover.chosen):
                chosen = _Chosen(program, priced.candidate, priced.price.knobs, storage[block])
                self._found.setdefault(self._key(chosen), []).append(chosen)

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

    def _key(self, chosen: _Chosen) -> str:
        """Digest of what may make a difference to the numbers, whatever the sizes."""
        candidate = chosen.candidate
        binaries: list[str] = []
        if self._kernels:
            try:
                launches = self._launches(chosen)[1]
                binaries = sorted({x.binary for x in launches if isinstance(x, KernelLaunch)})
            except _NotTheProgram:
                binaries = [candidate.context.name]
        key = (*choice_key(candidate, chosen.knobs), binaries, _stored_as(chosen))
        return hashlib.sha256(canonical_json(key)).hexdigest()

    def make(self, programs: Sequence[str]) -> tuple[UnlinkedProbe, ...]:
        """A probe of each distinct choice, at the smallest sizes that show something."""
        return tuple(
            self._made(all_chosen, min(all_chosen, key=_rank), programs)
            for _, all_chosen in sorted(self._found.items())
        )

    def _made(
        self, all_chosen: Sequence[_Chosen], chosen: _Chosen, programs: Sequence[str]
    ) -> UnlinkedProbe:
        candidate, program = chosen.candidate, programs[chosen.program]
        try:
            alone, launches = self._launches(chosen)
            case = self._case(candidate)
            made = _sampled(alone, launches, case, program, MAX_ELEMENTS)
            if (bits := drawn_bits(made.given)) > MAX_DRAWN_BITS:
                raise TooLarge(f"its masks hold {bits} numbers, and a probe {MAX_DRAWN_BITS}")
        except (TooLarge, _NotTheProgram, NotImplementedError) as error:
            made = _bare(candidate, program, refusal=str(error))
        key = choice_key(candidate, chosen.knobs)
        return UnlinkedProbe(made, key, tuple(each.candidate for each in all_chosen))

    def _case(self, candidate: Candidate) -> StepCase:
        """Two requests and padding where there is room, just longer than the selection."""
        facts, context = self._facts, candidate.context
        longest = facts.index_topk + (0 if context.guard.selects_all else facts.page_tokens // 2)
        case = step_case(
            context.bucket,
            context.segment,
            1 if max(context.bucket.reqs, context.bucket.rows) > 1 else 0,
            page_tokens=facts.page_tokens,
            vocab_size=facts.vocab_size,
            max_kv=longest,
            max_total_kv=context.guard.together(context.bucket.reqs * longest),
            states=context.states,
            least_reqs=2,
        )
        if reads_positions_alone(candidate.region):
            case = far_case(case, facts.max_context)
        return case


@dataclass(frozen=True, slots=True)
class UnlinkedProbe:
    """A probe whose launches name kernels by their sources, and which choices it is made for."""

    probe: Probe
    key: tuple[object, ...]
    choices: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class MadeProbes:
    """The probes of an artifact, and by choice the id of its own."""

    probes: tuple[Probe, ...]
    ids: Mapping[Candidate, str]


def link_probes(made: Iterable[UnlinkedProbe], kernels: Mapping[str, CompiledKernel]) -> MadeProbes:
    """The probes with the compiled kernels, of which their ids are digests, too.

    Sources may have given one binary, and so equal probes.
    """
    probes: dict[str, Probe] = {}
    ids: dict[Candidate, str] = {}
    for each in made:
        launches = link(each.probe.launches, kernels)
        probe = identified(msgspec.structs.replace(each.probe, launches=launches), each.key)
        probes[probe.id] = probe
        ids.update(dict.fromkeys(each.choices, probe.id))
    return MadeProbes(tuple(probes[key] for key in sorted(probes)), ids)


def make_probe(alone: Alone, launches: tuple[Launch, ...], case: StepCase, program: str) -> Probe:
    """One lowering on one step, with samples of what its reference gives.

    Raises NotImplementedError for an input that cannot be drawn.
    """
    made = _sampled(alone, launches, case, program)
    return identified(made, choice_key(alone.candidate, alone.knobs))


def _sampled(
    alone: Alone,
    launches: tuple[Launch, ...],
    case: StepCase,
    program: str,
    most_elements: int | None = None,
) -> Probe:
    """The probe without its id; TooLarge where the reference of the samples reads more elements."""
    candidate = alone.candidate
    inputs: ProbeInputs = probe_inputs(alone, launches, case, most_elements)
    steady: Mapping[SSAValue, Array] = {}
    with np.errstate(all="ignore"):  # what overflows does so in the kernel, too
        drawn = dict(inputs.values)
        inputs.sample.evaluate(inputs.values)
        if rounds_between(candidate.region):
            steady = steady_rows(drawn, inputs.values, inputs.sample)
    tolerance = region_tolerance(candidate.region, candidate.waiver)
    return msgspec.structs.replace(
        _bare(candidate, program),
        launches=launches,
        given=inputs.given,
        weights=inputs.weights,
        expected=tuple(expected_outputs(alone, inputs, tolerance, steady)),
        max_error=tolerance.max_error,
        rms_error=tolerance.rms_error,
    )


def choice_key(candidate: Candidate, knobs: Mapping[str, int]) -> tuple[object, ...]:
    """What was chosen where: lowering, region, types and knobs."""
    region = candidate.region.digest()
    return (candidate.name, region, boundary_types(candidate), dict(sorted(knobs.items())))


def identified(probe: Probe, key: tuple[object, ...]) -> Probe:
    """The probe with its id: the digest of the choice and of everything in the probe.

    So host functions, binaries, sizes, seeds, samples and tolerance count; the code behind the
    names is covered where evidence is kept (`boot_check.code_digest`).
    """
    bare = msgspec.structs.replace(probe, id="")
    found = hashlib.sha256(canonical_json(key))
    found.update(canonical_json(bare))
    return msgspec.structs.replace(bare, id=found.hexdigest())


def _bare(candidate: Candidate, program: str, refusal: str = "") -> Probe:
    return Probe(
        id="",
        lowering=candidate.name,
        ops=tuple(op.name for op in candidate.region.ops.values()),
        program=program,
        refusal=refusal,
    )


def _stored_as(chosen: _Chosen) -> dict[str, object]:
    """How each weight operand lies in memory, by operand."""
    weights = chosen.candidate.weight_operands.items()
    return {operand: stored_as(chosen.storage, weight) for operand, weight in weights}


def stored_as(storage: Storage, weight: str) -> tuple[object, ...]:
    """How a weight lies in memory, whatever its name: two layers' may be one probe."""
    holder = storage.holder[weight]
    form = replace(holder, parts=())
    shapes = [storage.types[part].shape for part in holder.parts]
    return shapes, holder.parts.index(weight), asdict(form)
