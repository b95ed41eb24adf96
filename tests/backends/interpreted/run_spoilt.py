"""Proves the step's kernels with one of what they write spoilt, once for each that is compared.

A program of its own because Triton decides at import whether it interprets. A kernel's result is
written over behind the launch that made it, so that nothing but its own comparison can tell.
Argument: maybe `blind`, then each proof leaves that comparison out. Prints a JSON line a fault:
what was spoilt, and what the proof said (empty: nothing).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from run_proof import LIMITS, Built, built

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.interpreter import InterpretingDriver
from lostwax.backends.plan.views import input_view
from lostwax.backends.runtime import prove_step as proof
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.backends.runtime.memory import Place
from lostwax.backends.runtime.run_probe import WrongKernel
from lostwax.backends.runtime.torch_memory import as_tensor
from lostwax.ir.contract.program import Launch, Program
from lostwax.ir.contract.step import inputs_of
from lostwax.ir.contract.step_layout import HEADER, PLACES, RESULT_WIDTHS, StepLayout
from lostwax.ir.contract.step_state import STEP_STATE

LAYOUT = StepLayout.of(LIMITS)
WRONG = -999
"""What no kernel writes and no head picks."""
ENDS = {"first": 0, "last": -1}
FEW_STEPS = 40
"""Enough that each fault strikes, fewer than a boot runs."""

Spoil = Callable[[Resolve], bool]
"""Writes over something; whether there was anything to write over."""


@dataclass
class Fault:
    """What is spoilt behind a launch: `what` as errors call it, of which segment's program."""

    what: str
    segment: str
    end: str
    launch: Launch
    spoil: Spoil


class SpoilingDriver(InterpretingDriver):
    """Runs one fault; `struck` says whether it has."""

    fault: Fault | None = None
    struck = False

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The launch, and the fault behind it where it is that launch."""
        run, fault = super().bind(launch, resolve), self.fault
        if fault is None or launch != fault.launch:
            return run

        def spoilt() -> None:
            run()
            self.struck = fault.spoil(resolve) or self.struck

        return spoilt


def header(resolve: Resolve) -> dict[str, int]:
    """Where the step is."""
    return dict(zip(HEADER, as_tensor(resolve(LAYOUT.header)).tolist(), strict=False))


def put(place: Place, end: int) -> bool:
    """Write over the first or last number."""
    as_tensor(place).view(-1)[end] = WRONG
    return True


def result_place(resolve: Resolve) -> Any:
    """The place of the step that runs, as numpy sees it."""
    turn = int(as_tensor(resolve(LAYOUT.array("turn")))[0])
    return as_tensor(resolve(LAYOUT.result_box)).numpy()[(turn - 1) % PLACES]


def input_faults(program: Program, name: str, end: str) -> Fault:
    """An input, behind the last of the launches that make a program's."""
    view = input_view(name, program.bucket)
    return Fault(
        f"the input {name!r}", program.segment, end, program.prepare[-1],
        lambda resolve: put(resolve(view), ENDS[end]),
    )  # fmt: skip


def state_faults(program: Program, name: str, end: str) -> Fault:
    """A field of the state, when nothing of the step reads it any more."""

    def spoil(resolve: Resolve) -> bool:
        at = header(resolve)
        is_over = at["drafts"] == 0 and at["cursor"] == 0
        return is_over and put(resolve(LAYOUT.field(name)), ENDS[end])

    return Fault(f"the state's {name!r}", program.segment, end, program.finish[-1], spoil)


def count_faults(program: Program, end: str) -> Fault:
    """The counts of the first or the last sequence that has some, likewise."""

    def spoil(resolve: Resolve) -> bool:
        at, counted = header(resolve), as_tensor(resolve(LAYOUT.field("counted"))).nonzero()[:, 0]
        if at["drafts"] or at["cursor"] or not len(counted):
            return False
        return put(as_tensor(resolve(LAYOUT.counts))[counted[ENDS[end]]], ENDS[end])

    return Fault("the state 'counts'", program.segment, end, program.finish[-1], spoil)


def result_faults(program: Program, name: str, end: str) -> Fault:
    """A result of the step's logit rows."""

    def spoil(resolve: Resolve) -> bool:
        rows = LAYOUT.rows_of(result_place(resolve), name, header(resolve)["num_logits"])
        return put(torch.from_numpy(rows), ENDS[end])

    return Fault(f"the result {name!r}", program.segment, end, program.finish[-1], spoil)


def draft_faults(program: Program, end: str) -> Fault:
    """A draft of the first or the last sequence that picks."""

    def spoil(resolve: Resolve) -> bool:
        at = header(resolve)
        if not (at["stage"] and at["num_drafting"]):
            return False
        made = LAYOUT.drafts_of(result_place(resolve), at["num_drafting"])[:, : at["drafts"]]
        made[ENDS[end], ENDS[end]] = WRONG
        return True

    return Fault("the result 'drafts'", program.segment, end, program.finish[-1], spoil)


def faults(programs: list[Program]) -> Iterator[Fault]:
    """One for each end of each array that a proof compares."""
    for end in ENDS:
        for program in programs:
            yield from (input_faults(program, name, end) for name in inputs_of(program.segment))
        top = next(program for program in programs if len(program.outputs) == len(RESULT_WIDTHS))
        yield from (state_faults(top, name, end) for name in STEP_STATE)
        yield count_faults(top, end)
        yield from (result_faults(top, name, end) for name in RESULT_WIDTHS)
        yield draft_faults(top, end)


def said(made: Built, fault: Fault, *, is_blind: bool) -> str:
    """What the proof says with the fault; without its comparison where it is blind."""
    driver = SpoilingDriver(CUDA_SM90A, cast(Any, None), {})
    driver.sources, driver.fault = made.sources.by_binary, fault
    compare = proof.require_equal

    def seeing(what: str, found: Any, want: Any, program: Program) -> None:
        is_its_own = what == fault.what and program.segment == fault.segment
        if not (is_blind and is_its_own):
            compare(what, found, want, program)

    proof.require_equal, proof.LEAST_STEPS = seeing, FEW_STEPS
    try:
        proof.prove_step(cast(Any, made.reader), driver)
    except WrongKernel as error:
        return str(error)
    finally:
        proof.require_equal = compare
    return "" if driver.struck else "the fault never struck"


def main() -> None:
    """Every fault."""
    made = built()
    for fault in faults(list(made.reader.programs.values())):
        found = said(made, fault, is_blind="blind" in sys.argv[1:])
        where = {"what": fault.what, "segment": fault.segment, "end": fault.end}
        print(json.dumps(where | {"said": found}))


if __name__ == "__main__":
    main()
