"""What the engine needs of a runtime. Knows no torch: the loader behind it does."""

from __future__ import annotations

from typing import Protocol

from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step import StepBatch, StepResult


class Limits(Protocol):
    """The largest step that compiled programs take, and the cache they share.

    `max_tokens` rows of an extend step, `max_reqs` requests of any step, `max_score_rows` logit
    rows of a step with scores (0: the artifact has none), `num_pages` counts the trash page.
    """

    @property
    def max_tokens(self) -> int: ...
    @property
    def max_reqs(self) -> int: ...
    @property
    def max_context(self) -> int: ...
    @property
    def page_tokens(self) -> int: ...
    @property
    def num_pages(self) -> int: ...
    @property
    def max_score_rows(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


class Runtime(Protocol):
    """Runs steps. The engine calls `run` from one thread, one step at a time."""

    @property
    def limits(self) -> Limits: ...
    @property
    def facts(self) -> ModelFacts: ...
    def run(self, batch: StepBatch) -> StepResult: ...
