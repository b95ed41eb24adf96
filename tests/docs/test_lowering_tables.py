"""The tables of GPU lowerings list those that there are, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lostwax.backends.ascend.lowerings import lowerings as of_ascend
from lostwax.backends.cuda.lowerings import lowerings as of_cuda
from lostwax.backends.portable.lowerings import lowerings as portable
from lostwax.backends.registry import find_target
from lostwax.backends.rocm.lowerings import lowerings as of_rocm

BACKENDS = Path(__file__).parents[2] / "backends"
SHARED, CUDA = BACKENDS / "gpu_kernels" / "README.md", BACKENDS / "cuda" / "README.md"
ROCM = BACKENDS / "rocm" / "README.md"
LISTS = {"cuda-sm90a": (of_cuda, {SHARED, CUDA}), "rocm-gfx942": (of_rocm, {SHARED, ROCM})}


def _listed(page: Path) -> list[str]:
    """The names that rows begin with, but for those with a placeholder."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*)", page.read_text(encoding="utf-8"), re.M)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


@pytest.mark.parametrize("target", LISTS)
def test_every_lowering_of_gpus_stands_in_one_table_and_those_there_exist(target: str) -> None:
    every, pages = LISTS[target]
    facts = find_target(target)[1]
    own = {x.name for x in every(facts)} - {x.name for x in portable(facts)}
    listed = [name for page in pages for name in _listed(page)]
    assert own - {*listed} == set(), "add these to the table of their README"
    assert {*listed} - own == set(), "no such lowering (any more)"
    assert len(listed) == len({*listed}), "in one table, once"


def test_the_table_of_ascend_names_every_lowering_and_no_other() -> None:
    facts = find_target("ascend-910b")[1]
    own = {x.name for x in of_ascend(facts)} - {x.name for x in portable(facts)}
    page = (BACKENDS / "ascend" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(ascend_\w+)`", page)) == own
