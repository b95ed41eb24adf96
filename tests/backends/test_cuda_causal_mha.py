"""Expanded causal attention for Hopper: what is launched and compiled for which sizes."""

from __future__ import annotations

import dataclasses
import subprocess
from math import prod
from pathlib import Path

import mha_launches
import pytest
from mha_launches import match_of
from nvcc_here import needs_nvcc
from triton.backends import nvidia

from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.lowerings.causal_mha import CAUSAL_MHA
from lostwax.backends.cuda.lowerings.expanded_mha import CONTEXTS, TILES, MhaForm
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.lowering import Knobs
from lostwax.backends.proof.plain_match import PlainMatch
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, TensorMap, views_of_parameter
from lostwax.ir.contract.program import Guard, KernelLaunch, Linear

LAYOUTS = ("bf16", "fp8_656", "fp8_576")
RULE = CAUSAL_MHA.default_knobs()


def launches_of(match: PlainMatch, knobs: Knobs | None = None) -> list[KernelLaunch]:
    """What runs once a step, then once a layer."""
    return mha_launches.launches_of(CAUSAL_MHA, match, knobs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contexts_are_gathered_and_expanded_then_attended_to(tmp_path: Path, layout: str) -> None:
    tiles, gather, expand, attend = launches_of(match_of(tmp_path, layout))
    assert (tiles.grid, tiles.block) == ((1, 1, 1), (1024, 1, 1))
    assert gather.grid == (8192 // 8, 1, 1), "a warp a row that the guard admits"
    assert expand.grid == attend.grid == (132, 1, 1)
    maps = [p.view.shape for p in attend.params if isinstance(p, TensorMap)]
    assert maps == [(2048, 128, 128), (2048, 128, 64), (8192, 128, 256), (8192, 1, 64)]


def test_the_guard_bounds_the_workspace(tmp_path: Path) -> None:
    few, many = match_of(tmp_path), match_of(tmp_path, guard=Guard("all", selects_all=True))
    row = 2 * (512 + 64 + 128 * 256)
    tickets = 256
    assert CAUSAL_MHA.workspace(few, RULE) == 8192 * row + tickets
    assert CAUSAL_MHA.workspace(many, RULE) == 128 * 2048 * row + tickets
    longest = Guard("all", (Linear({"max_kv": 1}, 100),), selects_all=True)
    assert (
        CAUSAL_MHA.workspace(match_of(tmp_path, guard=longest), RULE) == 128 * 100 * row + tickets
    )


@pytest.mark.parametrize("heads", [16, 40, 128])
def test_some_heads_at_a_time_take_less_workspace(tmp_path: Path, heads: int) -> None:
    """Each launch reads and writes within its buffers, and the groups are all heads once."""
    match = match_of(tmp_path, heads=heads)
    _, _, *rest = launches_of(match, {"heads_at_once": 16})
    assert match.workspace_bytes == 8192 * 2 * (512 + 64 + 16 * 256) + 256
    groups = -(-heads // 16)
    assert len(rest) == 2 * groups
    reached: list[int] = []
    for launch in rest:
        for parameter in launch.params:
            for view in views_of_parameter(parameter):
                last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
                width = 4 if view.dtype == "i32" else 2
                end = view.offset + (last + 1) * width
                whole = match.workspace_bytes
                if view.name in match.values:
                    whole = match.values[view.name].num_bytes
                assert end <= whole, (launch.symbol, view)
                if view.name == "op.out":
                    reached += range(view.offset // 256, view.offset // 256 + view.shape[1] // 128)
    assert reached == list(range(heads))


def test_every_query_tile_has_a_place(tmp_path: Path) -> None:
    """127 requests of one row, and the rest of the rows of the last."""
    match = match_of(tmp_path, rows=300, reqs=128)
    (kernel,) = CAUSAL_MHA.prepare(match, RULE)
    shapes = {name: shape for name, _, shape in kernel.outputs}
    assert shapes[TILES][0] - 1 >= 127 + -(-173 // 128)
    assert prod(shapes[CONTEXTS]) == 129


def test_more_steps_than_it_is_made_for_are_refused_with_a_sentence(tmp_path: Path) -> None:
    def refusal(match: PlainMatch) -> str | None:
        return CAUSAL_MHA.when.refusal(match)

    assert refusal(match_of(tmp_path)) is None
    assert refusal(match_of(tmp_path, rows=128)) == (
        "128 rows of a step, wants >= 256 to pay for the expansion"
    )
    assert "wants extend" in (refusal(match_of(tmp_path, segment="decode")) or "")
    assert "matrix_units" in (refusal(match_of(tmp_path, target=CUDA_SM100A)) or "")
    assert "query tiles" in (refusal(match_of(tmp_path, rows=65536, reqs=1024)) or "")
    assert "axis 0 of page_table" in (refusal(match_of(tmp_path, reqs=2000)) or "")
    small = match_of(tmp_path)
    cache = dataclasses.replace(small.values["cache_in"], parts=(64, 16))
    small.values = dict(small.values) | {"cache_in": cache}
    assert "cache rows of 64 + 16" in (refusal(small) or "")
    odd = match_of(tmp_path)
    wide = dataclasses.replace(odd.values["kv_b"], shape=(128 * 320, 512))
    odd.values = dict(odd.values) | {"kv_b": wide}
    assert refusal(odd) == "heads of 128 key and 192 value dims, wants 128 and 128"


@pytest.mark.parametrize("keys", [128, 96, 64])
def test_a_form_fits_the_device(keys: int) -> None:
    assert MhaForm(keys, take_turns=False).shared_bytes <= CUDA_SM90A.shared_memory_bytes


@needs_nvcc
def test_it_compiles_to_the_same_bytes_in_two_folders(tmp_path: Path) -> None:
    """Without spilled registers or serialised products: these are refused."""
    made: list[dict[str, bytes]] = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        match = match_of(folder, compiler=CudaCompiler(CUDA_SM90A))
        launches = launches_of(match)
        made.append({each.symbol: (folder / each.binary).read_bytes() for each in launches})
        for launch in launches:
            assert match.compiled[launch.binary].shared_bytes == launch.shared_bytes
    assert made[0] == made[1]


@needs_nvcc
@pytest.mark.parametrize(("keys", "take_turns"), [(128, True), (96, False), (64, False)])
def test_every_form_compiles(tmp_path: Path, keys: int, take_turns: bool) -> None:
    source = KernelSource(
        language="cuda",
        path="causal_mha.cu",
        symbol="sm90_causal_mha",
        constants=MhaForm(keys, take_turns).constants(),
        num_warps=12,
    )
    kernel = CudaCompiler(CUDA_SM90A).compile(source, tmp_path)
    assert kernel.registers == 168  # 384 threads of 65,536 registers; then setmaxnreg


@needs_nvcc
def test_the_softmax_runs_under_the_products(tmp_path: Path) -> None:
    """Between the wait for the scores and that for the values: ptxas has moved it behind both."""
    disassembler = Path(nvidia.__file__).parent / "bin" / "nvdisasm"
    if not disassembler.exists():
        pytest.skip(f"{disassembler}, which Triton brings, is needed to read the cubin")
    match = match_of(tmp_path, compiler=CudaCompiler(CUDA_SM90A))
    cubin = tmp_path / launches_of(match)[3].binary
    done = subprocess.run([disassembler, "-c", cubin], capture_output=True, text=True, check=True)
    _, waited, behind = done.stdout.partition("WARPGROUP.DEPBAR.LE gsb0, 0x1")
    under, ended, _ = behind.partition("WARPGROUP.DEPBAR.LE gsb0, 0x0")
    assert waited
    assert ended
    assert under.count("MUFU.EX2") >= RULE["keys"] // 2, "a lane's weights of two rows"


@needs_nvcc
def test_another_size_of_shared_memory_does_not_compile(tmp_path: Path) -> None:
    constants = MhaForm(128, take_turns=False).constants()
    constants["SHARED_BYTES"] += 16
    source = KernelSource(
        language="cuda", path="causal_mha.cu", symbol="sm90_causal_mha", constants=constants
    )
    with pytest.raises(KernelCompileError, match="another size of shared memory"):
        CudaCompiler(CUDA_SM90A).compile(source, tmp_path)


def test_views_reach_the_step_without_a_copy(tmp_path: Path) -> None:
    """The number of context rows is the last of the contexts' starts."""
    _, _, expand, _ = launches_of(match_of(tmp_path, reqs=5))
    total, _ = (p.view for p in expand.params if isinstance(p, Pointer))
    assert (total.name, total.offset, total.shape) == (CONTEXTS, 5 * 4, (1,))
