"""Checks and times the products with fp8 weights of DeepSeek-V3.2 at full width, over their knobs.

    python benchmarks/fp8_products.py compile FOLDER          # needs Triton, no GPU
    python benchmarks/fp8_products.py run FOLDER --out DIR    # needs the GPU, no compiler

Both take `--only TEXT`: cases whose name contains it. `run` compares each setting's result with an
fp64 reference and times it as graph replays over weights that do not fit the L2 cache; it prints
the fastest settings of each case with the share of the streaming read that they reach.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from fp8_cases import (
    EPS,
    HEAD,
    TURNING,
    ProductCase,
    cases,
    draw,
    found_in,
    reference,
    stored,
    values,
)

from lostwax.backends.cuda.driver import CudaDriver
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import KernelLaunch, Launch, View

WORKSPACE, NUM_ROWS, ZEROED = "workspace", "num_rows", ""
READ = 4.56e12  # bytes/s, streaming read of one H200
FP8_RATE = 1.3e15
BOUNDS = {
    "linear": 2.6e-3,
    "gated": 5e-3,
    "projections": 5e-3,
    "queries": 2.6e-3,
    "queries fp8": 4e-2,
    "experts": 2.6e-3,
    "experts fp8": 8e-3,
}  # |out - want| / |want|
COLD_BYTES = 200 << 20
KINDS = {
    "f32": torch.float32, "bf16": torch.bfloat16, "i32": torch.int32, "u8": torch.uint8,
    "f8E4M3FN": torch.float8_e4m3fn,
}  # fmt: skip
SHARED = ("weight", "gate", "up", "down", "w_gate", "w_q", "w_q_b")
"""Values that all cases of one shape share: the weights, and their scales."""


class BuiltSetting(msgspec.Struct):
    """The launches of one setting of a lowering's knobs."""

    lowering: str
    knobs: dict[str, int]
    workspace_bytes: int
    zeroed_bytes: int
    launches: list[Launch]


class BuiltCase(msgspec.Struct):
    """A case with its settings; values give shape and dtype of each buffer."""

    case: ProductCase
    values: dict[str, tuple[tuple[int, ...], str]]
    settings: list[BuiltSetting]


class Built(msgspec.Struct):
    """Contents of cases.json."""

    kernels: list[CompiledKernel]
    cases: list[BuiltCase]


def compile_cases(folder: Path, only: str, chosen: Iterable[ProductCase]) -> None:
    """Emit the launches of every setting of the chosen cases, and compile their kernels."""
    from lostwax.backends.cuda.compiler import CudaCompiler
    from lostwax.backends.cuda.lowerings.fp8_experts import MANY_ROWS_EXPERTS
    from lostwax.backends.cuda.lowerings.fp8_linear import (
        MANY_ROWS_GATE_UP,
        MANY_ROWS_LINEAR,
        MANY_ROWS_PROJECTIONS,
    )
    from lostwax.backends.cuda.lowerings.fp8_queries import MANY_ROWS_QUERIES
    from lostwax.backends.gpu_kernels.lowerings.fp8_joined import FP8_GATE_UP, FP8_PROJECTIONS
    from lostwax.backends.gpu_kernels.lowerings.fp8_linear import FP8_LINEAR
    from lostwax.backends.gpu_kernels.lowerings.grouped_experts import FP8_EXPERTS
    from lostwax.backends.gpu_kernels.lowerings.joined_queries import JOINED_QUERIES
    from lostwax.backends.kernel_compiler import KernelCompileError
    from lostwax.backends.proof.plain_match import PlainMatch, Value
    from lostwax.ir.contract.program import Bucket
    from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS

    folder.mkdir(parents=True, exist_ok=True)
    compiler = CudaCompiler(CUDA_SM90A)
    layouts = {"": None, "square": FP8_BLOCKS, "row": FP8_ROW_BLOCKS}
    lowerings = {
        "linear": (FP8_LINEAR, MANY_ROWS_LINEAR), "experts": (FP8_EXPERTS, MANY_ROWS_EXPERTS),
        "gated": (FP8_GATE_UP, MANY_ROWS_GATE_UP),
        "projections": (FP8_PROJECTIONS, MANY_ROWS_PROJECTIONS),
        "queries bf16": (JOINED_QUERIES[0], MANY_ROWS_QUERIES[0]),
        "queries fp8": (JOINED_QUERIES[1], MANY_ROWS_QUERIES[1]),
    }  # fmt: skip
    attributes = {
        ("op", "hidden_fmt"): "fp32", ("q_normed", "eps"): EPS, ("k_normed", "eps"): EPS,
        ("q_turned", "offset"): HEAD - TURNING, ("q_turned", "dim"): TURNING,
        ("q_turned", "interleaved"): 1, ("index_turned", "offset"): 0,
        ("index_turned", "dim"): TURNING, ("index_turned", "interleaved"): 0,
        ("index_quantised", "scale_fmt"): "fp32",
    }  # fmt: skip
    known: dict[str, CompiledKernel] = {}
    built: list[BuiltCase] = []
    for case in chosen:
        if only not in case.name:
            continue
        given, joined = (
            {name: Value(shape, dtype, scale=layouts[scaled])
             for name, (shape, dtype, scaled) in described.items()}
            for described in (values(case), stored(case))
        )  # fmt: skip
        settings: list[BuiltSetting] = []
        seen: set[bytes] = set()
        shared, own = lowerings.get(case.op) or lowerings[f"{case.op} {case.form}"]
        asked = [(shared, knobs) for knobs in case.settings]
        for lowering, knobs in (*asked, *((own, knobs) for knobs in case.many_rows)):
            match = PlainMatch(
                CUDA_SM90A, Bucket(case.rows, case.rows, 1, case.rows), given,
                attributes, compiler, folder, built=known, stored=joined,
            )  # fmt: skip
            try:
                launches = list(match.emit(lowering, knobs))
            except KernelCompileError as error:  # a setting that the device cannot hold
                print(f"left out {case.name} {knobs}: {error}")
                continue
            if (same := msgspec.json.encode(launches)) not in seen:
                seen.add(same)
                settings.append(
                    BuiltSetting(
                        lowering.name, knobs, match.workspace_bytes, match.zeroed_bytes, launches
                    )
                )
        kept = {
            name: (value.shape, value.dtype)
            for name, value in (given | joined).items()
            if not joined or name in joined or not name.startswith("w_")
        }
        built.append(BuiltCase(case, kept, settings))
    listed = sorted({k.binary: k for k in known.values()}.values(), key=lambda k: k.binary)
    for extra in {f.name for f in folder.glob("*.cubin")} - {k.binary for k in listed}:
        (folder / extra).unlink()
    (folder / "cases.json").write_bytes(msgspec.json.encode(Built(listed, built)))
    size = sum(f.stat().st_size for f in folder.iterdir()) / 2**20
    count = sum(len(b.settings) for b in built)
    print(f"{len(built)} cases, {count} settings, {len(listed)} kernels, {size:.1f} MiB")


class Memory:
    """Buffers by name for one set of weights; all settings of a case run over them."""

    def __init__(self, shared: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> None:
        self.tensors = shared | own

    def resolve(self, view: View) -> torch.Tensor:
        """A view's tensor."""
        kind = KINDS[view.dtype]
        flat = self.tensors[view.name].view(-1).view(torch.uint8)[view.offset :]
        whole = flat[: flat.numel() // kind.itemsize * kind.itemsize].view(kind)
        return torch.as_strided(whole, view.shape, view.strides)


def replay_us(driver: CudaDriver, calls: Sequence[Callable[[], None]], most_s: float) -> float:
    """Median microseconds of one call, over replays of a graph that runs them in turn."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for call in calls:
        call()
    stop.record()
    stop.synchronize()
    once = max(1e-3 * start.elapsed_time(stop) / len(calls), 2e-6)
    rounds = max(1, round(min(most_s / once, 160) / len(calls)))
    replay = driver.capture([*calls] * rounds)
    times: list[float] = []
    replay()
    for _ in range(5):
        start.record()
        replay()
        stop.record()
        stop.synchronize()
        times.append(1e3 * start.elapsed_time(stop) / (rounds * len(calls)))
    return statistics.median(times)


def run_all(thunks: Sequence[Callable[[], None]]) -> None:
    """One behind another."""
    for thunk in thunks:
        thunk()


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """|got - want| / |want|, of all numbers together."""
    off, norm = cast("Any", (got.double() - want).norm()), cast("Any", want.norm())
    return float((off / norm.clamp(min=1e-30)).item())


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a case's settings share: their buffers but the weights, and the real rows wanted."""

    own: dict[str, torch.Tensor]
    want: torch.Tensor


def rates(case: ProductCase, own: dict[str, torch.Tensor], us: float) -> dict[str, float]:
    """Of a case that took so long: bytes, operations, and the share of what bounds it."""
    roof = max(case.num_bytes(own) / READ, case.flops / FP8_RATE) * 1e6
    return {
        "us": us, "tb_s": case.num_bytes(own) / us * 1e-6, "tflops": case.flops / us * 1e-6,
        "share": roof / us,
    }  # fmt: skip


class Runner:
    """Runs cases of one shape over shared weights."""

    def __init__(self, folder: Path, built: Built, until: float) -> None:
        kernels = {k.binary: k for k in built.kernels}
        self.driver = CudaDriver(CUDA_SM90A, lambda n: (folder / n).read_bytes(), kernels)
        self._until = until
        self._shape: tuple[object, ...] = ()
        self._weights: list[dict[str, torch.Tensor]] = []
        self.rows: list[dict[str, Any]] = []

    @property
    def left_s(self) -> float:
        """Seconds until it is to end."""
        return self._until - time.perf_counter()

    def _draw_weights(self, built: BuiltCase) -> None:
        shape = (built.case.op, *built.case.shape)
        if shape == self._shape:
            return
        self._shape, self._weights = shape, []
        torch.cuda.empty_cache()
        one = {n: v for n, v in built.values.items() if self._is_shared(built, n)}
        held = sum(prod(shape) * DTYPE_BYTES[dtype] for shape, dtype in one.values())
        for seed in range(max(1, min(16, -(-COLD_BYTES // held)))):
            torch.manual_seed(seed)
            self._weights.append({n: draw(n, shape, dtype) for n, (shape, dtype) in one.items()})

    @staticmethod
    def _is_shared(built: BuiltCase, name: str) -> bool:
        """Not what a gated product's own gate and up are."""
        weight = name.split(":")[0]
        return weight in SHARED and built.values[weight][1] == "f8E4M3FN"

    def draw_case(self, built: BuiltCase) -> Drawn:
        """Inputs, and what the case wants of them."""
        drawn = self.draw_inputs(built)
        return Drawn(drawn.own, reference(built.case, self._weights[0] | drawn.own))

    def draw_inputs(self, built: BuiltCase) -> Drawn:
        """Inputs alone."""
        case = built.case
        self._draw_weights(built)
        torch.manual_seed(case.rows)
        own = {
            n: draw(n, shape, dtype, case)
            for n, (shape, dtype) in built.values.items()
            if n not in self._weights[0]
        }
        own[NUM_ROWS] = torch.tensor([case.real], dtype=torch.int32, device="cuda")
        most = max((s.workspace_bytes for s in built.settings), default=0)
        own[WORKSPACE] = torch.full((max(most, 256),), 255, dtype=torch.uint8, device="cuda")
        own[ZEROED] = torch.zeros(1 << 20, dtype=torch.uint8, device="cuda")
        return Drawn(own, torch.empty(0))

    def check(
        self, case: ProductCase, setting: BuiltSetting, drawn: Drawn
    ) -> tuple[dict[str, Any], list[Callable[[], None]]]:
        """Whether the setting is right, and its launches over each set of weights."""
        memories = [Memory(shared, drawn.own) for shared in self._weights]
        bound = [
            [self.driver.bind(launch, m.resolve) for launch in setting.launches] for m in memories
        ]
        outs = [drawn.own[name] for name in case.outputs]
        for out in outs:
            out.view(torch.uint8).fill_(0x5A)
        drawn.own[WORKSPACE].fill_(255)
        for _ in range(2):  # what the first leaves must serve the second
            run_all(bound[0])
        torch.cuda.synchronize()
        row = self._verdict(case, setting, drawn)
        return row, [partial(run_all, each) for each in bound]

    def run(self, built: BuiltCase) -> bool:
        """Check and time every setting; True if all are right."""
        case, drawn = built.case, self.draw_case(built)
        found: list[dict[str, Any]] = []
        for setting in built.settings:
            if self.left_s < 3:
                print("out of time")
                break
            row, calls = self.check(case, setting, drawn)
            if row["right"] and case.timed:
                row |= rates(case, drawn.own, replay_us(self.driver, calls, 4e-3))
            found.append(row)
            self.rows.append(row)
        self._report(case, found)
        return all(row["right"] for row in found)

    def _verdict(self, case: ProductCase, setting: BuiltSetting, drawn: Drawn) -> dict[str, Any]:
        error = relative_error(found_in(case, drawn.own)[: case.real], drawn.want)
        bound = BOUNDS.get(f"{case.op} {case.form}", BOUNDS[case.op])
        rests = [drawn.own[name][case.real :].view(torch.uint8) for name in case.outputs]
        zeroed = drawn.own[ZEROED]
        problems = [
            "" if error <= bound else "error",
            "padding written" if any((rest != 0x5A).any() for rest in rests) else "",
            "zeroed left" if zeroed.any() else "",
        ]
        zeroed.zero_()
        what = " ".join(filter(None, problems))
        return {
            "case": case.name, "lowering": setting.lowering, "knobs": setting.knobs,
            "error": error, "right": not what, "wrong": what,
            "kernels": [x.binary for x in setting.launches if isinstance(x, KernelLaunch)],
        }  # fmt: skip

    def _report(self, case: ProductCase, found: list[dict[str, Any]]) -> None:
        for row in found:
            if not row["right"]:
                print(f"WRONG {row['wrong']} {row['error']:.2e} {case.name} {row['knobs']}")
        timed = sorted((row for row in found if "us" in row), key=lambda row: row["us"])
        for place, row in enumerate(timed[:3]):
            knobs = " ".join(f"{k}={v}" for k, v in row["knobs"].items() if v) or "by rule"
            print(
                f"{case.name if not place else '':<32} {row['us']:9.2f} us {row['tb_s']:5.2f} TB/s"
                f" {row['tflops']:6.1f} TF {100 * row['share']:5.1f} %"
                f" err {row['error']:.1e} {knobs}"
            )
        ruled = next((row for row in found if not row["knobs"] and "us" in row), None)
        if ruled and ruled not in timed[:3]:
            print(f"{'':<32} {ruled['us']:9.2f} us by rule")
        if timed or not found:
            return
        print(f"{case.name:<32} {len(found)} right, error {max(r['error'] for r in found):.1e}")


def run_cases(folder: Path, out: Path, only: str, budget_s: float) -> bool:
    """Check and time all, most important first; True if every setting is right."""
    built = msgspec.json.decode((folder / "cases.json").read_bytes(), type=Built)
    torch.backends.cuda.matmul.allow_tf32 = False
    runner = Runner(folder, built, time.perf_counter() + budget_s)
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    right = True
    out.mkdir(parents=True, exist_ok=True)
    for item in built.cases:
        if only in item.case.name and runner.left_s > 5:
            right = runner.run(item) and right
            (out / "fp8_products.json").write_text(json.dumps(runner.rows, indent=1))
    print(f"{len(runner.rows)} settings, {'all right' if right else 'WRONG ones'}")
    return right


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["compile", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--budget", type=float, default=110.0, help="seconds")
    options = parser.parse_args()
    if options.action == "compile":
        compile_cases(options.folder, options.only, cases())
    elif not run_cases(options.folder, options.out, options.only, options.budget):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
