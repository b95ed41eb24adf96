"""What the engine needs of a runtime. Knows no torch: the loader behind it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan

if TYPE_CHECKING:  # numpy is the runtime's
    from lostwax.backends.runtime.mask_gate import Masks


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
    def num_host_pages(self) -> int:
        """Pages that host memory takes in beside the cache (`StepPlan.moves`); 0 without any."""
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

    Where rows wait for masks (`StepPlan.masked`), only the step's body runs until `finish` brings
    these; head and drafts follow then. No other step is submitted in between: so a step whose masks
    nobody wants any more is finished all the same, with masks that allow every id.
    """

    @property
    def done(self) -> bool:
        """Whether `result` would return, or raise, without waiting; False while rows wait for
        masks."""
        ...

    def finish(self, masks: Masks) -> None:
        """Bring the masks of the rows that wait, and return at once.

        masks: i32 [masked rows, ceil(vocab_size / 32)], one a row in the order of logit rows; bit
        i % 32, the least significant first, of word i // 32 is 1 where id i may be picked. They are
        copied before this returns.

        Raises MaskError (`backends/runtime/mask_gate.py`) where no row of the step waits, where the
        ticket was finished before, where the array has another type, dtype or shape, or where a
        mask allows no id; then nothing has changed, and a ticket that waited waits on. Of a step
        that has failed masks are dropped: `result` raises what it raised.
        """
        ...

    def result(self) -> StepResult:
        """Wait for the step: one entry of each result field a logit row. Raises what it raised,
        MaskError while rows wait for masks."""
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

    @property
    def pays_by_row(self) -> bool:
        """Whether a step takes the time of its own rows, rather than of those of its program."""
        ...

    def submit(self, plan: StepPlan) -> Ticket:
        """Enqueue one step and return at once; a step that is refused here changes nothing.

        Refused is also whatever comes while a ticket waits for masks, and a plan whose `masked`
        rows are not rows that pick, in order, under the head `sample` or `score`.
        """
        ...
