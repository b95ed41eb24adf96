"""The shapes of answers of `/api/chat` and `/api/tags`, for `/openapi.json`: nothing is built from
them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from lostwax.server.gateway.answer_models import Count, Id

Time = Annotated[str, Meta(pattern="^[0-9-]{10}T[0-9:]{8}Z$")]


class OllamaFunction(Struct, forbid_unknown_fields=True):
    """What the client is asked to run."""

    index: Count
    name: Id
    arguments: dict[str, Any]


class OllamaCall(Struct, forbid_unknown_fields=True):
    """A call, which comes whole."""

    id: Id
    function: OllamaFunction


class OllamaTurn(Struct, forbid_unknown_fields=True):
    """What the model says, or a part of it."""

    role: Literal["assistant"]
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaCall] | UnsetType = UNSET


class OllamaAnswer(Struct, forbid_unknown_fields=True):
    """The model's turn. Durations are nanoseconds: of all, of what came before the first token, and
    of the rest."""

    model: str
    created_at: Time
    message: OllamaTurn
    done: Annotated[bool, Meta(extra_json_schema={"const": True})]
    done_reason: Literal["stop", "length"]
    total_duration: Count
    load_duration: Count
    prompt_eval_count: Count
    prompt_eval_duration: Count
    eval_count: Count
    eval_duration: Count


class OllamaPart(Struct, forbid_unknown_fields=True):
    """A part of a stream; the last is an `OllamaAnswer` that says no more."""

    model: str
    created_at: Time
    message: OllamaTurn
    done: Annotated[bool, Meta(extra_json_schema={"const": False})]


class OllamaError(Struct, forbid_unknown_fields=True):
    """Every answer with a status of 400 and above, and the last line of a stream that failed."""

    error: Annotated[str, Meta(min_length=1)]


class OllamaModel(Struct, forbid_unknown_fields=True):
    """The model, under the name that requests give; `digest` is its artifact's."""

    name: Id
    model: Id
    digest: str | UnsetType = UNSET


class OllamaModels(Struct, forbid_unknown_fields=True):
    """All models."""

    models: list[OllamaModel]
