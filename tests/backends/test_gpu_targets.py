"""The shared Triton kernels compile for every GPU target here, or are refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from plain_cases import cases

pytest.importorskip("triton", reason="the extra `aot` is not installed")

from lostwax.backends.cuda.lowerings.topk import TOPK
from lostwax.backends.gpu_kernels.elf import ELF_MAGIC
from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND, ATTEND_ALL, Blocks, choose_blocks
from lostwax.backends.gpu_kernels.lowerings.norms import ADD_RMS_NORM
from lostwax.backends.kernel_compiler import KernelCompileError, KernelCompiler
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.kernel_builder import building
from lostwax.backends.plan.kernel_requests import KernelRequests
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.ir.contract.kernel import CompiledKernel, KernelNote, KernelSource
from lostwax.ir.contract.parameter import Pointer
from lostwax.ir.contract.program import Bucket, KernelLaunch, Launch
from lostwax.ir.contract.target import Target

NAMES = ("cuda-sm90a", "cuda-sm100a", "rocm-gfx942", "rocm-gfx950")
BY_RULE = {"block_heads": 0, "block_keys": 0, "num_warps": 0}


class Requests:
    """Stands where the compiler stands: notes what is wanted."""

    def __init__(self, requests: KernelRequests) -> None:
        self._requests = requests
        self.wanted: list[KernelSource] = []

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        self.wanted.append(source)
        return self._requests.request(source)

    def toolchain(self) -> dict[str, str]:
        return {}


def target_of(name: str) -> Target:
    return find_target(name)[1]


def compiler_of(name: str) -> KernelCompiler:
    backend, target = find_target(name)
    assert backend.compiler is not None
    return backend.load(backend.compiler)(target)


def match_of(
    name: str, folder: Path, rows: int, values: Mapping[str, Value], attributes: Mapping[str, int]
) -> PlainMatch:
    named = {("op", n): v for n, v in attributes.items()} | {("normed", "eps"): 1e-6}
    bucket = Bucket(rows, rows, 64, rows)
    return PlainMatch(target_of(name), bucket, values, named, compiler_of(name), folder)


def norm_match(name: str, folder: Path) -> PlainMatch:
    rows = Value((4, 96), "bf16")
    values = {"residual": rows, "delta": rows, "residual_out": rows, "normed": rows}
    values |= {"sum": Value((4, 96), "f32"), "weight": Value((96,), "bf16")}
    return match_of(name, folder, 4, values, {})


def attend_match(
    name: str, folder: Path, rows: int, heads: int, dtype: str, latent: int = 512, rope: int = 64
) -> PlainMatch:
    values = {
        "q_nope": Value((rows, heads, 128), dtype),
        "q_pe": Value((rows, heads, rope), dtype),
        "kv_b": Value((heads * 256, latent), dtype),
        "cache_in": Value((65, 64, latent + rope), dtype, parts=(latent, rope)),
        "selection": Value((rows, 2048), "i32"),
        "positions": Value((rows,), "i32"),
        "q_starts": Value((rows + 1,), "i32"),
        "page_table": Value((rows, 64), "i32"),
        "op.out": Value((rows, heads * 128), dtype),
    }
    return match_of(name, folder, rows, values, {"scale": 1})


def kernels_of(launches: tuple[Launch, ...]) -> list[KernelLaunch]:
    return [launch for launch in launches if isinstance(launch, KernelLaunch)]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_source_gives_the_same_binary_in_two_folders(name: str, tmp_path: Path) -> None:
    found: list[bytes] = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (launch,) = kernels_of(norm_match(name, folder).emit(ADD_RMS_NORM))
        found.append((folder / launch.binary).read_bytes())
        assert launch.block[0] % target_of(name).wave_size == 0
    assert found[0].startswith(ELF_MAGIC)
    assert str(tmp_path).encode() not in found[0]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["cuda-sm90a", "rocm-gfx942"])
def test_the_builder_compiles_each_kernel_once_and_notes_what_it_is(
    name: str, tmp_path: Path
) -> None:
    backend, target = find_target(name)
    requests = KernelRequests(backend, target)
    asked = Requests(requests)
    for lowering in (ADD_RMS_NORM, ATTEND, ATTEND_ALL, ATTEND):
        small = attend_match(name, tmp_path, 2, 4, "bf16", 64, 16)
        match = norm_match(name, tmp_path) if lowering is ADD_RMS_NORM else small
        match.compiler = asked
        match.emit(lowering)
    folder = tmp_path / "kernels"
    with building(backend, target, folder, requests.sources, 1) as builder:
        built = builder.finish()

    assert len(asked.wanted) > 3
    assert len(built.kernels) == len({s.digest() for s in asked.wanted})
    for kernel in built.kernels:
        assert (folder / kernel.binary).read_bytes().startswith(ELF_MAGIC)
        note = msgspec.json.decode((folder / f"{kernel.binary}.json").read_bytes(), type=KernelNote)
        assert (note.symbol, note.digest) == (kernel.symbol, kernel.digest)
        assert note.registers > 0
        assert kernel.source in {s.digest() for s in note.sources}
        assert str(tmp_path) not in note.code_digest + str(note.sources)


def test_only_a_target_with_clusters_takes_the_cluster_top_k(tmp_path: Path) -> None:
    values = {"logits": Value((2, 100), "f32"), "op.out": Value((2, 32), "i32")}
    for name in NAMES:
        refusal = TOPK.when.refusal(match_of(name, tmp_path, 2, values, {"k": 32}))
        if name.startswith("rocm"):
            assert refusal == "target fact cluster_blocks is 1, wants >= 16"
        else:
            assert refusal is None


def test_rows_beyond_the_shared_memory_are_refused_by_the_fact(tmp_path: Path) -> None:
    refused = attend_match("rocm-gfx942", tmp_path, 1, 16, "f32", 512, 512)
    with pytest.raises(ValueError, match=r"shared_memory_bytes is 65536, wants >= \d+ for rows"):
        refused.emit(ATTEND)
    held = attend_match("rocm-gfx950", tmp_path, 1, 16, "f32", 512, 512)
    assert ATTEND.when.refusal(held) is None


def test_forced_blocks_beyond_the_shared_memory_fail_to_compile(tmp_path: Path) -> None:
    match = attend_match("rocm-gfx942", tmp_path, 1, 16, "bf16")
    said = "target rocm-gfx942 has 65536: the next legal setting is num_stages=1"
    with pytest.raises(KernelCompileError, match=said):
        match.emit(ATTEND, {"block_keys": 64})


def test_blocks_are_chosen_by_facts_and_sizes() -> None:
    row = (576, 2)
    h100, mi300 = target_of("cuda-sm90a"), target_of("rocm-gfx942")

    def chosen(
        target: Target, rows: int, heads: int, keys: int = 2048, bytes_of: int = 2
    ) -> Blocks:
        return choose_blocks(rows, heads, keys, (row[0], bytes_of), target, BY_RULE)

    assert chosen(h100, 1, 16) == Blocks(16, 64, 8)
    assert chosen(h100, 128, 16) == Blocks(16, 32, 4)
    assert chosen(h100, 1, 128) == Blocks(16, 32, 4)
    assert chosen(h100, 8, 128) == Blocks(32, 32, 8)
    assert chosen(h100, 1, 16, keys=20) == Blocks(16, 32, 8)
    assert chosen(mi300, 1, 16) == Blocks(16, 16, 4), "more keys or heads spill registers"
    narrow = choose_blocks(1, 16, 2048, (288, 2), mi300, BY_RULE)
    assert narrow == Blocks(16, 64, 4), "and rows half as wide do not"
    assert chosen(mi300, 1, 16, bytes_of=4) == Blocks(16, 16, 4)
    assert choose_blocks(1, 16, 2048, row, h100, BY_RULE | {"num_warps": 2}).num_warps == 2


def test_a_shared_expert_takes_no_further_shared_memory(tmp_path: Path) -> None:
    """Both ways through a kernel use the same stages: else fewer programs fit a compute unit."""
    every, taken = cases(), list[dict[str, int]]()
    for name in ("fp8 experts of scaled rows", "fp8 moe of scaled rows"):
        case = every[name]
        match = PlainMatch(
            target_of("cuda-sm90a"), case.bucket, case.values, case.attributes,
            compiler_of("cuda-sm90a"), tmp_path,
        )  # fmt: skip
        launches = kernels_of(match.emit(case.lowering, case.knobs))
        taken.append({x.symbol: x.shared_bytes for x in launches if x.symbol.endswith("_tiles")})
    assert taken[0] == taken[1]
    assert {*taken[0]} == {"gated_tiles", "down_tiles"}


BY_PLACES = ("gated_tiles", "down_tiles")
"""Kernels over the tiles that `place_pairs`, which is told the count, has filled."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_that_counts_rows_compiles_and_is_given_the_count(
    name: str, tmp_path: Path
) -> None:
    target, built = target_of(name), dict[str, CompiledKernel]()
    for case_name, case in cases().items():
        case = case.encoded(str(target.fp8_encoding))
        match = PlainMatch(
            target, case.bucket, case.values, case.attributes, compiler_of(name), tmp_path,
            built=built, stored=case.stored,
        )  # fmt: skip
        assert case.lowering.when.refusal(match) is None, case_name
        launches = kernels_of(match.emit(case.lowering, case.knobs))
        assert launches
        for launch in launches:
            assert (tmp_path / launch.binary).read_bytes().startswith(ELF_MAGIC)
            is_told = Pointer(match.step_input("num_rows")) in launch.params
            assert is_told or launch.symbol in BY_PLACES, case_name


@pytest.mark.slow
@pytest.mark.parametrize("lowering", [ATTEND, ATTEND_ALL], ids=lambda low: low.name)
@pytest.mark.parametrize("name", NAMES)
def test_attention_of_the_full_model_compiles(
    name: str, lowering: Lowering, tmp_path: Path
) -> None:
    """Whatever the rule chooses must fit: the estimate of shared memory is a bound."""
    limit = target_of(name).shared_memory_bytes
    for dtype in ("bf16", "f32"):
        for rows, heads in ((1, 16), (128, 16), (1, 128), (8, 128), (512, 128)):
            match = attend_match(name, tmp_path, rows, heads, dtype)
            for launch in kernels_of(match.emit(lowering)):
                assert launch.shared_bytes <= limit
