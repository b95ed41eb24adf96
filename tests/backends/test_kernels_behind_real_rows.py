"""Triton kernels leave at once behind `num_rows`, and give the real rows the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plain_attention_cases import attention_cases
from plain_cases import cases

pytest.importorskip("triton", reason="the extra `aot` is not installed")


def _path(first: Path) -> str:
    return os.pathsep.join([str(first), *filter(None, [os.environ.get("PYTHONPATH")])])


ATTENTION = tuple(attention_cases())
OTHERS = tuple(name for name in cases() if name not in ATTENTION)
FAST = OTHERS[::5]
"""Each of the other two takes over a minute."""


@pytest.fixture(
    scope="module",
    params=[FAST, *(pytest.param(each, marks=pytest.mark.slow) for each in (OTHERS, ATTENTION))],
    ids=["each fifth", "all but attention", "attention"],
)
def names(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture(scope="module")
def found(names: tuple[str, ...]) -> dict[str, Any]:
    script = Path(__file__).parent / "interpreted" / "padded_rows.py"
    shared = Path(__file__).parent.parent  # tests/plain_cases.py
    done = subprocess.run(
        [sys.executable, str(script), *names],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": _path(shared)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_rows_behind_the_real_ones_are_left_alone_and_the_others_keep_their_bits(
    found: dict[str, Any], names: tuple[str, ...]
) -> None:
    wrong = {
        f"{name}, {told}": said
        for name, by_count in found["wrong"].items()
        for told, said in by_count.items()
        if told in ("right", "none") and said
    }
    assert set(found["wrong"]) == set(names)
    assert not wrong


def test_a_kernel_that_is_told_a_wrong_count_is_found(found: dict[str, Any]) -> None:
    missed = [
        f"{name}, {told}"
        for name, by_count in found["wrong"].items()
        for told in ("all", "one too few")
        if not by_count[told]
    ]
    assert not missed


def test_products_of_whole_tiles_behind_the_real_rows_are_not_made(found: dict[str, Any]) -> None:
    each = found["products"]["1"]
    assert each > 0
    assert found["products"] == {
        "0": 0, "1": each, "16": each, "17": 2 * each, "32": 2 * each, "33": 3 * each
    }  # fmt: skip
