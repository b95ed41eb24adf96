"""The fp8 products of many rows: the kernel's own source on the CPU agrees with the reference, and
faults in it do not. Which numbers meet is proven, not what the device does (cuda_twin/tiles.h).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from interpreting import environment

import lostwax.backends.cuda.kernels

pytest.importorskip("triton", reason="the extra `aot` is not installed")
if shutil.which("g++") is None:
    pytest.skip("g++ is needed to run the kernel's source on the CPU", allow_module_level=True)

KERNELS = Path(lostwax.backends.cuda.kernels.__file__).parent
SCRIPT = Path(__file__).parent / "interpreted" / "run_many_rows.py"
BOUNDS = {
    "linear into f32": 1e-6, "linear": 2e-3, "gate": 4e-3, "projections": 4e-3, "queries": 1e-3,
    "experts": 2e-3,
}  # fmt: skip
"""By how a case's name begins: outputs are bf16, of experts what each pair gives; of queries the
reference rounds where the kernel does, too."""
FAULTS = {
    "the second term is dropped": (
        "multiply.h", "term < TERMS; term++", "term < 1; term++", "linear of two terms",
    ),
    "a product takes the scale of the weight's next block": (
        "multiply.h", "scales.weight + marks.weight[span])",
        "scales.weight + marks.weight[span] + 1)",
        "linear of scaled rows",
    ),
    "a row takes the scale of another": (
        "layout.h", "WARPGROUPS * PART + 8 * half; }", "WARPGROUPS * PART; }",
        "linear of scaled rows",
    ),
    "sums begin with what the tile before left": (
        "multiply.h", "rows_operand(b + k), term + k)", "rows_operand(b + k), 1)",
        "linear of scaled rows",
    ),
    "up takes the scale of gate": (
        "multiply.h", "read_global(scales.up", "read_global(scales.weight",
        "gate and up of scaled rows",
    ),
    "one CTA alone gets the rows that it loads": (
        "load.h", "(1 << CLUSTER) - 1)", "1 << rank)", "linear of scaled rows",
    ),
    "stages are free before the other CTA has read them": (
        "multiply.h", "arrive_in(empty_barrier(shared, stage), lane)",
        "arrive(empty_barrier(shared, stage))", "linear of tiles of 256 rows",
    ),
    "tiles of rows that no expert has are taken": (
        "tiles.h", "expert_of_tile[i] >= 0 && (", "(", "experts, one takes all",
    ),
    "bytes of parts without a row are waited for": (
        "load.h", "TERMS * tile.parts * PART_BYTES", "TERMS * TERM_BYTES", "linear of 60 rows",
    ),
    "the tickets are left": (
        "load.h", "tickets.taken[0] = tickets.taken[1] = 0", "tickets.taken[1] = 0",
        "linear with tickets",
    ),
    "the other CTA is sent another ticket": (
        "load.h", "send_word(ticket, full, other, next)",
        "send_word(ticket, full, other, next + other)", "linear with tickets",
    ),
    "rows behind the real ones are written": (
        "write.h", "row < result.real", "row < sizes.rows", "linear of scaled rows",
    ),
    "lanes swap words of the wrong columns": (
        "write_rows.h", "swap_lanes(high ? w[0] : w[2], 2)", "swap_lanes(high ? w[2] : w[0], 2)",
        "linear of scaled rows",
    ),
    "the second term of the hidden rows is dropped": (
        "write_rows.h", "return term ? pack_e4m3(x - low_f16(wide), y - high_f16(wide)) : high;",
        "return term ? 0 : high;", "experts of two terms",
    ),
    "a block's largest is that of a lane": (
        "write_rows.h", "__shfl_xor_sync(EVERY_LANE, most, 2)", "most", "experts of scaled rows",
    ),
    "columns behind the last count for a block's scale": (
        "write_rows.h", "if (column + 8 * j < columns) most", "most", "experts of scaled rows",
    ),
    "a column takes the scale of the block that ends before it": (
        "multiply.h", "SPANS == 1 || column < near", "true", "linear of tiles of 80 columns",
    ),
    "the second warpgroup's blocks are lost": (
        "multiply.h", "sums.of[p][i] += load(mine", "0 * load(mine", "linear of tiles of 64 rows",
    ),
    "both warpgroups take the same blocks": (
        "layout.h", "WAYS == 2 && place.stage % 2 != warpgroup ? 1 : 0", "0",
        "linear of two terms, tiles of 64 rows",
    ),
    "sums are handed over before the others are read": (
        "multiply.h", "named_barrier(2, MULTIPLYING);", ";", "gate and up of narrow tiles",
    ),
    "a tile's note is overwritten before all have heard it": (
        "tiles.h", "wait_for(heard_barrier(shared, count), count / 2 & 1 ^ 1);", "",
        "linear of tiles of 64 rows",
    ),
    "f32 results skip a column": (
        "write_rows.h", "if (at + 1 < columns) ((float*)to)[1] = second;", "", "linear into f32",
    ),
    "neighbours turn the other way": (
        "write_queries.h", "second = b * turn.cosine[1] + a * turn.sine[1]",
        "second = b * turn.cosine[1] - a * turn.sine[1]", "queries of scaled rows",
    ),
    "parts of heads that stay turn, too": (
        "write_queries.h", "if (at == OFFSET)", "if (true)", "queries of scaled rows",
    ),
    "halves of index heads turn by the near column's sine": (
        "write_queries.h", "b * far.cosine[e] + a * far.sine[e]",
        "b * far.cosine[e] + a * near.sine[e]", "queries of scaled rows",
    ),
    "the rotation leaves out the nearest": (
        "write_queries.h", "first = a + b, second = a - b;\n#pragma unroll\n    for (int e",
        "first = a, second = b;\n#pragma unroll\n    for (int e", "queries, quantised",
    ),
    "an index head's scale is the next one's": (
        "write_queries.h", "row * to.scale_row + head * to.scale_head",
        "row * to.scale_row + (head ^ 1) * to.scale_head", "queries, quantised",
    ),
    "queries' rows behind the real ones are written": (
        "write_queries.h", "int column, int lane) {\n  const bool real = row < to.real",
        "int column, int lane) {\n  const bool real = row < rows", "queries of scaled rows",
    ),
}  # fmt: skip
"""By what is wrong: a header, what stands there, what takes its place, a case that shows it."""


def run_cases(folder: Path, *rest: str) -> subprocess.CompletedProcess[str]:
    """Over the package's kernels, or those in a folder and one case."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *rest],
        env=environment(),
        capture_output=True,
        text=True,
    )


def wrong(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Cases beyond their bounds."""
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    bounds = {n: next(b for begin, b in BOUNDS.items() if n.startswith(begin)) for n in errors}
    return [name for name, error in errors.items() if not error <= bounds[name]]


@pytest.mark.slow
def test_forms_of_each_kind_agree_with_the_reference(tmp_path: Path) -> None:
    """Those in which faults show: the compiling of a form is what takes time."""
    names = {case for *_, case in FAULTS.values()}
    done = run_cases(tmp_path, str(KERNELS), *sorted(names))
    assert wrong(done) == []
    assert set(json.loads(done.stdout.splitlines()[-1])) == names


@pytest.mark.slow
def test_every_form_agrees_with_the_reference(tmp_path: Path) -> None:
    done = run_cases(tmp_path)
    assert wrong(done) == []
    assert len(json.loads(done.stdout.splitlines()[-1])) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_kernel_is_noticed(fault: str, tmp_path: Path) -> None:
    header, before, after, case = FAULTS[fault]
    kernels = tmp_path / "kernels"
    shutil.copytree(KERNELS, kernels)
    file = kernels / "fp8_products" / header
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, after))
    done = run_cases(tmp_path, str(kernels), case)
    assert "CalledProcessError" not in done.stderr, "it does not compile"
    assert done.returncode or wrong(done), "right, and nobody waited in vain"
