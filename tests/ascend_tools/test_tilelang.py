"""TileLang's kernels for A2 and A3 as AscendC text, by its arm64 build under emulation.

Shows that the kernels are of the dialect, that their buffers have places, and that both kinds of
cores wait for each other; not that CANN's compiler takes the text, nor what it computes: that
compiler (`bisheng`) is not published.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ascend_tools.environments import FOLDER
from emulated_python import run

pytestmark = pytest.mark.ascend
TOOLS = Path(__file__).parent
UNIFIED_BUFFER = 192 << 10
PRODUCTS = {"index_scores": 1, "sparse_mla": 3}


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By kernel and platform."""
    if not (FOLDER / "tilelang" / "made-of").exists():
        pytest.fail("no environment of TileLang: run tests/ascend_tools/environments.py tilelang")
    folder = tmp_path_factory.mktemp("tilelang")
    done = run(FOLDER / "tilelang", TOOLS / "tilelang_kernels.py", folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return {file.stem: file.read_text() for file in folder.glob("*.cpp")}


@pytest.mark.parametrize("platform", ["A2", "A3"])
@pytest.mark.parametrize("kernel", PRODUCTS)
def test_a_kernel_becomes_ascendc(texts: dict[str, str], kernel: str, platform: str) -> None:
    text = texts[f"{kernel}-{platform}"]
    cube, vector = text.split("if ASCEND_IS_AIC", 1)[1].split("if ASCEND_IS_AIV", 1)
    assert cube.count("tl::ascend::gemm_v0") == PRODUCTS[kernel]
    assert "gemm" not in vector
    assert "AscendC::Mul" in vector
    for mine, other in ((cube, vector), (vector, cube)):
        flags = re.findall(r"CrossCoreSetFlag<[^>]*>\((\d+)\)", mine)
        waits = re.findall(r"CrossCoreWaitFlag(?:<[^>]*>)?\((\d+)\)", other)
        assert set(flags) == set(waits), "what one sets the other waits for"
    places = re.findall(r"ascend_ub.GetWithOffset<(\w+)>\((\d+), (\d+)\)", text)
    width = {"float": 4, "int": 4, "bfloat16_t": 2, "uint8_t": 1}
    assert max(int(at) + int(n) * width[kind] for kind, n, at in places) <= UNIFIED_BUFFER
