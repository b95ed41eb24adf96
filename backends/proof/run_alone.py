"""Runs one lowering by itself: its prepare, its weight forms, its launches. Compares nothing.

Every value is a buffer of its own, as `runtime/fenced_buffers.py` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from msgspec import structs
from xdsl.ir import SSAValue

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.views import (
    cache_view,
    dense,
    input_view,
    scale_shape,
    zeroed_view,
)
from lostwax.backends.plan.want import Want, want_of
from lostwax.backends.plan.weight_type import weight_types
from lostwax.backends.proof.check import Run
from lostwax.backends.proof.inputs import named_inputs
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.fenced_buffers import FencedBuffers
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.reference.dtype import Array, Scaled, Value
from lostwax.ir.reference.weight_forms import stored_weight
from lostwax.ir.types import CacheType, TensorType


def _storage(candidate: Candidate) -> Storage:
    """Weights in just the forms that this lowering wants."""
    wants = [want_of(candidate, operand) for operand in candidate.weight_operands]
    chosen: tuple[Want, ...] = tuple(w for w in wants if w is not None)
    return Storage(weight_types(candidate.block.function), chosen)


def _origin(candidate: Candidate, value: SSAValue) -> SSAValue:
    """The cache whose memory an append of the region shares; other values are their own."""
    while isinstance(value.owner, AppendOp) and value.owner in candidate.region.members:
        value = value.owner.cache_in
    return value


@dataclass
class Alone:
    """Satisfies `lostwax.backends.plan.candidate.Placement` for one candidate."""

    candidate: Candidate
    knobs: Mapping[str, int]
    compile_kernel: Callable[[KernelSource], CompiledKernel]
    storage: Storage
    names: dict[SSAValue, str] = field(default_factory=dict[SSAValue, str])

    def __post_init__(self) -> None:
        for name, value in named_inputs(self.candidate.region).items():
            self.names.setdefault(value, name)
        for name, bound in self.candidate.region.values.items():
            if isinstance(bound, SSAValue):
                self.names.setdefault(bound, name)

    def value(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
        """A weight in its form, or the whole buffer of any other value."""
        if candidate.block.weight_name(value) is not None:
            return self.storage.view(value, candidate, operand, scale)
        kind, name = value.type, self.names[_origin(candidate, value)]
        if isinstance(kind, CacheType):
            return cache_view(kind, name)
        assert isinstance(kind, TensorType)
        shape = kind.at(candidate.context.env)
        if not scale:
            return dense("arena", name, kind.dtype_name, shape)
        return dense("arena", f"{name}:scale", "f32", scale_shape(kind, shape))

    def step(self, candidate: Candidate, name: str) -> View:
        """An output of the lowering's prepare."""
        for index, op in enumerate(_lowering(candidate).prepare(candidate, self.knobs)):
            for output, dtype, shape in op.outputs:
                if output == name:
                    return dense("arena", f"prepare.{index}.{name}", dtype, shape)
        raise KeyError(f"{candidate.name} asks for step value {name!r}, which it never prepared")

    def step_input(self, candidate: Candidate, name: str) -> View:
        """A step input, apart from the region's own operands."""
        return structs.replace(input_view(name, candidate.bucket), name=f"step.{name}")

    def workspace(self, candidate: Candidate) -> View | None:
        """The declared workspace."""
        need = _lowering(candidate).workspace(candidate, self.knobs)
        return dense("arena", "workspace", "u8", (need,)) if need else None

    def zeroed(self, candidate: Candidate) -> View | None:
        """The declared zeroed workspace."""
        return zeroed_view(_lowering(candidate).zeroed(candidate, self.knobs))

    def build(self, source: KernelSource) -> CompiledKernel:
        """Compile a kernel."""
        return self.compile_kernel(source)

    def prepare(self) -> tuple[Launch, ...]:
        """The launches that compute the lowering's step values."""
        return tuple(
            step_launch(
                op,
                partial(self.step_input, self.candidate),
                {name: self.step(self.candidate, name) for name, _, _ in op.outputs},
                self.compile_kernel,
                self.candidate.target,
            )
            for op in _lowering(self.candidate).prepare(self.candidate, self.knobs)
        )


def _lowering(candidate: Candidate) -> Lowering:
    assert candidate.lowering is not None  # views have nothing to run
    return candidate.lowering


def _stored(alone: Alone, given: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs with weights replaced by what the plan would store for them."""
    candidate = alone.candidate
    operands = candidate.weight_operands
    made = {k: v for k, v in given.items() if k.removesuffix(":scale") not in operands}
    values: dict[str, Value] = {}
    for operand, weight in operands.items():
        array: Value = given[operand]
        if f"{operand}:scale" in given:
            bound = candidate.region.values[operand]
            assert isinstance(bound, SSAValue)
            assert isinstance(bound.type, TensorType)
            blocks = bound.type.block_scale
            assert blocks is not None
            scales = given[f"{operand}:scale"]
            array = Scaled(given[operand], scales, blocks.rows.data, blocks.cols.data)
        values[weight] = array
    holders = {alone.storage.holder[w].stored_name for w in values}
    names = frozenset(holders | {f"{n}:scale" for n in holders})
    for plan in alone.storage.held_weights(names):
        made[plan.name] = stored_weight(plan, [[values[p.name]] for p in plan.parts])
    return made


def launches_alone(
    candidate: Candidate,
    compile_kernel: Callable[[KernelSource], CompiledKernel],
    knobs: Mapping[str, int] | None = None,
) -> tuple[Alone, tuple[Launch, ...]]:
    """What a lowering launches by itself, and where its values lie."""
    lowering = _lowering(candidate)
    chosen = {**lowering.default_knobs(), **(knobs or {})}
    alone = Alone(candidate, chosen, compile_kernel, _storage(candidate))
    placed = replace(candidate, placement=alone)
    return alone, (*alone.prepare(), *lowering.emit(placed, chosen))


def run_alone(
    candidate: Candidate,
    driver: Callable[[], Driver],
    compile_kernel: Callable[[KernelSource], CompiledKernel],
    knobs: Mapping[str, int] | None = None,
) -> Run:
    """A runner for `check.certify_lowering`; raises ValueError with the predicate that refuses.

    Kernels are compiled before `driver` is called, which may then load them.
    """
    lowering = _lowering(candidate)
    refusal = lowering.when.refusal(candidate)
    if refusal is not None:
        raise ValueError(f"{lowering.name}: {refusal}")
    alone, launches = launches_alone(candidate, compile_kernel, knobs)
    device = driver()

    def run(given: Mapping[str, Array]) -> Mapping[str, Array]:
        buffers = FencedBuffers(device, _stored(alone, given), launches)
        for launch in launches:
            device.bind(launch, buffers.resolve)()
        device.synchronize()
        buffers.check_left()
        outputs: dict[str, Array] = {}
        for name in candidate.region.region.outputs:
            bound = candidate.region.values[name]
            assert isinstance(bound, SSAValue)
            view = alone.value(bound, candidate, name, scale=False)
            outputs[name] = buffers.read(view)
            if isinstance(bound.type, TensorType) and bound.type.block_scale is not None:
                scales = alone.value(bound, candidate, name, scale=True)
                outputs[f"{name}:scale"] = buffers.read(scales)
        return outputs

    return run
