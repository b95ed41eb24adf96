"""What host calls on the CPU work on, for tests that stand between them and their memory."""

from __future__ import annotations

import torch

from lostwax.backends.runtime.host_memory import HostPlace
from lostwax.backends.runtime.memory import Place


def tensor_at(place: Place) -> torch.Tensor:
    """The tensor that a host call is given for a place."""
    assert isinstance(place, HostPlace)
    return place.tensor()
