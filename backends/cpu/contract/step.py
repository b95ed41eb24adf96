"""Rules of `kernels/step.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    Demand,
    Formula,
    Memory,
    Numbers,
    Parameter,
    Rule,
    Whole,
    wholes,
)

HEADER, FIRST = 11, 16
"""Numbers of the plan's header, and where the arrays behind it begin."""
PLACES = 4
"""Of the boxes."""


def _numbers(reach: Formula, *names: str) -> tuple[Memory, ...]:
    return tuple(Memory(name, "i32", reach) for name in names)


def _floats(reach: Formula, *names: str) -> tuple[Memory, ...]:
    return tuple(Memory(name, "f32", reach) for name in names)


def _one(n: Numbers) -> int:
    return 1


def _header(n: Numbers) -> int:
    return HEADER


def _of_seq(n: Numbers) -> int:
    return n.max_reqs + 1


def _of_row(n: Numbers) -> int:
    return n.max_rows


def _following(n: Numbers) -> int:
    return (n.max_reqs + 1) * n.following


_SIZES = (Whole("max_reqs", least=1), Whole("max_rows", least=1))
_FOLLOWING = Whole("following", least=1)

_RECEIVE: tuple[Parameter, ...] = (
    *_numbers(lambda n: PLACES * n.place_size, "box"),
    *_numbers(_one, "turn"),
    *_numbers(
        lambda n: FIRST + n.by_seq * n.seq_stride + n.by_logit * n.logit_stride + n.max_rows,
        "plan",
    ),
    *wholes("place_size seq_stride logit_stride by_seq by_logit"),
    *_SIZES,
)


def _sent(n: Numbers) -> int:
    return FIRST + n.by_seq * (n.max_reqs + 1) + (n.by_logit + 1) * n.max_rows


_BODY: tuple[Parameter, ...] = (
    *_numbers(lambda n: (n.max_reqs + 1) * n.max_pages, "pages"),
    *_numbers(_of_seq, "length", "limit"),
    *_numbers(_following, "state_tokens"),
    *_numbers(lambda n: n.T, "tokens", "positions", "slots"),
    *_numbers(lambda n: n.B + 1, "q_starts"),
    *_numbers(lambda n: n.B, "kv_lens"),
    *_numbers(lambda n: n.B * n.P, "page_table"),
)
_BODY_SIZES: tuple[Parameter, ...] = (
    *wholes("T B P max_pages"),
    _FOLLOWING,
    Whole("page_tokens", least=1),
    *_SIZES,
)
_PAGES = Demand("P <= max_pages", lambda n: n.max_pages >= n.P)

_DERIVE: tuple[Parameter, ...] = (
    *_numbers(_header, "header"),
    *_numbers(_of_seq, "seqs", "plan_q_starts"),
    *_numbers(_of_row, "plan_tokens"),
    *_BODY,
    *_numbers(_one, "real_rows", "turn"),
    *_BODY_SIZES,
)

_DERIVE_DRAFT: tuple[Parameter, ...] = (
    *_numbers(_header, "header"),
    *_numbers(_of_seq, "seqs", "plan_q_starts", "starts", "drafting", "last_rows"),
    *_numbers(_of_row, "draft_tokens"),
    *_BODY,
    *_numbers(lambda n: n.T, "hidden_rows"),
    *_numbers(_one, "real_rows"),
    *_BODY_SIZES,
)


def _of_logit(n: Numbers) -> int:
    return n.R


_DERIVE_LOGITS: tuple[Parameter, ...] = (
    *_numbers(_header, "header"),
    *_numbers(_of_seq, "seqs", "plan_q_starts"),
    *_numbers(_of_row, "plan_rows", "owners", "plan_targets", "plan_mask_rows"),
    *_numbers(_of_seq, "drafting", "last_rows", "length", "num_prompt"),
    *_floats(_of_seq, "state_temperature"),
    *_numbers(_of_seq, "state_top_k"),
    *_floats(_of_seq, "state_top_p", "state_min_p"),
    *_numbers(_of_seq, "seed", "counted"),
    *_floats(_of_seq, "state_repetition", "state_frequency", "state_presence"),
    *_numbers(_following, "state_tokens"),
    *_numbers(_of_seq, "biased", "min_outputs"),
    *_numbers(_of_logit, "logit_rows"),
    *_floats(_of_logit, "temperature"),
    *_numbers(_of_logit, "seeds", "counters", "top_k"),
    *_floats(_of_logit, "top_p", "min_p"),
    *_numbers(_of_logit, "count_rows"),
    *_numbers(lambda n: n.R * n.recent_width, "recent"),
    *_floats(_of_logit, "repetition", "frequency", "presence"),
    *_numbers(_of_logit, "bias_rows", "mask_rows", "targets"),
    *_numbers(_one, "real_rows"),
    *wholes("R"),
    _FOLLOWING,
    *wholes("recent_width"),
    *_SIZES,
)

_ADVANCE: tuple[Parameter, ...] = (
    *_numbers(_header, "header"),
    *_numbers(_of_seq, "seqs", "plan_q_starts", "logit_starts", "picks", "behind"),
    *_numbers(_of_row, "plan_tokens"),
    *_numbers(_of_seq, "starts", "drafting", "last_rows"),
    *_numbers(_of_row, "draft_tokens", "picked"),
    *_numbers(_of_seq, "length", "limit", "num_prompt"),
    *_numbers(_following, "state_tokens"),
    *_numbers(_of_seq, "counted"),
    *_numbers(lambda n: (n.max_reqs + 1) * n.vocab_size, "counts"),
    *_numbers(_of_logit, "ids"),
    *wholes("R vocab_size"),
    _FOLLOWING,
    *_SIZES,
)


def _scored(n: Numbers) -> int:
    return n.R if n.with_scores else 0


_SEND: tuple[Parameter, ...] = (
    *_numbers(_header, "header"),
    *_numbers(_one, "turn"),
    *_numbers(_of_seq, "drafting"),
    *_numbers(_following, "state_tokens"),
    *_numbers(lambda n: PLACES * n.place_size, "box"),
    *_numbers(_of_logit, "ids", "logprobs"),
    *_numbers(_scored, "target_logprobs"),
    *_numbers(lambda n: _scored(n) * n.top, "top_ids", "top_logprobs"),
    *wholes("place_size height R"),
    _FOLLOWING,
    *wholes("top with_scores"),
    *_SIZES,
)


def _given(n: Numbers) -> int:
    return (3 + 2 * n.top) * n.height + n.max_reqs * max(n.following - 1, 1)


def _rule(
    kernel: str, parameters: tuple[Parameter, ...], chunks: Formula, *demands: Demand
) -> Rule:
    return Rule(f"step_{kernel}", parameters, chunks, lambda n: 0, demands)


def _bodies(n: Numbers) -> int:
    return n.B + 1


STEP = (
    _rule(
        "receive",
        _RECEIVE,
        _one,
        Demand("max_reqs < seq_stride", lambda n: n.max_reqs < n.seq_stride),
        Demand("max_rows <= logit_stride", lambda n: n.max_rows <= n.logit_stride),
        Demand("a place holds a plan", lambda n: _sent(n) <= n.place_size),
    ),
    _rule("derive", _DERIVE, _bodies, _PAGES),
    _rule("derive_draft", _DERIVE_DRAFT, _bodies, _PAGES),
    _rule("derive_logits", _DERIVE_LOGITS, _one),
    _rule("advance", _ADVANCE, _one),
    _rule(
        "send", _SEND, _one, Demand("a place holds results", lambda n: _given(n) <= n.place_size)
    ),
)
