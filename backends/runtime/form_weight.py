"""A stored weight from its parts, by the plan's steps. Reads no file and draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lostwax.ir.contract.weights import StoredWeight


class Unformable(ValueError):
    """The plan's steps do not lead to the tensor that the plan says; the message names it."""


def formed(parts: Sequence[torch.Tensor], want: StoredWeight) -> torch.Tensor:
    """The parts, each in the stored dtype, concatenated and permuted; may be a view of them.

    `reencode` was done with the parts. Raises Unformable.
    """
    value = parts[0]
    for step in want.steps:
        if step.kind == "concat":
            value = torch.cat(list(parts), step.axis)
        elif step.kind == "transpose":
            value = value.permute(step.perm)
        elif step.kind != "reencode":
            raise Unformable(f"weight plan step {step.kind!r} of {want.name} is unknown")
    if tuple(value.shape) != want.shape:
        raise Unformable(
            f"{want.name} came out as {list(value.shape)}, the plan says {list(want.shape)}"
        )
    return value
