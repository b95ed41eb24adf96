"""How a program of lostwax is started as another process. Knows no program and starts none."""

from __future__ import annotations

import sys


def own_program(module: str) -> list[str]:
    """The command of a module of lostwax; the program's arguments come behind it.

    `-P`: a file in the working directory must not stand for a module. A server is often started in
    the folder of an artifact, which a stranger may have filled.
    """
    return [sys.executable, "-P", "-m", module]
