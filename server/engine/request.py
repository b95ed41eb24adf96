"""One request as the engine sees it: tokens, pages, progress. Knows no batch and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from lostwax.ir.contract.program import Head
from lostwax.ir.contract.step_state import NO_SEQ
from lostwax.server.engine.messages import Submit


@dataclass(slots=True)
class Req:
    """A request. `num_cached` rows of `tokens` lie in its pages; the rest is still to run.

    `drafts` are guesses at the tokens behind `tokens`, which the next decode step verifies.
    """

    submit: Submit
    tokens: list[int] = field(init=False)
    num_cached: int = 0
    pages: list[int] = field(default_factory=list[int])
    drafts: list[int] = field(default_factory=list[int])
    seq: int = NO_SEQ
    """Its row of the sequences' state while it runs."""
    has_entered: bool = False
    """Whether that row was written by a step."""
    in_flight: bool = False
    """Whether a step of it is submitted and not committed: its next token is not known here."""
    ended: bool = False

    def __post_init__(self) -> None:
        self.tokens = list(self.submit.prompt)

    @property
    def name(self) -> str:
        """The name that events carry."""
        return self.submit.request

    @property
    def num_prompt(self) -> int:
        """Tokens that the client gave."""
        return len(self.submit.prompt)

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.num_prompt

    @property
    def num_left(self) -> int:
        """Rows that must run before the next token is known."""
        return len(self.tokens) - self.num_cached

    @property
    def is_prefilling(self) -> bool:
        """Whether prompt rows are still to run."""
        return self.num_cached < self.num_prompt

    @property
    def may_draft(self) -> bool:
        """Whether drafts can still save a step; once they cannot, they never can again."""
        return self.submit.max_tokens - self.num_output > 1

    def num_drafts(self, most: int) -> int:
        """Drafts worth making now: the model adds a token of its own behind the accepted ones."""
        if self.is_prefilling or not self.may_draft:
            return 0
        return min(most, self.submit.max_tokens - self.num_output - 1)

    @property
    def max_rows(self) -> int:
        """Cache rows at the end: the last generated token is never run."""
        return self.num_prompt + max(self.submit.max_tokens - 1, 0)

    def max_pages(self, page_tokens: int) -> int:
        """Pages that `max_rows` rows need."""
        return -(-self.max_rows // page_tokens)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `start .. start+length-1` of a request, run in one step; the last are of `drafts`.

    `num_known` is how many tokens the request had when the step was planned. Only what cannot
    change is read through `req`, so that a result is mapped by what was submitted.
    """

    req: Req
    start: int
    length: int
    num_known: int
    logit_positions: range
    """Positions whose logits are wanted: scored prompt positions, then the sampled ones."""
    drafts: tuple[int, ...] = ()

    @staticmethod
    def behind(req: Req, length: int, drafts: tuple[int, ...] = ()) -> Chunk:
        """The next `length` rows of a request, as it is now."""
        start, num_known = req.num_cached, len(req.tokens)
        end = start + length
        # The last row's logits (with drafts: those of the last rows) pick tokens.
        samples = end - len(drafts) == num_known and req.submit.max_tokens > 0
        stop = end if samples or end < num_known else end - 1
        first = num_known - 1 if samples else stop
        if req.submit.score_prompt and start < req.num_prompt:
            first = start
        return Chunk(req, start, length, num_known, range(first, stop), drafts)

    @property
    def end(self) -> int:
        """The first position behind the chunk."""
        return self.start + self.length

    @property
    def tokens(self) -> list[int]:
        """The rows' tokens."""
        return [*self.req.tokens[self.start : self.end - len(self.drafts)], *self.drafts]

    @property
    def is_prefill(self) -> bool:
        """Whether the rows are the prompt's."""
        return self.start < self.req.num_prompt

    @property
    def head(self) -> Head:
        """The least head that gives the chunk's logit rows what the client wants."""
        submit = self.req.submit
        if submit.top_logprobs > 0 or (submit.score_prompt and self.is_prefill):
            return "score"
        return "sample" if submit.has_nucleus else "pick"
