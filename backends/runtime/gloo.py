"""The ranks' meeting and what they tell each other, by torch.distributed. Knows no step."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lostwax.backends.runtime.ranks import RankError
from lostwax.ir.contract.ranks import Rank

STEP_TIMEOUT = timedelta(minutes=5)
"""How long a rank waits inside a step for another before it gives up."""
IDLE_TIMEOUT = timedelta(days=365)
"""How long a rank waits for the next step; a rank that ends is noticed at once all the same."""


def gather(meeting: Path, rank: int, count: int, collectives: str = "gloo") -> None:
    """Meet the other ranks of this host over the file `meeting`, which does not exist yet.

    `collectives`: torch.distributed's backend, or one by kind of device. What rank 0 tells, and the
    ids that all take, go over Gloo on every target; what programs exchange lies on the device.

    Whoever may write that file may join: it belongs into a private folder. Nothing listens for the
    meeting itself; Gloo's own sockets listen on the interface named by `GLOO_SOCKET_IFNAME`, and
    take whoever connects. Ranks of several hosts would need a network of their own.
    """
    dist.init_process_group(
        collectives, init_method=meeting.as_uri(), rank=rank, world_size=count, timeout=STEP_TIMEOUT
    )


def part() -> None:
    """End this process' groups; without it their threads may abort a process that ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


def joined(count: int) -> tuple[Rank, Gloo]:
    """This process among those that were gathered. Raises RankError where there are not `count`."""
    started = dist.get_world_size() if dist.is_initialized() else 1
    if started != count:
        raise RankError(
            f"the artifact was compiled for {count} ranks, and the number of processes started"
            f" is {started}; use `lostwax serve`, which starts one a rank"
        )
    control = dist.new_group(backend="gloo", timeout=IDLE_TIMEOUT)
    assert isinstance(control, dist.ProcessGroup)  # every rank is a member
    return Rank(dist.get_rank(), count), Gloo(control, count)


class Gloo:
    """Satisfies `lostwax.backends.runtime.ranks.Group`."""

    def __init__(self, group: dist.ProcessGroup, count: int) -> None:
        self._group = group
        self._count = count

    def broadcast(self, values: Any) -> None:
        """Over the array's own memory."""
        try:
            dist.broadcast(torch.from_numpy(values), 0, self._group)
        except RuntimeError as error:  # Gloo's, on a closed connection
            raise RankError(f"another rank has ended: {error}") from error

    def all_have(self, data: bytes) -> bool:
        """One exchange of all with all."""
        one = torch.from_numpy(np.frombuffer(bytearray(data), np.uint8))
        every = [torch.empty_like(one) for _ in range(self._count)]
        dist.all_gather(every, one, self._group)
        return all(torch.equal(one, other) for other in every)
