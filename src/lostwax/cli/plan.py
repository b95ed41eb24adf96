"""`lostwax plan`: the memory of each rank before anything is booted."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from lostwax.backends.runtime.phases import Phases
from lostwax.backends.runtime.say import result, result_json
from lostwax.cli.named_paths import Model, is_artifact
from lostwax.cli.option_types import MORE, Count, Json, OptionRefused, Pages, TargetName

if TYPE_CHECKING:
    from lostwax.backends.plan.memory_plan import MemoryPlan
    from lostwax.backends.plan.sizes import Sizes


def plan(
    path: Model,
    /,
    *,
    num_pages: Pages | None = None,
    target: TargetName | None = None,
    dtype: Literal["fp32", "bf16"] | None = None,
    max_context: Count | None = None,
    max_tokens: Annotated[Count | None, MORE] = None,
    max_reqs: Annotated[Count | None, MORE] = None,
    json_: Json = False,
) -> None:
    """Print what each rank will take of its device's memory; needs no device and no weights.

    Parameters
    ----------
    path
        The folder of an artifact or of a checkpoint. Of a checkpoint only config.json is read: a
        compile into a temporary folder answers, in the published formats.
    num_pages
        Pages of cache (default: as many as serve takes).
    target
        What a checkpoint would be compiled for (default: cpu).
    dtype
        What a checkpoint would be compiled in (default: bf16).
    max_context
        Longest request of a checkpoint's programs.
    max_tokens
        Most rows of one extend step of a checkpoint's programs (default: 512).
    max_reqs
        Most requests of one step of a checkpoint's programs (default: 8).
    json_
        Print the plan as JSON on standard output.
    """
    given = {
        "--target": target,
        "--dtype": dtype,
        "--max-context": max_context,
        "--max-tokens": max_tokens,
        "--max-reqs": max_reqs,
    }
    from lostwax.backends.plan.memory_plan import plan_memory
    from lostwax.backends.plan.sizes import Sizes

    if is_artifact(path):
        if used := [name for name, value in given.items() if value is not None]:
            raise OptionRefused(
                f"{path} is compiled already, and {' and '.join(used)} would change nothing; leave"
                " it out, or plan its checkpoint"
            )
        found = plan_memory(path, num_pages)
    else:
        sizes = Sizes(max_context=max_context, max_tokens=max_tokens or 512, max_reqs=max_reqs or 8)
        with _compiled(path / "config.json", target or "cpu", dtype or "bf16", sizes) as artifact:
            found = plan_memory(artifact, num_pages)
    if json_:
        sums = {"cache": found.cache, "total": found.total, "beyond": found.beyond}
        result_json(asdict(found) | {"page_bytes": found.page_bytes} | sums)
    else:
        for line in _lines(found):
            result(line)


@contextmanager
def _compiled(config: Path, target: str, dtype: str, sizes: Sizes) -> Generator[Path]:
    """A temporary artifact of a configuration, with phases on standard error."""
    from lostwax.backends.asked import Asked, require_possible
    from lostwax.backends.registry import find_target
    from lostwax.frontend.checkpoint import PAGE_TOKENS, model_facts
    from lostwax.frontend.config import read_config

    read = read_config(config)
    asked = Asked("f32" if dtype == "fp32" else dtype, sizes)
    facts = model_facts(read, read.digest, PAGE_TOKENS)
    require_possible(asked, facts, find_target(target)[1], has_mtp=read.has_mtp)
    phases = Phases("import compiler")
    from lostwax.backends.compile import CompileOptions, compile_module
    from lostwax.frontend.capture import capture

    phases("capture")
    captured = capture(read)
    options = CompileOptions(dtype=asked.dtype, sizes=sizes)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "artifact")
        compile_module(captured.module, captured.facts, {}, target, out, options, progress=phases)
        phases.end()
        yield out


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:12.1f} MiB"


def _lines(found: MemoryPlan) -> Iterator[str]:
    ranks = "1 rank" if found.ranks == 1 else f"each of {found.ranks} ranks"
    yield f"{found.target}, {ranks}"
    yield f"  weights    {_mib(found.weights)}"
    yield f"  arena      {_mib(found.arena)}"
    if found.state:
        yield f"  state      {_mib(found.state)}  hiddens, masks, biases, counts, sequences"
    if found.zeroed:
        yield f"  zeroed     {_mib(found.zeroed)}  workspace that kernels leave zero"
    yield f"  inputs     {_mib(found.inputs)}"
    yield f"  host calls {_mib(found.host_calls)}  at most, outside the arena"
    if found.scratch:
        yield f"  scratch    {_mib(found.scratch)}  of each thread; the total has one's"
    tokens = found.num_pages * found.page_tokens
    yield (
        f"  cache      {_mib(found.cache)}  {found.num_pages} pages of {found.page_tokens} tokens"
        f" ({tokens} tokens), {found.page_bytes} bytes a page:"
    )
    for name, num_bytes in found.planes.items():
        yield f"    {name:<9}{_mib(num_bytes * found.num_pages)}  {num_bytes} bytes a page"
    if found.graphs:
        yield f"  graphs     {_mib(found.graph_bytes)}  {found.graphs} programs, an estimate"
    if found.libraries:
        yield f"  libraries  {_mib(found.libraries)}"
    yield f"  total      {_mib(found.total)}"
    if found.beyond:
        yield (
            f"  beyond     {_mib(found.beyond)}  what the smallest device of {found.target} has"
            f" ({found.device / 2**20:.1f} MiB)"
        )
