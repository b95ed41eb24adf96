"""An engine process over the fake runtime.

`fake_engine.py ADDRESS PARENT [STEP_SECONDS [OPTION...]]`; the options are those of EngineOptions.
"""

from __future__ import annotations

import argparse
import sys

from fake_runtime import FakeRuntime

from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.parent import end_with_parent
from lostwax.server.engine.process import run_engine

if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    step_s = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    parser = argparse.ArgumentParser()
    EngineOptions.add_to(parser)
    options = EngineOptions.of(parser.parse_args(sys.argv[4:]))
    run_engine(lambda _: FakeRuntime(step_s=step_s), sys.argv[1], options)
