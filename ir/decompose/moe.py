"""The meaning of the `moe` ops in ONNX operators."""

from __future__ import annotations

from lostwax.ir.decompose import fp8
from lostwax.ir.decompose.block_scale import dequantise, real
from lostwax.ir.decompose.body import Body, Value, fixed
from lostwax.ir.decompose.core import silu
from lostwax.ir.dialects import moe
from lostwax.ir.types import TensorType, tensor


def route(b: Body, op: moe.RouteOp) -> tuple[Value, Value]:
    """The best experts of the best groups by biased score, weighed by the unbiased scores."""
    experts, groups = fixed(tensor(op.logits.type, "logits").sizes[1]), op.n_group.value.data
    members = experts // groups
    scores = b("Sigmoid", b.real("logits"))
    biased = (scores + b.real("bias")).reshape(-1, groups, members)
    two_best, _ = b.top(biased, b.ints(min(2, members)))
    group_score = b("ReduceSum", two_best, b.ints(-1), keepdims=0)
    _, kept = b.top(group_score, b.attribute("topk_group").at(0))  # [T, topk_group]
    group = b.counting(b.constant(groups, "i64"))
    in_kept = group.at(0, 2).equals(kept.at(1)).to("i64")  # [T, G, topk_group]
    allowed = b("ReduceMax", in_kept, b.ints(-1), keepdims=1).equals(1)
    candidates = b.where(allowed, biased, float("-inf")).reshape(-1, experts)
    _, ids = b.top(candidates, b.attribute("top_k").at(0))
    weights = b("GatherElements", scores, ids, axis=-1)
    total = b("ReduceSum", weights, b.ints(-1), keepdims=1) + 1e-20
    total = b.where(b.attribute("normalise").equals(1), total, 1.0)
    weights = weights / total * b.attribute("scale")
    real = (b.index("positions") >= 0).at(1)
    return b.where(real, ids, -1), b.where(real, weights, 0.0)


def experts(b: Body, op: moe.ExpertsOp) -> Value:
    """The sum over experts of what each adds to the rows that chose it.

    `Scan` cuts each expert's matrices off the stack: `Gather` would refuse fp8.
    """
    kinds = {n: tensor(getattr(op, n).type, n) for n in ("gate", "up", "down")}
    stacks = [(n, kind, b.value(n)) for n, kind in kinds.items()]
    scales = {n: b.value(f"{n}_scale") for n, kind in kinds.items() if kind.block_scale is not None}
    x = real(b, "x", tensor(op.x.type, "x"))
    ids, weights = b.index("ids"), b.real("weights")

    def add_expert(expert: Value, total: Value, *slices: Value) -> tuple[Value, Value]:
        of_scale = dict(zip(scales, slices[3:], strict=True))
        gate, up, down = (
            _matrix(b, s, of_scale.get(n), kind)
            for (n, kind, _), s in zip(stacks, slices[:3], strict=True)
        )
        chose = ids.equals(expert)  # [T, K]
        share = b("ReduceSum", b.where(chose, weights, 0.0), b.ints(1), keepdims=0)
        some = b("ReduceMax", chose.to("i64"), b.ints(1), keepdims=0)
        rows = b("NonZero", some).transpose(1, 0)  # [n, 1]
        mine = b("GatherND", x, rows)
        hidden = silu(b, mine @ gate) * (mine @ up)
        added = (_entering_down(b, op, hidden) @ down) * b("GatherND", share, rows).at(1)
        return expert + 1, b("ScatterND", total, rows, added, reduction="add")

    nothing = b("Expand", b.constant(0, b.compute), b("Shape", x, dtype="i64"))
    first = b.constant(0, "i64")
    scanned = [*(s for _, _, s in stacks), *scales.values()]
    return b.scan((first, nothing), scanned, add_expert, axes=(0, 2))[1]


def _entering_down(b: Body, op: moe.ExpertsOp, hidden: Value) -> Value:
    """As it is, or rounded to fp8 in x's encoding and blocks."""
    if op.hidden_fmt is None:
        return hidden
    x = tensor(op.x.type, "x")
    assert x.block_scale is not None  # the op's verifier
    inner = tensor(op.gate.type, "gate").sizes[1]
    kind = TensorType.of(["n", inner], x.dtype, x.block_scale)
    made = fp8.quantise(b, hidden, kind, x.dtype_name, x.block_scale.cols.data, op.hidden_fmt.data)
    return dequantise(b, *made, kind)


def _matrix(b: Body, values: Value, scale: Value | None, stack: TensorType) -> Value:
    """One expert's matrix of a stack, transposed."""
    if scale is None:
        return values.to(b.compute).transpose(1, 0)
    kind = TensorType.of(stack.sizes[1:], stack.dtype, stack.block_scale)
    return dequantise(b, values, scale, kind).transpose(1, 0)
