"""The rule for the two forms of attention to a selection, against what was timed on an H200."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lostwax.backends.cuda.lowerings.selection_times import (
    absorbed_us,
    expanded_us,
    most_contexts,
)

TIMED = Path(__file__).parents[2] / "benchmarks" / "results" / "2026-11-29-h200-masked-mha.json"
CELL = re.compile(r"(\w+) heads=(\d+) (\d+)x(\d+)@(\d+) top=2048")


@dataclass(frozen=True)
class Cell:
    """Equal requests of `new` rows behind `prefix` positions, and microseconds of both forms."""

    layout: str
    heads: int
    reqs: int
    new: int
    prefix: int
    expanded: float
    absorbed: float

    @property
    def rows(self) -> int:
        return self.reqs * self.new

    @property
    def contexts(self) -> int:
        return self.reqs * (self.prefix + self.new)

    @property
    def pairs(self) -> int:
        return self.reqs * (self.new * self.prefix + self.new * (self.new + 1) // 2)


def cell_of(name: str, forms: dict[str, dict[str, Any]]) -> Cell:
    found = CELL.fullmatch(name)
    assert found, name
    layout, *sizes = found.groups()
    heads, reqs, new, prefix = map(int, sizes)
    us = (forms["expanded"]["whole_us"], forms["absorbed"]["whole_us"])
    return Cell(layout, heads, reqs, new, prefix, *us)


CELLS = [cell_of(*each) for each in json.loads(TIMED.read_text())["cells"].items()]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_rule_tells_what_was_timed(cell: Cell) -> None:
    expanded = expanded_us(cell.heads, cell.contexts, cell.pairs)
    assert expanded == pytest.approx(cell.expanded, rel=0.06 if cell.heads == 128 else 0.11)
    if cell.layout == "bf16":
        assert absorbed_us(cell.rows, cell.heads) == pytest.approx(cell.absorbed, rel=0.08)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_expanded_form_is_asked_for_where_it_was_faster(cell: Cell) -> None:
    """Of the timed sizes at each; where it was slower at none."""
    is_asked = cell.contexts <= most_contexts(cell.rows, cell.heads)
    assert is_asked == (cell.expanded < cell.absorbed)


@pytest.mark.parametrize("heads", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("rows", [256, 512, 1024, 2048, 4096, 8192])
def test_no_step_of_a_bucket_is_slower_within_the_bound(rows: int, heads: int) -> None:
    """The fewest rows that take it, and all of them; of one request, and of eight."""
    most = most_contexts(rows, heads)
    for own in (rows // 2 + 1, rows):
        for reqs in (1, 8):
            if most >= own >= reqs:
                new, prefix = own / reqs, (most - own) / reqs
                pairs = int(reqs * (new * prefix + new * (new + 1) / 2))
                assert expanded_us(heads, most, pairs) <= absorbed_us(own, heads)


def test_fewer_heads_and_more_rows_pay_for_longer_contexts() -> None:
    """A block of 64 heads takes the absorbed form as long however many of them there are."""
    for rows in (256, 512, 1024, 2048, 4096):
        assert most_contexts(rows, 64) <= most_contexts(rows, 32) <= most_contexts(rows, 16)
        assert most_contexts(rows, 128) <= most_contexts(2 * rows, 128)
    assert most_contexts(2048, 16) >= 12288
    assert most_contexts(1, 128) == 0
