"""Latent attention over selected positions, and their selection, by CANN's operators."""

from __future__ import annotations

import torch

from lostwax.backends.ascend.kernels.operators import calls, operator
from lostwax.backends.ascend.kernels.planes import halves, parts_of

NO_POSITION = 1 << 30
"""Behind every position when positions are sorted."""


def row_groups(
    q_starts: torch.Tensor,
    kv_lens: torch.Tensor,
    page_table: torch.Tensor,
    ends: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    *,
    rows: int,
    page_tokens: int,
) -> None:
    """Write the requests' rows as CANN counts them, and one request more for rows without a token.

    q_starts [B + 1], kv_lens [B], page_table [B, P], `rows` of the step with padding -> ends
    [B + 1], the rows up to each request's
    end; lengths [B + 1], each by itself; table [B + 1, P], the trash page at last. All i32.
    """
    ends[:-1].copy_(q_starts[1:])
    ends[-1:].fill_(rows)
    lengths[:-1].copy_(kv_lens)
    table[:-1].copy_(page_table)
    table[-1].zero_()
    lengths[-1:].copy_((rows - q_starts[-1:]).clamp(max=page_table.shape[1] * page_tokens))


def single_rows(
    positions: torch.Tensor,
    q_starts: torch.Tensor,
    page_table: torch.Tensor,
    ends: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
) -> None:
    """Write every row as a request of its own: what it sees are its positions.

    Where a request's rows may lack tokens (drafts that are missing), the last of them is no longer
    where its request ends, from which the indexer would count back. positions [T], q_starts
    [B + 1], page_table [B, P] -> ends [T], lengths [T] (0 of rows without a token), table [T, P].
    """
    rows = torch.arange(ends.shape[0], dtype=torch.int32, device=ends.device)
    ends.copy_(rows + 1)
    lengths.copy_((positions + 1).clamp(min=0))
    owner = (rows[:, None] >= q_starts[None, 1:]).sum(-1).clamp(max=page_table.shape[0] - 1)
    table.copy_(page_table.index_select(0, owner))


@calls("npu_lightning_indexer")
def index_topk(
    q: torch.Tensor,
    weights: torch.Tensor,
    cache: torch.Tensor,
    positions: torch.Tensor,
    ends: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write each row's best positions ascending, then -1: q [T, H, D], cache [blocks, block, D].

    The operator puts as many positions in front as a row has or as are wanted, in any order; what
    stands behind them is nobody's.
    """
    chosen, _ = operator("npu_lightning_indexer")(
        q,
        cache[:, :, None],
        weights,
        actual_seq_lengths_query=ends,
        actual_seq_lengths_key=lengths,
        block_table=table,
        layout_query="TND",
        layout_key="PA_BSND",
        sparse_count=out.shape[1],
        sparse_mode=3,
    )
    column = torch.arange(out.shape[1], device=out.device)
    unused = column > positions[:, None]
    ordered = chosen[:, 0].masked_fill(unused, NO_POSITION).sort(-1).values
    out.copy_(ordered.masked_fill(ordered == NO_POSITION, -1))


@calls("npu_sparse_flash_attention")
def attend(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    kv_b: torch.Tensor,
    cache: torch.Tensor,
    selection: torch.Tensor,
    positions: torch.Tensor,
    ends: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
) -> None:
    """Write attention over each row's selected positions: out [T, H * Dv].

    q_nope [T, H, Dn], q_pe [T, H, R], kv_b bf16 [H * (Dn + Dv), C], cache of layout bf16_apart with
    parts [C, R], selection i32 [T, K]. Queries go into the latent space and results come out of it
    in bf16, by two products of torch's. Rope keys are cached in halves, and so queries are put.
    Rows without a token (positions [T] below 0) may hold any selection: the operator is told none.
    """
    selected = selection.masked_fill((positions < 0)[:, None], -1)
    rows, heads, nope = q_nope.shape
    latent = kv_b.shape[1]
    per_head = kv_b.view(heads, -1, latent)
    query = torch.bmm(q_nope.transpose(0, 1), per_head[:, :nope]).transpose(0, 1)
    keys, rope_keys = parts_of(cache, (latent, q_pe.shape[2]))
    mixed, _, _ = operator("npu_sparse_flash_attention")(
        query.contiguous(),
        keys,
        keys,
        selected[:, None],
        scale,
        block_table=table,
        actual_seq_lengths_query=ends,
        actual_seq_lengths_kv=lengths,
        query_rope=halves(q_pe),
        key_rope=rope_keys,
        sparse_block_size=1,
        layout_query="TND",
        layout_kv="PA_BSND",
        sparse_mode=0,  # a selection holds visible positions only
        attention_mode=2,
    )
    result = torch.bmm(mixed.transpose(0, 1), per_head[:, nope:].transpose(1, 2))
    out.view(rows, heads, -1).copy_(result.transpose(0, 1))
    out.masked_fill_(selected[:, :1] < 0, 0)
