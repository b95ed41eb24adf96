"""The snapshot of signatures is what the wheel's sources say: read, never imported."""

from __future__ import annotations

import difflib
import json

import pytest
from aiter_snapshot import SNAPSHOT, described
from rocm_tools.environments import aiter_wheel

pytestmark = pytest.mark.rocm


def test_the_snapshot_is_the_wheels() -> None:
    wheel = aiter_wheel()
    if wheel is None:
        pytest.fail("no wheel of AITER: run `./dev rocm`, which brings it")
    kept = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    found = json.dumps(described(wheel), indent=1).splitlines()
    changed = "\n".join(difflib.unified_diff(kept, found, "snapshot", "wheel", lineterm=""))
    assert not changed, f"python tests/aiter_snapshot.py {wheel} writes it anew\n{changed}"
