"""The forms in which lowerings read weights. Knows no layout and no checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.plan.candidate import Candidate
from lostwax.ir.contract.weights import Quantised, WeightForm


@dataclass(frozen=True, slots=True)
class Want:
    """A form in which a lowering reads one weight, or several behind one another."""

    parts: tuple[str, ...]
    perm: tuple[int, ...] = ()
    axis: int = 0
    pad: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    quantised: Quantised | None = None

    @property
    def stored_name(self) -> str:
        """The stored tensor's name."""
        quantised = "" if self.quantised is None else f"@{self.quantised}"
        perm = "" if not self.perm else "@" + "".join(map(str, self.perm))
        pad = "" if not self.pad else "@pad" + "x".join(map(str, self.pad))
        tile = "" if not self.tile else "@tile" + "x".join(map(str, self.tile))
        return "+".join(self.parts) + quantised + perm + pad + tile

    @property
    def is_row_major(self) -> bool:
        """Whether its parts lie as the module has them."""
        return not (self.perm or self.pad or self.tile or self.quantised)

    def __lt__(self, other: Want) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[object, ...]:
        """What ties go by."""
        return self.parts, self.perm, self.axis, self.pad, self.tile, str(self.quantised or "")


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
    parts = tuple(weights[o] for o in form.concat) if form.concat else (weights[operand],)
    axis = form.axis if form.concat else 0
    return Want(parts, form.perm, axis, form.pad, form.tile, form.quantised)
