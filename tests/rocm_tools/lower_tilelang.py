# type: ignore  # TileLang is in its own environment
"""Writes the HIP source of each TileLang kernel for each architecture: python TOOL FOLDER ARCH...

Runs in TileLang's environment, without a device. FOLDER gets KERNEL.ARCH.hip.
"""

import sys
from pathlib import Path

import tilelang
from tilelang import tvm
from tilelang_kernels import KERNELS


def main(folder: Path, architectures: list[str]) -> None:
    """TileLang's own messages where a kernel does not lower."""
    for name, make in KERNELS.items():
        for arch in architectures:
            target = tvm.target.Target({"kind": "hip", "mcpu": arch})
            with target:
                made = tilelang.lower(make(), target=target, enable_device_compile=False)
            (folder / f"{name}.{arch}.hip").write_text(made.kernel_source)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
