"""What a golden probe expects: the reference's outputs, cut to what a comparison needs."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2

import numpy as np
from xdsl.ir import Operation, SSAValue

from lostwax.backends.proof.check import DECIDES
from lostwax.backends.proof.probe_inputs import ProbeInputs
from lostwax.backends.proof.run_alone import Alone
from lostwax.backends.proof.tolerance import Tolerance
from lostwax.backends.runtime.draw import as_rows, kept
from lostwax.ir.contract.probe import CacheRows, Expected
from lostwax.ir.contract.step import TRASH_PAGE
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Array, Real, Scaled, dtype_name, widen
from lostwax.ir.types import CacheType, TensorType

KEPT_COLUMNS = 64
"""Of a wider row every n-th number is kept: a wrong kernel is not wrong in the others alone."""
GUARD_BITS = 6
"""Kept numbers are rounded so far below the tolerance: then no machine's last bit shows in them."""


def rounded(values: Real, bits: int) -> Array:
    """The values with `bits` of mantissa, in f32 where that holds them."""
    mantissa, exponent = np.frexp(values)
    finite = np.isfinite(values)
    near = np.where(finite, np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent), values)
    return near.astype(np.float32 if bits <= 23 else np.float64)


def expected_outputs(alone: Alone, inputs: ProbeInputs, tolerance: Tolerance) -> Iterator[Expected]:
    """What each output of the region must be, after its ops were evaluated."""
    bits = ceil(-log2(tolerance.max_error)) + GUARD_BITS
    outputs = _outputs(alone)
    for name, value in outputs.items():
        view = alone.value(value, alone.candidate, name, scale=False)
        kind, bound = value.type, inputs.values[value]
        if isinstance(kind, CacheType):
            cache, rows = _written(alone, value, kind, inputs)
            stride = _stride(rows)
            want = rounded(rows[:, ::stride], bits)
            yield Expected(
                name=name, kind="cache", view=view, want=kept(want, dtype_name(want)),
                stride=stride, cache=cache,
            )  # fmt: skip
            continue
        assert isinstance(kind, TensorType)
        if kind.dtype_name.startswith("i"):
            assert isinstance(bound, np.ndarray)
            least = tolerance.agreement if _decides_inside(alone, value.owner) else 1.0
            want = kept(bound, kind.dtype_name)
            yield Expected(name=name, kind="integers", view=view, want=want, agreement=least)
            continue
        assert not isinstance(bound, CacheBytes)
        wide = as_rows(widen(bound))
        stride = _stride(wide)
        want = rounded(wide[:, ::stride], bits)
        scaled = bound if isinstance(bound, Scaled) else None
        yield Expected(
            name=name,
            kind="values",
            view=view,
            want=kept(want, dtype_name(want)),
            stride=stride,
            scale=alone.value(value, alone.candidate, name, scale=True) if scaled else None,
            rows=scaled.rows if scaled else 1,
            cols=scaled.cols if scaled else 1,
            rows_of=_chosen_by(value.owner, outputs),
        )


def _outputs(alone: Alone) -> dict[str, SSAValue]:
    found: dict[str, SSAValue] = {}
    for name in alone.candidate.region.region.outputs:
        bound = alone.candidate.region.values[name]
        assert isinstance(bound, SSAValue)  # results are never variadic in a pattern
        found[name] = bound
    return found


def _stride(values: Array) -> int:
    """Odd, so that it meets all of a power of two's residues."""
    return max(values.shape[-1] // KEPT_COLUMNS, 1) | 1


def _decides_inside(alone: Alone, op: object) -> bool:
    """Whether an op chooses by scores that the region computes, with its own rounding."""
    assert isinstance(op, Operation)
    field = DECIDES.get(op.name)
    return field is not None and getattr(op, field).owner in alone.candidate.region.members


def _chosen_by(op: object, outputs: dict[str, SSAValue]) -> tuple[str, ...]:
    """The integer outputs of the same op: its numbers count where those agree."""
    assert isinstance(op, Operation)
    if op.name not in DECIDES:
        return ()
    return tuple(
        name
        for name, value in outputs.items()
        if value.owner is op
        and isinstance(value.type, TensorType)
        and value.type.dtype_name.startswith("i")
    )


def _written(
    alone: Alone, value: SSAValue, kind: CacheType, inputs: ProbeInputs
) -> tuple[CacheRows, Array]:
    """The slots that the region's appends write, and the rows that they then hold."""
    bound = inputs.values[value]
    members, page_tokens = alone.candidate.region.members, kind.page_tokens.data
    slots: list[Array] = []
    while isinstance(value.owner, AppendOp) and value.owner in members:
        written = inputs.values[value.owner.slots]
        assert isinstance(written, np.ndarray)
        slots.append(widen(written))
        value = value.owner.cache_in
    each: Array = np.unique(np.concatenate(slots))
    each = each[each // page_tokens != TRASH_PAGE]
    if isinstance(bound, CacheBytes):
        rows = bound.rows(each)
    else:
        assert isinstance(bound, np.ndarray)
        rows = widen(bound.reshape(-1, bound.shape[-1])[each])
    cache = CacheRows(
        layout=kind.layout.data,
        row=kind.row,
        page_tokens=page_tokens,
        slots=tuple(int(s) for s in each),
    )
    return cache, rows
