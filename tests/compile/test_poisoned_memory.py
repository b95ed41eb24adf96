"""A served model's answers do not change by a bit where all undefined memory holds NaN."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import pytest
import torch
from native_kernels import state_on_the_host, torch_alone
from poisoned_steps import Poison
from small import SMALL, options
from tiny import write_config

from lostwax.backends.compile import compile_module
from lostwax.backends.cpu.kernels import row_by_row
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.kernels import linear
from lostwax.backends.portable.kernels import rows as rows_kernels
from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.step_buffers import InputMemory, StepBuffers
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.program import Bucket, Segment
from lostwax.ir.contract.step import STEP_INPUTS, InputSpec
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.pages import PageAllocator

PAGE = 16
NUM_PAGES = 24
MTP_LAYER = 2
DRAFTS = 2
SIZES = Sizes(max_context=128, max_tokens=48, max_reqs=4, max_score_rows=8, max_drafts=DRAFTS)


def _compiled(folder: Path, *, batch_invariant: bool) -> Path:
    config = write_config(folder, SMALL | {"num_nextn_predict_layers": 1})
    new_checkpoint(config, folder / "checkpoint", seed=0, format="fp32")
    c = capture(open_checkpoint(folder / "checkpoint"), PAGE)
    chosen = options(sizes=SIZES, batch_invariant=batch_invariant)
    compile_module(c.module, c.facts, c.weights, "cpu", folder / "artifact", chosen)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["fast", "batch-invariant"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What enters a segment is poisoned where numpy has filled it in."""
    with state_on_the_host():
        return _compiled(tmp_path_factory.mktemp("poisoned"), batch_invariant=request.param)


@pytest.fixture(scope="module", params=[False, True], ids=["fast", "batch-invariant"])
def of_torch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faults are planted in torch's operators; native kernels touch no padding."""
    with torch_alone():
        return _compiled(tmp_path_factory.mktemp("of_torch"), batch_invariant=request.param)


def _loaded(folder: Path) -> Runtime:
    found = load(
        folder / "artifact", checkpoint=folder / "checkpoint", num_pages=NUM_PAGES, threads=1
    )
    for plane in found.memory.planes.values():
        plane.fill(0)
    return found


def _requests() -> list[Submit]:
    """More than fit at once, most of them longer than index_topk 32, with every head."""
    rng = random.Random(5)
    return [
        Submit(
            request=str(i),
            prompt=[rng.randrange(SMALL["vocab_size"]) for _ in range(rng.randrange(3, 70))],
            max_tokens=rng.randrange(2, 12),
            temperature=rng.choice([0.0, 1.0]),
            top_p=rng.choice([0.8, 1.0]),
            top_logprobs=rng.choice([0, 3]),
            seed=i,
            ignore_eos=True,
        )
        for i in range(9)
    ]


def _answers(runtime: Runtime) -> dict[str, list[Output | Failed]]:
    """What each request was given, step by step, log-probabilities included."""
    core = EngineCore(runtime, EngineOptions(DRAFTS))
    found: dict[str, list[Output | Failed]] = {}
    for submit in _requests():
        assert core.handle(submit) == []
    while core.has_work:
        for event in core.step():
            found.setdefault(event.request, []).append(event)
    return found


def _poisoned(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Poison:
    """From now on each replay of the runtime, which has not run, is over poisoned memory.

    What enters a segment is NaN in padded rows, too: else only what nobody writes would be.
    """
    poison = Poison(runtime, MTP_LAYER)
    sizes: dict[StepBuffers, tuple[Segment, Bucket]] = {}
    make, fill, release = StepBuffers.__init__, StepBuffers.fill, PageAllocator.release

    def making(self: StepBuffers, segment: Segment, bucket: Bucket, memory: InputMemory) -> None:
        make(self, segment, bucket, memory)
        sizes[self] = segment, bucket

    def filling(self: StepBuffers, inputs: StepInputs, rows: slice = slice(None)) -> None:
        fill(self, inputs, rows)
        poison.before(*sizes[self], inputs)

    def releasing(self: PageAllocator, pages: list[int], owner: str) -> None:
        release(self, pages, owner)
        poison.release(pages)

    take = rows_kernels.take_rows

    @wraps(take)
    def taking(table: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
        take(table, rows, out)
        out[rows < 0] = torch.nan

    monkeypatch.setattr(rows_kernels, "take_rows", taking)
    monkeypatch.setattr(StepBuffers, "__init__", making)
    monkeypatch.setattr(StepBuffers, "fill", filling)
    monkeypatch.setattr(PageAllocator, "release", releasing)
    return poison


def test_answers_are_the_same_bits_over_poisoned_memory(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _answers(_loaded(artifact))
    assert not [e for events in plain.values() for e in events if isinstance(e, Failed)]
    runtime = _loaded(artifact)
    poison = _poisoned(runtime, monkeypatch)
    assert _answers(runtime) == plain
    assert poison.padded == {"extend", "decode", "draft"}


def _give_real_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding writes to the first token of page 1."""
    monkeypatch.setitem(STEP_INPUTS, "slots", InputSpec(("T",), "i32", PAGE))


def _add_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (linear, row_by_row):
        product = module.linear

        @wraps(product)
        def planted(
            *tensors: torch.Tensor, product: Callable[..., None] = product, **consts: object
        ) -> None:
            product(*tensors, **consts)
            tensors[4].add_(0 * tensors[0].float().sum())

        monkeypatch.setattr(module, "linear", planted)


@pytest.mark.parametrize("plant", [_give_real_slots, _add_all_rows])
def test_a_fault_changes_answers(
    plant: Callable[[pytest.MonkeyPatch], None], of_torch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _answers(_loaded(of_torch))
    plant(monkeypatch)
    runtime = _loaded(of_torch)
    _poisoned(runtime, monkeypatch)
    assert _answers(runtime) != plain
