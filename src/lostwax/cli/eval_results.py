"""Where finished samples are kept: in --out for good, else in the user's cache until all are there.

So a run that was stopped goes on when the same command is given again. What is kept in the cache is
forgotten once the run is complete: a server may be another one behind the same name tomorrow.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lostwax.evals.task import Sampling, Task
from lostwax.ir.contract.canonical import canonical_json

FOLDER = "evals"
"""Within lostwax's part of the user's cache."""
MAX_KEPT = 16
"""Unfinished runs; the one that was not gone on with for longest goes first."""


@dataclass(slots=True)
class Results:
    """The folder of one run's samples. `cache` is where --cache or the environment says.

    `folder` is None before `open`, and where nothing can be kept.
    """

    out: Path | None
    cache: Path
    folder: Path | None = field(default=None, init=False)

    def open(
        self, tasks: Sequence[Task], samplings: Sequence[Sampling], settings: dict[str, Any]
    ) -> None:
        """Make the folder; of the cache, one named by all that decides an answer and its grade."""
        if self.out is not None:
            self.folder = self.out
            return
        folder = self.cache / FOLDER / _name(tasks, samplings, settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)
            self.folder = folder
        except OSError as error:
            print(
                f"samples cannot be kept in {folder} ({error.strerror}), so a run that is stopped"
                " begins anew; give --out DIR to keep them",
                file=sys.stderr,
            )
            return
        _remove_oldest(folder)

    def close(self, report: bytes, *, is_complete: bool) -> None:
        """Keep the report in --out; forget a complete run that was kept in the cache."""
        if self.out is not None:
            (self.out / "report.json").write_bytes(report)
        elif self.folder is not None and is_complete:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def kept(self) -> str:
        """What to say to somebody who stopped the run."""
        if self.folder is None:
            return "stopped; nothing was kept"
        return f"stopped; {self.folder} holds what is finished, and the same command goes on"


def _name(tasks: Sequence[Task], samplings: Sequence[Sampling], settings: dict[str, Any]) -> str:
    asked = [
        (task.name, msgspec.to_builtins(sampling), msgspec.to_builtins(task.examples))
        for task, sampling in zip(tasks, samplings, strict=True)
    ]
    digest = hashlib.sha256(canonical_json([settings, asked])).hexdigest()[:16]
    return f"{tasks[0].name if len(tasks) == 1 else f'{len(tasks)}-tasks'}-{digest}"


def _remove_oldest(kept: Path) -> None:
    others = [path for path in kept.parent.iterdir() if path != kept and path.is_dir()]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[MAX_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
