"""What `serve` may ask of an artifact's sizes under SGLang's names. Looks at the manifest only."""

from __future__ import annotations

import os
from pathlib import Path

from lostwax.cli.option_types import OptionRefused


def require_within(
    artifact: Path,
    *,
    context_length: int | None,
    chunked_prefill_size: int | None,
    page_size: int | None,
) -> None:
    """OptionRefused where the artifact was compiled for less, or for other pages."""
    from lostwax.backends.runtime.artifact_reader import ArtifactReader

    limits = ArtifactReader(artifact).manifest.limits
    _require_most("--context-length", context_length, artifact, "--max-context", limits.max_context)
    _require_most(
        "--chunked-prefill-size", chunked_prefill_size, artifact, "--max-tokens", limits.max_tokens
    )
    if page_size not in (None, limits.page_tokens):
        raise OptionRefused(
            f"--page-size {page_size}: the kernels of {artifact} read pages of"
            f" {limits.page_tokens} tokens, which is fixed when it is compiled; leave it out"
        )


def _require_most(option: str, wanted: int | None, artifact: Path, ours: str, most: int) -> None:
    if wanted is not None and wanted > most:
        raise OptionRefused(
            f"{option} {wanted}: {artifact} was compiled with {ours} {most}; ask for 1 to {most},"
            " or compile it anew"
        )


def pages_within(artifact: Path, fraction: float) -> int:
    """Pages of cache so that all that lies on a device takes `fraction` of its memory: this
    machine's, or what the smallest device of the target has.

    OptionRefused where that is less than the rest takes.
    """
    from lostwax.backends.plan.memory_plan import plan_memory
    from lostwax.backends.runtime.artifact_reader import ArtifactReader

    target = ArtifactReader(artifact).manifest.target
    plan = plan_memory(artifact, 2)
    there = target.memory_bytes
    if target.replay != "graph":
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // plan.ranks
    pages = (int(there * fraction) - plan.total + plan.cache) // plan.page_bytes
    if pages < 2:
        raise OptionRefused(
            f"--mem-fraction-static {fraction:g} of {there / 2**30:.1f} GiB leaves no cache beside"
            f" the {(plan.total - plan.cache) / 2**30:.1f} GiB that weights and programs take;"
            " give more"
        )
    return min(pages, 2**31 - 1)


CACHES_IN_HOST = 2
"""How many times the cache's pages host memory takes in where nobody says how many: SGLang's
`--hicache-ratio`."""


def host_pages(artifact: Path, gigabytes: float, num_pages: int | None) -> int:
    """Pages of host memory that so much takes of each rank; 0 stands for CACHES_IN_HOST times the
    cache's `num_pages`.

    OptionRefused where no page fits, or all ranks together would take more than this machine has.
    """
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.backends.runtime.default_pages import default_pages
    from lostwax.ir.contract.caches import bytes_per_page

    manifest = ArtifactReader(artifact).manifest
    page_bytes = bytes_per_page(manifest.planes)
    pages = int(gigabytes * 1e9) // page_bytes
    if not gigabytes:
        pages = CACHES_IN_HOST * (num_pages or default_pages(manifest))
    if not pages:
        raise OptionRefused(
            f"--hicache-size {gigabytes:g} takes in no page: one has {page_bytes} bytes;"
            f" give {page_bytes / 1e9:.2g} or more"
        )
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = pages * page_bytes * manifest.world_size
    if wanted > there:
        raise OptionRefused(
            f"the prefix cache's tier in host memory takes {wanted / 1e9:.1f} GB and this machine"
            f" has {there / 1e9:.1f} GB; give a smaller --hicache-size"
        )
    return min(pages, 2**31 - 1)
