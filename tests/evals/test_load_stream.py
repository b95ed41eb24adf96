"""Times of a streamed answer, by a clock that the test sets; what is no answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import httpx
import pytest

from lostwax.evals.event_lines import MAX_EVENT_BYTES, EventLines, EventTooLong
from lostwax.evals.load.prompts import Prompt
from lostwax.evals.load.stream import Asker, AskFailed, Timing, Unreachable

DONE = b"data: [DONE]\n\n"


class Stream(httpx.AsyncByteStream):
    """Parts of an answer, each at its second of the clock; it sets what `now_s` tells."""

    def __init__(self, parts: Sequence[tuple[float, bytes]]) -> None:
        self.parts = parts
        self.now_s = 100.0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for after_s, part in self.parts:
            self.now_s = 100.0 + after_s
            yield part


def event(**fields: Any) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


def text(piece: str, finish: str | None = None) -> bytes:
    return event(choices=[{"text": piece, "finish_reason": finish}])


def delta(finish: str | None = None, **fields: str | None) -> bytes:
    return event(choices=[{"delta": fields, "finish_reason": finish}])


def usage(prompt_tokens: Any = 7, completion_tokens: Any = 4) -> bytes:
    return event(
        choices=[], usage={"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    )


def ask(
    *parts: tuple[float, bytes],
    endpoint: Literal["completions", "chat"] = "completions",
    requests: list[httpx.Request] | None = None,
    ignore_eos: bool = False,
) -> Timing:
    stream = Stream(parts)

    def answer(request: httpx.Request) -> httpx.Response:
        if requests is not None:
            requests.append(request)
        return httpx.Response(200, stream=stream)

    async def run() -> Timing:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://h/v1") as http:
            asker = Asker(http, "m", endpoint, 5, ignore_eos=ignore_eos, clock=lambda: stream.now_s)
            return await asker.ask(Prompt("hi" if endpoint == "chat" else [5, 6], 8))

    return asyncio.run(run())


def test_times_are_those_of_chunks_with_text_and_tokens_those_of_usage() -> None:
    found = ask(
        (0.5, text("a")),
        (0.7, text("b") + text("c")),
        (1.3, text("", "stop")),
        (1.9, usage(7, 5) + DONE),
    )
    assert found.first_s == pytest.approx(0.5)
    assert found.last_s == pytest.approx(1.3), "the usage is no token"
    assert list(found.gaps_s) == pytest.approx([0.2, 0.0, 0.6])
    assert (found.prompt_tokens, found.output_tokens) == (7, 5)
    assert found.token_s == pytest.approx(0.8 / 4)


def test_neither_the_role_nor_an_empty_piece_is_the_first_token_and_reasoning_is() -> None:
    found = ask(
        (0.1, delta(role="assistant", content="")),
        (0.2, delta(content=None)),
        (0.6, delta(reasoning_content="hm")),
        (0.9, delta(content="a") + delta("stop") + usage(7, 2) + DONE),
        endpoint="chat",
    )
    assert found.first_s == pytest.approx(0.6)
    assert found.last_s == pytest.approx(0.9)
    assert found.token_s == pytest.approx(0.3)


def test_events_may_be_cut_anywhere_and_end_with_either_line_end() -> None:
    whole = (text("é") + text("b", "stop") + usage() + DONE).replace(b"\n", b"\r\n")
    whole = b": comment\r\n\r\nevent: x\r\n" + whole
    found = ask(*((0.01 * n, whole[n : n + 1]) for n in range(len(whole))))
    assert len(found.gaps_s) == 1
    assert found.output_tokens == 4


def test_the_last_usage_counts() -> None:
    found = ask((0.1, text("a", "stop")), (0.2, usage(7, 1) + usage(7, 3) + DONE))
    assert found.output_tokens == 3


def test_an_answer_without_text_has_its_end_as_its_first_token() -> None:
    found = ask((0.4, text("", "stop") + usage(7, 1) + DONE))
    assert (found.first_s, found.last_s, found.token_s) == (pytest.approx(0.4), found.first_s, None)


WHOLE = text("a", "stop")
WRONG = {
    "closed the connection before [DONE]": (0.1, WHOLE + usage()),
    "the stream brought no usage": (0.1, WHOLE + DONE),
    "7 tokens of prompt and 9 of an answer of at most 8": (0.1, WHOLE + usage(7, 9) + DONE),
    "7 tokens of prompt and 0 of an answer": (0.1, WHOLE + usage(7, 0) + DONE),
    "0 tokens of prompt": (0.1, WHOLE + usage(0, 1) + DONE),
    "-3 of an answer": (0.1, WHOLE + usage(7, -3) + DONE),
    "Expected `int`, got `str`": (0.1, WHOLE + usage("7", 1) + DONE),
    "brought no answer, and its usage says 4 tokens": (0.1, usage() + DONE),
    "the answer broke off: out of memory": (0.1, event(error={"message": "out of memory"}) + DONE),
    "the answer broke off: plain": (0.1, event(error="plain") + DONE),
    "something else than expected": (0.1, b"data: <html>\n\n"),
    "something else than expected (": (0.1, b"data: " + b"[" * 100_000 + b"\n\n"),
    f"an event of more than {MAX_EVENT_BYTES} bytes": (0.1, b"data: " + b"x" * MAX_EVENT_BYTES),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_no_whole_answer_fails(said: str) -> None:
    with pytest.raises(AskFailed) as failed:
        ask(WRONG[said])
    assert said in str(failed.value)


def test_what_is_asked() -> None:
    asked: list[httpx.Request] = []
    parts = ((0.1, WHOLE + usage() + DONE),)
    ask(*parts, requests=asked)
    ask(*parts, requests=asked, endpoint="chat", ignore_eos=True)
    common = {"model": "m", "max_tokens": 8, "temperature": 0.0, "stream": True}
    common |= {"stream_options": {"include_usage": True}}
    assert [request.url.path for request in asked] == ["/v1/completions", "/v1/chat/completions"]
    assert json.loads(asked[0].content) == common | {"prompt": [5, 6]}
    chat = {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}
    assert json.loads(asked[1].content) == common | chat
    assert asked[0].headers["accept-encoding"] == "identity", "unpacking would be measured, too"


def test_refusals_and_missing_servers_are_told_apart() -> None:
    async def fail(handler: Any) -> str:
        transport = httpx.MockTransport(handler)
        async with httpx.AsyncClient(transport=transport, base_url="http://h/v1") as http:
            with pytest.raises(AskFailed) as failed:
                await Asker(http, "m", "completions", 0.05).ask(Prompt([5], 8))
            return f"{type(failed.value).__name__}: {failed.value}"

    def busy(_: httpx.Request) -> httpx.Response:
        said = b'{"error": {"message": "the queue is full"}}'
        return httpx.Response(429, stream=httpx.ByteStream(said))

    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def lost(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("")

    async def slow(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError("the timeout came first")

    assert asyncio.run(fail(busy)) == "AskFailed: status 429: the queue is full"
    assert asyncio.run(fail(gone)) == f"{Unreachable.__name__}: cannot connect: refused"
    assert asyncio.run(fail(lost)) == "AskFailed: the answer broke off: ReadError"
    assert asyncio.run(fail(slow)) == "AskFailed: no whole answer within 0.05 s"


def test_lines_are_whole_and_bounded() -> None:
    lines = EventLines()
    assert lines.add(b"a\nb") == [b"a"]
    assert lines.add(b"c\n\n") == [b"bc", b""]
    with pytest.raises(EventTooLong):
        lines.add(b"x" * (MAX_EVENT_BYTES + 1))
