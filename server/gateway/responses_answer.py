"""The shapes of answers of `/v1/responses`, for `/openapi.json`: nothing is built from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from lostwax.server.gateway.answer_models import Count, Id, ScoredToken

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(Struct, forbid_unknown_fields=True, tag_field="type", tag="output_text"):
    """The text of a message."""

    text: str
    annotations: Annotated[list[Any], Meta(max_length=0)]
    logprobs: list[ScoredToken]


class ReasoningText(Struct, forbid_unknown_fields=True, tag_field="type", tag="reasoning_text"):
    """The text of reasoning."""

    text: str


class MessageItem(Struct, forbid_unknown_fields=True, tag_field="type", tag="message"):
    """What the model says."""

    id: Id
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class ReasoningItem(Struct, forbid_unknown_fields=True, tag_field="type", tag="reasoning"):
    """What the model thinks, whole."""

    id: Id
    status: Status
    summary: Annotated[list[Any], Meta(max_length=0)]
    content: list[ReasoningText]


class CallItem(Struct, forbid_unknown_fields=True, tag_field="type", tag="function_call"):
    """A call that the client is asked to run; the arguments are the JSON of an object."""

    id: Id
    status: Status
    call_id: Id
    name: Id
    arguments: str


class InputDetails(Struct, forbid_unknown_fields=True):
    """Tokens of the prompt that the engine had cached; writing there is not counted."""

    cached_tokens: Count
    cache_write_tokens: Annotated[int, Meta(ge=0, le=0)]


class OutputDetails(Struct, forbid_unknown_fields=True):
    """Tokens of the reasoning."""

    reasoning_tokens: Count


class ResponseUsage(Struct, forbid_unknown_fields=True):
    """Tokens of prompt and answer."""

    input_tokens: Count
    input_tokens_details: InputDetails
    output_tokens: Count
    output_tokens_details: OutputDetails
    total_tokens: Count


class Incomplete(Struct, forbid_unknown_fields=True):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"]


class ResponseAnswer(Struct, forbid_unknown_fields=True):
    """An answer, and what it repeats of its request."""

    id: Id
    object: Literal["response"]
    created_at: Count
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: Incomplete | None
    model: str
    output: list[MessageItem | ReasoningItem | CallItem]
    usage: ResponseUsage
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, Any]
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: Count
    top_p: float
    truncation: str
    user: str | None


class ResponseEvent(Struct):
    """An event of its stream, with the fields that OpenAI's has of this type."""

    type: str
    sequence_number: Count
