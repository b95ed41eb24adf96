"""Finds tasks by the names that the command line takes. Knows no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lostwax.evals.graders.validation import Validation
from lostwax.evals.suites.aime import aime
from lostwax.evals.suites.gpqa import gpqa
from lostwax.evals.suites.gsm8k import gsm8k
from lostwax.evals.task import Task, TaskError
from lostwax.evals.task_file import read_task

SUITES = {
    "tiny": "every set of the tiny model's held-out documents",
    "gsm8k": "GSM8K: --data FILE --train FILE --shots N, by completion (--endpoint chat: by chat)",
    "gpqa": "multiple choice, options shuffled: --data FILE (JSON Lines, or GPQA's CSV)",
    "aime": "integers of 0 to 999: --data FILE",
    "FILE.jsonl": "a task file",
}
"""What may be named, with what it is."""
OF_DATA = ("gsm8k", "gpqa", "aime")
"""Those whose questions come from --data."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where tasks come from: the benchmark's own files, and the folder of the tiny model's sets.

    `thinking` None leaves it to the suite; `chat` asks GSM8K by messages.
    """

    tiny: Path
    data: Path | None = None
    train: Path | None = None
    shots: int = 8
    thinking: bool | None = None
    chat: bool = False


def find_tasks(names: Sequence[str], sources: Sources, only: Sequence[str] = ()) -> list[Task]:
    """The tasks of some suites; of those, if `only` names any, the ones that it names."""
    if (of_data := [n for n in names if n in OF_DATA]) and len(of_data) > 1:
        raise TaskError(f"{' and '.join(of_data)} have a --data file each; run one at a time")
    files: dict[str, Path] = {}
    for path in (path for name in names for path in _files(name, sources)):
        if files.setdefault(path.stem, path).resolve() != path.resolve():
            raise TaskError(
                f"{files[path.stem]} and {path} are both named {path.stem!r}, as their results"
                " would be; rename one, or run one at a time"
            )
    found = [_of_data(name, sources) for name in of_data]
    known = [*files, *(task.name for task in found)]
    for name in only:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}"
            raise TaskError(f"there is no task {name!r}. {hint}")
    chosen = [path for stem, path in files.items() if not only or stem in only]
    validation = Validation()  # one process for all
    tasks = [read_task(path, validation=validation) for path in chosen]
    return tasks + [task for task in found if not only or task.name in only]


def _files(name: str, sources: Sources) -> list[Path]:
    """The task files of a name; none for a benchmark, which has files of its own form."""
    if name in OF_DATA:
        return []
    if name == "tiny":
        if files := sorted(sources.tiny.glob("*.jsonl")):
            return files
        raise TaskError(
            f"this installation lacks the tiny model's tasks ({sources.tiny}); install lostwax from"
            " a whole source tree, or name a task file"
        )
    if name.endswith(".jsonl"):
        return [Path(name)]
    close = get_close_matches(name, SUITES, 1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Give one of {', '.join(SUITES)}"
    raise TaskError(f"unknown task {name!r}. {hint}")


def _of_data(name: str, sources: Sources) -> Task:
    if sources.data is None:
        raise TaskError(f"{name} needs its questions: give --data FILE")
    if name == "gsm8k":
        return gsm8k(
            sources.data,
            sources.train,
            sources.shots,
            chat=sources.chat,
            thinking=bool(sources.thinking),
        )
    thinking = sources.thinking is not False  # published numbers were made so
    if name == "gpqa":
        return gpqa(sources.data, thinking=thinking)
    return aime(sources.data, thinking=thinking)
