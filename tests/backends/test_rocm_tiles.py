"""Products and experts in fp8 for AMD's matrix units: which instructions, how much LDS, and that a
tile which overflows it is refused by name. Compiled, never run."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from plain_cases import cases

pytest.importorskip("triton", reason="the extra `aot` is not installed")

from lostwax.backends.gpu_kernels.lowerings.lds import stages, warps
from lostwax.backends.gpu_kernels.triton_compiler import TritonCompiler, num_parameters
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.proof.plain_match import PlainMatch
from lostwax.backends.registry import find_target
from lostwax.backends.rocm.hsaco import figures, parameters_of
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import TensorMap
from lostwax.ir.contract.program import KernelLaunch
from lostwax.ir.contract.target import Target

MFMA = {"rocm-gfx942": r"v_mfma_f32_\d+x\d+x(16|32)_fp8_fp8", "rocm-gfx950": r"v_mfma_\w*f8"}
"""By target: e4m3fnuz in the fp8 instructions of CDNA 3; e4m3fn there or in the scaled ones."""


class Kept:
    """Stands where the compiler stands: keeps the sources."""

    def __init__(self) -> None:
        self.sources: list[KernelSource] = []

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        self.sources.append(source)
        return CompiledKernel(
            binary=str(len(self.sources)), symbol=source.symbol, digest="",
            num_warps=source.num_warps, shared_bytes=0, registers=0, trailing_nulls=2,
        )  # fmt: skip

    def toolchain(self) -> dict[str, str]:
        return {}


def launched(
    target: Target, name: str, knobs: dict[str, int] | None = None
) -> tuple[list[KernelLaunch], list[KernelSource]]:
    """The kernel launches of a case and what they are compiled of."""
    case, kept = cases()[name].encoded(str(target.fp8_encoding)), Kept()
    match = PlainMatch(
        target, case.bucket, case.values, case.attributes, kept, Path(), stored=case.stored
    )
    launches = match.emit(case.lowering, case.knobs | (knobs or {}))
    return [x for x in launches if isinstance(x, KernelLaunch)], kept.sources


@pytest.mark.parametrize("name", MFMA)
def test_fp8_products_use_the_fp8_matrix_instructions_and_whole_words(name: str) -> None:
    target = find_target(name)[1]
    compiler = TritonCompiler("hip", target.arch, target.wave_size)
    launches, sources = launched(target, "fp8 linear of scaled rows")
    (launch,), (source,) = launches, sources
    assert not any(isinstance(p, TensorMap) for p in launch.params)
    text = compiler.text(source)
    matrix = Counter(re.findall(r"\bv_mfma_\w+", text))
    assert matrix
    assert all(re.match(MFMA[name], each) for each in matrix), matrix
    loads = Counter(re.findall(r"(?:buffer|global)_load_(\w+)", text))
    assert loads["dwordx4"] + loads["dwordx2"] > 0
    assert loads["ubyte"] == 0, "fp8 tiles are read byte for byte"


@pytest.mark.parametrize("name", MFMA)
def test_a_binary_takes_what_its_launch_passes(name: str) -> None:
    target = find_target(name)[1]
    compiler = TritonCompiler("hip", target.arch, target.wave_size)
    launches, sources = launched(target, "fp8 linear of scaled rows")
    hsaco, _ = compiler.compile(sources[0])
    assert parameters_of(hsaco, "linear_tiles") == len(launches[0].params)
    assert num_parameters(sources[0]) + 2 == len(launches[0].params)
    assert figures(hsaco, "linear_tiles").spilled == 0


def test_the_pipeline_keeps_all_stages_but_one_in_lds() -> None:
    """The count that `lds.stages` decides by."""
    target = find_target("rocm-gfx950")[1]
    compiler = TritonCompiler("hip", target.arch, target.wave_size)
    stage_bytes = 128 * (16 + 64)
    taken: list[int] = []
    for wanted in (2, 3):
        knobs = {"num_stages": wanted, "block_n": 64, "block_rows": 16, "splits": 1}
        _, sources = launched(target, "fp8 linear of scaled rows", knobs)
        taken.append(compiler.compile(sources[0])[1])
    assert taken == [stage_bytes, 2 * stage_bytes]


def test_a_tile_that_overflows_is_refused_with_the_next_legal_one(tmp_path: Path) -> None:
    """Found by compiling it: 2 stages of 40 KiB keep one in LDS, 4 would keep 3."""
    backend, target = find_target("rocm-gfx942")
    assert backend.compiler is not None
    compiler = backend.load(backend.compiler)(target)
    _, sources = launched(
        target, "fp8 experts of scaled rows", {"gated_stages": 4, "block_rows": 64}
    )
    (gated,) = (s for s in sources if s.symbol == "gated_tiles")
    said = "in 4 stages takes 122880 bytes of LDS, .* rocm-gfx942 has 65536: the next legal setting"
    with pytest.raises(KernelCompileError, match=f"{said} is num_stages=2"):
        compiler.compile(gated, tmp_path)


def test_by_rule_two_programs_find_room_where_one_stage_allows_it() -> None:
    small, large = (find_target(f"rocm-gfx{n}")[1] for n in (942, 950))
    hopper = find_target("cuda-sm90a")[1]
    assert stages(hopper, 0, 6, 16384) == 6, "measured there"
    assert stages(small, 0, 6, 16384) == 3
    assert stages(large, 0, 6, 16384) == 6
    assert stages(small, 0, 6, 40960) == 2, "more than half, but it fits"
    assert stages(small, 5, 6, 16384) == 5
    assert [warps(small, n) for n in (4, 8, 16)] == [4, 4, 8]
    assert warps(hopper, 8) == 8


@pytest.mark.parametrize("name", MFMA)
def test_a_program_counts_itself_behind_what_all_its_waves_stored(name: str) -> None:
    """AMD's barrier does not wait for stores, and what counts waits for one wave's only."""
    target = find_target(name)[1]
    compiler = TritonCompiler("hip", target.arch, target.wave_size)
    _, sources = launched(target, "fp8 linear of scaled rows")
    assert sources[0].constants["SUMMED"] > 1
    text = compiler.text(sources[0])
    lines = [line.strip() for line in text.splitlines()]
    (counts,) = [i for i, line in enumerate(lines) if line.startswith("global_atomic_add")]
    barrier = max(i for i in range(counts) if lines[i] == "s_barrier")
    stored = max(i for i in range(barrier) if lines[i].startswith(("global_store", "buffer_store")))
    assert any(line.startswith("s_waitcnt vmcnt(0)") for line in lines[stored:barrier])
