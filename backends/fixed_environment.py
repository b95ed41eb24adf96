"""The environment that kernels are compiled in: the same whoever compiles, and where.

Compilers read dozens of variables, some of which change code without a word (NVCC_APPEND_FLAGS,
CPATH, PTXAS_OPTIONS, DISABLE_LLVM_OPT, TRITON_…): none is passed on but those named here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_WORKING_FOLDER = Path("/proc/self/cwd")
"""Linux's name for the folder that a process works in: as long for every folder."""


def fixed_environment(outer: Mapping[str, str], folder: str) -> dict[str, str]:
    """The variables for a process that works in `folder` and keeps its temporary files there.

    `outer` is the caller's own environment; it is read for what programs need to start.
    """
    kept = {
        # nvcc, and the C++ compiler that nvcc calls to preprocess.
        "PATH": outer.get("PATH", os.defpath),
        # Where the caller finds modules. Absolute: the process works in another folder.
        "PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path),
        # What compilers say is shown to the user, and is read as UTF-8.
        "LC_ALL": "C.UTF-8",
        # ptxas chooses registers by where its memory lies, and so by the lengths of the names that
        # it is given. Where there is no such name its kernels may differ from folder to folder.
        "TMPDIR": str(_WORKING_FOLDER) if _WORKING_FOLDER.is_dir() else folder,
        # glibc: all memory in one piece, wherever libraries and the stack lie.
        "MALLOC_MMAP_MAX_": "0",
    }
    if "LD_LIBRARY_PATH" in outer:
        # A Python or C++ compiler of another place than the system's finds its libraries by it.
        kept["LD_LIBRARY_PATH"] = outer["LD_LIBRARY_PATH"]
    return kept


def true_path(path: str) -> str:
    """A path of this process as other processes know it."""
    if not Path(path).is_relative_to(_WORKING_FOLDER):
        return path
    return str(Path.cwd() / Path(path).relative_to(_WORKING_FOLDER))
