"""What ranks exchange, on torch.distributed's default group: Gloo on CPUs, HCCL on Ascend's NPUs.

Every rank runs the same launches, so that the calls meet in order. Knows nothing of programs.
"""

from __future__ import annotations

import torch
import torch.distributed as dist


def all_reduce(x: torch.Tensor, out: torch.Tensor, workspace: torch.Tensor | None) -> None:
    """Write the sum of all ranks' x, summed in x's dtype and rounded once to out's.

    The workspace is x's size; None where x and out have one dtype.
    """
    total = out if workspace is None else workspace.view(x.dtype).view(x.shape)
    total.copy_(x)
    dist.all_reduce(total)
    if workspace is not None:
        out.copy_(total)


def all_reduce_in_order(x: torch.Tensor, out: torch.Tensor, workspace: torch.Tensor) -> None:
    """The same sum, of gathered summands in rank order: no element's place changes its rounding.

    The workspace is x's size a rank.
    """
    summands = workspace.view(x.dtype).view(-1, *x.shape)
    dist.all_gather(list(summands.unbind()), x.contiguous())
    total = summands[0]
    for summand in summands[1:]:
        total.add_(summand)
    out.copy_(total)


def all_gather(x: torch.Tensor, out: torch.Tensor, workspace: torch.Tensor, *, axis: int) -> None:
    """Write all ranks' x behind one another along `axis`; the workspace is out's size."""
    slices = workspace.view(x.dtype).view(-1, *x.shape)
    dist.all_gather(list(slices.unbind()), x.contiguous())
    for rank, part in enumerate(slices.unbind()):
        out.narrow(axis, rank * x.shape[axis], x.shape[axis]).copy_(part)
