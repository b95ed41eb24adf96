"""Says a scheduled step as a plan: what the sequences' state does not hold. Knows no program."""

from __future__ import annotations

from collections.abc import Sequence

from lostwax.ir.contract.program import Entry, Head
from lostwax.ir.contract.step_plan import Span, StepPlan, append_span
from lostwax.ir.contract.step_state import Enter
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.scheduler import ScheduledStep


class PlanBuilder:
    """Gathers rows, request by request."""

    def __init__(self, entry: Entry, head: Head) -> None:
        self._entry: Entry = entry
        self._head: Head = head
        self._seqs: list[int] = []
        self._starts: list[int] = []
        self._counts: list[int] = []
        self._tokens: list[int] = []
        self._entering: list[Enter] = []
        self._logits: list[Span] = []
        self._num_logits = 0
        self._scored: list[Span] = []
        self._targets: list[int] = []
        self._hidden: list[Span] = []

    @property
    def num_rows(self) -> int:
        """Rows so far."""
        return len(self._tokens)

    def append_rows(self, req: Req, start: int, tokens: Sequence[int]) -> None:
        """Add rows of one request at positions `start` and on."""
        if not req.has_entered:
            self._entering.append(_enter(req, start))
        self._seqs.append(req.seq)
        self._starts.append(start)
        self._counts.append(len(tokens))
        self._tokens += tokens

    def want_logits(self, first: int, count: int, targets: Sequence[int] = ()) -> None:
        """Ask for the logits of rows `first` and on: to score the targets, then to pick outputs."""
        append_span(self._logits, first, count)
        append_span(self._scored, self._num_logits, len(targets))
        self._num_logits += count
        self._targets += targets

    def continue_hidden(self, first: int, count: int) -> None:
        """The next `count` rows continue hidden rows `first` and on."""
        append_span(self._hidden, first, count)

    def plan(self) -> StepPlan:
        """What was gathered."""
        return StepPlan(
            entry=self._entry,
            head=self._head,
            seqs=tuple(self._seqs),
            starts=tuple(self._starts),
            counts=tuple(self._counts),
            tokens=tuple(self._tokens),
            entering=tuple(self._entering),
            logits=tuple(self._logits),
            scored=tuple(self._scored),
            targets=tuple(self._targets),
            hidden=tuple(self._hidden),
        )


def plan_step(step: ScheduledStep) -> StepPlan:
    """The plan of a step: chunks become consecutive rows, one logit row a wanted position."""
    builder = PlanBuilder(step.entry, step.head)
    for chunk in step.chunks:
        _append_chunk(builder, chunk)
    return builder.plan()


def _append_chunk(builder: PlanBuilder, chunk: Chunk) -> None:
    req, first_row, wanted = chunk.req, builder.num_rows, chunk.logit_positions
    builder.append_rows(req, chunk.start, chunk.tokens)
    # Behind a known token its log-probability is wanted, behind the last one a pick.
    targets = req.tokens[wanted.start + 1 : min(wanted.stop + 1, chunk.num_known)]
    builder.want_logits(first_row + wanted.start - chunk.start, len(wanted), targets)


def _enter(req: Req, start: int) -> Enter:
    """The whole row of a request whose rows before `start` lie in its pages."""
    return Enter(
        seq=req.seq,
        pages=tuple(req.pages),
        length=start,
        limit=req.max_rows,
        num_prompt=req.num_prompt,
        temperature=req.submit.temperature,
        top_p=req.submit.top_p,
        seed=_as_int32(req.submit.seed),
    )


def _as_int32(seed: int) -> int:
    """The seed modulo 2^32, in the two's complement that step inputs carry."""
    return (seed + 2**31) % 2**32 - 2**31
