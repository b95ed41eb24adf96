"""Visits of the page at `/` by node, in a stand-in of a document (`page_visit.mjs`)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lostwax.server.gateway.page_routes import FOLDER

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node runs the page's script")


def visit(steps: str, url: str, folder: Path) -> Any:
    """What a visitor sees."""
    for path in FOLDER.iterdir():
        shutil.copy(path, folder)
    script = Path(__file__).with_name("page_visit.mjs")
    done = subprocess.run(
        [str(NODE), str(script), str(folder), url, steps],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
