"""What lowerings want computed once a step and shared by all layers. Knows nothing of programs."""

from __future__ import annotations

import torch


def row_requests(q_starts: torch.Tensor, out: torch.Tensor) -> None:
    """Write the request of every row, i64 [T]; padded rows get the last request, harmlessly.

    q_starts [B + 1], padded by repeating the last real start.
    """
    rows = torch.arange(out.shape[0], device=out.device, dtype=q_starts.dtype)
    found = torch.searchsorted(q_starts[1:].contiguous(), rows, right=True)
    torch.clamp(found, max=q_starts.shape[0] - 2, out=out)
