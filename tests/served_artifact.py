"""`lostwax serve` of an artifact as a process of its own, for tests of other projects' clients."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(artifact: Path, *options: str) -> Generator[str]:
    """The base URL of the server of `artifact` while it is served."""
    command = [sys.executable, "-m", "lostwax", "serve", str(artifact), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield told_url(server)
        finally:
            server.terminate()
            assert server.stderr is not None
            server.stderr.read()


def told_url(server: subprocess.Popen[str]) -> str:
    """Where a server that was just started listens, once it is ready."""
    assert server.stderr is not None
    told = list[str]()
    for line in server.stderr:
        told.append(line)
        if "is ready" in line:
            break
    (url,) = set(re.findall(r"listening on (http://[\d.:]+)", "".join(told)))
    return url
