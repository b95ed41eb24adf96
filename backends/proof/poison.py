"""What no real row may depend on, made to show: padded rows, and cached rows that nothing wrote.

Rows of padding hold NaN (selections: any position), and so do the trash page, the tokens of a page
behind its request's length and state rows that nobody reads. Knows no lowering.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from xdsl.ir import Attribute, SSAValue

from lostwax.backends.plan.row_axes import ROWS, STATES, Axes
from lostwax.backends.proof.inputs import WEIGHTS, roles
from lostwax.backends.proof.step_cases import StepCase
from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import Array, Scaled
from lostwax.ir.reference.interpret import Bound
from lostwax.ir.region import RegionMatch
from lostwax.ir.types import CacheType, TensorType


def real_rows(kind: Attribute, case: StepCase) -> int | None:
    """How many indexes of a value's first axis, from the first on, are rows with a token.

    None where that axis is no axis of a step's rows.
    """
    return int(case.inputs["num_rows"][0]) if axes_of(case).is_counted(kind) else None


def axes_of(case: StepCase) -> Axes:
    """What first axes are: rows of decode programs are written as multiples of the requests."""
    rows, reqs = case.env.get(ROWS, 0), case.env.get("B", 0)
    return Axes(rows // reqs if reqs and rows % reqs == 0 else None)


def holds_nan(match: RegionMatch, value: SSAValue) -> bool:
    """Whether a tensor's rows without a token hold NaN: no weight, no step input, no integers."""
    used = roles(match, value)
    is_integer = isinstance(value.type, TensorType) and value.type.dtype_name.startswith("i")
    is_step = not {field for _, field in used}.isdisjoint(STEP_INPUTS)
    return not (used & WEIGHTS or is_step or is_integer)


def poisoned(
    match: RegionMatch, case: StepCase, values: Mapping[SSAValue, Bound]
) -> dict[SSAValue, Bound]:
    """The region's inputs with NaN wherever the contract says nothing of what is held."""
    found = dict(values)
    for value, bound in values.items():
        kind = value.type
        if isinstance(kind, CacheType):
            assert not isinstance(bound, Scaled)
            found[value] = _poisoned_cache(bound, cached_tokens(case))
            continue
        assert isinstance(kind, TensorType)
        assert not isinstance(bound, CacheBytes)
        real = real_rows(kind, case)
        if ("mla.attend", "selection") in roles(match, value):
            assert isinstance(bound, np.ndarray)
            found[value] = _any_positions(bound, real or 0, case)
        elif holds_nan(match, value) and axes_of(case).symbol(kind) == STATES:
            found[value] = _with_nan(bound, _unread_states(case))
        elif holds_nan(match, value) and real is not None:
            found[value] = _with_nan(bound, slice(real, None))
    return found


def cached_tokens(case: StepCase) -> Array:
    """[N]: how many tokens of each page, from the first on, some request has; 0 of the trash page.

    A region that appends finds its own rows' places among them.
    """
    held = np.zeros(case.env["N"], np.int64)
    for length, pages in zip(case.inputs["kv_lens"], case.inputs["page_table"], strict=True):
        for index in range(-(-int(length) // case.page_tokens)):
            held[pages[index]] = min(int(length) - index * case.page_tokens, case.page_tokens)
    return held


def _poisoned_cache(cache: Cache, held: Array) -> Cache:
    tokens = cache.shape[1]
    unwritten = np.arange(tokens) >= held[:, None]  # [N, tokens]
    if not isinstance(cache, CacheBytes):
        out = cache.copy()
        out[unwritten] = np.nan
        return out
    rows = cache.tokens().copy()
    rows[unwritten.reshape(-1)] = 0xFF  # NaN in f32, bf16 and e4m3fn
    return cache.of_tokens(rows)


def _with_nan(bound: Array | Scaled, rows: slice | Array) -> Array | Scaled:
    if isinstance(bound, Scaled):
        values, scales = bound.values.copy(), bound.scales.copy()
        scales[rows] = np.nan
        if not np.issubdtype(values.dtype, np.integer):  # si8 has no NaN
            values[rows] = np.nan
        return Scaled(values, scales, bound.rows, bound.cols)
    out = bound.copy()
    out[rows] = np.nan
    return out


def _unread_states(case: StepCase) -> Array:
    """bool [S]: rows of the hidden state that the step does not continue."""
    index = case.inputs.get("logit_rows", case.inputs.get("hidden_rows"))
    assert index is not None
    unread = np.ones(case.env[STATES], bool)
    unread[index[index >= 0]] = False
    return unread


def _any_positions(selection: Array, real: int, case: StepCase) -> Array:
    """Positions that lie within the page table, in any order: what was chosen of NaN."""
    out = selection.copy()
    rng = np.random.default_rng([case.seed, 2])
    columns = case.env["P"] * case.page_tokens
    out[real:] = rng.integers(-1, columns, out[real:].shape)
    return out
