"""Whether forced choices name ops and lowerings that a target has. Chooses none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.cover import Forced
from lostwax.backends.plan.foreign_kernels import ELSEWHERE


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
