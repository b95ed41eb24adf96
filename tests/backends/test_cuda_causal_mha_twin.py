"""Expanded causal attention for Hopper: the launches of its lowering, run on the CPU by fibers.

Matrix instructions and tensor maps are the twin's (cuda_twin/hopper.h): what is proven is which
numbers meet, over ragged steps, against the fp64 reference of the region.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import pytest
from guarded_buffers import NOTHING_HERE, Bytes, guarded
from latent_rows import LATENT, ROPE, encode
from numpy.typing import NDArray
from twin_launches import Twins

from lostwax.backends.cuda.lowerings.causal_mha import CAUSAL_MHA, CONTEXTS, TILES
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
Real = NDArray[np.float64]


@dataclass
class Step:
    """`requests` of (cached prefix, new tokens), then padding. What no request has is NaN."""

    requests: list[tuple[int, int]]
    layout: str = "bf16"
    heads: int = 1
    reqs: int = 0  # of the bucket, where it has more
    together: int = 640  # the guard's bound of all contexts
    pages: int = 8
    large: float = 1.0
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
                    seen = prefix + i + 1
                    score = query[self.q_starts[b] + i, h] @ keys[:seen].T * SCALE
                    weight = np.exp(score - score.max())
                    out[self.q_starts[b] + i, h] = weight / weight.sum() @ values[:seen]
        return out


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
        CONTEXTS: Value((step.reqs + 1,), "i32"),
        TILES: Value((1 + tiles, 8), "i32"),
    }
    guard = Guard("few", (Linear({"total_kv": 1}, step.together),), selects_all=True)
    target = msgspec.structs.replace(CUDA_SM90A, compute_units=3)
    bucket = Bucket(ROWS, step.reqs, step.pages)
    scale = {("op", "scale"): SCALE}
    return PlainMatch(target, bucket, values, scale, twins, folder, segment="extend", guard=guard)


def attend(step: Step, twins: Twins, folder: Path, knobs: Knobs | None = None) -> Real:
    """[rows, heads, 128] of the launches; what they leave alone is NaN."""
    match = match_of(step, twins, folder)
    chosen = CAUSAL_MHA.default_knobs() | dict(knobs or {})
    launches = match.emit(CAUSAL_MHA, chosen)
    buffers: dict[str, Bytes] = {
        name: guarded(value.num_bytes) for name, value in match.values.items()
    }
    buffers[WORKSPACE] = guarded(match.workspace_bytes)
    query = np.ascontiguousarray(step.query)
    given = {
        "q_nope": query, "q_pe": query.view(np.uint8).flatten()[256:], "kv_b": step.kv_b,
        "cache_in": step.cache, "positions": step.positions, "q_starts": step.q_starts,
        "page_table": step.page_table,
    }  # fmt: skip
    for name, value in given.items():
        stored = np.ascontiguousarray(value).view(np.uint8).flatten()
        buffers[name] = guarded(max(stored.size, match.values[name].num_bytes))
        buffers[name][: stored.size] = stored
    (kernel,) = CAUSAL_MHA.prepare(match, chosen)
    outputs = {name: match.view(name) for name in (CONTEXTS, TILES)}
    first = step_launch(kernel, match.step_input, outputs, match.build, match.target)
    for launch in (first, *launches):
        assert isinstance(launch, KernelLaunch)
        twins.run(launch, buffers)
    out = buffers["op.out"].view(ml_dtypes.bfloat16).reshape(ROWS, step.heads, 128)
    return out.astype(np.float64)


def require_right(step: Step, got: Real, bound: float = BOUND) -> None:
    want = step.expected()
    off = np.linalg.norm(got[: step.real] - want, axis=2) / np.linalg.norm(want, axis=2)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)
    assert off[worst] <= bound, (worst, off[worst])
    assert np.median(off) <= MEDIAN, np.median(off)
    assert np.isnan(got[step.real :]).all(), "rows behind the real ones are left alone"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """Kernels by what they are compiled for."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to run the kernels' sources on the CPU")
    return Twins(tmp_path_factory.mktemp("twin"))


def test_one_request_from_its_first_token(twins: Twins, tmp_path: Path) -> None:
    """Two query tiles, the first ends at a border of keys, the second inside a tile of them."""
    step = Step([(0, 200)])
    require_right(step, attend(step, twins, tmp_path))


@pytest.mark.parametrize("layout", ["bf16", "fp8_656", "fp8_576"])
def test_requests_of_any_length_behind_a_cached_prefix(
    twins: Twins, tmp_path: Path, layout: str
) -> None:
    """One row and many, without a row, without a prefix; the bucket has more requests."""
    step = Step([(0, 1), (70, 130), (0, 0), (257, 3), (0, 64)], layout, heads=2, reqs=7)
    require_right(step, attend(step, twins, tmp_path))


@pytest.mark.parametrize("keys", [128, 96, 64])
@pytest.mark.parametrize("take_turns", [0, 1])
def test_every_tile_of_keys(twins: Twins, tmp_path: Path, keys: int, take_turns: int) -> None:
    """A prefix that no tile ends at, and a tile of queries that a border of keys lies inside of."""
    step = Step([(130, 150), (0, 20)])
    knobs = {"keys": keys, "take_turns": take_turns}
    require_right(step, attend(step, twins, tmp_path, knobs))


def test_whole_tiles_and_a_workspace_without_room_behind(twins: Twins, tmp_path: Path) -> None:
    step = Step([(128, 128), (0, 128)], together=384)
    require_right(step, attend(step, twins, tmp_path))


def test_heads_a_few_at_a_time(twins: Twins, tmp_path: Path) -> None:
    """The last group has fewer; of the others each has more tiles than CTAs, which draw them."""
    step = Step([(40, 90), (0, 9)], heads=5)
    require_right(step, attend(step, twins, tmp_path, {"heads_at_once": 2}))


def test_large_scores(twins: Twins, tmp_path: Path) -> None:
    """Scores of 100, the later ones far above those before: keys are rounded to bf16."""
    step = Step([(60, 100)], large=6.0)
    require_right(step, attend(step, twins, tmp_path), bound=5e-2)


def test_a_request_of_nan_reaches_no_other(twins: Twins, tmp_path: Path) -> None:
    """Its latents lie beside its neighbours' in the workspace, in the same tiles."""
    step = Step([(10, 40), (30, 60), (0, 50)], "fp8_576")
    step.cache[step.slots(1, 90)] = NOTHING_HERE
    got = attend(step, twins, tmp_path)
    want = step.expected()
    own = np.r_[0:40, 100:150]
    off = np.linalg.norm(got[own] - want[own]) / np.linalg.norm(want[own])
    assert off <= BOUND
    assert np.isnan(got[40:100]).all()


def test_no_row_has_a_token(twins: Twins, tmp_path: Path) -> None:
    step = Step([(0, 0)], reqs=2)
    assert np.isnan(attend(step, twins, tmp_path)).all()


def test_more_heads_than_are_under_way_at_once(twins: Twins, tmp_path: Path) -> None:
    """Of two tiles and three CTAs two heads at a time; of five heads the last is alone."""
    step = Step([(0, 70), (20, 30)], heads=5)
    require_right(step, attend(step, twins, tmp_path))
