"""Compiles in a process of its own, so that a server keeps nothing of the compiler's memory.

Run as `python -m lostwax.cli.compile_apart PARENT JOB`; the parent does. Its phases are printed as
they come; a refusal comes back through standard output as JSON. However the parent ends, the child
ends too, and a compile that is ended leaves no artifact.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from lostwax.ir.contract.own_program import own_program

END_S = 10.0
"""How long a compile may take to remove what it had written."""


class CompileFailed(RuntimeError):
    """The compile gave no artifact; the message is its own. `disk` says what the disk refused."""

    def __init__(self, message: str, disk: str | None = None) -> None:
        super().__init__(message)
        self.disk = disk


class Job(msgspec.Struct, frozen=True):
    """What is compiled: paths as bytes, which need not be UTF-8, target, dtype, drafts."""

    checkpoint: bytes
    out: bytes
    target: str
    dtype: str
    drafts: int


class _Refusal(msgspec.Struct, frozen=True):
    message: str
    disk: str | None = None


def compile_apart(checkpoint: Path, out: Path, *, target: str, dtype: str, drafts: int) -> None:
    """`compile_checkpoint` in another process. Raises CompileFailed."""
    job = Job(os.fsencode(checkpoint), os.fsencode(out), target, dtype, drafts)
    command = [*own_program("lostwax.cli.compile_apart"), str(os.getpid())]
    # A session of its own: Ctrl-C reaches this process alone, which then ends the other.
    with subprocess.Popen(
        [*command, msgspec.json.encode(job).decode()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            said, _ = child.communicate()
        except BaseException:
            _end(child)
            raise
    if child.returncode != 0:
        raise _failure(child.returncode, said)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()


def _failure(status: int, said: bytes) -> CompileFailed:
    if status < 0:
        name = signal.Signals(-status).name
        return CompileFailed(f"the compile was ended by {name}; is there memory enough for it?")
    try:
        refusal = msgspec.json.decode(said.splitlines()[-1], type=_Refusal)
    except (IndexError, msgspec.DecodeError):
        return CompileFailed("the compile failed; what it printed above says how")
    return CompileFailed(refusal.message, refusal.disk)


def main() -> None:
    """Do the job, unless the parent has ended."""
    from lostwax.server.engine.parent import end_with_parent

    parent, job = sys.argv[1:]
    end_with_parent(int(parent))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # then it removes what it wrote
    try:
        _compile(msgspec.json.decode(job, type=Job))
    except KeyboardInterrupt:
        raise SystemExit(1) from None


def _compile(job: Job) -> None:
    from lostwax.backends.artifact_writer import ArtifactUnwritable
    from lostwax.backends.runtime.error_sentence import sentence_of
    from lostwax.backends.runtime.phases import Phases
    from lostwax.cli.compile import compile_checkpoint

    try:
        compile_checkpoint(
            Path(os.fsdecode(job.checkpoint)),
            Path(os.fsdecode(job.out)),
            target=job.target,
            dtype=job.dtype,
            drafts=job.drafts,
            phases=Phases(),
        )
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        disk = error.strerror if isinstance(error, ArtifactUnwritable) else None
        message = sentence.encode("utf-8", "backslashreplace").decode()  # it may name a path
        sys.stdout.buffer.write(b"\n" + msgspec.json.encode(_Refusal(message, disk)))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
