"""Whatever a client sends to the interfaces beside chats, it is taken or refused by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import read_body
from lostwax.server.gateway.prepared import Answered, Job, Prepared, Route

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=4096,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars,
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3)
    ),
    max_leaves=6,
)


def _records(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields, each of which may also be anything."""
    return st.fixed_dictionaries({}, optional={n: each | anything for n, each in fields.items()})


ids = st.sampled_from(["a", "b", ""])
texts = st.text(max_size=8)
names = st.sampled_from(["f", 'a"', ""])
schemas = st.sampled_from([{}, {"type": "object"}, {"type": "string"}, []])
parts = st.lists(
    _records(type=st.sampled_from(["text", "input_text", "output_text", "refusal"]), text=texts),
    max_size=2,
)
items = _records(
    type=st.sampled_from(["message", "function_call", "function_call_output", "reasoning"]),
    role=st.sampled_from(["user", "assistant", "developer"]),
    content=texts | parts,
    call_id=ids,
    name=names,
    arguments=st.sampled_from(["{}", "{", "[]"]),
    output=texts | parts,
)
blocks = _records(
    type=st.sampled_from(["text", "thinking", "tool_use", "tool_result"]),
    text=texts,
    thinking=texts,
    id=ids,
    name=names,
    input=st.sampled_from([{}, {"a": 1}]),
    tool_use_id=ids,
    content=texts | parts,
)
turns = _records(
    role=st.sampled_from(["user", "assistant", "system"]),
    content=texts | st.lists(blocks, max_size=3),
)
tools = st.lists(
    _records(
        type=st.sampled_from(["function", "custom"]),
        name=names,
        parameters=schemas,
        input_schema=schemas,
        strict=st.booleans(),
    ),
    max_size=2,
)
BODIES: dict[Route, st.SearchStrategy[dict[str, Any]]] = {
    "responses": _records(
        input=texts | st.lists(items, max_size=5),
        tools=tools,
        tool_choice=st.sampled_from(["auto", "required", {"type": "function", "name": "f"}]),
        reasoning=_records(effort=st.sampled_from(["none", "low"])),
    ),
    "messages": _records(
        messages=st.lists(turns, max_size=5),
        max_tokens=st.just(8),
        tools=tools,
        system=texts | parts,
        thinking=_records(type=st.sampled_from(["enabled", "disabled"])),
        tool_choice=_records(type=st.sampled_from(["auto", "any", "tool"]), name=names),
    ),
    "count_tokens": _records(messages=st.lists(turns, max_size=5), system=texts | parts),
    "generate": _records(
        text=texts | st.lists(texts, max_size=2),
        input_ids=st.lists(st.integers(0, VOCAB), max_size=3),
        sampling_params=_records(n=st.integers(0, 3), max_new_tokens=st.integers(0, 9)),
    ),
    "ollama": _records(
        messages=st.lists(
            _records(
                role=st.sampled_from(["user", "assistant", "tool", "system"]),
                content=texts,
                thinking=texts,
                tool_name=names,
                tool_call_id=ids,
                tool_calls=st.lists(
                    _records(id=ids, function=_records(name=names, arguments=schemas)), max_size=2
                ),
            ),
            max_size=5,
        ),
        tools=st.lists(_records(function=_records(name=names, parameters=schemas)), max_size=2),
        think=st.sampled_from([True, False, "low"]),
        format=st.sampled_from(["", "json", {}]),
        options=_records(num_predict=st.integers(-3, 9), num_ctx=st.integers(0, 5000)),
    ),
}


def _outcome(body: bytes, job: Job) -> Prepared | Answered | ApiError:
    try:
        return read_body(body, job, CODEC)
    except ApiError as error:
        return error


@pytest.mark.parametrize("route", BODIES)
@given(data=st.data())
def test_any_body_is_taken_or_refused(route: Route, data: st.DataObject) -> None:
    body = json.dumps(data.draw(BODIES[route])).encode()
    job = Job(route=route, model="fake", info=INFO, max_tokens=4096)
    found = _outcome(body, job)
    if isinstance(found, ApiError):
        assert found.status in (400, 404)
        assert found.message
        return
    # Between processes it is sent as such.
    kind = Answered if route == "count_tokens" else Prepared
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=kind) == found
    if isinstance(found, Prepared):
        assert all(0 <= token < VOCAB for each in found.submits for token in each.prompt)
