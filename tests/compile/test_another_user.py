"""Another user on the same machine gets the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small_fixtures import Compiled

NOBODY = 65534
# The other user may not read this user's libraries: the first compile imports all of them.
COMPILE = """
import os, sys
from lostwax.cli import main
checkpoint, own, theirs, user, *options = sys.argv[1:]
main(["compile", checkpoint, "-o", own, *options])
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
main(["compile", checkpoint, "-o", theirs, *options])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another")
def test_another_user_gives_the_same_bytes(small_artifact: Compiled) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in shutil.copytree(small_artifact.checkpoint, folder / "ckpt").iterdir():
            file.chmod(0o644)
        theirs = folder / "theirs"
        theirs.mkdir()
        os.chown(theirs, NOBODY, NOBODY)
        options = ["--dtype", "fp32", "--max-context", "512"]
        options += ["--max-tokens", "64", "--max-reqs", "2"]
        places = [folder / "ckpt", folder / "own", theirs / "a", NOBODY]
        done = subprocess.run(
            [sys.executable, "-c", COMPILE, *map(str, places), *options],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert (theirs / "a").stat().st_uid == NOBODY
        made = (theirs / "a" / "manifest.json").read_bytes()
        assert made == (small_artifact.artifact / "manifest.json").read_bytes()
