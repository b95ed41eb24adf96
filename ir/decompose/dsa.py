"""The meaning of the `dsa` ops in ONNX operators."""

from __future__ import annotations

from lostwax.ir.decompose.block_scale import real
from lostwax.ir.decompose.body import Body, Value
from lostwax.ir.decompose.cache_bytes import rows_at
from lostwax.ir.decompose.paging import pages_of_rows, slots_at
from lostwax.ir.dialects import dsa
from lostwax.ir.types import CacheType, tensor

NEVER = float("-inf")


def index_logits(b: Body, op: dsa.IndexLogitsOp) -> Value:
    """scale * sum_h weights[t, h] * relu(q[t, h] . k[s]); -inf where s > positions[t]."""
    kind = op.cache_in.type
    assert isinstance(kind, CacheType)
    pages = pages_of_rows(b, b.value("q").extent(0))  # [T, P]
    column = b.counting(pages.extent(1) * kind.page_tokens.data)
    hidden = column.at(0) > b.index("positions").at(1)  # [T, S]; -1 sees nothing
    everywhere = b.where(hidden, 0, column.at(0))
    keys = rows_at(b, b.value("cache_in"), kind, slots_at(b, pages, kind, everywhere))
    scores = b("Relu", real(b, "q", tensor(op.q.type, "q")) @ keys.transpose(0, 2, 1))  # [T, H, S]
    mixed = b.real("weights").at(1) @ scores  # [T, 1, S]
    logits = b("Squeeze", mixed, b.ints(1)) * b.attribute("scale")
    return b.where(hidden, NEVER, logits)


def topk(b: Body, op: dsa.TopkOp) -> Value:
    """The k largest as a set: ascending positions, then -1.

    NaN would rank first in ONNX's `TopK`: it becomes -inf, which is never chosen.
    """
    logits, k = b.value("logits"), b.attribute("k").at(0)
    logits = b.where(b("IsNaN", logits, dtype="bool"), NEVER, logits)
    columns = logits.extent(-1)
    count = b("Min", k, columns)
    best, index = b.top(logits, count)
    behind = b.scalar(columns)  # sorts after every position
    index, _ = b.top(b.where(best > NEVER, index, behind), count, largest=False)
    index = b.where(index.equals(behind), -1, index)
    none = b.constant(-1, "i64")
    pads = b("Concat", b.ints(0, 0, 0), k - count, axis=0)
    return b("Pad", index, pads, none)


def all_(b: Body, op: dsa.AllOp) -> Value:
    """Every visible position, ascending, then -1; at most k of them."""
    column = b.counting(b.attribute("k")).at(0)
    return b.where(column <= b.index("positions").at(1), column, -1)


def hadamard(b: Body, op: dsa.HadamardOp) -> Value:
    """x H / sqrt(D): H[i, j] is -1 where i and j have an odd number of bits in common."""
    x = b.real("x")
    index = b.counting(x.extent(-1))
    odd = b("BitwiseAnd", index.at(1), index.at(0))
    for bits in (16, 8, 4, 2, 1):  # fold the bits onto the lowest, which becomes their parity
        odd = b("BitwiseXor", odd, odd // (1 << bits))
    sign = b.constant(1, "i64") - odd % 2 * 2
    return x @ sign.to(b.compute) / b("Sqrt", x.extent(-1).to(b.compute))
