"""Makes the environment in which artifacts for aarch64 run, emulated: torch's build for it.

Run as `./dev aarch64`, which also runs the tests marked `aarch64`. It lies in .lostwax/aarch64/ and
is made once for its pins.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program this knows its own folder alone

from emulated_python import make as make_emulated
from tool_environment import make_environment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".lostwax" / "aarch64"
PACKAGES = (
    # later builds bring libraries of CUDA
    *("torch==2.9.1", "typing_extensions", "sympy==1.14.0", "mpmath==1.3.0", "networkx==3.6.1"),
    *("jinja2==3.1.6", "markupsafe==3.0.4", "fsspec", "filelock", "packaging", "setuptools"),
    # what serving imports beside it, and what the tests of kernels do
    *("numpy==2.4.6", "msgspec==0.22.0", "ml_dtypes==0.6.0", "safetensors==0.8.0"),
    *("pytest==9.2.0", "pluggy==1.7.0", "iniconfig==2.3.1", "pygments==2.21.0"),
)
"""Without what these ask for: torch's own list names a whole set of tools."""


if __name__ == "__main__":
    make_environment(FOLDER, PACKAGES, make_emulated)
    print(FOLDER)
