"""The versions that Ascend's calls were written for. An artifact's manifest keeps them.

Constants, not what a machine has: the same inputs give the same digest on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends.ascend.contract.snapshot import read_snapshot

WRITTEN_FOR: Mapping[str, str] = {"torch_npu": read_snapshot().torch_npu, "CANN": "9.1.0"}
"""torch_npu has the kept schemas. CANN 9.1.0 is what vllm-ascend's images of 2026-10 have, and
`lostwax container`'s: nobody has run lostwax on it. Which driver it wants is not written where
that was read."""


def written_for() -> dict[str, str]:
    """By package."""
    return dict(WRITTEN_FOR)
