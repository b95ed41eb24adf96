"""Makes an environment of another processor's Python, for what runs on arm64 only.

Debian's debootstrap loads packages of both releases, which are unpacked without being installed:
Python 3.11 and its libraries of Debian 12, and of Debian 13 the C and C++ libraries that newer
wheels want. pip loads wheels for that processor; qemu-user interprets. No privileges but those that
debootstrap asks for, and nothing of the host is changed. Knows no package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PYTHON_311 = (
    "python3.11", "libpython3.11-stdlib", "libstdc++6", "libgomp1", "zlib1g", "libffi8",
    "libexpat1", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libssl3", "libtinfo6", "libuuid1",
    "libncursesw6",
)  # fmt: skip
NEWER = ("libc6", "libstdc++6", "libgcc-s1")
"""Of Debian 13: TileLang's wheel wants GLIBCXX_3.4.32."""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
EMULATOR = "qemu-aarch64-static"


def make(folder: Path, packages: tuple[str, ...]) -> None:
    """Fill a folder that is missing. Raises SystemExit where a tool is missing."""
    for tool in ("debootstrap", "dpkg-deb", EMULATOR):
        if shutil.which(tool) is None:
            raise SystemExit(
                f"{tool} is missing: install Debian's debootstrap, dpkg and qemu-user-static"
            )
    root = folder / "root"
    root.mkdir(parents=True)
    _unpack(_packages(folder / "12", "bookworm", PYTHON_311), root)
    # Debian 13 has one folder of libraries; packages of 12 still put some into /lib.
    shutil.copytree(root / "lib", root / "usr" / "lib", symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(root / "lib")
    (root / "lib").symlink_to("usr/lib")
    newer = _packages(folder / "13", "trixie", ("libstdc++6",))
    _unpack([deb for deb in newer if deb.name.partition("_")[0] in NEWER], root)
    for release in ("12", "13"):
        shutil.rmtree(folder / release)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    platforms = [f"--platform={name}" for name in PLATFORMS]
    # without what they ask for: torch's own list names a whole set of tools
    wheels = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.11", *platforms]
    subprocess.run([*pip, *wheels, "--target", folder / "site", *packages], check=True)


def _packages(folder: Path, release: str, names: tuple[str, ...]) -> list[Path]:
    """Debian's archives of these packages and of what they want, as a base system has them."""
    command = ["debootstrap", "--download-only", "--arch=arm64", "--variant=minbase"]
    subprocess.run(
        [*command, f"--include={','.join(names)}", release, folder],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return sorted((folder / "var" / "cache" / "apt" / "archives").glob("*.deb"))


def _unpack(archives: list[Path], root: Path) -> None:
    for archive in archives:
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True)


def run(
    folder: Path, *arguments: object, also: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the environment's Python under emulation; `also`: folders to import from, beside its
    own."""
    root = folder / "root"
    command = [EMULATOR, "-L", root, root / "usr" / "bin" / "python3.11"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS")}
    environment = kept | {
        "PYTHONPATH": os.pathsep.join(map(str, (folder / "site", *also))),
        "LD_LIBRARY_PATH": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
