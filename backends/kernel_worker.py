"""A process that compiles one kernel after the other for the compile that started it.

Run as `python -m lostwax.backends.kernel_worker` by `kernel_pool.py`: a JSON line with the `Job`,
then one with each `KernelSource`; for each line comes one `Answer`. It ends with its input, so
none outlives a compile that was killed.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from lostwax.backends.kernel_compiler import KernelCompileError, KernelCompiler
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What all kernels of a worker share. `compiler`: `module:function`, as `Backend` names it.

    `search_path` is where modules are found, `folder` where binaries go.
    """

    compiler: str
    target: Target
    folder: str
    search_path: tuple[str, ...]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The compiler is loaded: names and versions of what it runs."""

    toolchain: dict[str, str]


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """The binary lies in the folder."""

    kernel: CompiledKernel


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """What the user is told."""

    message: str


Answer = Ready | Compiled | Failed


def main() -> None:
    """Answer until the input ends."""
    # What compilers print goes to the standard error: the answers have the output for themselves.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        requests = sys.stdin.buffer
        job = msgspec.json.decode(requests.readline(), type=Job)
        sys.path[:] = job.search_path
        try:
            compiler: KernelCompiler = _load(job.compiler)(job.target)
            _tell(answers, Ready(compiler.toolchain()))
        except KernelCompileError as error:
            _tell(answers, Failed(str(error)))
            return
        for line in requests:
            source = msgspec.json.decode(line, type=KernelSource)
            _tell(answers, _compile(compiler, source, Path(job.folder)))


def _load(reference: str) -> Any:  # a module attribute: what it is the Job says
    module, attribute = reference.split(":")
    return getattr(import_module(module), attribute)


def _compile(compiler: KernelCompiler, source: KernelSource, folder: Path) -> Answer:
    try:
        return Compiled(compiler.compile(source, folder))
    except KernelCompileError as error:
        return Failed(str(error))
    except Exception:  # whatever a compiler may raise: it ends in the compile that asked
        return Failed(
            f"{source.path}:{source.symbol} with {source.constants} did not compile:\n"
            + traceback.format_exc()
        )


def _tell(answers: BinaryIO, answer: Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
