"""The page in Chromium: the compiled choices, tokens by keyboard, long answers, what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, chromium
from fake_runtime import FakeRuntime
from http_server import running
from page_pictures import PICTURES, take
from page_stub import HOSTILE, MANY, stub
from trained_fixtures import TRAINED

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.api_keys import digests_of
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Build
from lostwax.server.gateway.tokenizer import IdCodec

pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium shows the page"),
]
DOCS = Path(__file__).parents[2] / "docs"
PICTURE_BYTES = 100_000
LONGEST_S = 0.5
"""For which a long answer may hold the page: a key that is pressed is answered within this."""


@pytest.fixture(scope="module")
def url(trained_artifact: Path) -> Iterator[str]:
    from lostwax.backends.runtime.load import load
    from lostwax.server.gateway.tokenizer_file import load_codec

    runtime = load(trained_artifact, checkpoint=TRAINED, threads=1)
    engine = InProcessEngine(EngineCore(runtime))
    settings = Settings(model="tiny", metrics=True, build=Build(9, "ab", "cpu", trained_artifact))
    with running(create_app(engine, load_codec(trained_artifact), settings)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def _complaints(page: Any) -> list[str]:
    said = list[str]()

    def complained(message: Any) -> None:
        said.append(getattr(message, "text", str(message)))

    page.on("console", complained)
    page.on("pageerror", complained)
    return said


def _ask(page: Any, text: str) -> None:
    page.fill("#question", text)
    page.press("#question", "Enter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_choices_are_reached_and_opened_by_keyboard(browser: Any, url: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    said = _complaints(page)
    page.goto(url)
    page.focus("#to-choices")
    page.keyboard.press("Enter")
    page.locator("#choices-table tbody").nth(1).wait_for()
    assert not page.locator("#question").is_visible()
    for focused in ("#program", "#choices-table button >> nth=0"):
        page.keyboard.press("Tab")
        assert page.locator(focused).evaluate("each => each === document.activeElement"), focused
    button = page.locator("#choices-table button").first
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert "Nothing: no other" in page.locator(".why").first.inner_text()
    page.focus("#program")
    page.select_option("#program", index=1)
    page.locator("#choices-said", has_text="a run").wait_for()
    widths = page.locator("#layers rect").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().width)"
    )
    assert min(widths) > 0
    page.go_back()
    assert page.locator("#question").is_visible()
    assert said == []
    page.close()


def test_the_skip_link_leads_to_the_message_from_the_choices(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(f"{url}/#choices")
    page.locator("#choices-table tbody").nth(1).wait_for()
    page.focus(".skip")
    page.keyboard.press("Enter")
    page.locator("#question:focus").wait_for()
    page.close()


def test_a_narrow_screen_has_nothing_beside_the_choices(browser: Any, url: str) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 640})
    page.goto(f"{url}/#choices")
    page.locator("#choices-table tbody").nth(1).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.close()


def test_tokens_are_reached_by_keyboard(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    page.fill("#temperature", "0")
    _ask(page, "What is 17 + 25?")
    page.locator("#said", has_text="Answered").wait_for()
    page.focus("#log")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".token.current").count() == 1
    assert "%" in page.locator("#tip").inner_text()
    assert "%" in page.locator("#said").inner_text()
    box, screen = page.locator("#tip").bounding_box(), page.viewport_size
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= screen["width"]
    assert box["y"] + box["height"] <= screen["height"]
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.close()


GAPS = """() => {
  globalThis.longest = 0;
  let last = performance.now();
  setInterval(() => {
    const now = performance.now();
    globalThis.longest = Math.max(globalThis.longest, now - last);
    last = now;
  }, 5);
}"""


def test_an_answer_of_ten_thousand_tokens_holds_the_page_for_no_time(browser: Any) -> None:
    with stub() as url:
        page = browser.new_page()
        said = _complaints(page)
        page.goto(url)
        page.locator("#model", has_text="up to").wait_for()
        page.evaluate(GAPS)
        _ask(page, "many")
        page.locator("#said", has_text="Answered").wait_for(timeout=60_000)
        assert page.locator(".token").count() == MANY
        page.locator("summary", has_text="Token probabilities").click()
        page.locator("tbody tr").nth(3).wait_for()
        page.focus("#log")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("() => globalThis.longest") < 1000 * LONGEST_S
        assert not [each for each in said if "404" not in each]  # it has no metrics
        page.close()


def test_an_answer_is_stopped_edited_and_sent_again(browser: Any) -> None:
    with stub() as url:
        page = browser.new_page()
        page.goto(url)
        page.locator("#model", has_text="up to").wait_for()
        _ask(page, "long")
        page.locator("article .text", has_text="on and on").wait_for()
        page.keyboard.press("Escape")
        page.locator("article .wrong", has_text="Stopped").wait_for()
        page.click("text=Edit")
        assert page.locator("article").count() == 0
        assert page.input_value("#question") == "long"
        assert page.locator("#question:focus").count() == 1
        _ask(page, "long")
        page.locator("article .text", has_text="on and on").wait_for()
        page.click("text=Edit")  # which stops the answer, too
        assert page.locator("article").count() == 0
        _ask(page, "weather?")
        page.locator("article pre", has_text='f({"city":"Bonn"})').wait_for()
        page.fill("article textarea", "sunny")
        page.click("text=Send the results")
        page.locator("article", has_text=HOSTILE).wait_for()
        page.close()


def test_a_wrong_key_is_asked_for_again_with_the_reason(browser: Any) -> None:
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    with running(create_app(engine, IdCodec(), Settings(key_digests=digests_of(["right"])))) as url:
        page = browser.new_page()
        page.goto(f"{url}/#choices")
        for key, reason in (("wrong", "an API key is needed"), ("right", "is not one of this")):
            page.locator("#key-why", has_text=reason).wait_for()
            page.locator("#key:focus").wait_for()
            page.keyboard.type(key)
            page.keyboard.press("Enter")
        page.locator("#choices-said", has_text="serves no artifact").wait_for()
        page.locator("#model", has_text="up to").wait_for()
        page.close()


def test_a_server_that_is_gone_is_said_in_words(browser: Any) -> None:
    with stub() as url:
        page = browser.new_page()
        page.goto(url)
        page.locator("#model", has_text="up to").wait_for()
    _ask(page, "hello")
    page.locator("article .wrong", has_text="does not answer").wait_for()
    page.locator("#state", has_text="does not answer").wait_for()
    page.close()


def test_the_pictures_of_the_documentation_are_taken_and_small(
    browser: Any, url: str, tmp_path: Path
) -> None:
    take(browser, url, tmp_path)
    named = (DOCS / "http.md").read_text(encoding="utf-8")
    for name in PICTURES:
        assert (tmp_path / name).stat().st_size < PICTURE_BYTES
        assert (DOCS / name).stat().st_size < PICTURE_BYTES
        assert f"]({name})" in named
    assert {path.name for path in DOCS.glob("page-*")} == {*PICTURES}
