"""Builds a container's image with a tool that is installed here. Knows no target."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

BUILDERS: Mapping[str, tuple[str, ...]] = {
    "docker": ("docker", "build"),
    # Their own format of images has no health check.
    "podman": ("podman", "build", "--format", "docker"),
    "buildah": ("buildah", "build", "--format", "docker"),
}
"""Commands by the tool's name, in the order in which they are looked for."""
_DIGEST = r"@sha256:[0-9a-f]{64}"
_NAME = r"[a-z0-9][a-z0-9._:/-]{0,200}"
_TAG = r"[a-z0-9][a-zA-Z0-9._:/-]{0,200}"


class NotBuilt(RuntimeError):
    """No image was made; the message says why, or that the tool has said it."""


def require_pinned(image: str) -> None:
    """ValueError unless a base image is named with its digest."""
    if not re.fullmatch(_NAME + _DIGEST, image):
        raise ValueError(
            "must be an image with its digest, NAME@sha256: and 64 hexadecimal digits, not"
            f" {image[:200]!r}"
        )


def require_tag(image: str) -> None:
    """ValueError unless an image may be called so."""
    if not re.fullmatch(_TAG, image):
        raise ValueError(f"must be a name such as registry/lostwax:1, not {image[:200]!r}")


def find_builder(asked: str | None) -> str:
    """The tool that was asked for, or the first that is there. Raises NotBuilt."""
    wanted = [asked] if asked else list(BUILDERS)
    for name in wanted:
        if shutil.which(name):
            return name
    raise NotBuilt(
        f"{' or '.join(wanted)} is not installed; install it, or build the folder elsewhere: its"
        " README.md says how"
    )


def build(
    folder: Path, *, builder: str, stage: str, image: str, arguments: Sequence[str] = ()
) -> None:
    """Build a stage of the folder's Dockerfile. `arguments` are NAME=VALUE. Raises NotBuilt."""
    given = [word for each in arguments for word in ("--build-arg", each)]
    command = [*BUILDERS[builder], "--target", stage, *given, "--tag", image, str(folder)]
    status = subprocess.run(command, check=False).returncode
    if status != 0:
        raise NotBuilt(f"{builder} ended with {status}; what it printed above says why")
