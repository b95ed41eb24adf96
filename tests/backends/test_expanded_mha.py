"""Attention in the expanded form by Triton kernels, interpreted and as it is launched.

Never run on a device. `FAULTS` are replacements in the kernels' source, each with a case that shows
it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from interpreting import environment

from lostwax.backends.gpu_kernels.lowerings.expanded_mha import (
    CAUSAL_MHA,
    MASKED_MHA,
    STARTS,
    most_contexts,
)
from lostwax.backends.gpu_kernels.triton_compiler import TritonCompiler
from lostwax.backends.lowering import Knobs, Lowering
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.backends.rocm.hsaco import figures
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import views_of_parameter
from lostwax.ir.contract.program import Bucket, Guard, KernelLaunch, Linear

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SCRIPT = Path(__file__).parent / "interpreted" / "run_expanded_mha.py"
KERNELS = Path(__file__).parents[2] / "backends" / "gpu_kernels" / "expanded_attention.py"
BOUND = 1e-2
"""|out - reference| / |reference| of a row: keys, values and weights are bf16."""
FEW = ("gfx942 fp8_656 causal", "gfx942 bf16 masked")

FAULTS = {
    "all requests read the first context": (
        "at = (context + key)[:, None]", "at = (0 * context + key)[:, None]", "gfx950 bf16 causal",
    ),
    "a row does not see its own position": (
        "seen = key[None, :] <= position", "seen = key[None, :] < position", "gfx950 bf16 causal",
    ),
    "half of the rope part is lost": (
        "score = tl.dot(r, tl.trans(k_rope), acc=score",
        "score = tl.dot(tl.where(rope[None, :] < ROPE // 2, r, 0.0), tl.trans(k_rope), acc=score",
        "gfx942 fp8_576 causal",
    ),
    "marks are left as they were": (
        "tl.full((BLOCK,), VALUE, tl.uint8)", "tl.full((BLOCK,), 1, tl.uint8)",
        "gfx942 bf16 masked",
    ),
    "tokens of a page lie a page apart": (
        "(position % PAGE) * token_stride", "(position % PAGE) * page_stride", "gfx950 bf16 causal",
    ),
    "the last row of a context is not gathered": (
        "live = row < total", "live = row < total - 1", "gfx950 fp8_656 causal",
    ),
    "what was summed before is not scaled down": (
        "decay = tl.exp(running_max - shift)", "decay = tl.exp(running_max - running_max)",
        "gfx950 bf16 causal",
    ),
    "rows of another request are written": (
        "in_rows = row < tl.load(q_starts + request + 1)",
        "in_rows = row < tl.load(q_starts + reqs) + 1",
        "gfx950 bf16 causal",
    ),
}  # fmt: skip
"""Each: what stands there, what takes its place, the case that shows it."""


def run_cases(*arguments: str) -> dict[str, float]:
    """Errors by case."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert errors
    return errors


def wrong(errors: dict[str, float]) -> dict[str, float]:
    return {name: error for name, error in errors.items() if not error <= BOUND}


def test_ragged_steps_agree_with_the_reference() -> None:
    assert wrong(run_cases("--cases", *FEW)) == {}


@pytest.mark.slow
def test_every_cache_and_both_forms_agree_with_the_reference() -> None:
    errors = run_cases()
    assert len(errors) == 12
    assert wrong(errors) == {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_kernels_is_noticed(fault: str, tmp_path: Path) -> None:
    before, after, case = FAULTS[fault]
    text = KERNELS.read_text()
    assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times"
    (tmp_path / KERNELS.name).write_text(text.replace(before, after))
    try:
        errors = run_cases(str(tmp_path), "--cases", case)
    except AssertionError:
        return  # a write beside a buffer
    assert wrong(errors)


class Kept:
    """Stands where the compiler stands: keeps the sources."""

    def __init__(self) -> None:
        self.sources: list[KernelSource] = []

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        self.sources.append(source)
        return CompiledKernel(
            binary=source.symbol, symbol=source.symbol, digest="", num_warps=source.num_warps,
            shared_bytes=0, registers=0,
        )  # fmt: skip

    def toolchain(self) -> dict[str, str]:
        return {}


def match(
    *,
    rows: int = 512,
    heads: int = 128,
    reqs: int = 4,
    selects_all: bool = True,
    together: int = 2048,
    segment: str = "extend",
    target: str = "rocm-gfx942",
    **changed: Value,
) -> PlainMatch:
    """V3.2's sizes; contexts of at most so many positions together."""
    layout = "fp8_656_fnuz" if target == "rocm-gfx942" else "fp8_656"
    query = (heads * 192, 192, 1)
    values = {
        "q_nope": Value((rows, heads, 128), "bf16", query),
        "q_pe": Value((rows, heads, 64), "bf16", query),
        "kv_b": Value((heads * 256, 512), "bf16"),
        "cache_in": Value((999, 64, 656), "u8", parts=(512, 64), layout=layout),
        "selection": Value((rows, 2048), "i32"), "positions": Value((rows,), "i32"),
        "q_starts": Value((reqs + 1,), "i32"), "page_table": Value((reqs, 64), "i32"),
        "op.out": Value((rows, heads * 128), "bf16"), STARTS: Value((2, reqs + 1), "i32"),
    }  # fmt: skip
    guard = Guard("few", (Linear({"total_kv": 1}, together),), selects_all=selects_all)
    return PlainMatch(
        find_target(target)[1], Bucket(rows, reqs, 64), values | changed,
        {("op", "scale"): 0.1}, Kept(), Path(), segment=segment, guard=guard,
    )  # fmt: skip


def launches_of(
    at: PlainMatch, lowering: Lowering = CAUSAL_MHA, knobs: Knobs | None = None
) -> list[KernelLaunch]:
    found = at.emit(lowering, knobs)
    return [launch for launch in found if isinstance(launch, KernelLaunch)]


@pytest.mark.parametrize("heads", [16, 40, 128])
def test_groups_of_heads_are_all_heads_once_and_stay_in_the_workspace(heads: int) -> None:
    at = match(heads=heads)
    launches = launches_of(at, knobs={"heads_at_once": 16})
    groups = -(-heads // 16)
    assert [x.symbol for x in launches] == [
        "gather_contexts", *["plain_tiles", "attend_expanded"] * groups,
    ]  # fmt: skip
    assert at.workspace_bytes == 2048 * 2 * (512 + 64 + min(16, heads) * 256)
    written: list[int] = []
    for launch in launches:
        for view in (view for p in launch.params for view in views_of_parameter(p)):
            last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
            width = {"i32": 4, "u8": 1}.get(view.dtype, 2)
            size = at.workspace_bytes
            if view.name in at.values:
                size = at.values[view.name].num_bytes
            assert view.offset + (last + 1) * width <= max(size, 4), (launch.symbol, view)
            if view.name == "op.out":
                written += range(view.offset // 256, view.offset // 256 + view.shape[1] // 128)
    assert written == list(range(heads))


MFMA = {"rocm-gfx942": "v_mfma_f32_32x32x8_bf16", "rocm-gfx950": "v_mfma_f32_32x32x16_bf16"}
"""The instructions of bf16 with the largest tiles: CDNA 4's take twice the depth."""


@pytest.mark.parametrize(
    ("target", "masked"),
    [
        ("rocm-gfx942", True),
        pytest.param("rocm-gfx942", False, marks=pytest.mark.slow),
        pytest.param("rocm-gfx950", True, marks=pytest.mark.slow),
        pytest.param("rocm-gfx950", False, marks=pytest.mark.slow),
    ],
)
def test_the_kernel_by_rule_spills_nothing_and_multiplies_in_the_matrix_units(
    target: str, masked: bool
) -> None:
    at = match(target=target, selects_all=not masked)
    at.compiler = kept = Kept()
    at.emit(MASKED_MHA if masked else CAUSAL_MHA)
    (source,) = (source for source in kept.sources if source.symbol == "attend_expanded")
    compiler = TritonCompiler("hip", at.target.arch, at.target.wave_size)
    binary, shared = compiler.compile(source)
    assert figures(binary, source.symbol).spilled == 0
    assert shared <= at.target.shared_memory_bytes
    assert {*re.findall(r"\bv_mfma_\w+", compiler.text(source))} == {MFMA[target]}


def test_marks_are_cleared_before_they_are_set() -> None:
    launches = launches_of(match(selects_all=False), MASKED_MHA)
    assert [x.symbol for x in launches][1:3] == ["mark_selected"] * 2
    assert [x.grid for x in launches][1:3] == [(512, 2, 1)] * 2


def test_each_bucket_has_a_tile_for_every_ragged_request() -> None:
    """Three requests of one row, and the rest of the rows of the last."""
    attend = launches_of(match(rows=512, reqs=4))[-1]
    assert attend.grid[0] >= 3 + -(-509 // 128)


@pytest.mark.parametrize(
    ("lowering", "given", "said"),
    [
        (CAUSAL_MHA, {"segment": "decode"}, "wants extend"),
        (CAUSAL_MHA, {"rows": 128}, "128 rows of a step, wants >= 256"),
        (CAUSAL_MHA, {"kv_b": Value((128 * 320, 512), "bf16")}, "192 value dims, wants"),
        (
            CAUSAL_MHA,
            {"cache_in": Value((9, 64, 80), "bf16", parts=(64, 16))},
            "cache rows of 64 \\+ 16",
        ),
        (CAUSAL_MHA, {"together": 4096}, "of 4096 positions together, wants <= 2048 in the work"),
        (MASKED_MHA, {}, "every position is selected"),
        (
            MASKED_MHA,
            {"selects_all": False, "together": 16384},
            "contexts of 16384 positions together, wants <= 2048",
        ),
    ],
)
def test_what_it_is_not_made_for_is_refused(
    lowering: Lowering, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        match(**given).emit(lowering)


def test_more_rows_pay_for_longer_contexts() -> None:
    found = [most_contexts(rows, 128) for rows in (128, 256, 1024, 4096, 1 << 20)]
    assert found == sorted(found)
    assert found[0] == 0
    assert 0 < found[-1] <= 16384
    pairs, positions = 2049 * 640, 262144
    assert found[3] * (pairs + positions) <= 2049 * 2048 * 2176, "the absorbed form's operations"
