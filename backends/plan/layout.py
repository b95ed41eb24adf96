"""Plans a program's arena and says where every value lies. Chooses no lowering, builds no launch.

The arena holds, in this order: the carried delta and residual (two places each, so that a layer
reads one and writes the other), the step values of every prepare (alive for the whole step), and
one stretch that the layers share, since only one runs at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import msgspec
from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from lostwax.backends.plan.arena import Buffer, align, place
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover
from lostwax.backends.plan.program_context import BlockFunction, ProgramContext
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.views import alias_view, aliased_operand, cache_view, dense, scale_shape
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import View
from lostwax.ir.contract.step_kernel import Prepared
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.op import type_bytes
from lostwax.ir.types import CacheType, TensorType

CARRIES = ("delta", "residual")


class LayoutError(ValueError):
    """The graph asks for something that the memory plan cannot give; the message names it."""


def _anchor(candidate: Candidate) -> Operation:
    """One op that no other region of the cover has: names the candidate's workspace."""
    return next(iter(candidate.region.ops.values()))


def _root(value: SSAValue) -> SSAValue:
    """The value whose memory this one shares."""
    while isinstance(value.owner, Operation):
        if isinstance(value.owner, AppendOp):
            value = value.owner.cache_in
        elif (operand := aliased_operand(value.owner)) is not None:
            value = operand
        else:
            return value
    return value


def carried_results(context: ProgramContext, block: BlockFunction) -> dict[SSAValue, str]:
    """Returned values of a block that the next call reads as delta or residual."""
    returned = block.function.body.block.last_op
    assert isinstance(returned, func.ReturnOp)
    found: dict[SSAValue, str] = {}
    for call in context.calls:
        if call.callee.root_reference.data != block.name:
            continue
        for result, value in zip(call.res, returned.arguments, strict=False):
            for use in result.uses:
                user = use.operation
                if isinstance(user, CallOp):
                    callee = context.blocks[user.callee.root_reference.data]
                    carry = callee.carry_name(callee.function.body.block.args[use.index])
                    if carry is not None:
                        found[_root(value)] = carry
    return found


@dataclass(frozen=True)
class StepValues:
    """Step ops of a program, each once, and where their outputs lie."""

    ops: tuple[Prepared, ...]
    views: dict[tuple[bytes, str], View]
    end: int


def step_key(op: Prepared) -> bytes:
    """Equal for step ops that compute the same."""
    return msgspec.json.encode(op, order="sorted")


def place_step_values(covers: dict[str, Cover], start: int) -> StepValues:
    """Collect the prepares of all chosen lowerings; equal ones are computed once a step."""
    ops: dict[bytes, Prepared] = {}
    views: dict[tuple[bytes, str], View] = {}
    offset = start
    for chosen in covers.values():
        for p in chosen.chosen:
            lowering = p.candidate.lowering
            for op in lowering.prepare(p.candidate, p.price.knobs) if lowering else ():
                key = step_key(op)
                if key in ops:
                    continue
                ops[key] = op
                for name, dtype, shape in op.outputs:
                    views[key, name] = dense("arena", "", dtype, shape, offset)
                    offset += align(prod(shape) * DTYPE_BYTES[dtype])
    return StepValues(tuple(ops.values()), views, offset)


class BlockLayout:
    """Views of one block function's values under one cover."""

    def __init__(
        self, context: ProgramContext, chosen: Cover, storage: Storage, steps: StepValues, base: int
    ) -> None:
        self.block = chosen.candidates.block
        self._context = context
        self._storage = storage
        self._steps = steps
        self._carried = carried_results(context, self.block)
        self._roots: dict[SSAValue, View] = {}
        self._scales: dict[SSAValue, View] = {}
        self._workspaces: dict[Operation, View] = {}
        self.end = base + self._plan(chosen, base)

    def _last_use(self, chosen: Cover) -> dict[SSAValue, int]:
        """The last launch position that touches each root."""
        last: dict[SSAValue, int] = {}
        for t, p in enumerate(chosen.chosen):
            for op in p.candidate.region.members:
                for value in (*op.operands, *op.results):
                    last[_root(value)] = t
        returned = self.block.function.body.block.last_op
        assert isinstance(returned, func.ReturnOp)
        last.update({_root(v): len(chosen.chosen) for v in returned.arguments})
        return last

    def _plan(self, chosen: Cover, base: int) -> int:
        env, last = self._context.env, self._last_use(chosen)
        wanted: list[tuple[SSAValue | Operation, Buffer]] = []
        for t, p in enumerate(chosen.chosen):
            if p.candidate.lowering is None:
                continue
            for value in p.candidate.region.output_values():
                root = _root(value)
                if self._lies_elsewhere(root):
                    continue
                if isinstance(root.owner, Operation) and root.owner in p.candidate.region.members:
                    wanted += [(root, b) for b in self._buffers(root, t, last[root])]
            need = p.candidate.lowering.workspace(p.candidate, p.price.knobs)
            if need:
                wanted.append((_anchor(p.candidate), Buffer(need, t, t)))
        offsets, total = place([buffer for _, buffer in wanted])
        for (key, buffer), offset in zip(wanted, offsets, strict=True):
            if isinstance(key, Operation):
                self._workspaces[key] = dense("arena", "", "u8", (buffer.num_bytes,), base + offset)
            else:
                kind = key.type
                assert isinstance(kind, TensorType)
                shape = kind.at(env)
                if key not in self._roots:
                    self._roots[key] = dense("arena", "", kind.dtype_name, shape, base + offset)
                else:
                    scales = scale_shape(kind, shape)
                    self._scales[key] = dense("arena", "", "f32", scales, base + offset)
        return total

    def _lies_elsewhere(self, root: SSAValue) -> bool:
        """Whether a value has a place already, or one outside the stretch that layers share."""
        placed = root in self._roots or root in self._carried or root in self.block.state_results
        return placed or isinstance(root.type, CacheType)

    def _buffers(self, value: SSAValue, first: int, last: int) -> list[Buffer]:
        """Where a value's elements will lie, then its scales if it has any."""
        kind = value.type
        assert isinstance(kind, TensorType)
        total = type_bytes(kind, self._context.env)
        if kind.block_scale is None:
            return [Buffer(total, first, last)]
        elements = prod(kind.at(self._context.env)) * DTYPE_BYTES[kind.dtype_name]
        return [Buffer(elements, first, last), Buffer(total - elements, first, last)]

    def locate(self, value: SSAValue) -> View:
        """Where a value that is no weight lies."""
        if isinstance(value.type, CacheType):
            return cache_view(value.type, value.type.plane.data)
        kind = value.type
        assert isinstance(kind, TensorType)
        shape = kind.at(self._context.env)
        owner = value.owner
        if isinstance(owner, Operation) and (operand := aliased_operand(owner)) is not None:
            return alias_view(owner, self.locate(operand), shape)
        if value in self._carried:
            return dense("carry", f"{self._carried[value]}_out", kind.dtype_name, shape)
        state = self.block.state_results.get(value) or self.block.state_name(value)
        if state is not None:
            return dense("state", state, kind.dtype_name, shape)
        if value in self._roots:
            return self._roots[value]
        if (name := self.block.input_name(value)) is not None:
            return dense("input", name, kind.dtype_name, shape)
        if (carry := self.block.carry_name(value)) is not None:
            return dense("carry", f"{carry}_in", kind.dtype_name, shape)
        raise LayoutError(f"{self.block.name}: a value of type {kind} has no place")

    def value(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
        """Where a candidate's operand or result lies."""
        if self.block.weight_name(value) is not None:
            return self._storage.view(value, candidate, operand, scale)
        return self._scales[value] if scale else self.locate(value)

    def step(self, candidate: Candidate, name: str, knobs: Mapping[str, int]) -> View:
        """Where an output of the candidate's prepare under these knobs lies."""
        assert candidate.lowering is not None
        for op in candidate.lowering.prepare(candidate, knobs):
            if (key := (step_key(op), name)) in self._steps.views:
                return self._steps.views[key]
        raise LayoutError(f"{candidate.name} asks for step value {name!r}, which it never prepared")

    def workspace(self, candidate: Candidate) -> View | None:
        """The candidate's workspace."""
        return self._workspaces.get(_anchor(candidate))
