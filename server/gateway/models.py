"""Request fields that completions and chats share, and the schema of `/v1/completions`.

Every number has a bound. Parameters that the server does not honour are refused by name, never
ignored; a value that asks for nothing (`n: 1`, `best_of: 1`, penalties of 0) is accepted, because
clients send them by default. Knows no engine.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_PROMPTS = 256
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_TOKEN_ID = 2**31 - 1
MAX_LOGPROBS = 20

TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Prompt = str | list[TokenId] | list[str] | list[list[TokenId]]

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "suffix": ("",),
    "logit_bias": ({},),
}
"""Parameters that are not supported yet, with the values that ask for nothing."""

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


def drop_nulls(data: Any) -> Any:
    """A JSON object without its nulls: clients send them for what they do not set."""
    if not isinstance(data, dict):
        raise ValueError("a JSON object belongs here")
    return {name: value for name, value in data.items() if value is not None}  # pyright: ignore[reportUnknownVariableType]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = STRICT
    include_usage: bool = False


class GenerationRequest(BaseModel):
    """What every request that generates may say: OpenAI's fields, with `ignore_eos`,
    `stop_token_ids` and `return_token_ids` as extensions."""

    model_config = STRICT

    model: str | None = Field(None, max_length=512)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stop_token_ids: list[TokenId] = Field(default=[], max_length=MAX_STOPS)
    ignore_eos: bool = False
    return_token_ids: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=512)
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _nulls_mean_defaults(cls, data: Any) -> Any:
        return drop_nulls(data)

    @field_validator(*_NEUTRAL, check_fields=False)
    @classmethod
    def _unsupported(cls, value: Any, info: Any) -> Any:
        if value not in (None, *_NEUTRAL[info.field_name]):
            raise ValueError(f"only {_NEUTRAL[info.field_name][0]!r} is supported")
        return value

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream=true")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def streams_usage(self) -> bool:
        """Whether the usage is asked for behind a streamed answer."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(GenerationRequest):
    """A request of `/v1/completions`."""

    prompt: Prompt
    max_tokens: int = Field(16, ge=0, le=MAX_TOKEN_ID)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    best_of: int | None = None
    suffix: str | None = None

    @field_validator("prompt")
    @classmethod
    def _bounded_prompt(cls, value: Prompt) -> Prompt:
        if not value or value == [[]] or (isinstance(value, list) and "" in value):
            raise ValueError("the prompt is empty; give at least one token")
        return value

    @model_validator(mode="after")
    def _few_prompts(self) -> CompletionRequest:
        if len(self.prompts) > MAX_PROMPTS:
            raise ValueError(f"prompt: at most {MAX_PROMPTS} prompts a request")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or as token ids."""
        match self.prompt:
            case str():
                return [self.prompt]
            case [int(), *_]:
                return [list(self.prompt)]
            case _:
                return [p for p in self.prompt if not isinstance(p, int)]
