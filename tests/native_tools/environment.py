"""Makes the environment of the compiler that the native libraries are built by.

Run as `./dev sanitisers`, which also runs the tests marked `sanitisers`. It lies in
.lostwax/ziglang/ and is made once for its pin, which is the libraries' own.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program this knows its own folder alone

from tool_environment import make_environment, python_in

from lostwax.backends.cpu.library import libraries

FOLDER = Path(__file__).parents[2] / ".lostwax" / "ziglang"


def pins() -> tuple[str, ...]:
    """The version that `library.json` names; one for all libraries."""
    return tuple({each.compiler.replace(" ", "==") for each in libraries().values()})


def compiler_python() -> Path:
    """The environment's interpreter, whether it exists or not."""
    return python_in(FOLDER)


if __name__ == "__main__":
    make_environment(FOLDER, pins())
    print(FOLDER)
