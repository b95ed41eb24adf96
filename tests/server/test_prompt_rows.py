"""Who of several prompts has which rows of a step: see `share_trial.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from share_trial import SHARE_CHECKS


@pytest.mark.parametrize("check", SHARE_CHECKS, ids=lambda check: check.__name__)
def test_shares_of_a_step(check: Callable[[], None]) -> None:
    check()
