"""A request's way through the engine, by outputs that are written beforehand, in any order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

import pytest
from fake_runtime import generate
from http_server import small_codec

from lostwax.server.engine.messages import EngineInfo, Failed, Output, Stats, Submit, TokenScore
from lostwax.server.gateway.completions import CompletionForm
from lostwax.server.gateway.engine_client import (
    STOPPED,
    TOO_SLOW,
    EngineLost,
    EngineState,
    Mail,
    Mailbox,
    Mailboxes,
)
from lostwax.server.gateway.generation import Generation
from lostwax.server.gateway.prepared import AnswerOptions, Prepared
from lostwax.server.gateway.request_record import RequestRecord
from lostwax.server.gateway.transcript import Delta

PROMPT = [3, 1, 4]
CODEC = small_codec()


class _Scripted:
    """An engine that gives these outputs to whoever asks, and notes what is cancelled."""

    state: EngineState = "ready"
    info: EngineInfo | None = None
    stats: Stats | None = None
    progress = None
    num_restarts = 0

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        self.cancelled: list[str] = []

    async def start(self) -> None:
        """Nothing is started."""

    async def stop(self, reason: EngineLost = STOPPED) -> None:
        """Nothing is stopped."""

    async def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output, None]:
        for output in self._outputs:
            yield output

    def cancel(self, request: str) -> None:
        self.cancelled.append(request)


class _Prompts:
    """An observer that notes prompts alone."""

    def __init__(self) -> None:
        self.prompts: list[tuple[int, int]] = []

    def prompt(self, num_tokens: int, num_cached: int) -> None:
        self.prompts.append((num_tokens, num_cached))

    def tokens(self, gap_s: float | None, count: int) -> None:
        """Not looked at."""

    def first_token(self, seconds: float) -> None:
        """Not looked at."""

    def ended(self, record: RequestRecord) -> None:
        """Not looked at."""


def _output(choice: int, *tokens: int, ends: bool = False, n: int = 1) -> Output:
    """An event of a choice, of which each prompt has `n`."""
    return Output(
        request=f"r{choice // n}-{choice % n}" if n > 1 else f"r{choice}",
        tokens=[TokenScore(token, -1.0) for token in tokens],
        finish="length" if ends else None,
        cached_tokens=2,
    )


def _generation(
    client: _Scripted, prompts: int, *stops: str, record: RequestRecord | None = None, n: int = 1
) -> Generation[Delta]:
    """`n` choices to each of so many equal prompts."""
    submits = [Submit(request=f"r{i}", prompt=PROMPT, max_tokens=9) for i in range(prompts)]
    options = AnswerOptions(stops=list(stops), num_choices=n)
    form = CompletionForm(options, submits, CODEC)
    prepared = Prepared(options=options, submits=submits)
    return Generation(prepared, form, client, "fake", "mine", record)


def test_choices_stand_in_their_order_whichever_speaks_and_ends_first() -> None:
    last, first = generate(PROMPT, 2), generate(PROMPT, 4)[2:]
    outputs = [
        _output(1, *last, ends=True),
        _output(0, *first[:1]),
        _output(0, *first[1:], ends=True),
    ]
    answer = json.loads(asyncio.run(_generation(_Scripted(outputs), 2).answer()))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [c["text"] for c in answer["choices"]] == [CODEC.decode(first), CODEC.decode(last)]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_stop_string_cancels_its_choice_once_and_what_still_comes_is_dropped(
    is_streamed: bool,
) -> None:
    tokens = generate(PROMPT, 6)
    client = _Scripted(
        [_output(0, *tokens[:4]), _output(0, tokens[4]), _output(0, tokens[5], ends=True)]
    )
    generation = _generation(client, 1, CODEC.decode(tokens[2:4]))

    async def parts() -> str:
        return "".join(
            [json.loads(c)["choices"][0]["text"] async for c in generation.chunks() if c]
        )

    if is_streamed:
        text = asyncio.run(parts())
    else:
        text = json.loads(asyncio.run(generation.answer()))["choices"][0]["text"]
    assert text == CODEC.decode(tokens[:2])
    assert client.cancelled == ["r0"]


def test_a_stop_string_cancels_the_choice_that_it_ends_and_no_other_of_its_prompt() -> None:
    tokens = generate(PROMPT, 4)
    outputs = [_output(i, tokens[0], n=2) for i in range(4)]
    outputs.append(_output(3, *tokens[1:], n=2))
    outputs += [_output(i, tokens[0], ends=True, n=2) for i in range(3)]
    client = _Scripted(outputs)
    asyncio.run(_generation(client, 2, CODEC.decode(tokens[2:]), n=2).answer())
    assert client.cancelled == ["r1-1"]


def test_what_the_engine_has_ended_is_not_cancelled() -> None:
    client = _Scripted([_output(0, *generate(PROMPT, 3), ends=True)])
    asyncio.run(_generation(client, 1).answer())
    assert client.cancelled == []


@pytest.mark.parametrize("n", [1, 2])
def test_each_prompt_is_told_of_once(n: int) -> None:
    """However many choices it has, and outputs that say how much of it was cached."""
    told = _Prompts()
    record = RequestRecord("POST", "/", "mine", "", observers=[told])
    outputs = [_output(i, 5, ends=end, n=n) for end in (False, True) for i in range(2 * n)]
    answer = asyncio.run(_generation(_Scripted(outputs), 2, record=record, n=n).answer())
    assert told.prompts == [(3, 2), (3, 2)]
    assert (record.num_prompt, record.num_cached) == (6, 4)
    usage = json.loads(answer)["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert (usage["prompt_tokens"], usage["total_tokens"]) == (6, 6 + 4 * n)


def test_a_token_without_text_is_news_for_who_asked_for_ids() -> None:
    for token_ids, count in ((True, 1), (False, 0)):
        form = CompletionForm(AnswerOptions(token_ids=token_ids), [], CODEC)
        assert len(form.parts(0, Delta(token_ids=[2]))) == count
        assert form.parts(0, Delta()) == []


def _lying_in(*boxes: Mailbox) -> list[list[Mail]]:
    """All that can be taken out of each box without waiting."""

    async def taken(box: Mailbox) -> list[Mail]:
        found = list[Mail]()
        while True:
            task = asyncio.ensure_future(box.get())
            await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                return found
            found.append(task.result())

    async def all_taken() -> list[list[Mail]]:
        return [await taken(box) for box in boxes]

    return asyncio.run(all_taken())


def test_a_lost_engine_is_told_of_once_a_group_and_each_by_an_error_of_its_own() -> None:
    boxes = Mailboxes()
    pair, single = boxes.open(["a", "b"]), boxes.open(["c"])
    boxes.fail_all(EngineLost("gone", "code"))
    boxes.deliver(Output(request="a"))
    (first,), (second,) = _lying_in(pair, single)  # and no output: the groups are over
    assert isinstance(first, EngineLost)
    assert isinstance(second, EngineLost)
    assert first is not second, "raised twice, one would keep the traces of both"
    assert {(str(e), e.code) for e in (first, second)} == {("gone", "code")}


def test_a_closed_group_gets_no_mail() -> None:
    boxes = Mailboxes()
    box = boxes.open(["a", "b"])
    boxes.deliver(Output(request="b"))
    boxes.close(["a", "b"])
    for name in ("a", "b"):
        boxes.deliver(Output(request=name))
    assert _lying_in(box) == [[Output(request="b")]]


def test_who_reads_least_gives_way_where_too_much_lies_unread() -> None:
    """Others keep what they have, and the group that gave way hears of nothing else."""
    boxes = Mailboxes(most=800)
    slow, other = boxes.open(["a", "b"]), boxes.open(["c"])
    for number in range(901):
        boxes.deliver(Output(request="ab"[number % 2] if number % 3 else "c"))
        assert slow.num_unread + other.num_unread <= 800 + 800 // 8 + 1
    assert other.num_unread == 301
    assert slow.num_unread < 100
    first = asyncio.run(slow.get())
    assert isinstance(first, Failed)
    assert first.code == TOO_SLOW


def test_what_was_read_is_not_unread() -> None:
    async def read_all() -> None:
        boxes = Mailboxes(most=80)
        box = boxes.open(["a"])
        for _ in range(2000):
            boxes.deliver(Output(request="a"))
            assert isinstance(await box.get(), Output)

    asyncio.run(read_all())
