"""Holds the sequences' state against what the engine knows of its requests. Knows no model.

`NotingRuntime` stands between an engine and a runtime that computes on the host. A step there has
run when it is submitted, but nobody is told before he waits for it: so steps are in flight as on a
device. What a step left is compared once the engine has heard of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lostwax.backends.runtime.load import Runtime
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step import TRASH_PAGE, StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import NO_TOKEN, STEP_STATE
from lostwax.server.engine.request import Req
from lostwax.server.engine.runtime import Limits, Ticket

Row = dict[str, Any]
"""A sequence's fields, as lists and numbers."""


def fields_of(runtime: Runtime) -> dict[str, Any]:
    """The sequences' state as steps left it, whether numpy or kernels keep it: arrays that the
    host reads."""
    if runtime.device_step is None:
        return runtime.state.fields
    fields = runtime.device_step.fields.items()
    return {name: runtime.driver.memory.array_at(field) for name, field in fields}


@dataclass(slots=True)
class _NotedTicket:
    """A step that counts as in flight until its result is asked for."""

    runtime: NotingRuntime
    ticket: Ticket
    left: dict[int, Row]
    done: bool = False

    def finish(self, masks: Masks) -> None:
        """The step's; what it leaves is known when it has run."""
        self.ticket.finish(masks)
        self.left = {seq: self.runtime.row(seq) for seq in self.left}

    def result(self) -> StepResult:
        """The step's; from now on what it left is known."""
        result = self.ticket.result()
        self.runtime.heard |= self.left
        return result


class NotingRuntime:
    """Notes what each step leaves of its sequences; `heard` is what the engine may know of."""

    overlaps = False
    pays_by_row = False

    def __init__(self, runtime: Runtime) -> None:
        assert not runtime.overlaps, "steps run beside the host"
        self.limits: Limits = runtime.limits
        self.facts: ModelFacts = runtime.facts
        self.heard: dict[int, Row] = {}
        self._runtime = runtime

    def submit(self, plan: StepPlan) -> _NotedTicket:
        """Run a step."""
        ticket = self._runtime.submit(plan)
        assert ticket.done or plan.masked
        return _NotedTicket(self, ticket, {seq: self.row(seq) for seq in plan.seqs})

    def row(self, seq: int) -> Row:
        """The fields of a sequence as they are."""
        fields = fields_of(self._runtime)
        return {name: fields[name][seq].tolist() for name in STEP_STATE}

    def check(self, running: Iterable[Req]) -> int:
        """Every request's row must be what the engine knows of it; return how many were."""
        # what has more rows than it found has heard of a step, and its row is nobody else's since
        known = [req for req in running if req.num_cached > req.num_found]
        for req in known:
            found, want = dict(self.heard[req.seq]), self._known(req)
            listed = [page for page in found.pop("pages") if page != TRASH_PAGE]
            assert listed == req.pages[: len(listed)], f"pages of {req.name}: {listed}"
            assert req.pages_of(req.num_cached, self.limits.page_tokens) <= len(listed)
            assert found.keys() == want.keys()
            for name, value in want.items():
                assert found[name] == value, f"{name} of {req.name}: {found[name]}, not {value}"
        return len(known)

    def _known(self, req: Req) -> Row:
        is_prefilling = req.num_cached < req.num_known
        following = [] if is_prefilling else [req.tokens[-1], *req.drafts]
        most = 1 + self.limits.max_drafts
        return {
            "length": req.num_cached,
            "limit": req.max_rows,
            "tokens": [*following, *[NO_TOKEN] * (most - len(following))],
            "num_prompt": req.num_prompt,
            "temperature": float(np.float32(req.submit.temperature)),
            "top_k": req.submit.top_k,
            "top_p": float(np.float32(req.submit.top_p)),
            "min_p": float(np.float32(req.submit.min_p)),
            "counted": int(req.submit.has_penalty),
            "repetition": float(np.float32(req.submit.repetition_penalty)),
            "frequency": float(np.float32(req.submit.frequency_penalty)),
            "presence": float(np.float32(req.submit.presence_penalty)),
            "biased": int(bool(req.submit.logit_bias or req.submit.held_ids)),
            "min_outputs": req.submit.min_tokens,
            "seed": int(np.array(req.submit.seed, np.int64).astype(np.int32)),
        }
