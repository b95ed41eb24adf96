"""TileLang kernels as code objects of AMD's GPUs: lowered to HIP source, and compiled. Never run.

`compiled` is all that can be said of them: no artifact holds one, and no lowering names one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from rocm_tools.code_object import PACKAGES, compile_hip, instructions, tools_are_here
from rocm_tools.environments import tilelang_python

from lostwax.backends.rocm.hsaco import figures
from lostwax.backends.rocm.target import TARGETS

pytestmark = pytest.mark.rocm
HERE = Path(__file__).parent
KERNELS = {"sparse_mla": "attend_selected_kernel", "index_logits": "score_keys_kernel"}
"""By name, what TileLang calls its entry."""
ARCHITECTURES = tuple(target.arch for target in TARGETS)
needs_clang = pytest.mark.skipif(
    not tools_are_here(), reason=f"no compiler of HIP source here: apt-get install {PACKAGES}"
)
Sources = Callable[[str, str], Path]


def packages() -> Path:
    """Those of TileLang's environment."""
    return next(tilelang_python().parents[1].glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """HIP source by kernel and architecture."""
    folder = tmp_path_factory.mktemp("tilelang")

    @cache
    def lowered() -> None:
        if not tilelang_python().exists():
            pytest.fail("no environment of TileLang: run `./dev rocm`, which makes it")
        done = subprocess.run(
            [tilelang_python(), HERE / "lower_tilelang.py", folder, *ARCHITECTURES],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    def source(kernel: str, arch: str) -> Path:
        lowered()
        return folder / f"{kernel}.{arch}.hip"

    return source


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_becomes_hip_source_for_the_matrix_units(
    sources: Sources, kernel: str, arch: str
) -> None:
    text = sources(kernel, arch).read_text()
    assert KERNELS[kernel] in text
    assert "gemm" in text
    assert "fp8" not in text, "which cannot be compiled rightly without ROCm"


@needs_clang
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_source_becomes_a_code_object_with_matrix_instructions(
    sources: Sources, kernel: str, arch: str
) -> None:
    made = compile_hip(sources(kernel, arch), arch, packages())
    assert "v_mfma_f32_16x16x16_bf16" in instructions(made)
    assert figures(made.read_bytes(), KERNELS[kernel]).spilled == 0


CONVERTS_FP8 = """#include <hip/hip_runtime.h>
#include <tl_templates/hip/common.h>
#include <tl_templates/hip/hip_fp8.h>
extern "C" __global__ void convert(float x, fp8_e4_t* y) { *y = fp8_e4_t(x); }
"""


@needs_clang
def test_a_kernel_that_converts_fp8_does_not_compile(tmp_path: Path) -> None:
    """The headers here cannot do it rightly."""
    source = tmp_path / "convert.hip"
    source.write_text(CONVERTS_FP8)
    with pytest.raises(AssertionError, match="fp8 is not converted in compile checks"):
        compile_hip(source, "gfx942", packages())
