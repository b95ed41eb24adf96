"""What is mounted below a folder that is replaced or removed keeps its files.

A mount within one file system, which no device number shows, in a namespace of the test's own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import listing

OWN = ("unshare", "--map-root-user", "--mount")
MOUNTED = 'mount --bind "$1/theirs" "$1/art/kernels" && exec "$0" -c "$2" "$1"'
HEAD = """
import os, sys
from pathlib import Path
from lostwax.backends.runtime import whole_folder
from lostwax.backends.runtime.mounts import HoldsMount
around = Path(sys.argv[1])
art, mount = around / "art", around / "art" / "kernels"
"""
REMOVED = f"""{HEAD}
try:
    whole_folder.remove(art)
except HoldsMount as error:
    assert f"holds the mount {{mount}}; unmount" in str(error)
"""
REPLACED = f"""{HEAD}
from lostwax.backends.artifact_writer import atomic_folder
from lostwax.backends import artifact_writer
artifact_writer.require_replaceable = lambda out: None  # the mount came while the compile ran
try:
    with atomic_folder(art) as work:
        (work / "new").touch()
except HoldsMount as error:
    assert f"holds the mount {{mount}}; unmount" in str(error)
"""
DISCARDED = f"""{HEAD}
from lostwax.cli.default_model import NoCache, _clear
try:
    _clear(art, "it is damaged")
except NoCache as error:
    assert f"holds the mount {{mount}}; unmount" in str(error)
"""
WAYS = {"removed": REMOVED, "replaced": REPLACED, "discarded": DISCARDED}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_mounted_below_a_folder_stays(way: str, tmp_path: Path) -> None:
    try:
        can = subprocess.run([*OWN, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("this user may make no namespace of mounts")
    (tmp_path / "art" / "kernels").mkdir(parents=True)
    (tmp_path / "art" / "manifest.json").touch()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept").touch()
    before = listing(tmp_path)
    done = subprocess.run(
        [*OWN, "sh", "-c", MOUNTED, sys.executable, tmp_path, WAYS[way]],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert listing(tmp_path) == before, done.stderr
    assert done.returncode == 0, done.stderr
