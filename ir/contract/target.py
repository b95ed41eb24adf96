"""Facts about a device. Code asks facts, never names. Knows no driver and no compiler."""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.ir.contract.bounds import Bytes, Count, Rate, Some, Word

Replay = Literal["walk", "graph", "none"]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen record of facts about one kind of device.

    `memory_bytes` is what the smallest device of the kind has, `bandwidth_gbps` gigabytes per
    second of that memory, `tflops` dense matrix rate per dtype name (as in `View.dtype`),
    `launch_us` the cost of one launch inside a replay. `replay` says how a program runs: `walk` the
    launch list on the host, `graph` as one captured device graph for the segments in
    `graph_segments` and for prefill steps of up to `graph_extend_rows`, or `none` (plans only).
    """

    name: Word
    backend: Word
    arch: Word
    dtypes: tuple[Word, ...]
    memory_bytes: Bytes
    bandwidth_gbps: Rate
    tflops: dict[Word, Rate]
    launch_us: Rate
    compute_units: Count
    replay: Replay
    matrix_units: tuple[Word, ...] = ()
    shared_memory_bytes: Bytes = 0
    wave_size: Count = 1
    fp8_encoding: Literal["f8E4M3FN", "f8E4M3FNUZ"] | None = None
    graph_segments: tuple[Word, ...] = ()
    graph_extend_rows: Some = 0
    """Rows of the largest prefill step that is captured where all its launches can be: such steps
    come between the tokens of streams, and walking them takes the host several times what the
    device needs. Larger ones keep the device busy while they are walked."""
    cluster_blocks: Count = 1
    """Most blocks of threads that may share memory and barriers; 1 where there are no clusters."""
    tensor_maps: bool = False
    """True where kernels take tensor maps, which the driver library encodes."""
    programmatic_launch: bool = False
    """True where a kernel may begin before the one in front of it has ended."""
    cooperative_launch: bool = False
    """True where a launch can ask that all its blocks be resident at once."""
    library_bytes: Bytes = 0
    """What device libraries keep for themselves, such as cuBLAS's workspace."""
    wide_products: bool = False
    """True where torch's products of half precision can leave in f32 (their `out_dtype`)."""
    parts_apart: bool = False
    """True where kernels read each part of a cached row from a tensor of its own."""
    host_memory: bool = False
    """True where the host reads device buffers directly."""

    def __post_init__(self) -> None:
        if self.memory_bytes < 1:
            raise ValueError(
                f"Target {self.name!r} has {self.memory_bytes} bytes of memory; give what its"
                f" smallest device has in backends/{self.backend}/target.py"
            )
        missing = [d for d in self.tflops if d not in self.dtypes]
        if missing:
            raise ValueError(
                f"Target {self.name!r} gives a rate for {missing[0]!r}, which is not in its dtypes;"
                f" add it in backends/{self.backend}/target.py"
            )
        if self.replay == "graph" and not self.graph_segments:
            raise ValueError(f"Target {self.name!r} replays graphs but names no graph_segments")
