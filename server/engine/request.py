"""One request as the engine sees it: tokens, pages, progress. Knows no batch and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from lostwax.ir.contract.program import Head
from lostwax.ir.contract.step_state import NO_SEQ
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.prefix_cache import Prefix

Rank = tuple[int, int]
"""Priority and number of arrival: who has the lower goes first, and is preempted last."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Req:
    """A request. `num_cached` rows of `tokens` lie in its pages, as far as results have told.

    `drafts` are guesses at the tokens behind `tokens`, which the next decode step verifies.
    """

    submit: Submit
    name: str = field(init=False)
    """The name that events carry."""
    tokens: list[int] = field(init=False)
    num_prompt: int = field(init=False)
    """Tokens that the client gave."""
    max_length: int = field(init=False)
    """Those that it may come to hold, and the client's."""
    max_rows: int = field(init=False)
    """Cache rows at the end: the last generated token is never run."""
    pick_head: Head = field(init=False)
    """The least head that picks a token as the client wants it."""
    draft_head: Head = field(init=False)
    """The least head whose drafts are mostly what the other would pick: it runs for each draft, and
    its nucleus keeps all answers waiting."""
    num_cached: int = 0
    num_drafted: int = 0
    """Rows of them that the MTP layer has cached, too: row i once token i + 1 was known, and never
    where no draft was to come."""
    pages: list[int] = field(default_factory=list[int])
    page_keys: list[bytes] = field(default_factory=list[bytes])
    """The prefix cache's keys of its first pages: those that no step of it will write again."""
    prefix: Prefix | None = None
    """What was found of it in the prefix cache when it was last looked for there, until it has
    begun."""
    host_keys: list[bytes] = field(default_factory=list[bytes])
    """Those of the pages behind them that were brought back from the host and have not entered."""
    key_to_come: tuple[int, bytes] | None = None
    """A page that may be the next to have a key, and that key, once somebody asked for it."""
    num_entered: int = 0
    """Pages that had entered the prefix cache when it was last looked for there."""
    num_found: int = 0
    """Rows that lay in the prefix cache, its tier in host memory included, when it began, the last
    time."""
    cached_tokens: int | None = None
    """Prompt tokens of which rows lay there the first time; None before its first step."""
    drafts: list[int] = field(default_factory=list[int])
    seq: int = NO_SEQ
    """Its row of the sequences' state while it runs."""
    has_entered: bool = False
    """Whether that row was written by a step."""
    rank: Rank = (0, 0)
    num_passed: int = 0
    """Requests that began to run before it while it was the first of those that wait."""
    num_told: int = 0
    """Pages of it that the device's state lists."""
    num_known: int = 0
    """Tokens that it had when it was admitted: extend steps run their rows."""
    num_scored: int = 0
    """Prompt positions before this one are scored, or their step is in flight."""
    num_in_flight: int = 0
    """Steps of it that are submitted and not committed."""
    rows_in_flight: int = 0
    """Their rows."""
    picks_in_flight: int = 0
    """Those of them that give it tokens: one each at least."""
    drafts_in_flight: int = 0
    """Drafts that the last of them makes at most."""
    ended: bool = False

    def __post_init__(self) -> None:
        submit = self.submit
        self.name = submit.request
        self.tokens = list(submit.prompt)
        self.num_prompt = len(self.tokens)
        self.max_length = submit.num_tokens
        self.max_rows = max(self.max_length - 1, self.num_prompt)
        samples = submit.has_nucleus or submit.has_penalty or submit.logit_bias
        samples = samples or submit.grammar is not None
        self.pick_head = "score" if submit.top_logprobs else "sample" if samples else "pick"
        changes = submit.leaves_little or submit.has_penalty or submit.logit_bias
        self.draft_head = "sample" if changes else "pick"

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.num_prompt

    @property
    def num_planned(self) -> int:
        """Rows that are cached when the steps in flight are done, at most: exactly while they run
        known tokens, fewer once drafts may be rejected."""
        return self.num_cached + self.rows_in_flight

    @property
    def has_begun(self) -> bool:
        """Whether rows of it have run or are in flight, since it was admitted."""
        return self.num_planned > self.num_found

    @property
    def is_prefilling(self) -> bool:
        """Whether rows of known tokens are still to be planned."""
        return self.num_cached + self.rows_in_flight < self.num_known

    @property
    def is_decoding(self) -> bool:
        """Whether its next row is that of its last token, known here or not."""
        may_go_on = len(self.tokens) + self.picks_in_flight < self.max_length
        return may_go_on and self.num_cached + self.rows_in_flight >= self.num_known

    @property
    def num_to_come(self) -> int:
        """Tokens that are still to be generated behind the steps in flight, at most."""
        return self.max_length - len(self.tokens) - self.picks_in_flight

    @property
    def wants_drafts(self) -> bool:
        """Whether drafts are ever worth making: behind the first output one token is the model's
        own, and the last is never run."""
        return self.submit.max_tokens > 2

    @property
    def is_ending(self) -> bool:
        """Whether no draft will be made any more where some were: of prompts, one that was
        preempted. The MTP layer must not see some of its rows and miss those before."""
        return self.wants_drafts and self.num_to_come <= 2

    @property
    def max_found(self) -> int:
        """Rows that it may take from the prefix cache, as far as scores are concerned: those of
        positions that are still to be scored must run."""
        is_scored = not self.submit.score_prompt or self.num_scored >= self.num_prompt - 1
        return len(self.tokens) if is_scored else self.num_scored

    def pages_of(self, num_rows: int, page_tokens: int) -> int:
        """Pages that so many rows need, or all rows that it may ever have."""
        return -(-min(num_rows, self.max_rows) // page_tokens)

    def add_cached(self, chunk: Chunk, num_tokens: int, *, ends: bool, has_drafts: bool) -> None:
        """Rows of a committed chunk hold: those that pick nothing, and `num_tokens` of the others.

        `ends`: the last of them ends the answer. `has_drafts`: the step made drafts for anybody.
        """
        before = self.num_cached
        self.num_cached += chunk.count - chunk.picks + num_tokens
        if not has_drafts:
            return
        # Rows behind an end are none of the answer's, but may hold on the device: count them all.
        most = before + chunk.count if ends else self.num_cached
        # The MTP layer runs the rows of a step behind which a draft may stand, and no others.
        if max(most, self.num_prompt) + 1 < self.max_rows:
            # A step without drafts leaves its requests two tokens to come at most. A later chunk of
            # one of them that reaches the end of what is known is behind the limit above; one that
            # does not has no neighbours (`is_ending`) who might make the step draft.
            assert self.num_drafted == before, "the MTP layer lacks rows before these"
            self.num_drafted = self.num_cached

    def submitted(self, chunk: Chunk, drafts: int) -> None:
        """A step of it, which makes `drafts` drafts at most, is on its way."""
        self.has_entered = True
        self.num_told = len(self.pages)
        if chunk.scored:
            self.num_scored = chunk.scored.stop
        self.num_in_flight += 1
        self.rows_in_flight += chunk.count
        self.picks_in_flight += chunk.picks > 0
        self.drafts_in_flight = drafts

    def came_back(self, chunk: Chunk) -> None:
        """That step is done, or failed."""
        self.num_in_flight -= 1
        self.rows_in_flight -= chunk.count
        self.picks_in_flight -= chunk.picks > 0


NOWHERE = range(0)
"""No position is scored."""


class Chunk(msgspec.Struct, frozen=True, eq=False):
    """`count` rows of a request in one step, of which the last `picks` pick a token each.

    Rows of known tokens begin at `start`; those of a decode step begin there at most. What stands
    behind the positions `scored` is known, and its log-probability is wanted.
    """

    req: Req
    start: int
    count: int
    picks: int
    scored: range

    @staticmethod
    def of_known(req: Req, count: int) -> Chunk:
        """The next `count` rows of known tokens."""
        start = req.num_planned
        end = start + count
        picks = int(end == req.num_known and req.submit.max_tokens > 0)
        first = max(start, req.num_scored)
        last = min(end, req.num_prompt - 1) if req.submit.score_prompt else first
        return Chunk(req, start, count, picks, range(first, last) if last > first else NOWHERE)

    @staticmethod
    def of_next(req: Req) -> Chunk:
        """The row of the last token, and those of the drafts behind it."""
        drafts, count = req.drafts_in_flight if req.num_in_flight else len(req.drafts), 1
        if drafts:
            # Each row gives a token at most, and each step in flight gives one at least.
            count = min(1 + drafts, req.num_to_come)
        return Chunk(req, req.num_cached + req.rows_in_flight, count, count, NOWHERE)

    @property
    def end(self) -> int:
        """The first position behind the chunk, at most."""
        end, most = self.start + self.count, self.req.max_rows
        return end if end < most else most

    @property
    def head(self) -> Head:
        """The least head that gives the chunk's logit rows what the client wants."""
        if self.scored:
            return "score"
        if not self.picks:
            return "pick"
        head, least = self.req.pick_head, self.req.submit.min_tokens
        # how many outputs there are is told by results: late where it errs
        return "sample" if head == "pick" and least and least > self.req.num_output else head

    def num_drafts(self, most: int) -> int:
        """Drafts worth making behind the step: it gives a token, and the model adds one of its own
        behind those that it accepts. Behind rows that pick nothing, one if any will ever be: their
        layer must see all rows."""
        wanted = max(0, min(most, self.req.num_to_come - 2))
        return wanted if self.picks else min(wanted, 1)
