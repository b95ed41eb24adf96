"""Index logits over the paged key cache, whole or a tile at a time. Knows nothing of programs."""

from __future__ import annotations

import torch

from lostwax.backends.portable.kernels.fp8 import widen
from lostwax.backends.portable.kernels.paging import cached_rows, rows_of_one, rows_of_requests
from lostwax.backends.portable.kernels.selection import topk

NEVER = float("-inf")


def row_logits(
    q: torch.Tensor, weights: torch.Tensor, keys: torch.Tensor, scale: float
) -> torch.Tensor:
    """[t, n]: rows q [t, Hi, Di] against one set of keys [n, Di], all f32."""
    rows, heads, dim = q.shape
    scores = torch.mm(q.reshape(rows * heads, dim), keys.t()).relu_().view(rows, heads, -1)
    return torch.bmm((weights * scale)[:, None], scores)[:, 0]


def index_logits(
    q: torch.Tensor,
    q_scale: torch.Tensor | None,
    weights: torch.Tensor,
    cache: torch.Tensor,
    positions: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    layout: str,
) -> None:
    """Write scale * sum_h w relu(q k) for visible positions, -inf elsewhere: out [T, P * page].

    With a request a row at most, keys are gathered by row; otherwise each request's keys meet all
    rows and only its own are kept.
    """
    q, head_weights = widen(q, q_scale), weights.float()
    stored = cached_rows(cache, layout, (q.shape[2],))
    if q.shape[0] <= page_table.shape[0]:
        keys = rows_of_requests(stored, requests, page_table)
        scores = torch.bmm(q, keys.transpose(1, 2)).relu_()
        out.copy_(torch.bmm((head_weights * scale)[:, None], scores)[:, 0])
    else:
        for b in range(page_table.shape[0]):
            result = row_logits(q, head_weights, rows_of_one(stored, page_table[b]), scale)
            out.copy_(torch.where((requests == b)[:, None], result, out) if b else result)
    column = torch.arange(out.shape[1], device=out.device)
    out.masked_fill_(column > positions[:, None], NEVER)


def index_topk(
    q: torch.Tensor,
    q_scale: torch.Tensor | None,
    weights: torch.Tensor,
    cache: torch.Tensor,
    positions: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    workspace: torch.Tensor,
    *,
    scale: float,
    row_tile: int,
    layout: str,
) -> None:
    """Write the k best positions of each row; logits exist for `row_tile` rows at a time."""
    columns = page_table.shape[1] * cached_rows(cache, layout, (q.shape[2],)).page_tokens
    for start in range(0, q.shape[0], row_tile):
        at = slice(start, min(start + row_tile, q.shape[0]))
        rows = at.stop - at.start
        logits = workspace[: rows * columns * 4].view(torch.float32).view(rows, columns)
        scales = None if q_scale is None else q_scale[at]
        rest = (cache, positions[at], requests[at], page_table, logits)
        index_logits(q[at], scales, weights[at], *rest, scale=scale, layout=layout)
        topk(logits, out[at])
