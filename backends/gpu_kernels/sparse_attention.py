"""Triton kernels of absorbed sparse MLA: keys split over programs, then combined. Know no target.

Queries are already absorbed (q~ = q_nope W_k). Every rank is padded to a power of two with masks,
so ranks may be multiples of nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.fp8_loads import load_fp8


@triton.jit
def request_of(q_starts, row, reqs, BLOCK_REQS: tl.constexpr):
    """The request that owns a row; of padded rows, which lie behind all requests, the last."""
    request = 0
    for start in range(0, reqs, BLOCK_REQS):
        b = start + tl.arange(0, BLOCK_REQS)
        ends = tl.load(q_starts + 1 + b, mask=b < reqs, other=2147483647)
        request += tl.sum((ends <= row).to(tl.int32), axis=0)
    return tl.minimum(request, reqs - 1)


@triton.jit
def _num_chosen(selection, first, keys, split_keys, BLOCK_KEYS: tl.constexpr):
    """How many of a split's keys a row selects; they stand before its -1 tail."""
    key = tl.arange(0, BLOCK_KEYS)
    count = 0
    for start in range(0, split_keys, BLOCK_KEYS):
        at = first + start + key
        is_key = (start + key < split_keys) & (at < keys)
        chosen = tl.load(selection + at, mask=is_key, other=-1)
        count += tl.sum((chosen >= 0).to(tl.int32), axis=0)
    return count


@triton.jit
def load_keys(
    cache, base, live, latent, rope, kind: tl.constexpr, LATENT: tl.constexpr, ROPE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr, BLOCK_LATENT: tl.constexpr, BYTES: tl.constexpr,
    SCALE_BLOCK: tl.constexpr, FNUZ: tl.constexpr, WIDE_DOT: tl.constexpr,
):  # fmt: skip
    """Latents and rope parts of the rows at `base`, as `kind`; of bytes, fp8 with or without
    scales, in f32 first."""
    inside = live[:, None] & (latent < LATENT)[None, :]
    in_rope = live[:, None] & (rope < ROPE)[None, :]
    at = base[:, None] + latent[None, :]
    if BYTES and SCALE_BLOCK:
        codes = load_fp8(cache, at, inside, FNUZ, WIDE_DOT).to(tl.float32)
        GROUPS: tl.constexpr = (BLOCK_LATENT + SCALE_BLOCK - 1) // SCALE_BLOCK
        SCALES: tl.constexpr = (LATENT + SCALE_BLOCK - 1) // SCALE_BLOCK
        group = tl.arange(0, GROUPS)
        scales = (cache + LATENT).to(tl.pointer_type(tl.float32), bitcast=True)
        scale_at = (base // 4)[:, None] + group[None, :]
        scale = tl.load(
            scales + scale_at, mask=live[:, None] & (group < SCALES)[None, :], other=0.0
        )
        parts = tl.reshape(codes, (BLOCK_KEYS, GROUPS, BLOCK_LATENT // GROUPS)) * scale[:, :, None]
        c = tl.reshape(parts, (BLOCK_KEYS, BLOCK_LATENT))
        of_rope = (cache + LATENT + 4 * SCALES).to(tl.pointer_type(tl.bfloat16), bitcast=True)
        rope_at = (base // 2)[:, None] + rope[None, :]
        k_rope = tl.load(of_rope + rope_at, mask=in_rope, other=0.0)
    elif BYTES:
        c = load_fp8(cache, at, inside, FNUZ, WIDE_DOT)
        k_rope = load_fp8(cache, base[:, None] + LATENT + rope[None, :], in_rope, FNUZ, WIDE_DOT)
    else:
        c = tl.load(cache + at, mask=inside, other=0.0)
        k_rope = tl.load(cache + base[:, None] + LATENT + rope[None, :], mask=in_rope, other=0.0)
    if WIDE_DOT:
        return c.to(tl.float32), k_rope.to(tl.float32)
    else:
        return c.to(kind), k_rope.to(kind)


@triton.jit
def attend_split(
    query,  # [H, T, LATENT] f32, absorbed
    query_rope,  # [T, H, ROPE], any strides
    cache,  # [pages, PAGE, LATENT + ROPE]; with BYTES u8: fp8, with SCALE_BLOCK its f32 scales, one
    # for so many latents, and a bf16 rope part behind them
    selection,  # [T, >= keys] positions ascending, -1 tail; positions of the rows where DENSE
    q_starts,  # [reqs + 1]
    page_table,  # [reqs, pages of one request]
    partial,  # [T, H, splits, LATENT] f32
    partial_max,  # [T, H, splits] f32
    partial_sum,  # [T, H, splits] f32
    out,  # [H, T, LATENT], where SINGLE
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    keys,
    reqs,
    splits,
    split_keys,
    selection_stride,
    rope_row_stride,
    rope_head_stride,
    page_stride,
    token_stride,
    page_table_stride,
    scale,
    HEADS: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_LATENT: tl.constexpr,
    BLOCK_ROPE: tl.constexpr,
    BLOCK_REQS: tl.constexpr,
    BYTES: tl.constexpr,
    SCALE_BLOCK: tl.constexpr,
    FNUZ: tl.constexpr,
    DENSE: tl.constexpr,
    SINGLE: tl.constexpr,
    QUERY_PARTS: tl.constexpr,
    WIDE_DOT: tl.constexpr,
):
    """One split of one row for one block of heads: unnormalised output, running maximum and sum.

    With SINGLE there is one split, whose normalised output goes to `out`. With DENSE the keys are
    the positions 0 .. min(position + 1, keys) - 1. A split without keys leaves sum 0. WIDE_DOT
    takes the dots in f32 (f32 caches; the interpreter, whose bf16 dot is wrong). Else the absorbed
    query enters the dot as a bf16 number, and its rest as another if QUERY_PARTS is 2: scores of
    100 (rows 20 times larger than others) were off by 0.1 without.
    """
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    split = tl.program_id(1)
    head = tl.program_id(2) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    latent = tl.arange(0, BLOCK_LATENT)
    rope = tl.arange(0, BLOCK_ROPE)
    key = tl.arange(0, BLOCK_KEYS)
    in_head = head < HEADS
    in_latent = latent < LATENT
    in_rope = rope < ROPE

    request = request_of(q_starts, row, reqs, BLOCK_REQS)

    first = split.to(tl.int64) * split_keys
    if DENSE:
        visible = tl.minimum(tl.load(selection + row) + 1, keys)
        count = tl.minimum(tl.maximum(visible - first, 0), split_keys)
    else:
        own = selection + row.to(tl.int64) * selection_stride
        count = _num_chosen(own, first, keys, split_keys, BLOCK_KEYS)

    query_at = (head.to(tl.int64)[:, None] * num_rows + row) * LATENT + latent[None, :]
    q = tl.load(query + query_at, mask=in_head[:, None] & in_latent[None, :], other=0.0)
    rope_at = row.to(tl.int64) * rope_row_stride + rope[None, :]
    rope_at += head.to(tl.int64)[:, None] * rope_head_stride
    q_rope = tl.load(query_rope + rope_at, mask=in_head[:, None] & in_rope[None, :], other=0.0)
    q_rest = q
    kind: tl.constexpr = tl.bfloat16 if BYTES else cache.dtype.element_ty
    if WIDE_DOT:
        q_rope = q_rope.to(tl.float32)
    else:
        q = q.to(kind)
        q_rest = (q_rest - q.to(tl.float32)).to(kind)

    running_max = tl.full((BLOCK_HEADS,), float("-inf"), tl.float32)
    running_sum = tl.zeros((BLOCK_HEADS,), tl.float32)
    total = tl.zeros((BLOCK_HEADS, BLOCK_LATENT), tl.float32)
    for start in range(0, count, BLOCK_KEYS):
        live = start + key < count
        if DENSE:
            position = first + start + key
        else:
            position = tl.load(
                selection + row.to(tl.int64) * selection_stride + first + start + key,
                mask=live,
                other=0,
            )
        entry = request.to(tl.int64) * page_table_stride + position // PAGE
        page = tl.load(page_table + entry, mask=live, other=0)
        base = page.to(tl.int64) * page_stride + (position % PAGE) * token_stride
        c, k_rope = load_keys(
            cache, base, live, latent, rope, kind, LATENT, ROPE, BLOCK_KEYS, BLOCK_LATENT, BYTES,
            SCALE_BLOCK, FNUZ, WIDE_DOT,
        )  # fmt: skip
        score = tl.dot(q, tl.trans(c), input_precision="ieee")
        if QUERY_PARTS == 2 and not WIDE_DOT:
            score = tl.dot(q_rest, tl.trans(c), acc=score)
        score = tl.dot(q_rope, tl.trans(k_rope), acc=score, input_precision="ieee")
        score = tl.where(live[None, :], score * scale, float("-inf"))
        new_max = tl.maximum(running_max, tl.max(score, axis=1))
        weight = tl.exp(score - new_max[:, None])
        decay = tl.exp(running_max - new_max)
        running_sum = running_sum * decay + tl.sum(weight, axis=1)
        total = tl.dot(weight.to(c.dtype), c, acc=total * decay[:, None], input_precision="ieee")
        running_max = new_max

    inside = in_head[:, None] & in_latent[None, :]
    if SINGLE:
        result = tl.where(count > 0, total / tl.maximum(running_sum, 1e-30)[:, None], 0.0)
        tl.store(out + query_at, result.to(out.dtype.element_ty), mask=inside)
    else:
        split_at = (row.to(tl.int64) * HEADS + head) * splits + split
        tl.store(partial_max + split_at, running_max, mask=in_head)
        tl.store(partial_sum + split_at, running_sum, mask=in_head)
        if count > 0:
            tl.store(partial + split_at[:, None] * LATENT + latent[None, :], total, mask=inside)


@triton.jit
def attend_combine(
    partial,
    partial_max,
    partial_sum,
    out,  # [H, T, LATENT]
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    splits,
    HEADS: tl.constexpr,
    LATENT: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_LATENT: tl.constexpr,
):
    """The softmax over all splits of one row and head; zeros where nothing was selected."""
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    head = tl.program_id(1)
    split = tl.arange(0, BLOCK_SPLITS)
    latent = tl.arange(0, BLOCK_LATENT)
    base = (row.to(tl.int64) * HEADS + head) * splits
    in_split = split < splits
    sums = tl.load(partial_sum + base + split, mask=in_split, other=0.0)
    used = sums > 0.0
    maxima = tl.load(partial_max + base + split, mask=in_split, other=float("-inf"))
    top = tl.max(tl.where(used, maxima, float("-inf")), axis=0)
    factor = tl.where(used, tl.exp(maxima - top), 0.0)
    values = tl.load(
        partial + (base + split)[:, None] * LATENT + latent[None, :],
        mask=used[:, None] & (latent < LATENT)[None, :],
        other=0.0,
    )
    denominator = tl.sum(sums * factor, axis=0)
    numerator = tl.sum(values * factor[:, None], axis=0)
    result = tl.where(denominator > 0.0, numerator / denominator, 0.0)
    out_at = (head.to(tl.int64) * num_rows + row) * LATENT + latent
    tl.store(out + out_at, result.to(out.dtype.element_ty), mask=latent < LATENT)
