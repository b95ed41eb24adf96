"""The processes that run one artifact together: rank 0 leads, the others run what it tells.

Tells steps as bytes (never torch's object collectives: those pickle). Knows no program's insides.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist

from lostwax.backends.runtime.mask_gate import Masks
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.step_plan import StepPlan

STEP_TIMEOUT = timedelta(minutes=5)
"""How long a rank waits inside a step for another before it gives up."""
IDLE_TIMEOUT = timedelta(days=365)
"""How long a rank waits for the next step; a rank that ends is noticed at once all the same."""
FRAME_BYTES = 4096
"""What one broadcast carries: a decode step of many requests, and the length before it."""
_LENGTH_BYTES = 8


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


class RankError(RuntimeError):
    """Ranks are missing, too many or out of step; the message says how to start them."""


class Told(msgspec.Struct, frozen=True):
    """One step as rank 0 tells it: its plan, and the files of the programs that it picked, a body
    with its head a stage."""

    stages: tuple[tuple[str, ...], ...]
    plan: StepPlan


class Ranks:
    """This process among an artifact's ranks."""

    def __init__(self, rank: Rank, control: dist.ProcessGroup | None) -> None:
        self.rank = rank
        self._control = control
        self._failed = False

    @staticmethod
    def join(count: int) -> Ranks:
        """Form a group with the ranks that were gathered; alone where `count` is 1.

        Raises RankError where there are not `count` processes.
        """
        if count == 1:
            return Ranks(ALONE, None)
        started = dist.get_world_size() if dist.is_initialized() else 1
        if started != count:
            raise RankError(
                f"the artifact was compiled for {count} ranks, and the number of processes started"
                f" is {started}; use `lostwax serve`, which starts one a rank"
            )
        control = dist.new_group(backend="gloo", timeout=IDLE_TIMEOUT)
        assert isinstance(control, dist.ProcessGroup)  # every rank is a member
        return Ranks(Rank(dist.get_rank(), count), control)

    def meet(self, loaded: str) -> None:
        """Wait until every rank has loaded. Raises RankError unless all loaded the same."""
        if self._control is None:
            return
        mine = bytearray(hashlib.sha256(loaded.encode()).digest())
        one = torch.frombuffer(mine, dtype=torch.uint8)
        every = [torch.empty_like(one) for _ in range(self.rank.count)]
        dist.all_gather(every, one, self._control)
        if not all(torch.equal(one, other) for other in every):
            raise RankError(
                "the ranks loaded different artifacts or numbers of pages; give all the same"
            )

    def tell(self, stages: tuple[tuple[str, ...], ...], plan: StepPlan) -> None:
        """On rank 0: let the others run this step too. Raises RankError after a failed step."""
        if self._control is None:
            return
        self._require_in_step()
        self._send(msgspec.msgpack.encode(Told(stages, plan)))

    def _require_in_step(self) -> None:
        if self._failed:
            raise RankError("the ranks are out of step since a step failed; restart the engine")

    def tell_masks(self, masks: Masks) -> None:
        """On rank 0: hand the others the masks that the step which it told of waits for."""
        if self._control is not None:
            self._require_in_step()
            self._send(np.ascontiguousarray(masks).tobytes())

    def receive_masks(self, count: int, words: int) -> Masks | None:
        """On the other ranks: i32 [count, words], None when dismissed."""
        found = self._received()
        return None if found is None else np.frombuffer(found, np.int32).reshape(count, words)

    def agree(self, ids: Any) -> Any:
        """The first rank's ids on every rank: i32 [R], what this one picked.

        Ranks sum in other orders, so that their last bits, and then their picks, may differ.
        """
        if self._control is None or not len(ids):
            return ids
        shared = torch.from_numpy(ids)
        self._broadcast(shared)
        return shared.numpy()

    def fail(self) -> None:
        """A told step failed on this rank: others may be at any place in it."""
        self._failed = self._control is not None

    def dismiss(self) -> None:
        """On rank 0: end the others' waiting, for a caller that goes on without them.

        Serving never calls it: rank 0 has no end but that of its process, upon which
        `server/engine/launch.py` kills the others, wherever in a step they are. There this
        broadcast might wait for ever, since it needs every rank in `receive`.
        """
        if self._control is not None:
            self._send(b"")

    def _send(self, data: bytes) -> None:
        framed = len(data).to_bytes(_LENGTH_BYTES, "little") + data
        first = bytearray(framed[:FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))
        self._broadcast(torch.frombuffer(first, dtype=torch.uint8))
        if len(framed) > FRAME_BYTES:
            rest = bytearray(framed[FRAME_BYTES:])
            self._broadcast(torch.frombuffer(rest, dtype=torch.uint8))

    def receive(self) -> Told | None:
        """On the other ranks: the next step, None when dismissed."""
        found = self._received()
        return None if found is None else msgspec.msgpack.decode(found, type=Told)

    def _received(self) -> bytes | None:
        """What rank 0 sends next, None when it dismisses."""
        frame = torch.empty(FRAME_BYTES, dtype=torch.uint8)
        self._broadcast(frame)
        raw = frame.numpy().tobytes()
        length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
        if length == 0:
            return None
        missing = _LENGTH_BYTES + length - FRAME_BYTES
        if missing > 0:
            rest = torch.empty(missing, dtype=torch.uint8)
            self._broadcast(rest)
            raw += rest.numpy().tobytes()
        return raw[_LENGTH_BYTES : _LENGTH_BYTES + length]

    def _broadcast(self, frame: torch.Tensor) -> None:
        try:
            dist.broadcast(frame, 0, self._control)
        except RuntimeError as error:  # Gloo's, on a closed connection
            raise RankError(f"another rank has ended: {error}") from error
