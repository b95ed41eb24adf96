"""Rules of `kernels/step.cpp`: the arguments that `gpu_kernels/lowerings/step.py` lists, with the
names that they have there.

What a plan says of sequences, rows and logit rows is held below S and M by the kernels.
"""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    Demand,
    Formula,
    Memory,
    Numbers,
    Parameter,
    Rule,
    Whole,
    none,
    wholes,
)
from lostwax.ir.contract.step import HEAD_INPUTS, STEP_INPUTS, operands_of
from lostwax.ir.contract.step_layout import HEADER_SIZE, PLACES
from lostwax.ir.contract.step_state import STEP_STATE

_MOST = (Whole("S", least=1), Whole("M"))
"""Rows of the state, and rows of a step, at most."""


def _numbers(name: str, reach: Formula) -> Memory:
    return Memory(name, "i32", reach)


_HEADER = _numbers("header", lambda n: HEADER_SIZE)


def _by_seq(names: str) -> tuple[Memory, ...]:
    return tuple(_numbers(name, lambda n: n.S) for name in names.split())


def _by_row(names: str) -> tuple[Memory, ...]:
    return tuple(_numbers(name, lambda n: n.M) for name in names.split())


def _fields(names: str) -> tuple[Memory, ...]:
    """Of the state."""
    widths: dict[tuple[str, ...], Formula] = {
        (): lambda n: n.S,
        ("P",): lambda n: n.S * n.max_pages,
        ("D",): lambda n: n.S * n.FOLLOWING,
    }
    return tuple(
        Memory(f"state_{name}", STEP_STATE[name].dtype, widths[STEP_STATE[name].dims])
        for name in names.split()
    )


def _inputs(names: tuple[str, ...]) -> tuple[Memory, ...]:
    """Of the program: shapes by rows T, requests B, pages P, rows of a head R."""

    def reach(dims: tuple[str | int, ...]) -> Formula:
        def count(n: Numbers) -> int:
            found = 1
            for dim in dims:
                found *= (
                    dim if isinstance(dim, int) else n.B + 1 if dim == "B + 1" else getattr(n, dim)
                )
            return found

        return count

    return tuple(
        Memory(name, STEP_INPUTS[name].dtype, reach(STEP_INPUTS[name].dims)) for name in names
    )


_NUM_ROWS = _numbers("num_rows", lambda n: 1)
_TURN = _numbers("turn", lambda n: 1)
_BODY_NUMBERS = (
    *wholes("T B P max_pages"), Whole("FOLLOWING", least=1), Whole("PAGE_TOKENS", least=1), *_MOST,
)  # fmt: skip
_BODY_DEMANDS = (Demand("P <= max_pages", lambda n: n.max_pages >= n.P),)


def _receive() -> tuple[Parameter, ...]:
    def plan(n: Numbers) -> int:
        return HEADER_SIZE + n.NUM_BY_SEQ * n.seq_stride + n.NUM_BY_LOGIT * n.logit_stride + n.M

    return (
        _numbers("box", lambda n: PLACES * n.place_size),
        _TURN,
        _numbers("plan", plan),
        *wholes("place_size seq_stride logit_stride NUM_BY_SEQ NUM_BY_LOGIT"),
        *_MOST,
    )


def _derive() -> tuple[Parameter, ...]:
    return (
        _HEADER,
        *_by_seq("seqs plan_q_starts"),
        *_by_row("plan_tokens"),
        *_fields("pages length limit tokens"),
        *_inputs(operands_of("extend")),
        _NUM_ROWS,
        _TURN,
        *_BODY_NUMBERS,
    )


def _derive_draft() -> tuple[Parameter, ...]:
    return (
        _HEADER,
        *_by_seq("seqs plan_q_starts starts drafting last_rows"),
        *_by_row("draft_tokens"),
        *_fields("pages length limit tokens"),
        *_inputs((*operands_of("extend"), "hidden_rows")),
        _NUM_ROWS,
        *_BODY_NUMBERS,
    )


def _derive_logits() -> tuple[Parameter, ...]:
    return (
        _HEADER,
        *_by_seq("seqs plan_q_starts"),
        *_by_row("plan_rows owners plan_targets plan_mask_rows"),
        *_by_seq("drafting last_rows"),
        *_fields("length num_prompt temperature top_k top_p min_p"),
        *_fields("seed counted repetition frequency presence tokens biased min_outputs"),
        *_inputs(HEAD_INPUTS),
        _NUM_ROWS,
        Whole("R"),
        Whole("FOLLOWING", least=1),
        Whole("RECENT"),
        *_MOST,
    )


def _advance() -> tuple[Parameter, ...]:
    return (
        _HEADER,
        *_by_seq("seqs plan_q_starts logit_starts picks behind"),
        *_by_row("plan_tokens"),
        *_by_seq("starts drafting last_rows"),
        *_by_row("draft_tokens picked"),
        *_fields("length limit num_prompt tokens counted"),
        _numbers("counts", lambda n: n.S * n.WIDTH),
        _numbers("ids", lambda n: n.R),
        *wholes("R WIDTH"),
        Whole("FOLLOWING", least=1),
        *_MOST,
    )


def _send() -> tuple[Parameter, ...]:
    def scores(width: Formula) -> Formula:
        return lambda n: n.R * width(n) if n.WITH_SCORES else 0

    return (
        _HEADER,
        _TURN,
        *_by_seq("drafting"),
        *_fields("tokens"),
        _numbers("box", lambda n: PLACES * n.place_size),
        _numbers("ids", lambda n: n.R),
        _numbers("logprobs", lambda n: n.R),
        _numbers("target_logprobs", scores(lambda n: 1)),
        _numbers("top_ids", scores(lambda n: n.TOP)),
        _numbers("top_logprobs", scores(lambda n: n.TOP)),
        *wholes("place_size max_rows R"),
        Whole("FOLLOWING", least=1),
        Whole("TOP"),
        Whole("WITH_SCORES", most=1),
        *_MOST,
    )


def _of_one(n: Numbers) -> int:
    """One thread does all of it."""
    return 1


def _rule(
    name: str,
    parameters: tuple[Parameter, ...],
    *demands: Demand,
    chunks: Formula = _of_one,
) -> Rule:
    return Rule(f"step_{name}", parameters, chunks, none, demands)


STEP = (
    _rule(
        "receive",
        _receive(),
        Demand("seq_stride >= S", lambda n: n.seq_stride >= n.S),
        Demand("logit_stride >= M", lambda n: n.logit_stride >= n.M),
        Demand(
            "place_size holds the plan",
            lambda n: n.place_size >= HEADER_SIZE + n.NUM_BY_SEQ * n.S + (n.NUM_BY_LOGIT + 1) * n.M,
        ),
    ),
    _rule("derive", _derive(), *_BODY_DEMANDS, chunks=lambda n: n.B + 1),
    _rule("derive_draft", _derive_draft(), *_BODY_DEMANDS, chunks=lambda n: n.B + 1),
    _rule(
        "derive_logits",
        _derive_logits(),
        Demand(
            "RECENT is that of a head's input", lambda n: STEP_INPUTS["recent"].dims[1] == n.RECENT
        ),
    ),
    _rule("advance", _advance()),
    _rule(
        "send",
        _send(),
        Demand(
            "place_size holds the results",
            lambda n: n.place_size >= (3 + 2 * n.TOP) * n.max_rows + (n.S - 1) * (n.FOLLOWING - 1),
        ),
    ),
)
