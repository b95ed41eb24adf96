"""`benchmarks/step_roofline.py`: the least that a step reads and multiplies, added up by hand.

Of two machines one multiplies in no time, the other reads in none: what is left counts by itself,
in millions a microsecond.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PER_US = 1e6
DENSE, SPARSE = 3, 58
PROJECTIONS = 1536 * 7168 + 576 * 7168 + 24_576 * 1536 + 7168 * 16_384 + 8192 * 1536 + 128 * 7168
ABSORBED, INDEX_WEIGHTS = 128 * 256 * 512, 64 * 7168
FEED_FORWARD, EXPERT, ROUTER = 3 * 7168 * 18_432, 3 * 7168 * 2048, 32 * 7168
HEAD, JOIN = 129_280 * 7168, 2 * 7168 * 7168


@pytest.fixture(scope="module")
def roofline() -> Iterator[Any]:
    """The module of the folder, which is no package."""
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module("step_roofline")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def reading(roofline: Any) -> Any:
    return roofline.Machine(read=1e12, fp8=1e30, bf16=1e30)


@pytest.fixture(scope="module")
def multiplying(roofline: Any) -> Any:
    return roofline.Machine(read=1e30, fp8=1e12, bf16=1e12)


def manifest(max_drafts: int) -> Any:
    """What of V3.2's is asked for; drafts have a layer of their own."""
    layers = DENSE + SPARSE + (max_drafts > 0)
    planes = (
        SimpleNamespace(name="latent", layers=layers, layout="fp8_656"),
        SimpleNamespace(name="index_key", layers=layers, layout="index_paged"),
    )
    limits = SimpleNamespace(vocab_size=129_280, max_drafts=max_drafts)
    return SimpleNamespace(planes=planes, limits=limits)


def layer_bytes(rows: int, requests: int, context: int) -> int:
    """Bytes of a layer's attention: fp8 projections, the rest of its weights bf16. A row reads what
    it selects, a request its index keys once."""
    weights = PROJECTIONS + 2 * ABSORBED + 2 * INDEX_WEIGHTS
    index = requests * context * 132 if context > 2048 else 0
    return weights + rows * min(context, 2048) * 656 + index


def layer_flops(rows: int, context: int) -> int:
    weights = PROJECTIONS + ABSORBED + INDEX_WEIGHTS
    index = context * 64 * 128 if context > 2048 else 0
    return 2 * rows * (weights + 128 * min(context, 2048) * (576 + 512) + index)


def expert_bytes(distinct: float) -> float:
    return (distinct + 1) * EXPERT + 2 * ROUTER


def expert_flops(rows: int) -> int:
    return 2 * rows * (9 * EXPERT + ROUTER)


def test_a_part_takes_the_larger_of_its_two_times(roofline: Any) -> None:
    machine = roofline.Machine(read=1e12, fp8=2e12, bf16=4e12)
    assert machine.us(3e6, 4e6) == 3
    assert machine.us(1e6, 8e6) == 4
    assert machine.us(1e6, 8e6, machine.bf16) == 2


def test_a_decode_step_of_one_row_reads_eight_experts(roofline: Any, reading: Any) -> None:
    found = roofline.decode_floor(manifest(0), reading, 1, 1, 100)
    want = 61 * layer_bytes(1, 1, 100) + DENSE * FEED_FORWARD + SPARSE * expert_bytes(8) + 2 * HEAD
    assert found == pytest.approx(want / PER_US)


def test_rows_of_a_request_read_its_index_keys_together(roofline: Any, reading: Any) -> None:
    found = roofline.decode_floor(manifest(1), reading, 2, 1, 4096)
    want = 61 * layer_bytes(2, 1, 4096) + DENSE * FEED_FORWARD + 2 * HEAD
    want += SPARSE * expert_bytes(32 * (1 - 0.75**2))
    assert found == pytest.approx(want / PER_US)


@pytest.mark.parametrize(("rows", "context"), [(1, 100), (2, 4096)])
def test_a_decode_step_multiplies_each_row(
    roofline: Any, multiplying: Any, rows: int, context: int
) -> None:
    found = roofline.decode_floor(manifest(0), multiplying, rows, 1, context)
    want = 61 * layer_flops(rows, context) + SPARSE * expert_flops(rows)
    want += 2 * rows * (DENSE * FEED_FORWARD + HEAD)
    assert found == pytest.approx(want / PER_US)


def test_a_first_draft_takes_all_rows_and_each_further_one_a_request(
    roofline: Any, reading: Any, multiplying: Any
) -> None:
    """Three drafts behind two rows of one request: one layer a draft, heads of a row each."""
    read = roofline.draft_floor(manifest(3), reading, 2, 1, 4096)
    want = 3 * (2 * JOIN + 2 * HEAD) + layer_bytes(2, 1, 4096) + 2 * layer_bytes(1, 1, 4096)
    want += expert_bytes(32 * (1 - 0.75**2)) + 2 * expert_bytes(8)
    assert read == pytest.approx(want / PER_US)
    found = roofline.draft_floor(manifest(3), multiplying, 2, 1, 4096)
    rows = 2 + 1 + 1
    flops = 2 * rows * JOIN + rows * layer_flops(1, 4096) + rows * expert_flops(1) + 3 * 2 * HEAD
    assert found == pytest.approx(flops / PER_US)


def test_a_prompt_attends_by_what_is_less_work(roofline: Any, multiplying: Any) -> None:
    """Two rows: at a prompt's start as at 4,096 the selection's products are fewer."""
    for start, pairs, chosen in ((0, 3, 3), (4096, 4097 + 4098, 2 * 2048)):
        found = roofline.prefill_floor(manifest(0), multiplying, 2, start)
        attention = 2 * 128 * (576 + 512) * chosen + (start > 0) * 2 * pairs * 64 * 128
        weights = 2 * 2 * (PROJECTIONS + ABSORBED + INDEX_WEIGHTS)
        want = 61 * (weights + attention) + SPARSE * expert_flops(2)
        want += 2 * 2 * DENSE * FEED_FORWARD + 2 * HEAD
        assert found == pytest.approx(want / PER_US)


def test_a_long_prompt_expands_its_keys(roofline: Any, multiplying: Any) -> None:
    rows = 2048
    found = roofline.prefill_floor(manifest(0), multiplying, rows, 0)
    attention = 2 * 128 * (192 + 128) * (rows * (rows + 1) // 2) + 2 * rows * ABSORBED
    weights = 2 * rows * (PROJECTIONS + ABSORBED + INDEX_WEIGHTS)
    want = 61 * (weights + attention) + SPARSE * expert_flops(rows)
    want += 2 * rows * DENSE * FEED_FORWARD + 2 * HEAD
    assert found == pytest.approx(want / PER_US)
