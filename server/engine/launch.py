"""Starts one engine process a rank on this host. Knows no artifact and no socket.

Run as `python -m lostwax.server.engine.launch RANKS --parent PID --meeting FILE ...`, further
arguments are the engine's; the gateway does where an artifact has several ranks. One rank's end
ends them all, and so does the gateway's. torchrun would do the same, but its store listens on every
interface and takes whoever connects; here the ranks meet over a file in the gateway's private
folder.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lostwax.ir.contract.own_program import own_program
from lostwax.server.engine.parent import end_with_parent

ENGINE = "lostwax.server.engine"
LAST_WORDS_S = 0.5
"""What rank 0 gets to tell the gateway why the ranks ended, where another rank ended first."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run until a rank ends."""
    parser = argparse.ArgumentParser(prog="lostwax.server.engine.launch")
    parser.add_argument("ranks", type=int)
    parser.add_argument("--parent", type=int, required=True, help="pid of the gateway")
    parser.add_argument("--meeting", type=Path, required=True, help="file that does not exist yet")
    options, engine = parser.parse_known_args(argv)
    end_with_parent(options.parent)
    # Gloo is told this way only. The ranks of one host need no other interface than loopback.
    for name in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:
        os.environ["GLOO_SOCKET_IFNAME"] = name
    command = [*own_program(ENGINE), *engine, "--parent", str(os.getpid())]
    command += ["--ranks", str(options.ranks), "--meeting", str(options.meeting)]
    ranks = [
        subprocess.Popen([*command, "--rank", str(rank)], stdin=subprocess.DEVNULL)
        for rank in range(options.ranks)
    ]
    raise SystemExit(_until_one_ends(ranks))


def _until_one_ends(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """The exit status for the rank that ended first, once all have ended."""
    pid, status = os.wait()
    if pid != ranks[0].pid:
        with suppress(subprocess.TimeoutExpired):
            ranks[0].wait(LAST_WORDS_S)
    for rank in ranks:
        if rank.pid != pid:
            rank.kill()
            rank.wait()
    return os.waitstatus_to_exitcode(status) or 1  # a rank has no reason to end well


if __name__ == "__main__":
    main()
