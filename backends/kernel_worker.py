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

from lostwax.backends.fixed_environment import true_path
from lostwax.backends.kernel_compiler import KernelCompileError, KernelCompiler
from lostwax.backends.runtime.library_loading import loading
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What all kernels of a worker share. `compiler`: `module:function`, as `Backend` names it.

    `folder` is where binaries go: a path as the file system has it, which need not be UTF-8 as
    JSON's strings are.
    """

    compiler: str
    target: Target
    folder: bytes


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The compiler is loaded: names and versions of what it runs."""

    toolchain: dict[str, str]


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """The binary lies in the folder."""

    kernel: CompiledKernel


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """What the user is told; where the system refused something, its errno and the path if any."""

    message: str
    errno: int | None = None
    filename: bytes | None = None


Answer = Ready | Compiled | Failed


def main() -> None:
    """Answer until the input ends."""
    # What compilers print goes to the standard error: the answers have the output for themselves.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        requests = sys.stdin.buffer
        job = msgspec.json.decode(requests.readline(), type=Job)
        try:
            compiler: KernelCompiler = _load(job.compiler)(job.target)
            _tell(answers, Ready(compiler.toolchain()))
        except Exception as error:  # whatever a compiler may raise: it ends in the compile
            _tell(answers, _failed(error, f"the compiler {job.compiler} did not load"))
            return
        folder = Path(os.fsdecode(job.folder))
        for line in requests:
            source = msgspec.json.decode(line, type=KernelSource)
            _tell(answers, _compile(compiler, source, folder))


def _load(reference: str) -> Any:  # a module attribute: what it is the Job says
    module, attribute = reference.split(":")
    with loading(module):
        return getattr(import_module(module), attribute)


def _compile(compiler: KernelCompiler, source: KernelSource, folder: Path) -> Answer:
    try:
        return Compiled(compiler.compile(source, folder))
    except Exception as error:  # whatever a compiler may raise: it ends in the compile that asked
        what = f"{source.path}:{source.symbol} with {source.constants} did not compile"
        return _failed(error, what)


def _failed(error: Exception, what: str) -> Failed:
    """The compiler's own words, else what failed and the traceback."""
    if isinstance(error, KernelCompileError):
        return Failed(_printable(str(error)))
    message = _printable(f"{what}:\n{''.join(traceback.format_exception(error))}")
    if not isinstance(error, OSError):
        return Failed(message)
    path: str | bytes | os.PathLike[str] | int | None = error.filename  # int: a descriptor
    named = None if path is None or isinstance(path, int) else true_path(os.fsdecode(path))
    return Failed(message, error.errno, None if named is None else os.fsencode(named))


def _printable(text: str) -> str:
    """The text as the standard error shows it: a path's bytes that are no UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def _tell(answers: BinaryIO, answer: Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
