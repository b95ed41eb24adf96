"""Builds the image `cpu` on a base that debootstrap makes, and runs it as its configuration says.

As root, with Debian's buildah, crun and debootstrap. No registry of images is asked. What runs has
a read-only root, a network with loopback alone, no capability, and the user of the image.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOOLS = ("buildah", "crun", "debootstrap")
KEY = "a-key-of-the-test"
STANDIN = "localhost/lostwax-standin"
BOOT_S = 240
# Debian's crun knows the second kind of control groups alone: that is what it sees here.
_VIEW = 'umount -R -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"'
CRUN = ("unshare", "--mount", "sh", "-ec", _VIEW, "sh", "crun", "--cgroup-manager", "disabled")


def missing() -> list[str]:
    """What the machine lacks, in words."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    return lacking if os.geteuid() == 0 else [*lacking, "root's rights"]


def run(command: Sequence[object], **given: Any) -> str:
    """Standard output of a command; its standard error is the test's where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@dataclass(frozen=True)
class Store:
    """Images in a folder of ours, not in the machine's."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For buildah: the kernel's overlay, which copies nothing, and no namespace of its own."""
        config = self.folder / "storage.conf"
        if not config.exists():
            lines = [f'graphroot = "{self.folder}/graph"', f'runroot = "{self.folder}/run"']
            config.write_text("\n".join(["[storage]", 'driver = "overlay"', *lines, ""]))
        ours = {"CONTAINERS_STORAGE_CONF": str(config), "BUILDAH_ISOLATION": "chroot"}
        return os.environ | ours | {"STORAGE_DRIVER": "overlay", "TMPDIR": str(self.folder)}

    def buildah(self, *arguments: object) -> str:
        """Standard output of buildah."""
        return run(["buildah", *arguments], env=self.environment)

    def standin(self) -> str:
        """A base image that debootstrap makes, by its digest."""
        root = self.folder / "standin"
        packages = "python3,python3-venv,ca-certificates"
        given = ["--variant=minbase", f"--include={packages}", "bookworm", root]
        run(["debootstrap", *given])
        (name,) = self.buildah("from", "scratch").split()
        self.buildah("add", name, root, "/")
        self.buildah("commit", "--rm", name, STANDIN)
        shutil.rmtree(root)
        return f"{STANDIN}@{self._digest(STANDIN)}"

    def _digest(self, image: str) -> str:
        (found,) = json.loads(self.buildah("images", "--digests", "--json", image))
        return found["digest"]

    def configuration(self, image: str) -> dict[str, Any]:
        """What an image says of how it is run, in Docker's words."""
        found = json.loads(self.buildah("inspect", "--type", "image", image))
        return found["Docker"]["config"]

    def mounted(self, image: str) -> Path:
        """The image's files."""
        (name,) = self.buildah("from", "--pull-never", image).split()
        return Path(self.buildah("mount", name).strip())


def wheel(folder: Path) -> Path:
    """lostwax's own."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    run([*command, ROOT])
    (found,) = folder.glob("lostwax-*.whl")
    return found


def packages(requirements: Path, folder: Path) -> None:
    """Each package's file for the Python of the stand-in, by its hash."""
    python = ["--python-version", "3.11", "--implementation", "cp", "--only-binary", ":all:"]
    given = ["--require-hashes", "--no-deps", "-r", requirements, "-d", folder, *python]
    run([sys.executable, "-m", "pip", "download", "--quiet", *given])


@dataclass(frozen=True)
class Running:
    """A container that runs."""

    name: str
    state: Path
    user: str
    process: subprocess.Popen[bytes]

    @property
    def has_not_ended(self) -> bool:
        """False when what it ran is over."""
        return self.process.poll() is None

    def inside(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its user."""
        words = [*CRUN, "--root", str(self.state), "exec", "--user", self.user, self.name]
        words += map(str, command)
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def python(self, code: str) -> str:
        """What a program prints that runs in it."""
        done = self.inside("/opt/lostwax/bin/python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running(
    folder: Path, root: Path, configuration: dict[str, Any], mounts: dict[str, tuple[Path, bool]]
) -> Generator[Running]:
    """Run what an image's configuration says, over its files. `mounts` are by their place inside:
    the host's path, and whether it may be written."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_specified(root, configuration, mounts)))
    name, state = "lostwax-test", folder / "state"
    crun = [*CRUN, "--root", str(state)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*crun, "run", "--bundle", str(folder), name], stdout=log, stderr=log
        )
        try:
            yield Running(name, state, configuration["User"], process)
        finally:
            subprocess.run([*crun, "kill", name, "TERM"], check=False)
            try:
                process.wait(30)
            finally:
                subprocess.run([*crun, "delete", "--force", name], check=False)


def _specified(
    root: Path, configuration: dict[str, Any], mounts: dict[str, tuple[Path, bool]]
) -> dict[str, Any]:
    uid, gid = map(int, configuration["User"].split(":"))
    memory = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
    bound = [
        {
            "destination": inside,
            "type": "bind",
            "source": str(path),
            "options": ["rbind", "rw" if writable else "ro"],
        }
        for inside, (path, writable) in mounts.items()
    ]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": [*configuration["Entrypoint"], *configuration["Cmd"]],
            "env": configuration["Env"],
            "cwd": configuration["WorkingDir"],
            "noNewPrivileges": True,
            "capabilities": {
                kind: [] for kind in ("bounding", "effective", "permitted", "inheritable")
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755"],
            },
            {"destination": "/dev/shm", **memory},
            {"destination": "/tmp", **memory},
            *bound,
        ],
        "linux": {
            "namespaces": [{"type": each} for each in ("pid", "mount", "ipc", "uts", "network")]
        },
    }
