"""The smallest model of the architecture that is worth compiling, and one step of it.

Knows no test: what a step should give is the test's to say.
"""

from __future__ import annotations

from typing import Any

from step_oracle import StepBatch, plan_of
from tiny import PLAIN, Config

from lostwax.backends.compile import CompileOptions
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import Runtime
from lostwax.ir.contract.program import Head
from lostwax.ir.contract.step_plan import StepPlan

SMALL: Config = PLAIN | {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "index_head_dim": 32,
}
SIZES = Sizes(max_context=512, max_tokens=64, max_reqs=2)


def options(**changes: Any) -> CompileOptions:  # as many types as CompileOptions has fields
    """Options of a quick fp32 compile."""
    given: dict[str, Any] = {"dtype": "f32", "sizes": SIZES, **changes}
    return CompileOptions(**given)


def batch(
    tokens: list[int], first: int, *, entry: str | None = None, head: Head = "pick"
) -> StepBatch:
    """One request's tokens at positions `first` and on, in pages 1, 2, …; the last row's logits."""
    page = 64
    positions = list(range(first, first + len(tokens)))
    length = first + len(tokens)
    chosen: Any = entry or ("decode" if len(tokens) == 1 else "extend")
    return StepBatch(
        entry=chosen,
        tokens=tokens,
        positions=positions,
        slots=[(1 + p // page) * page + p % page for p in positions],
        q_starts=[0, len(tokens)],
        kv_lens=[length],
        page_table=[[1 + i for i in range(-(-length // page))]],
        logit_rows=[len(tokens) - 1],
        temperature=[0.0],
        seeds=[0],
        counters=[0],
        targets=[0],
        top_k=[0],
        top_p=[1.0],
        min_p=[0.0],
        count_rows=[-1],
        recent=[[-1, -1, -1]],
        repetition=[1.0],
        frequency=[0.0],
        presence=[0.0],
        bias_rows=[-1],
        mask_rows=[-1],
        bias=[{}],
        head=head,
    )


def plan(
    tokens: list[int], first: int, *, entry: str | None = None, head: Head = "pick"
) -> StepPlan:
    """The plan of that step."""
    return plan_of(batch(tokens, first, entry=entry, head=head))


def greedy(runtime: Runtime, prompt: list[int], count: int) -> list[tuple[int, str]]:
    """`count` greedy tokens after a prompt, each with the program that gave it."""
    found: list[tuple[int, str]] = []
    feed, first = list(prompt), 0
    while len(found) < count:
        chunk = feed[: runtime.limits.max_tokens]
        result = runtime.run(plan(chunk, first))
        first, feed = first + len(chunk), feed[len(chunk) :]
        if not feed:
            found.append((result.ids[0], result.program))
            feed = [result.ids[0]]
    return found


PROMPT = [7 * i % 61 for i in range(25)]
"""With eight decode steps it crosses index_topk, which is 32."""
