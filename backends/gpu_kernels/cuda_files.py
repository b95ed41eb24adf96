"""Which files hold a CUDA C++ kernel: its .cu and what it includes by quotes. Compiles nothing."""

from __future__ import annotations

import re
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def cuda_files(folder: Path, path: str) -> tuple[str, ...]:
    """`path` and all that it includes, each once and relative to `folder`, sorted.

    Names in quotes are looked for beside the file that includes them, as compilers do, then in
    `folder`. ValueError for one that lies in neither, or outside `folder`.
    """
    root = folder.resolve()
    found, waiting = set[Path](), [root / path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        waiting += [_included(root, file, name) for name in _INCLUDE.findall(file.read_text())]
    return tuple(sorted(file.relative_to(root).as_posix() for file in found))


def _included(root: Path, file: Path, name: str) -> Path:
    for place in (file.parent, root):
        wanted = (place / name).resolve()
        if wanted.is_file() and wanted.is_relative_to(root):
            return wanted
    raise ValueError(
        f'{file.name} includes "{name}", which lies neither beside it nor in {root.name}/: put it'
        " there, or include a header of the toolkit by <...>"
    )
