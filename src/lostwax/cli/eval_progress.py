"""A bar a task on standard error: samples done, right, failed. Knows no server."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lostwax.evals.run import Failure
from lostwax.evals.samples import Sample


class Progress:
    """Shows one task after the other; silent where standard error is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("", visible=False, said="")
        self._right = self._graded = self._failed = 0

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, name: str, total: int) -> None:
        """Begin a task of so many samples."""
        self._task = self._bars.add_task(name, total=total, said="")
        self._right = self._graded = self._failed = 0

    def told(self, news: Sample | Failure) -> None:
        """Count a sample or a failure."""
        if isinstance(news, Failure):
            self._failed += 1
        else:
            self._graded += 1
            self._right += news.grade.correct
        said = f"{self._right / self._graded:.1%} right" if self._graded else ""
        said += f" {self._failed} failed" if self._failed else ""
        self._bars.update(self._task, advance=1, said=said)
