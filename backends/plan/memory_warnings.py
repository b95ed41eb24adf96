"""What somebody who compiles should know of the memory plan: too much for a device, many graphs."""

from __future__ import annotations

from collections.abc import Iterator

from lostwax.backends.plan.memory_plan import MemoryPlan

MANY_GRAPHS = 256
"""Captured programs that need no word: five layers of V3.2 with 3 drafts and 128 requests have 190.
A boot captures each before it serves and keeps all, and nothing but the sizes that are asked for
bounds how many there are."""


def memory_warnings(plan: MemoryPlan) -> Iterator[str]:
    """A sentence for each, with what to do; none where nothing is unusual."""
    if plan.beyond:
        yield (
            f"{plan.total / 2**20:.1f} MiB a rank are more than the {plan.device / 2**20:.1f} MiB"
            f" that the smallest device of {plan.target} has; `lostwax plan` says what takes them"
        )
    if plan.graphs > MANY_GRAPHS:
        yield (
            f"{plan.graphs} programs will be captured as graphs, about"
            f" {plan.graph_bytes / 2**20:.1f} MiB, and a boot makes each; fewer --drafts,"
            " --max-reqs, --max-tokens or --max-context have fewer"
        )
