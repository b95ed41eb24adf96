"""Tells another process that the server answers: one line of JSON into a pipe. Knows no engine."""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec


class Ready(msgspec.Struct, frozen=True):
    """What is told: the port that the server listens on."""

    port: int


class ReadyPipe:
    """The writing end, whose number the process that waits has handed over. Tells once.

    Raises OSError where there is no such descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # the pipe must end with this process
        self._descriptor: int | None = descriptor

    def tell(self, ready: Ready) -> None:
        """Write the line and close, the first time; nothing where the reader is gone."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.write(descriptor, msgspec.json.encode(ready) + b"\n")
            os.close(descriptor)
