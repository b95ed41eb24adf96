"""Prefixes that come back from host memory, on a compiled model: bytes and answers of a cold cache.

The model has an MTP layer, whose planes are copied like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import torch
from drafting_models import MTP_LAYER, PAGE, cached_rows
from small import SMALL

from lostwax.backends.runtime.host_pages import HostPages
from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.memory import Buffer, Index, Table
from lostwax.backends.runtime.step_programs import StepError
from lostwax.ir.contract.step_plan import Move, StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.request import Req

NUM_PAGES = 1 + 192 // PAGE
"""Those of one request: each makes the others' give way."""
NUM_SLOTS = 40
FOUND = 96
"""Rows of a stem that lie in whole pages."""


@pytest.fixture(scope="module")
def tiered(good_drafts: Runtime, good_folder: Path) -> Runtime:
    """The model of `good_drafts` over few pages, with host memory."""
    return _load(good_folder)


def _load(folder: Path) -> Runtime:
    return load(
        folder / "artifact",
        checkpoint=folder / "checkpoint",
        num_pages=NUM_PAGES,
        num_host_pages=NUM_SLOTS,
        threads=1,
    )


def _prompt(stem: int, tail: int) -> list[int]:
    return [(7 * i + 5 * stem * (i % 3) + stem) % SMALL["vocab_size"] for i in range(97)] + [tail]


def _submit(name: str, prompt: list[int], temperature: float = 0.0) -> Submit:
    return Submit(
        request=name, prompt=prompt, max_tokens=30, ignore_eos=True, temperature=temperature, seed=3
    )


def _ask(core: EngineCore, submit: Submit) -> tuple[list[int], int]:
    """A request's whole answer, and its prompt tokens that were cached."""
    assert core.handle(submit) == []
    tokens, found = list[int](), 0
    while core.has_work:
        for event in core.step():
            assert not isinstance(event, Failed), event
            tokens += [score.token for score in event.tokens]
            found = event.cached_tokens or found
        core.scheduler.check_integrity()
    return tokens, found


def _answers(core: EngineCore, submits: list[Submit]) -> list[tuple[list[int], int]]:
    return [_ask(core, submit) for submit in submits]


def _submits(temperature: float) -> list[Submit]:
    """Three stems in turn, twice: with the pages of one request, each drives out the others."""
    turns = [(stem, tail) for tail in (1, 2) for stem in range(3)]
    return [_submit(f"{s} {t}", _prompt(s, t), temperature) for s, t in turns]


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_comes_back_from_host_memory_changes_no_token(
    tiered: Runtime, drafts: int, depth: int, temperature: float
) -> None:
    submits = _submits(temperature)
    cold = EngineCore(tiered, EngineOptions(drafts, prefix_cache=False))
    want = [tokens for tokens, _ in _answers(cold, submits)]
    core = EngineCore(tiered, EngineOptions(drafts), depth=depth)
    found = _answers(core, submits)
    assert [tokens for tokens, _ in found] == want
    assert [cached for _, cached in found] == [0] * 3 + [FOUND] * 3
    assert core.stats.host_pages_restored > 2 * FOUND // PAGE
    assert core.stats.prefix_tokens == 3 * FOUND


def _halfway(core: EngineCore, submit: Submit) -> Req:
    assert core.handle(submit) == []
    (req,) = core.scheduler.waiting
    while req.num_output < submit.max_tokens - 4:
        core.step()
    return req


def _rows(runtime: Runtime, earlier: list[Submit]) -> dict[tuple[str, int], torch.Tensor]:
    """All planes' rows of a request's prompt, behind others."""
    for buffer in runtime.memory.planes.values():
        buffer.fill(0xA5)
    core = EngineCore(runtime, EngineOptions(3))
    _answers(core, earlier)
    req = _halfway(core, _submit("looked at", _prompt(0, 9)))
    assert req.num_found == (FOUND if earlier else 0)
    return cached_rows(runtime, req.pages, FOUND)


def test_restored_pages_hold_the_bytes_of_computed_ones_in_every_plane(tiered: Runtime) -> None:
    cold = _rows(tiered, [])
    assert {layer for _, layer in cold} == {0, 1, MTP_LAYER}
    warm = _rows(tiered, _submits(0.0)[:3])
    for plane, want in cold.items():
        assert torch.equal(warm[plane], want), plane


class _OnePlaneLess(HostPages):
    def __init__(self, planes: Sequence[Buffer], *given: Any) -> None:
        super().__init__(planes[:-1], *given)


class _SwapsPlanes(HostPages):
    def _restore(self, run: Sequence[Move], pages: Index) -> None:
        self._planes.reverse()
        super()._restore(run, pages)
        self._planes.reverse()


class _NextSlot(HostPages):
    def _slot(self, slot: int) -> Table:
        return super()._slot(slot // 2)


@pytest.mark.parametrize("fault", [_OnePlaneLess, _SwapsPlanes, _NextSlot])
def test_a_wrong_copy_is_noticed(
    good_drafts: Runtime, good_folder: Path, fault: type[HostPages]
) -> None:
    with patch("lostwax.backends.runtime.load.HostPages", fault):
        runtime = _load(good_folder)
    with pytest.raises(AssertionError, match=r"latent|index_key"):
        test_restored_pages_hold_the_bytes_of_computed_ones_in_every_plane(runtime)


def _plan(runtime: Runtime, moves: tuple[Move, ...]) -> StepPlan:
    """A step of some other request, with these moves."""
    seen: list[StepPlan] = []
    core = EngineCore(runtime, EngineOptions(0, prefix_cache=False))
    submit = type(runtime).submit

    def note(self: Runtime, plan: StepPlan) -> object:
        seen.append(plan)
        return submit(self, plan)

    with patch.object(type(runtime), "submit", note):
        _ask(core, _submit("any", _prompt(1, 1)[:5]))
    return msgspec.structs.replace(seen[0], moves=moves)


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (Move(0, 0, is_restore=False), "page 0 is moved; there are 1 to 12"),
        (Move(NUM_PAGES, 0, is_restore=False), "page 13 is moved; there are 1 to 12"),
        (Move(1, -1, is_restore=True), "page -1 of host memory is used; there are 40"),
        (Move(1, NUM_SLOTS, is_restore=True), "page 40 of host memory is used; there are 40"),
    ],
)
def test_moves_of_what_is_not_there_are_refused(tiered: Runtime, move: Move, said: str) -> None:
    with pytest.raises(StepError, match=said):
        tiered.submit(_plan(tiered, (move,)))


def test_moves_without_host_memory_are_refused(good_drafts: Runtime) -> None:
    plan = _plan(good_drafts, (Move(1, 0, is_restore=False),))
    with pytest.raises(StepError, match="no host memory was taken"):
        good_drafts.submit(plan)


def test_moves_are_made_in_their_order_before_the_step(tiered: Runtime) -> None:
    """A slot that is used twice, and a page that is restored and saved again, in one step."""
    planes = [buffer.reshape(NUM_PAGES, -1) for buffer in tiered.memory.planes.values()]
    for page in range(1, NUM_PAGES):
        for plane in planes:
            plane[page] = page
    moves = [(12, 5, False), (11, 5, True), (10, 5, False), (9, 5, True), (11, 6, False)]
    moves += [(8, 6, True), (2, 7, False), (3, 8, False), (4, 7, True), (5, 8, True)]
    plan = _plan(tiered, tuple(Move(*move) for move in moves))
    for page in range(1, NUM_PAGES):
        for plane in planes:
            plane[page] = page
    tiered.run(plan)
    held = [int(planes[0][page, -1]) for page in range(2, NUM_PAGES)]
    assert held == [2, 3, 2, 3, 6, 7, 12, 10, 10, 12, 12]
    for plane in planes:
        assert [int(plane[page, 0]) for page in range(2, NUM_PAGES)] == held
