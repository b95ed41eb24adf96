"""Every way to accept drafts in four steps: lengths, following tokens, inputs and answers.

The model knows one answer by position, and drafts it with one wrong token where the script says:
behind that token it is right again, which must tempt nobody. Every step is also the oracle's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from fake_runtime import FakeLimits
from rows_runtime import Inputs, OracleRuntime, Ran

from lostwax.ir.contract.program import Entry
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import NO_TOKEN, Enter
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit

PAGE, INDEX_TOPK, STEPS, VOCAB = 4, 32, 4, 53
AROUND = (-1, 0, 1)
DEPTHS = (0, 1, 2)
DRAFTS = (1, 2, 3)
Script = tuple[int, ...]
"""How many drafts each decode step accepts."""


def scripts(drafts: int) -> list[Script]:
    return list(product(range(drafts + 1), repeat=STEPS))


def answer(seed: int, position: int) -> int:
    """The token that belongs to a position, be it of the prompt or not."""
    return (position * position + 7 * position + 13 * seed) % VOCAB


@dataclass(frozen=True)
class Scripted:
    """A request, known to the model by its seed."""

    seed: int
    script: Script
    num_prompt: int
    max_tokens: int

    @property
    def limit(self) -> int:
        return self.num_prompt + self.max_tokens - 1

    def tokens(self, first: int, count: int) -> list[int]:
        return [answer(self.seed, first + i) for i in range(count)]

    def draft(self, number: int, step: int, position: int) -> int:
        """The draft `number`, counted from 1, that decode step `step` verifies."""
        accepted = self.script[step] if step < len(self.script) else 0
        return (answer(self.seed, position) + (number == accepted + 1)) % VOCAB

    def states(self, drafts: int) -> list[tuple[int, list[int]]]:
        """Length and tokens that follow, behind the prompt and each decode step, up to the end."""
        length, found = self.num_prompt, list[tuple[int, list[int]]]()
        for step in range(self.max_tokens):
            made = min(drafts, self.limit - length - 1)
            guesses = [self.draft(n, step, length + n) for n in range(1, made + 1)]
            following = [answer(self.seed, length), *guesses]
            found.append((length, [*following, *[NO_TOKEN] * drafts][: drafts + 1]))
            if length == self.limit:
                break
            accepted = self.script[step] if step < len(self.script) else 0
            length += min(accepted, made) + 1
        return found


class _Model:
    """Picks what belongs to a position, and drafts by the script."""

    def __init__(self, requests: Iterable[Scripted]) -> None:
        self._of_seed = {request.seed: request for request in requests}
        self._picked: dict[int, int] = defaultdict(int)
        self._number = 0

    def __call__(self, entry: Entry, values: Inputs) -> Any:
        self._number = self._number + 1 if entry == "draft" else 0
        ids: list[int] = []
        last = None
        for row, seed, counter in zip(
            *(values[name].tolist() for name in ("logit_rows", "seeds", "counters")), strict=True
        ):
            request = self._of_seed[seed]
            about = request.num_prompt + counter
            if entry == "draft":
                ids.append(request.draft(self._number, self._picked[seed] - 1, about))
                continue
            if seed != last:  # its first row that picks
                last = seed
                self._picked[seed] += 1
                self._check_first_row(request, values, row)
            assert values["positions"][row] in (about - 1, -1)
            ids.append(answer(seed, about))
        return np.array(ids, np.int32)

    def _check_first_row(self, request: Scripted, values: Inputs, row: int) -> None:
        """It has the token that holds, unless the request is at its end."""
        position, token = int(values["positions"][row]), int(values["tokens"][row])
        assert position < 0 or token == answer(request.seed, position)


class _Runtime(OracleRuntime):
    """Notes what each step leaves of each request."""

    def __init__(self, requests: Sequence[Scripted], drafts: int) -> None:
        count = len(requests)
        limits = FakeLimits(
            max_tokens=count * 64,
            max_reqs=count,
            page_tokens=PAGE,
            num_pages=1 + count * 64 // PAGE,
            max_drafts=drafts,
        )
        super().__init__(limits, _Model(requests))
        self.left: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)

    def play(self, plan: StepPlan, ran: list[Ran]) -> StepResult:
        result = super().play(plan, ran)
        fields = self.state.fields
        for seq in plan.seqs:
            state = int(fields["length"][seq]), fields["tokens"][seq].tolist()
            self.left[int(fields["seed"][seq])].append(state)
        return result

    def check(self, request: Scripted, drafts: int) -> None:
        """The steps left what the script says, and behind the end nothing grew."""
        want, found = request.states(drafts), self.left[request.seed]
        assert found[: len(want)] == want, request
        assert {length for length, _ in found[len(want) :]} <= {request.limit}, request


def by_engine(requests: Sequence[Scripted], drafts: int, depth: int) -> None:
    """Requests that run together give the answers, by the steps, that the scripts say."""
    runtime = _Runtime(requests, drafts)
    core = EngineCore(runtime, depth=depth)
    tokens: dict[str, list[int]] = {}
    for request in requests:
        tokens[str(request.seed)] = []
        submit = Submit(
            request=str(request.seed),
            prompt=request.tokens(0, request.num_prompt),
            max_tokens=request.max_tokens,
            seed=request.seed,
            ignore_eos=True,
        )
        assert core.handle(submit) == []
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output), event
            tokens[event.request] += [score.token for score in event.tokens]
    accepted = 0
    for request in requests:
        want = request.tokens(request.num_prompt, request.max_tokens)
        assert tokens[str(request.seed)] == want, request
        runtime.check(request, drafts)
        lengths = [length for length, _ in request.states(drafts)]
        accepted += lengths[-1] - lengths[0] - (len(lengths) - 1)
    assert core.drafting.num_accepted == accepted


def by_plans(request: Scripted, drafts: int) -> None:
    """Decode steps that always have all rows, at and behind the limit, too."""
    runtime = _Runtime([request], drafts)
    pages = range(1, 1 + -(-request.limit // PAGE))
    enter = Enter(1, tuple(pages), 0, request.limit, request.num_prompt, seed=request.seed)
    runtime.submit(
        StepPlan(
            entry="extend",
            seqs=(1,),
            counts=(request.num_prompt,),
            ends=(request.num_prompt,),
            tokens=tuple(request.tokens(0, request.num_prompt)),
            entering=(enter,),
            logits=((request.num_prompt - 1, 1),),
            drafts=drafts,
        )
    )
    rows = 1 + drafts
    for _ in range(STEPS + 2):
        runtime.submit(
            StepPlan(
                entry="decode",
                seqs=(1,),
                counts=(rows,),
                ends=(request.limit,),
                logits=((0, rows),),
                drafts=drafts,
            )
        )
    runtime.check(request, drafts)


def from_prompt(drafts: int, num_prompt: int) -> list[Scripted]:
    """Every script, its first decode step at position `num_prompt`; none ends before the fourth."""
    return [
        Scripted(seed, script, num_prompt, STEPS * (drafts + 1) + 2)
        for seed, script in enumerate(scripts(drafts))
    ]


def to_end(drafts: int, around: int) -> list[Scripted]:
    """Every script, each so long that its second decode step ends near the request's end."""
    return [
        Scripted(seed, script, 6, 1 + sum(accepted + 1 for accepted in script[:2]) + around)
        for seed, script in enumerate(scripts(drafts))
    ]


STARTS = [*(2 * PAGE + around for around in AROUND), *(INDEX_TOPK + around for around in AROUND)]
ALL = [from_prompt(k, start) for k in DRAFTS for start in STARTS] + [
    to_end(k, around) for k in DRAFTS for around in AROUND
]


def _drafts(requests: Sequence[Scripted]) -> int:
    return max(max(request.script) for request in requests)


def _name(requests: Sequence[Scripted]) -> str:
    first = requests[0]
    return f"{_drafts(requests)} drafts, {first.num_prompt} and {first.max_tokens} tokens"


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("requests", ALL, ids=_name)
def test_all_scripts_beside_each_other_give_the_plain_answer(
    requests: list[Scripted], depth: int
) -> None:
    by_engine(requests, _drafts(requests), depth)


@pytest.mark.parametrize("around", AROUND)
def test_some_scripts_of_three_drafts_stop_at_the_limit(around: int) -> None:
    for request in to_end(3, around)[::7]:
        by_plans(request, 3)


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("requests", ALL, ids=_name)
def test_each_script_alone_gives_the_plain_answer(requests: list[Scripted], depth: int) -> None:
    for request in requests:
        by_engine([request], _drafts(requests), depth)


@pytest.mark.slow
@pytest.mark.parametrize("drafts", DRAFTS)
@pytest.mark.parametrize("around", AROUND)
def test_each_script_stops_at_the_limit(drafts: int, around: int) -> None:
    for request in to_end(drafts, around):
        by_plans(request, drafts)
