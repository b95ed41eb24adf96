"""Launches of the step's kernels, which stand around the layers of every program. Knows no op."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import structs

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Argument,
    i32,
    kernel_launch,
    next_power_of_two,
)
from lostwax.backends.plan.views import input_view
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import HEADS, KernelLaunch, Program, View
from lostwax.ir.contract.step import HEAD_INPUTS, MAX_DRAFTS, operands_of
from lostwax.ir.contract.step_layout import (
    BY_LOGIT,
    BY_SEQ,
    RESULT_WIDTHS,
    SENT,
    STEP_OP,
    StepLayout,
)
from lostwax.ir.contract.target import Target

_KERNELS = "lostwax.backends.gpu_kernels"
_FILES = {"receive": "step_boxes", "send": "step_boxes", "derive_logits": "step_logits"}
"""Kernels' files; the others are in `step.py`."""
_BLOCK = 256
_BOX_BLOCK = 1024
_SENDERS = 4
CUTS = ("BLOCK", "BLOCK_PICKS", "BLOCK_SEQS", "NUM_PROGRAMS")
"""Constants that say how a kernel's work is cut, and nothing of what it does."""
Build = Callable[[KernelSource], CompiledKernel]


class StepLaunches:
    """Makes them for one artifact; `build` compiles a kernel for the target."""

    def __init__(self, layout: StepLayout, page_tokens: int, target: Target, build: Build) -> None:
        self._layout = layout
        self._page_tokens = page_tokens
        self._target = target
        self._build = build

    def before(self, program: Program) -> tuple[KernelLaunch, ...]:
        """What makes the program's inputs."""
        if program.segment in HEADS:
            return (self._logits(program),)
        if program.segment == "draft":
            return (self._body(program),)
        return self._receive(), self._body(program)

    def behind(self, program: Program) -> tuple[KernelLaunch, ...]:
        """What takes over the ids that a head picked, and hands its results out."""
        if program.segment not in HEADS:
            return ()
        return self._advance(program), self._send(program)

    def _launch(
        self,
        symbol: str,
        arguments: Mapping[str, Argument],
        constants: Mapping[str, int],
        programs: tuple[int, int],
        num_warps: int = 1,
    ) -> KernelLaunch:
        return kernel_launch(
            self._build,
            self._target,
            f"{_KERNELS}.{_FILES.get(symbol, 'step')}:{symbol}",
            arguments,
            constants,
            grid=(*programs, 1),
            op=f"{STEP_OP}{symbol}",
            num_warps=num_warps,
        )

    def _arrays(self, names: Iterable[str]) -> dict[str, Argument]:
        return {name: self._layout.array(name) for name in names}

    def _fields(self, names: Iterable[str]) -> dict[str, Argument]:
        return {f"state_{name}": self._layout.field(name) for name in names}

    def _receive(self) -> KernelLaunch:
        own = self._layout
        arguments: dict[str, Argument] = {
            "box": own.sent_box,
            "turn": own.array("turn"),
            "plan": own.header,
            "place_size": i32(own.place_size),
            "seq_stride": i32(own.offsets[BY_SEQ[1]] - own.offsets[BY_SEQ[0]]),
            "logit_stride": i32(own.offsets[BY_LOGIT[1]] - own.offsets[BY_LOGIT[0]]),
        }
        constants = {
            "NUM_BY_SEQ": len(BY_SEQ),
            "NUM_BY_LOGIT": len(BY_LOGIT),
            "BLOCK": _BOX_BLOCK,
        }
        largest = max(own.max_rows, own.max_reqs + 1)
        programs = (1 + len(SENT), -(-largest // _BOX_BLOCK))
        return self._launch("receive", arguments, constants, programs, 4)

    def _send(self, program: Program) -> KernelLaunch:
        own = self._layout
        outputs = {name: _as_i32(view) for name, view in program.outputs.items()}
        arguments: dict[str, Argument] = {
            "header": own.header,
            **self._arrays(("turn", "drafting")),
            **self._fields(("tokens",)),
            "box": own.result_box,
            **{name: outputs.get(name, outputs["ids"]) for name in RESULT_WIDTHS},
            "place_size": i32(own.results["end"]),
            "max_rows": i32(own.max_rows),
            "R": i32(program.bucket.rows),
        }
        constants = {
            "FOLLOWING": own.max_drafts + 1,
            "TOP": RESULT_WIDTHS["top_ids"],
            "WITH_SCORES": int("top_ids" in outputs),
            "NUM_PROGRAMS": _SENDERS,
            "BLOCK": _BLOCK,
        }
        return self._launch("send", arguments, constants, (_SENDERS, 1))

    def _body(self, program: Program) -> KernelLaunch:
        bucket, is_draft = program.bucket, program.segment == "draft"
        own = self._layout
        drafts = ("starts", "drafting", "last_rows", "draft_tokens")
        arguments: dict[str, Argument] = {
            "header": own.header,
            "seqs": own.array("seqs"),
            "plan_q_starts": own.array("q_starts"),
            **(self._arrays(drafts) if is_draft else {"plan_tokens": own.array("tokens")}),
            **self._fields(("pages", "length", "limit", "tokens")),
            **{name: input_view(name, program.bucket) for name in operands_of("extend")},
            **({"hidden_rows": input_view("hidden_rows", program.bucket)} if is_draft else {}),
            "num_rows": input_view("num_rows", program.bucket),
            **({} if is_draft else {"turn": own.array("turn")}),
            "T": i32(bucket.tokens),
            "B": i32(bucket.reqs),
            "P": i32(bucket.pages),
            "max_pages": i32(own.max_pages),
        }
        constants = {
            "FOLLOWING": own.max_drafts + 1,
            "PAGE_TOKENS": self._page_tokens,
            "BLOCK": _BLOCK,
        }
        symbol = "derive_draft" if is_draft else "derive"
        return self._launch(symbol, arguments, constants, (bucket.reqs + 1, 1))

    def _logits(self, program: Program) -> KernelLaunch:
        own = self._layout
        arguments: dict[str, Argument] = {
            "header": own.header,
            "seqs": own.array("seqs"),
            "plan_q_starts": own.array("q_starts"),
            "plan_rows": own.array("logit_rows"),
            "owners": own.array("logit_owners"),
            "plan_targets": own.array("targets"),
            "plan_mask_rows": own.array("mask_rows"),
            **self._arrays(("drafting", "last_rows")),
            **self._fields(("length", "num_prompt", "temperature", "top_k", "top_p", "min_p")),
            **self._fields(("seed", "counted", "repetition", "frequency", "presence", "tokens")),
            **self._fields(("biased", "min_outputs")),
            **{name: input_view(name, program.bucket) for name in HEAD_INPUTS},
            "num_rows": input_view("num_rows", program.bucket),
            "R": i32(program.bucket.rows),
        }
        constants = {
            "FOLLOWING": own.max_drafts + 1, "RECENT": MAX_DRAFTS, "BLOCK": _BLOCK,
        }  # fmt: skip
        return self._launch("derive_logits", arguments, constants, (1, 1))

    def _advance(self, program: Program) -> KernelLaunch:
        own, counts = self._layout, program.segment != "pick"
        arguments: dict[str, Argument] = {
            "header": own.header,
            "seqs": own.array("seqs"),
            "plan_q_starts": own.array("q_starts"),
            **self._arrays(("logit_starts", "picks", "behind")),
            "plan_tokens": own.array("tokens"),
            **self._arrays(("starts", "drafting", "last_rows", "draft_tokens", "picked")),
            **self._fields(("length", "limit", "num_prompt", "tokens", "counted")),
            "counts": own.counts if counts else own.field("tokens"),
            "ids": program.outputs["ids"],
            "R": i32(program.bucket.rows),
        }
        constants = {
            "WIDTH": own.vocab_size if counts else 0,
            "FOLLOWING": own.max_drafts + 1,
            "BLOCK_PICKS": next_power_of_two(own.max_drafts + 1),
            "BLOCK_SEQS": next_power_of_two(own.max_reqs),
            "BLOCK": _BLOCK,
        }
        return self._launch("advance", arguments, constants, (own.max_reqs, 1))


def _as_i32(view: View) -> View:
    """The same numbers of 32 bits, which are copied and not read."""
    return structs.replace(view, dtype="i32")
