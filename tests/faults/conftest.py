"""What every fault is tried with."""

from __future__ import annotations

from functools import partial

import pytest
from command_line import Run, lostwax


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command of this process."""
    return partial(lostwax, capsys)
