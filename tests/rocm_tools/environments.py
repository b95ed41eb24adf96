"""Makes the environment of TileLang, and brings the wheel of AITER, which is only read.

TileLang holds its own TVM and wants another Triton than the core. Run as `./dev rocm`, which also
runs the tests marked `rocm`; all lies in .lostwax/.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from aiter_snapshot import PACKAGE, SNAPSHOT
from tool_environment import make_environment, python_in

ROOT = Path(__file__).parents[2]
TILELANG = ROOT / ".lostwax" / "rocm" / "tilelang"
WHEELS = ROOT / ".lostwax" / "wheels"
PACKAGES = ("torch==2.13.0", "tilelang==0.1.15", "triton==3.9.0", "numpy")
"""With the versions that the tests were written for; Triton's wheel has the headers of HIP 7."""


def tilelang_python() -> Path:
    """TileLang's interpreter, whether it exists or not."""
    return python_in(TILELANG)


def aiter_wheel() -> Path | None:
    """The wheel that the snapshot was made of, None where it is not there."""
    version = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["version"]
    return next(WHEELS.glob(f"{PACKAGE.replace('-', '_')}-{version}-*.whl"), None)


def bring_aiter() -> None:
    """Download the wheel unless it is there. Raises CalledProcessError, with pip's message."""
    if aiter_wheel() is None:
        version = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["version"]
        command = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(WHEELS)]
        subprocess.run([sys.executable, *command, f"{PACKAGE}=={version}"], check=True)


if __name__ == "__main__":
    bring_aiter()
    make_environment(TILELANG, PACKAGES)
    print(f"{aiter_wheel()}\n{TILELANG}")
