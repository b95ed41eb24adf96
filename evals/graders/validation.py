"""Asks another process what a JSON Schema says against a value, within a time that holds.

A pattern, a doubling $ref or a comparison of all with all can take for ever in one call that no
thread can end. The other end is `validation_process.py`; lines of JSON go both ways.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import weakref
from contextlib import suppress
from typing import Any

from lostwax.evals.task import TaskError
from lostwax.ir.contract.own_program import own_program

LIMIT_S = 5.0
"""For one value; an ordinary one takes milliseconds."""
_MODULE = "lostwax.evals.graders.validation_process"


class ValidationTooLong(TaskError):
    """It was ended; the message says after which time."""


class Validation:
    """One process, started by the first question, and again after one that ended it.

    It ends with this object. Threads may share one.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end = weakref.finalize(self, lambda: None)

    def fault(self, schema: dict[str, Any], value: Any) -> str | None:
        """The first thing that a schema says against a value.

        Raises TaskError where the schema is none or cannot be applied, ValidationTooLong.
        """
        try:
            question = json.dumps([schema, value]).encode()
        except RecursionError as error:
            raise TaskError("it is nested too deeply to be looked at") from error
        with self._turn:
            answer = self._asked(question)
        if "refused" in answer:
            raise TaskError(answer["refused"])
        return answer["fault"]

    def _asked(self, question: bytes) -> dict[str, Any]:
        process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it has ended, as the answer shows
                process.stdin.write(question + b"\n")
                process.stdin.flush()
            if (line := process.stdout.readline()).endswith(b"\n"):
                return json.loads(line)
        except BaseException:  # Ctrl-C: what it answers would be taken for the next answer
            self._ended(process)
            raise
        if self._ended(process) == -signal.SIGALRM:
            raise ValidationTooLong(f"validation took longer than {self._limit_s:g} s")
        raise TaskError("the process that validates ended; it takes too much memory")

    def _started(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches this process alone, at whose end the input ends.
        process = subprocess.Popen(
            [*own_program(_MODULE), str(self._limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        self._end = weakref.finalize(self, _end, process)
        return process

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        self._process = None
        self._end.detach()
        return _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    # One whose output has ended ends by itself, as it says how; another one does not.
    with suppress(subprocess.TimeoutExpired):
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait(1)
    process.kill()
    assert process.stdout is not None
    process.stdout.close()
    return process.wait()
