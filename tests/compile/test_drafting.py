"""Drafting on a real artifact: the same tokens as without, whatever is accepted, and no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from drafting_models import MTP_LAYER, NUM_PAGES, SIZES, answers, cached_rows, prompts
from small import options

from lostwax.backends.asked import NoDrafts
from lostwax.backends.compile import compile_module
from lostwax.backends.runtime.load import Runtime
from lostwax.ir.contract.step import TRASH_PAGE
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.options import EngineOptions

FILLER = 0xA5


def _equal_whatever_is_drafted(runtime: Runtime, count: int, seed: int) -> list[float]:
    """Acceptance of 1, 2 and 3 drafts, after checking the tokens."""
    submits = prompts(count, seed)
    plain = answers(runtime, submits, 0)
    assert plain.core.drafting.num_drafted == 0
    shares: list[float] = []
    for drafts in (1, 2, 3):
        drafted = answers(runtime, submits, drafts)
        assert drafted.tokens == plain.tokens
        shares.append(drafted.core.drafting.num_accepted / drafted.core.drafting.num_drafted)
    return shares


def test_drafts_change_no_token_where_few_are_right(random_model: Runtime) -> None:
    assert max(_equal_whatever_is_drafted(random_model, 12, seed=0)) < 0.5


def test_drafts_change_no_token_where_most_are_right(good_drafts: Runtime) -> None:
    shares = _equal_whatever_is_drafted(good_drafts, 12, seed=1)
    assert min(shares) > 0.4, "a draft that is right is accepted"
    assert max(shares) < 1.0, "the test sees rejections too"


@pytest.mark.parametrize("drafts", [1, 2, 3])
def test_an_answer_may_end_inside_the_drafts_of_any_step(good_drafts: Runtime, drafts: int) -> None:
    """Where all of a step's drafts hold up to the end, no row is left for the layer that drafts."""
    for submit in prompts(6, seed=4):
        whole = answers(good_drafts, [submit], 0).tokens[submit.request]
        for count in range(1, len(whole) + 1):
            short = msgspec.structs.replace(submit, max_tokens=count)
            found = answers(good_drafts, [short], drafts).tokens[submit.request]
            assert found == whole[:count], (submit.request, count)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["random_model", "good_drafts"])
def test_a_thousand_prompts_have_the_same_tokens_with_any_number_of_drafts(
    model: str, request: pytest.FixtureRequest
) -> None:
    _equal_whatever_is_drafted(request.getfixturevalue(model), 1000, seed=2)


@pytest.mark.parametrize("model", ["random_model", "good_drafts"])
def test_a_token_does_not_depend_on_neighbours_or_chunks(
    model: str, request: pytest.FixtureRequest
) -> None:
    runtime = request.getfixturevalue(model)
    submits = prompts(6, seed=3)
    together = answers(runtime, submits, 2).tokens
    for submit in submits:
        assert answers(runtime, [submit], 0).tokens[submit.request] == together[submit.request]


def _halfway(runtime: Runtime, submit: Submit, drafts: int) -> tuple[int, dict[Any, torch.Tensor]]:
    """Cached rows of a request that is still running, over planes full of filler."""
    for buffer in runtime.memory.planes.values():
        buffer.fill(FILLER)
    core = EngineCore(runtime, EngineOptions(drafts))
    core.handle(submit)
    req = core.scheduler.find(submit.request)
    assert req is not None
    while req.num_output < submit.max_tokens - 4:
        core.step()
        core.scheduler.check_integrity()
    assert drafts == 0 or core.drafting.num_accepted < core.drafting.num_drafted, (
        "nothing was rejected"
    )
    others = [p for p in range(NUM_PAGES) if p not in req.pages and p != TRASH_PAGE]
    for (name, _), buffer in runtime.memory.planes.items():
        plane = next(p for p in runtime.manifest.planes if p.name == name)
        free = buffer.reshape(-1, plane.page_bytes)[others]
        assert (free == FILLER).all(), f"{name}: a page of nobody was written"
    return req.num_cached, cached_rows(runtime, req.pages, req.num_cached)


@pytest.mark.parametrize("model", ["random_model", "good_drafts"])
def test_rejected_drafts_leave_pages_as_plain_decoding_fills_them(
    model: str, request: pytest.FixtureRequest
) -> None:
    runtime = request.getfixturevalue(model)
    submit = Submit(
        request="a", prompt=[7 * i % 61 for i in range(29)], max_tokens=44, temperature=1.0, seed=5,
        ignore_eos=True,
    )  # fmt: skip
    count, plain = _halfway(runtime, submit, 0)
    drafted: dict[int, tuple[int, dict[Any, torch.Tensor]]] = {
        k: _halfway(runtime, submit, k) for k in (1, 3)
    }
    for length, rows in drafted.values():
        shared = min(count, length)
        assert shared > 32, "beyond index_topk"
        for (name, layer), want in plain.items():
            if layer < MTP_LAYER:
                assert torch.equal(rows[name, layer][:shared], want[:shared]), (name, layer)
    shared = min(length for length, _ in drafted.values())
    for name in ("latent", "index_key"):
        one, three = (rows[name, MTP_LAYER][:shared] for _, rows in drafted.values())
        assert torch.equal(one, three), f"the MTP layer's {name}"


def test_drafts_without_an_mtp_layer_are_refused(small_capture: Any, tmp_path: Path) -> None:
    c = small_capture
    chosen = options(sizes=SIZES)
    with pytest.raises(NoDrafts, match="one MTP layer"):
        compile_module(c.module, c.facts, c.weights, "cpu", tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()
