"""The meaning of the `mla` ops in ONNX operators: attention in the absorbed form."""

from __future__ import annotations

from lostwax.ir.decompose.block_scale import real
from lostwax.ir.decompose.body import Body, Value, fixed
from lostwax.ir.decompose.cache_bytes import rows_at
from lostwax.ir.decompose.paging import pages_of_rows, slots_at
from lostwax.ir.dialects import mla
from lostwax.ir.types import CacheType, tensor


def attend(b: Body, op: mla.AttendOp) -> Value:
    """softmax((q W_k) c^T + q_pe k_pe^T) c W_v^T over the selected rows c || k_pe.

    The keys' weights are multiplied into the queries and the values' into the context, so only the
    latent rows are gathered: [T, K, C + R].
    """
    query, kv_b = tensor(op.q_nope.type, "q_nope"), tensor(op.kv_b.type, "kv_b")
    heads, nope, latent = (fixed(s) for s in (*query.sizes[1:], kv_b.sizes[1]))
    kind = op.cache_in.type
    assert isinstance(kind, CacheType)

    weights = real(b, "kv_b", kv_b).reshape(heads, -1, latent)
    w_k = weights.columns(0, nope, axis=1)  # [H, Dn, C]
    w_v = weights.columns(nope, 2**31, axis=1)  # [H, Dv, C]

    selection = b.index("selection")
    chosen = selection >= 0  # [T, K]
    position = b("Max", selection, b.constant(0, "i64"))
    slots = slots_at(b, pages_of_rows(b, selection.extent(0)), kind, position)
    rows = rows_at(b, b.value("cache_in"), kind, slots)
    rows = b.where(chosen.at(2), rows, 0.0)  # [T, K, C + R]
    c, k_pe = rows.columns(0, latent), rows.columns(latent, 2**31)

    absorbed = (b.real("q_nope").transpose(1, 0, 2) @ w_k).transpose(1, 0, 2)  # [T, H, C]
    scores = absorbed @ c.transpose(0, 2, 1) + b.real("q_pe") @ k_pe.transpose(0, 2, 1)
    scores = b.where(chosen.at(1), scores * b.attribute("scale"), float("-inf"))
    context = b("Softmax", scores, axis=-1) @ c  # [T, H, C]
    out = context.transpose(1, 0, 2) @ w_v.transpose(0, 2, 1)  # [H, T, Dv]
    out = out.transpose(1, 0, 2).reshape(-1, fixed(kv_b.sizes[0]) - heads * nope)

    some = b("ReduceMax", chosen.to("i64"), b.ints(1), keepdims=0).equals(1)
    seen = some & (b.index("positions") >= 0)  # else a softmax over nothing, which is NaN
    return b.where(seen.at(1), out, 0.0)
