"""Triton kernels where no operator of CANN fits: through CANN's compiler up to its closed end.

`compiled` at most: nothing here makes a device binary, and what runs is the adapter's text on the
CPU, before CANN's own passes.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
from ascend_tools.adapted_kernel import built, run, tools
from ascend_tools.environments import ROOT, python_of

from lostwax.backends.portable.kernels.route import route as portable_route

pytestmark = pytest.mark.ascend
CHIPS = ("Ascend910B3", "Ascend910_9391")
"""Of A2 and of A3."""
VECTOR_MEMORY_BITS = 192 * 1024 * 8
needs_llvm = pytest.mark.skipif(
    tools() is None, reason="needs mlir-opt 19: apt-get install llvm-19 mlir-19-tools clang-19"
)


class Ladder:
    """What the tools made for each chip."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.of = cache(self._of)

    def _of(self, chip: str) -> Path:
        if not python_of("triton").exists():
            pytest.fail("no environment of triton-ascend: run tests/ascend_tools/environments.py")
        folder = self._folder / chip
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "src"),
            "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
            "TRITON_CACHE_DIR": str(folder / "cache"),
        }
        tool = Path(__file__).with_name("triton_ladder.py")
        done = subprocess.run(
            [python_of("triton"), tool, folder, chip], capture_output=True, env=environment
        )
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        return folder

    def errors(self, chip: str, case: str) -> list[str]:
        """What CANN's compiler said against a case."""
        return json.loads((self.of(chip) / "report.json").read_text())[case]


@pytest.fixture(scope="session")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    return Ladder(tmp_path_factory.mktemp("ladder"))


@pytest.mark.parametrize("case", ["rms_norm", "route"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_kernel_gets_its_places_in_the_chips_memories(
    ladder: Ladder, chip: str, case: str
) -> None:
    assert ladder.errors(chip, case) == []
    planned = (ladder.of(chip) / f"{case}.hivm.mlir").read_text()
    assert "#hivm.address_space<ub>" in planned
    assert f'"UB_SIZE", {VECTOR_MEMORY_BITS} : i32' in planned


@pytest.mark.parametrize("chip", CHIPS)
def test_a_kernel_that_exceeds_the_vector_memory_is_refused(ladder: Ladder, chip: str) -> None:
    said = "\n".join(ladder.errors(chip, "rms_norm_too_wide"))
    assert "ub overflow" in said
    assert f"{VECTOR_MEMORY_BITS} bits available" in said
    assert not (ladder.of(chip) / "rms_norm_too_wide.hivm.mlir").exists()


@needs_llvm
def test_the_norm_is_right_as_the_adapter_gives_it(ladder: Ladder) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 7168).bfloat16(), torch.randn(7168).bfloat16()
    out = torch.full_like(x, 7)
    real = torch.tensor([3], dtype=torch.int32)
    library = built(ladder.of(CHIPS[0]) / "rms_norm.mlir")
    run(library, "rms_norm", [x, weight, out, real, 7168, 7168, 1e-6], 4)
    wide = x.float()
    want = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * weight.float()
    torch.testing.assert_close(out[:3].float(), want[:3], rtol=2**-7, atol=1e-6)
    assert (out[3] == 7).all(), "rows behind the real ones are left alone"


@needs_llvm
def test_the_choice_of_experts_is_right_as_the_adapter_gives_it(ladder: Ladder) -> None:
    """Eight experts in four groups, ties among them; a row without a token, one behind all."""
    torch.manual_seed(1)
    logits, bias = torch.randn(6, 8).mul(2).round().div(2), torch.randn(8).mul(4).round().div(8)
    positions = torch.tensor([3, 4, -1, 6, 0, 9], dtype=torch.int32)
    ids, weights = torch.full((6, 2), 99, dtype=torch.int32), torch.zeros(6, 2)
    real = torch.tensor([5], dtype=torch.int32)
    library = built(ladder.of(CHIPS[0]) / "route.mlir")
    run(library, "route", [logits, bias, positions, ids, weights, real, 2.5], 6)
    want_ids, want = torch.empty((6, 2), dtype=torch.int32), torch.empty(6, 2)
    portable_route(
        logits, bias, positions, want_ids, want, top_k=2, n_group=4, topk_group=2, normalise=True,
        scale=2.5,
    )  # fmt: skip
    want_ids[5] = -1
    assert ids.tolist() == want_ids.tolist()
    torch.testing.assert_close(weights[:5], want[:5], rtol=1e-5, atol=1e-6)
