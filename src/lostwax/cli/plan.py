"""`lostwax plan`: the memory of each rank before anything is booted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from lostwax.backends.memory_plan import MemoryPlan


class NothingToPlan(ValueError):
    """What was named is neither an artifact nor a configuration."""


def plan(
    path: Path,
    /,
    *,
    num_pages: int | None = None,
    target: str = "cpu",
    dtype: Literal["fp32", "bf16"] = "bf16",
    max_context: int | None = None,
    max_tokens: int = 512,
    max_reqs: int = 8,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Print what each rank will take of its device's memory; needs no device and no weights.

    Parameters
    ----------
    path
        An artifact folder. Or a checkpoint folder, of which only config.json is read: then a
        compile into a temporary folder answers, in the published formats.
    num_pages
        Pages of cache (default: as many as serve takes).
    target
        What a checkpoint would be compiled for.
    dtype
        What a checkpoint would be compiled in.
    max_context
        Longest request of a checkpoint's programs.
    max_tokens
        Most rows of one extend step of a checkpoint's programs.
    max_reqs
        Most requests of one step of a checkpoint's programs.
    json_
        Print the plan as JSON on standard output.
    """
    from lostwax.backends.buckets import Sizes
    from lostwax.backends.memory_plan import plan_memory

    sizes = Sizes(max_context=max_context, max_tokens=max_tokens, max_reqs=max_reqs)
    with _artifact(path, target, dtype, sizes) as artifact:
        found = plan_memory(artifact, num_pages)
    if json_:
        sums = {"page_bytes": found.page_bytes, "cache": found.cache, "total": found.total}
        print(json.dumps(asdict(found) | sums))
    else:
        print("\n".join(_lines(found)))


@contextmanager
def _artifact(path: Path, target: str, dtype: str, sizes: object) -> Generator[Path]:
    """The artifact that was named, or a temporary one of the configuration."""
    if (path / "manifest.json").is_file():
        yield path
        return
    if not (path / "config.json").is_file():
        raise NothingToPlan(
            f"{path} is neither an artifact (it has no manifest.json) nor a checkpoint (it has no"
            " config.json); give the folder of one"
        )
    from lostwax.backends.buckets import Sizes
    from lostwax.backends.compile import CompileOptions, compile_module
    from lostwax.backends.registry import find_target
    from lostwax.frontend.capture import capture
    from lostwax.frontend.config import read_config

    assert isinstance(sizes, Sizes)
    find_target(target)
    captured = capture(read_config(path / "config.json"))
    options = CompileOptions(dtype="f32" if dtype == "fp32" else dtype, sizes=sizes)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "artifact")
        compile_module(captured.module, captured.facts, {}, target, out, options)
        yield out


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:12.1f} MiB"


def _lines(found: MemoryPlan) -> Iterator[str]:
    ranks = "1 rank" if found.ranks == 1 else f"each of {found.ranks} ranks"
    yield f"{found.target}, {ranks}"
    yield f"  weights    {_mib(found.weights)}"
    yield f"  arena      {_mib(found.arena)}"
    if found.state:
        yield f"  state      {_mib(found.state)}  hiddens that drafts read"
    yield f"  inputs     {_mib(found.inputs)}"
    yield f"  host calls {_mib(found.host_calls)}  at most, outside the arena"
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
