"""A kernel compiler that compiles nothing: what it does with a kernel the kernel's symbol says."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target

COMPILER = "stub_compiler:StubCompiler"
NONE = "stub_compiler:refuse"
FULL = "stub_compiler:write_to_full_disk"


class StubCompiler:
    """Satisfies KernelCompiler. The constant `MS` says how long a kernel takes."""

    def __init__(self, target: Target) -> None:
        print("a compiler that talks")

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        """A file with the source's name and the parameters in their order."""
        print("compiling", source.symbol)
        time.sleep(source.constants.get("MS", 0) / 1000)
        if source.symbol == "refused":
            raise KernelCompileError(f"refused with {source.constants}")
        if source.symbol == "unexpected":
            raise IndexError("of the compiler's own")
        if source.symbol == "full":
            write_to_full_disk(source)
        if source.symbol == "absent":
            (folder / "absent" / "file").write_bytes(b"")
        if source.symbol == "temporary":
            left = Path(tempfile.mkdtemp(), "kernel.ptx")
            left.write_text("what a compiler leaves behind")
            (folder.parent / "left").write_text(str(left.resolve()))
        if source.symbol == "environment":
            told = {"variables": dict(os.environ), "folder": os.getcwd()}
            (folder.parent / "environment").write_text(json.dumps(told))
        if source.symbol == "refused-there":
            Path(tempfile.gettempdir(), "absent", "file").write_bytes(b"")
        if source.symbol == "starts":
            child = subprocess.Popen(["sleep", "600"])
            (folder.parent / "child").write_text(str(child.pid))
        if source.symbol == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        binary = repr((source.symbol, source.signature, source.constants)).encode()
        digest = hashlib.sha256(binary).hexdigest()
        name = f"{source.symbol}-{digest[:16]}.stub"
        (folder / name).write_bytes(binary)
        (folder.parent / "pids").open("a").write(f"{os.getpid()}\n")
        return CompiledKernel(
            binary=name,
            symbol=source.symbol,
            digest=digest,
            num_warps=source.num_warps,
            shared_bytes=16,
            registers=32,
            trailing_nulls=2,
        )

    def toolchain(self) -> dict[str, str]:
        """One version."""
        return {"stub": "1"}


def refuse(target: Target) -> StubCompiler:
    """A compiler that is not installed."""
    raise KernelCompileError("the stub is not installed")


def write_to_full_disk(_: object) -> StubCompiler:
    """A compiler that finds no space."""
    Path("/dev/full").write_bytes(b"some")
    raise AssertionError("the device /dev/full took something")
