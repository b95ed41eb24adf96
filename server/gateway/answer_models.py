"""The shapes of answers, for `/openapi.json`: nothing is built from them, so nothing is slowed.

That answers are so is tested over HTTP (`tests/clients/`). A field that is unset may be missing;
one that may be null is always there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0)]
Finish = Literal["stop", "length"]
ChatFinish = Literal["stop", "length", "tool_calls"]
Id = Annotated[str, Meta(min_length=1)]
Percent = Annotated[int, Meta(ge=0, le=100)]


class ErrorFields(Struct, forbid_unknown_fields=True):
    """What is wrong. While the engine starts, the phase of that and how far it is."""

    message: Annotated[str, Meta(min_length=1)]
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None
    phase: str | UnsetType = UNSET
    percent: Percent | UnsetType = UNSET


class ErrorBody(Struct, forbid_unknown_fields=True):
    """Every answer with a status of 400 and above."""

    error: ErrorFields


class Health(Struct, forbid_unknown_fields=True):
    """The engine's state, or that the server drains; `running` requests are under way."""

    status: Literal["starting", "ready", "late", "dead", "draining"]
    running: Count
    phase: str | UnsetType = UNSET
    percent: Percent | UnsetType = UNSET


class Ready(Struct, forbid_unknown_fields=True):
    """Requests are taken."""

    status: Literal["ready"]


class Startup(Struct, forbid_unknown_fields=True):
    """How far the engine's start is; one that has ended has no phase."""

    status: Literal["starting", "ready", "dead"]
    phase: str | UnsetType | None = UNSET
    percent: Percent | UnsetType = UNSET
    seconds_left: Annotated[float, Meta(ge=0)] | UnsetType = UNSET


class Version(Struct, forbid_unknown_fields=True):
    """What runs here; where an artifact is served, its schema, digest and target."""

    version: str
    schema: Count | UnsetType = UNSET
    artifact: str | UnsetType = UNSET
    target: str | UnsetType = UNSET


class Model(Struct, forbid_unknown_fields=True):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str
    max_model_len: Annotated[int, Meta(ge=1)]


class Models(Struct, forbid_unknown_fields=True):
    """All of them: one."""

    object: Literal["list"]
    data: Annotated[list[Model], Meta(min_length=1, max_length=1)]


class PromptDetails(Struct, forbid_unknown_fields=True):
    """Tokens of the prompts that the engine had cached."""

    cached_tokens: Count


class OutputDetails(Struct, forbid_unknown_fields=True):
    """Tokens of the reasoning."""

    reasoning_tokens: Count


class Usage(Struct, forbid_unknown_fields=True):
    """Tokens of all choices together, each prompt counted once. Chats have details of answers."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptDetails
    completion_tokens_details: OutputDetails | UnsetType = UNSET


class CompletionLogprobs(Struct, forbid_unknown_fields=True):
    """Four lists of one length; the first token of an echoed prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[Count]


class CompletionChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """A completion of one prompt; a part of it has no finish reason until the last."""

    index: Count
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None
    token_ids: list[Count] | UnsetType = UNSET


class WholeCompletionChoice(CompletionChoice, frozen=True, forbid_unknown_fields=True):
    """A completion that has come to its end."""

    finish_reason: Finish


class Completion(Struct, forbid_unknown_fields=True):
    """An answer of `/v1/completions`."""

    id: Id
    created: Count
    model: str
    object: Literal["text_completion"]
    choices: Annotated[list[WholeCompletionChoice], Meta(min_length=1)]
    usage: Usage


class CompletionPart(Struct, forbid_unknown_fields=True):
    """An event of its stream. The last has the usage, if it is asked for, and no choice."""

    id: Id
    created: Count
    model: str
    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET


class RankedToken(Struct, forbid_unknown_fields=True):
    """A token that might have stood there."""

    token: str
    logprob: float | None
    bytes: list[Annotated[int, Meta(ge=0, le=255)]] | None


class ScoredToken(RankedToken, forbid_unknown_fields=True):
    """A token of the answer."""

    top_logprobs: list[RankedToken]


class ChatLogprobs(Struct, forbid_unknown_fields=True):
    """A token each of what was generated, reasoning included."""

    content: list[ScoredToken]


class CalledFunction(Struct, forbid_unknown_fields=True):
    """What is called. The arguments are the JSON of an object."""

    name: Id
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True):
    """A call that the client is asked to run."""

    id: Id
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Struct, forbid_unknown_fields=True):
    """The model's turn; without content where it ended while it reasoned, or has calls only."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None
    reasoning: str | None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1)] | UnsetType = UNSET


class ChatChoice(Struct, forbid_unknown_fields=True):
    """An answer to a chat."""

    index: Count
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinish
    token_ids: list[Count] | UnsetType = UNSET


class Chat(Struct, forbid_unknown_fields=True):
    """An answer of `/v1/chat/completions`."""

    id: Id
    created: Count
    model: str
    object: Literal["chat.completion"]
    choices: Annotated[list[ChatChoice], Meta(min_length=1)]
    usage: Usage


class FunctionDelta(Struct, forbid_unknown_fields=True):
    """Who is called, in the first part of a call, and what is added to its arguments."""

    arguments: str
    name: Id | UnsetType = UNSET


class ToolCallDelta(Struct, forbid_unknown_fields=True):
    """What an event adds to the call of this index; id, type and name come first."""

    index: Count
    function: FunctionDelta
    id: Id | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ChatDelta(Struct, forbid_unknown_fields=True):
    """What an event adds to the message; the role comes first."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: Annotated[list[ToolCallDelta], Meta(min_length=1)] | UnsetType = UNSET


class ChatChoicePart(Struct, forbid_unknown_fields=True):
    """A part of the answer to a chat."""

    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinish | None
    token_ids: list[Count] | UnsetType = UNSET


class ChatPart(Struct, forbid_unknown_fields=True):
    """An event of its stream. The last has the usage, if it is asked for, and no choice."""

    id: Id
    created: Count
    model: str
    object: Literal["chat.completion.chunk"]
    choices: list[ChatChoicePart]
    usage: Usage | UnsetType | None = UNSET


class Tokenized(Struct, forbid_unknown_fields=True):
    """The tokens of a prompt, with their texts where these are asked for."""

    count: Count
    max_model_len: Count
    tokens: list[Count]
    token_strs: list[str] | None


class Detokenized(Struct, forbid_unknown_fields=True):
    """The text of ids."""

    prompt: str
