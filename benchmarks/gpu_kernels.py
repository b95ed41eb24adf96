"""Checks and times the CUDA kernels, each alone, on the launches that its lowering emits.

    python benchmarks/gpu_kernels.py compile FOLDER          # needs Triton and nvcc, no GPU
    python benchmarks/gpu_kernels.py run FOLDER --out DIR    # needs the GPU, no compiler

Both take `--only TEXT`: cases whose name contains it (`vocab`: the sampling kernels, `quantise`,
`append` or `hadamard`: those of the fp8 formats).

`compile` writes cubins and cases.json; `run` loads them by the target's driver, compares every
case with an fp64 reference (twice, with fresh inputs, and once replayed as a graph; outputs and
workspaces are poisoned before), and times the timed ones as graph replays over rotating inputs,
beside the portable torch lowering's kernel in the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import format_cases
import gpu_cases
import msgspec
import sample_cases
import torch
from gpu_cases import DTYPES, EPS, SCALE, Case, Tensors

from lostwax.backends.cuda.driver import CudaDriver
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import Launch, View

WORKSPACE = "workspace"
NUM_ROWS = "num_rows"
ZEROED = ""  # what views of the zeroed workspace call it
BOUNDS = {"f32": 2e-6, "bf16": 6e-3}  # |out - reference| / |reference|
COLD_BYTES = 160 << 20  # rotate over more than the 50 MB of L2
REPLAYS = 30


class BuiltCase(msgspec.Struct):
    """A case with its launches; values give shape, dtype, strides of each buffer."""

    case: dict[str, Any]
    values: dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]]
    workspace_bytes: int
    zeroed_bytes: int
    rows: int
    """All of them count as real: kernels would leave at once behind those that do."""
    launches: list[Launch]


class Built(msgspec.Struct):
    """Contents of cases.json."""

    kernels: list[CompiledKernel]
    cases: list[BuiltCase]


def compile_cases(folder: Path, only: str) -> None:
    """Emit the launches of cases whose name contains `only`, and compile their kernels."""
    from lostwax.backends.cuda.compiler import CudaCompiler
    from lostwax.backends.cuda.lowerings import topk
    from lostwax.backends.gpu_kernels.lowerings import (
        GPU,
        attend,
        norms,
        sample,
        sample_tail,
        score,
    )
    from lostwax.backends.kernel_compiler import KernelCompileError
    from lostwax.backends.proof.plain_match import PlainMatch, Value
    from lostwax.ir.contract.program import Bucket
    from lostwax.ir.contract.scale_layout import FP8_ROW_BLOCKS

    by_name = {low.name: low for low in GPU}
    lowerings = {op: by_name[name] for op, name in format_cases.OPS.items()} | {
        "add_rms_norm": norms.ADD_RMS_NORM,
        "topk": topk.TOPK,
        "attend": attend.ATTEND,
        "attend_all": attend.ATTEND_ALL,
        "mask": sample.MASK,
        "nucleus": sample.NUCLEUS,
        "pick": sample.PICK,
        "logprob": sample.LOGPROB,
        "sample_tail": sample_tail.SAMPLE_TAIL,
        "score": score.SCORE,
    }
    folder.mkdir(parents=True, exist_ok=True)
    compiler = CudaCompiler(CUDA_SM90A)
    built: list[BuiltCase] = []
    known: dict[str, CompiledKernel] = {}
    for case in gpu_cases.cases():
        if only not in case.name:
            continue
        d = case.dims
        rows = d.get("rows") or d["reqs"]
        shapes = gpu_cases.shapes(case)
        values = {
            name: Value(
                shape, dtype, strides, _parts(case, name),
                FP8_ROW_BLOCKS if f"{name}:scale" in shapes else None,
                format_cases.LAYOUT.get(case.op, "") if name == "cache_in" else "",
            )
            for name, (shape, dtype, strides) in shapes.items()
        }  # fmt: skip
        properties = {(node, name): value for node, name, value in gpu_cases.attributes(case)}
        bucket = Bucket(rows, rows, d.get("pages", 1), rows)
        match = PlainMatch(CUDA_SM90A, bucket, values, properties, compiler, folder, built=known)
        try:
            launches = list(match.emit(lowerings[case.op], case.knobs))
        except KernelCompileError as error:  # a knob setting that the device cannot hold
            print(f"left out {case.op} {case.knobs}: {error}")
            continue
        kept = {n: (v.shape, v.dtype, v.dense_strides) for n, v in values.items()}
        plain = dataclasses.asdict(case)
        item = BuiltCase(plain, kept, match.workspace_bytes, match.zeroed_bytes, rows, launches)
        built.append(item)
    listed = sorted({k.binary: k for k in known.values()}.values(), key=lambda k: k.binary)
    (folder / "cases.json").write_bytes(msgspec.json.encode(Built(listed, built)))
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{len(built)} cases, {len(listed)} kernels, {size / 2**20:.1f} MiB in {folder}")


def _parts(case: Case, name: str) -> tuple[int, ...]:
    if case.op in format_cases.OPS:
        return format_cases.parts(case.op, case.dims) if name == "cache_in" else ()
    return (case.dims["latent"], case.dims["rope"]) if name == "cache_in" else ()


class Buffers:
    """One set of a case's buffers, bound to its launches."""

    def __init__(self, built: BuiltCase, driver: CudaDriver) -> None:
        self._bytes = {
            name: driver.allocate(_span(shape, strides) * DTYPES[dtype].itemsize)
            for name, (shape, dtype, strides) in built.values.items()
        }
        self._bytes[WORKSPACE] = driver.allocate(max(built.workspace_bytes, 256))
        self._bytes[NUM_ROWS] = driver.allocate(4)
        self._bytes[ZEROED] = driver.allocate(max(built.zeroed_bytes, 256))
        self._rows = built.rows
        self.tensors: Tensors = {
            name: self.resolve(
                View(space="input", name=name, dtype=dtype, shape=shape, strides=strides)
            )
            for name, (shape, dtype, strides) in built.values.items()
        }
        self.thunks = [driver.bind(launch, self.resolve) for launch in built.launches]

    @property
    def num_bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(b.numel() for b in self._bytes.values())

    def resolve(self, view: View) -> torch.Tensor:
        """A view's tensor."""
        kind = DTYPES[view.dtype]
        rest = self._bytes[view.name][view.offset :]
        flat = rest[: rest.numel() // kind.itemsize * kind.itemsize].view(kind)
        return torch.as_strided(flat, view.shape, view.strides)

    def fill(self, inputs: Tensors) -> None:
        """Poison everything (0xFF is NaN in every float), then write the inputs."""
        for buffer in self._bytes.values():
            buffer.fill_(255)
        self._bytes[NUM_ROWS].view(torch.int32).fill_(self._rows)
        self._bytes[ZEROED].zero_()
        for name, value in inputs.items():
            self.tensors[name].copy_(value)

    @property
    def is_left_zero(self) -> bool:
        """Whether the launches left the zeroed workspace so."""
        return not self._bytes[ZEROED].any()

    def run(self) -> None:
        """All launches."""
        for thunk in self.thunks:
            thunk()


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1


def check(case: Case, buffers: Buffers, driver: CudaDriver) -> tuple[float, bool]:
    """The largest relative error (of choices: share of wrong ones) over all runs, and verdict."""
    worst, right = 0.0, True
    for seed in (1, 2, 3):
        given = gpu_cases.inputs(case, seed, driver.device, full=False)
        buffers.fill(given)
        if seed == 3:
            replay = driver.capture([buffers.run])
            buffers.fill(given)
            replay()
        else:
            buffers.run()
        driver.synchronize()
        right = right and buffers.is_left_zero
        stored = {name: buffers.tensors[name] for name in given}
        found = gpu_cases.found(case, buffers.tensors)
        for name, want in gpu_cases.reference(case, stored).items():
            got = found[name]
            if case.op in ("mask", "nucleus") or want.dtype == torch.int32:
                wrong = (got != want) & ~want.isnan()  # NaN: rounding may decide
                error, bound = float(wrong.double().mean().item()), 0.0
            elif name == "residual_out":
                wrong = got != want.to(torch.float32).to(got.dtype)
                error, bound = float(wrong.sum().item()), 0.0
            else:
                norm, off = cast("Any", want.norm()), cast("Any", (got.double() - want).norm())
                error = float((off / norm.clamp(min=1e-30)).item())
                bound = BOUNDS[case.dtypes[0]]
            right = right and error <= bound  # a NaN compares false
            worst = max(worst, error) if error == error else float("nan")
    return worst, right


def portable(case: Case, t: Tensors) -> Callable[[], None]:
    """The portable lowering's kernel on the same buffers."""
    import format_peers
    import sample_peers

    from lostwax.backends.portable.kernels import attention, norms, selection

    if case.op in format_cases.OPS:
        return format_peers.portable(case.op, t)
    if case.op in sample_cases.OPS:
        return sample_peers.portable(case.op, t)
    if case.op == "add_rms_norm":
        given = (t["residual"], t["delta"], t["weight"], t["residual_out"], t["normed"])
        return lambda: norms.add_norm(*given, eps=EPS)
    if case.op == "topk":
        return lambda: selection.topk(t["logits"], t["op.out"])
    requests = torch.arange(case.dims["reqs"], device=t["q_pe"].device)
    query = (t["q_nope"], t["q_pe"], t["kv_b"], None, t["cache_in"])
    tail = (requests, t["page_table"], t["op.out"])
    layout = "f32" if t["cache_in"].dtype == torch.float32 else "bf16"
    if case.op == "attend_all":
        return lambda: attention.attend_dense_absorbed(
            *query,
            t["positions"],
            *tail,
            scale=SCALE,
            limit=case.dims["top"],
            row_tile=16,
            layout=layout,
        )
    return lambda: attention.attend_absorbed(
        *query, t["selection"], *tail, scale=SCALE, row_tile=16, layout=layout
    )


def replay_us(driver: CudaDriver, calls: list[Callable[[], None]]) -> float:
    """Median microseconds of one call, over replays of one graph that runs them all."""
    replay = driver.capture(calls)
    for _ in range(3):
        replay()
    times: list[float] = []
    for _ in range(REPLAYS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        stop.record()
        stop.synchronize()
        times.append(1e3 * start.elapsed_time(stop) / len(calls))
    return statistics.median(times)


def time_case(case: Case, built: BuiltCase, driver: CudaDriver) -> dict[str, float]:
    """Own and portable times over the same rotating buffers, own twice (the spread)."""
    first = Buffers(built, driver)
    count = max(4, min(40, COLD_BYTES // first.num_bytes + 1))
    sets = [first, *(Buffers(built, driver) for _ in range(count - 1))]
    for seed, buffers in enumerate(sets):
        buffers.fill(gpu_cases.inputs(case, 100 + seed, driver.device, full=True))
    own: list[Callable[[], None]] = [b.run for b in sets]
    result = {"us": replay_us(driver, own), "portable_us": float("nan")}
    try:
        result["portable_us"] = replay_us(driver, [portable(case, b.tensors) for b in sets])
    except (RuntimeError, TypeError) as error:  # a baseline that fails must not hide our numbers
        print(f"portable baseline of {case.name} failed: {error}")
    return result | {"us_again": replay_us(driver, own), "sets": count}


def run_cases(folder: Path, out: Path, only: str) -> bool:
    """Check all, time the timed; True if every case is right."""
    built = msgspec.json.decode((folder / "cases.json").read_bytes(), type=Built)
    driver = CudaDriver(
        CUDA_SM90A, lambda name: (folder / name).read_bytes(), {k.binary: k for k in built.kernels}
    )
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    rows: list[Mapping[str, object]] = []
    wrong = 0
    for item in built.cases:
        case = Case(**item.case)
        if only not in case.name:
            continue
        try:
            error, right = check(case, Buffers(item, driver), driver)
        except RuntimeError:  # the context may be lost: no later case would mean anything
            print(f"stopped at {case.name}", flush=True)
            raise
        wrong += not right
        row: dict[str, object] = {"case": case.name, "error": error, "right": right}
        line = f"{'ok   ' if right else 'WRONG'} {error:9.2e}  {case.name}"
        if case.timed and right:
            row |= time_case(case, item, driver)
            line = f"{row['us']:8.2f} us (again {row['us_again']:.2f}), torch" + (
                f" {row['portable_us']:8.1f} us | {line}"
            )
        torch.cuda.empty_cache()
        rows.append(row)
        if case.timed or not right:
            print(line, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    summary = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "binaries": [k.digest for k in built.kernels],
        "cases": rows,
    }
    (out / "gpu_kernels.json").write_text(json.dumps(summary, indent=1))
    print(f"{len(rows) - wrong} of {len(rows)} cases right")
    return not wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["compile", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    if options.action == "compile":
        compile_cases(options.folder, options.only)
    elif not run_cases(options.folder, options.out, options.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
