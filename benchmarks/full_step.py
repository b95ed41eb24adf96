"""Decode and prefill steps of V3.2 at its real widths on a GPU, beside the device's roofline.

On any machine: `python benchmarks/full_width.py compile --out ART --max-reqs 128 --max-context
34000`. On the GPU machine `python benchmarks/full_step.py ART --out FILE` draws weights and caches
on the device, measures what it reads and multiplies at most, then runs steps: microseconds on the
device and on the wall, the share of the roofline, kernels a step, and where the time goes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from step_roofline import Machine, decode_floor, draft_floor, prefill_floor

from lostwax.backends.registry import backends
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import Admission
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.load import Runtime
from lostwax.backends.runtime.load_weights import WeightBuffers
from lostwax.backends.runtime.ranks import Ranks
from lostwax.backends.runtime.ticket import StepTicket
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.caches import CachePlane
from lostwax.ir.contract.dtypes import packed_bytes
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter

QUEUED = 6
"""Steps in a row that are timed together."""
SCALE = 2.0**-13
"""Of drawn weights: products of unit rows stay near one."""


def _draw_bytes(shape: tuple[int, ...]) -> torch.Tensor:
    """Finite e4m3 numbers of all sizes, as bytes."""
    bits = torch.randint(0, 0x7E, shape, dtype=torch.uint8, device="cuda")
    return bits | torch.randint(0, 2, shape, dtype=torch.uint8, device="cuda") << 7


def draw_weights(reader: ArtifactReader) -> WeightBuffers:
    """Every stored weight, in its stored form."""
    plan, buffers = reader.weight_plan(), WeightBuffers()
    for prefix, group in plan.groups.items():
        for stored in plan.stored[group]:
            count = prod(stored.shape)
            if stored.dtype.startswith("f8"):
                buffer = _draw_bytes((count,))
            elif stored.dtype == "bf16":
                drawn = 0.02 * torch.randn(count, device="cuda", dtype=torch.bfloat16)
                buffer = (drawn if len(stored.shape) > 1 else drawn * 0 + 1).view(torch.uint8)
            else:
                value = SCALE if stored.is_scale else 0.01
                buffer = torch.full((count,), value, device="cuda").view(torch.uint8)
            assert buffer.numel() == packed_bytes(stored.dtype, count), stored
            buffers[prefix, stored.name] = buffer
    return buffers


def draw_cache(plane: CachePlane, buffer: torch.Tensor) -> None:
    """Unlike keys everywhere, so that selections are as scattered as real ones."""
    form, row = LAYOUTS[plane.layout], plane.row
    if form.element is not None and form.element != "f8E4M3FN":
        buffer.view(torch.bfloat16).normal_()
        return
    values, scales = row[0], 4 * form.scales(row)
    buffer.copy_(_draw_bytes((buffer.numel(),)))
    if not scales:
        return
    if form.is_paged:
        pages = buffer.view(-1, plane.page_tokens * form.row_bytes(row))
        pages[:, plane.page_tokens * values :].view(torch.float32).fill_(0.01)
        return
    rows = buffer.view(-1, form.row_bytes(row))
    rows[:, values : values + scales] = torch.full((scales // 4,), 0.01, device="cuda").view(
        torch.uint8
    )
    rest = rows[:, values + scales :]
    if rest.shape[1]:
        rest.copy_(
            torch.randn(rows.shape[0], rest.shape[1] // 2, device="cuda")
            .bfloat16()
            .view(torch.uint8)
        )


def drawn_runtime(artifact: Path, num_pages: int) -> Runtime:
    """The artifact, once its golden probes have run here, over drawn weights and caches."""
    reader = ArtifactReader(artifact)
    found = backends().get(reader.manifest.target.backend)
    assert found is not None
    compiled = {k.binary: k for k in reader.manifest.kernels}
    driver: Driver = found.load(found.driver)(reader.manifest.target, reader.kernel, compiled)
    Admission(None, False, print).admit(reader, driver, found.kernels)
    runtime = Runtime(reader, driver, draw_weights(reader), num_pages, Ranks.join(1))
    for plane in reader.manifest.planes:
        for layer in range(plane.layers):
            draw_cache(plane, runtime.memory.planes[plane.name, layer])
    return runtime


def _enter(runtime: Runtime, batch: int, length: int, spare: int) -> tuple[Enter, ...]:
    each = -(-(length + spare) // runtime.limits.page_tokens)
    order = torch.randperm(batch * each, generator=torch.Generator().manual_seed(0)) + 1
    pages = cast("list[list[int]]", order.view(batch, each).tolist())
    return tuple(
        Enter(i + 1, tuple(pages[i]), length, length + spare, length, tokens=(7 + i,))
        for i in range(batch)
    )


def _decode(batch: int, length: int, entering: tuple[Enter, ...] = ()) -> StepPlan:
    return StepPlan(
        entry="decode", seqs=tuple(range(1, batch + 1)), counts=(1,) * batch,
        ends=(length + 1,) * batch, entering=entering, logits=((0, batch),),
    )  # fmt: skip


def _timed(submit: Callable[[int], StepTicket], count: int) -> tuple[float, float]:
    """Microseconds of one of `count` queued steps on the device, and of a lone one on the wall."""
    submit(0).result()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    samples: list[float] = []
    for _ in range(5):
        submit(0)
        begin.record()
        tickets = [submit(0) for _ in range(count)]
        end.record()
        for ticket in tickets:
            ticket.result()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e3 / count)
    walls: list[float] = []
    for _ in range(10):
        start = time.perf_counter()
        submit(0).result()
        walls.append((time.perf_counter() - start) * 1e6)
    return statistics.median(samples), statistics.median(walls)


def _graphs_us(runtime: Runtime, plan: StepPlan) -> float:
    """Microseconds of the graphs of a decode step alone, replayed one behind the other."""
    (stage,) = runtime.programs.pick(plan)
    graphs = [runtime.bound(ref).replay for ref in stage]
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    samples: list[float] = []
    for _ in range(5):
        for replay in graphs:
            replay()
        begin.record()
        for replay in graphs * QUEUED:
            replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e3 / QUEUED)
    # Each replay took the device a place further, and the host none: it would read other plans.
    assert runtime.device_step is not None
    runtime.device_step.reset()
    return statistics.median(samples)


def own_symbols(runtime: Runtime) -> tuple[str, ...]:
    """Names of the artifact's own kernels."""
    return tuple(kernel.symbol for kernel in runtime.manifest.kernels)


def _anatomy(
    submit: Callable[[int], StepTicket], own: tuple[str, ...], steps: int = 3
) -> tuple[float, list[Any], list[Any]]:
    """Kernels a step; its time by kernel name as (us, launches, name): the largest shares, and all
    that are none of the artifact's own."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            submit(0).result()
        torch.cuda.synchronize()
    taken, count = Counter[str](), Counter[str]()
    events: Any = profile.events() or []  # torch gives no type
    for event in events:
        if event.device_type.name == "CUDA":
            taken[event.name] += event.device_time_total
            count[event.name] += 1
    rows = [
        (round(us / steps, 1), count[name] / steps, name[:60]) for name, us in taken.most_common()
    ]
    others = [row for row in rows if not row[2].startswith(own)]
    return sum(count.values()) / steps, rows[:14], others


def decode_row(
    runtime: Runtime, machine: Machine, batch: int, context: int, anatomy: bool
) -> dict[str, Any]:
    """One decode step of `batch` requests at `context`."""
    spare = 64 + 8 * (QUEUED + 8)
    length = context - 1
    runtime.run(_decode(batch, length, _enter(runtime, batch, length, spare)))
    state = {"length": length + 1}

    def submit(_: int) -> StepTicket:
        plan = _decode(batch, state["length"])
        state["length"] += 1
        return runtime.submit(plan)

    device_us, wall_us = _timed(submit, QUEUED)
    graphs_us = _graphs_us(runtime, _decode(batch, state["length"]))
    own = own_symbols(runtime)
    kernels, rows, others = _anatomy(submit, own) if anatomy else (0.0, [], [])
    floor = decode_floor(runtime.manifest, machine, batch, batch, context)
    return {
        "entry": "decode", "rows": batch, "context": context, "device_us": round(device_us, 1),
        "wall_us": round(wall_us, 1), "graphs_us": round(graphs_us, 1),
        "roofline_us": round(floor, 1), "share": round(floor / device_us, 3),
        "kernels": kernels, "anatomy": rows, "not_own": others,
        "host_waits": _host_waits(submit),
    }  # fmt: skip


def drafted_rows(
    runtime: Runtime, machine: Machine, batch: int, context: int
) -> list[dict[str, Any]]:
    """A step that verifies the most drafts of `batch` requests at `context`, and what drafting
    anew behind it takes: the difference of steps with and without."""
    drafts = runtime.limits.max_drafts
    rows, length = batch * (1 + drafts), context - 1 - drafts
    entering = tuple(
        msgspec.structs.replace(each, tokens=tuple(range(7, 8 + drafts)))
        for each in _enter(runtime, batch, length, 64)
    )

    def submit(again: int) -> StepTicket:
        return runtime.submit(
            StepPlan(
                entry="decode", seqs=tuple(range(1, batch + 1)), counts=(1 + drafts,) * batch,
                ends=(length + 1 + drafts,) * batch, entering=entering, logits=((0, rows),),
                drafts=again,
            )
        )  # fmt: skip

    verify_us, wall_us = _timed(lambda _: submit(0), QUEUED)
    both_us, both_wall_us = _timed(lambda _: submit(drafts), QUEUED)
    named = {"rows": rows, "requests": batch, "context": context}
    found: list[dict[str, Any]] = []
    of_step = runtime.manifest, machine, rows, batch, context
    for entry, us, wall, floor in (
        ("verify", verify_us, wall_us, decode_floor(*of_step)),
        (
            "draft", both_us - verify_us, both_wall_us - wall_us,
            draft_floor(*of_step),
        ),
    ):  # fmt: skip
        times = {"device_us": round(us, 1), "wall_us": round(wall, 1)}
        found.append(
            {"entry": entry} | named | times
            | {"roofline_us": round(floor, 1), "share": round(floor / us, 3)}
        )  # fmt: skip
    return found


def prefill_row(
    runtime: Runtime, machine: Machine, rows: int, start: int, anatomy: bool
) -> dict[str, Any]:
    """One extend step of a request's `rows` tokens behind `start` cached ones."""
    entering = _enter(runtime, 1, start, rows + 1)

    def submit(_: int) -> StepTicket:
        return runtime.submit(
            StepPlan(
                entry="extend", seqs=(1,), counts=(rows,), ends=(start + rows,),
                tokens=(5,) * rows, entering=entering, logits=((rows - 1, 1),),
            )
        )  # fmt: skip

    device_us, wall_us = _timed(submit, 2)
    own = own_symbols(runtime)
    kernels, table, others = _anatomy(submit, own, 1) if anatomy else (0.0, [], [])
    floor = prefill_floor(runtime.manifest, machine, rows, start)
    return {
        "entry": "extend", "rows": rows, "context": start, "device_us": round(device_us, 1),
        "wall_us": round(wall_us, 1), "roofline_us": round(floor, 1),
        "share": round(floor / device_us, 3), "kernels": kernels, "anatomy": table,
        "not_own": others, "host_waits": _host_waits(submit),
    }  # fmt: skip


def _host_waits(submit: Callable[[int], StepTicket]) -> list[str]:
    """What torch says of waits for the device while a step is submitted."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ticket = submit(0)
    torch.cuda.set_sync_debug_mode("default")
    ticket.result()
    return [str(each.message).splitlines()[0] for each in found]


def _pair(text: str) -> tuple[int, int]:
    rows, context = text.split("@")
    return int(rows), int(context)


def main() -> None:
    """Parse the command line, draw, measure the machine, run the steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument(
        "--decode", type=_pair, nargs="*", default=[(b, 4096) for b in (1, 16, 64, 128)]
    )
    parser.add_argument(
        "--prefill", type=_pair, nargs="*", default=[(1024, 0), (2048, 0), (1024, 3072)]
    )
    parser.add_argument(
        "--verify", type=_pair, nargs="*", default=[],
        help="requests@context: of an artifact with drafts",
    )  # fmt: skip
    parser.add_argument("--no-anatomy", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    manifest = ArtifactReader(options.artifact).manifest
    if options.verify and not manifest.limits.max_drafts:
        parser.error(
            f"--verify: {options.artifact} was compiled without drafts and has none to verify;"
            " compile it with --drafts 1 to 3, or leave --verify out"
        )
    each = [b * (-(-(c + 200) // manifest.limits.page_tokens)) for b, c in options.verify]
    each += [b * (-(-(c + 200) // manifest.limits.page_tokens)) for b, c in options.decode]
    each += [-(-(r + c + 1) // manifest.limits.page_tokens) for r, c in options.prefill]
    runtime = drawn_runtime(options.artifact, 1 + max(each))
    machine = Machine.measured()
    rows: list[dict[str, Any]] = []
    for batch, context in options.decode:
        rows.append(decode_row(runtime, machine, batch, context, not options.no_anatomy))
    for batch, context in options.verify:
        rows += drafted_rows(runtime, machine, batch, context)
    for count, context in options.prefill:
        rows.append(prefill_row(runtime, machine, count, context, not options.no_anatomy))
    report = {
        "command": " ".join(["python", "benchmarks/full_step.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "artifact": runtime.manifest.digest,
        "machine": machine.as_dict(),
        "rows": rows,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    for row in rows:
        print({k: v for k, v in row.items() if k not in ("anatomy", "not_own")})
        for line in row.get("anatomy", ()):
            print("   ", line)
        print("    not the artifact's own:", row.get("not_own", ()))


if __name__ == "__main__":
    main()
