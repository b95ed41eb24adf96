"""What the engine needs of a runtime. Knows no torch: the loader behind it does."""

from __future__ import annotations

from typing import Protocol

from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan


class Limits(Protocol):
    """The largest step that compiled programs take, and the cache they share."""

    @property
    def max_tokens(self) -> int:
        """Rows of an extend step."""
        ...

    @property
    def max_reqs(self) -> int:
        """Requests of any step, and rows of a decode step."""
        ...

    @property
    def max_context(self) -> int:
        """Positions that programs are compiled for."""
        ...

    @property
    def page_tokens(self) -> int:
        """Cached rows a page."""
        ...

    @property
    def num_pages(self) -> int:
        """Pages of the cache, the trash page included."""
        ...

    @property
    def max_drafts(self) -> int:
        """Tokens drafted at most for a request between two decode steps; 0 without drafting."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids run from 0 to below this."""
        ...


class Ticket(Protocol):
    """A step that was submitted. Steps run in the order in which they were submitted.

    One that fails also fails those that were submitted before its `result` told of it: what they
    computed is worth nothing.
    """

    @property
    def done(self) -> bool:
        """Whether `result` would return, or raise, without waiting."""
        ...

    def result(self) -> StepResult:
        """Wait for the step: one entry of each result field a logit row. Raises what it raised."""
        ...


class Runtime(Protocol):
    """Runs steps. The engine calls `submit` from one thread."""

    @property
    def limits(self) -> Limits:
        """The largest step."""
        ...

    @property
    def facts(self) -> ModelFacts:
        """The model that is served."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether a step runs beside the host, which may then submit the next."""
        ...

    def submit(self, plan: StepPlan) -> Ticket:
        """Enqueue one step and return at once; a step that is refused here changes nothing."""
        ...
