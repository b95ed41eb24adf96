"""The indexer's logits by AITER. **Never run on a device.**"""

from __future__ import annotations

import torch

from lostwax.backends.rocm.aiter_calls import LOGITS
from lostwax.backends.rocm.kernels.aiter_library import function, require_calls


def require_library() -> None:
    """MissingPackage unless AITER's logits take what they are given."""
    require_calls(LOGITS)


def index_logits(
    q: torch.Tensor,
    q_scale: torch.Tensor,
    weights: torch.Tensor,
    stored: torch.Tensor,
    positions: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
) -> None:
    """`deepgemm_fp8_paged_mqa_logits`, each row of the step a request of its own.

    q fp8 [T, H, 128], q_scale f32 [T, H, 1], weights f32 [T, H], stored u8 [pages, tokens, 132]: a
    key and its scale; requests i64 [T]; out f32 [T, P * tokens] is written, -inf where no key is
    seen. To the library a page has one token.
    """
    rows, columns = out.shape
    tokens, row_bytes = stored.shape[1:]
    token = torch.arange(tokens, dtype=torch.int32, device=out.device)
    pages = page_table.index_select(0, requests)
    slots = (pages[:, :, None] * tokens + token).view(rows, columns)
    function(LOGITS)(
        q_fp8=q[:, None],
        kv_cache_fp8=stored.view(-1, 1, 1, row_bytes),
        weights=weights * q_scale[:, :, 0] * scale,
        out_logits=out,
        context_lens=(positions + 1).clamp_(min=0),
        kv_indices=slots,
        max_model_len=columns,
    )
    # it leaves alone what is far behind a row, and takes the first place behind it for seen
    column = torch.arange(columns, device=out.device)
    out.masked_fill_(column > positions[:, None], float("-inf"))
