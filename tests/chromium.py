"""Chromium by Playwright, for what is seen of the page at `/`."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-headless-shell")
# Its sandbox needs rights that a container has not; what it does in the background is not asked.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-component-update")


@contextmanager
def chromium() -> Generator[Any]:
    """A browser. ImportError where Playwright is not installed."""
    playwright: Any = import_module("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()
