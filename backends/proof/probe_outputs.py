"""What a golden probe expects: samples of the reference's outputs, in few bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import compress
from math import ceil, log2, prod

import numpy as np
from xdsl.ir import Operation, SSAValue

from lostwax.backends.proof.check import DECIDES, agreement_of
from lostwax.backends.proof.probe_inputs import ProbeInputs
from lostwax.backends.proof.run_alone import Alone
from lostwax.backends.proof.samples import sampled_columns
from lostwax.backends.proof.step_cases import StepCase
from lostwax.backends.proof.tolerance import Tolerance
from lostwax.backends.runtime.draw import as_rows, kept_whole
from lostwax.backends.runtime.run_probe import row_digests
from lostwax.ir.contract.probe import CacheRows, Expected, Kept
from lostwax.ir.contract.program import View
from lostwax.ir.contract.step import TRASH_PAGE
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import (
    NUMPY_DTYPES,
    Array,
    Real,
    Scaled,
    dtype_name,
    widen,
)
from lostwax.ir.types import CacheType, TensorType

GUARD_BITS = 6
"""Kept numbers are rounded so far below the tolerance: then no machine's last bit shows in them."""


def rounded(values: Real, bits: int) -> Array:
    """The values with `bits` of mantissa, in f32 where that holds them."""
    mantissa, exponent = np.frexp(values)
    finite = np.isfinite(values)
    near = np.where(finite, np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent), values)
    return near.astype(np.float32 if bits <= 23 else np.float64)


def expected_outputs(
    alone: Alone,
    inputs: ProbeInputs,
    tolerance: Tolerance,
    steady: Mapping[SSAValue, Array],
) -> Iterator[Expected]:
    """What each output of the region must be in its samples, after their reference ran; of those in
    `steady` the rows that are named there."""
    bits = ceil(-log2(tolerance.max_error)) + GUARD_BITS
    outputs = _outputs(alone)
    for name, value in outputs.items():
        view = alone.value(value, alone.candidate, name, scale=False)
        kind, bound = value.type, inputs.values[value]
        if isinstance(kind, CacheType):
            yield _cache(name, value, view, bits, alone, inputs)
            continue
        assert isinstance(kind, TensorType)
        assert not isinstance(bound, CacheBytes)
        at = _sampled_rows(kind, inputs)
        if kind.dtype_name.startswith("i"):
            assert isinstance(bound, np.ndarray)
            least = tolerance.agreement if _decides_inside(alone, value.owner) else 1.0
            digests = row_digests(bound.astype(NUMPY_DTYPES[kind.dtype_name]))
            yield Expected(
                name=name, kind="integers", view=view, want=kept_whole(digests, "u8"), at=at,
                agreement=least,
            )  # fmt: skip
            continue
        columns = inputs.sample.columns[value]
        given = inputs.sample.given[value]
        wide = as_rows(widen(bound))
        want = wide[:, columns if given is None else np.searchsorted(given, columns)]
        scaled, rows_of = isinstance(bound, Scaled), _chosen_by(value.owner, outputs)
        if value in steady and not rows_of:  # these are compared where rows of both agree
            want, at = want[steady[value]], tuple(compress(at, steady[value]))
        yield Expected(
            name=name,
            kind="values",
            view=view,
            want=_rounded(want, bits),
            at=at,
            columns=_unless_all(columns, prod(view.shape[1:])),
            real=inputs.rows.real(kind),
            finite=bool(np.isfinite(wide).all()),
            scale=alone.value(value, alone.candidate, name, scale=True) if scaled else None,
            cols=bound.cols if isinstance(bound, Scaled) else 1,
            agreement=agreement_of(alone.candidate.region, value),
            rows_of=rows_of,
        )


def _rounded(want: Real, bits: int) -> Kept:
    few = rounded(want, bits)
    return kept_whole(few, dtype_name(few))


def _unless_all(columns: Array, width: int) -> tuple[int, ...]:
    return () if columns.size == width else tuple(int(c) for c in columns)


def _sampled_rows(kind: TensorType, inputs: ProbeInputs) -> tuple[int, ...]:
    rows = inputs.rows.of(kind)
    if rows is None:
        rows = np.arange(kind.at(inputs.rows.full.env)[0])
    return tuple(int(row) for row in rows)


def _outputs(alone: Alone) -> dict[str, SSAValue]:
    found: dict[str, SSAValue] = {}
    for name in alone.candidate.region.region.outputs:
        bound = alone.candidate.region.values[name]
        assert isinstance(bound, SSAValue)  # results are never variadic in a pattern
        found[name] = bound
    return found


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


def _cache(
    name: str, value: SSAValue, view: View, bits: int, alone: Alone, inputs: ProbeInputs
) -> Expected:
    """The slots that the region's appends write, and what sampled rows then hold there."""
    kind = value.type
    assert isinstance(kind, CacheType)
    page_tokens = kind.page_tokens.data
    whole = _written(alone, value, inputs.rows.full)
    rows = inputs.rows.chosen["T"]
    wanted = np.unique(inputs.rows.full.inputs["slots"][rows])
    wanted = wanted[wanted // page_tokens != TRASH_PAGE]
    held = _held_rows(inputs, value, wanted, page_tokens)
    columns = sampled_columns(held.shape[1])
    return Expected(
        name=name,
        kind="cache",
        view=view,
        want=_rounded(held[:, columns], bits),
        at=tuple(int(i) for i in np.searchsorted(whole, wanted)),
        columns=_unless_all(columns, held.shape[1]),
        real=whole.size,
        agreement=agreement_of(alone.candidate.region, value),
        cache=CacheRows(
            layout=kind.layout.data,
            row=kind.row,
            page_tokens=page_tokens,
            slots=tuple(int(s) for s in whole),
        ),
    )


def _written(alone: Alone, value: SSAValue, case: StepCase) -> Array:
    """Slots outside the trash page that the region's appends write, ascending."""
    members = alone.candidate.region.members
    assert isinstance(value.owner, AppendOp)
    assert value.owner in members
    each: Array = np.unique(case.inputs["slots"])
    return each[each // case.page_tokens != TRASH_PAGE]


def _held_rows(inputs: ProbeInputs, value: SSAValue, slots: Array, page_tokens: int) -> Array:
    """[slots, width] fp64: what the sampled pages hold after the region."""
    bound, pages = inputs.values[value], inputs.rows.chosen["N"]
    place = np.searchsorted(pages, slots // page_tokens) * page_tokens + slots % page_tokens
    if isinstance(bound, CacheBytes):
        return bound.rows(place)
    assert isinstance(bound, np.ndarray)
    return widen(bound.reshape(-1, bound.shape[-1])[place])
