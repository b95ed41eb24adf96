"""How an evaluation goes, on standard error: bars in a terminal, else a line now and then.

Counts samples done, right and failed. Knows no server.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lostwax.backends.runtime.say import MAX_NAME, say
from lostwax.evals.run import Failure
from lostwax.evals.samples import Sample
from lostwax.ir.contract.one_line import one_line

INTERVAL_S = 10.0
"""Between two lines of a log: more often would bury what else it holds."""


class _Count:
    """What one task has come to."""

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.right = self.graded = self.failed = 0
        self._start = time.monotonic()

    @property
    def done(self) -> int:
        return self.graded + self.failed

    def add(self, news: Sample | Failure) -> None:
        if isinstance(news, Failure):
            self.failed += 1
        else:
            self.graded += 1
            self.right += news.grade.correct

    @property
    def said(self) -> str:
        parts = [f"{self.right / self.graded:.1%} right"] if self.graded else []
        parts += [f"{self.failed} failed"] if self.failed else []
        return " ".join(parts)

    @property
    def line(self) -> str:
        spent_s = time.monotonic() - self._start
        parts = [f"{self.name}: {self.done} of {self.total}", self.said, f"{spent_s:.0f} s"]
        if 0 < self.done < self.total:
            parts.append(f"about {spent_s / self.done * (self.total - self.done):.0f} s left")
        return ", ".join(part for part in parts if part)


class Progress:
    """Shows one task after the other."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        console = Console(stderr=True)
        self._is_log = not console.is_terminal
        self._bars = Bars(
            TextColumn("{task.description:<20}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            disable=self._is_log,
        )
        self._task = self._bars.add_task("", visible=False, said="")
        self._count: _Count | None = None
        self._interval_s = interval_s
        self._ended = threading.Event()
        # A thread, since nothing else need happen for minutes while one answer is awaited.
        self._log = threading.Thread(target=self._keep_log, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._bars.start()
        if self._is_log:
            self._log.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bars.stop()
        self._ended.set()
        if self._is_log:
            self._log.join()
            self._say()

    def begin(self, name: str, total: int) -> None:
        """Begin a task of so many samples."""
        self._say()
        self._count = _Count(name, total)
        self._task = self._bars.add_task(one_line(name, MAX_NAME), total=total, said="")

    def told(self, news: Sample | Failure) -> None:
        """Count a sample or a failure."""
        assert self._count is not None, "a task has begun"
        self._count.add(news)
        self._bars.update(self._task, advance=1, said=self._count.said)

    def _say(self) -> None:
        if self._is_log and self._count is not None:
            say(self._count.line)

    def _keep_log(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._say()
