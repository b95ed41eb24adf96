"""The page in Chromium: its policy holds, nothing fails, a keyboard is enough, and axe-core finds
nothing serious. Chromium is the machine's own, the first on PATH."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server import running
from trained_fixtures import TRAINED

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-headless-shell")
pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium shows the page"),
]


@pytest.fixture(scope="module")
def url(trained_artifact: Path) -> Iterator[str]:
    from lostwax.backends.runtime.load import load
    from lostwax.server.gateway.tokenizer_file import load_codec

    runtime = load(trained_artifact, checkpoint=TRAINED, threads=1)
    engine = InProcessEngine(EngineCore(runtime))
    settings = Settings(model="tiny", metrics=True)
    with running(create_app(engine, load_codec(trained_artifact), settings)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright: Any = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox"]  # its sandbox needs rights that a container has not
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


def _noted(page: Any) -> tuple[list[str], list[str]]:
    """What the page complains of, and what it asks for, from now on."""
    said, asked = list[str](), list[str]()

    def complained(message: Any) -> None:
        said.append(getattr(message, "text", str(message)))

    def requested(request: Any) -> None:
        asked.append(request.url)

    page.on("console", complained)
    page.on("pageerror", complained)
    page.on("request", requested)
    return said, asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chat_by_keyboard_shows_thinking_answer_and_probabilities(
    browser: Any, url: str, scheme: str
) -> None:
    page = browser.new_page(color_scheme=scheme)
    said, asked = _noted(page)
    page.goto(url)
    page.locator("#model", has_text="up to").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips to the message
    page.keyboard.type("What is 17 + 25?")
    page.fill("#temperature", "0")
    page.check("#thinking")
    page.focus("#question")
    page.keyboard.press("Enter")
    page.locator("#said", has_text="Answered").wait_for()
    answer = page.locator("article").nth(1)
    assert "Thinking" in answer.inner_text()
    assert "42" in answer.locator("> .text").inner_text()
    page.locator(".token").first.hover()
    assert "%" in page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    answer.locator("summary", has_text="Token probabilities").focus()
    page.keyboard.press("Enter")
    answer.locator("tbody tr").nth(3).wait_for()
    page.locator("#metrics dt", has_text="Tokens a second").first.wait_for()
    assert said == []
    assert all(address.startswith(url) for address in asked)
    page.close()


def _serious(page: Any) -> list[str]:
    """What axe-core says of the page that keeps somebody from using it."""
    axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    rules = axe.run(page).response
    assert rules["passes"], "nothing was looked at"
    return [
        f"{found['id']}: {found['help']} at {[node['target'] for node in found['nodes']]}"
        for found in rules["violations"]
        if found["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, url: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(url)
    page.locator("#metrics dt").first.wait_for()
    assert _serious(page) == []
    page.check("#thinking")
    page.fill("#question", "What is 17 + 25?")
    page.keyboard.press("Enter")
    page.locator("#said", has_text="Answered").wait_for()
    page.locator("summary", has_text="Token probabilities").last.click()
    assert _serious(page) == []
    page.close()


def test_axe_sees_a_picture_without_words_and_a_text_without_contrast(
    browser: Any, url: str
) -> None:
    page = browser.new_page()
    page.goto(url)
    page.evaluate("""() => {
        document.body.append(document.createElement("img"));
        for (const each of document.querySelectorAll("label")) each.style.color = "#eee";
    }""")
    assert {found.partition(":")[0] for found in _serious(page)} == {"image-alt", "color-contrast"}
    page.close()


def test_the_policy_stops_what_the_page_does_not_do(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    errors, _ = _noted(page)
    page.evaluate("""() => {
        globalThis.refused = 0;
        const image = document.createElement("img");
        const tries = [
            () => image.setAttribute("onerror", "globalThis.ran = true"),
            () => { document.body.innerHTML = "<b>x</b>"; },
        ];
        for (const each of tries) try { each(); } catch { globalThis.refused++; }
        document.body.append(image);
        image.setAttribute("src", "data:image/png,x");
        fetch("http://127.0.0.2:9/").catch(() => {});
    }""")
    page.wait_for_timeout(300)
    assert page.evaluate("() => [globalThis.ran, globalThis.refused]") == [None, 2]
    assert any("connect-src" in error for error in errors)
    page.close()


def test_a_narrow_screen_has_nothing_beside_it(browser: Any, url: str) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 640})
    page.goto(url)
    page.locator("#metrics dt").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.close()
