"""A gateway over the fake engine in a process of its own, for tests that signal, kill or limit it.

As a script: `gateway_process.py STEP_SECONDS DRAIN_SECONDS`, on a free port of loopback.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

ENGINE = Path(__file__).with_name("fake_engine.py")
END_S = 20
"""Within this a gateway that was asked to end has ended; it takes a fraction of a second."""


class GatewayProcess:
    """A running one. `told` is what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: list[str] = []
        self.url = ""

    def read_until(self, words: str) -> str:
        """The next line that holds the words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(line)
            if words in line:
                return line
        raise AssertionError(f"no line says {words!r}: {self.told}")

    def end(self) -> tuple[int, list[str]]:
        """Exit status and every line, once gateway and engine have ended."""
        _, rest = self.process.communicate(timeout=END_S)  # the engine holds the pipe, too
        self.told += rest.splitlines(keepends=True)
        return self.process.returncode, self.told


@contextmanager
def gateway_process(
    step_s: float = 0.0,
    drain_s: float = 10.0,
    *,
    tmp: Path | None = None,
    before: Callable[[], None] | None = None,
    ready: bool = True,
    engine: Sequence[str] = (),
) -> Generator[GatewayProcess]:
    """A gateway whose engine is `ready`. `before` runs in it first; `tmp` is its temporary folder,
    `engine` replaces the command of the fake engine."""
    command = [sys.executable, __file__, str(step_s), str(drain_s), *engine]
    environment = {**os.environ, **({"TMPDIR": str(tmp)} if tmp else {})}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=before
    ) as process:
        gateway = GatewayProcess(process)
        try:
            found = re.search(r"http://[\d.:]+\d", gateway.read_until("listening on"))
            assert found is not None
            gateway.url = found[0]
            if ready:
                gateway.read_until("fake is ready")
            yield gateway
        finally:
            process.kill()


def main() -> None:
    """Serve until a signal."""
    from lostwax.server.gateway.app import Settings, create_app
    from lostwax.server.gateway.serve import serve_engine
    from lostwax.server.gateway.tokenizer import IdCodec

    step_s, drain_s, *engine = sys.argv[1:]
    program = engine or [sys.executable, str(ENGINE)]
    serve_engine(
        lambda link: [*program, link.address, str(link.parent), step_s],
        lambda client, draining: create_app(client, IdCodec(), Settings(), draining=draining),
        host="127.0.0.1",
        port=0,
        drain_s=float(drain_s),
    )


if __name__ == "__main__":
    main()
