"""Expanded attention to a selection for Hopper: what is launched and compiled for which sizes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from mha_launches import launches_of, match_of
from nvcc_here import needs_nvcc
from triton.backends import nvidia

from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.lowerings.expanded_mha import MhaForm
from lostwax.backends.cuda.lowerings.masked_mha import MASKED_MHA
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.proof.plain_match import WORKSPACE, PlainMatch
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap, views_of_parameter
from lostwax.ir.contract.program import Guard, KernelLaunch, Linear

RULE = MASKED_MHA.default_knobs()
TOP = 2048


def within(positions: int) -> Guard:
    """Contexts of so many positions together."""
    return Guard("middle", (Linear({"total_kv": 1}, positions),))


def long_match(
    folder: Path,
    rows: int = 2048,
    positions: int = 8192,
    heads: int = 128,
    compiler: CudaCompiler | None = None,
) -> PlainMatch:
    """A step of requests of up to 16,384 positions."""
    return match_of(
        folder, rows=rows, heads=heads, top=TOP, pages=256, guard=within(positions),
        compiler=compiler,
    )  # fmt: skip


def bits_of(launch: KernelLaunch) -> tuple[Pointer, Scalar]:
    """The bits that a launch is handed, and the words of a row."""
    words = launch.params[-1]
    pointers = [p for p in launch.params if isinstance(p, Pointer) and p.view.shape[0] == 2048]
    bits = [p for p in pointers if p.view.name == WORKSPACE]
    assert isinstance(words, Scalar)
    assert len(bits) == 1
    return bits[0], words


def test_a_selection_becomes_bits_and_contexts_are_expanded(tmp_path: Path) -> None:
    tiles, bits, gather, expand, attend = launches_of(MASKED_MHA, long_match(tmp_path))
    assert tiles.symbol == "causal_mha_tiles", "as every expanded form: equal ones run once a step"
    assert (bits.grid, bits.block) == ((2048, 1, 1), (128, 1, 1))
    assert gather.grid == (8192 // 8, 1, 1), "a warp a row that the guard admits"
    assert expand.grid == attend.grid == (132, 1, 1)
    maps = [p.view.shape for p in attend.params if isinstance(p, TensorMap)]
    assert maps == [(2048, 128, 128), (2048, 128, 64), (8192, 128, 256), (8192, 1, 64)]


@pytest.mark.parametrize("positions", [4096, 8191, 8192])
def test_bits_are_whole_tiles_of_what_the_guard_admits(tmp_path: Path, positions: int) -> None:
    _, bits, _, _, attend = launches_of(MASKED_MHA, long_match(tmp_path, positions=positions))
    words = -(-positions // 128) * 4
    (written, told), (read, known) = bits_of(bits), bits_of(attend)
    assert written == read
    assert told.value == known.value == words
    assert bits.shared_bytes == 4 * words
    assert read.view.shape == (2048, words)


def test_the_guard_bounds_the_workspace(tmp_path: Path) -> None:
    """As much as what attends to whole contexts takes for four positions a row, and the bits."""
    match = long_match(tmp_path)
    contexts, bits = 8192 * 2 * (512 + 64 + 128 * 256), 2048 * 8192 // 8
    assert MASKED_MHA.workspace(match, RULE) == 256 + contexts + bits


@pytest.mark.parametrize("heads", [16, 40, 128])
def test_every_view_lies_within_its_buffer(tmp_path: Path, heads: int) -> None:
    match = long_match(tmp_path, heads=heads)
    for launch in launches_of(MASKED_MHA, match, {"heads_at_once": 16}):
        for view in (v for p in launch.params for v in views_of_parameter(p)):
            last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
            width = {"i32": 4, "u8": 1}.get(view.dtype, 2)
            whole = match.workspace_bytes
            if view.name in match.values:
                whole = match.values[view.name].num_bytes
            assert view.name == "num_rows" or view.offset + (last + 1) * width <= whole


def test_what_the_absorbed_form_does_faster_is_refused_with_a_sentence(tmp_path: Path) -> None:
    def refusal(match: PlainMatch) -> str | None:
        return MASKED_MHA.when.refusal(match)

    assert refusal(long_match(tmp_path)) is None
    assert refusal(long_match(tmp_path, positions=8193)) == (
        "contexts of 8193 positions together, wants <= 8192: with more the absorbed form is faster"
        " for 2048 rows of 128 heads"
    )
    assert refusal(long_match(tmp_path, positions=16384, heads=16)) is None
    assert "wants <= 4096" in (refusal(long_match(tmp_path, rows=512)) or "")
    assert "wants >= 256" in (refusal(long_match(tmp_path, rows=128)) or "")
    assert "wants extend" in (refusal(match_of(tmp_path, top=TOP, segment="decode")) or "")
    whole = Guard("short", (Linear({"total_kv": 1}, 8192),), selects_all=True)
    assert "bits tell nothing" in (refusal(match_of(tmp_path, top=TOP, guard=whole)) or "")
    other = match_of(tmp_path, top=TOP, target=CUDA_SM100A)
    assert "matrix_units" in (refusal(other) or "")


def test_without_a_guard_the_bucket_bounds_the_contexts(tmp_path: Path) -> None:
    """One request of 4,096 positions needs no program of its own; two of 8,192 do."""
    few = match_of(tmp_path, top=TOP, reqs=1, pages=64, guard=Guard("chosen"))
    many = match_of(tmp_path, top=TOP, reqs=2, pages=128, guard=Guard("chosen"))
    assert MASKED_MHA.when.refusal(few) is None
    assert "contexts of 16384 positions" in (MASKED_MHA.when.refusal(many) or "")


@needs_nvcc
def test_it_compiles_to_the_same_bytes_in_two_folders(tmp_path: Path) -> None:
    """Without spilled registers or serialised products: these are refused."""
    made: list[dict[str, bytes]] = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        match = long_match(folder, compiler=CudaCompiler(CUDA_SM90A))
        launches = launches_of(MASKED_MHA, match)
        made.append({each.symbol: (folder / each.binary).read_bytes() for each in launches})
        assert match.compiled[launches[-1].binary].registers == 168  # then setmaxnreg
    assert made[0] == made[1]


@needs_nvcc
def test_the_softmax_runs_under_the_products(tmp_path: Path) -> None:
    """Between the wait for the scores and that for the values: ptxas has moved it behind both."""
    disassembler = Path(nvidia.__file__).parent / "bin" / "nvdisasm"
    if not disassembler.exists():
        pytest.skip(f"{disassembler}, which Triton brings, is needed to read the cubin")
    match = long_match(tmp_path, compiler=CudaCompiler(CUDA_SM90A))
    cubin = tmp_path / launches_of(MASKED_MHA, match)[-1].binary
    done = subprocess.run([disassembler, "-c", cubin], capture_output=True, text=True, check=True)
    _, waited, behind = done.stdout.partition("WARPGROUP.DEPBAR.LE gsb0, 0x1")
    under, ended, _ = behind.partition("WARPGROUP.DEPBAR.LE gsb0, 0x0")
    assert waited
    assert ended
    assert under.count("MUFU.EX2") >= 128 // 2, "a lane's weights of two rows"


@needs_nvcc
@pytest.mark.parametrize("keys", [96, 64])
def test_bits_are_those_of_tiles_of_128_keys(tmp_path: Path, keys: int) -> None:
    source = KernelSource(
        language="cuda",
        path="masked_mha.cu",
        symbol="sm90_masked_mha",
        constants=MhaForm(keys, take_turns=False).constants(),
        num_warps=12,
    )
    with pytest.raises(KernelCompileError, match="bits are those of a tile of keys"):
        CudaCompiler(CUDA_SM90A).compile(source, tmp_path)
