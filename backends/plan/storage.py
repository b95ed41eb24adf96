"""How a block kind's weights are stored: one copy that every program's lowerings can read.

Weight forms couple programs; this file only says which forms a plan satisfies and where a weight
lies under it. `choose_storage.py` chooses the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects import func
from xdsl.ir import SSAValue

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.program_context import BlockFunction
from lostwax.backends.plan.views import dense, slice_view
from lostwax.ir.contract.program import View
from lostwax.ir.contract.weights import Step, StoredWeight, WeightForm
from lostwax.ir.dialects.dist import SHARD, SplitAttr
from lostwax.ir.types import TensorType


@dataclass(frozen=True, slots=True, order=True)
class Want:
    """A form in which a lowering reads one weight, or several behind one another."""

    parts: tuple[str, ...]
    perm: tuple[int, ...] = ()
    axis: int = 0

    @property
    def stored_name(self) -> str:
        """The stored tensor's name."""
        suffix = "" if not self.perm else "@" + "".join(map(str, self.perm))
        return "+".join(self.parts) + suffix


@dataclass(frozen=True, slots=True)
class WeightType:
    """Shape and format of one weight of a block kind."""

    shape: tuple[int, ...]
    dtype: str
    scale_shape: tuple[int, ...] | None
    scale_dtype: str
    scale_rows: int
    split: int | None = None
    """The axis that ranks split, counted from the last one as -1; the shape is one rank's."""
    is_reencoded: bool = False
    """Held as e4m3fnuz where the checkpoint has e4m3fn."""


def weight_types(function: func.FuncOp) -> dict[str, WeightType]:
    """The weights of a block function by logical name."""
    block = BlockFunction(function)
    found: dict[str, WeightType] = {}
    for argument in function.body.block.args:
        name = block.weight_name(argument)
        if name is None or not isinstance(argument.type, TensorType):
            continue
        shape = argument.type.at({})
        scale = argument.type.block_scale
        scale_shape = None
        if scale is not None:
            rows, cols = -(-shape[-2] // scale.rows.data), -(-shape[-1] // scale.cols.data)
            scale_shape = (*shape[:-2], rows, cols)
        found[name] = WeightType(
            shape,
            argument.type.dtype_name,
            scale_shape,
            str(scale.dtype) if scale else "",
            scale.rows.data if scale else 1,
            _split_of(function, argument.index, len(shape)),
            argument.type.dtype_name == "f8E4M3FNUZ" and block.is_stored_as(argument, "f8E4M3FN"),
        )
    return found


def _split_of(function: func.FuncOp, index: int, num_axes: int) -> int | None:
    state = function.arg_attrs.data[index].data.get(SHARD) if function.arg_attrs else None
    return state.axis.data - num_axes if isinstance(state, SplitAttr) else None


def want_of(candidate: Candidate, operand: str) -> Want | None:
    """What the candidate's lowering wants of a weight operand.

    None where another operand's concatenated form already brings it.
    """
    assert candidate.lowering is not None
    weights = candidate.weight_operands
    for form in candidate.lowering.weights.values():
        if operand in form.concat[1:]:
            return None
    form: WeightForm = candidate.lowering.form(operand)
    if form.concat:
        return Want(tuple(weights[o] for o in form.concat), form.perm, form.axis)
    return Want((weights[operand],), form.perm)


@dataclass(frozen=True)
class Storage:
    """A block kind's stored weights: disjoint wants that hold every weight once."""

    types: dict[str, WeightType]
    wants: tuple[Want, ...]
    holder: dict[str, Want] = field(init=False)

    def __post_init__(self) -> None:
        holder = {part: want for want in self.wants for part in want.parts}
        for name in self.types:
            holder.setdefault(name, Want((name,)))
        object.__setattr__(self, "holder", holder)

    def refusal(self, candidate: Candidate) -> str | None:
        """Why the candidate cannot run on weights stored so, None if it can."""
        for operand in candidate.weight_operands:
            want = want_of(candidate, operand)
            if want is None or self.gives(want):
                continue
            stored = self.holder[want.parts[0]].stored_name
            return f"wants {operand} stored as {want.stored_name}, the plan stores {stored}"
        return None

    def gives(self, want: Want) -> bool:
        """Whether a lowering that wants this form can read it."""
        stored = self.holder[want.parts[0]]
        if stored == want:
            return True
        whole = Want(want.parts) == want  # row-major part of a row-major concatenation
        return len(want.parts) == 1 and whole and len(stored.parts) > 1 and not stored.perm

    def view(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
        """Where the weight that `operand` names lies, in the form the candidate wants."""
        weight = candidate.block.weight_name(value)
        assert weight is not None
        want = want_of(candidate, operand) or Want((weight,))
        stored = self.holder[want.parts[0]]
        whole = self._dense(stored, scale)
        if stored == want:
            return whole
        start = 0
        for part in stored.parts:
            extent = self._shape(part, scale)[stored.axis]
            if part == weight:
                return slice_view(whole, stored.axis, start, start + extent)
            start += extent
        raise KeyError(f"{weight} is not stored in {stored.stored_name}")

    def _shape(self, part: str, scale: bool) -> tuple[int, ...]:
        kind = self.types[part]
        if not scale:
            return kind.shape
        if kind.scale_shape is None:
            raise KeyError(f"{part} has no block scales")
        return kind.scale_shape

    def _dense(self, stored: Want, scale: bool) -> View:
        kind = self.types[stored.parts[0]]
        shape: list[int] = list(self._shape(stored.parts[0], scale))
        shape[stored.axis] = sum(self._shape(p, scale)[stored.axis] for p in stored.parts)
        if stored.perm:
            shape = [shape[i] for i in stored.perm]
        name = stored.stored_name + (":scale" if scale else "")
        return dense("weight", name, kind.scale_dtype if scale else kind.dtype, tuple(shape))

    def stored_weights(self, used: frozenset[str]) -> tuple[StoredWeight, ...]:
        """The tensors to store, scales apart, for the stored names that programs read."""
        out: list[StoredWeight] = []
        for want in sorted(set(self.holder.values())):
            has_scales = self.types[want.parts[0]].scale_shape is not None
            steps: list[Step] = []
            if self.types[want.parts[0]].is_reencoded:
                steps.append(Step(kind="reencode", dtype="f8E4M3FNUZ"))
            if len(want.parts) > 1:
                steps.append(Step(kind="concat", axis=want.axis))
            if want.perm:
                steps.append(Step(kind="transpose", perm=want.perm))
            splits = tuple(self.types[part].split for part in want.parts)
            for scale in (False, True) if has_scales else (False,):
                view = self._dense(want, scale)
                if view.name in used:
                    out.append(
                        StoredWeight(
                            name=view.name,
                            dtype=view.dtype,
                            shape=view.shape,
                            steps=tuple(steps),
                            parts=want.parts,
                            scale=scale,
                            splits=splits if any(splits) else (),
                        )
                    )
        return tuple(out)


def concat_refusal(types: dict[str, WeightType], want: Want) -> str | None:
    """Why weights cannot lie behind one another as the want says, None if they can."""
    first = types[want.parts[0]]
    for part in want.parts[1:]:
        other = types[part]
        if (other.dtype, other.scale_shape is None) != (first.dtype, first.scale_shape is None):
            return f"{part} is stored as {other.dtype}, {want.parts[0]} as {first.dtype}"
    for part in want.parts[:-1]:
        kind = types[part]
        blocked = kind.scale_shape is not None and want.axis == len(kind.shape) - 2
        if blocked and kind.shape[want.axis] % kind.scale_rows:
            return f"{part} ends inside a scale block, so nothing can lie behind it"
    return None
