"""Shares the rows of a prefill step among prompts. Knows budgets and pages, never who waits.

The eldest, which began to run before the others, has half of the rows at least. The rest goes to
those with the fewest rows left: a small prompt does not wait until a long one is through, and a
long one takes at most twice as many steps for those behind it. Who ends makes the next the eldest,
so every prompt comes to its end. What either leaves is the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lostwax.server.engine.extend_budget import ExtendBudget
from lostwax.server.engine.request import Chunk, Req
from lostwax.server.engine.request_pages import Coming, RequestPages


class PromptRows:
    """Rows of known tokens for requests that run, beside answers under way or not.

    `on_found` is called where a prompt came to share pages that have entered since it began.
    """

    def __init__(
        self,
        budget: ExtendBudget | None,
        holdings: RequestPages,
        on_found: Callable[[], None],
    ) -> None:
        self._budget = budget
        self._holdings = holdings
        self._on_found = on_found
        self.num_prefix_tokens = 0
        """Prompt tokens whose rows lay in the prefix cache, the first time that a request ran."""

    def share(
        self,
        running: Sequence[Req],
        answers: Sequence[Chunk],
        num_decoding: int,
        *,
        most: int,
        is_bounded: bool,
    ) -> list[Chunk]:
        """The chunks of a step in which these answers go on, of those under way: `most` rows at
        most, and no more than the budget has. `is_bounded`: who is to bring back more from the
        host than goes with a step waits."""

        def most_at(context: int) -> int:
            bound = self.bound(answers, num_decoding, context)
            return most if bound is None else min(most, bound)

        written = self._being_written(running)
        prompts = [req for req in running if req.is_prefilling]
        eldest = self._pop_eldest(prompts, written, is_bounded=is_bounded)
        if eldest is None:
            return []
        written |= self._holdings.writes(eldest)
        most = most_at(eldest.num_planned + 1)  # a long context lets any step have few rows
        kept = share_of(eldest, most)
        most = most_at(eldest.num_planned + kept)
        kept = share_of(eldest, most)
        chunks, num_rows = list[Chunk](), 0
        for req in sorted(prompts, key=_rows_left):
            if num_rows + kept >= most:
                break
            if not self._may_run(req, written, is_bounded=is_bounded):
                continue
            rows: int = min(_rows_left(req), most - kept - num_rows)
            bounded: int = most_at(req.num_planned + rows)
            rows = min(rows, bounded - kept - num_rows)
            if rows <= 0 or (req.is_ending and rows < _rows_left(req)):
                continue  # its context is longer than those before it, and has no room beside them
            most = bounded
            chunks.append(Chunk.of_known(req, rows))
            num_rows += rows
            written |= self._holdings.writes(req)
        rows = min(_rows_left(eldest), most - num_rows)
        rows = min(rows, most_at(eldest.num_planned + rows) - num_rows)
        rows = max(rows, kept) if chunks else rows
        chunks.insert(0, Chunk.of_known(eldest, rows))
        for chunk in chunks:
            self._note_found(chunk.req)
        return chunks

    def bound(self, answers: Sequence[Chunk], num_decoding: int, context: int) -> int | None:
        """Rows of known tokens, with a context so long among them, beside those of answers: as many
        at least, or a prompt would wait for its neighbours' number. None where nobody waits."""
        if self._budget is None or not num_decoding:
            return None
        context = max([context, *[chunk.end for chunk in answers]])
        rows = self._budget.rows_at(context, num_decoding, is_mixed=bool(answers))
        return max(rows - len(answers), len(answers))

    def _pop_eldest(
        self, prompts: list[Req], written: set[Coming], *, is_bounded: bool
    ) -> Req | None:
        """Take out the first that may run, and those before it, who may not."""
        while prompts:
            req = prompts.pop(0)
            if self._may_run(req, written, is_bounded=is_bounded):
                return req
        return None

    def _may_run(self, req: Req, written: set[Coming], *, is_bounded: bool) -> bool:
        """Whether rows of a prompt may be planned. Before its first, what is kept of it by now is
        found; it waits while a step writes more of that, or host memory has more than may come back
        with this one."""
        if req.has_begun:
            return True
        if self._holdings.find_more(req):
            self._on_found()
        if self._holdings.is_on_its_way(req, written):
            return False  # of equal prompts one is run
        return self._holdings.bring_back(req, is_bounded=is_bounded)

    def _being_written(self, running: Sequence[Req]) -> set[Coming]:
        """Pages that steps in flight write, where one of the requests may wait for any."""
        written = set[Coming]()
        if any([req.is_prefilling and not req.has_begun for req in running]):
            for req in running:
                if req.num_in_flight:
                    written |= self._holdings.writes(req)
        return written

    def _note_found(self, req: Req) -> None:
        if req.cached_tokens is None:
            req.cached_tokens = req.num_found
            self.num_prefix_tokens += req.num_found


def share_of(eldest: Req, most: int) -> int:
    """Of so many rows, those that are kept for the eldest."""
    return min(_rows_left(eldest), most if eldest.is_ending else -(-most // 2))


def _rows_left(req: Req) -> int:
    """Rows of known tokens that are still to be planned."""
    return req.num_known - req.num_planned
