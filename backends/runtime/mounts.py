"""The mounts of this process: what is mounted below a folder is no part of it, and keeps its files.

Read from the kernel's list, as a mount within one file system shows in no device number.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

LIST = Path("/proc/self/mountinfo")


class HoldsMount(OSError):
    """A folder that would be removed holds a mount; nothing of it was removed."""


def mounts() -> set[Path]:
    """Where something is mounted; nowhere where the kernel does not say."""
    try:
        lines = LIST.read_bytes().splitlines()
    except OSError:
        return set()
    escaped = (line.split()[4] for line in lines)  # proc(5): a space is \040
    named = (re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), each) for each in escaped)
    return {Path(os.fsdecode(each)) for each in named}


def mount_below(folder: Path) -> Path | None:
    """The first mount that lies below a folder, by name."""
    there = folder.resolve()
    return min((each for each in mounts() if there in each.parents), default=None)


def require_no_mount(folder: Path) -> None:
    """Raise HoldsMount where removing the folder would remove what is mounted below it."""
    found = mount_below(folder)
    if found is not None:
        raise HoldsMount(
            f"{folder} is not removed, for its files would go, too: it holds the mount {found};"
            " unmount that first"
        )
