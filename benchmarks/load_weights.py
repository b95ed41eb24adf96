"""How fast weights come from a checkpoint into a device, beside the disk and the link.

    python benchmarks/load_weights.py ARTIFACT --checkpoint DIR --out FILE

Loads as `lostwax serve` does, the checkpoint in the page cache, twice; beside it what plain reads
of its files give from there and, once their pages were dropped, from the disk, and what a pinned
buffer gives over the link. GB/s are of the checkpoint's bytes (the link's: of the buffer's).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from lostwax.backends.registry import backends
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.load_weights import load_weights

CHUNK = 16 << 20
LINK_BYTES = 1 << 30


def read_files(files: list[Path], num_threads: int, *, cold: bool) -> float:
    """GB/s of plain reads of all files, in chunks, by so many threads."""
    chunks = [(file, at) for file in files for at in range(0, file.stat().st_size, CHUNK)]
    if cold:
        os.sync()
        for file in files:
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read(chunk: tuple[Path, int]) -> int:
        file, at = chunk
        with file.open("rb", buffering=0) as opened:
            opened.seek(at)
            return opened.readinto(memoryview(bytearray(CHUNK))) or 0

    begin = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        total = sum(pool.map(read, chunks))
    return total / (time.perf_counter() - begin) / 1e9


def link(driver: Driver) -> float:
    """GB/s of pinned host memory into the device."""
    host, there = driver.staging(LINK_BYTES).zero_(), driver.allocate(LINK_BYTES)
    there.copy_(host, non_blocking=True)
    driver.synchronize()
    begin = time.perf_counter()
    there.copy_(host, non_blocking=True)
    driver.synchronize()
    return LINK_BYTES / (time.perf_counter() - begin) / 1e9


def main() -> None:
    """Load twice, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    reader = ArtifactReader(options.artifact)
    found = backends().get(reader.manifest.target.backend)
    assert found is not None
    driver: Driver = found.load(found.driver)(reader.manifest.target, reader.kernel, {})
    files = sorted(options.checkpoint.glob("*.safetensors"))
    num_bytes = sum(file.stat().st_size for file in files)
    on_device = not driver.memory.is_host
    report: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/load_weights.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if on_device else "the host's memory",
        "checkpoint_gb": round(num_bytes / 1e9, 2),
        "disk_gbps": {n: round(read_files(files, n, cold=True), 2) for n in (1, 8)},
        "page_cache_gbps": {n: round(read_files(files, n, cold=False), 2) for n in (1, 8)},
    }
    if on_device:
        report["link_gbps"] = round(link(driver), 1)
    plan = reader.weight_plan()
    report["load_gbps"] = []
    for _ in range(2):
        begin = time.perf_counter()
        load_weights(plan, options.checkpoint, driver)
        driver.synchronize()
        report["load_gbps"].append(round(num_bytes / (time.perf_counter() - begin) / 1e9, 2))
    print(json.dumps(report, indent=1))
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
