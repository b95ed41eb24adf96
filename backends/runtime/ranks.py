"""The processes that run one artifact together: rank 0 leads, the others run what it tells.

Tells steps as bytes (never torch's object collectives: those pickle). Knows no program's insides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from lostwax.backends.runtime.mask_gate import Masks
from lostwax.backends.runtime.step_programs import Stage
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.step_plan import StepPlan

FRAME_BYTES = 4096
"""What one broadcast carries: a decode step of many requests, and the length before it."""
_LENGTH_BYTES = 8


class RankError(RuntimeError):
    """Ranks are missing, too many or out of step; the message says how to start them."""


class Told(msgspec.Struct, frozen=True):
    """One step as rank 0 tells it: its plan, and the files of the programs that it picked, a body
    with its head a stage."""

    stages: tuple[tuple[str, ...], ...]
    plan: StepPlan


class Group(Protocol):
    """The processes of all ranks (`gloo.py`). Raises RankError where another has ended."""

    def broadcast(self, values: Any) -> None:
        """A writable array becomes what rank 0 has, on every rank."""
        ...

    def all_have(self, data: bytes) -> bool:
        """Whether every rank has the same bytes, of one length."""
        ...


class Ranks:
    """This process among an artifact's ranks."""

    def __init__(self, rank: Rank, control: Group | None) -> None:
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
        from lostwax.backends.runtime.gloo import joined  # torch's, which one process needs not

        rank, group = joined(count)
        return Ranks(rank, group)

    def meet(self, loaded: str) -> None:
        """Wait until every rank has loaded. Raises RankError unless all loaded the same."""
        if self._control is None:
            return
        if not self._control.all_have(hashlib.sha256(loaded.encode()).digest()):
            raise RankError(
                "the ranks loaded different artifacts or numbers of pages; give all the same"
            )

    def tell(self, stages: Sequence[Stage], plan: StepPlan) -> None:
        """On rank 0: let the others run this step too. Raises RankError after a failed step."""
        if self._control is None:
            return
        self._require_in_step()
        files = tuple(tuple(ref.file for ref in stage) for stage in stages)
        self._send(msgspec.msgpack.encode(Told(files, plan)))

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
        self._broadcast(ids)
        return ids

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
        self._broadcast(np.frombuffer(first, np.uint8))
        if len(framed) > FRAME_BYTES:
            self._broadcast(np.frombuffer(bytearray(framed[FRAME_BYTES:]), np.uint8))

    def receive(self) -> Told | None:
        """On the other ranks: the next step, None when dismissed."""
        found = self._received()
        return None if found is None else msgspec.msgpack.decode(found, type=Told)

    def _received(self) -> bytes | None:
        """What rank 0 sends next, None when it dismisses."""
        frame = np.empty(FRAME_BYTES, np.uint8)
        self._broadcast(frame)
        raw = frame.tobytes()
        length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
        if length == 0:
            return None
        missing = _LENGTH_BYTES + length - FRAME_BYTES
        if missing > 0:
            rest = np.empty(missing, np.uint8)
            self._broadcast(rest)
            raw += rest.tobytes()
        return raw[_LENGTH_BYTES : _LENGTH_BYTES + length]

    def _broadcast(self, values: Any) -> None:
        assert self._control is not None
        self._control.broadcast(values)
