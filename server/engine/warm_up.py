"""An engine's first steps, for which nobody waits. Knows neither devices nor what is learnt.

First every kind of step, then a long prompt beside an answer: programs are loaded meanwhile, and
the scheduler learns what prefill steps take. Else the first prompt beside a stream pays for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lostwax.server.engine.messages import Failed, Output, Submit

if TYPE_CHECKING:
    from lostwax.server.engine.loop import EngineCore

PROMPT_TOKENS = 4096
"""Of the long prompt, at most."""
MOST_S = 0.5
"""Seconds that it may take, and the step that is under way then."""
SETTLED = 6
"""Prefill steps of equally many rows behind which nothing more is learnt."""

DECODE_STEPS = 4
"""Before the prompt: the first takes longer than those that follow."""
_GOES_ON = 16
"""Tokens that the prompt is to have: more than the steps in flight give, so that it is dropped
before it ends."""
_ALONE, _ANSWER, _PROMPT = "warm-up", "warm-up answer", "warm-up prompt"


def run_every_kind(core: EngineCore) -> None:
    """A prefill and a decode step, with drafts if any are made. RuntimeError where one fails."""
    max_tokens = min(2 + core.scheduler.max_drafts, core.scheduler.max_context - 1)
    core.handle(Submit(request=_ALONE, prompt=[0], max_tokens=max_tokens, ignore_eos=True))
    while core.has_work:
        require_none_failed(core.step())


def run_prompt_beside_answer(core: EngineCore, clock: Callable[[], float]) -> tuple[str, ...]:
    """Run both until the prompt is through, its steps do not grow or time is up; the requests that
    are to be dropped. RuntimeError where a step fails."""
    scheduler = core.scheduler
    page_tokens = scheduler.limits.page_tokens
    num_held = scheduler.pages.num_usable // 2 * page_tokens  # each has half of the pages
    num_tokens = min(PROMPT_TOKENS, scheduler.max_context, num_held) - _GOES_ON
    if scheduler.max_running < 2 or num_tokens < page_tokens:
        return ()
    end_s = clock() + MOST_S
    core.handle(Submit(request=_ANSWER, prompt=[0], max_tokens=num_tokens, ignore_eos=True))
    answer = scheduler.find(_ANSWER)
    assert answer is not None
    while answer.num_output <= DECODE_STEPS and not answer.ended:
        require_none_failed(core.step())
    vocab_size = scheduler.limits.vocab_size
    prompt = [(31 * i + 7) % vocab_size for i in range(num_tokens)]
    core.handle(Submit(request=_PROMPT, prompt=prompt, max_tokens=_GOES_ON, ignore_eos=True))
    req = scheduler.find(_PROMPT)
    assert req is not None
    num_planned, num_rows, num_equal = 0, 0, 0
    while num_equal < SETTLED and clock() < end_s and not req.num_output:
        require_none_failed(core.step())
        rows, num_planned = req.num_planned - num_planned, req.num_planned
        if rows > 0:
            num_equal = num_equal + 1 if rows == num_rows else 0
            num_rows = rows
    return _ANSWER, _PROMPT


def require_none_failed(events: Sequence[Output | Failed]) -> None:
    """RuntimeError with the message of the first that failed."""
    for event in events:
        if isinstance(event, Failed):
            raise RuntimeError(f"the warm-up step failed: {event.message}")
