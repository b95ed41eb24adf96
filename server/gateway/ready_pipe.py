"""Tells another process that the server answers: one line of JSON into a pipe. Knows no engine."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import msgspec


class Ready(msgspec.Struct, frozen=True):
    """What is told: the port that the server listens on."""

    port: int


class NoPipe(ValueError):
    """The number given is no file descriptor that can be written to."""


class ReadyPipe:
    """The writing end, whose number the process that waits has handed over. Tells once."""

    def __init__(self, descriptor: int) -> None:
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError("it can only be read")
            os.set_inheritable(descriptor, False)  # the pipe must end with this process
        except (OSError, ValueError, OverflowError) as error:
            raise NoPipe(
                f"--ready-fd {descriptor} is no file descriptor that can be written to ({error});"
                " give the number of a pipe's end that this process inherits"
            ) from error

        self._descriptor: int | None = descriptor

    def tell(self, ready: Ready) -> None:
        """Write the line and close, the first time; nothing where the reader is gone."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.write(descriptor, msgspec.json.encode(ready) + b"\n")
            os.close(descriptor)
