"""Ragged steps of the indexer's logits on a GPU, in every form, keys in fp8 and in bf16.

    PYTHONPATH=tests python benchmarks/ragged_index.py compile FOLDER    # needs nvcc, no GPU
    python benchmarks/ragged_index.py run FOLDER                         # needs the GPU alone
    compute-sanitizer --tool racecheck python benchmarks/ragged_index.py run FOLDER --only 'bf16 4'

The steps and their fp64 answers are those that `tests/index_steps.py` runs on the CPU: what no
request has is NaN. They are cut for so many CTAs, which are launched.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from op_index import BF16_BOUND, BOUND

from lostwax.backends.cuda.driver import CudaDriver
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.kernel_compiler import KernelCompiler
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import KernelLaunch, View

CTAS = (3, 132)
BOUNDS = {"fp8": BOUND, "bf16": BF16_BOUND}
OUT = "op.out"


class Ragged(msgspec.Struct):
    """A step's inputs as bytes, by name, and its answer: f64 [real rows, columns]."""

    given: dict[str, bytes]
    want: bytes
    real: int


class Form(msgspec.Struct):
    """Its launches over the buffers of a step, and bytes of those that these write."""

    name: str
    stored: str
    launches: list[KernelLaunch]
    written: dict[str, int]


class Folder(msgspec.Struct):
    """Contents of steps.msgpack: steps by how keys are stored."""

    kernels: list[CompiledKernel]
    steps: dict[str, Ragged]
    forms: list[Form]


class _Compiled:
    """Stands where the twins stand: compiles for the device, and keeps launches for it."""

    def __init__(self, compiler: KernelCompiler) -> None:
        self._compiler = compiler
        self.kernels: dict[str, CompiledKernel] = {}
        self.launches: list[KernelLaunch] = []
        self.given: dict[str, bytes] = {}

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        kernel = self._compiler.compile(source, folder)
        self.kernels[kernel.binary] = kernel
        return kernel

    def toolchain(self) -> dict[str, str]:
        return self._compiler.toolchain()

    def run(self, launch: KernelLaunch, buffers: dict[str, NDArray[np.uint8]]) -> None:
        self.launches.append(launch)
        self.given = {name: value.tobytes() for name, value in buffers.items()}


def compile_steps(folder: Path) -> None:
    """Every form over one step of either keys."""
    from index_steps import RAGGED, STORED, Step, score

    from lostwax.backends.cuda.compiler import CudaCompiler
    from lostwax.backends.cuda.lowerings.index_logits import FORMS

    folder.mkdir(parents=True, exist_ok=True)
    compiler = CudaCompiler(CUDA_SM90A)
    kernels: dict[str, CompiledKernel] = {}
    steps: dict[str, Ragged] = {}
    forms: list[Form] = []
    for stored, number, ctas in product(STORED, range(1, len(FORMS) + 1), CTAS):
        step, made = Step(RAGGED, reqs=8, unreal=2, stored=stored), _Compiled(compiler)
        score(step, made, folder, ctas, form=number)
        kernels |= made.kernels
        given = {n: v for n, v in made.given.items() if not n.startswith(("index_", OUT))}
        steps[stored] = Ragged(given, step.expected().tobytes(), step.real)
        written = {n: len(v) for n, v in made.given.items() if n not in given}
        forms.append(Form(f"{stored} {number} of {ctas}", stored, made.launches, written))
    found = Folder(list(kernels.values()), steps, forms)
    (folder / "steps.msgpack").write_bytes(msgspec.msgpack.encode(found))
    print(f"{len(forms)} forms, {len(kernels)} kernels in {folder}")


def error_of(step: Ragged, out: NDArray[np.float32]) -> float:
    """|got - want| / |want| of what rows see; infinite where they see what they should not, or
    where rows that are not real were written."""
    want = np.frombuffer(step.want).reshape(step.real, -1)
    got = out.reshape(-1, want.shape[1]).astype(np.float64)
    seen, real = want > -np.inf, got[: step.real]
    if not (real[~seen] == -np.inf).all() or not np.isnan(got[step.real :]).all():
        return float("inf")
    return float(np.linalg.norm(real[seen] - want[seen]) / np.linalg.norm(want[seen]))


def run_steps(folder: Path, only: str) -> bool:
    """Each once; True if all that were chosen are right."""
    found = msgspec.msgpack.decode((folder / "steps.msgpack").read_bytes(), type=Folder)
    kernels = {kernel.binary: kernel for kernel in found.kernels}
    driver = CudaDriver(CUDA_SM90A, lambda name: (folder / name).read_bytes(), kernels)
    wrong = 0
    for form in (each for each in found.forms if each.name.startswith(only)):
        step = found.steps[form.stored]
        held = {name: driver.allocate(size).fill_(255) for name, size in form.written.items()}
        for name, value in step.given.items():
            held[name] = torch.frombuffer(bytearray(value), dtype=torch.uint8).to(driver.device)

        def resolve(view: View, held: Mapping[str, torch.Tensor] = held) -> torch.Tensor:
            return tensor_of(held[view.name], view)

        for launch in form.launches:
            driver.bind(launch, resolve)()
        driver.synchronize()
        error = error_of(step, held[OUT].cpu().numpy().view(np.float32))
        is_right = error <= BOUNDS[form.stored]
        wrong += not is_right
        print(f"{form.name:<16} {error:8.1e} {'' if is_right else 'WRONG'}", flush=True)
    print(f"{wrong} wrong")
    return not wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["compile", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="how names of forms begin")
    options = parser.parse_args()
    if options.action == "compile":
        compile_steps(options.folder)
    elif not run_steps(options.folder, options.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
