"""Requests whose answers follow a grammar: they wait for it, then for masks in every step.

Knows requests and steps, and nothing of how a grammar is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lostwax.ir.contract.step_plan import Span, append_span
from lostwax.server.engine.messages import GRAMMAR_FAILED, INVALID_GRAMMAR, Failed, Submit
from lostwax.server.engine.request import Req
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.grammar.counts import GrammarStats
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.grammar_process import GrammarProcess
from lostwax.server.grammar.grammars import Grammars, Wanted


@dataclass(slots=True)
class _Answer:
    """What an answer is to its grammar's process, which has heard of `num_told` tokens of it."""

    process: GrammarProcess
    number: int
    num_told: int = 0


@dataclass(slots=True)
class _Held:
    """Choices of a prompt that wait for their grammar."""

    process: GrammarProcess
    reqs: list[Req]


class Constrained:
    """Holds requests until their grammars can be followed, and brings the masks of steps.

    Without `grammars`, there is nobody to follow any.
    """

    def __init__(self, grammars: Grammars | None, eos_token_ids: Sequence[int]) -> None:
        self._grammars = grammars
        self._eos_token_ids = tuple(eos_token_ids)
        self._held: list[_Held] = []
        self._answers: dict[Req, _Answer] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for its grammar."""
        return bool(self._held)

    @property
    def is_used(self) -> bool:
        """Whether a request has a grammar, its answer has just ended, or the process that followed
        it is yet to say what it holds."""
        is_counting = self._grammars is not None and self._grammars.is_counting
        return bool(self._held or self._answers) or is_counting

    @property
    def stats(self) -> GrammarStats | None:
        """What an operator is told of grammars; None where none are followed."""
        if self._grammars is None:
            return None
        self._give_back()  # no step may follow in which they would be
        self._grammars.drop_idle()
        return self._grammars.stats

    def refusal(self, submit: Submit) -> Failed | None:
        """Why a request with a grammar is not even tried."""
        if submit.grammar is None:
            return None
        if self._grammars is None:
            message = "this artifact has no tokenizer, or names no token that ends answers:"
            message += " grammars need both; leave the grammar out"
            return Failed(submit.request, "unsupported_value", message)
        if submit.ignore_eos or submit.min_tokens:
            message = "a grammar says when an answer may end; leave ignore_eos and min_tokens out"
            return Failed(submit.request, "invalid_value", message)
        try:
            submit.grammar.require_small()
        except BadGrammar as error:
            return Failed(submit.request, INVALID_GRAMMAR, str(error))
        return None

    def find(self, name: str) -> Req | None:
        """The held request of that name."""
        return next((req for held in self._held for req in held.reqs if req.name == name), None)

    def hold(self, reqs: Sequence[Req]) -> None:
        """Let choices of a prompt wait for their grammar."""
        grammar = reqs[0].submit.grammar
        assert grammar is not None
        assert self._grammars is not None
        self._held.append(_Held(self._grammars.want(grammar), list(reqs)))

    def remove(self, req: Req) -> bool:
        """Forget a request that is held; whether it was."""
        for held in self._held:
            if req in held.reqs:
                held.reqs.remove(req)
                req.ended = True
                return True
        return False

    def settle(self, wait_s: float = 0.0) -> tuple[list[list[Req]], list[Failed]]:
        """Whose grammar is ready now, the choices of a prompt each, and whose is refused. Where
        none is, wait for so long."""
        assert self._grammars is not None
        self._give_back()
        self._grammars.look(wait_s)
        ready, failed, still = list[list[Req]](), list[Failed](), list[_Held]()
        for held in self._held:
            process = held.process
            if process.refusal is not None:
                for req in held.reqs:
                    req.ended = True
                    failed.append(Failed(req.name, process.refusal_code, process.refusal))
            elif process.is_ready:
                for req in held.reqs:
                    self._answers[req] = self._begun(req, process)
                ready += [held.reqs] if held.reqs else []
            elif held.reqs:
                still.append(held)
                continue
            process.leave()
        self._held = still
        return ready, failed

    def _give_back(self) -> None:
        """Tell the processes of answers that have ended."""
        for req in [req for req in self._answers if req.ended]:
            answer = self._answers.pop(req)
            answer.process.close(answer.number)

    def masked_rows(self, step: ScheduledStep) -> tuple[Span, ...]:
        """The logit rows of a step that wait for masks."""
        spans, row = list[Span](), 0
        for chunk in step.chunks:
            row += len(chunk.scored)
            if chunk.req in self._answers:
                append_span(spans, row, chunk.picks)
            row += chunk.picks
        return tuple(spans)

    def is_behind(self, step: ScheduledStep) -> bool:
        """Whether tokens that its masks depend on are in steps that were submitted before it."""
        reqs = [chunk.req for chunk in step.chunks if chunk.picks and chunk.req in self._answers]
        return any(req.num_in_flight > 1 and not req.ended for req in reqs)

    def masks(self, step: ScheduledStep) -> tuple[NDArray[np.int32], list[Failed]]:
        """i32 [masked rows, words]: the masks of a step all of whose requests' tokens are known,
        and who cannot go on; what these would pick is used by nobody."""
        assert self._grammars is not None
        wanted, num_rows = dict[Req, Wanted](), 0
        for chunk in step.chunks:
            req = chunk.req
            if not chunk.picks or req not in self._answers:
                continue
            if not req.ended:
                answer = self._answers[req]
                tokens = req.tokens[req.num_prompt + answer.num_told :]
                answer.num_told += len(tokens)
                drafts = req.drafts[: chunk.picks - 1]
                wanted[req] = Wanted(answer.process, answer.number, tokens, drafts, num_rows)
            num_rows += chunk.picks
        masks = self._grammars.masks(list(wanted.values()), num_rows)
        failed = [
            Failed(req.name, GRAMMAR_FAILED, f"the answer cannot go on: {each.fault}")
            for req, each in wanted.items()
            if each.fault is not None
        ]
        return masks, failed

    def no_masks(self, num_rows: int) -> NDArray[np.int32]:
        """i32 [num_rows, words]: masks that allow every id."""
        assert self._grammars is not None
        return self._grammars.masks([], num_rows)

    def _begun(self, req: Req, process: GrammarProcess) -> _Answer:
        ends = tuple({*req.submit.stop_ids, *self._eos_token_ids})
        return _Answer(process, process.open(ends, req.submit.grammar_after))
