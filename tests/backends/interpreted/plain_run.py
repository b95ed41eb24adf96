"""Runs one lowering over plain values, its Triton kernels in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from guarded_buffers import Bytes, guarded, require_guards

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.interpreter import bind_interpreted, bind_on_cpu
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.proof.plain_match import WORKSPACE, PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import (
    Bucket,
    Const,
    Guard,
    HostCall,
    KernelLaunch,
    Launch,
    View,
)
from lostwax.ir.contract.step_kernel import StepKernel
from lostwax.ir.contract.target import Target

DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16,
    "f8E4M3FN": torch.float8_e4m3fn, "f8E4M3FNUZ": torch.float8_e4m3fnuz,
    "i64": torch.int64, "i32": torch.int32, "u8": torch.uint8,
}  # fmt: skip
POISON = 1e30
UNWRITTEN = -7
Bind = Callable[[KernelSource, KernelLaunch, Resolve], Thunk]
"""Makes a launch over resolved memory."""
ZEROED = ""
"""What views of the zeroed workspace call it."""


class Sources:
    """Stands where the compiler stands: keeps each source under a name."""

    def __init__(self) -> None:
        self.by_binary: dict[str, KernelSource] = {}

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """Remember the source."""
        binary = str(len(self.by_binary))
        self.by_binary[binary] = source
        return CompiledKernel(
            binary=binary,
            symbol=source.symbol,
            digest="",
            num_warps=source.num_warps,
            shared_bytes=0,
            registers=0,
            trailing_nulls=2,
        )

    def toolchain(self) -> dict[str, str]:
        """No compiler is used."""
        return {}


def resolve(view: View, buffers: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The tensor of a view."""
    kind = DTYPES[view.dtype]
    flat = buffers[view.name][view.offset :].view(torch.uint8)
    usable = flat[: flat.numel() // kind.itemsize * kind.itemsize].view(kind)
    return torch.as_strided(usable, view.shape, view.strides)


def _prepare(match: PlainMatch, lowering: Lowering, knobs: Mapping[str, int]) -> list[Launch]:
    """The kernels that the lowering wants run before."""
    return [
        step_launch(op, match.step_input, views, match.build, match.target)
        for op in lowering.prepare(match, lowering.default_knobs() | dict(knobs))
        if isinstance(op, StepKernel)
        for views in [{name: match.view(name) for name, _, _ in op.outputs}]
    ]


def run(
    lowering: Lowering,
    bucket: Bucket,
    values: Mapping[str, Value],
    attributes: Mapping[tuple[str, str], Const],
    data: Mapping[str, np.ndarray],
    knobs: dict[str, int] | None = None,
    real: int | None = None,
    stored: Mapping[str, Value] | None = None,
    *,
    prepares: bool = False,
    twin: Bind = bind_interpreted,
    target: Target = CUDA_SM90A,
    segment: str = "decode",
    guard: Guard | None = None,
) -> dict[str, np.ndarray]:
    """Every value (and the workspace, as f32) after the lowering's launches, in f64.

    AssertionError where a launch writes beside a buffer. What nobody writes keeps POISON, in
    integers UNWRITTEN. Of the bucket's rows `real` are, by
    default all. What kernels prepare once a step is among the data, unless it `prepares`.
    `twin` runs launches of CUDA C++.
    """
    sources, stored = Sources(), stored or {}
    match = PlainMatch(
        target, bucket, values, attributes, sources, Path(), segment=segment,
        guard=guard or Guard("always"), stored=stored,
    )  # fmt: skip
    before = _prepare(match, lowering, knobs or {}) if prepares else []
    packages = find_target(target.name)[0].kernels
    launches = (*before, *match.emit(lowering, knobs))
    sizes = {name: value.num_bytes for name, value in {**values, **stored}.items()}
    sizes |= {"num_rows": 4, WORKSPACE: match.workspace_bytes // 4 * 4, ZEROED: match.zeroed_bytes}
    memory: dict[str, Bytes] = {name: guarded(size) for name, size in sizes.items()}
    buffers = {name: torch.from_numpy(each) for name, each in memory.items()}
    for name, value in {**values, **stored}.items():
        kind = DTYPES[value.dtype]
        poison = POISON if kind.is_floating_point else UNWRITTEN
        held = buffers[name].view(kind)
        held.copy_(torch.full(held.shape, poison).to(kind))
        if name in data:
            resolve(match.view(name), buffers).copy_(torch.from_numpy(data[name]))
    count = bucket.most_rows if real is None else real
    buffers["num_rows"].view(torch.int32).fill_(count)
    buffers[WORKSPACE].view(torch.float32).fill_(POISON)
    buffers[ZEROED].zero_()
    for launch in launches:
        if isinstance(launch, HostCall):
            bind_on_cpu(launch, lambda v: resolve(v, buffers), packages)()
            continue
        source = sources.by_binary[launch.binary]
        bind = bind_interpreted if source.language == "triton" else twin
        bind(source, launch, lambda v: resolve(v, buffers))()
    require_guards(memory)
    assert not buffers[ZEROED].any(), "the zeroed workspace was not left zero"
    found = {n: resolve(match.view(n), buffers).double().numpy() for n in values}
    left = buffers[WORKSPACE].view(torch.float32).double()
    left[buffers[WORKSPACE].view(torch.int32) == -1] = POISON  # no NaN, but no pair or expert
    return found | {WORKSPACE: left.numpy()}


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """x as the dtype holds it, in f64."""
    return torch.from_numpy(x).to(DTYPES[dtype]).double().numpy()
