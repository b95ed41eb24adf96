"""Starts one engine process a rank on this host, by torchrun. Knows no artifact and no socket.

Run as `python -m lostwax.server.engine.launch RANKS [engine arguments]`; the gateway does where an
artifact has several ranks. One rank's end ends them all, and so does the gateway's.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from lostwax.server.engine.parent import end_with_parent

ENGINE = "lostwax.server.engine"
LOOPBACK = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> None:
    """Run until a rank ends."""
    ranks, *engine = sys.argv[1:] if argv is None else argv
    end_with_parent()
    import torch
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # torchrun and Gloo are told this way only. The ranks of one host need no other interface.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "lo" in {name for _, name in socket.if_nameindex()}:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if "--threads" not in engine:
        engine += ["--threads", str(max(torch.get_num_threads() // int(ranks), 1))]
    # The static rendezvous and not torchrun's own: that one exchanges pickles.
    where = [f"--master-addr={LOOPBACK}", f"--master-port={_free_port()}"]
    try:
        torchrun.main([f"--nproc-per-node={ranks}", *where, "-m", ENGINE, *engine])
    except ChildFailedError:
        raise SystemExit(1) from None  # the rank that failed has said why


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
