"""What this machine's processor has, by Linux's names. Loads no library of kernels, no torch."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.ir.contract.foreign_file import reason

# What platform.machine() says, by the beginning of a target's arch.
MACHINES = {"x86-64": ("x86_64", "amd64"), "armv8": ("aarch64", "arm64")}

AT_HWCAP = 16
"""Of getauxval, from Linux's uapi/linux/auxvec.h."""
HWCAP = {"fp": 0, "asimd": 1, "crc32": 7, "atomics": 8, "asimdrdm": 12}
"""Bits of it on aarch64, from Linux's arch/arm64/include/uapi/asm/hwcap.h: those asked for here."""


def is_of(arch: str) -> bool:
    """Whether this machine is one of the kind that a target's arch names."""
    here = platform.machine().lower()
    return here in next((m for a, m in MACHINES.items() if arch.startswith(a)), ())


def processor_features() -> set[str]:
    """By Linux's names. Raises DeviceUnavailable where nothing tells them."""
    return _of_arm() if is_of("armv8") else _of_x86()


def _of_arm() -> set[str]:
    """As the kernel tells programs: an emulator's /proc/cpuinfo is that of the machine below."""
    ask = ctypes.CDLL(None).getauxval
    ask.restype = ctypes.c_ulong
    bits = int(ask(ctypes.c_ulong(AT_HWCAP)))
    return {name for name, bit in HWCAP.items() if bits >> bit & 1}


def _of_x86() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError as error:
        raise DeviceUnavailable(
            f"/proc/cpuinfo, which tells what this processor has, cannot be read: {reason(error)}"
        ) from error
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    return set(lines[0].partition(":")[2].split()) if lines else set()
