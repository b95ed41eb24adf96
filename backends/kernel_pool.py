"""Compiles kernels side by side, each worker a process of its own. Knows no program.

Processes, not threads: CPython's `ast.parse`, which Triton calls, breaks when two threads are in it
at once ("AST constructor recursion depth mismatch", 3.11). Started as programs of their own, not
forked or spawned by multiprocessing: torch's threads survive no fork, and a caller's script needs
no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TypeVar

import msgspec

from lostwax.backends.fixed_environment import fixed_environment
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.kernel_worker import Answer, Compiled, Failed, Job, Ready
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.own_program import own_program

WORKER = "lostwax.backends.kernel_worker"
MOST_WORKERS = 16
"""Each takes up to 0.3 GiB; with more, what else a compile does takes longer than its kernels."""

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class _Worker:
    """One process, its input and its output.

    Its end is told as a KernelCompileError, what the system refused it as an OSError.
    """

    def __init__(self, job: Job, scratch: str) -> None:
        # A group of its own: Ctrl-C comes to the compile alone, which ends the group with what its
        # compilers have started.
        self._process = subprocess.Popen(
            own_program(WORKER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=scratch,
            env=fixed_environment(os.environ, scratch),
            process_group=0,
        )
        self._job = job
        self._ready: Ready | None = None

    def toolchain(self) -> dict[str, str]:
        """The compilers' names and versions, once they are loaded."""
        if self._ready is None:
            self._ready = self._ask(self._job, Ready, "its compiler")
        return self._ready.toolchain

    def compile(self, source: KernelSource) -> CompiledKernel:
        """The kernel, whose binary lies in the job's folder."""
        self.toolchain()
        return self._ask(source, Compiled, f"{source.symbol} with {source.constants}").kernel

    def _ask(self, request: msgspec.Struct, wanted: type[_Struct], what: str) -> _Struct:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = b""
        with suppress(BrokenPipeError):  # of a process that has ended: there is no answer then
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise KernelCompileError(
                f"the process that compiles {what} {_ended(self._process.wait())}"
            )
        answer = msgspec.json.decode(line, type=Answer)
        if isinstance(answer, Failed):
            raise _error(answer)
        assert isinstance(answer, wanted)
        return answer

    def end(self) -> None:
        """End the process and whatever it has started."""
        # BrokenPipeError: what a process that had ended was still to be told.
        with suppress(BrokenPipeError), self._process, suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _error(failed: Failed) -> Exception:
    """What the compile would have raised had it compiled the kernel itself."""
    said = KernelCompileError(failed.message)
    if failed.errno is None:
        return said
    path = None if failed.filename is None else os.fsdecode(failed.filename)
    error = OSError(failed.errno, os.strerror(failed.errno), path)
    error.__cause__ = said  # which kernel it was, and the worker's traceback
    return error


def _ended(status: int) -> str:
    if status == -signal.SIGKILL:
        return (
            "was killed, as the system does where memory runs out: compile on a machine with more"
            " of it, or on fewer cores"
        )
    return f"ended with status {status}"


class KernelPool:
    """Kernels that are being compiled."""

    def __init__(
        self,
        workers: Sequence[_Worker],
        threads: ThreadPoolExecutor,
        sources: Sequence[KernelSource],
    ) -> None:
        self._workers = workers
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._kernels: list[Future[CompiledKernel]] = [
            threads.submit(self._compile, source) for source in sources
        ]

    def _compile(self, source: KernelSource) -> CompiledKernel:
        worker = self._idle.get()  # there are as many as threads
        try:
            return worker.compile(source)
        finally:
            self._idle.put(worker)

    def kernels(self) -> list[CompiledKernel]:
        """The kernels in the order of the sources; waits, and raises the first's error in it."""
        return [kernel.result() for kernel in self._kernels]

    def toolchain(self) -> dict[str, str]:
        """The compilers' names and versions; empty where there was nothing to compile."""
        return self._workers[0].toolchain() if self._workers else {}


@contextmanager
def compiling(job: Job, sources: Sequence[KernelSource], jobs: int) -> Generator[KernelPool]:
    """Begin to compile the sources on up to `jobs` processes; none is left behind the block.

    Every worker works in one folder, where its temporary files lie and which goes with them.
    """
    num = min(jobs, MOST_WORKERS, len(sources))
    workers: list[_Worker] = []
    with tempfile.TemporaryDirectory() as scratch:
        threads = ThreadPoolExecutor(max(num, 1), thread_name_prefix="kernels")
        try:
            workers += (_Worker(job, scratch) for _ in range(num))
            yield KernelPool(workers, threads, sources)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in workers:  # a thread that waits for one hears of its end
                worker.end()
            threads.shutdown()
