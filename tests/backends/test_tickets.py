"""Results come by one copy, in order, and a failed step fails those behind it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.mask_gate import MaskError, MaskGate, Masks
from lostwax.backends.runtime.packed_results import packed_bytes, unpacked
from lostwax.backends.runtime.result_copy import ResultCopy
from lostwax.backends.runtime.ticket import Held, Started, StepBefore, StepTicket
from lostwax.ir.contract.step import StepResult


class Late:
    """A step whose mark passes when the test says so, or when somebody waits."""

    def __init__(self, number: int, error: Exception | None = None) -> None:
        self.number = number
        self.error = error
        self.passed = False
        self.num_waits = 0

    def wait(self) -> None:
        self.num_waits += 1
        self.passed = True
        if self.error is not None:
            raise self.error

    def start(self) -> Started:
        return Started(self, self._read)

    def _read(self) -> StepResult:
        assert self.passed, "read before the copy was there"
        return StepResult(ids=[self.number], logprobs=[0.0])


def _raising(error: Exception) -> Callable[[], Started]:
    def start() -> Started:
        raise error

    return start


def test_a_ticket_is_done_when_its_mark_has_passed_and_not_before() -> None:
    late = Late(5)
    ticket = StepTicket(None, late.start)
    assert not ticket.done
    assert late.num_waits == 0, "submitting waited"
    late.passed = True
    assert ticket.done
    assert [ticket.result().ids, ticket.result().ids] == [[5], [5]]
    assert late.num_waits == 1, "a result that is known was waited for"


def test_what_a_step_raises_its_result_raises_each_time() -> None:
    failures: list[int] = []
    ticket = StepTicket(None, _raising(ZeroDivisionError("bad")), lambda: failures.append(1))
    assert ticket.done
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="bad"):
            ticket.result()
    assert failures == [1]


def test_a_failed_step_fails_those_behind_it_until_somebody_heard() -> None:
    lates = [Late(0, ZeroDivisionError("bad")), Late(1), Late(2)]
    failures: list[int] = []
    tickets: list[StepTicket] = []
    for late in lates:
        before = tickets[-1] if tickets else None
        tickets.append(StepTicket(before, late.start, lambda: failures.append(1)))
    for behind in tickets[:0:-1]:
        with pytest.raises(StepBefore) as caught:
            behind.result()
        assert caught.value.__cause__ is not None
    with pytest.raises(ZeroDivisionError, match="bad"):
        tickets[0].result()
    assert failures == [1]
    assert StepTicket(tickets[-1], Late(3).start).result().ids == [3]


def test_steps_in_flight_keep_none_that_have_ended() -> None:
    """Though each was submitted before anybody had heard of the one before it."""
    tickets = [StepTicket(None, Late(0).start)]
    seen = [weakref.ref(tickets[0])]
    for number in range(1, 4):
        tickets.append(StepTicket(tickets[-1], Late(number).start))
        seen.append(weakref.ref(tickets[-1]))
        assert tickets.pop(0).result().ids == [number - 1]
    gc.collect()
    assert [each() is None for each in seen] == [True, True, False, False], "the last waits"


def test_a_step_behind_a_failure_that_nobody_heard_of_is_not_started() -> None:
    failed = StepTicket(None, _raising(ZeroDivisionError("bad")))
    started: list[int] = []

    def start() -> Started:
        started.append(1)
        return Late(1).start()

    with pytest.raises(StepBefore):
        StepTicket(failed, start).result()
    assert not started
    with pytest.raises(ZeroDivisionError):
        failed.result()
    assert StepTicket(failed, start).result().ids == [1]


def test_waiting_for_a_later_step_keeps_the_earlier_ones_result() -> None:
    first = StepTicket(None, Late(1).start)
    second = StepTicket(first, Late(2).start)
    assert second.result().ids == [2]
    assert first.done
    assert first.result().ids == [1]


def _held(late: Late, brought: list[Masks]) -> Callable[[], Held]:
    def finish(masks: Masks) -> Started:
        brought.append(masks)
        return late.start()

    return lambda: Held(finish)


def test_a_step_that_waits_for_masks_is_done_once_they_are_there_and_it_has_run() -> None:
    late, brought = Late(7), list[Masks]()
    ticket = StepTicket(None, _held(late, brought), gate=MaskGate(1, 40))
    assert ticket.waits
    assert not ticket.done
    with pytest.raises(MaskError, match="1 rows of this step wait for masks"):
        ticket.result()
    with pytest.raises(MaskError, match="the shape"):
        ticket.finish(np.ones((1, 1), np.int32))
    assert not brought
    masks = np.ones((1, 2), np.int32)
    ticket.finish(masks)
    assert brought == [masks]
    assert not ticket.waits
    assert not ticket.done
    late.passed = True
    assert ticket.done
    assert ticket.result().ids == [7]
    with pytest.raises(MaskError, match="finished before"):
        ticket.finish(masks)


def test_a_step_that_waited_fails_with_the_one_before_it_though_that_was_heard() -> None:
    bad, brought, failures = Late(0, ZeroDivisionError("bad")), list[Masks](), list[int]()
    first = StepTicket(None, bad.start)
    ticket = StepTicket(first, _held(Late(1), brought), lambda: failures.append(1), MaskGate(1, 40))
    with pytest.raises(ZeroDivisionError):
        first.result()
    ticket.finish(np.ones((1, 2), np.int32))
    with pytest.raises(StepBefore):
        ticket.result()
    assert not failures, "it did not fail by itself"


def test_a_head_that_cannot_be_enqueued_fails_the_step_and_tells_the_ranks() -> None:
    failures: list[int] = []

    def finish(masks: Masks) -> Started:
        raise ZeroDivisionError("bad")

    ticket = StepTicket(None, lambda: Held(finish), lambda: failures.append(1), MaskGate(1, 40))
    ticket.finish(np.ones((1, 2), np.int32))
    assert ticket.done
    with pytest.raises(ZeroDivisionError):
        ticket.result()
    assert failures == [1]


@pytest.mark.parametrize("rows", [0, 1, 3, 4])
def test_the_first_rows_of_all_outputs_come_as_they_are(rows: int) -> None:
    apart = torch.zeros(64).as_strided((4, 3), (10, 1), 2)  # rows that do not touch
    outputs = {
        "flags": torch.tensor([1, 2, 3, 4], dtype=torch.uint8),
        "ids": torch.arange(4, dtype=torch.int32) + 7,
        "top_logprobs": apart.copy_(torch.arange(12).reshape(4, 3) / -8),
        "logprobs": torch.tensor([-0.5, float("-inf"), 0.0, 3e-41]),
    }
    want = {name: tensor[:rows].tolist() for name, tensor in outputs.items()}
    assert ResultCopy(outputs, 4, HostDriver.__new__(HostDriver)).start(rows)() == want
    parts = [tensor[:rows] for tensor in outputs.values()]
    packed = packed_bytes(parts, torch.empty(100, dtype=torch.uint8))
    assert packed.numel() == rows * (1 + 4 + 12 + 4)
    for tensor in outputs.values():
        tensor.zero_()  # as the next step would
    assert unpacked(packed, parts) == list(want.values())
