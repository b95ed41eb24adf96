"""The sparse MLA kernel's own source, run on the CPU by fibers, against the op's reference.

Matrix instructions are the twin's (cuda_twin/hopper.h): what is proven is which numbers meet.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from guarded_buffers import NOTHING_HERE, Bytes, guarded, require_guards
from latent_rows import LATENT, ROPE, encode
from numpy.typing import NDArray
from twin_launches import twin_function

import lostwax.backends.cuda.kernels
from lostwax.backends.cuda.lowerings.sparse_mla import SparseForm
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.kernel import SHARED_BYTES

TWIN = Path(__file__).parent / "cuda_twin"
KERNELS = Path(lostwax.backends.cuda.kernels.__file__).parent
PAGE = 64
BOUND = 6e-3  # of bf16 results

Real = NDArray[np.float64]


class Given(ctypes.Structure):
    """The kernel's parameters, in order."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "query", "rope", "cache", "selection", "positions", "q_starts", "page_table",
            "num_rows", "out",
        )),
        *((name, ctypes.c_longlong) for name in (
            "selection_stride", "rope_row_stride", "rope_head_stride", "page_bytes",
            "page_table_stride",
        )),
        *((name, ctypes.c_int) for name in ("rows", "heads", "keys", "reqs", "splits")),
        ("scale", ctypes.c_float),
    ]  # fmt: skip


@dataclass
class Step:
    """A few rows over scattered pages; what no row selects is NaN, the trash page, too."""

    layout: str
    heads: int
    selection: NDArray[np.int32]
    positions: list[int]
    q_starts: list[int]
    num_rows: int
    pages: int = 8
    large: float = 1.0
    dense: bool = False
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __post_init__(self) -> None:
        reqs, rows = len(self.q_starts) - 1, len(self.positions)
        numbers = 1 + self.rng.permutation(reqs * self.pages)
        self.page_table = numbers.reshape(reqs, self.pages).astype(np.int32)
        pool = (1 + reqs * self.pages) * PAGE
        self.cache = np.full((pool, row_bytes(self.layout, (LATENT, ROPE))), NOTHING_HERE, np.uint8)
        self.wide = np.full((pool, LATENT + ROPE), np.nan)
        for row in range(self.num_rows):
            slots = self.slots(row)
            latent = self.rng.standard_normal((len(slots), LATENT))
            rope = self.rng.standard_normal((len(slots), ROPE))
            self.cache[slots], self.wide[slots] = encode(self.layout, latent, rope)
        query = self.rng.standard_normal((rows, self.heads, LATENT)) * self.large / 4
        self.query = np.ascontiguousarray(query.transpose(1, 0, 2)).astype(np.float32)
        rope = self.rng.standard_normal((rows, self.heads, 192)).astype(ml_dtypes.bfloat16)
        self.rope = rope  # the last 64 of 192, as the model's slices lie

    def slots(self, row: int) -> NDArray[np.int64]:
        """Where the row's selected keys lie."""
        request = sum(end <= row for end in self.q_starts[1:])
        chosen = np.arange(self.positions[row] + 1) if self.dense else self.selection[row]
        chosen = chosen[chosen >= 0]
        return self.page_table[request][chosen // PAGE].astype(np.int64) * PAGE + chosen % PAGE

    def expected(self, row: int, scale: float) -> Real:
        """[heads, 512]."""
        keys = self.wide[self.slots(row)]
        if not len(keys):
            return np.zeros((self.heads, LATENT))
        rope = self.rope[row, :, 128:].astype(np.float64)
        query = np.concatenate([self.query[:, row].astype(np.float64), rope], 1)
        score = query @ keys.T * scale
        weight = np.exp(score - score.max(1, keepdims=True))
        return weight / weight.sum(1, keepdims=True) @ keys[:, :LATENT]


class Libraries:
    """Shared libraries of the kernel, each compiled once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Callable[..., None]] = {}

    def of(self, form: SparseForm, dense: bool) -> Callable[..., None]:
        """The twin of one form."""
        macros = form.constants(PAGE, dense)
        assert macros[SHARED_BYTES] == form.shared_bytes
        name = "-".join([form.symbol, *map(str, macros.values())])
        if name not in self._made:
            library = self._folder / f"{name}.so"
            defines = [f"-D{n}={v}" for n, v in macros.items()]
            defines.append(f'-DMLA_SOURCE="{KERNELS / form.path}"')
            defines += [f"-DMLA_SYMBOL={form.symbol}", f"-DMLA_THREADS={form.threads}"]
            flags = ["-std=c++20", "-O2", "-w", "-shared", "-fPIC", f"-I{TWIN}", f"-I{KERNELS}"]
            source = str(TWIN / "sparse_mla_twin.cpp")
            subprocess.run(["g++", *flags, *defines, "-o", str(library), source], check=True)
            self._made[name] = twin_function(library, "attend")
        return self._made[name]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    """Twins by what they are compiled for."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to run the kernel's source on the CPU")
    return Libraries(tmp_path_factory.mktemp("twin"))


def attend(
    libraries: Libraries,
    step: Step,
    heads: int,
    splits: int,
    parts: int = 0,
) -> Real:
    """[rows, heads, 512] of the kernel; what it leaves alone is NaN."""
    parts = parts or (2 if step.layout == "bf16" else 1)
    form = SparseForm(step.layout, heads, splits, parts)
    rows = len(step.positions)
    behind = 64  # heads that are none: never written
    held = {
        "out": np.full((step.heads + behind, rows, LATENT), np.nan, ml_dtypes.bfloat16),
        "query": step.query,
        "rope": step.rope,
        "cache": step.cache,
        "page_table": step.page_table,
        "selection": np.ascontiguousarray(step.selection, np.int32),
        "positions": np.array(step.positions, np.int32),
        "q_starts": np.array(step.q_starts, np.int32),
        "num_rows": np.array([step.num_rows], np.int32),
    }
    buffers: dict[str, Bytes] = {}
    for name, value in held.items():
        buffers[name] = guarded(value.nbytes)
        buffers[name][:] = np.ascontiguousarray(value).view(np.uint8).reshape(-1)
    addresses = {name: buffer.ctypes.data for name, buffer in buffers.items()}
    addresses["rope"] += 128 * 2
    given = Given(
        selection_stride=step.selection.shape[1],
        rope_row_stride=step.heads * 192,
        rope_head_stride=192,
        page_bytes=PAGE * step.cache.shape[1],
        page_table_stride=step.pages,
        rows=rows,
        heads=step.heads,
        keys=step.pages * PAGE if step.dense else step.selection.shape[1],
        reqs=len(step.q_starts) - 1,
        splits=splits,
        scale=0.1,
        **addresses,
    )
    libraries.of(form, step.dense)(ctypes.byref(given))
    require_guards(buffers)
    out = buffers["out"].view(ml_dtypes.bfloat16).reshape(-1, rows, LATENT)
    assert np.isnan(out[step.heads :].astype(np.float64)).all(), "heads behind the last"
    return out[: step.heads].astype(np.float64).transpose(1, 0, 2)


def chosen(counts: list[int], columns: int, width: int, holes: bool = False) -> NDArray[np.int32]:
    """[rows, width]: so many of the positions below `columns`, ascending, then -1."""
    rng = np.random.default_rng(len(counts))
    out = np.full((len(counts), width), -1, np.int32)
    for row, count in enumerate(counts):
        out[row, :count] = np.sort(rng.choice(columns, count, replace=False))
    if holes:
        out[rng.random(out.shape) < 0.3] = -1
    return out


def require_right(step: Step, got: Real, bound: float = BOUND) -> None:
    for row in range(step.num_rows):
        want = step.expected(row, 0.1)
        off = np.linalg.norm(got[row] - want) / max(np.linalg.norm(want), 1e-30)
        assert off <= bound, (row, off)
    assert np.isnan(got[step.num_rows :]).all(), "rows behind the real ones are left alone"


def three_rows(layout: str, heads: int, large: float = 1.0) -> Step:
    """A full row, a short one, one without a key, and one that is none."""
    selection = chosen([300, 17, 0, 300], 500, 300)
    selection[1, :17] = chosen([17], 41, 17)[0]
    return Step(layout, heads, selection, [511, 40, 300, -1], [0, 1, 2, 3, 3], 3, large=large)


@pytest.mark.parametrize(
    ("layout", "heads", "block", "splits"),
    [
        ("fp8_656", 16, 16, 1),
        ("fp8_656", 5, 16, 4),
        ("fp8_656", 20, 32, 2),
        ("fp8_656", 64, 64, 2),
        ("fp8_576", 16, 16, 2),
        ("bf16", 16, 16, 1),
        ("bf16", 33, 32, 2),
        ("bf16", 20, 64, 4),
    ],
)
def test_rows_are_the_references(
    libraries: Libraries, layout: str, heads: int, block: int, splits: int
) -> None:
    step = three_rows(layout, heads)
    require_right(step, attend(libraries, step, block, splits))


@pytest.mark.parametrize("parts", [2, 1])
def test_heads_as_the_products_rows(libraries: Libraries, parts: int) -> None:
    """Blocks of 64 heads: a last one of 3, a row without keys, fewer tiles than stages and more."""
    step = three_rows("bf16", 67)
    require_right(step, attend(libraries, step, 64, 1, parts), 1e-2)


@pytest.mark.parametrize(("layout", "block"), [("fp8_656", 16), ("bf16", 64)])
def test_rows_of_one_request_and_holes_in_a_selection(
    libraries: Libraries, layout: str, block: int
) -> None:
    """Two rows a request, as a verify step has them; a fifth of the keys are missing anywhere."""
    selection = chosen([200, 200, 200, 200], 400, 200, holes=True)
    step = Step(layout, 16, selection, [500, 501, 440, 441], [0, 2, 4], num_rows=4)
    require_right(step, attend(libraries, step, block, 2))


def test_a_row_finds_its_request_among_many(libraries: Libraries) -> None:
    """Lanes look at 32 requests at a time; requests without a row lie before and between."""
    q_starts = [0] * 31 + [1] * 2 + [2] * 7 + [3, 3]
    step = Step("fp8_656", 16, chosen([9, 9, 9], 64, 16), [63] * 3, q_starts, 3, pages=1)
    require_right(step, attend(libraries, step, 16, 1))


def test_without_a_selection_every_visible_position_is_a_key(libraries: Libraries) -> None:
    selection = np.full((3, 1), 7, np.int32)  # not looked at
    step = Step("bf16", 16, selection, [0, 130, 511], [0, 1, 2, 3], 3, dense=True)
    require_right(step, attend(libraries, step, 16, 2))


def test_splits_without_keys_add_nothing(libraries: Libraries) -> None:
    step = Step("fp8_656", 16, chosen([3], 5, 300), [4], [0, 1], num_rows=1)
    require_right(step, attend(libraries, step, 16, 4))


@pytest.mark.parametrize("block", [16, 64])
@pytest.mark.parametrize(("parts", "least", "bound"), [(2, 0.0, 2e-3), (1, 4e-3, 1e-2)])
def test_two_terms_of_the_query_hold_large_scores(
    libraries: Libraries, block: int, parts: int, least: float, bound: float
) -> None:
    """Scores of 50: off by what bf16 results are rounded, 0.15 %; a bf16 query alone by 0.6 %."""
    step = three_rows("bf16", 16, large=25.0)
    got = attend(libraries, step, block, 1, parts)
    require_right(step, got, bound)
    want = step.expected(0, 0.1)
    assert np.linalg.norm(got[0] - want) / np.linalg.norm(want) >= least


def test_weights_stay_within_f16_when_later_scores_are_far_larger(libraries: Libraries) -> None:
    """Scores of 100: of later keys some are 2^16 times the weight of all before them."""
    step = three_rows("fp8_656", 16, large=60.0)
    require_right(step, attend(libraries, step, 16, 1), bound=3e-2)
