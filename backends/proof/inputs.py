"""Seeded values for a region's boundary inputs, made from their types and roles.

A role is what the region's ops use a value for: a step input, a selection, expert ids, a cache, a
weight. Knows no lowering. Keys are pattern names, `NAME:scale` for block scales and `NAME.0`,
`NAME.1`, … for a variadic operand; `step.NAME` are all step inputs, for what a lowering prepares.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import numpy as np
from xdsl.ir import SSAValue

from lostwax.backends.proof.step_cases import StepCase
from lostwax.backends.runtime.draw import LEAST_ROWS, put_edges
from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import LARGEST, Array, Scaled, Value, round_to
from lostwax.ir.reference.interpret import Bound
from lostwax.ir.reference.quant import quantise
from lostwax.ir.region import RegionMatch
from lostwax.ir.scale_layouts import BlockScaleAttr
from lostwax.ir.types import CacheType, TensorType

Role = tuple[str, str]
"""(op name, operand field)."""

WEIGHTS: frozenset[Role] = frozenset(
    {
        ("quant.linear", "weight"),
        ("mla.attend", "kv_b"),
        ("moe.experts", "gate"),
        ("moe.experts", "up"),
        ("moe.experts", "down"),
    }
)
"""Matrices, drawn at 1/sqrt(width) so that products keep the size of their inputs."""


def named_inputs(match: RegionMatch) -> dict[str, SSAValue]:
    """Boundary inputs by name, variadic operands spread."""
    found: dict[str, SSAValue] = {}
    for name in match.region.inputs:
        bound = match.values[name]
        if isinstance(bound, SSAValue):
            found[name] = bound
        else:
            found.update({f"{name}.{i}": value for i, value in enumerate(bound)})
    return found


def roles(match: RegionMatch, value: SSAValue) -> set[Role]:
    """What the region's ops use a value for."""
    found: set[Role] = set()
    for op in match.ops.values():
        for field, _ in op.get_irdl_definition().operands:
            bound = getattr(op, field)
            if bound is value or (not isinstance(bound, SSAValue) and value in tuple(bound)):
                found.add((op.name, field))
    return found


def _selection(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    """Distinct visible positions of each row, ascending, then -1; some rows see all they can."""
    rows, k = kind.at(case.env)
    out = np.full((rows, k), -1)
    for row, position in enumerate(case.inputs["positions"]):
        count = min(int(position) + 1, k)
        if count > 1 and row % 3 == 2:
            count = int(rng.integers(1, count))
        out[row, :count] = np.sort(rng.choice(int(position) + 1, count, replace=False))
    return out


def _expert_ids(num_experts: int, kind: TensorType, case: StepCase, rng: np.random.Generator):
    rows, k = kind.at(case.env)
    ids = rng.permuted(np.tile(np.arange(num_experts), (rows, 1)), axis=1)[:, :k]
    return np.where(case.inputs["positions"][:, None] >= 0, ids, -1)


def _expert_weights(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    share = rng.uniform(0.1, 1.0, kind.at(case.env))
    share = 2.5 * share / share.sum(axis=-1, keepdims=True)
    return np.where(case.inputs["positions"][:, None] >= 0, share, 0.0)


def _index_logits(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    """-inf outside each row's view; rows with many ties, with nothing but ties, with NaN."""
    rows, columns = kind.at(case.env)
    out = rng.standard_normal((rows, columns))
    out[1::4] = np.round(out[1::4] * 4) / 4
    out[2::4] = 0.0
    out[3::4, ::5] = np.nan
    hidden = np.arange(columns) > case.inputs["positions"][:, None]
    return np.where(hidden, -np.inf, out)


def _logits(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    """Vocabulary logits; the first row's largest value occurs twice."""
    out = 3 * rng.standard_normal(kind.at(case.env))
    out[0, -1] = out[0].max()
    return out


def _activation(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    """Normal rows; the edge ones of probes and a large one where there are enough."""
    out = rng.standard_normal(kind.at(case.env))
    put_edges(out)
    if out.ndim > 1 and out.shape[0] > LEAST_ROWS:
        out[4] *= 20.0
    return out


def _scaled(shape: tuple[int, ...], dtype: str, scale: BlockScaleAttr, rng: np.random.Generator):
    """Normal weights quantised block by block, the largest of a block at the format's maximum."""
    *batch, rows, cols = shape
    high, wide = scale.rows.data, scale.cols.data
    weight = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(cols))
    blocks = (*batch, -(-rows // high), -(-cols // wide))
    scales = np.empty(blocks, np.float32)
    for i in range(blocks[-2]):
        for j in range(blocks[-1]):
            part = weight[..., i * high : (i + 1) * high, j * wide : (j + 1) * wide]
            scales[..., i, j] = np.abs(part).max(axis=(-2, -1)) / LARGEST[dtype]
            part /= scales[..., i, j, None, None]
    return Scaled(round_to(weight, dtype), scales, high, wide)


def _masks(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    """Each bit of each mask is drawn by itself; but the last mask allows id 0 and no other."""
    out = rng.integers(-(2**31), 2**31, kind.at(case.env))
    out[-1] = 0
    out[-1, 0] = 1
    return out


def _counts(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    """Most ids have not come, some have often."""
    shape = kind.at(case.env)
    return np.where(rng.random(shape) < 0.6, 0, rng.integers(0, 12, shape))


def _biases(kind: TensorType, case: StepCase, rng: np.random.Generator) -> Array:
    """Some of the numbers are -inf, but never the first."""
    out = 2 * rng.standard_normal(kind.at(case.env))
    forbidden = rng.random(out.shape) < 0.05
    forbidden[:, 0] = False
    return np.where(forbidden, -np.inf, out)


Make = Callable[[TensorType, StepCase, np.random.Generator], Array]

MAKERS: dict[Role, Make] = {
    ("mla.attend", "selection"): _selection,
    ("moe.experts", "weights"): _expert_weights,
    ("dsa.topk", "logits"): _index_logits,
    ("sample.pick", "logits"): _logits,
    ("sample.penalise", "logits"): _logits,
    ("sample.penalise", "counts"): _counts,
    ("sample.bias", "logits"): _logits,
    ("sample.bias", "biases"): _biases,
    ("sample.mask", "logits"): _logits,
    ("sample.mask", "masks"): _masks,
    ("sample.nucleus", "logits"): _logits,
    ("sample.logprob", "logits"): _logits,
    ("sample.score", "logits"): _logits,
    ("core.rms_norm", "weight"): lambda k, c, r: 1 + 0.1 * r.standard_normal(k.at(c.env)),
    ("core.layer_norm", "weight"): lambda k, c, r: 1 + 0.1 * r.standard_normal(k.at(c.env)),
    ("core.layer_norm", "bias"): lambda k, c, r: 0.1 * r.standard_normal(k.at(c.env)),
    ("moe.route", "bias"): lambda k, c, r: 0.1 * r.standard_normal(k.at(c.env)),
}
"""How values of a special role are drawn; the rest are activations."""

STEP_FIELDS: dict[str, tuple[str, ...]] = {name: (name,) for name in STEP_INPUTS} | {
    "rows": ("logit_rows", "hidden_rows")
}
"""Step inputs by operand field: `core.gather_rows` takes its rows from what its segment has."""


REAL_FIELDS = frozenset(name for name, spec in STEP_INPUTS.items() if spec.dtype == "f32")
"""Step inputs that are no integers; other operands of the same name are."""


def reads_positions_alone(match: RegionMatch) -> bool:
    """Whether a region's ops read positions and no cache: then these may be any."""
    values = [v for op in match.ops.values() for v in (*op.operands, *op.results)]
    fields = {field for value in match.input_values() for _, field in roles(match, value)}
    return "positions" in fields and not any(isinstance(v.type, CacheType) for v in values)


def _num_experts(match: RegionMatch, case: StepCase) -> int:
    for op in match.ops.values():
        if op.name == "moe.experts":
            kind = getattr(op, "gate").type  # noqa: B009  the op class is not known here
            assert isinstance(kind, TensorType)
            return kind.at(case.env)[0]
    raise AssertionError("expert ids without experts")


def _make(match: RegionMatch, value: SSAValue, case: StepCase, rng: np.random.Generator) -> Bound:
    kind, used = value.type, roles(match, value)
    if isinstance(kind, CacheType):
        return _cache(kind, case.env["N"], rng)
    assert isinstance(kind, TensorType)
    is_integer = kind.dtype_name.startswith("i")
    for op_name, field in sorted(used):
        steps = STEP_FIELDS.get(field)
        if steps is not None and (is_integer or field in REAL_FIELDS):
            return next(case.inputs[name] for name in steps if name in case.inputs)
        if (op_name, field) == ("moe.experts", "ids"):
            return round_to(_expert_ids(_num_experts(match, case), kind, case, rng), "i32")
    if used & WEIGHTS:
        shape = kind.at(case.env)
        if kind.block_scale is not None:
            return _scaled(shape, kind.dtype_name, kind.block_scale, rng)
        drawn = rng.standard_normal(shape, dtype=np.float32) / np.sqrt(np.float32(shape[-1]))
        return round_to(drawn, kind.dtype_name)
    special = [MAKERS[role] for role in sorted(used) if role in MAKERS]
    make = special[0] if special else _activation
    if is_integer and not special:
        raise NotImplementedError(
            f"no way to draw integers for {sorted(used)}; add the role to proof/inputs.py"
        )
    drawn = make(kind, case, rng)
    if kind.block_scale is not None:
        block = kind.block_scale.cols.data
        return quantise(drawn, scale_fmt="fp32", dtype=kind.dtype_name, block=block)
    return round_to(drawn, kind.dtype_name)


def _cache(kind: CacheType, pages: int, rng: np.random.Generator) -> Cache:
    """Pages of normal rows; a scaled layout's as bytes."""
    form, tokens = kind.form, kind.page_tokens.data
    rows = rng.standard_normal((pages, tokens, sum(kind.row)))
    if form.element is not None:
        return round_to(rows, form.element)
    parts = np.split(rows.reshape(pages * tokens, -1), np.cumsum(kind.row)[:-1], axis=1)
    first: Value = parts[0]
    if form.scale_block:
        first = quantise(parts[0], scale_fmt="fp32", dtype=form.dtypes[0], block=form.scale_block)
    empty = CacheBytes.zeros(kind.layout.data, pages, tokens, kind.row)
    return empty.written([first, *parts[1:]], np.arange(pages * tokens))


def region_values(
    match: RegionMatch, case: StepCase, without: Container[str] = ()
) -> dict[SSAValue, Bound]:
    """A value for each boundary input but those `without`, the same for the same case."""
    rng = np.random.default_rng([case.seed, 1])
    values: dict[SSAValue, Bound] = {}
    for name, value in named_inputs(match).items():
        if value not in values and name not in without:
            values[value] = _make(match, value, case, rng)
    return values


def flat_inputs(
    match: RegionMatch, values: Mapping[SSAValue, Bound], case: StepCase
) -> dict[str, Array]:
    """What a runner gets: copies by name, scales and step inputs under names of their own."""
    flat: dict[str, Array] = {f"step.{n}": a.copy() for n, a in case.inputs.items()}
    for name, value in named_inputs(match).items():
        drawn = values[value]
        if isinstance(drawn, Scaled):
            flat[name], flat[f"{name}:scale"] = drawn.values.copy(), drawn.scales.copy()
        elif isinstance(drawn, CacheBytes):
            flat[name] = drawn.data.copy()
        else:
            flat[name] = drawn.copy()
    return flat
