"""What a certificate can say of a lowering on a machine that lacks the device. Runs nothing.

The rule of `lostwax certify`: `executed` where the target is this machine's own CPU, `interpreted`
where Triton's interpreter, torch's CPU operators or a backend's twins run the same calls in a
program of few rows, else `compiled`: CUDA C++, libraries that nothing stands in for, and what is
chosen in larger programs alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover
from lostwax.backends.plan.kernel_requests import stand_in
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.proof.make_probes import choice_key
from lostwax.backends.proof.run_alone import launches_alone
from lostwax.backends.registry import Backend
from lostwax.ir.contract.canonical import canonical_json
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.record import State

MAX_INTERPRETED_ROWS = 64
"""Of a program: it is interpreted block by block in Python; devices run the largest there is."""
STATES: tuple[State, ...] = ("compiled", "interpreted", "executed")
"""From the least evidence to the most."""


def is_interpreted(bucket: Bucket) -> bool:
    """Whether `certify --interpret` runs what programs of this size chose."""
    return bucket.most_rows <= MAX_INTERPRETED_ROWS


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is certified once: `certify` tells kinds apart by their golden probes, of which this is
    what a plan knows, and by their segments."""

    digest: str
    languages: frozenset[str]


def _kind(candidate: Candidate, knobs: Mapping[str, int]) -> _Kind:
    """Of one chosen candidate; its launches are emitted, no kernel is compiled."""
    sources: dict[str, KernelSource] = {}

    def note(source: KernelSource) -> CompiledKernel:
        sources[source.digest()] = source
        return stand_in(source)

    launches_alone(candidate, note, knobs)
    key = (candidate.context.segment, *choice_key(candidate, knobs), sorted(sources))
    languages = frozenset(source.language for source in sources.values())
    return _Kind(hashlib.sha256(canonical_json(key)).hexdigest(), languages)


@dataclass(frozen=True, slots=True)
class Evidence:
    """`state` of what was chosen; `otherwise` says of what was not interpreted that the same
    lowering is, with other knobs, blocks or types: the same source, and no word on this one."""

    state: State
    otherwise: bool = False


@dataclass(frozen=True, slots=True)
class Attainable:
    """The evidence that choices of one plan can have: `reached` are the kinds that some program
    chose which is interpreted, `lowerings` the names of those that the CPU can run."""

    backend: Backend
    reached: frozenset[str]
    lowerings: frozenset[str]

    @classmethod
    def of(
        cls,
        contexts: Iterable[ProgramContext],
        covers: Iterable[Mapping[str, Cover]],
        backend: Backend,
    ) -> Attainable:
        """Of all programs of a plan, with their covers."""
        small = [c for x, c in zip(contexts, covers, strict=True) if is_interpreted(x.bucket)]
        chosen = ((each, _kind(*each)) for cover in small for each in _chosen(cover))
        runs = [(kind.digest, c.name) for (c, _), kind in chosen if _has_twin(c, kind, backend)]
        return cls(backend, frozenset(k for k, _ in runs), frozenset(name for _, name in runs))

    def evidence(self, covers: Mapping[str, Cover]) -> dict[str, Evidence]:
        """By name of what the covers of a program chose: of several places the least."""
        found: dict[str, State] = {}
        for candidate, knobs in _chosen(covers):
            state = self._state(candidate, knobs)
            found[candidate.name] = least(found.get(candidate.name, state), state)
        return {
            name: Evidence(state, state == "compiled" and name in self.lowerings)
            for name, state in found.items()
        }

    def _state(self, candidate: Candidate, knobs: Mapping[str, int]) -> State:
        if candidate.target.host_memory:
            return "executed"
        is_reached = _kind(candidate, knobs).digest in self.reached
        return "interpreted" if is_reached else "compiled"


def _has_twin(candidate: Candidate, kind: _Kind, backend: Backend) -> bool:
    """Whether the CPU can run what was chosen, whatever its size."""
    lowering = candidate.lowering
    assert lowering is not None  # a view has nothing to certify
    lacks_library = bool(lowering.requires) and backend.twins is None
    return not lacks_library and not kind.languages - {"triton"}


def _chosen(covers: Mapping[str, Cover]) -> Iterator[tuple[Candidate, Mapping[str, int]]]:
    """Lowerings that the covers of a program chose, with their knobs; views are none."""
    for cover in covers.values():
        for priced in cover.chosen:
            if priced.candidate.lowering is not None:
                yield priced.candidate, priced.price.knobs


def least(one: State, other: State) -> State:
    """The state of less evidence."""
    return STATES[min(STATES.index(one), STATES.index(other))]
