"""Who waits in vain on the CPU's fibers, or does what a device would not, fails a test: it takes
neither the tests' process nor a minute."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from guarded_buffers import Bytes, guarded
from twin_launches import KERNELS, Twins

from lostwax.backends.plan.views import dense
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch

OUT = dense("arena", "out", "i32", (64,))
KERNEL = """
#include "hopper/ptx.h"
extern "C" __global__ void meet(int* out, int how) {
  const u32 barrier = shared_address(nullptr);
  if (threadIdx.x == 0) init_barrier(barrier, 1);
  __syncthreads();
  if (how == 1 && threadIdx.x < 32) __syncthreads();
  if (how == 2) wait_for(barrier, 0);
  if (how == 3) wait_for(barrier + 16, 0);
  if (how == 4) arrive(barrier + 4096);
  if (how == 0 && threadIdx.x == 32) arrive(barrier);
  if (how == 0) wait_for(barrier, 0);
  out[threadIdx.x] = threadIdx.x;
}
"""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """A kernel whose threads meet at a barrier, or do not."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to run a kernel's source on the CPU")
    folder = tmp_path_factory.mktemp("twin")
    kernels = folder / "kernels"
    shutil.copytree(KERNELS, kernels)
    (kernels / "meet.cu").write_text(KERNEL)
    return Twins(folder, kernels)


def meet(twins: Twins, folder: Path, how: int) -> Bytes:
    source = KernelSource(
        language="cuda", path="meet.cu", symbol="meet", constants={"SHARED_BYTES": 1024},
        num_warps=2,
    )  # fmt: skip
    compiled = twins.compile(source, folder)
    buffers = {"out": guarded(OUT.num_bytes)}
    launch = KernelLaunch(
        binary=compiled.binary, symbol="meet", grid=(1, 1, 1), block=(64, 1, 1),
        params=(Pointer(OUT), Scalar("i32", how)),
    )  # fmt: skip
    twins.run(launch, buffers)
    return buffers["out"]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (1, "all threads that are left wait for what nobody does"),
        (2, "all threads that are left wait for what nobody does"),
        (3, "no barrier at 410"),
        (4, "no barrier at 1400"),
    ],
)
def test_who_waits_in_vain_fails_a_launch_and_not_the_next(
    twins: Twins, tmp_path: Path, how: int, why: str
) -> None:
    with pytest.raises(AssertionError, match=why):
        meet(twins, tmp_path, how)
    assert meet(twins, tmp_path, 0).view("i4").tolist() == list(range(64))
