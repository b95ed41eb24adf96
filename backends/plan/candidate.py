"""One lowering at one site of one program: the Match that lowerings see. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from xdsl.dialects import builtin
from xdsl.ir import SSAValue

from lostwax.backends.lowering import Lowering, Work
from lostwax.backends.plan.program_context import BlockFunction, ProgramContext
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, Const, Guard, Segment, View
from lostwax.ir.contract.scale_layout import ScaleLayout
from lostwax.ir.contract.step import inputs_of
from lostwax.ir.contract.target import Target
from lostwax.ir.op import LostwaxOp, type_bytes
from lostwax.ir.region import RegionMatch
from lostwax.ir.types import CacheType, TensorType


class Placement(Protocol):
    """Where a program's values lie: given by the memory plan when a candidate is emitted."""

    def value(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
        """The view of a value for the candidate's operand (weights: in the lowering's form)."""
        ...

    def step(self, candidate: Candidate, name: str) -> View:
        """The view of an output of the candidate's prepare."""
        ...

    def step_input(self, candidate: Candidate, name: str) -> View:
        """The view of a step input that the candidate's segment has."""
        ...

    def workspace(self, candidate: Candidate) -> View | None:
        """The candidate's workspace."""
        ...

    def zeroed(self, candidate: Candidate) -> View | None:
        """The candidate's zeroed workspace."""
        ...

    def build(self, source: KernelSource) -> CompiledKernel:
        """Compile a kernel once."""
        ...


def python_of(attribute: object) -> Const:
    """The value of an op's property; TypeError where it is none of a number, a flag or a text."""
    if isinstance(attribute, builtin.IntegerAttr):
        number = attribute.value.data
        return bool(number) if attribute.type == builtin.i1 else number
    if isinstance(attribute, builtin.FloatAttr):
        return attribute.value.data
    if isinstance(attribute, builtin.StringAttr):
        return attribute.data
    raise TypeError(f"attribute {attribute} has no Python value")


def _is_scaled(value: SSAValue) -> bool:
    return isinstance(value.type, TensorType) and value.type.block_scale is not None


@dataclass(frozen=True, eq=False)
class Candidate:
    """A lowering that fits a region's site; `lowering` None marks views, which cost nothing.

    Satisfies `lostwax.backends.lowering.Match`.
    """

    context: ProgramContext
    block: BlockFunction
    region: RegionMatch
    lowering: Lowering | None
    placement: Placement | None = None

    @property
    def name(self) -> str:
        """The lowering's name."""
        return self.lowering.name if self.lowering else "view"

    @property
    def waiver(self) -> str:
        """The lowering's waiver, empty without one."""
        return self.lowering.waiver if self.lowering else ""

    @property
    def target(self) -> Target:
        """The target's facts."""
        return self.context.target

    @property
    def segment(self) -> Segment:
        """The program's segment."""
        return self.context.segment

    @property
    def bucket(self) -> Bucket:
        """The program's bucket."""
        return self.context.bucket

    @property
    def guard(self) -> Guard:
        """The program's guard."""
        return self.context.guard

    def _value(self, name: str) -> SSAValue:
        bound = self.region.values[name.removesuffix(":scale")]
        if isinstance(bound, tuple):
            raise KeyError(f"{name} is variadic: ask views()")
        return bound

    def _tensor(self, name: str) -> TensorType:
        kind = self._value(name).type
        if not isinstance(kind, TensorType):
            raise TypeError(f"{name} is no tensor")
        return kind

    def _cache(self, name: str) -> CacheType:
        kind = self._value(name).type
        if not isinstance(kind, CacheType):
            raise TypeError(f"{name} is no cache")
        return kind

    def shape(self, value: str) -> tuple[int, ...]:
        """Concrete shape of a tensor; (pages of one request, page_tokens, row) of a cache."""
        kind = self._value(value).type
        if isinstance(kind, CacheType):
            return (self.bucket.pages, kind.page_tokens.data, sum(kind.row))
        return self._tensor(value).at(self.context.env)

    def dtype(self, value: str) -> str:
        """Element type of a tensor or of a cache's plain layout (u8 where it is scaled)."""
        kind = self._value(value).type
        if isinstance(kind, CacheType):
            return kind.form.element or "u8"
        return self._tensor(value).dtype_name

    def layout(self, value: str) -> str:
        """Byte layout of a cache."""
        return self._cache(value).layout.data

    def parts(self, value: str) -> tuple[int, ...]:
        """Widths of the parts of a cache's row."""
        return self._cache(value).row

    def is_scaled(self, value: str) -> bool:
        """Whether a tensor carries block scales."""
        return self._tensor(value).block_scale is not None

    def scale(self, value: str) -> ScaleLayout | None:
        """How a tensor's scales lie."""
        found = self._tensor(value).block_scale
        return None if found is None else found.layout

    def is_rows(self, value: str) -> bool:
        """Whether a tensor's first axis is the program's rows."""
        return self.context.axes.is_counted(self._tensor(value))

    def attr(self, node: str, name: str) -> Const:
        """A property of a node's op."""
        return python_of(self.region.ops[node].properties[name])

    def work(self) -> Work:
        """Boundary bytes (with what the ops read of caches and weights) and operations."""
        env = self.context.env
        total_bytes = total_flops = 0
        for op in self.region.ops.values():
            if isinstance(op, LostwaxOp):
                cost = op.cost(env)
                total_bytes += cost.num_bytes
                total_flops += cost.flops
        members = self.region.members
        leaving = set(self.region.output_values())
        for op in members:
            for result in op.results:
                inner_uses = sum(u.operation in members for u in result.uses)
                saved = inner_uses + (0 if result in leaving else 1) if inner_uses else 0
                total_bytes -= saved * type_bytes(result.type, env)
        return Work(max(total_bytes, 0), total_flops)

    def _placed(self) -> Placement:
        if self.placement is None:
            raise RuntimeError(f"{self.name}: views exist only while emitting")
        return self.placement

    def view(self, value: str) -> View:
        """Where a boundary value lies."""
        scale = value.endswith(":scale")
        name = value.removesuffix(":scale")
        return self._placed().value(self._value(name), self, name, scale)

    def views(self, value: str) -> tuple[View, ...]:
        """The views of a variadic operand; `NAME:scale`: the scales of those that have any."""
        scale = value.endswith(":scale")
        name = value.removesuffix(":scale")
        bound = self.region.values[name]
        each = bound if isinstance(bound, tuple) else (bound,)
        wanted = [v for v in each if not scale or _is_scaled(v)]
        return tuple(self._placed().value(v, self, name, scale) for v in wanted)

    def step(self, name: str) -> View:
        """An output of this lowering's prepare."""
        return self._placed().step(self, name)

    def step_input(self, name: str) -> View:
        """A step input; KeyError where the program's segment has none of this name."""
        segment = self.context.segment
        if name not in inputs_of(segment):
            raise KeyError(f"{self.name} asks for {name!r}, which no {segment} program reads")
        return self._placed().step_input(self, name)

    @property
    def workspace(self) -> View | None:
        """The declared workspace."""
        return self._placed().workspace(self)

    @property
    def zeroed(self) -> View | None:
        """The declared zeroed workspace."""
        return self._placed().zeroed(self)

    def build(self, source: KernelSource) -> CompiledKernel:
        """Compile a kernel for the target."""
        return self._placed().build(source)

    @cached_property
    def weight_operands(self) -> dict[str, str]:
        """Pattern operand name to logical weight name, for the operands that are weights."""
        found: dict[str, str] = {}
        for name in self.region.region.inputs:
            bound = self.region.values[name]
            if isinstance(bound, SSAValue) and (weight := self.block.weight_name(bound)):
                found[name] = weight
        return found
