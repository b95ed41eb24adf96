"""Whatever a client sends, a chat request is taken or refused: never an error of the server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import prepare
from lostwax.server.gateway.prepared import Job

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=512,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
JOB = Job(route="chat", model="fake", info=INFO, max_tokens=512)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars,
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(sorted(ChatRequest.__struct_fields__)) | st.text(max_size=4)
roles = st.sampled_from(["system", "developer", "user", "assistant", "tool", "judge"])
calls = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": st.just("f"), "arguments": anything})}
)
messages = st.fixed_dictionaries(
    {"role": roles, "content": st.text(max_size=8) | anything},
    optional={
        "reasoning_content": st.text(max_size=8),
        "tool_calls": st.lists(calls, max_size=3),
        "tool_call_id": st.text(max_size=2),
    },
)
switches = st.fixed_dictionaries({"thinking": st.booleans()})
bodies = st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=4) | anything},
    optional={"chat_template_kwargs": switches | anything},
)


def outcome(body: bytes) -> ApiError | list[int]:
    """The prompt, or the refusal."""
    try:
        return prepare(body, JOB, CODEC).submits[0].prompt
    except ApiError as error:
        return error


@given(bodies, st.dictionaries(names, anything, max_size=2))
def test_any_body_is_taken_or_refused(body: dict[str, Any], more: dict[str, Any]) -> None:
    found = outcome(json.dumps(more | body).encode())
    if isinstance(found, ApiError):
        assert found.status in (400, 404)
        assert found.message
    else:
        assert all(0 <= token < VOCAB for token in found)


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": ' + b"[" * 100_000,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x", "role": 3}]}',
        b'{"messages": [' + b'{"role": "user", "content": ""},' * 3000 + b'{"role": "user"}]}',
        b'{"messages": [{"role": "user"}], "' + b"x" * 100_000 + b'": 1}',
        b'{"messages": [{"role": "user"}], "chat_template_kwargs": {"' + b"y" * 100_000 + b'": 1}}',
    ],
)
def test_hostile_bodies_are_refused_shortly(body: bytes) -> None:
    found = outcome(body)
    assert isinstance(found, ApiError)
    assert found.status == 400
    assert len(json.dumps(found.body)) < 1200


def test_a_long_history_of_tool_results_is_rendered_in_time() -> None:
    """At most 128 calls a message: looking back for the caller stays cheap."""
    call = {"function": {"name": "f", "arguments": "{}"}}
    turn = [{"role": "assistant", "tool_calls": [call] * 128}, *[{"role": "tool"}] * 128]
    history = [{"role": "user", "content": "x"}, *turn * 15]
    found = outcome(json.dumps({"messages": history}).encode())
    assert isinstance(found, ApiError)
    assert found.code == "context_length_exceeded"
