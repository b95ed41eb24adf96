"""The page at `/`: what it is sent with, and what a visitor sees, without a browser.

A stand-in of a document runs the page's own script in node (`page_visit.mjs`); it reads no markup,
and refuses what a browser's policy would refuse.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from fake_runtime import FakeRuntime
from http_server import running
from page_stub import HOSTILE, stub
from page_visits import NODE, needs_node, visit
from trained_fixtures import TRAINED

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.api_keys import digests_of
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.page_routes import FILES, FOLDER
from lostwax.server.gateway.tokenizer import IdCodec


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    """A server that asks for a key."""
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    settings = Settings(key_digests=digests_of(["right"]))
    with running(create_app(engine, IdCodec(), settings)) as url:
        yield url


@pytest.mark.parametrize("path", FILES)
def test_the_page_is_sent_without_a_key_and_bound_to_itself(locked: str, path: str) -> None:
    answer = httpx.get(locked + path)
    name, kind = FILES[path]
    assert (answer.status_code, answer.content) == (200, (FOLDER / name).read_bytes())
    assert answer.headers["content-type"] == kind
    policy = answer.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert {"script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= {*policy}
    assert {"frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} <= {*policy}
    assert not any("unsafe" in rule or "http" in rule or "*" in rule for rule in policy)
    for header in ("x-content-type-options", "referrer-policy", "cross-origin-opener-policy"):
        assert header in answer.headers
    head = httpx.head(locked + path)
    assert (head.status_code, head.content) == (200, b"")
    assert httpx.post(locked + path, json={}).status_code == 405
    assert httpx.get(locked + path, headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/page", "/page/", "/page/index.html", "/page/../page/x", "//"])
def test_nothing_else_is_open(locked: str, path: str) -> None:
    assert httpx.get(locked + path).status_code == 401


def test_the_page_names_its_own_files_and_no_others() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', html))
    scripts = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js"))
    named |= set(re.findall(r'from "([^"]+)"', scripts))
    assert named - {"data:,"} == {*FILES} - {"/"}
    assert {path.name for path in FOLDER.iterdir()} == {name for name, _ in FILES.values()}
    everything = html + scripts + (FOLDER / "page.css").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|//\w+\.\w", everything)


def test_no_script_or_style_stands_in_the_page_and_no_text_becomes_markup() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", html)
    assert re.findall(r"<script[^>]*>(.*?)</script>", html, re.S) == [""]
    scripts = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js"))
    words = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|DOMParser|srcdoc"
    assert not re.search(words, scripts)
    assert not re.search(r"localStorage|sessionStorage|indexedDB|cookie", scripts)


def test_everything_that_can_be_filled_in_has_a_label() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    fields = re.findall(r'<(?:input|textarea|select)[^>]* id="([^"]+)"', html)
    labelled = set(re.findall(r'<label for="([^"]+)"', html))
    labelled |= set(re.findall(r'<label><input[^>]* id="([^"]+)"', html))
    assert {*fields} == labelled
    for pointed in re.findall(r'aria-(?:labelledby|describedby)="([^"]+)"', html):
        assert f'id="{pointed}"' in html
    levels = [int(level) for level in re.findall(r"<h(\d)", html)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert '<html lang="en">' in html


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(theme: int) -> None:
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme]))
    pairs = [
        (ink, back) for ink in ("ink", "soft", "accent", "wrong") for back in ("paper", "raised")
    ]
    for ink, back in [*pairs, ("on-accent", "accent"), ("paper", "ink")]:
        dark, light = sorted((_luminance(colours[ink]), _luminance(colours[back])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, back)  # WCAG 2.2, 1.4.3
    for family in ("attention", "experts", "products", "other"):
        dark, light = sorted(_luminance(colours[name]) for name in (family, "paper"))
        assert (light + 0.05) / (dark + 0.05) >= 3, family  # 1.4.11


@pytest.fixture(scope="module")
def trained(trained_artifact: Path) -> Iterator[str]:
    from lostwax.backends.runtime.load import load
    from lostwax.server.gateway.tokenizer_file import load_codec

    runtime = load(trained_artifact, checkpoint=TRAINED, threads=1)
    engine = InProcessEngine(EngineCore(runtime))
    settings = Settings(model="tiny", metrics=True)
    with running(create_app(engine, load_codec(trained_artifact), settings)) as url:
        yield url


@needs_node
def test_a_visitor_chats_and_sees_thinking_tokens_and_metrics(trained: str, tmp_path: Path) -> None:
    seen = visit("chat", trained, tmp_path)
    first, second = seen["bodies"]
    whole = {k: v for k, v in first.items() if k not in ("stream", "stream_options")}
    answer = httpx.post(f"{trained}/v1/chat/completions", json=whole, timeout=60).json()
    message = answer["choices"][0]["message"]
    assert (seen["reasoning"], seen["content"]) == (
        message["reasoning_content"],
        message["content"],
    )
    assert "42" in seen["content"]
    assert seen["rows"] == answer["usage"]["completion_tokens"]
    assert re.match(r'".*" \d+\.\d %\n  ".*" (\d+\.\d|< 0\.1) %', seen["tip"]["text"])
    assert (seen["tip"]["hidden"], seen["tip"]["left"]) == (False, "10px")
    assert seen["model"] == "tiny, up to 1024 tokens"
    assert seen["said"].endswith(" tokens, stop")
    assert "Tokens a second" in seen["metrics"]
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1] == {"role": "assistant", "content": message["content"]}


@needs_node
def test_arrow_keys_go_from_token_to_token(trained: str, tmp_path: Path) -> None:
    seen = visit("walk", trained, tmp_path)
    assert [each["marked"] for each in seen["seen"]] == [0, 1, 0, 0]
    for each in seen["seen"]:
        assert "%" in each["tip"]
        assert each["said"] == each["tip"].replace("\n", "; ")
    assert seen["seen"][0]["tip"] != seen["seen"][1]["tip"]
    assert (seen["hidden"], seen["left"]) == (True, False)


@needs_node
def test_a_question_can_be_edited_and_the_chat_begun_anew(trained: str, tmp_path: Path) -> None:
    seen = visit("edit", trained, tmp_path)
    assert seen["edited"] == {"text": "second", "turns": 2}
    assert [message["content"] for message in seen["users"]] == ["first", "third"]
    assert seen["left"] == 0


@needs_node
def test_the_page_asks_for_the_key_and_keeps_it_in_memory(locked: str, tmp_path: Path) -> None:
    seen = visit("key", locked, tmp_path)
    assert "an API key is needed" in seen["why"]
    assert "is not one of this server's" in seen["second"]
    assert seen["kept"] == ""
    assert seen["keys"] == [None, "Bearer wrong", "Bearer right"]


@needs_node
def test_who_gives_no_key_is_asked_again_only_for_a_question(locked: str, tmp_path: Path) -> None:
    seen = visit("leave", locked, tmp_path)
    assert seen == {"again": False, "shown": "no key was given"}


@needs_node
def test_an_answer_can_be_stopped(tmp_path: Path) -> None:
    with stub() as url:
        assert visit("stop", url, tmp_path) == {"said": "Stopped", "shown": "Stopped"}


@needs_node
def test_what_goes_wrong_is_said_in_words(tmp_path: Path) -> None:
    with stub() as url:
        assert visit("breaks", url, tmp_path) == {"shown": "the answer broke off", "text": "So"}
        assert visit("plain", url, tmp_path) == "the server answers 502 without a reason"
        gone = "the server does not answer: it has ended, or cannot be reached"
        assert visit("gone", url, tmp_path) == {"shown": gone, "state": gone}


@needs_node
def test_calls_are_shown_and_their_results_sent_back(tmp_path: Path) -> None:
    with stub() as url:
        seen = visit("tools", url, tmp_path)
    assert seen["wrong"].startswith("the tools are no JSON: ")
    assert seen["call"] == 'f({"city":"Bonn"})'
    assert seen["label"] == "Result of f"
    assert seen["shown"] == HOSTILE
    call = {"name": "f", "arguments": '{"city":"Bonn"}'}
    assert seen["body"]["messages"] == [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "<b>sunny</b>"},
    ]


CUTS = """
import { readFileSync } from "node:fs";
import { Answer, EventReader, shownMetrics, readMetrics, sureness } from "./reading.mjs";
const text = JSON.parse(readFileSync(0));
const whole = new EventReader().take(text);
for (let cut = 0; cut <= text.length; cut++) {
  const reader = new EventReader();
  const found = [...reader.take(text.slice(0, cut)), ...reader.take(text.slice(cut))];
  if (JSON.stringify(found) !== JSON.stringify(whole)) throw new Error(`cut at ${cut}`);
}
const before = readMetrics("lostwax_generation_tokens_total 10.0\\n");
const now = readMetrics('# HELP x\\nlostwax_generation_tokens_total 30.0\\n'
  + 'lostwax_cache_pages{state="used"} 1.0\\nlostwax_cache_pages{state="blank"} 3.0\\n');
let failed = "";
try { new Answer().take({ error: { message: "lost" } }); } catch (error) { failed = error.message; }
console.log(JSON.stringify({ whole, failed, shown: Object.fromEntries(shownMetrics(before, now, 4)),
  began: Object.fromEntries(shownMetrics(now, before, 4)),
  sure: [-0.01, -0.5, -1, -9, -Infinity].map(sureness) }));
"""


@needs_node
def test_events_are_read_however_they_are_cut_and_metrics_by_their_difference(
    tmp_path: Path,
) -> None:
    shutil.copy(FOLDER / "reading.js", tmp_path / "reading.mjs")
    (tmp_path / "cuts.mjs").write_text(CUTS)
    text = 'data: {"a": 1}\n\n: wait\n\nevent: error\ndata: {"b":\ndata: 2}\n\ndata: [DONE]\n\n'
    done = subprocess.run(
        [str(NODE), str(tmp_path / "cuts.mjs")],
        input=json.dumps(text),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["whole"] == ['{"a": 1}', '{"b":\n2}', "[DONE]"]
    assert seen["failed"] == "lost"
    assert seen["shown"]["Tokens a second"] == "5.0"
    assert seen["shown"]["Cache used"] == "25 %"
    assert seen["began"]["Tokens a second"] == "…"
    assert seen["sure"] == ["sure", "likely", "open", "rare", "rare"]


HISTORIES = """
import { Answer, messagesOf } from "./reading.mjs";
const said = (finish, content, ...calls) => {
  const answer = new Answer();
  const parts = calls.map((text, index) => (
    { index, id: `c${index}`, function: { name: "f", arguments: text } }));
  answer.take({ choices: [{ delta: { content, tool_calls: parts }, finish_reason: finish }] });
  return answer;
};
const [ask, next] = ["a", "b"].map((content) => ({ role: "user", content }));
const result = { role: "tool", tool_call_id: "c0", content: "1" };
const turns = {
  called: [said("tool_calls", "", "{}"), result],
  broken: [said("stop", "[f {", "{")],
  stopped: [said(null, "So", '{"a": 1')],
  cut: [said("length", "", '{"a"')],
  "one whole": [said("tool_calls", "[f {", "{}", "{"), result],
  "no result": [said("tool_calls", "So", "{}")],
  "lost behind its result": [said("tool_calls", "", "{}"), result, new Answer()],
};
const told = Object.entries(turns).map(([name, told]) => [
  name,
  messagesOf("", [ask, ...told, next]).map((m) => m.role[0] + (m.tool_calls?.length ?? "")),
]);
console.log(JSON.stringify(Object.fromEntries(told)));
"""


@needs_node
def test_only_calls_that_have_results_are_sent_back(tmp_path: Path) -> None:
    """Any other would make a 400 of every question behind it."""
    shutil.copy(FOLDER / "reading.js", tmp_path / "reading.mjs")
    (tmp_path / "histories.mjs").write_text(HISTORIES)
    command = [str(NODE), str(tmp_path / "histories.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "called": ["u", "a1", "t", "u"],
        "broken": ["u", "a", "u"],
        "stopped": ["u", "a", "u"],
        "cut": ["u"],
        "one whole": ["u", "a1", "t", "u"],
        "no result": ["u", "a", "u"],
        "lost behind its result": ["u"],
    }
