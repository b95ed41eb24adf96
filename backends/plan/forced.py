"""Whether forced choices name ops and lowerings that a target has. Chooses none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.cover import Forced

_OWN = (
    "leave the choice to the planner, or name flashmla_sparse (for bf16 caches) or flashmla_kv (for"
    " fp8_656 ones)"
)
ELSEWHERE: Mapping[str, str] = {
    "flashmla_auto": "is SGLang's rule and no kernel: on Hopper it is flashmla_sparse for bf16"
    " caches and flashmla_kv for fp8_656 ones; name one of them",
    "fa3": "is FlashAttention 3 as sglang-kernel holds it (587 MiB, for one version of torch),"
    f" which lostwax does not call: {_OWN}",
    "tilelang": f"compiles where it first runs, and an artifact holds all that it runs: {_OWN}",
    "trtllm": "is FlashInfer's, whose kernels for this are for Blackwell and are fetched where they"
    f" first run: {_OWN}",
    "aiter": f"is AMD's, and its kernels are compiled where they first run: {_OWN}",
    "deep_gemm": "compiles where it first runs, with nvcc, and an artifact holds all that it runs:"
    " leave the choice to the planner",
}
"""Names that other servers give to kernels which are no lowering here: why, and what to do."""


class UnknownLowering(ValueError):
    """`--lowering` names a lowering or an op that the target does not have."""


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def require_known(forced: tuple[Forced, ...], lowerings: tuple[Lowering, ...]) -> None:
    """Raise UnknownLowering, with what was probably meant."""
    covered = {low.name: {n.op for n in low.pattern.nodes.values()} for low in lowerings}
    known_ops = {op for ops in covered.values() for op in ops}
    for rule in forced:
        if rule.op not in known_ops:
            raise UnknownLowering(
                f"no lowering of this target covers an op {rule.op!r}.{_hint(rule.op, known_ops)}"
            )
        if rule.lowering not in covered and rule.lowering in ELSEWHERE:
            raise UnknownLowering(f"{rule.lowering} {ELSEWHERE[rule.lowering]}")
        if rule.lowering not in covered:
            names = sorted(name for name, ops in covered.items() if rule.op in ops)
            raise UnknownLowering(
                f"no lowering {rule.lowering!r} on this target.{_hint(rule.lowering, covered)}"
                f" Those of {rule.op}: {', '.join(names)}"
            )
        if rule.op not in covered[rule.lowering]:
            raise UnknownLowering(
                f"lowering {rule.lowering!r} does not cover {rule.op}; it covers"
                f" {', '.join(sorted(covered[rule.lowering]))}"
            )
