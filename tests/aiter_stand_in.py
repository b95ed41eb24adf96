"""Stands where `aiter.mla` stands, on the CPU: its decode by what its sources ask, checked.

Written after the asserts and checks of `aiter/mla.py` and `asm_mla.cu` in amd-aiter 0.1.7: what the
GPU computes is not known here.
"""

from __future__ import annotations

import torch

LATENT, ROPE = 512, 64


def mla_decode_fwd(
    q: torch.Tensor,
    kv_buffer: torch.Tensor,
    o: torch.Tensor,
    qo_indptr: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_indices: torch.Tensor,
    kv_last_page_lens: torch.Tensor,
    max_seqlen_q: int,
    sm_scale: float | None = None,
    logit_cap: float = 0.0,
    num_kv_splits: int | None = None,
    num_kv_splits_indptr: torch.Tensor | None = None,
    work_meta_data: torch.Tensor | None = None,
    work_indptr: torch.Tensor | None = None,
    work_info_set: torch.Tensor | None = None,
    reduce_indptr: torch.Tensor | None = None,
    reduce_final_map: torch.Tensor | None = None,
    reduce_partial_map: torch.Tensor | None = None,
    q_scale: torch.Tensor | None = None,
    kv_scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [rows, H, 576], kv_buffer [pages, 1, 1, 576], o [rows, H, 512]; a request has one row."""
    rows, heads, width = q.shape
    pages, page_tokens, kv_heads, row = kv_buffer.shape
    assert (page_tokens, kv_heads) == (1, 1)
    assert width == row == LATENT + ROPE
    assert heads in (16, 128)
    assert q.is_contiguous()
    assert kv_buffer.is_contiguous()
    assert q.dtype == kv_buffer.dtype == o.dtype == torch.bfloat16
    assert o.shape == (rows, heads, LATENT)
    indices = (qo_indptr, kv_indptr, kv_indices, kv_last_page_lens)
    assert all(each.dtype == torch.int32 and each.is_contiguous() for each in indices)
    assert qo_indptr.tolist() == list(range(rows + 1))
    assert max_seqlen_q == 1
    assert kv_indptr.shape == (rows + 1,)
    assert kv_indptr[0] == 0
    assert (kv_indptr.diff() >= 0).all()
    assert int(kv_indptr[-1]) <= len(kv_indices)
    assert kv_last_page_lens.tolist() == [1] * rows
    assert sm_scale is not None
    kv, scores = kv_buffer.view(pages, row).float(), torch.zeros(rows, heads)
    for each in range(rows):
        own = kv_indices[kv_indptr[each] : kv_indptr[each + 1]].long()
        assert ((own >= 0) & (own < pages)).all(), "a slot that is none"
        logits = q[each].float() @ kv[own].T * sm_scale
        scores[each] = logits.logsumexp(-1)
        # a request without keys is divided by a sum of nothing
        o[each] = logits.softmax(-1) @ kv[own, :LATENT] if len(own) else float("nan")
    return o, scores
