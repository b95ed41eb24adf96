"""Steps of V3.2's widths for the expanded forms of attention on Hopper, and what they launch.

Nothing runs; kernels are compiled where a compiler is given.
"""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.cuda.compiler import CudaCompiler
from lostwax.backends.cuda.lowerings.expanded_mha import CONTEXTS, TILES
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.lowering import Knobs, Lowering
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.check_launch import check_form
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, Guard, KernelLaunch, Linear, Segment
from lostwax.ir.contract.target import Target


class Sources:
    """A compiler that keeps what it is asked for."""

    def __init__(self) -> None:
        self.sources: dict[str, KernelSource] = {}

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        self.sources[source.symbol] = source
        return CompiledKernel(
            binary=f"{source.symbol}.cubin",
            symbol=source.symbol,
            digest="",
            num_warps=source.num_warps,
            shared_bytes=0,
            registers=0,
        )

    def toolchain(self) -> dict[str, str]:
        return {}


def match_of(
    folder: Path,
    layout: str = "fp8_656",
    rows: int = 2048,
    heads: int = 128,
    reqs: int = 128,
    guard: Guard | None = None,
    segment: Segment = "extend",
    target: Target = CUDA_SM90A,
    compiler: CudaCompiler | Sources | None = None,
    top: int = 0,
    pages: int = 32,
) -> PlainMatch:
    """A step of requests of at most 64 positions a page, together at most four times the rows.

    With `top` rows select so many of them.
    """
    width, query = row_bytes(layout, (512, 64)), (heads * 192, 192, 1)
    cache = Value((4000, 64, width), "u8", parts=(512, 64), layout=layout)
    if layout == "bf16":
        cache = Value((4000, 64, 576), "bf16", parts=(512, 64))
    values = {
        "q_nope": Value((rows, heads, 128), "bf16", query),
        "q_pe": Value((rows, heads, 64), "bf16", query),
        "kv_b": Value((heads * 256, 512), "bf16"),
        "cache_in": cache,
        "positions": Value((rows,), "i32"),
        "q_starts": Value((reqs + 1,), "i32"),
        "page_table": Value((reqs, pages), "i32"),
        "op.out": Value((rows, heads * 128), "bf16"),
        CONTEXTS: Value((reqs + 1,), "i32"),
        TILES: Value((1 + (rows + 127 * reqs) // 128, 8), "i32"),
    }
    if top:
        values["selection"] = Value((rows, top), "i32")
    guard = guard or Guard("few", (Linear({"total_kv": 1}, 4 * rows),), selects_all=not top)
    scale = {("op", "scale"): 0.1}
    made = compiler or Sources()
    bucket = Bucket(rows, reqs, pages)
    return PlainMatch(target, bucket, values, scale, made, folder, segment=segment, guard=guard)


def launches_of(
    lowering: Lowering, match: PlainMatch, knobs: Knobs | None = None
) -> list[KernelLaunch]:
    """What runs once a step, then once a layer; each such as the target takes."""
    chosen = lowering.default_knobs() | dict(knobs or {})
    launches = match.emit(lowering, chosen)
    (kernel,) = lowering.prepare(match, chosen)
    outputs = {name: match.view(name) for name in (CONTEXTS, TILES)}
    first = step_launch(kernel, match.step_input, outputs, match.build, match.target)
    listed = [each for each in (first, *launches) if isinstance(each, KernelLaunch)]
    assert len(listed) == 1 + len(launches)
    for launch in listed:
        check_form(launch, match.target)
    return listed
