"""The target where nobody names one: this machine's CPU. A name means the same on any machine."""

from __future__ import annotations

import platform

ARM = ("aarch64", "arm64")
"""What platform.machine() says of processors that `cpu`, x86-64, is not for."""

DEFAULT_TARGET = "cpu-aarch64" if platform.machine().lower() in ARM else "cpu"
