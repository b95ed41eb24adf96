"""`benchmarks/op.py`: what it calls right of a selection, and that its cases compile. No GPU."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from nvcc_here import needs_nvcc

from lostwax.backends.cuda.lowerings.selection_times import most_contexts
from lostwax.backends.plan.kernel_requests import KernelRequests
from lostwax.backends.registry import find_target

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KEPT = BENCHMARKS / "results" / "2026-11-29-h200-op.json"
KEPT_BF16 = BENCHMARKS / "results" / "2026-11-29-h200-index-bf16.json"
VISIBLE = 32768


@pytest.fixture(scope="module")
def imported() -> Iterator[Any]:
    """Imports a module of the folder, which is no package."""
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module
    sys.path.remove(str(BENCHMARKS))


def test_a_selection_may_differ_by_rounding_and_by_no_more(imported: Any) -> None:
    index = imported("op_index")
    torch.manual_seed(0)
    exact = torch.randn(VISIBLE, dtype=torch.float64)
    rounded = exact + torch.randn_like(exact).clamp(-5, 5) * index.BOUND
    chosen = rounded.topk(index.TOP_K).indices.int()
    assert set(chosen.tolist()) != set(exact.topk(index.TOP_K).indices.tolist())
    assert 0 < index.shortfall(exact, chosen) <= index.FREE * index.BOUND
    assert index.shortfall(exact, exact.topk(index.TOP_K).indices.int()) == 0
    worse = chosen.clone()
    worse[7] = int(
        (exact < exact.topk(index.TOP_K).values[-1] - 2 * index.FREE * index.BOUND).nonzero()[0]
    )
    assert index.shortfall(exact, worse) > index.FREE * index.BOUND


def test_a_selection_is_of_as_many_distinct_positions_as_there_are(imported: Any) -> None:
    index = imported("op_index")
    exact = torch.arange(VISIBLE, dtype=torch.float64)
    best = torch.arange(VISIBLE - index.TOP_K, VISIBLE, dtype=torch.int32)
    twice, few, beyond = best.clone(), best.clone(), best.clone()
    twice[0], few[0], beyond[0] = best[1], -1, VISIBLE
    for wrong in (twice, few, beyond):
        assert math.isinf(index.shortfall(exact, wrong))
    short = torch.full((index.TOP_K,), -1, dtype=torch.int32)
    short[:5] = torch.arange(5, dtype=torch.int32)
    assert index.shortfall(exact[:5], short) == 0


def test_the_bound_of_logits_is_above_what_was_measured_and_below_a_bf16_rounding(
    imported: Any,
) -> None:
    rows = [r for r in json.loads(KEPT.read_text())["rows"] if r["case"].startswith("index fp8")]
    assert len(rows) == 15
    bound = imported("op_index").BOUND
    assert max(r["error"] for r in rows) < bound < 1.5e-3
    assert all(r["right"] for r in rows)


def test_a_ragged_step_is_wrong_where_more_was_written_than_rows_see(imported: Any) -> None:
    ragged = imported("ragged_index")
    want = np.array([[1.0, -np.inf], [2.0, 3.0]])
    step = ragged.Ragged({}, want.tobytes(), real=2)
    right = np.array([[1, -np.inf], [2, 3], [np.nan, np.nan]], np.float32)
    assert ragged.error_of(step, right) == 0
    for row, column, limit in ((0, 1, math.inf), (2, 0, math.inf), (1, 1, 0.1)):
        wrong = right.copy()
        wrong[row, column] = 4
        assert ragged.error_of(step, wrong) >= limit


def test_the_rules_form_of_bf16_keys_was_right_and_faster_at_every_size(imported: Any) -> None:
    """So no size is left to the kernel of all GPUs."""
    rows = [r for r in json.loads(KEPT_BF16.read_text())["rows"] if r["family"] == "index_bf16"]
    assert all(r["error"] < imported("op_index").BF16_BOUND for r in rows if "index " in r["case"])
    plain = {r["case"].rsplit(" ", 1)[0]: r for r in rows if "smxx" in r["lowerings"][0]}
    ruled = {r["case"].split(" sm90")[0]: r for r in rows if r["case"].endswith("form=0 stages=0")}
    assert len(plain) == 25
    for size in plain.keys() & ruled.keys():
        assert ruled[size]["ours"]["us"] < 0.7 * plain[size]["ours"]["us"], size


@pytest.mark.slow
def test_the_planner_takes_hoppers_kernel_for_keys_of_either_kind(
    imported: Any, tmp_path: Path
) -> None:
    grid, slices = imported("op_grid"), imported("op_slices")
    requests = KernelRequests(*find_target(slices.TARGET))
    planner = slices.Planner(tmp_path, 128, requests.request)
    for op, rows, reqs, context in (
        ("index", 1, 1, 4096), ("index", 128, 128, 32768), ("index", 256, 128, 4096),
        ("index_topk", 256, 1, 2304), ("index_topk", 2048, 1, 4096),
    ):  # fmt: skip
        for form in ("bf16", "fp8"):
            case = grid.OpCase(
                family="index", op=op, form=form, rows=rows, reqs=reqs, context=context,
                segment="extend" if reqs == 1 < rows else "decode",
            )  # fmt: skip
            logits = planner.plan(case).lowerings[0]
            assert logits.startswith(f"sm90_{form}_index_"), case.name


@pytest.mark.slow
@needs_nvcc
def test_cases_compile_as_the_planner_chooses_them(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    op, grid = imported("op"), imported("op_grid")
    some = [c for c in grid.cases() if c.name in ("topk fp8 b=1 L=32768", "shared down fp8 M=1")]
    assert len(some) == 2

    def cases(families: tuple[str, ...]) -> object:
        return some

    monkeypatch.setattr(op, "cases", cases)
    op.compile_ops(tmp_path / "ops", ("topk", "products"))
    built = msgspec.json.decode((tmp_path / "ops" / "ops.json").read_bytes(), type=op.Folder)
    assert [planned.case for planned in built.ops] == some
    for kernel in built.kernels:
        assert (tmp_path / "ops" / kernel.binary).stat().st_size
    named = {launch.binary for planned in built.ops for launch in planned.launches}
    assert named == {kernel.binary for kernel in built.kernels}
    assert built.ops[0].weights
    assert built.ops[1].outputs["out.0"].shape == (1, grid.TOP_K)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [128, 32, 16])
def test_prompts_attend_to_all_keys_up_to_what_the_rule_says(
    imported: Any, tmp_path: Path, heads: int
) -> None:
    """The estimate takes the same form as what was timed, at the bound and behind it."""
    grid, slices = imported("op_grid"), imported("op_slices")
    requests = KernelRequests(*find_target(slices.TARGET))
    planner = slices.Planner(tmp_path, heads, requests.request)
    for rows, form in ((512, "bf16"), (1024, "fp8"), (2048, "bf16"), (2048, "fp8"), (8192, "bf16")):
        most = most_contexts(rows, heads)
        for context in (most, most + grid.PAGE):
            case = grid.OpCase(
                family="attend", op="attend", form=form, segment="extend", rows=rows,
                context=context, prefix=context - rows, heads=heads,
            )  # fmt: skip
            expanded = "sm90_masked_mha" in planner.plan(case).lowerings
            assert expanded == (context == most), (rows, form, context)
