"""How long a step is said to have lasted: what drafts, prefill budget and metrics follow."""

from __future__ import annotations

import pytest
from step_times import CHECKS, Check

from lostwax.server.engine.loop import MAX_DEPTH, EngineCore


@pytest.mark.parametrize("depth", range(MAX_DEPTH + 1))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_times_of_steps(check: Check, depth: int) -> None:
    check(EngineCore, depth)
