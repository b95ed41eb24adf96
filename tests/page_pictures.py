"""Takes the pictures of the page that `docs/` shows: of a server with metrics that runs.

lostwax serve --enable-metrics
python tests/page_pictures.py http://127.0.0.1:8000 docs
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chromium import chromium

QUALITY = 80
WIDTH, HEIGHT = 1120, 860
TASKS = Path(__file__).parents[1] / "models" / "tiny" / "tasks" / "tools.jsonl"
RESULT = '{"status": "set"}'  # as the model was trained with


def _open(page: Any) -> None:
    page.locator("#model", has_text="up to").wait_for()
    page.fill("#temperature", "0")
    page.locator("#metrics dt").first.wait_for()


def _ask(page: Any, text: str) -> None:
    page.fill("#question", text)
    page.press("#question", "Enter")
    _answered(page)


def _answered(page: Any) -> None:
    page.locator("#send:not([disabled])").wait_for()
    page.locator("#said", has_text="Answered").wait_for()


def _measured(page: Any) -> None:
    """Until the metrics show the tokens of the last answer."""
    page.locator("#metrics dd", has_text=re.compile(r"^[1-9]\d*\.\d")).first.wait_for()


def thinking(page: Any) -> None:
    """Reasoning, an answer, a token's probabilities, metrics."""
    _open(page)
    page.check("#thinking")
    _ask(page, "What is 17 + 25?")
    _measured(page)
    page.locator("article").nth(1).locator("> .text .token").nth(3).hover()


def tools(page: Any) -> None:
    """A call of a tool, its result, and what the model makes of it."""
    _open(page)
    task = json.loads(TASKS.read_text(encoding="utf-8").splitlines()[0])
    system, question = task["messages"]
    page.fill("#tools", json.dumps(system["tools"], indent=1))
    _ask(page, question["content"])
    page.fill("article textarea", RESULT)
    page.click("text=Send the results")
    page.locator("article").nth(3).wait_for()
    _answered(page)
    _measured(page)


def choices(page: Any) -> None:
    """The layers of a program, and of one choice what lost."""
    page.click("#to-choices")
    page.locator("#choices-table tbody").nth(1).wait_for()
    page.locator("#choices-table tbody").nth(1).locator("button").nth(1).click()


PICTURES: dict[str, tuple[Callable[[Any], None], str]] = {
    "page-thinking.webp": (thinking, "light"),
    "page-tools.webp": (tools, "light"),
    "page-choices.webp": (choices, "light"),
    "page-dark.webp": (thinking, "dark"),
}
"""By name: what is done before, and in what colours."""


def take(browser: Any, url: str, folder: Path) -> None:
    """Write all pictures into the folder."""
    for name, (steps, scheme) in PICTURES.items():
        size = {"width": WIDTH, "height": HEIGHT}
        page = browser.new_page(color_scheme=scheme, viewport=size)
        page.goto(url)
        steps(page)
        session = page.context.new_cdp_session(page)
        taken = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
        (folder / name).write_bytes(base64.b64decode(taken["data"]))
        page.close()


def main() -> None:
    """Take the pictures."""
    url, folder = sys.argv[1:]
    with chromium() as browser:
        take(browser, url, Path(folder))


if __name__ == "__main__":
    main()
