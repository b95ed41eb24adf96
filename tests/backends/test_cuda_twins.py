"""Every CUDA C++ kernel runs on the CPU somewhere: its own source, in a twin (cuda_twin/)."""

from __future__ import annotations

from pathlib import Path

import pytest
from guarded_buffers import Bytes
from index_steps import RAGGED
from index_steps import Step as IndexStep
from index_steps import score as index_logits
from many_rows_cases import linear, queries
from mha_twin import Step as MhaStep
from mha_twin import attend as expanded_attention
from plain_case import Case
from twin_launches import KERNELS, Twins

from lostwax.backends.cuda.lowerings.sparse_mla import SparseForm
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.proof.plain_match import PlainMatch
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import KernelLaunch

OWN = {
    "test_cuda_topk_twin.py": {"topk.cu"},
    "test_cuda_sparse_mla_twin.py": {SparseForm("bf16", n, 1, 2).path for n in (16, 64)},
}
"""What has a program of its own beside the launches of lowerings, by the test that runs it."""
WITHOUT: dict[str, str] = {}
"""Sources that no twin runs, each with the reason."""


class Recorder(Twins):
    """Compiles and runs nothing; keeps which CUDA sources are launched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._paths: dict[str, str] = {}
        self.launched: set[str] = set()

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """Remember the source by its digest."""
        self._paths[source.digest()] = source.path if source.language == "cuda" else ""
        return CompiledKernel(
            binary=source.digest(), symbol=source.symbol, digest="", num_warps=source.num_warps,
            shared_bytes=0, registers=0, trailing_nulls=2,
        )  # fmt: skip

    def run(self, launch: KernelLaunch, buffers: dict[str, Bytes]) -> None:
        """Remember what is launched."""
        self.launched.add(self._paths[launch.binary])

    def emit(self, case: Case) -> None:
        """Launch what a case's lowering does, over nothing."""
        match = PlainMatch(
            CUDA_SM90A, case.bucket, case.values, case.attributes, self, Path(), stored=case.stored
        )
        for launch in match.emit(case.lowering, case.knobs):
            if isinstance(launch, KernelLaunch):
                self.run(launch, {})


@pytest.fixture
def launched(tmp_path: Path) -> set[str]:
    """The sources behind a step of each kind that the twins' tests run."""
    recorder = Recorder(tmp_path)
    for step in (MhaStep([(0, 200)]), MhaStep([(0, 200)], top=9)):
        expanded_attention(step, recorder, tmp_path)
    index_logits(IndexStep(RAGGED), recorder, tmp_path)
    for case in (linear(scaled=True), queries(scaled=True, quantised=False)):
        recorder.emit(case)
    return recorder.launched - {""}


def test_every_kernel_is_launched_by_a_twin_or_listed_with_the_reason(launched: set[str]) -> None:
    here = Path(__file__).parent
    assert all((here / name).is_file() for name in OWN)
    run = launched.union(*OWN.values())
    every = {file.name for file in KERNELS.glob("*.cu")}
    assert every - run - WITHOUT.keys() == set(), (
        "write a twin's test for these (CONTRIBUTING.md), or list them above with the reason"
    )
    assert run - every == set(), "no such kernel (any more)"
    assert WITHOUT.keys() & run == set(), "a twin runs these: list them no longer"
