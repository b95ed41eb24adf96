"""Faults as the files `planted/*.faults` list them. Knows no room and runs nothing.

Such a file has, one after another:

    file FOLDER/FILE.py             what follows is of this file of the product
    tests TEST.py TEST.py::test     who ought to see it, below `tests/`
    (empty line)
    what is wrong                   a fault in words,
    -the text that is there         a part of the file that stands there once, in one line or more,
    +the text in its place          and what it becomes: nothing without such a line
    (empty line)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "tests" / "planted"


class StaleFault(ValueError):
    """A fault cannot be planted; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`before`, which stands in the file exactly once, becomes `after`; `tests` ought to fail."""

    what: str
    file: str
    """From the root of the tree."""
    before: str
    after: str
    tests: tuple[str, ...]
    """Arguments of pytest, from the root of the tree."""

    @property
    def room(self) -> str:
        """The folder that it lies in."""
        return str(Path(self.file).parent)

    def planted(self, source: str) -> str:
        """The file's text with the fault in it. Raises StaleFault."""
        count = source.count(self.before)
        if count != 1:
            raise StaleFault(
                f"{self.file}: the text of {self.what!r} stands there {count} times, not once: say"
                " it of the text that is there now, or take the fault out of its list"
            )
        return source.replace(self.before, self.after)


def all_faults() -> list[Fault]:
    """Those of every list, in their order."""
    return [fault for path in sorted(LISTS.glob("*.faults")) for fault in faults_of(path)]


def faults_of(path: Path) -> Iterator[Fault]:
    """Those of one list. Raises StaleFault where a part says neither a file nor a fault."""
    file, tests = "", tuple[str, ...]()
    for part in path.read_text().strip().split("\n\n"):
        first, *lines = part.splitlines()
        if first.startswith("file "):
            file = first.removeprefix("file ")
            named = " ".join(lines).removeprefix("tests ").split()
            tests = tuple(f"tests/{name}" for name in named)
            continue
        before = [line[1:] for line in lines if line.startswith("-")]
        after = [line[1:] for line in lines if line.startswith("+")]
        if not (file and tests and before) or len(before) + len(after) < len(lines):
            raise StaleFault(f"{path.name}: {first!r} is no fault: give its lines - and + below it")
        yield Fault(first, file, "\n".join(before), "\n".join(after), tests)
