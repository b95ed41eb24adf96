"""Products, attention and experts whose rows come out the same whatever rows are beside them.

A product's last bits depend on its shape: torch and MKL choose other loops for 1 row than for 64.
So every product here has a shape that follows from the row alone: blocks of a fixed number of rows
for weights, one row with its own length for what is cached. Reads lengths and routing on the host.
"""

from __future__ import annotations

from typing import cast

import torch

from lostwax.backends.cpu.kernels.experts import by_expert
from lostwax.backends.cpu.kernels.selection import topk
from lostwax.backends.cpu.kernels.spans import Span, spans_of
from lostwax.backends.cpu.row_block import ROWS
from lostwax.backends.portable.kernels.attention import absorb, head_weights, write_heads
from lostwax.backends.portable.kernels.blocks import dequantise
from lostwax.backends.portable.kernels.elementwise import silu
from lostwax.backends.portable.kernels.fp8 import rounded, widen
from lostwax.backends.portable.kernels.indexer import row_logits
from lostwax.backends.portable.kernels.paging import cached_rows, rows_of_one, selected_rows
from lostwax.backends.portable.kernels.selection import every
from lostwax.ir.contract.scale_layout import FP8_BLOCK


def in_blocks(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """x [n, K] times matrix [K, N], `ROWS` rows at a time; the last block is filled with zeros.

    Blocks are copied, so that they lie alike in memory too: alignment chooses loops as well.
    """
    out = torch.empty((x.shape[0], matrix.shape[1]), dtype=x.dtype)
    for start in range(0, x.shape[0], ROWS):
        rows = x[start : start + ROWS]
        block = x.new_zeros((ROWS, x.shape[1]))
        block[: rows.shape[0]] = rows
        out[start : start + ROWS] = torch.mm(block, matrix)[: rows.shape[0]]
    return out


def linear(
    x: torch.Tensor,
    x_scale: torch.Tensor | None,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    out: torch.Tensor,
    *,
    row_tile: int,
) -> None:
    """Write x W^T as portable's `linear` does, in blocks of rows."""
    kept = x.dtype if out.dtype == x.dtype else torch.float32
    wide = x.to(kept) if x_scale is None else widen(x, x_scale)
    for start in range(0, weight.shape[0], row_tile):
        stop = min(start + row_tile, weight.shape[0])
        blocks = None if scale is None else scale[start // FP8_BLOCK : -(-stop // FP8_BLOCK)]
        tile = dequantise(weight[start:stop], blocks, wide.dtype)
        out[:, start:stop].copy_(in_blocks(wide, tile.t()))


def hadamard(x: torch.Tensor, signs: torch.Tensor, out: torch.Tensor) -> None:
    """Write x H / sqrt(D) over the last axis."""
    width = x.shape[-1]
    rotated = in_blocks(x.reshape(-1, width).float(), signs).mul_(width**-0.5)
    out.copy_(rotated.view(x.shape))


def _rows_of(spans: list[Span]) -> list[tuple[int, Span]]:
    return [(row, span) for span in spans for row in range(span.start, span.stop)]


def attend(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    kv_b_scale: torch.Tensor | None,
    cache: torch.Tensor,
    selection: torch.Tensor,
    positions: torch.Tensor,
    q_starts: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    layout: str,
) -> None:
    """Write each row's attention over its own selected positions, absorbed."""
    _, heads, nope = q_nope.shape
    latent = kv_b.shape[1]
    keys, values = head_weights(kv_b, kv_b_scale, heads, nope)
    stored = cached_rows(cache, layout, (latent, q_pe.shape[2]))
    counts = cast("list[int]", (selection >= 0).sum(-1).tolist())
    for row, span in _rows_of(spans_of(q_starts, positions)):
        at, request = slice(row, row + 1), torch.tensor([span.request])
        cached = selected_rows(stored, selection[at, : counts[row]], request, page_table)[0]
        q = absorb(q_nope[at].clone(), q_pe[at].clone(), keys)[0].mul_(scale)
        context = torch.mm(torch.softmax(torch.mm(q, cached.t()), -1), cached[:, :latent])
        write_heads(context[None], values, out[at])


def index_topk(
    q: torch.Tensor,
    q_scale: torch.Tensor | None,
    weights: torch.Tensor,
    cache: torch.Tensor,
    positions: torch.Tensor,
    q_starts: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    layout: str,
) -> None:
    """Write the k best positions of each row: out [T, k]. Rows that see at most k get them all."""
    k = out.shape[1]
    stored = cached_rows(cache, layout, (q.shape[2],))
    spans = spans_of(q_starts, positions)
    every(positions, out)
    for span in (s for s in spans if s.length > k):
        pages = page_table[span.request, : -(-span.length // stored.page_tokens)]
        keys = rows_of_one(stored, pages, span.length)
        for row in range(span.start, span.stop):
            seen = span.first + row - span.start + 1
            if seen > k:
                at = slice(row, row + 1)
                rows = widen(q[at], None if q_scale is None else q_scale[at]).clone()
                topk(row_logits(rows, weights[at].float(), keys[:seen], scale), out[at])


def experts(
    x: torch.Tensor,
    x_scale: torch.Tensor | None,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate: torch.Tensor,
    gate_scale: torch.Tensor | None,
    up: torch.Tensor,
    up_scale: torch.Tensor | None,
    down: torch.Tensor,
    down_scale: torch.Tensor | None,
    out: torch.Tensor,
    *,
    hidden_fmt: str = "",
) -> None:
    """Any stored format, in f32; a row's experts are added in the order of their numbers."""
    wide = widen(x, x_scale)

    def times(rows: torch.Tensor, w: torch.Tensor, s: torch.Tensor | None, e: int) -> torch.Tensor:
        matrix = dequantise(w[e], None if s is None else s[e], torch.float32)
        return in_blocks(rows, matrix.t())

    def hidden(rows: torch.Tensor, e: int) -> torch.Tensor:
        return silu(times(rows, gate, gate_scale, e)).mul_(times(rows, up, up_scale, e))

    def product(rows: torch.Tensor, e: int) -> torch.Tensor:
        return times(rounded(rows, x.dtype, hidden_fmt, FP8_BLOCK), down, down_scale, e)

    by_expert(wide, ids, weights, gate.shape[0], out, hidden, product)
