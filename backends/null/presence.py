"""There is no device that could be lacking."""

from __future__ import annotations

from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.target import Target


def presence(target: Target, torch: TorchBuild) -> str:
    """Any machine will do."""
    del target, torch
    return "plans and binds, computes nothing"
