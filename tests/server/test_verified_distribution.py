"""Verifying drafts keeps the distribution: counts of outputs against exact probabilities.

The model is a Markov chain, its drafts another, the sampler the product's. A request's first three
outputs are one of some triples, whose probabilities are known; requests differ in seeds alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from fake_runtime import FakeLimits
from rows_runtime import Inputs, RowsRuntime

from lostwax.backends.portable.kernels import sample
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.ir.contract.program import Entry
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.request import Req

VOCAB, OUTPUTS, REQUESTS, FIRST, TOP_P = 6, 3, 6000, 0, 0.85
LOGITS = np.random.default_rng(0).normal(0, 1.2, (VOCAB, VOCAB)).astype(np.float32)
"""Of the token behind each token."""
DRAFT_LOGITS = 2 * LOGITS
"""Surer of the same: no draft is an id that could not come."""
LEVEL = 1e-6
"""How often the bound may be exceeded by chance."""
Triple = tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """What requests say of their sample."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()
    held: tuple[int, ...] = ()
    """Not among the first `least` outputs."""
    least: int = 0


NUCLEUS = Asked(top_p=TOP_P)
BIASED = Asked(bias=((1, 2.0), (4, -1.5)), top_p=0.9)
RARE = Asked(repetition=1.6, frequency=0.9, presence=0.5, top_p=0.95)
HELD = Asked(bias=((2, -100.0),), held=(0, 3), least=2)
ALL_THREE = Asked(top_k=4, top_p=0.95, min_p=0.15)


def less(logit: float, token: int, outputs: Triple, asked: Asked) -> float:
    """A logit behind the prompt FIRST and these outputs, by OpenAI's and Keskar's penalties."""
    times = outputs.count(token)
    if times or token == FIRST:
        logit = logit / asked.repetition if logit > 0 else logit * asked.repetition
    return logit - times * asked.frequency - (times > 0) * asked.presence


def nucleus(outputs: Triple, asked: Asked) -> dict[int, float]:
    """The probabilities behind some outputs, of the likeliest ids that are asked for there."""
    last, number, bias = [FIRST, *outputs][-1], len(outputs), dict(asked.bias)
    logits = [less(float(LOGITS[last][t]), t, outputs, asked) for t in range(VOCAB)]
    masses = [math.exp(logit + bias.get(t, 0.0)) for t, logit in enumerate(logits)]
    among = [t for t in range(VOCAB) if number >= asked.least or t not in asked.held]
    ranked = sorted(among, key=lambda t: -masses[t])[: asked.top_k or None]
    total, before, kept = math.fsum(masses[t] for t in ranked), 0.0, dict[int, float]()
    for token in ranked:
        if before >= asked.top_p * total or masses[token] < asked.min_p * masses[ranked[0]]:
            break
        kept[token] = masses[token]
        before += masses[token]
    return {token: mass / before for token, mass in kept.items()}


def probabilities(asked: Asked) -> dict[Triple, float]:
    """Those of every triple that can be."""
    found: dict[Triple, float] = {}
    for triple in product(range(VOCAB), repeat=OUTPUTS):
        probability = math.prod(
            nucleus(triple[:number], asked).get(token, 0.0) for number, token in enumerate(triple)
        )
        if probability > 0:
            found[triple] = probability
    return found


def chi_squared(counts: Counter[Triple], expected: dict[Triple, float]) -> tuple[float, int]:
    """The statistic, and the degrees of freedom; triples that are expected fewer than five times
    count as one (Cochran's rule). Infinite where something came that cannot."""
    if set(counts) - set(expected):
        return math.inf, 1
    total = sum(counts.values())
    cells: list[tuple[float, float]] = []
    rare_found = rare_wanted = 0.0
    for triple, probability in expected.items():
        if probability * total < 5:
            rare_found += counts[triple]
            rare_wanted += probability * total
        else:
            cells.append((counts[triple], probability * total))
    if rare_wanted:
        cells.append((rare_found, rare_wanted))
    return sum((found - want) ** 2 / want for found, want in cells), len(cells) - 1


def bound(freedom: int) -> float:
    """What chi-squared exceeds with probability LEVEL, by the cube root's normal approximation:
    Wilson and Hilferty, "The distribution of chi-square", PNAS 17 (1931)."""
    spread, deviate = 2 / (9 * freedom), NormalDist().inv_cdf(1 - LEVEL)
    return freedom * (1 - spread + deviate * math.sqrt(spread)) ** 3


def picked(logits: Any, values: Inputs) -> Any:
    """What the product's sampler picks: i32, one a row of logits [R, VOCAB]."""
    rows = torch.from_numpy(logits)
    temperature, top_k, top_p, min_p, seeds, counters = (
        torch.from_numpy(np.ascontiguousarray(values[name]))
        for name in ("temperature", "top_k", "top_p", "min_p", "seeds", "counters")
    )
    inside = torch.empty_like(rows)
    bias_rows = torch.from_numpy(np.ascontiguousarray(values["bias_rows"]))
    penalised, biased = torch.empty_like(rows), torch.empty_like(rows)
    names = ("count_rows", "recent", "repetition", "frequency", "presence")
    told = [torch.from_numpy(np.ascontiguousarray(values[name])) for name in names]
    sample.penalise(rows, values["counts"], told[0], told[1], told[2], told[3], told[4], penalised)
    sample.bias(penalised, values["biases"], bias_rows, biased)
    sample.nucleus(biased, temperature, top_k, top_p, min_p, inside)
    ids, logprobs = torch.empty(len(rows), dtype=torch.int32), torch.empty(len(rows))
    sample.pick(inside, temperature, seeds, counters, ids, logprobs)
    return ids.numpy()


def model(entry: Entry, values: Inputs) -> Any:
    """Picks by the chain, or drafts."""
    logits = DRAFT_LOGITS if entry == "draft" else LOGITS
    return picked(logits[values["tokens"][values["logit_rows"]]], values)


def accepting(entry: Entry, values: Inputs) -> Any:
    """A fault: every draft is what the row before it picked."""
    ids = model(entry, values)
    rows, starts = values["logit_rows"], values["q_starts"]
    for number, row in enumerate(rows.tolist()):
        if entry == "decode" and row + 1 not in starts and values["tokens"][row + 1] >= 0:
            ids[number] = values["tokens"][row + 1]
    return ids


def of_all_ranks(entry: Entry, values: Inputs) -> Any:
    """A fault: top_k is not looked at."""
    return model(entry, {**values, "top_k": np.zeros_like(values["top_k"])})


def of_any_mass(entry: Entry, values: Inputs) -> Any:
    """A fault: min_p is not looked at."""
    return model(entry, {**values, "min_p": np.zeros_like(values["min_p"])})


def without_drafts(entry: Entry, values: Inputs) -> Any:
    """A fault: penalties of rows that verify drafts do not know the drafts before them."""
    return model(entry, {**values, "recent": np.full_like(values["recent"], -1)})


class CountsDrafts(StepRows):
    """A fault: what was picked behind a draft that was rejected is counted, too."""

    def _count(self, ids: Any, last: Any) -> None:
        super()._count(ids, last * 0 + len(self._rows.tokens))


class CountsDraftsRuntime(RowsRuntime):
    rows = CountsDrafts


class HeldAlike(StepRows):
    """A fault: all rows of a step forbid an end if the first of their sequence does."""

    def __init__(self, plan: StepPlan, state: StateTable, page_tokens: int) -> None:
        super().__init__(plan, state, page_tokens)
        values = self.inputs.values
        if plan.entry == "decode":
            values["bias_rows"] = values["bias_rows"][values["q_starts"][self._rows.owners]]


class HeldAlikeRuntime(RowsRuntime):
    rows = HeldAlike


class OneCounter(StepRows):
    """A fault: rows that verify drafts use the noise of the row before them all."""

    def __init__(self, plan: StepPlan, state: StateTable, page_tokens: int) -> None:
        super().__init__(plan, state, page_tokens)
        if plan.entry == "decode":
            values, owners = self.inputs.values, self._rows.owners
            values["counters"] -= values["logit_rows"] - values["q_starts"][owners]


class OneCounterRuntime(RowsRuntime):
    rows = OneCounter


def counted(
    runtime: RowsRuntime, drafts: int, asked: Asked = NUCLEUS
) -> tuple[Counter[Triple], float]:
    """How often each triple came, and the share of drafts that were accepted."""
    core = EngineCore(runtime, EngineOptions(drafts))
    answers: dict[str, list[int]] = {}
    for seed in range(REQUESTS):
        answers[str(seed)] = []
        submit = Submit(
            request=str(seed),
            prompt=[FIRST],
            max_tokens=OUTPUTS + 2,
            temperature=1.0,
            top_k=asked.top_k,
            top_p=asked.top_p,
            min_p=asked.min_p,
            repetition_penalty=asked.repetition,
            frequency_penalty=asked.frequency,
            presence_penalty=asked.presence,
            logit_bias=dict(asked.bias),
            held_ids=list(asked.held),
            min_tokens=asked.least,
            seed=seed,
            ignore_eos=True,
        )
        core.scheduler.add(Req(submit))
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output), event
            answers[event.request] += [score.token for score in event.tokens]
    drafting = core.drafting
    counts = Counter(tuple(tokens[:OUTPUTS]) for tokens in answers.values())
    return counts, drafting.num_accepted / max(1, drafting.num_drafted)


LIMITS = FakeLimits(
    max_tokens=256, max_reqs=256, num_pages=1 + 256 * 4, max_drafts=3, vocab_size=VOCAB
)


@pytest.mark.parametrize(
    ("drafts", "asked"),
    [
        (0, NUCLEUS),
        (3, NUCLEUS),
        (3, ALL_THREE),
        (0, BIASED),
        (3, BIASED),
        (3, HELD),
        (0, RARE),
        (3, RARE),
    ],
)
def test_outputs_come_as_often_as_they_should(drafts: int, asked: Asked) -> None:
    counts, accepted = counted(RowsRuntime(LIMITS, model), drafts, asked)
    found, freedom = chi_squared(counts, probabilities(asked))
    assert freedom >= 15
    assert found < bound(freedom)
    if drafts:
        assert 0.2 < accepted < 0.9


@pytest.mark.parametrize(
    "runtime", [RowsRuntime(LIMITS, accepting), OneCounterRuntime(LIMITS, model)],
    ids=["every draft is accepted", "drafts are verified with the noise of others"],
)  # fmt: skip
def test_a_distribution_that_is_not_kept_is_noticed(runtime: RowsRuntime) -> None:
    counts, _ = counted(runtime, 3)
    found, freedom = chi_squared(counts, probabilities(NUCLEUS))
    assert bound(freedom) < found < math.inf


def test_rows_that_verify_drafts_forbid_ends_each_by_its_own_number() -> None:
    counts, _ = counted(HeldAlikeRuntime(LIMITS, model), 3, HELD)
    assert chi_squared(counts, probabilities(HELD))[0] > bound(20)


@pytest.mark.parametrize(
    "runtime", [RowsRuntime(LIMITS, without_drafts), CountsDraftsRuntime(LIMITS, model)],
    ids=["drafts are not seen", "rejected drafts are counted"],
)  # fmt: skip
def test_penalties_that_count_other_tokens_are_noticed(runtime: RowsRuntime) -> None:
    counts, _ = counted(runtime, 3, RARE)
    assert chi_squared(counts, probabilities(RARE))[0] > bound(60)


@pytest.mark.parametrize(
    ("model", "asked"), [(of_all_ranks, Asked(top_k=3)), (of_any_mass, Asked(min_p=0.3))]
)
def test_an_id_that_is_not_asked_for_is_noticed(
    model: Callable[[Entry, Inputs], Any], asked: Asked
) -> None:
    counts, _ = counted(RowsRuntime(LIMITS, model), 0, asked)
    assert chi_squared(counts, probabilities(asked))[0] == math.inf


def test_the_bound_is_chi_squareds() -> None:
    """For even degrees of freedom the upper tail is a finite sum."""
    for freedom in (10, 20, 40, 80):
        half = bound(freedom) / 2
        terms = [half**k / math.factorial(k) for k in range(freedom // 2)]
        assert 0.5 * LEVEL < math.exp(-half) * math.fsum(terms) < 1.5 * LEVEL
