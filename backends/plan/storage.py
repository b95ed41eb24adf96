"""How a block kind's weights are stored: one copy that every program's lowerings can read.

Weight forms couple programs; this file only says which forms a plan satisfies and where a weight
lies under it. `choose_storage.py` chooses the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.ir import SSAValue

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.form_steps import (
    form_refusal,
    joined_axis,
    laid_out,
    layout_steps,
    quantised_steps,
    tensor_steps,
)
from lostwax.backends.plan.read_steps import held_steps, one_tensor, stacked
from lostwax.backends.plan.views import dense, slice_view
from lostwax.backends.plan.want import Want, want_of
from lostwax.backends.plan.weight_type import WeightType
from lostwax.ir.contract.program import View
from lostwax.ir.contract.weights import Concat, Step, StoredWeight, WeightPart


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
            impossible = form_refusal(self.types, want)
            if impossible is not None:
                return f"wants {operand} in a form that cannot be: {impossible}"
            stored = self.holder[want.parts[0]].stored_name
            return f"wants {operand} stored as {want.stored_name}, the plan stores {stored}"
        return None

    def gives(self, want: Want) -> bool:
        """Whether a lowering that wants this form can read it."""
        stored = self.holder[want.parts[0]]
        if stored == want:
            return True
        part_of = len(want.parts) == 1 and want.is_row_major
        return part_of and len(stored.parts) > 1 and stored.is_row_major

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
            extent = laid_out(part, self.types[part], stored, scale).shape[stored.axis]
            if part == weight:
                return slice_view(whole, stored.axis, start, start + extent)
            start += extent
        raise KeyError(f"{weight} is not stored in {stored.stored_name}")

    def _dense(self, stored: Want, scale: bool) -> View:
        each = [laid_out(part, self.types[part], stored, scale) for part in stored.parts]
        shape, axis = list(each[0].shape), joined_axis(stored)
        shape[axis] = sum(e.shape[axis] for e in each)
        name = stored.stored_name + (":scale" if scale else "")
        return dense("weight", name, each[0].dtype, tuple(shape))

    def stored_weights(self, used: frozenset[str]) -> tuple[StoredWeight, ...]:
        """How the stored names that programs read are made of the checkpoint, scales apart."""
        return self._stored(used, of_checkpoint=True)

    def held_weights(self, used: frozenset[str]) -> tuple[StoredWeight, ...]:
        """How they are made of the module's own weights: one rank's, stacked, in its format."""
        return self._stored(used, of_checkpoint=False)

    def _stored(self, used: frozenset[str], of_checkpoint: bool) -> tuple[StoredWeight, ...]:
        out: list[StoredWeight] = []
        for want in sorted(set(self.holder.values())):
            kind = self.types[want.parts[0]]
            for scale in (False, True) if want.quantised or kind.scale else (False,):
                view = self._dense(want, scale)
                if view.name not in used:
                    continue
                steps = layout_steps(kind, want, scale)
                joined = (Concat(joined_axis(want)),) if len(want.parts) > 1 else ()
                steps = (*self._first(kind, want, scale, of_checkpoint), *steps, *joined)
                out.append(
                    StoredWeight(
                        name=view.name,
                        dtype=view.dtype,
                        shape=view.shape,
                        parts=tuple(self._part(name, of_checkpoint) for name in want.parts),
                        steps=steps,
                    )
                )
        return tuple(out)

    def _part(self, name: str, of_checkpoint: bool) -> WeightPart:
        kind = self.types[name]
        return kind.part(name) if of_checkpoint else kind.held(name)

    def _first(
        self, kind: WeightType, want: Want, scale: bool, of_checkpoint: bool
    ) -> tuple[Step, ...]:
        """The steps before what lies where."""
        if not of_checkpoint:
            return (*quantised_steps(kind, want), *tensor_steps(kind, want, scale))
        held = held_steps(kind.stored, kind.dtype, kind.scale, kind.split)
        if want.quantised is None:
            one = one_tensor(kind.stored, kind.dtype, kind.scale, scale)
        else:
            one = tensor_steps(kind, want, scale)
        return (*held, *quantised_steps(kind, want), *one, *stacked(kind.stored))
