"""Reads a request as the server does, for tests that compare what is made of two."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import read_body
from lostwax.server.gateway.prepared import Job, Prepared

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=4096,
    max_reqs=4,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)


def what_is_read(route: Any, body: dict[str, Any]) -> dict[str, Any] | ApiError:
    """What is asked of the engine and of its answer, without the names of requests."""
    job = Job(route=route, model="fake", info=INFO, max_tokens=8192)
    try:
        found = read_body(json.dumps(body).encode(), job, CODEC)
    except ApiError as error:
        return error
    assert isinstance(found, Prepared)
    seed = {} if "seed" in json.dumps(body) else {"seed": 0}  # one is drawn where none was sent
    submits = [msgspec.structs.replace(each, request="", **seed) for each in found.submits]
    # What an answer repeats is not what it heeds.
    return msgspec.to_builtins(msgspec.structs.replace(found, submits=submits, echo=b""))
