"""Steps of the indexer's logits over paged keys, fp8 or bf16, and launches of Hopper's lowerings
over them on the CPU, by fibers (`twin_launches.py`). What is so run is never called executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import ml_dtypes
import msgspec
import numpy as np
from guarded_buffers import NOTHING_HERE, Bytes, guarded
from numpy.typing import NDArray

from lostwax.backends.cuda.lowerings.index_logits import (
    BF16_INDEX_LOGITS,
    FP8_INDEX_LOGITS,
    index_launch,
    list_tiles,
)
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.lowerings.index_logits import RowTile
from lostwax.backends.kernel_compiler import KernelCompiler
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.program import Bucket, KernelLaunch, Launch
from lostwax.ir.contract.scale_layout import FP8_ROW_BLOCKS

HEADS, DIM, PAGE, PAGES = 64, 128, 64, 5
SCALE = 0.3
Keys = Literal["fp8", "bf16"]
BOUND = 1e-5  # of |logits|: f32 sums of exact products
Real = NDArray[np.float64]
STORED: dict[Keys, type[np.generic]] = {"fp8": ml_dtypes.float8_e4m3fn, "bf16": ml_dtypes.bfloat16}
RAGGED = [(0, 1), (130, 11), (0, 0), (255, 2), (20, 3), (60, 9)]
"""Without a row, of one, of more than a tile; positions on both sides of a page's border."""


@dataclass
class Step:
    """`requests` of (cached prefix, new rows), then padding. What no request has is NaN. Keys and
    queries are `stored` as fp8 with scales, or as bf16 without."""

    requests: list[tuple[int, int]]
    padding: int = 3
    reqs: int = 0
    unreal: int = 0  # rows at the end of the last request that are not real
    stored: Keys = "fp8"
    out_of_range: tuple[int, int] | None = None  # request and position of a key of NaN that is seen
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def __post_init__(self) -> None:
        self.reqs = max(self.reqs, len(self.requests))
        new = [count for _, count in self.requests]
        rows = sum(new)
        self.real, self.rows = rows - self.unreal, rows + self.padding
        starts = np.concatenate([[0], np.cumsum(new)])
        self.q_starts = np.full(self.reqs + 1, rows, np.int32)
        self.q_starts[: len(starts)] = starts
        self.positions = np.full(self.rows, -1, np.int32)
        for b, (prefix, count) in enumerate(self.requests):
            self.positions[starts[b] : starts[b + 1]] = prefix + np.arange(count)
        numbers = 1 + self.rng.permutation(self.reqs * PAGES)
        self.page_table = numbers.reshape(self.reqs, PAGES).astype(np.int32)
        kind, pool, scaled = STORED[self.stored], 1 + self.reqs * PAGES, self.stored == "fp8"
        keys = self.rng.standard_normal((pool, PAGE, DIM)).astype(kind)
        if self.out_of_range is not None:
            request, position = self.out_of_range
            keys[self.page_table[request, position // PAGE], position % PAGE, 7] = np.nan
        scales = self.rng.uniform(0.1, 1, (pool, PAGE)).astype(np.float32) ** scaled
        self.keys = keys.astype(np.float64) * scales[:, :, None]
        row_bytes = DIM * keys.itemsize
        self.cache = np.full((pool, PAGE * (row_bytes + 4 * scaled)), NOTHING_HERE, np.uint8)
        for b, (prefix, count) in enumerate(self.requests):
            for s in range(prefix + count):
                page, at = self.page_table[b, s // PAGE], s % PAGE
                self.cache[page, at * row_bytes : (at + 1) * row_bytes] = keys[page, at].view(
                    np.uint8
                )
                first = PAGE * row_bytes + 4 * at
                if scaled:
                    self.cache[page, first : first + 4] = scales[page, at : at + 1].view(np.uint8)
        self.q = self.rng.standard_normal((self.rows, HEADS, DIM)).astype(kind)
        self.q_scale = self.rng.uniform(0.5, 2, (self.rows, HEADS)).astype(np.float32) ** scaled
        self.weights = self.rng.standard_normal((self.rows, HEADS)).astype(np.float32)
        self.q[rows:], self.q_scale[rows:], self.weights[rows:] = np.nan, np.nan, np.nan

    def expected(self) -> Real:
        """[real rows, columns]."""
        out = np.full((self.real, PAGES * PAGE), -np.inf)
        for b in range(len(self.requests)):
            keys = self.keys[self.page_table[b]].reshape(-1, DIM)
            for row in range(self.q_starts[b], min(self.q_starts[b + 1], self.real)):
                seen = self.positions[row] + 1
                query = self.q[row].astype(np.float64) * self.q_scale[row][:, None]
                scores = np.maximum(query @ keys[:seen].T, 0)
                out[row, :seen] = SCALE * self.weights[row].astype(np.float64) @ scores
        return out


class Machine(KernelCompiler, Protocol):
    """Compiles kernels; runs their launches (`twin_launches.Twins`), or keeps them."""

    def run(self, launch: KernelLaunch, buffers: dict[str, Bytes]) -> None:
        """One launch over the buffers that its views name."""
        ...


def score(
    step: Step, machine: Machine, folder: Path, units: int = 3, at_once: int = 0, **knobs: int
) -> Real:
    """[rows, columns] of the launches, for all rows or so many at once; what they leave alone is
    NaN."""
    queries, pool = (step.rows, HEADS, DIM), step.cache.shape[0]
    of_keys = {
        "q": Value(queries, "bf16"),
        "cache_in": Value((pool, PAGE, DIM), "bf16", parts=(DIM,)),
    }
    if step.stored == "fp8":
        of_keys = {
            "q": Value(queries, "f8E4M3FN", scale=FP8_ROW_BLOCKS),
            "q:scale": Value((step.rows, HEADS, 1), "f32"),
            "cache_in": Value(step.cache.shape, "u8", parts=(DIM,), layout="index_paged"),
        }
    values = of_keys | {
        "weights": Value((step.rows, HEADS), "f32"),
        "positions": Value((step.rows,), "i32"),
        "q_starts": Value((step.reqs + 1,), "i32"),
        "num_rows": Value((1,), "i32"),
        "page_table": Value((step.reqs, PAGES), "i32"),
        "op.out": Value((step.rows, PAGES * PAGE), "f32"),
    }
    target = msgspec.structs.replace(CUDA_SM90A, compute_units=units)
    bucket = Bucket(step.rows, step.reqs, PAGES)
    match = PlainMatch(target, bucket, values, {("op", "scale"): SCALE}, machine, folder)
    lowering = FP8_INDEX_LOGITS if step.stored == "fp8" else BF16_INDEX_LOGITS
    assert lowering.when.refusal(match) is None
    chosen = lowering.default_knobs() | knobs
    each = at_once or step.rows
    tiles = [RowTile(at, min(each, step.rows - at)) for at in range(0, step.rows, each)]
    kernels = [list_tiles(match, chosen, tile) for tile in tiles]
    for name, kind, shape in (output for kernel in kernels for output in kernel.outputs):
        values[name] = Value(shape, kind)
    given = {
        "q": step.q, "q:scale": step.q_scale, "weights": step.weights, "cache_in": step.cache,
        "positions": step.positions, "q_starts": step.q_starts, "page_table": step.page_table,
        "num_rows": np.array([step.real], np.int32),
    }  # fmt: skip
    buffers: dict[str, Bytes] = {name: guarded(value.num_bytes) for name, value in values.items()}
    for name, value in ((n, v) for n, v in given.items() if n in buffers):
        buffers[name][:] = np.ascontiguousarray(value).view(np.uint8).flatten()
    for tile, kernel in zip(tiles, kernels, strict=True):
        outputs = {name: match.view(name) for name, _, _ in kernel.outputs}
        out = match.view("op.out")
        part = msgspec.structs.replace(
            out, shape=(tile.count, out.shape[1]), offset=4 * tile.first * out.strides[0]
        )
        made = step_launch(kernel, match.step_input, outputs, match.build, target)
        machine.run(_kernel(made), buffers)
        machine.run(index_launch(match, chosen, part, tile, SCALE, "logits"), buffers)
    return buffers["op.out"].view(np.float32).reshape(step.rows, -1).astype(np.float64)


def _kernel(launch: Launch) -> KernelLaunch:
    assert isinstance(launch, KernelLaunch)
    return launch


def require_right(step: Step, got: Real) -> None:
    """AssertionError unless each real row is the reference's, and no other was written."""
    want = step.expected()
    assert (np.isnan(got[: step.real]) == np.isnan(want)).all(), "a key of NaN has no logit"
    seen = want > -np.inf
    is_hidden = want == -np.inf
    assert (got[: step.real][is_hidden] == -np.inf).all(), "what a row does not see is -inf"
    off = np.linalg.norm(got[: step.real][seen] - want[seen]) / np.linalg.norm(want[seen])
    assert off <= BOUND, off
    assert np.isnan(got[step.real :]).all(), "rows behind the real ones are left alone"
