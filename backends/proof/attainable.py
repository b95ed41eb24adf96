"""What a certificate can say of a lowering on a machine that lacks the device. Runs nothing.

The rule of `lostwax certify`: `executed` where the target is this machine's own CPU, `interpreted`
where Triton's interpreter, torch's CPU operators or a backend's twins run the same calls, else
`compiled`: CUDA C++, and libraries that nothing stands in for.
"""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover
from lostwax.backends.plan.kernel_requests import stand_in
from lostwax.backends.proof.run_alone import launches_alone
from lostwax.backends.registry import Backend
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.record import State

STATES: tuple[State, ...] = ("compiled", "interpreted", "executed")
"""From the least evidence to the most."""


def attainable_state(candidate: Candidate, knobs: Mapping[str, int], backend: Backend) -> State:
    """Of one chosen candidate; its launches are emitted, no kernel is compiled."""
    lowering = candidate.lowering
    assert lowering is not None  # a view has nothing to certify
    if candidate.target.host_memory:
        return "executed"
    languages: set[str] = set()

    def note(source: KernelSource) -> CompiledKernel:
        languages.add(source.language)
        return stand_in(source)

    launches_alone(candidate, note, knobs)
    lacks_library = bool(lowering.requires) and backend.twins is None
    return "compiled" if lacks_library or languages - {"triton"} else "interpreted"


def attainable_states(covers: Mapping[str, Cover], backend: Backend) -> dict[str, State]:
    """By name of what the covers of a program chose: of several places the least."""
    found: dict[str, State] = {}
    for cover in covers.values():
        for priced in cover.chosen:
            lowering = priced.candidate.lowering
            if lowering is not None:
                state = attainable_state(priced.candidate, priced.price.knobs, backend)
                found[lowering.name] = least(found.get(lowering.name, state), state)
    return found


def least(one: State, other: State) -> State:
    """The state of less evidence."""
    return STATES[min(STATES.index(one), STATES.index(other))]
