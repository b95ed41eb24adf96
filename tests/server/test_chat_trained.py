"""Chats with the trained tiny model, and its tokenizer under the V3.2 encoding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from http_server import running
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from trained_fixtures import TRAINED

from lostwax.backends.runtime.load import load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.formats.encoding_v32 import (
    ASSISTANT,
    BOS,
    EOS,
    THINK,
    THINK_END,
    USER,
    encode_messages,
)
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import TextCodec
from lostwax.server.gateway.tokenizer_file import load_codec

TOKENIZER = Tokenizer.from_file(str(TRAINED / "tokenizer.json"))
CODEC = TextCodec(TOKENIZER)
texts = st.text(max_size=40).filter(lambda text: not any(mark in text for mark in CODEC.marks))
"""Hypothesis also tries strings that it finds in the code, such as marks, which are refused."""
turns = st.lists(st.tuples(texts, texts, texts), max_size=3)


def test_each_mark_of_the_encoding_is_one_token() -> None:
    for mark in (BOS, EOS, USER, ASSISTANT, THINK, THINK_END):
        assert TOKENIZER.token_to_id(mark) is not None, mark
        assert CODEC.encode_rendered(mark) == [TOKENIZER.token_to_id(mark)] == [CODEC.marks[mark]]


@given(
    system=st.none() | texts, turns=turns, last=texts, mode=st.sampled_from(["chat", "thinking"])
)
def test_rendered_chats_come_back_from_their_ids(
    system: str | None, turns: list[tuple[str, str, str]], last: str, mode: Any
) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for question, reasoning, answer in turns:
        messages.append({"role": "user", "content": question})
        told = {"content": answer, "reasoning_content": reasoning}
        messages.append({"role": "assistant", **told})
    text = encode_messages([*messages, {"role": "user", "content": last}], mode)
    ids = CODEC.encode_rendered(text)
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text
    assert [ids.count(CODEC.marks[mark]) for mark in (BOS, EOS, USER, ASSISTANT)] == [
        text.count(mark) for mark in (BOS, EOS, USER, ASSISTANT)
    ]
    assert ids[0] == CODEC.marks[BOS]
    assert ids[-1] == CODEC.marks[THINK if mode == "thinking" else THINK_END]


def test_a_rendered_chat_begins_once_where_the_tokenizer_begins_texts_itself() -> None:
    tokenizer = Tokenizer.from_file(str(TRAINED / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{BOS} $A", special_tokens=[(BOS, CODEC.marks[BOS])]
    )
    codec = TextCodec(tokenizer)
    assert codec.encode("a") == [CODEC.marks[BOS], *CODEC.encode("a")]
    rendered = encode_messages([{"role": "user", "content": "a"}], "chat")
    assert codec.encode_rendered(rendered) == CODEC.encode_rendered(rendered)


@given(texts)
def test_bytes_of_tokens_add_up_to_the_text(text: str) -> None:
    pieces = [CODEC.token_bytes(token) for token in CODEC.encode_rendered(text)]
    assert b"".join(piece or b"" for piece in pieces) == text.encode()


@pytest.fixture(scope="module")
def client(trained_artifact: Path) -> Iterator[openai.OpenAI]:
    runtime = load(trained_artifact, checkpoint=TRAINED, threads=1)
    codec = load_codec(trained_artifact)
    app = create_app(InProcessEngine(EngineCore(runtime)), codec, Settings(model="tiny"))
    with running(app) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_the_tiny_model_adds_in_a_stream(client: openai.OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is 17 + 25?"}]
    kwargs: Any = {"model": "tiny", "messages": asked, "temperature": 0, "max_tokens": 400}
    said, finish = "", list[str | None]()
    for chunk in client.chat.completions.create(stream=True, **kwargs):
        said += chunk.choices[0].delta.content or ""
        finish.append(chunk.choices[0].finish_reason)
    assert "42" in said
    assert "<" not in said, "no mark is shown"
    assert [f for f in finish if f] == ["stop"]


def test_the_example_of_the_page_prints_reasoning_and_answer(
    client: openai.OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "http://127.0.0.1:8000/v1" in code
    exec(code.replace("http://127.0.0.1:8000/v1", str(client.base_url)), {})
    reasoning, *_, answer = capsys.readouterr().out.splitlines()
    assert reasoning
    assert "42" in answer


def test_the_tiny_model_reasons_before_it_answers(client: openai.OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is 17 + 25?"}]
    thinking = {"chat_template_kwargs": {"thinking": True}}
    kwargs: Any = {"model": "tiny", "messages": asked, "temperature": 0, "extra_body": thinking}
    answer: Any = client.chat.completions.create(max_tokens=400, **kwargs)
    message = answer.choices[0].message
    assert "42" in message.content
    assert message.reasoning_content
    num_reasoning = answer.usage.completion_tokens_details.reasoning_tokens
    assert 0 < num_reasoning < answer.usage.completion_tokens
