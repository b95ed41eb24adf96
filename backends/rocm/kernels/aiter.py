"""Attention by AITER's decode. **Never run on a device.**

Nothing is read on the host, so that all may be captured: AITER counts shapes, and launches on the
current stream.
"""

from __future__ import annotations

import torch

from lostwax.backends.rocm.aiter_calls import DECODE
from lostwax.backends.rocm.kernels.aiter_library import function, require_calls


def require_library() -> None:
    """MissingPackage unless AITER's decode takes what it is given."""
    require_calls(DECODE)


def attend_selected(
    query: torch.Tensor,
    q_pe: torch.Tensor,
    stored: torch.Tensor,
    slots: torch.Tensor,
    latent: torch.Tensor,
    *,
    scale: float,
) -> None:
    """`mla_decode_fwd` over selected rows, each row of the step a request of its own.

    query [H, T, 512] f32, q_pe [T, H, 64] bf16, stored bf16 [pages, tokens, 576], slots i32 [T, K]
    (page * tokens + token, then -1), latent [H, T, 512] bf16, written. To the library a page has
    one token; a row's slots lie behind those of the row before.
    """
    heads, rows, rank = query.shape
    keys, device = slots.shape[1], slots.device
    joined = torch.empty((rows, heads, stored.shape[2]), dtype=torch.bfloat16, device=device)
    joined[:, :, :rank] = query.transpose(0, 1)
    joined[:, :, rank:] = q_pe
    chosen = slots >= 0
    starts = torch.zeros(rows + 1, dtype=torch.int32, device=device)
    torch.cumsum(chosen.sum(1), 0, out=starts[1:])
    place = starts[:-1, None].long() + torch.arange(keys, device=device)
    place.masked_fill_(~chosen, rows * keys)  # the spare last one takes what is no slot
    listed = torch.zeros(rows * keys + 1, dtype=torch.int32, device=device)
    listed.scatter_(0, place.flatten(), slots.flatten())
    out = torch.empty((rows, heads, rank), dtype=torch.bfloat16, device=device)
    function(DECODE)(
        q=joined,
        kv_buffer=stored.view(-1, 1, 1, stored.shape[2]),
        o=out,
        qo_indptr=torch.arange(rows + 1, dtype=torch.int32, device=device),
        kv_indptr=starts,
        kv_indices=listed[:-1],
        kv_last_page_lens=torch.ones(rows, dtype=torch.int32, device=device),
        max_seqlen_q=1,
        sm_scale=scale,
    )
    latent.copy_(out.transpose(0, 1))
