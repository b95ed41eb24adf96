"""An engine process over the fake runtime: `python fake_engine.py ADDRESS [STEP_SECONDS]`."""

from __future__ import annotations

import sys

from fake_runtime import FakeRuntime

from lostwax.server.engine.process import run_engine

if __name__ == "__main__":
    step_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    run_engine(lambda: FakeRuntime(step_s=step_s), sys.argv[1])
