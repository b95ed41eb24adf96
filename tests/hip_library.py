"""Builds what stands where HIP's library stands, held to the prototypes of HIP's own header.

The library itself and an AMD GPU were never there.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "backends" / "hip_stub" / "hip.c"
ELF = b"\x7fELF and more"
"""What it takes for a code object."""


class Launch(ctypes.Structure):
    """`struct launch` of the stand-in."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_ulonglong),
        ("first", ctypes.c_ulonglong),
        ("second", ctypes.c_int),
    )


def built(folder: Path) -> Path:
    """The library in a folder. Skips the test where Triton's header or a C compiler is lacking."""
    triton = find_spec("triton")
    if triton is None or not triton.submodule_search_locations:
        pytest.skip("the extra `aot` is not installed: its HIP header is read")
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler here")
    headers = Path(triton.submodule_search_locations[0], "backends", "amd", "include")
    library = folder / "libamdhip64.so"
    flags = ("-shared", "-fPIC", "-Werror", "-Wall", "-isystem", str(headers))
    subprocess.run(["gcc", *flags, str(SOURCE), "-o", str(library)], check=True)
    return library
