"""Checks and times expanded causal MHA in CUDA C++, beside the absorbed form and torch in one call.

    python benchmarks/dense_mha.py compile FOLDER [--masked]  # needs nvcc, no GPU
    python benchmarks/dense_mha.py run FOLDER --out DIR    # needs the GPU, no compiler
    compute-sanitizer --tool memcheck python benchmarks/dense_mha.py small FOLDER

With --masked of rows that selected 2,048 keys. Checks come first, with kernels that trap where they
wait for seconds; then every form is timed.
Each item runs in a child process that is ended where it takes too long: then the other items go on
in another one, without the rest of that form. TFLOP/s are of visible pairs alone, 640 a pair and
head; buffers are the same in each call, so that what fits stays in L2.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mha_cases
import mla_cases
import msgspec
import torch
from gpu_cases import DTYPES
from gpu_kernels import replay_us
from item_process import ItemProcess
from mha_cases import CONTEXTS_A_ROW, Step
from mha_steps import (
    FORMS,
    checked_masked_steps,
    checked_steps,
    timed_masked_steps,
    timed_steps,
)

from lostwax.backends.cuda.driver import CudaDriver
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import Pointer
from lostwax.ir.contract.program import KernelLaunch, Launch, View

BOUND, MEDIAN = 2e-2, 5e-3
"""|out - reference| / |reference| of rows by head: the worst, half of them."""
START_SECONDS, ITEM_SECONDS = 60.0, 25.0
WORKSPACE = "workspace"
ABSORBED, OWN = "absorbed", "expanded"
ATTENDS = ("sm90_causal_mha", "sm90_masked_mha")


class Item(msgspec.Struct):
    """One thing to check or time: launches, of which the first runs once a step."""

    action: str
    by: str
    step: Step
    workspace_bytes: int
    values: dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]]
    launches: list[Launch]

    @property
    def name(self) -> str:
        """What is printed."""
        knobs = " ".join(f"{k}={v}" for k, v in self.step.knobs.items())
        return f"{self.action} {self.by} {knobs} | {self.step.name}"


class Folder(msgspec.Struct):
    """Contents of items.json."""

    kernels: list[CompiledKernel]
    items: list[Item]


def compile_items(folder: Path, is_masked: bool) -> None:
    """Emit the launches of every item and compile their kernels."""
    from lostwax.backends.cuda.compiler import CudaCompiler
    from lostwax.backends.cuda.lowerings.causal_mha import CAUSAL_MHA
    from lostwax.backends.cuda.lowerings.masked_mha import MASKED_MHA
    from lostwax.backends.cuda.lowerings.sparse_mla import SPARSE_MLA, SPARSE_MLA_ALL
    from lostwax.backends.plan.step_launch import step_launch
    from lostwax.backends.proof.plain_match import PlainMatch, Value
    from lostwax.ir.contract.program import Bucket, Guard, Linear
    from lostwax.ir.contract.step_kernel import StepKernel

    folder.mkdir(parents=True, exist_ok=True)
    plain = CudaCompiler(CUDA_SM90A)

    class Bounded:
        """Kernels that trap where they wait for seconds."""

        def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
            constants = dict(source.constants) | {"BOUNDED_WAITS": 1}
            return plain.compile(msgspec.structs.replace(source, constants=constants), folder)

        def toolchain(self) -> dict[str, str]:
            return plain.toolchain()

    known: dict[str, dict[str, CompiledKernel]] = {"check": {}, "time": {}}
    compilers = {"check": Bounded(), "time": plain}

    def match_of(step: Step, action: str) -> PlainMatch:
        values = {n: Value(*given) for n, given in mha_cases.shapes(step).items()}
        cache = replace(values["cache_in"], parts=(512, 64), layout=step.layout)
        most = step.total if step.top else CONTEXTS_A_ROW * step.rows
        guard = Guard("bounded", (Linear({"total_kv": 1}, most),), selects_all=not step.top)
        return PlainMatch(
            CUDA_SM90A,
            Bucket(step.rows, step.reqs, step.pages),
            values | {"cache_in": cache},
            {("op", "scale"): mla_cases.SCALE},
            compilers[action],
            folder,
            segment="extend",
            guard=guard,
            built=known[action],
        )

    def own(step: Step, action: str) -> Item:
        match, knobs = match_of(step, action), expanded.default_knobs() | step.knobs
        (kernel,) = expanded.prepare(match, knobs)
        assert isinstance(kernel, StepKernel)
        values = {n: Value(shape, dtype) for n, dtype, shape in kernel.outputs}
        match.values = dict(match.values) | values
        outputs = {name: match.view(name) for name in values}
        first = step_launch(kernel, match.step_input, outputs, match.build, match.target)
        launches = [first, *match.emit(expanded, knobs)]
        return _item(action, OWN, step, match, launches)

    def absorbed(step: Step) -> Item:
        match = match_of(replace(step, knobs={}), "time")
        launches = list(match.emit(absorbing))
        return _item("time", ABSORBED, replace(step, knobs={}), match, launches)

    def _item(action: str, by: str, step: Step, match: PlainMatch, launches: list[Launch]) -> Item:
        values = {n: (v.shape, v.dtype, v.strides) for n, v in match.values.items()}
        return Item(action, by, step, match.workspace_bytes, values, launches)

    expanded, absorbing, checked, timed = CAUSAL_MHA, SPARSE_MLA_ALL, checked_steps, timed_steps
    if is_masked:
        expanded, absorbing = MASKED_MHA, SPARSE_MLA
        checked, timed = checked_masked_steps, timed_masked_steps
    items = [own(step, "check") for step in checked()]
    first = next(timed()).knobs
    both = [step for step in timed() if step.knobs == first]
    items += [made for step in both for made in (own(step, "time"), absorbed(step))]
    items += [own(step, "time") for step in timed() if step.knobs != first]
    kernels = {k.binary: k for each in known.values() for k in each.values()}
    listed = [kernels[name] for name in sorted(kernels)]
    (folder / "items.json").write_bytes(msgspec.json.encode(Folder(listed, items)))
    for kernel in listed:
        print(f"{kernel.binary}: {kernel.registers} registers, {kernel.shared_bytes} shared bytes")
    print(f"{len(items)} items in {folder}")


class Buffers:
    """An item's buffers by name, filled with a seed's inputs; what nothing fills is NaN."""

    def __init__(self, item: Item, driver: CudaDriver) -> None:
        self._values = item.values
        self._bytes: dict[str, torch.Tensor] = {}
        for name, (shape, dtype, strides) in item.values.items():
            need = mla_cases.num_bytes(tuple(shape), tuple(strides), DTYPES[dtype].itemsize)
            self._bytes[name] = driver.allocate(need).fill_(255)
        self._bytes[WORKSPACE] = driver.allocate(item.workspace_bytes).fill_(255)
        rows = torch.tensor([item.step.real], dtype=torch.int32, device=driver.device)
        self._bytes["num_rows"] = rows.view(torch.uint8)
        for name, value in mha_cases.inputs(item.step, 1, driver.device).items():
            if name == "cache_in":
                self._bytes[name].copy_(value.flatten())
            else:
                self.tensor(name).copy_(value)
        self.thunks = [driver.bind(launch, self.resolve) for launch in item.launches]

    def resolve(self, view: View) -> torch.Tensor:
        """A view's tensor."""
        kind = DTYPES[view.dtype]
        rest = self._bytes[view.name].view(torch.uint8).flatten()[view.offset :]
        flat = rest[: rest.numel() // kind.itemsize * kind.itemsize].view(kind)
        return torch.as_strided(flat, view.shape, view.strides)

    def tensor(self, name: str) -> torch.Tensor:
        """A value's tensor."""
        shape, dtype, strides = self._values[name]
        dense = tuple(torch.Size(shape[i + 1 :]).numel() for i in range(len(shape)))
        view = View(
            space="input",
            name=name,
            dtype=dtype,
            shape=tuple(shape),
            strides=tuple(strides) or dense,
        )
        return self.resolve(view)

    @property
    def cache_rows(self) -> torch.Tensor:
        """The cache as bytes [rows, row_bytes]."""
        return self._bytes["cache_in"].view(self._values["cache_in"][0][0] * 64, -1)

    def run(self) -> None:
        """All launches."""
        for thunk in self.thunks:
            thunk()


def check(item: Item, driver: CudaDriver) -> dict[str, object]:
    """Errors of sampled rows by head; rows behind the step's left alone; equal bits in a graph."""
    step, buffers = item.step, Buffers(item, driver)
    buffers.run()
    driver.synchronize()
    out = buffers.tensor("op.out")
    first = out.clone()
    replay = driver.capture([buffers.run])
    replay()
    driver.synchronize()
    same = torch.equal(first[: step.real], out[: step.real])
    alone = bool(out[step.real :].isnan().all())
    read = ("q_nope", "q_pe", "kv_b", "positions", "q_starts", "page_table", "selection")
    stored = {name: buffers.tensor(name) for name in read}
    stored["cache_in"] = buffers.cache_rows
    found: list[torch.Tensor] = []
    for row in mha_cases.sampled_rows(step):
        want = mha_cases.reference(step, stored, row)
        got = first[row].double().view(step.heads, -1)
        norms = [cast("Any", x).norm(dim=1) for x in (got - want, want)]
        found.append(norms[0] / norms[1])
    errors = torch.cat(found)
    worst = float("nan") if bool(errors.isnan().any()) else float(errors.max())
    median = float(errors.median())
    right = same and alone and worst <= BOUND and median <= MEDIAN
    return {"right": right, "worst": worst, "median": median, "same": same, "alone": alone}


def torch_us(step: Step, driver: CudaDriver) -> float:
    """torch's own attention over keys and values that are there already; equal new prompts only."""
    reqs, length = len(step.requests), step.requests[0][1]
    shape = (reqs, step.heads, length)
    query, keys = (torch.randn(*shape, 192, device=driver.device).bfloat16() for _ in range(2))
    values = torch.randn(*shape, 128, device=driver.device).bfloat16()

    def call() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, keys, values, is_causal=True)

    return replay_us(driver, [call])


def tickets_of(launch: KernelLaunch) -> list[View]:
    """What a kernel that attends counts its tickets in: one number of the workspace."""
    views = [p.view for p in launch.params if isinstance(p, Pointer)]
    return [view for view in views if (view.name, view.shape) == (WORKSPACE, (1,))]


def time_item(item: Item, driver: CudaDriver) -> dict[str, object]:
    """Median us of all launches, and by kernel of all groups of heads together."""
    step, buffers = item.step, Buffers(item, driver)
    told: dict[str, object] = {"whole_us": replay_us(driver, [buffers.run])}
    by_kernel: dict[str, list[Callable[[], object]]] = {}
    for launch, thunk in zip(item.launches, buffers.thunks, strict=True):
        name = launch.symbol if isinstance(launch, KernelLaunch) else launch.function.split(":")[1]
        listed = by_kernel.setdefault(name, [])
        if isinstance(launch, KernelLaunch) and name in ATTENDS:
            # what the launch in front of it does: a memset of 2 us, counted with it
            listed += [buffers.resolve(view).zero_ for view in tickets_of(launch)]
        listed.append(thunk)
    for name, thunks in by_kernel.items():

        def run(given: list[Callable[[], object]] = thunks) -> None:
            for thunk in given:
                thunk()

        us = replay_us(driver, [run])
        told[f"{name}_us"] = round(us, 1)
        if name in ATTENDS:
            told["tflops"] = round(640 * step.pairs * step.heads / us / 1e6)
        if name == "sm90_expand_latents":
            told["expand_tflops"] = round(2 * 512 * 256 * step.total * step.heads / us / 1e6)
    if item.by == ABSORBED and not any(prefix for prefix, _ in step.requests):
        try:
            told["torch_us"] = round(torch_us(step, driver), 1)
        except RuntimeError as error:  # a peer that fails must not hide our numbers
            told["torch"] = str(error).splitlines()[0]
    return told


def run_child(folder: Path) -> None:
    """Runs items whose numbers come on standard input, a line each; answers each by a line."""
    found = msgspec.json.decode((folder / "items.json").read_bytes(), type=Folder)
    kernels = {k.binary: k for k in found.kernels}
    driver = CudaDriver(CUDA_SM90A, lambda name: (folder / name).read_bytes(), kernels)
    print(
        json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__}), flush=True
    )
    for line in sys.stdin:
        item = found.items[int(line)]
        told = check(item, driver) if item.action == "check" else time_item(item, driver)
        torch.cuda.empty_cache()
        print(json.dumps(told), flush=True)


def run_items(folder: Path, out: Path, budget_s: float) -> bool:
    """Everything, a child after another where one is lost; True if all checks are right."""
    found = msgspec.json.decode((folder / "items.json").read_bytes(), type=Folder)
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "child", str(folder)]
    began, child, right = time.monotonic(), ItemProcess(command, START_SECONDS), True
    device, lost, results = child.first, list[dict[str, int]](), list[dict[str, Any]]()
    print(device, flush=True)
    for number, item in enumerate(found.items):
        form = {k: v for k, v in item.step.knobs.items() if k in FORMS[0]}
        told: dict[str, Any] | None = {"skipped": "its form was lost"}
        if time.monotonic() - began > budget_s:
            told = {"skipped": "out of time"}
        elif item.by != OWN or form not in lost:
            told = child.ask(str(number), ITEM_SECONDS)
            if told is None:
                told, lost = {"lost": "late, or the process ended"}, [*lost, form]
                child.end()
                child = ItemProcess(command, START_SECONDS)
        right = right and (item.action != "check" or told.get("right") is True)
        results.append({"item": item.name, **told})
        print(f"{time.monotonic() - began:5.1f} s {item.name}: {told}", flush=True)
        summary = {
            "device": device,
            "binaries": [k.digest for k in found.kernels],
            "results": results,
        }
        (out / "dense_mha.json").write_text(json.dumps(summary, indent=1))
    child.end()
    return right


def run_small(folder: Path) -> None:
    """The checked steps of few heads once, for the sanitizer; compares nothing."""
    found = msgspec.json.decode((folder / "items.json").read_bytes(), type=Folder)
    kernels = {k.binary: k for k in found.kernels}
    driver = CudaDriver(CUDA_SM90A, lambda name: (folder / name).read_bytes(), kernels)
    for item in found.items:
        if item.action == "check" and item.step.heads <= 16:
            Buffers(item, driver).run()
            driver.synchronize()
            print(f"ran {item.name}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["compile", "run", "small", "child"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--masked", action="store_true", help="compile: rows with a selection")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--budget", type=float, default=90, help="seconds for checks and timings")
    options = parser.parse_args()
    if options.action == "compile":
        compile_items(options.folder, options.masked)
    elif options.action == "small":
        run_small(options.folder)
    elif options.action == "child":
        run_child(options.folder)
    elif not run_items(options.folder, options.out, options.budget):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
