"""Checks and times sparse MLA decode in CUDA C++, beside today's Triton kernels in the same call.

    python benchmarks/sparse_mla.py compile FOLDER          # needs nvcc and Triton, no GPU
    python benchmarks/sparse_mla.py run FOLDER --out DIR    # needs the GPU, no compiler
    compute-sanitizer --tool racecheck python benchmarks/sparse_mla.py small FOLDER

`--only wide` at `compile`: blocks of 64 heads of bf16 rows and the smaller ones beside them, alone.

Contexts of 32k (of 1,024 rows: 4k), 2,048 selected; cold L2 (other rows of a pool in each call of a
graph); GB/s are the selected rows' bytes, each counted once, over the attention kernel's own time;
`whole` has the products around it, too. `small` runs the kernel of each form once over 64 pages,
for the sanitizer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mla_cases
import mla_grid
import msgspec
import torch
from gpu_cases import DTYPES
from gpu_kernels import replay_us
from mla_cases import PAGE, POOL_PAGES, Cell
from mla_grid import LAYOUTS, SMALL_POOL

from lostwax.backends.cuda.driver import CudaDriver
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import KernelLaunch, Launch, View

PEAK_GBPS = 4560  # streaming read of one H200, measured
BOUND, LARGE_BOUND = 6e-3, 3e-2  # |out - reference| / |reference| of a row; of the large one
COLD_BYTES = 160 << 20  # touched by all calls of a graph: more than three times L2
WORKSPACE, NUM_ROWS = "workspace", "num_rows"
AROUND = {"absorb_tiles", "expand_tiles"}  # symbols of the products around attention
TRITON = "triton"


class Built(msgspec.Struct):
    """A cell's launches: `by` names the form, or TRITON."""

    cell: Cell
    by: str
    workspace_bytes: int
    launches: list[Launch]


class Folder(msgspec.Struct):
    """Contents of cells.json."""

    kernels: list[CompiledKernel]
    checked: list[Built]
    timed: list[Built]
    small: list[Built]


def compile_cells(folder: Path, only: str) -> None:
    """Emit the launches of every cell (of `only`: wide) and compile their kernels."""
    from lostwax.backends.cuda.compiler import CudaCompiler
    from lostwax.backends.cuda.lowerings.sparse_mla import (
        SPARSE_MLA,
        SPARSE_MLA_ALL,
        choose_form,
        query_terms,
    )
    from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND
    from lostwax.backends.lowering import Lowering
    from lostwax.backends.proof.plain_match import PlainMatch, Value
    from lostwax.ir.contract.program import Bucket

    folder.mkdir(parents=True, exist_ok=True)
    compiler = CudaCompiler(CUDA_SM90A)
    known: dict[str, CompiledKernel] = {}

    def build(cell: Cell, lowering: Lowering) -> Built:
        values = {n: Value(*given) for n, given in mla_cases.shapes(cell).items()}
        ranks = (mla_cases.LATENT, mla_cases.ROPE)
        cache = replace(values["cache_in"], parts=ranks, layout=cell.layout)
        values["cache_in"] = cache
        match = PlainMatch(
            CUDA_SM90A,
            Bucket(cell.rows, cell.reqs, cell.pages),
            values,
            {("op", "scale"): mla_cases.SCALE},
            compiler,
            folder,
            built=known,
        )
        launches = list(match.emit(lowering, cell.knobs))
        if lowering is ATTEND:
            return Built(cell, TRITON, match.workspace_bytes, launches)
        knobs = lowering.default_knobs() | cell.knobs
        parts = query_terms(cell.layout, match.segment, cell.rows, knobs)
        units = CUDA_SM90A.compute_units
        form = choose_form(cell.layout, parts, cell.rows, cell.heads, cell.top, units, knobs)
        by = f"{form.heads} heads x {form.splits} splits"
        by += ", one term" if cell.layout == "bf16" and form.parts == 1 else ""
        return Built(cell, by, match.workspace_bytes, launches)

    def own(cell: Cell) -> Built:
        return build(cell, SPARSE_MLA_ALL if cell.dense else SPARSE_MLA)

    timed: list[Built] = []
    is_all = not only
    for cell in mla_grid.timed_cells() if is_all else mla_grid.wide_timings():
        timed.append(own(cell))
        if cell.layout == "bf16" and not cell.knobs and not cell.dense:
            timed.append(build(cell, ATTEND))
    smalls = mla_grid.small_cells() if is_all else mla_grid.small_wide_cells()
    checks = mla_grid.checked_cells() if is_all else mla_grid.wide_checks()
    small, checked = [own(c) for c in smalls], [own(c) for c in checks]
    listed = sorted(known.values(), key=lambda kernel: kernel.binary)
    (folder / "cells.json").write_bytes(msgspec.json.encode(Folder(listed, checked, timed, small)))
    for kernel in listed:
        print(f"{kernel.binary}: {kernel.registers} registers, {kernel.shared_bytes} shared bytes")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{len(checked)} checks, {len(timed)} timings, {size / 2**20:.1f} MiB in {folder}")


class Buffers:
    """One set of a cell's buffers, by name; pool, weights and workspace may be shared by sets."""

    def __init__(self, built: Built, driver: CudaDriver, shared: dict[str, torch.Tensor]) -> None:
        self._bytes = dict(shared)
        self._shapes = mla_cases.shapes(built.cell)
        for name, (shape, dtype, strides) in self._shapes.items():
            if name not in self._bytes:
                need = mla_cases.num_bytes(shape, strides, DTYPES[dtype].itemsize)
                self._bytes[name] = driver.allocate(need)
        if WORKSPACE not in self._bytes:
            self._bytes[WORKSPACE] = driver.allocate(built.workspace_bytes)
        rows = torch.tensor([built.cell.real], dtype=torch.int32, device=driver.device)
        self._bytes[NUM_ROWS] = rows.view(torch.uint8)
        self.thunks = [driver.bind(launch, self.resolve) for launch in built.launches]
        bound = list(zip(self.thunks, built.launches, strict=True))
        self._kernels = [thunk for thunk, launch in bound if isinstance(launch, KernelLaunch)]
        self._attention = [
            thunk
            for thunk, launch in bound
            if isinstance(launch, KernelLaunch) and launch.symbol not in AROUND
        ]

    def resolve(self, view: View) -> torch.Tensor:
        """A view's tensor."""
        kind = DTYPES[view.dtype]
        rest = self._bytes[view.name].view(torch.uint8).flatten()[view.offset :]
        flat = rest[: rest.numel() // kind.itemsize * kind.itemsize].view(kind)
        return torch.as_strided(flat, view.shape, view.strides)

    def tensor(self, name: str) -> torch.Tensor:
        """A value's tensor."""
        shape, dtype, strides = self._shapes[name]
        dense = tuple(torch.Size(shape[i + 1 :]).numel() for i in range(len(shape)))
        return self.resolve(
            View(space="input", name=name, dtype=dtype, shape=shape, strides=strides or dense)
        )

    def fill(self, given: mla_cases.Tensors) -> None:
        """Write inputs."""
        for name, value in given.items():
            self.tensor(name).copy_(value)

    def run(self) -> None:
        """All launches."""
        for thunk in self.thunks:
            thunk()

    def run_kernels(self) -> None:
        """Without the library's products."""
        for thunk in self._kernels:
            thunk()

    def run_attention(self) -> None:
        """Without the products around it, whosever they are."""
        for thunk in self._attention:
            thunk()


def check(built: Built, driver: CudaDriver, pool: torch.Tensor) -> tuple[float, float, bool]:
    """The worst relative errors over two seeds, of rows and of the large row, and whether all is
    right: within bounds, the same bits in a graph. What is not selected is NaN in the pool."""
    cell, right = built.cell, True
    worst = {False: 0.0, True: 0.0}
    bounds = {False: BOUND, True: LARGE_BOUND if cell.knobs.get("query_parts") != 1 else 0.5}
    for seed in (1, 2):
        given = mla_cases.inputs(cell, seed, driver.device, first_page=POOL_PAGES - 999)
        pool.fill_(255)
        for row in range(cell.real):
            slots = mla_cases.keys_of(cell, given, row)
            latent = torch.randn(slots.numel(), 512, device=driver.device)
            rope = torch.randn(slots.numel(), 64, device=driver.device)
            pool[slots] = mla_cases.encode(cell.layout, latent, rope)
        buffers = Buffers(built, driver, {"cache_in": pool})
        buffers.resolve(View(space="input", name=WORKSPACE, dtype="u8",
                             shape=(built.workspace_bytes,), strides=(1,))).fill_(255)  # fmt: skip
        shape = mla_cases.shapes(cell)["kv_b"][0]
        buffers.fill(given | {"kv_b": torch.randn(shape, device=driver.device) / 512**0.5})
        out = buffers.tensor("op.out")
        buffers.run()
        first = out.clone()
        replay = driver.capture([buffers.run])
        out.fill_(float("nan"))
        replay()
        driver.synchronize()
        right = right and torch.equal(first[: cell.real], out[: cell.real])
        stored = {name: buffers.tensor(name) for name in (*given, "kv_b")}
        for row in range(0, cell.real, max(1, cell.real // 5)):
            want = mla_cases.reference(cell, stored, pool, row).flatten()
            norm, rest = cast("Any", want.norm()), cast("Any", (out[row].double() - want).norm())
            off = float((rest / norm.clamp(min=1e-30)).item())
            is_large = row == mla_cases.LARGE_ROW
            worst[is_large] = max(worst[is_large], off) if off == off else float("nan")
            right = right and off <= bounds[is_large]  # a NaN compares false
    return worst[False], worst[True], right


def time_built(built: Built, driver: CudaDriver, pool: torch.Tensor) -> dict[str, float]:
    """Median us of attention alone and of all launches, over rotating rows of the pool."""
    cell = built.cell
    count = max(3, min(64, COLD_BYTES // cell.read_bytes + 1))
    weights = [
        torch.randn(mla_cases.shapes(cell)["kv_b"][0], device=driver.device).bfloat16()
        for _ in range(min(3, count))
    ]
    workspace = driver.allocate(built.workspace_bytes)
    sets: list[Buffers] = []
    for i in range(count):
        shared = {"cache_in": pool, "kv_b": weights[i % len(weights)], WORKSPACE: workspace}
        buffers = Buffers(built, driver, shared)
        start = 1 + i * cell.reqs * cell.pages % (POOL_PAGES - 1)
        buffers.fill(mla_cases.inputs(cell, 100 + i, driver.device, first_page=start))
        sets.append(buffers)
    whole: list[Callable[[], None]] = [b.run for b in sets]
    attention: list[Callable[[], None]] = [b.run_attention for b in sets]
    whole_us = replay_us(driver, whole)  # leaves a query in the workspace
    return {"us": replay_us(driver, attention), "whole_us": whole_us, "sets": count}


def pool_of(layout: str, driver: CudaDriver) -> torch.Tensor:
    """u8 [rows, row_bytes]: every layer's worth of pages, 2.4 to 4.8 GB."""
    width = row_bytes(layout, (512, 64))
    return driver.allocate(POOL_PAGES * PAGE * width).view(-1, width)


def open_driver(folder: Path) -> tuple[Folder, CudaDriver]:
    """What was compiled, and the device."""
    found = msgspec.json.decode((folder / "cells.json").read_bytes(), type=Folder)
    kernels = {k.binary: k for k in found.kernels}
    return found, CudaDriver(CUDA_SM90A, lambda name: (folder / name).read_bytes(), kernels)


def by_cell(timed: list[tuple[Built, dict[str, float]]]) -> list[dict[str, object]]:
    """One entry a size: what the rule takes, every form that was timed, and Triton's kernels."""
    cells: dict[str, dict[str, object]] = {}
    forms: dict[str, dict[str, float]] = {}
    for built, took in timed:
        cell, us = built.cell, round(took["us"], 2)
        name = replace(cell, knobs={}).name
        entry = cells.setdefault(
            name,
            {"layout": cell.layout, "heads": cell.heads, "rows": cell.rows, "dense": cell.dense},
        )
        if built.by == TRITON:
            entry |= {"triton_us": us, "triton_whole_us": round(took["whole_us"], 2)}
            continue
        if not cell.knobs:
            share = cell.read_bytes / took["us"] / 1e3 / PEAK_GBPS
            entry |= {"rule": built.by, "us": us, "share": round(share, 3)}
            entry |= {"whole_us": round(took["whole_us"], 2)}
        known = forms.setdefault(name, {})
        known[built.by] = min(us, known.get(built.by, us))
    return [entry | {"us_by_form": forms.get(name, {})} for name, entry in cells.items()]


def run_cells(folder: Path, out: Path, budget_s: float) -> bool:
    """Check all, then time; True if every cell is right."""
    found, driver = open_driver(folder)
    began = time.monotonic()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, flush=True)
    checks: list[dict[str, object]] = []
    timed: list[tuple[Built, dict[str, float]]] = []
    wrong = 0
    for layout in LAYOUTS:
        if all(b.cell.layout != layout for b in (*found.checked, *found.timed)):
            continue
        pool = pool_of(layout, driver)
        for built in (b for b in found.checked if b.cell.layout == layout):
            error, large, right = check(built, driver, pool)
            wrong += not right
            cell = f"{built.cell.name} by {built.by}"
            checks.append({"cell": cell, "error": error, "large": large, "right": right})
            verdict = "ok   " if right else "WRONG"
            print(f"{verdict} {error:8.1e} large {large:8.1e}  {cell}", flush=True)
        mla_cases.fill_pool(pool, layout)
        for built in (b for b in found.timed if b.cell.layout == layout):
            cell = built.cell
            if time.monotonic() - began > budget_s:
                print(f"out of time before {cell.name} {built.by}", flush=True)
                continue
            took = time_built(built, driver, pool)
            gbps = cell.read_bytes / took["us"] / 1e3
            share = gbps / PEAK_GBPS
            timed.append((built, took))
            print(
                f"{took['us']:8.2f} us  whole {took['whole_us']:8.2f}  {gbps:6.0f} GB/s"
                f"  {share:5.2f}  {cell.name} by {built.by}",
                flush=True,
            )
        del pool
        torch.cuda.empty_cache()
    out.mkdir(parents=True, exist_ok=True)
    summary = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "binaries": [k.digest for k in found.kernels],
        "checks": checks,
        "cells": by_cell(timed),
    }
    (out / "sparse_mla.json").write_text(json.dumps(summary, indent=1))
    print(f"{wrong} wrong of {len(found.checked)}; {time.monotonic() - began:.0f} s")
    return not wrong


def run_small(folder: Path) -> None:
    """Each form once, over a small pool of its own; compares nothing."""
    found, driver = open_driver(folder)
    for built in found.small:
        width = row_bytes(built.cell.layout, (512, 64))
        pool = driver.allocate(SMALL_POOL * PAGE * width).view(-1, width)
        mla_cases.fill_pool(pool, built.cell.layout)
        given = mla_cases.inputs(built.cell, 1, driver.device)
        buffers = Buffers(built, driver, {"cache_in": pool})
        buffers.fill(given | {"kv_b": torch.ones(mla_cases.shapes(built.cell)["kv_b"][0])})
        buffers.run_kernels()
        driver.synchronize()
        print(f"ran {built.cell.name}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["compile", "run", "small"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["", "wide"], default="", help="of what to compile")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--budget", type=float, default=90, help="seconds for checks and timings")
    options = parser.parse_args()
    if options.action == "compile":
        compile_cells(options.folder, options.only)
    elif options.action == "small":
        run_small(options.folder)
    elif not run_cells(options.folder, options.out, options.budget):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
