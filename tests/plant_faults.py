"""Plants fault after fault in copies of the tree and counts how many the tests see, room by room.

`python tests/plant_faults.py [PART...]` prints `room: killed/planted` and ends with 1 where fewer
than nine of ten were seen. Before, the same tests pass over copies without a fault. The tree itself
is never changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from signal import SIGKILL
from typing import Literal

from planted_faults import ROOT, Fault, all_faults

NUM_COPIES = 2
LEAST_KILLED = 0.9
TIMEOUT_S = 120.0
"""Of a fault's tests: who makes them hang is seen, if not well."""
_FAILED = 1
"""What pytest ends with where a test has failed, and nothing else went wrong."""
_KEPT_OUT = ("__pycache__", ".*", "*.egg-info", "build", "dist")

Fate = Literal["killed", "hung", "survived", "broken"]


class Copy:
    """A copy of the tree, in which one fault at a time is planted and tests run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(*_KEPT_OUT))

    def fate(self, fault: Fault) -> tuple[Fate, str]:
        """What becomes of a fault, and the end of what pytest said."""
        path = self._folder / fault.file
        source = path.read_text()
        self._write(path, fault.planted(source))
        try:
            status, said = self.run(fault.tests)
        finally:
            self._write(path, source)
        if status is None:
            return "hung", said
        fates: dict[int, Fate] = {0: "survived", _FAILED: "killed"}
        return fates.get(status, "broken"), said

    def run(self, tests: Sequence[str]) -> tuple[int | None, str]:
        """The status that pytest ends with, None where it takes too long; its output's end."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-qx", "-n", "0", "-p", "no:cacheprovider", *tests],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(self._folder / "src"), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            text=True,
            errors="replace",
        )
        try:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return None, f"no end within {TIMEOUT_S:g} s"
        finally:
            # Also what the tests have started and a fault has left behind.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, SIGKILL)
            process.wait()
        return process.returncode, "\n".join(said.splitlines()[-15:])

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        # Compiled code is told apart by seconds and sizes, and a fault may have neither of its own.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)


def main() -> None:
    """Plant all faults, or those that are named by a part of their file or words."""
    parser = argparse.ArgumentParser(prog="plant_faults.py")
    parser.add_argument("only", nargs="*", help="faults whose file or words hold one of these")
    only: list[str] = parser.parse_args().only
    faults = [
        fault
        for fault in all_faults()
        if not only or any(part in f"{fault.file} {fault.what}" for part in only)
    ]
    if not faults:
        parser.error(f"no fault's file or words hold any of: {', '.join(only)}")
    with tempfile.TemporaryDirectory(prefix="lostwax-planted-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(NUM_COPIES):
            copies.put(Copy(Path(folder) / str(number)))
        with ThreadPoolExecutor(NUM_COPIES) as threads:
            raise SystemExit(_tried(faults, copies, threads))


def _tried(faults: Sequence[Fault], copies: SimpleQueue[Copy], threads: ThreadPoolExecutor) -> int:
    """The exit status, once all have been planted and every room has been told of."""

    def passes(tests: str) -> tuple[str, int | None, str]:
        copy = copies.get()
        try:
            return tests, *copy.run([tests])
        finally:
            copies.put(copy)

    def fate(fault: Fault) -> tuple[Fault, Fate, str, float]:
        begin, copy = time.monotonic(), copies.get()
        try:
            return fault, *copy.fate(fault), time.monotonic() - begin
        finally:
            copies.put(copy)

    without = sorted({name for fault in faults for name in fault.tests})
    for tests, status, said in threads.map(passes, without):
        if status != 0:
            print(f"without a fault {tests} does not pass:\n{said}", flush=True)
            return 2
    planted, killed = Counter[str](), Counter[str]()
    is_broken = False
    for fault, what, said, seconds in threads.map(fate, faults):
        planted[fault.room] += 1
        killed[fault.room] += what in ("killed", "hung")
        is_broken = is_broken or what == "broken"
        print(f"{what:8} {seconds:5.1f} s  {fault.file}: {fault.what}", flush=True)
        if what == "broken":
            print(f"no test of it could run:\n{said}", flush=True)
    for room, count in planted.items():
        print(f"{room}: {killed[room]}/{count}", flush=True)
    few = [room for room, count in planted.items() if killed[room] < LEAST_KILLED * count]
    return int(is_broken or bool(few))


if __name__ == "__main__":
    main()
