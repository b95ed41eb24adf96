"""Parts of a whole answer come in the order of its stream, which is the order of the model's text.

The answers are in the model's own format, a byte a token; both interfaces that tell of parts one
by one are asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from call_texts import OPEN, block, invoke, parameter
from fake_runtime import FakeLimits
from http_server import running
from openai.types.responses import Response
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime
from scripted_server import ScriptedServer

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoding_v32 import EOS, THINK_END, USER
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.chat_reader import ChatReader
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.output_logprobs import OutputLogprobs
from lostwax.server.gateway.transcript import Scored

LOGPROBS = ["message.output_text.logprobs"]
ROOMY = FakeLimits(max_context=8192, page_tokens=16, num_pages=2049, vocab_size=VOCAB)
ADD, NOW = invoke("add", parameter("a", "2", False)), invoke("now")
ADDED, TIMED = ("add", {"a": 2}), ("now", {})
BROKEN = f"\n\n{OPEN}\n" + NOW[:-5]
ANSWERS: dict[str, tuple[str, list[Any]]] = {
    "text": ("Yes.", ["Yes."]),
    "nothing": ("", []),
    "a call": (block(ADD), [ADDED]),
    "text before": ("Sure." + block(ADD), ["Sure.", ADDED]),
    "text behind": (block(ADD) + "\nDone.", [ADDED, "\nDone."]),
    "text between": (f"A{block(ADD)} B{block(NOW)}", ["A", ADDED, " B", TIMED]),
    "text everywhere": (f"A{block(ADD, NOW)} B {NOW}C", ["A", ADDED, TIMED, " B ", TIMED, "C"]),
    "blanks between": (f"{ADD}\n {NOW}\n", [ADDED, TIMED]),
    "a call that breaks off": (f"A{block(ADD)} B{BROKEN}", ["A", ADDED, f" B{BROKEN}"]),
}
"""What the model says, and its parts in order."""


class Server(ScriptedServer):
    """Asks by the interfaces that tell parts one by one."""

    def answers(self, text: str, thought: str) -> None:
        """What the model says from now on."""
        self.says(f"{thought}{THINK_END}{text}" if thought else text)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        answer = httpx.post(f"{self.url}{path}", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer


def _events(answer: httpx.Response) -> list[dict[str, Any]]:
    blocks = [each.split("\n") for each in answer.text.split("\n\n") if each]
    return [json.loads(data.removeprefix("data: ")) for _, data in blocks]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    runtime = ScriptedRuntime(limits=ROOMY)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with running(create_app(InProcessEngine(core), CODEC, Settings(model="m"))) as url:
        yield Server(runtime, url)


def _messages(server: Server, *, thinks: bool, stream: bool) -> httpx.Response:
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in ("add", "now")]
    body = {
        "messages": [{"role": "user", "content": "Hi?"}],
        "max_tokens": 2000,
        "tools": tools,
        "stream": stream,
        "thinking": {"type": "enabled", "budget_tokens": 1024} if thinks else {"type": "disabled"},
    }
    return server.post("/v1/messages", body)


def _responses(server: Server, *, thinks: bool, stream: bool, **more: Any) -> httpx.Response:
    tools = [{"type": "function", "name": name} for name in ("add", "now")]
    effort = {"effort": "high" if thinks else "none"}
    body = {"input": "Hi?", "tools": tools, "stream": stream, "reasoning": effort, **more}
    return server.post("/v1/responses", body)


def _of_block(block: dict[str, Any]) -> Any:
    if block["type"] == "tool_use":
        return block["name"], block["input"]
    return {"thinking": block["thinking"]} if block["type"] == "thinking" else block["text"]


def _of_item(item: dict[str, Any]) -> Any:
    if item["type"] == "function_call":
        return item["name"], json.loads(item["arguments"])
    (part,) = item["content"]
    return {"thinking": part["text"]} if item["type"] == "reasoning" else part["text"]


def _joined(parts: list[Any]) -> list[Any]:
    """The parts; texts that only a broken call parted are one."""
    found = list[Any]()
    for part in parts:
        if found and isinstance(part, str) and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return found


def _added_up(events: list[dict[str, Any]]) -> list[Any]:
    """The blocks that a stream of `/v1/messages` tells of."""
    blocks = list[dict[str, Any]]()
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(event["content_block"] | {"json": ""})
            assert event["index"] == len(blocks) - 1
        elif event["type"] == "content_block_delta":
            for name, text in event["delta"].items():
                if name != "type":
                    key = "json" if name == "partial_json" else name
                    blocks[event["index"]][key] += text
    parts = list[Any]()
    for each in blocks:
        if each["type"] == "tool_use":
            each["input"] = json.loads(each["json"])
        parts.append(_of_block(each))
    return parts


@pytest.mark.parametrize("thought", ["", "Hm."])
@pytest.mark.parametrize("name", ANSWERS)
def test_blocks_of_a_message_are_those_of_its_stream(
    server: Server, name: str, thought: str
) -> None:
    said, want = ANSWERS[name]
    server.answers(said, thought)
    first = [{"thinking": thought}] if thought else []
    whole = _messages(server, thinks=bool(thought), stream=False).json()
    assert [*map(_of_block, whole["content"])] == [*first, *want]
    events = _events(_messages(server, thinks=bool(thought), stream=True))
    assert _added_up(events) == [*first, *want]


@pytest.mark.parametrize("thought", ["", "Hm."])
@pytest.mark.parametrize("name", ANSWERS)
def test_items_of_a_response_are_those_of_its_stream(
    server: Server, name: str, thought: str
) -> None:
    said, want = ANSWERS[name]
    server.answers(said, thought)
    first = [{"thinking": thought}] if thought else []
    whole = _responses(server, thinks=bool(thought), stream=False).json()["output"]
    events = _events(_responses(server, thinks=bool(thought), stream=True))
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    done = [item for item in done if item["status"] == "completed"]
    for items in (whole, done, events[-1]["response"]["output"]):
        assert _joined([*map(_of_item, items)]) == [*first, *want]


@pytest.mark.parametrize(("thought", "top"), [("", 0), ("Hm.", 2)])
@pytest.mark.parametrize("name", ANSWERS)
def test_scored_tokens_of_a_response_are_those_of_its_texts(
    server: Server, name: str, thought: str, top: int
) -> None:
    """A token is a byte here: those of a text spell it, whole and in each part of a stream."""
    said, _ = ANSWERS[name]
    server.answers(said, thought)
    asked = {"include": LOGPROBS, "top_logprobs": top}
    whole = _responses(server, thinks=bool(thought), stream=False, **asked).json()["output"]
    events = _events(_responses(server, thinks=bool(thought), stream=True, **asked))
    of_text = [e for e in events if e["type"].startswith("response.output_text.")]
    told = [(e, e["text"] if "text" in e else e["delta"]) for e in of_text]
    items = [item for item in (*whole, *events[-1]["response"]["output"]) if "role" in item]
    told += [(item["content"][0], item["content"][0]["text"]) for item in items]
    for holder, text in told:
        spelled = bytes(byte for each in holder["logprobs"] for byte in each["bytes"])
        assert spelled.decode() == text
        assert {len(each["top_logprobs"]) for each in holder["logprobs"]} == {top}
        assert {each["logprob"] for each in holder["logprobs"]} == {-0.25}
    assert bool(told) == any(isinstance(part, str) for part in ANSWERS[name][1])


@pytest.mark.parametrize("said", [f"{EOS}Yes.", f"Ja{EOS}{USER} und", f"{EOS}{NOW}{EOS}B"])
def test_marks_are_scored_in_no_text(server: Server, said: str) -> None:
    """`ignore_eos` lets them come; they have no text, and stand where the text behind them does."""
    server.says(said)
    asked = {"include": LOGPROBS, "ignore_eos": True, "max_output_tokens": len(said.encode())}
    answer = _responses(server, thinks=False, stream=False, **asked).json()
    for item in answer["output"]:
        for part in item.get("content", ()):
            spelled = bytes(byte for each in part["logprobs"] for byte in each["bytes"])
            assert spelled.decode() == part["text"] != ""


def test_openais_client_reads_scored_texts(server: Server) -> None:
    server.answers("Grüße.", "")
    asked: Any = {"model": "m", "input": "Hi?", "top_logprobs": 3, "include": LOGPROBS}
    response = server.client.responses.create(**asked)
    Response.model_validate_json(response.model_dump_json(), strict=True)
    assert response.top_logprobs == 3
    with server.client.responses.stream(**asked) as stream:
        streamed = stream.get_final_response()
    for each in (response, streamed):
        (item,) = each.output
        assert item.type == "message"
        (part,) = item.content
        assert part.type == "output_text"
        assert part.logprobs is not None
        assert bytes(b for token in part.logprobs for b in token.bytes).decode() == part.text
        assert {len(token.top_logprobs) for token in part.logprobs} == {3}


def test_scores_are_told_where_they_are_asked_for(server: Server) -> None:
    server.answers("Yes.", "")
    (item,) = _responses(server, thinks=False, stream=False).json()["output"]
    assert item["content"][0]["logprobs"] == []
    assert _responses(server, thinks=False, stream=False).json()["top_logprobs"] == 0


def test_a_token_is_in_the_text_that_it_ends_in() -> None:
    """One may begin in a mark: of a tokenizer that joins them, or behind held-back text."""

    class Reader:
        starts = (4, 20)

    told = OutputLogprobs(cast("ChatReader", Reader()), CODEC)
    told.add([Scored(65, offset) for offset in (0, 3, 6, 8, 12, 18, 19, 22)])
    told.begin()
    counts = [len(told.take(count)) for count in (1, 3, 3)]
    assert counts == [1, 1, 1], "the one from 3 to 6, then from 6 to 8, then from 8"
    told.begin()
    assert [len(told.take(count)) for count in (2, 5)] == [1, 1], "from 19 to 22, then from 22"
