"""Steps for the expanded forms of attention on Hopper, and their launches run on the CPU by fibers.

Matrix instructions and tensor maps are the twin's (backends/cuda_twin/hopper.h).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
from guarded_buffers import ALIGN, NOTHING_HERE, Bytes, fenced, guarded
from latent_rows import LATENT, ROPE, encode
from numpy.typing import NDArray
from twin_launches import Twins

from lostwax.backends.cuda.lowerings.causal_mha import CAUSAL_MHA
from lostwax.backends.cuda.lowerings.expanded_mha import CONTEXTS, TILES
from lostwax.backends.cuda.lowerings.masked_mha import MASKED_MHA
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.lowering import Knobs
from lostwax.backends.plan.step_launch import step_launch
from lostwax.backends.proof.plain_match import WORKSPACE, PlainMatch, Value
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.program import Bucket, Guard, KernelLaunch, Linear

PAGE = 64
ROWS = 256  # of the bucket
BOUND, MEDIAN = 1e-2, 4e-3  # |out - reference| / |reference| of rows: the worst, half of them
SCALE = 0.1
NOWHERE = 1 << 30  # what rows without a token have selected: no position
Real = NDArray[np.float64]


@dataclass
class Step:
    """`requests` of (cached prefix, new tokens), then padding. What no request has is NaN.

    With `top` each row selects so many of the positions that it sees, at random.
    """

    requests: list[tuple[int, int]]
    layout: str = "bf16"
    heads: int = 1
    reqs: int = 0  # of the bucket, where it has more
    together: int = 640  # the guard's bound of all contexts
    pages: int = 8
    large: float = 1.0
    top: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def __post_init__(self) -> None:
        self.reqs = max(self.reqs, len(self.requests))
        new = [count for _, count in self.requests]
        self.real = sum(new)
        starts = np.concatenate([[0], np.cumsum(new)])
        self.q_starts = np.full(self.reqs + 1, self.real, np.int32)
        self.q_starts[: len(starts)] = starts
        self.positions = np.full(ROWS, -1, np.int32)
        for b, (prefix, count) in enumerate(self.requests):
            self.positions[starts[b] : starts[b + 1]] = prefix + np.arange(count)
        numbers = 1 + self.rng.permutation(self.reqs * self.pages)
        self.page_table = numbers.reshape(self.reqs, self.pages).astype(np.int32)
        pool = (1 + self.reqs * self.pages) * PAGE
        self.cache = np.full((pool, row_bytes(self.layout, (LATENT, ROPE))), NOTHING_HERE, np.uint8)
        self.wide = np.full((pool, LATENT + ROPE), np.nan)
        for b, (prefix, count) in enumerate(self.requests):
            slots = self.slots(b, prefix + count)
            latent = self.rng.standard_normal((len(slots), LATENT))
            rope = self.rng.standard_normal((len(slots), ROPE))
            if len(slots):
                self.cache[slots], self.wide[slots] = encode(self.layout, latent, rope)
        bf16 = ml_dtypes.bfloat16
        self.query = (self.rng.standard_normal((ROWS, self.heads, 192)) * self.large).astype(bf16)
        self.query[self.real :] = np.nan
        kv_b = self.rng.standard_normal((self.heads * 256, LATENT)) / LATENT**0.5
        self.kv_b = kv_b.astype(bf16)
        self.selection = np.full((ROWS, max(self.top, 1)), NOWHERE, np.int32)
        for row, position in enumerate(self.positions[: self.real]):
            chosen = np.sort(self.rng.permutation(position + 1)[: self.top])
            self.selection[row] = -1
            self.selection[row, : len(chosen)] = chosen

    def slots(self, request: int, length: int) -> NDArray[np.int64]:
        """Where a request's positions lie."""
        chosen = np.arange(length)
        return self.page_table[request][chosen // PAGE].astype(np.int64) * PAGE + chosen % PAGE

    def expected(self) -> Real:
        """[real rows, heads, 128]."""
        out = np.zeros((self.real, self.heads, 128))
        query, kv_b = self.query.astype(np.float64), self.kv_b.astype(np.float64)
        for b, (prefix, count) in enumerate(self.requests):
            cached = self.wide[self.slots(b, prefix + count)]
            for h in range(self.heads):
                part = kv_b[h * 256 : (h + 1) * 256]
                keys = np.concatenate([cached[:, :LATENT] @ part[:128].T, cached[:, LATENT:]], 1)
                values = cached[:, :LATENT] @ part[128:].T
                for i in range(count):
                    seen = self.seen(self.q_starts[b] + i)
                    if len(seen):
                        score = query[self.q_starts[b] + i, h] @ keys[seen].T * SCALE
                        weight = np.exp(score - score.max())
                        out[self.q_starts[b] + i, h] = weight / weight.sum() @ values[seen]
        return out

    def seen(self, row: int) -> NDArray[np.int64]:
        """Positions that a row attends to, each once."""
        if not self.top:
            return np.arange(self.positions[row] + 1)
        selected = self.selection[row]
        return np.unique(selected[selected >= 0])


def match_of(step: Step, twins: Twins, folder: Path) -> PlainMatch:
    """The step's values for the lowering, on a device of three units."""
    heads, width = step.heads, row_bytes(step.layout, (LATENT, ROPE))
    pool, query = 1 + step.reqs * step.pages, (heads * 192, 192, 1)
    cache = Value((pool, PAGE, width), "u8", parts=(LATENT, ROPE), layout=step.layout)
    if step.layout == "bf16":
        cache = Value((pool, PAGE, LATENT + ROPE), "bf16", parts=(LATENT, ROPE))
    tiles = (ROWS + 127 * step.reqs) // 128
    values = {
        "q_nope": Value((ROWS, heads, 128), "bf16", query),
        "q_pe": Value((ROWS, heads, 64), "bf16", query),
        "kv_b": Value((heads * 256, LATENT), "bf16"),
        "cache_in": cache,
        "positions": Value((ROWS,), "i32"),
        "q_starts": Value((step.reqs + 1,), "i32"),
        "page_table": Value((step.reqs, step.pages), "i32"),
        "op.out": Value((ROWS, heads * 128), "bf16"),
        "selection": Value((ROWS, max(step.top, 1)), "i32"),
        CONTEXTS: Value((step.reqs + 1,), "i32"),
        TILES: Value((1 + tiles, 8), "i32"),
    }
    guard = Guard("few", (Linear({"total_kv": 1}, step.together),), selects_all=not step.top)
    target = msgspec.structs.replace(CUDA_SM90A, compute_units=3)
    bucket = Bucket(ROWS, step.reqs, step.pages)
    scale = {("op", "scale"): SCALE}
    return PlainMatch(target, bucket, values, scale, twins, folder, segment="extend", guard=guard)


def attend(step: Step, twins: Twins, folder: Path, knobs: Knobs | None = None) -> Real:
    """[rows, heads, 128] of the launches; what they leave alone is NaN. A read behind the workspace
    ends the process."""
    match = match_of(step, twins, folder)
    lowering = MASKED_MHA if step.top else CAUSAL_MHA
    chosen = lowering.default_knobs() | dict(knobs or {})
    launches = match.emit(lowering, chosen)
    buffers: dict[str, Bytes] = {
        name: guarded(value.num_bytes) for name, value in match.values.items()
    }
    # Rounded up as it is taken: what the launches carve out last, the bits, end at the fence.
    buffers[WORKSPACE] = fenced(-(-match.workspace_bytes // ALIGN) * ALIGN)
    query = np.ascontiguousarray(step.query)
    given = {
        "q_nope": query, "q_pe": query.view(np.uint8).flatten()[256:], "kv_b": step.kv_b,
        "cache_in": step.cache, "positions": step.positions, "q_starts": step.q_starts,
        "page_table": step.page_table, "selection": step.selection,
        "num_rows": np.array([step.real], np.int32),
    }  # fmt: skip
    for name, value in given.items():
        stored = np.ascontiguousarray(value).view(np.uint8).flatten()
        size = match.values[name].num_bytes if name in match.values else 0
        buffers[name] = guarded(max(stored.size, size))
        buffers[name][: stored.size] = stored
    (kernel,) = lowering.prepare(match, chosen)
    outputs = {name: match.view(name) for name in (CONTEXTS, TILES)}
    first = step_launch(kernel, match.step_input, outputs, match.build, match.target)
    # Lists of another step lie there: none is empty because nobody wrote it.
    every = np.full(step.reqs + 1, ROWS, np.int32)
    every[0] = 0
    earlier = {"positions": np.arange(ROWS, dtype=np.int32), "q_starts": every}
    assert isinstance(first, KernelLaunch)
    twins.run(first, buffers | {name: _held(value) for name, value in earlier.items()})
    for launch in (first, *launches):
        assert isinstance(launch, KernelLaunch)
        twins.run(launch, buffers)
    out = buffers["op.out"].view(ml_dtypes.bfloat16).reshape(ROWS, step.heads, 128)
    return out.astype(np.float64)


def _held(value: NDArray[np.int32]) -> Bytes:
    buffer = guarded(value.nbytes)
    buffer[:] = value.view(np.uint8)
    return buffer


def require_right(step: Step, got: Real, bound: float = BOUND) -> None:
    want = step.expected()
    size = np.maximum(np.linalg.norm(want, axis=2), 1e-30)  # of a row with nothing selected 0
    off = np.linalg.norm(got[: step.real] - want, axis=2) / size
    worst = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)
    assert off[worst] <= bound, (worst, off[worst])
    assert np.median(off) <= MEDIAN, np.median(off)
    assert np.isnan(got[step.real :]).all(), "rows behind the real ones are left alone"
