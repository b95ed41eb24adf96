"""Certifies a lowering: runs it on seeded cases and compares with its region's references.

Rows without a token are poisoned in what goes in and not compared in what comes out. How a lowering
runs is the caller's; whether the evidence is `executed` or less is, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import IRDLOperation

from lostwax.backends.proof.inputs import flat_inputs, region_values
from lostwax.backends.proof.poison import poisoned, real_rows
from lostwax.backends.proof.step_cases import StepCase
from lostwax.backends.proof.tolerance import (
    FP8_AGREEMENT,
    FP8_AGREEMENT_BEHIND_PRODUCTS,
    Tolerance,
    tolerance_of,
)
from lostwax.backends.runtime.compare_outputs import (
    NONE,
    Errors,
    Mismatch,
    cache_errors,
    errors,
    require_same_form,
    rows_agree,
    settled,
    tied_rows_agree,
)
from lostwax.ir.contract.record import Certificate, State
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.dialects.quant import QuantiseOp
from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import Array, Scaled, widen
from lostwax.ir.reference.interpret import Bound, evaluate_ops
from lostwax.ir.reference.sample import nucleus_border
from lostwax.ir.region import RegionMatch
from lostwax.ir.types import CacheType, TensorType

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Inputs by name (see `inputs.py`) to the region's outputs by pattern name, caches whole (as bytes
in a scaled layout), scales as `NAME:scale`."""

DECIDES: dict[str, str] = {
    "dsa.topk": "logits",
    "moe.route": "logits",
    "sample.pick": "logits",
    "sample.score": "logits",
}
"""Operand whose values decide the integers that an op chooses."""


OPEN: dict[str, Callable[..., Array]] = {"sample.nucleus": nucleus_border}
"""By op, elements that its meaning leaves to rounding, as a function of its operands: there the
lowering's value counts as right if it is the operand's or -inf."""


class NotConformant(ValueError):
    """A lowering disagrees with its reference; the message names output, case and bound."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How far one case was off; agreement None where nothing is chosen."""

    worst: Errors
    agreement: float | None


def region_tolerance(match: RegionMatch, waiver: str = "") -> Tolerance:
    """How far the region's results may be off, under a lowering's waiver."""
    return tolerance_of(_dtypes(match), rounds_between=rounds_between(match), waiver=waiver)


def rounds_between(match: RegionMatch) -> bool:
    """Whether products follow on what the region rounds to fp8 behind its own products."""
    rounded = {
        op.out for op in match.members if isinstance(op, QuantiseOp) and _has_products(op.x, match)
    }
    products = (op for op in match.members if op.name in _PRODUCTS)
    return any(operand in rounded for op in products for operand in op.operands)


def _has_products(value: SSAValue, match: RegionMatch) -> bool:
    """Whether a value follows from products that are made inside."""
    op = value.owner
    if not isinstance(op, Operation) or op not in match.members:
        return False
    return op.name in _PRODUCTS or any(_has_products(each, match) for each in op.operands)


def _dtypes(match: RegionMatch) -> set[str]:
    """Element types of all values that the region's ops touch."""
    found: set[str] = set()
    for op in match.ops.values():
        for value in (*op.operands, *op.results):
            if isinstance(value.type, TensorType):
                found.add(value.type.dtype_name)
            elif isinstance(value.type, CacheType):
                # what fp8 caches hold is given: the rows bring the rounding, or it is exact
                element = value.type.form.element
                found |= {element} if element in ("f32", "bf16") else set()
    return found


_PRODUCTS = ("quant.linear", "mla.attend", "moe.experts")
"""Ops that matrix units sum."""


def agreement_of(match: RegionMatch, value: SSAValue) -> float:
    """The share of an output's numbers that must be within the tolerance: all, but of what the
    region rounds to fp8 behind its own sums."""
    if not _rounds_own_sums(match, value):
        return 1.0
    is_behind = any(op.name in _PRODUCTS for op in match.members)
    return FP8_AGREEMENT_BEHIND_PRODUCTS if is_behind else FP8_AGREEMENT


def _rounds_own_sums(match: RegionMatch, value: SSAValue) -> bool:
    """Whether a value is rounded to fp8 inside, from numbers that are made inside."""
    op = value.owner
    if op not in match.members:
        return False
    if isinstance(op, QuantiseOp):
        return op.x.owner in match.members
    if isinstance(op, AppendOp):
        kind = value.type
        assert isinstance(kind, CacheType)  # the op's result
        if kind.form.scale_block:
            return _rounds_own_sums(match, op.rows[0])
        is_fp8 = kind.form.dtypes[0].startswith("f8")
        return is_fp8 and any(row.owner in match.members for row in op.rows)
    return False


def _output_values(match: RegionMatch) -> dict[str, SSAValue]:
    found: dict[str, SSAValue] = {}
    for name in match.region.outputs:
        bound = match.values[name]
        assert isinstance(bound, SSAValue)  # results are never variadic in a pattern
        found[name] = bound
    return found


def _cache_case(
    match: RegionMatch, value: SSAValue, values: Mapping[SSAValue, Bound]
) -> tuple[Cache, Array]:
    """The cache before the region, and the slots that the region writes."""
    slots: list[Array] = []
    while isinstance(value.owner, AppendOp) and value.owner in match.members:
        written = values[value.owner.slots]
        assert isinstance(written, np.ndarray)
        slots.append(widen(written))
        value = value.owner.cache_in
    before = values[value]
    assert not isinstance(before, Scaled)  # caches are arrays or bytes
    return before, np.concatenate(slots)


@dataclass(frozen=True)
class _Comparison:
    """One case: the region's values by the reference, and what the lowering gave."""

    match: RegionMatch
    case: StepCase
    values: Mapping[SSAValue, Bound]
    outputs: Mapping[str, Array]
    waiver: str

    def agreeing_rows(self, op: Operation) -> tuple[Array | None, bool]:
        """Rows whose integers agree, and whether that op's scores come from outside.

        None where the op gives no integers; those of an op that no scores decide agree exactly.
        """
        field = DECIDES.get(op.name)
        scores = None if field is None else getattr(op, field)
        outside = scores is None or scores.owner not in self.match.members
        rows: Array | None = None
        for name, value in _output_values(self.match).items():
            if value.owner is not op or not _is_integer(value):
                continue
            got, want = self.outputs[name], self._want(value)
            require_same_form(name, got, want)
            real = self._real(value)
            self._require_padding(name, op, got[real.stop :])
            got, want = got[real], want[real]
            if self.waiver == "tie_order" and scores is not None:
                agree = tied_rows_agree(got, want, widen(self._want(scores)))
            else:
                agree = rows_agree(got, want, as_sets=False)
            rows = agree if rows is None else rows & agree
        return rows, outside

    def _real(self, value: SSAValue) -> slice:
        """The rows of an output that have a token: the others hold anything."""
        want = self.values[value]
        rows = real_rows(value.type, self.case)
        return slice(0, want.shape[0] if rows is None else rows)

    def _require_padding(self, name: str, op: Operation, padding: Array) -> None:
        """What others read memory by is bounded in rows without a token, too."""
        if op.name == "moe.route" and (padding != -1).any():
            raise Mismatch(f"{name}: a row without a token reaches an expert")
        columns = self.case.env.get("P", 0) * self.case.page_tokens
        if op.name.startswith("dsa.") and ((padding < -1) | (padding >= columns)).any():
            raise Mismatch(f"{name}: a row without a token selects beyond the page table")

    def _want(self, value: SSAValue) -> Array:
        want = self.values[value]
        assert isinstance(want, np.ndarray)  # callers ask for neither scaled values nor caches
        return want

    def _scaled_error(self, name: str, want: Scaled, real: slice, share: float) -> Errors:
        """Errors of fp8 values times their scales."""
        values, scales = self.outputs[name], self.outputs[f"{name}:scale"]
        require_same_form(name, values, want.values)
        require_same_form(f"{name}:scale", scales, want.scales)
        got = widen(Scaled(values, scales, want.rows, want.cols))[real]
        wanted = widen(want)[real]
        return errors(name, settled(got, wanted, share), wanted)

    def _cache_error(self, name: str, value: SSAValue) -> Errors:
        want, share = self.values[value], 1.0 - agreement_of(self.match, value)
        before, slots = _cache_case(self.match, value, self.values)
        if isinstance(want, CacheBytes) and isinstance(before, CacheBytes):
            got = self.outputs[name]
            if got.size != want.data.size or got.dtype != want.data.dtype:
                raise Mismatch(f"{name}: got {got.dtype} {list(got.shape)}, want {want.data.shape}")
            return cache_errors(
                name, want.holding(got).tokens(), want.tokens(), before.tokens(), slots,
                want.page_tokens, want.decode, share,
            )  # fmt: skip
        assert isinstance(want, np.ndarray)
        assert isinstance(before, np.ndarray)
        got, width = self.outputs[name], want.shape[2]
        require_same_form(name, got, want)
        return cache_errors(
            name, got.reshape(-1, width), want.reshape(-1, width), before.reshape(-1, width),
            slots, want.shape[1], widen, share,
        )  # fmt: skip

    def _settled(self, op: Operation, got: Array, want: Array) -> Array:
        """The lowering's values; where the op leaves a choice and it made one, the reference's."""
        if op.name not in OPEN:
            return got
        given = [self._want(v) for v in op.operands]
        chosen = np.isneginf(got) | (got == given[0])
        return np.where(OPEN[op.name](*given) & chosen, want, got)

    def error(self, name: str, value: SSAValue, rows: Array | None) -> Errors:
        """Errors of one output; floating-point rows count where the op chose the same integers."""
        if isinstance(value.type, CacheType):
            return self._cache_error(name, value)
        wanted = self.values[value]
        if isinstance(wanted, Scaled):
            share = 1.0 - agreement_of(self.match, value)
            return self._scaled_error(name, wanted, self._real(value), share)
        got, want = self.outputs[name], self._want(value)
        require_same_form(name, got, want)
        if _is_integer(value):
            return NONE
        assert isinstance(value.owner, Operation)  # outputs are results
        got = self._settled(value.owner, got, want)
        real = self._real(value)
        got, want = got[real], want[real]
        if rows is not None:
            got, want = got[rows], want[rows]
        return errors(name, got, want)


def _is_integer(value: SSAValue) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype_name.startswith("i")


def _compare(comparison: _Comparison, tolerance: Tolerance) -> CaseResult:
    outputs = _output_values(comparison.match)
    missing = [n for n in outputs if n not in comparison.outputs]
    if missing:
        raise Mismatch(f"the runner gave no {missing[0]}")
    worst, agreement = NONE, None
    for op in comparison.match.ops.values():
        rows, outside = comparison.agreeing_rows(op)
        if rows is not None and rows.size:
            share = float(rows.mean())
            least = 1.0 if outside else tolerance.agreement
            if share < least:
                raise Mismatch(f"{op.name}: {share:.1%} of rows agree, wants {least:.0%}")
            agreement = share if agreement is None else min(agreement, share)
        for name, value in outputs.items():
            if value.owner is op:
                worst = worst.worst(comparison.error(name, value, rows))
    return CaseResult(worst, agreement)


def check_case(
    run: Run, match: RegionMatch, case: StepCase, waiver: str = ""
) -> tuple[CaseResult, bytes]:
    """Run one case and compare; also the digest of its inputs. Raises Mismatch."""
    values = poisoned(match, case, region_values(match, case))
    flat = flat_inputs(match, values, case)
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(f"{name} {flat[name].dtype} {flat[name].shape}".encode())
        digest.update(np.ascontiguousarray(flat[name]).tobytes())
    ops: list[IRDLOperation] = list(match.ops.values())
    with np.errstate(all="ignore"):  # rows without a token hold NaN
        evaluate_ops(ops, values, case.env)
    tolerance = region_tolerance(match, waiver)
    result = _compare(_Comparison(match, case, values, run(flat), waiver), tolerance)
    if result.worst.max_error > tolerance.max_error or result.worst.rms_error > tolerance.rms_error:
        raise Mismatch(
            f"error {result.worst.max_error:.2e} max, {result.worst.rms_error:.2e} RMS; allowed "
            f"{tolerance.max_error:.0e} max, {tolerance.rms_error:.0e} RMS"
        )
    return result, digest.digest()


def certify_lowering(
    run: Run,
    match: RegionMatch,
    cases: Iterable[StepCase],
    *,
    lowering: str,
    state: State,
    waiver: str = "",
    binary_digest: str = "",
    tool_versions: Mapping[str, str] | None = None,
) -> Certificate:
    """Evidence over all cases, or NotConformant at the first that disagrees."""
    worst, agreement = NONE, None
    digest = hashlib.sha256()
    count = 0
    for case in cases:
        try:
            result, inputs = check_case(run, match, case, waiver)
        except Mismatch as error:
            sizes = {k: v for k, v in case.env.items() if k != "N"}
            raise NotConformant(
                f"{lowering} is wrong on {'+'.join(o.name for o in match.ops.values())}, sizes "
                f"{sizes}, seed {case.seed}: {error}"
            ) from error
        worst = worst.worst(result.worst)
        if result.agreement is not None:
            agreement = min(result.agreement, 1.0 if agreement is None else agreement)
        digest.update(inputs)
        count += 1
    if count == 0:
        raise ValueError(f"{lowering}: no case was given, so nothing can be certified")
    return Certificate(
        state=state,
        max_error=worst.max_error,
        rms_error=worst.rms_error,
        set_agreement=agreement,
        waiver=waiver,
        input_digest=digest.hexdigest(),
        binary_digest=binary_digest,
        tool_versions=dict(tool_versions or {}),
    )
