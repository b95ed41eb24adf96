"""Request fields that completions and chats share, and the schema of `/v1/completions`.

Every number, text and list has a bound. Parameters that the server does not honour are refused by
name, never ignored; a value that asks for nothing (`best_of: 1`, `bad_words: []`) is taken,
because clients send them by default, and null always asks for the default. Hints that cannot change
an answer (`user`, `metadata`, …) are taken and not read. Knows no engine.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct

from lostwax.ir.contract.step import MAX_RANKED
from lostwax.server.engine.messages import MAX_CHOICES
from lostwax.server.gateway.response_format import FormatFields
from lostwax.server.gateway.unsupported import (
    FieldError,
    Unread,
    only,
    only_as_many_as,
    require_neutral,
)

MAX_PROMPTS = 256
MAX_CHOICES_TOGETHER = 256
"""Of all prompts of a request: as many as it may hold prompts."""
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_BIASES = 1024
MAX_TOKEN_ID = 2**31 - 1
MAX_HINT_CHARS = 512
MAX_METADATA = 16

MIN_SEED, MAX_SEED = -(2**63), 2**63 - 1
_SEEDS = {"minimum": MIN_SEED, "maximum": MAX_SEED}
"""Written out: msgspec describes bounds by doubles, which are coarser there."""

TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]
Penalty = Annotated[float, Meta(ge=-2, le=2, extra_json_schema={"default": 0.0})]
LogitBias = Annotated[
    dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]],
    Meta(
        max_length=MAX_BIASES,
        extra_json_schema={"propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"}},
    ),
]
"""What is added to the logits of some ids."""
Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]
Hint = Annotated[str, Meta(max_length=MAX_HINT_CHARS)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=MAX_METADATA),
]
"""The bounds of OpenAI's."""

_BEST_OF = "nothing is ranked here: ask for n answers with logprobs and choose the best yourself"
_SAMPLING = "temperature, top_p and seed steer the sampling"
_TOKENS = "check the answer and ask again"
_WHOLE_TEXT = "ask for return_token_ids and decode them"
_STORE = "nothing is stored here; keep the answer yourself"
PREFIXES = "cached prefixes stay in memory while there is room"
"""The remedy where a client says how long they are to stay."""


def _schema(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_TEXT = {"type": "string", "minLength": 1}
_ID = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
_PROMPT = {
    "anyOf": [
        _TEXT,
        _schema(_ID),
        _schema(_TEXT) | {"maxItems": MAX_PROMPTS},
        _schema(_schema(_ID)) | {"maxItems": MAX_PROMPTS},
    ]
}


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a streamed answer. No part is padded, so `include_obfuscation` may be false."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Unread, only(False, remedy="parts are not padded")] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


class GenerationRequest(FormatFields, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What every request that generates may say: OpenAI's fields, with `top_k`, `min_p`,
    `repetition_penalty`, `min_tokens`, `ignore_eos`, `stop_token_ids` and `return_token_ids` as
    extensions."""

    model: Hint | None = None
    temperature: Annotated[float, Meta(ge=0, le=2, extra_json_schema={"default": 1.0})] | None = (
        None
    )
    top_p: Annotated[float, Meta(gt=0, le=1, extra_json_schema={"default": 1.0})] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_TOKEN_ID, extra_json_schema={"default": 0})] | None = (
        None
    )
    min_p: Annotated[float, Meta(ge=0, le=1, extra_json_schema={"default": 0.0})] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: (
        Annotated[float, Meta(ge=0.01, le=2, extra_json_schema={"default": 1.0})] | None
    ) = None
    logit_bias: LogitBias | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)] | None = None
    seed: Annotated[int, Meta(ge=MIN_SEED, le=MAX_SEED, extra_json_schema=_SEEDS)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOPS)] | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES, extra_json_schema={"default": 1})] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    user: Hint | None = None
    safety_identifier: Hint | None = None
    prompt_cache_key: Hint | None = None
    metadata: Metadata | None = None

    best_of: Annotated[Unread, only_as_many_as("num_choices", MAX_CHOICES, remedy=_BEST_OF)] = UNSET
    length_penalty: Annotated[Unread, only(1, remedy=_SAMPLING)] = UNSET
    bad_words: Annotated[Unread, only([], remedy=_TOKENS)] = UNSET
    allowed_token_ids: Annotated[Unread, only([], remedy=_TOKENS)] = UNSET
    use_beam_search: Annotated[Unread, only(False, remedy=_SAMPLING)] = UNSET
    prompt_logprobs: Annotated[
        Unread, only(0, remedy="completions score a prompt with echo and logprobs")
    ] = UNSET
    skip_special_tokens: Annotated[Unread, only(True, remedy=_WHOLE_TEXT)] = UNSET
    spaces_between_special_tokens: Annotated[Unread, only(True, remedy=_WHOLE_TEXT)] = UNSET
    include_stop_str_in_output: Annotated[
        Unread, only(False, remedy="append the stop string yourself")
    ] = UNSET
    no_stop_trim: Annotated[Unread, only(False, remedy="append the stop string yourself")] = UNSET
    truncate_prompt_tokens: Annotated[Unread, only(remedy="shorten the prompt yourself")] = UNSET
    priority: Annotated[Unread, only(0, remedy="requests run in the order they come")] = UNSET
    store: Annotated[Unread, only(False, remedy=_STORE)] = UNSET
    service_tier: Annotated[Unread, only("auto", "default", remedy="there is one tier")] = UNSET
    prompt_cache_retention: Annotated[Unread, only("in_memory", remedy=PREFIXES)] = UNSET
    prompt_cache_options: Annotated[
        Unread, only({}, {"mode": "implicit"}, remedy="prefixes are found by themselves")
    ] = UNSET

    cache_salt: Annotated[
        Unread,
        only(remedy="all clients share prefixes: serve --disable-radix-cache keeps them apart"),
    ] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        if self.stream_options is not None and not self.stream:
            raise FieldError("stream_options", "it needs stream=true")
        if self.format is not None:
            self.require_own_end(self.format.param)

    def require_own_end(self, held_by: str) -> None:
        """FieldError where the client says when an answer ends that something holds to a form."""
        for name in ("ignore_eos", "min_tokens", "stop_token_ids"):
            if getattr(self, name):
                raise FieldError(
                    name, f"an answer ends where {held_by} lets it end; leave this parameter out"
                )

    @property
    def num_choices(self) -> int:
        """Answers to each prompt."""
        return 1 if self.n is None else self.n

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def streams_usage(self) -> bool:
        """Whether the usage is asked for behind a streamed answer."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


_SAMPLING_FIELDS = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("min_tokens", "stop", "stop_token_ids", "ignore_eos", "stream"),
)


def sampling_of(request: GenerationRequest) -> dict[str, Any]:
    """What a request says of how its answer is sampled, ended and sent, for another to say so."""
    return {name: getattr(request, name) for name in _SAMPLING_FIELDS}


class CompletionRequest(GenerationRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request of `/v1/completions`. `prompt` is its JSON: `read_prompts` reads it, with a bound
    that depends on the model."""

    prompt: Annotated[Raw, Meta(extra_json_schema=_PROMPT)]
    max_tokens: (
        Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID, extra_json_schema={"default": 16})] | None
    ) = None
    max_completion_tokens: Annotated[Unread, only(remedy="use max_tokens")] = UNSET
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_RANKED)] | None = None
    suffix: Annotated[Unread, only("", remedy="put what follows into the prompt")] = UNSET
    add_special_tokens: Annotated[Unread, only(True, remedy="send the prompt as token ids")] = UNSET

    @property
    def most_tokens(self) -> int:
        """Tokens of an answer at most."""
        return 16 if self.max_tokens is None else self.max_tokens
