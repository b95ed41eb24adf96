"""How many threads a step gets: by a clock of the test's own, and on the small model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small import PROMPT, greedy, plan
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.runtime import load as loading
from lostwax.backends.runtime.choose_threads import StepThreads, choose_threads, fewest
from lostwax.backends.runtime.load import Runtime, RuntimeLimits, load
from lostwax.ir.contract.step_plan import StepPlan

LIMITS = RuntimeLimits(
    max_tokens=512, max_reqs=8, max_context=8192, max_score_rows=64, page_tokens=64,
    vocab_size=4096, max_drafts=0, num_pages=993,
)  # fmt: skip
Cost = Callable[[int, int], float]
"""Seconds of a step of so many rows on so many threads."""


class Machine:
    """Steps that take what `cost` says on a clock that nothing else moves."""

    def __init__(self, cost: Cost, hiccup_at: int = -1) -> None:
        self._cost = cost
        self._hiccup_at = hiccup_at
        self._threads = 0
        self.now = 0.0
        self.runs: list[tuple[int, int]] = []

    def run(self, step: StepPlan) -> None:
        rows = step.num_rows
        self.now += self._cost(rows, self._threads)
        self.now += 0.03 if len(self.runs) == self._hiccup_at else 0.0
        self.runs.append((rows, self._threads))

    def choose(self, usable: int, *, one_number: bool = False) -> StepThreads:
        return choose_threads(
            self.run, LIMITS, usable, self._use, one_number=one_number, clock=lambda: self.now
        )

    def _use(self, threads: int) -> None:
        self._threads = threads


def _short_operators(rows: int, threads: int) -> float:
    """The default model on two cores: waiting costs, arithmetic is shared."""
    return 3e-3 + 2.5e-4 * rows / threads + (2e-3 if threads > 1 else 0.0)


def _arithmetic(rows: int, threads: int) -> float:
    """A model that gains from 16 threads, not more: memory is the bound."""
    return (4.0 + 0.01 * rows) / min(threads, 16)


def test_short_steps_get_one_thread_and_long_ones_more() -> None:
    machine = Machine(_short_operators)
    chosen = machine.choose(2)
    assert (chosen.few, chosen.many) == (1, 2)
    assert [chosen.of(rows) for rows in (1, 8, 15, 16, 512)] == [1, 1, 1, 2, 2]
    assert machine.now < 0.5
    assert str(chosen).startswith("threads, of 2 usable: 1 for few rows, 2 from 16 rows on (a step")
    assert "1 request 3.3 ms on 1, 5.1 ms on 2; 4 requests 4.0 ms on 1" in str(chosen)


@pytest.mark.parametrize("hiccup_at", range(0, 30, 3))
def test_one_slow_step_changes_nothing(hiccup_at: int) -> None:
    chosen = Machine(_short_operators, hiccup_at).choose(2)
    assert chosen.few == 1


def test_a_large_model_gets_what_it_gains_from_and_is_not_timed_for_long() -> None:
    machine = Machine(_arithmetic)
    assert machine.choose(64).few == 16
    assert min(threads for _, threads in machine.runs) >= 8
    assert machine.now < 7


def test_a_model_of_slow_steps_gets_every_core_and_is_not_timed() -> None:
    machine = Machine(lambda rows, threads: 3.0)
    chosen = machine.choose(8)
    assert (chosen.few, chosen.many) == (8, 8)
    assert [seconds for _, seconds in chosen.timed] == [{}, {}, {}, {}]
    assert len(machine.runs) == 2 * len(chosen.timed)
    assert "1 request over 1 s" in str(chosen)


def test_on_one_core_nothing_is_timed() -> None:
    machine = Machine(_short_operators)
    assert machine.choose(1) == StepThreads(1, 1, 1)
    assert machine.runs == []


def test_independent_rows_get_one_number() -> None:
    assert Machine(_short_operators).choose(2, one_number=True).few == 1
    chosen = Machine(lambda rows, threads: rows / threads / 100).choose(2, one_number=True)
    assert chosen.few == chosen.many == 2


def test_of_equal_numbers_the_smallest_is_taken() -> None:
    assert fewest([{1: 1.04, 2: 1.0, 4: 1.0}], 4) == 1
    assert fewest([{1: 1.06, 2: 1.0, 4: 1.0}], 4) == 2
    assert fewest([{1: 2.0, 2: 1.0}, {1: 1.0, 2: 1.5}], 4) == 2
    assert fewest([{2: 1.0, 4: 1.0}, {4: 1.0}], 4) == 4
    assert fewest([{1: 1.0}, {}], 4) == 4


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _load(compiled: Compiled, **options: object) -> Runtime:
    return load(compiled.artifact, checkpoint=compiled.checkpoint, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("num_pages", [2, None])
def test_timing_real_steps_changes_no_answer(
    small_artifact: Compiled, num_pages: int | None
) -> None:
    expected = greedy(_load(small_artifact, num_pages=num_pages), PROMPT, 6)
    torch.set_num_threads(2)
    runtime = _load(small_artifact, num_pages=num_pages)
    chosen = runtime.choose_threads()
    assert chosen is not None
    assert chosen.few in (1, 2)
    assert greedy(runtime, PROMPT, 6) == expected


@pytest.mark.usefixtures("two_threads")
def test_each_step_runs_on_its_threads(
    torch_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "choose_threads", lambda *_, **__: StepThreads(1, 2, 2))  # pyright: ignore[reportUnknownLambdaType]
    runtime = _load(torch_artifact)
    runtime.choose_threads()
    for rows, threads in ((64, 2), (3, 1), (64, 2)):
        runtime.run(plan([1] * rows, 0))
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("two_threads")
def test_targets_that_compute_elsewhere_keep_their_threads(
    compile_small: CompileSmall, small_checkpoint: Path, tmp_path: Path
) -> None:
    compile_small(tmp_path / "a", target="null")
    assert load(tmp_path / "a", checkpoint=small_checkpoint).choose_threads() is None
    assert torch.get_num_threads() == 2
