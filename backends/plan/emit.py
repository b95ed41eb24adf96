"""Turns the covers of one specialised module into a program: launches, bindings, arena size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from msgspec import structs
from xdsl.dialects import func
from xdsl.irdl import IRDLOperation

from lostwax.backends.plan.arena import align
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover
from lostwax.backends.plan.layout import (
    CARRIES,
    BlockLayout,
    StepValues,
    place_step_values,
    step_key,
)
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.views import input_view, zeroed_view
from lostwax.ir.contract.captured import must_be_captured
from lostwax.ir.contract.check_launch import check_form
from lostwax.ir.contract.check_views import Inconsistent, end_of
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import (
    HEADS,
    Call,
    HostCall,
    Launch,
    Program,
    View,
    launches_of,
    views_of,
)
from lostwax.ir.contract.step import StepOp
from lostwax.ir.contract.target import Target
from lostwax.ir.op import type_bytes

Build = Callable[[KernelSource], CompiledKernel]


class EmitError(ValueError):
    """A lowering emitted what its program cannot run; the message names the lowering."""


@dataclass(frozen=True)
class _Placed:
    """A block layout with compiler and knobs: what one candidate sees while emitting."""

    layout: BlockLayout
    compile_kernel: Build
    knobs: Mapping[str, int]

    def value(self, value: object, candidate: Candidate, operand: str, scale: bool) -> View:
        return self.layout.value(value, candidate, operand, scale)  # pyright: ignore[reportArgumentType]

    def step(self, candidate: Candidate, name: str) -> View:
        return self.layout.step(candidate, name, self.knobs)

    def step_input(self, candidate: Candidate, name: str) -> View:
        return input_view(name, candidate.bucket)

    def workspace(self, candidate: Candidate) -> View | None:
        return self.layout.workspace(candidate)

    def zeroed(self, candidate: Candidate) -> View | None:
        assert candidate.lowering is not None
        return zeroed_view(candidate.lowering.zeroed(candidate, self.knobs))

    def build(self, source: KernelSource) -> CompiledKernel:
        return self.compile_kernel(source)


def _prepare(steps: StepValues, context: ProgramContext, compile_kernel: Build) -> Iterator[Launch]:
    """The launches that compute the step values."""
    captured = must_be_captured(context.segment, context.target)
    inputs = partial(input_view, bucket=context.bucket)
    for op in steps.ops:
        if isinstance(op, StepOp) and op.placement != "device" and captured:
            raise EmitError(
                f"{op.function} is placed on the {op.placement}, but {context.segment} is captured"
                " as a device graph; give the lowering the predicate not_captured()"
            )
        outputs = {name: steps.views[step_key(op), name] for name, _, _ in op.outputs}
        launch = step_launch(op, inputs, outputs, compile_kernel, context.target)
        _check_form(launch, context.target)
        yield launch


def _check_form(launch: Launch, target: Target) -> None:
    if isinstance(launch, HostCall):
        return
    try:
        check_form(launch, target)
    except Inconsistent as error:
        raise EmitError(f"{launch.op} emitted what cannot be launched: {error}") from error


def _check_captured(launch: Launch, target: Target, segment: str) -> None:
    captured = must_be_captured(segment, target)
    if captured and isinstance(launch, HostCall) and not launch.capturable:
        raise EmitError(
            f"{launch.op} emitted {launch.function}, which cannot be captured, into the captured"
            f" segment {segment}; give the lowering the predicate not_captured()"
        )


def _block_launches(
    chosen: Cover, layout: BlockLayout, compile_kernel: Build
) -> tuple[Launch, ...]:
    context = chosen.candidates.context
    launches: list[Launch] = []
    for p in chosen.chosen:
        lowering = p.candidate.lowering
        if lowering is None:
            continue
        placed = _Placed(layout, compile_kernel, p.price.knobs)
        emitted = lowering.emit(replace(p.candidate, placement=placed), p.price.knobs)
        most = lowering.allocates(p.candidate, p.price.knobs)
        for launch in emitted:
            _check_captured(launch, context.target, context.segment)
            _check_form(launch, context.target)
            is_host = isinstance(launch, HostCall)
            launches.append(structs.replace(launch, allocates=most) if is_host else launch)
    return tuple(launches)


def _outputs(context: ProgramContext, layout: BlockLayout) -> dict[str, View]:
    """A head's results, by the result's name in its op; a body's are state, and no outputs."""
    if context.segment not in HEADS:
        return {}
    returned = layout.block.function.body.block.last_op
    assert isinstance(returned, func.ReturnOp)
    found: dict[str, View] = {}
    for value in returned.arguments:
        owner = value.owner
        assert isinstance(owner, IRDLOperation)
        names = [n for n, _ in owner.get_irdl_definition().results]
        position = [r is value for r in owner.results].index(True)
        found[names[position]] = layout.locate(value)
    return found


def _calls(context: ProgramContext, slots: dict[str, tuple[int, int]]) -> tuple[Call, ...]:
    calls: list[Call] = []
    for i, call in enumerate(context.calls):
        carry: dict[str, int] = {}
        for name, pair in slots.items():
            carry[f"{name}_in"], carry[f"{name}_out"] = pair[(i + 1) % 2], pair[i % 2]
        calls.append(
            Call(
                block=call.callee.root_reference.data,
                prefix=call.prefix.data,
                layer=call.layer.value.data,
                carry=carry,
            )
        )
    return tuple(calls)


def emit_program(
    context: ProgramContext,
    covers: dict[str, Cover],
    storage: dict[str, Storage],
    compile_kernel: Build,
) -> Program:
    """The program of one (segment, bucket, guard) under the chosen covers and storage."""
    first = context.calls[0]
    offset = 0
    slots: dict[str, tuple[int, int]] = {}
    carries = CARRIES if context.segment not in HEADS else ()  # a head is one call
    for name, result in zip(carries, first.res, strict=False):
        need = align(type_bytes(result.type, context.env))
        slots[name] = (offset, offset + need)
        offset += 2 * need
    steps = place_step_values(covers, offset)
    prepare = tuple(_prepare(steps, context, compile_kernel))
    blocks: dict[str, tuple[Launch, ...]] = {}
    arena = steps.end
    outputs: dict[str, View] = {}
    for name, chosen in covers.items():
        layout = BlockLayout(context, chosen, storage[name], steps, steps.end)
        blocks[name] = _block_launches(chosen, layout, compile_kernel)
        arena = max(arena, layout.end)
        if name == context.calls[-1].callee.root_reference.data:
            outputs = _outputs(context, layout)
    return Program(
        segment=context.segment,
        bucket=context.bucket,
        guard=context.guard,
        arena_bytes=arena,
        prepare=prepare,
        blocks=blocks,
        calls=_calls(context, slots),
        outputs=outputs,
    )


def zeroed_bytes(programs: Iterable[Program]) -> int:
    """Bytes of the zeroed workspace that all launches of the programs share, in whole elements."""
    views = (v for p in programs for launch in launches_of(p) for v in views_of(launch))
    return align(max((end_of(v) for v in views if v.space == "zeroed"), default=0))
