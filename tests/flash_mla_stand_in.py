"""Stands where FlashMLA stands, on the CPU: its calls by their published meaning, strictly checked.

Rows of 656 bytes are read by its page (512 e4m3, 4 f32 scales, 64 bf16), not by our layouts.
"""

from __future__ import annotations

import torch

LATENT, ROPE = 512, 64


class Plan:
    """What `get_mla_metadata` gives; one belongs to calls of one shape."""


def has_legacy() -> bool:
    """Whether there are kernels for Hopper."""
    return True


def get_mla_metadata() -> tuple[Plan, None]:
    """An empty plan."""
    return Plan(), None


def _attend(
    q: torch.Tensor, rows: torch.Tensor, indices: torch.Tensor, scale: float
) -> torch.Tensor:
    """bf16 [T, H, 512]: rows without any index give zeros."""
    assert q.dtype == torch.bfloat16
    assert q.shape[1] in (64, 128)
    assert q.shape[2] == LATENT + ROPE
    assert indices.dtype == torch.int32
    assert int(indices.max()) < len(rows)
    out = torch.zeros(*q.shape[:2], LATENT, dtype=torch.bfloat16)
    for row, chosen in enumerate(indices):
        keys = rows[chosen[chosen != -1].long()]
        if len(keys):
            weights = torch.softmax(q[row].float() @ keys.T * scale, -1)
            out[row] = (weights @ keys[:, :LATENT]).bfloat16()
    return out


def flash_mla_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    block_table: None,
    cache_seqlens: None,
    head_dim_v: int,
    tile_scheduler_metadata: Plan,
    num_splits: None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    is_fp8_kvcache: bool | None = None,
    indices: torch.Tensor | None = None,
    use_legacy: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [b, 1, H, 576], k_cache u8 [pages, 64, 1, 656], indices [b, 1, K] of page * 64 + token."""
    assert isinstance(tile_scheduler_metadata, Plan)
    assert use_legacy
    assert is_fp8_kvcache
    assert head_dim_v == LATENT
    assert k_cache.shape[1:] == (64, 1, 656)
    assert indices is not None
    assert indices.shape[2] % 64 == 0
    assert softmax_scale is not None
    raw = k_cache.reshape(-1, 656)
    values = raw[:, :512].contiguous().view(torch.float8_e4m3fn).float().view(-1, 4, 128)
    scales = raw[:, 512:528].contiguous().view(torch.float32)
    rope = raw[:, 528:].contiguous().view(torch.bfloat16).float()
    rows = torch.cat(((values * scales[:, :, None]).view(-1, LATENT), rope), 1)
    return _attend(q[:, 0], rows, indices[:, 0], softmax_scale)[:, None], q.new_zeros(1)


def flash_mla_sparse_fwd(
    q: torch.Tensor,
    kv: torch.Tensor,
    indices: torch.Tensor,
    sm_scale: float,
    d_v: int = LATENT,
    use_legacy: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [T, H, 576], kv bf16 [slots, 1, 576], indices [T, 1, K]."""
    assert use_legacy
    assert d_v == LATENT
    assert kv.dtype == torch.bfloat16
    assert kv.shape[1:] == (1, LATENT + ROPE)
    assert indices.shape[2] % 128 == 0
    out = _attend(q, kv[:, 0].float(), indices[:, 0], sm_scale)
    return out, q.new_zeros(1), q.new_zeros(1)
