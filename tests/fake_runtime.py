"""A runtime without a model: the next token is a hash of what the row sees through its pages.

A wrong slot, page, position or length therefore gives a wrong token. A row's hidden is all that it
saw, so that a draft step can check what it continues; two of three drafts are right. What a slot
holds knows what its row saw, as a model's does: behind another prefix an equal token will not do.
It knows nothing of the engine but the step contract.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from run_at_once import RunsAtOnce
from step_oracle import Sequences, StepBatch

from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step import MAX_RANKED, TRASH_PAGE, StepResult
from lostwax.ir.contract.step_plan import Move

VOCAB = 61
EOS = 60
NOTHING = list[int]()
"""The hidden of a row without a token; what it gives is undefined."""


@dataclass(frozen=True, slots=True)
class FakeLimits:
    """Small limits, so that few tokens already need chunks, pages and turns."""

    max_tokens: int = 16
    max_reqs: int = 4
    max_context: int = 64
    page_tokens: int = 4
    num_pages: int = 33
    max_drafts: int = 0
    num_host_pages: int = 0
    vocab_size: int = VOCAB


FACTS = ModelFacts(
    name="fake",
    architecture="fake",
    digest="0",
    vocab_size=VOCAB,
    num_layers=1,
    hidden_size=1,
    index_topk=32,
    max_context=64,
    page_tokens=4,
    bos_token_id=0,
    eos_token_ids=(EOS,),
)


def logprobs_after(tokens: list[int]) -> list[float]:
    """The log-probabilities of the token after `tokens`."""
    digest = hashlib.sha256(repr(tokens).encode()).digest()
    noise = random.Random(digest)
    logits = [noise.uniform(0, 4) for _ in range(VOCAB)]
    total = math.log(sum(map(math.exp, logits)))
    return [logit - total for logit in logits]


class Narrowed(NamedTuple):
    """Which ids are sampled from: neutral by default."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


class Penalties(NamedTuple):
    """What tokens that came do to logits: neutral by default."""

    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0


NO_PENALTIES = Penalties()


ALL_IDS = Narrowed()
NO_BIAS: Mapping[int, float] = {}


def nucleus(logprobs: list[float], temperature: float, by: Narrowed) -> list[int]:
    """The likeliest ids, `top_k` at most, as many of them as have a mass of `top_p` at that
    temperature, and none that is less likely than `min_p` times the first."""
    order = sorted(range(VOCAB), key=lambda i: (-logprobs[i], i))[: by.top_k or None]
    masses = [math.exp(logprobs[i] / temperature) for i in order]
    before = [math.fsum(masses[:rank]) / math.fsum(masses) for rank in range(len(order))]
    return [
        i
        for i, own, mass in zip(order, masses, before, strict=True)
        if mass < by.top_p and own >= by.min_p * masses[0]
    ]


def allowed(batch: StepBatch, row: int) -> list[int]:
    """The ids that the mask of a logit row allows: all of them without one."""
    if batch.mask_rows[row] < 0:
        return list(range(VOCAB))
    assert batch.masks is not None
    words = batch.masks[batch.mask_rows[row]].tolist()
    return [i for i in range(VOCAB) if words[i // 32] >> (i % 32) & 1]


def penalised(
    scores: Sequence[float], prompt: Sequence[int], outputs: Sequence[int], by: Penalties
) -> dict[int, float]:
    """The new scores of ids that came: OpenAI's two of outputs, repetition's of all tokens."""
    found: dict[int, float] = {}
    for token in {*prompt, *outputs}:
        score, times = scores[token], outputs.count(token)
        score = score / by.repetition if score > 0 else score * by.repetition
        found[token] = score - by.frequency * times - by.presence * (times > 0)
    return found


def penalties(batch: StepBatch, row: int, seen: Sequence[int]) -> dict[int, float]:
    """The scores of a logit row whose hidden has seen these tokens, as far as they are changed."""
    if batch.count_rows[row] < 0:
        return {}
    by = Penalties(batch.repetition[row], batch.frequency[row], batch.presence[row])
    outputs = len(seen) - batch.counters[row]
    return penalised(logprobs_after(list(seen)), seen[:outputs], seen[outputs:], by)


def narrowed(batch: StepBatch, row: int) -> Narrowed:
    """What a logit row is sampled from; the head `pick` samples from all ids."""
    if batch.head == "pick":
        return ALL_IDS
    return Narrowed(batch.top_k[row], batch.top_p[row], batch.min_p[row])


def pick(
    logprobs: list[float],
    temperature: float,
    seed: int,
    counter: int,
    by: Narrowed = ALL_IDS,
    among: Sequence[int] = range(VOCAB),
    bias: Mapping[int, float] = NO_BIAS,
    penalty: Mapping[int, float] = NO_BIAS,
) -> int:
    """The fake sampler: greedy at temperature 0, else noise from seed and counter."""
    changed = [penalty.get(i, p) + bias.get(i, 0.0) for i, p in enumerate(logprobs)]
    logprobs = [p if i in among else -math.inf for i, p in enumerate(changed)]
    noise = random.Random(f"{seed} {counter}") if temperature else None
    scores = [p + (temperature * noise.uniform(0, 3) if noise else 0) for p in logprobs]
    ids = nucleus(logprobs, temperature, by) if noise and by != ALL_IDS else among
    return max(ids, key=lambda i: (scores[i], -i))


def generate(
    prompt: list[int],
    count: int,
    temperature: float = 0.0,
    seed: int = 0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    bias: Mapping[int, float] = NO_BIAS,
    min_tokens: int = 0,
    ends: Sequence[int] = (),
    by_tokens: Penalties = NO_PENALTIES,
) -> list[int]:
    """What a request must answer when it ignores the end of sequence."""
    tokens = list(prompt)
    for counter in range(count):
        by = Narrowed(top_k, top_p, min_p)
        held = dict.fromkeys(ends if counter < min_tokens else (), -math.inf)
        scores = logprobs_after(tokens)
        less = penalised(scores, tokens[: len(prompt)], tokens[len(prompt) :], by_tokens)
        added = {**bias, **held}
        token = pick(scores, temperature, seed, counter, by, bias=added, penalty=less)
        tokens.append(token)
    return tokens[len(prompt) :]


@dataclass(frozen=True, slots=True)
class Cached:
    """What a slot holds: a row's position and token, and a digest of what the row saw."""

    position: int
    token: int
    past: int


def pasts(tokens: Sequence[int]) -> list[int]:
    """Digests of the tokens up to each of them."""
    return [*accumulate(tokens, lambda before, token: hash((before, token)), initial=0)][1:]


class FakeRuntime(RunsAtOnce):
    """Keeps what each slot holds. `step_s` makes steps slow, `fail` makes them raise."""

    def __init__(self, limits: FakeLimits | None = None, *, step_s: float = 0.0) -> None:
        self.limits = limits or FakeLimits()
        self.facts = FACTS
        self.sequences = Sequences(self.limits.page_tokens)
        self.fail = False
        self.fail_drafts = False
        self.batches: list[StepBatch] = []
        self._step_s = step_s
        self._cache: dict[int, Cached] = {}
        self._draft_cache: dict[int, Cached] = {}
        self._host: dict[int, list[list[Any]]] = {}
        self._hidden: list[list[int]] = []

    @property
    def planes(self) -> tuple[dict[int, Any], ...]:
        """What cache slots hold, of each kind of cache."""
        return self._cache, self._draft_cache

    def move(self, moves: Sequence[Move]) -> None:
        """Copy what pages hold to host memory and back, in order; a page that is saved is full."""
        size = self.limits.page_tokens
        for move in moves:
            assert TRASH_PAGE < move.page < self.limits.num_pages, f"{move}: no such page"
            assert 0 <= move.slot < self.limits.num_host_pages, f"{move}: no such slot"
            slots = range(move.page * size, (move.page + 1) * size)
            if not move.is_restore:
                assert all(slot in self._cache for slot in slots), f"{move}: the page is not full"
                self._host[move.slot] = [[plane.get(s) for s in slots] for plane in self.planes]
                continue
            for plane, held in zip(self.planes, self._host[move.slot], strict=True):
                for slot, its in zip(slots, held, strict=True):
                    plane.pop(slot, None)
                    if its is not None:
                        plane[slot] = its

    def run(self, batch: StepBatch) -> StepResult:
        """Write the rows, then read each logit row's past back through the page table."""
        if self._step_s:
            time.sleep(self._step_s)
        if self.fail or (self.fail_drafts and batch.entry == "draft"):
            raise RuntimeError("the fake device failed")
        self.batches.append(batch)
        self._check(batch)
        if batch.entry == "draft":
            return self._draft(batch)
        self._hidden = [self._main_row(batch, row) for row in range(len(batch.tokens))]
        result = StepResult(ids=[], logprobs=[], program="fake")
        for i, row in enumerate(batch.logit_rows):
            scores = logprobs_after(self._hidden[row])
            # as the heads do: `pick` samples from all ids
            sampled = batch.temperature[i], batch.seeds[i], batch.counters[i]
            less = penalties(batch, i, self._hidden[row])
            token = pick(
                scores, *sampled, narrowed(batch, i), allowed(batch, i), batch.bias[i], less
            )
            result.ids.append(token)
            result.logprobs.append(scores[token])
            if batch.head == "score":
                top = sorted(range(VOCAB), key=lambda t: (-scores[t], t))[:MAX_RANKED]
                target = batch.targets[i]
                result.target_logprobs.append(scores[target] if target >= 0 else 0.0)
                result.top_ids.append(top)
                result.top_logprobs.append([scores[t] for t in top])
        return result

    def _draft(self, batch: StepBatch) -> StepResult:
        """Slot i of the draft layer's cache holds token i + 1, and has seen the hidden of row i;
        hiddens are as the main model's."""
        self._hidden = [self._draft_row(batch, row) for row in range(len(batch.tokens))]
        hidden = self._hidden
        result = StepResult(ids=[], logprobs=[], program="fake draft")
        for i, row in enumerate(batch.logit_rows):
            scores = logprobs_after(hidden[row])
            sampled = batch.temperature[i], batch.seeds[i], batch.counters[i]
            bias = {} if batch.head == "pick" else batch.bias[i]
            token = pick(scores, *sampled, narrowed(batch, i), bias=bias)
            is_wrong = hashlib.sha256(repr(hidden[row]).encode()).digest()[0] % 3 == 0
            result.ids.append((token + is_wrong) % VOCAB)
            result.logprobs.append(scores[token])
        return result

    def _main_row(self, batch: StepBatch, row: int) -> list[int]:
        """Write a row, and return what it sees, itself included."""
        token = batch.tokens[row]
        if token < 0:
            return NOTHING
        before = self._before(batch, row, self._cache)
        seen = [*(held.token for held in before), token]
        *want, own = pasts(seen)
        assert [held.past for held in before] == want, "what is cached saw another prefix"
        self._cache[batch.slots[row]] = Cached(batch.positions[row], token, own)
        return seen

    def _draft_row(self, batch: StepBatch, row: int) -> list[int]:
        token, hidden = batch.tokens[row], self._hidden[batch.hidden_rows[row]]
        if token < 0:
            return NOTHING
        before = self._before(batch, row, self._draft_cache)
        held = [(held.token, held.past) for held in before]
        *want, own = pasts(hidden)
        assert held == [*zip(hidden[1:], want, strict=True)], "a draft row lacks rows"
        self._draft_cache[batch.slots[row]] = Cached(batch.positions[row], token, own)
        return [*hidden, token]

    def _before(self, batch: StepBatch, row: int, cache: dict[int, Cached]) -> list[Cached]:
        """What the slots before a row's position hold, by its page list."""
        req = next(b for b, end in enumerate(batch.q_starts[1:]) if row < end)
        found: list[Cached] = []
        for position in range(batch.positions[row]):
            page = batch.page_table[req][position // self.limits.page_tokens]
            slot = page * self.limits.page_tokens + position % self.limits.page_tokens
            held = cache[slot]
            assert held.position == position, f"slot {slot} holds {held}, not {position}"
            found.append(held)
        return found

    def _check(self, batch: StepBatch) -> None:
        limits, num_reqs = self.limits, len(batch.kv_lens)
        verified = num_reqs * (limits.max_drafts + 1)
        wanted = {"extend": limits.max_tokens, "decode": verified, "draft": limits.max_reqs}
        assert batch.tokens
        most = {"extend": limits.max_tokens, "draft": max(limits.max_tokens, verified)}
        assert len(batch.tokens) <= most.get(batch.entry, verified)
        assert num_reqs <= limits.max_reqs
        assert len(batch.q_starts) == num_reqs + 1
        assert len(batch.page_table) == num_reqs
        assert len(batch.logit_rows) <= wanted[batch.entry]
        assert batch.head == "score" or set(batch.targets) <= {-1}, "this head scores no target"
        asked = zip(batch.temperature, batch.top_k, batch.top_p, batch.min_p, strict=True)
        narrow = [by for heat, *by in asked if heat]
        is_plain = batch.head == "pick" and batch.entry != "draft"  # a draft may err
        assert not is_plain or all(by == [*ALL_IDS] for by in narrow)
        assert not is_plain or not any(batch.bias), "this head adds no bias"
        assert not is_plain or set(batch.count_rows) <= {-1}, "this head knows no penalty"
        masked = [row for row in batch.mask_rows if row >= 0]
        assert masked == list(range(0 if batch.masks is None else len(batch.masks)))
        assert batch.head != "pick" or not masked, "this head looks at no mask"
        per_row = (
            batch.temperature, batch.seeds, batch.counters, batch.targets, batch.top_k, batch.top_p,
            batch.min_p, batch.bias_rows, batch.bias, batch.mask_rows,
        )  # fmt: skip
        assert {len(values) for values in per_row} == {len(batch.logit_rows)}
        real = [row for row, token in enumerate(batch.tokens) if token >= 0]
        assert batch.entry != "extend" or len(real) == len(batch.tokens), "a hole in a prompt"
        slots = [batch.slots[row] for row in real]
        assert len(set(slots)) == len(slots)
        assert all(slot // limits.page_tokens != TRASH_PAGE for slot in slots)
        assert len(batch.hidden_rows) == (len(batch.tokens) if batch.entry == "draft" else 0)
        if batch.entry == "decode" and not limits.max_drafts:
            assert batch.q_starts == list(range(num_reqs + 1))
        for b, kv_len in enumerate(batch.kv_lens):
            rows = range(batch.q_starts[b], batch.q_starts[b + 1])
            held = sum(r in real for r in rows)
            wanted_at = [*range(kv_len - held, kv_len), *[-1] * (len(rows) - held)]
            assert [batch.positions[r] for r in rows] == wanted_at
            num_pages = -(-kv_len // limits.page_tokens)
            assert len(batch.page_table[b]) >= num_pages, f"row {b} has not {num_pages} pages"
            assert batch.entry != "decode" or len(rows) <= limits.max_drafts + 1
