"""Steps of the indexer's logits over paged keys, fp8 or bf16, and launches of Hopper's lowerings
over them on the CPU, by fibers (`twin_launches.py`). What is so run is never called executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import ml_dtypes
import msgspec
import numpy as np
from guarded_buffers import NOTHING_HERE, Bytes, guarded
from numpy.typing import NDArray

from lostwax.backends.cuda.lowerings.index_logits import (
    BF16_INDEX_LOGITS,
    FORMS,
    FP8_INDEX_LOGITS,
    index_launch,
    list_tiles,
)
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.lowerings.index_logits import RowTile
from lostwax.backends.kernel_compiler import KernelCompiler
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.ir.contract.program import Bucket, KernelLaunch
from lostwax.ir.contract.scale_layout import FP8_ROW_BLOCKS

HEADS, DIM, PAGE, PAGES = 64, 128, 64, 5
SCALE = 0.3
Keys = Literal["fp8", "bf16"]
BOUND = 1e-5  # of |logits|: f32 sums of exact products
Real = NDArray[np.float64]
STORED: dict[Keys, type[np.generic]] = {"fp8": ml_dtypes.float8_e4m3fn, "bf16": ml_dtypes.bfloat16}
MANY = [(b % 70, 20) for b in range(52)]
"""More requests than a warp has threads, and with tiles of a row more tiles than a CTA has."""
LONG = [(2200, 1), (5, 1)]
"""By one unit more pages of a tile than its warp holds numbers; behind a short row more columns
than are filled at once."""
LONG_PAGES = 65
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
    pages: int = PAGES  # of a request at most
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
        numbers = 1 + self.rng.permutation(self.reqs * self.pages)
        self.page_table = numbers.reshape(self.reqs, self.pages).astype(np.int32)
        kind, pool, scaled = STORED[self.stored], 1 + self.reqs * self.pages, self.stored == "fp8"
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
        out = np.full((self.real, self.pages * PAGE), -np.inf)
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


class Launched:
    """Launches over one step's buffers, for all rows or `at_once` at a time.

    What lists them has run before over a step of all rows: no list is empty because nobody wrote
    it.
    """

    def __init__(
        self, step: Step, machine: Machine, folder: Path, units: int = 3, at_once: int = 0,
        **knobs: int,
    ) -> None:  # fmt: skip
        self._machine = machine
        values = _values(step)
        target = msgspec.structs.replace(CUDA_SM90A, compute_units=units)
        bucket = Bucket(step.rows, step.reqs, step.pages)
        scale = {("op", "scale"): SCALE}
        self._match = PlainMatch(target, bucket, values, scale, machine, folder)
        lowering = FP8_INDEX_LOGITS if step.stored == "fp8" else BF16_INDEX_LOGITS
        assert lowering.when.refusal(self._match) is None
        self._chosen = lowering.default_knobs() | knobs
        each = at_once or step.rows
        self._tiles = [RowTile(at, min(each, step.rows - at)) for at in range(0, step.rows, each)]
        self._kernels = [list_tiles(self._match, self._chosen, tile) for tile in self._tiles]
        for name, kind, shape in (output for each in self._kernels for output in each.outputs):
            values[name] = Value(shape, kind)
        self._buffers: dict[str, Bytes] = {n: guarded(v.num_bytes) for n, v in values.items()}
        every = np.full(step.reqs + 1, step.rows, np.int32)
        every[0] = 0
        self._give(
            positions=np.arange(step.rows, dtype=np.int32), q_starts=every,
            num_rows=np.array([step.rows], np.int32),
        )  # fmt: skip
        self._list()
        self._give(
            q=step.q, weights=step.weights, cache_in=step.cache, positions=step.positions,
            q_starts=step.q_starts, page_table=step.page_table,
            num_rows=np.array([step.real], np.int32),
        )  # fmt: skip
        if step.stored == "fp8":
            self._give(**{"q:scale": step.q_scale})
        self._list()

    def lists(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Of the first rows at once: [tiles, (row, rows, request, pages)] and where each CTA
        begins [units + 1, (tile, page)]."""
        tiles, starts = (
            self._buffers[name].view(np.int32).reshape(shape)
            for name, _, shape in self._kernels[0].outputs
        )
        return tiles, starts

    def logits(self) -> Real:
        """[rows, columns]; what the launches leave alone is NaN."""
        out = self._match.view("op.out")
        for tile in self._tiles:
            part = msgspec.structs.replace(
                out, shape=(tile.count, out.shape[1]), offset=4 * tile.first * out.strides[0]
            )
            made = index_launch(self._match, self._chosen, part, tile, SCALE, "logits")
            self._machine.run(made, self._buffers)
        return self._buffers["op.out"].view(np.float32).reshape(out.shape).astype(np.float64)

    def _give(self, **given: NDArray[Any]) -> None:
        for name, value in given.items():
            self._buffers[name][:] = np.ascontiguousarray(value).view(np.uint8).flatten()

    def _list(self) -> None:
        match = self._match
        for kernel in self._kernels:
            outputs = {name: match.view(name) for name, _, _ in kernel.outputs}
            made = step_launch(kernel, match.step_input, outputs, match.build, match.target)
            assert isinstance(made, KernelLaunch)
            self._machine.run(made, self._buffers)


def _values(step: Step) -> dict[str, Value]:
    """What the launches are given, and where they write."""
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
    return of_keys | {
        "weights": Value((step.rows, HEADS), "f32"),
        "positions": Value((step.rows,), "i32"),
        "q_starts": Value((step.reqs + 1,), "i32"),
        "num_rows": Value((1,), "i32"),
        "page_table": Value((step.reqs, step.pages), "i32"),
        "op.out": Value((step.rows, step.pages * PAGE), "f32"),
    }


def score(
    step: Step, machine: Machine, folder: Path, units: int = 3, at_once: int = 0, **knobs: int
) -> Real:
    """[rows, columns] of the launches, for all rows or so many at once; what they leave alone is
    NaN."""
    return Launched(step, machine, folder, units, at_once, **knobs).logits()


def require_listed(
    step: Step, machine: Machine, folder: Path, units: int = 3, **knobs: int
) -> None:
    """AssertionError unless the lists are those of plain loops; keys are not read."""
    tiles, starts = Launched(step, machine, folder, units, **knobs).lists()
    each = FORMS[knobs["form"] - 1].rows
    want: list[tuple[int, int, int, int]] = []
    for b in range(step.reqs):
        first, end = (min(int(at), step.real) for at in step.q_starts[b : b + 2])
        for row in range(first, end, each):
            rows = min(each, end - row)
            seen = int(step.positions[row : row + rows].max()) + 1
            want.append((row, rows, b, -(-seen // PAGE)))
    assert tiles[: len(want)].tolist() == [list(tile) for tile in want]
    pages = [(t, page) for t, tile in enumerate(want) for page in range(tile[3])]
    behind = (len(want), 0)
    begins = [pages[c * len(pages) // units] if pages else behind for c in range(units)]
    assert starts.tolist() == [list(at) for at in (*begins, behind)]


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
