"""The request schema of SGLang's `/generate`, with a bound on every number. Knows no prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from lostwax.server.engine.messages import MAX_CHOICES
from lostwax.server.gateway.models import (
    MAX_STOPS,
    MAX_TOKEN_ID,
    CompletionRequest,
    LogitBias,
    Penalty,
    Stop,
    TokenId,
)
from lostwax.server.gateway.response_format import Asked, JsonOrText, Text
from lostwax.server.gateway.unsupported import FieldError, Unread, only, require_neutral

_TAGS = "describe the tags in a grammar, as ebnf"
_WHOLE_TEXT = "output_ids are the answer's, marks included"
_COMPLETIONS = "/v1/completions has them"
_TEXT = {"type": "string", "minLength": 1}
_ID = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
_IDS = {"type": "array", "items": _ID, "minItems": 1}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}, {"type": "null"}]}
_ALL_IDS = {"anyOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}, {"type": "null"}]}


class SamplingParams(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How answers are sampled and ended; 128 tokens at most where nobody says else."""

    max_new_tokens: (
        Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID, extra_json_schema={"default": 128})] | None
    ) = None
    min_new_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2, extra_json_schema={"default": 1.0})] | None = (
        None
    )
    top_p: Annotated[float, Meta(gt=0, le=1, extra_json_schema={"default": 1.0})] | None = None
    top_k: (
        Annotated[int, Meta(ge=-1, le=MAX_TOKEN_ID, extra_json_schema={"default": -1})] | None
    ) = None
    min_p: Annotated[float, Meta(ge=0, le=1, extra_json_schema={"default": 0.0})] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: (
        Annotated[float, Meta(ge=0.01, le=2, extra_json_schema={"default": 1.0})] | None
    ) = None
    logit_bias: LogitBias | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOPS)] | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES, extra_json_schema={"default": 1})] | None = None
    sampling_seed: Annotated[int, Meta(ge=-(2**53), le=2**53)] | None = None
    skip_special_tokens: Annotated[Unread, only(True, remedy=_WHOLE_TEXT)] = UNSET
    spaces_between_special_tokens: Annotated[Unread, only(True, remedy=_WHOLE_TEXT)] = UNSET
    no_stop_trim: Annotated[Unread, only(False, remedy="append the stop string yourself")] = UNSET
    stop_regex: Annotated[Unread, only([], remedy="name stop strings")] = UNSET
    json_schema: JsonOrText = UNSET
    regex: Text | None = None
    ebnf: Text | None = None
    structural_tag: Annotated[Unread, only(remedy=_TAGS)] = UNSET
    custom_params: Annotated[Unread, only({}, remedy="there are no custom processors")] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


class SampledCompletion(CompletionRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The completion that such a request is; a format keeps the name that it came under."""

    def _asked(self) -> Iterator[Asked]:
        for asked in super()._asked():
            yield asked._replace(param=f"sampling_params.{asked.param}")


class GenerateRequest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request of `/generate`: `text` or `input_ids`, one prompt or a list. Each is its JSON,
    which `read_prompts` reads."""

    text: Annotated[Raw | UnsetType, Meta(extra_json_schema=_TEXTS)] = UNSET
    input_ids: Annotated[Raw | UnsetType, Meta(extra_json_schema=_ALL_IDS)] = UNSET
    sampling_params: SamplingParams | None = None
    stream: bool | None = None
    return_logprob: Annotated[Unread, only(False, remedy=_COMPLETIONS)] = UNSET
    logprob_start_len: Annotated[Unread, only(-1, remedy=_COMPLETIONS)] = UNSET
    top_logprobs_num: Annotated[Unread, only(0, remedy=_COMPLETIONS)] = UNSET
    return_text_in_logprobs: Annotated[Unread, only(False, remedy=_COMPLETIONS)] = UNSET
    return_hidden_states: Annotated[Unread, only(False, remedy="they never leave the engine")] = (
        UNSET
    )
    rid: Annotated[Unread, only(remedy="send the header X-Request-Id")] = UNSET
    image_data: Annotated[Unread, only(remedy="this model reads and writes text only")] = UNSET
    lora_path: Annotated[Unread, only(remedy="there are no adapters")] = UNSET
    model: None = None

    def __post_init__(self) -> None:
        require_neutral(self)
        if self.name == "text" and not self.prompt.lstrip(b"[ \t\r\n").startswith(b'"'):
            raise FieldError("text", "a text belongs here, or a list of texts")
        if self.name == "input_ids" and (
            not self.prompt.startswith(b"[") or b'"' in self.prompt[:64]
        ):
            raise FieldError("input_ids", "a list of ids belongs here, or a list of such lists")

    @property
    def name(self) -> str:
        """The field that has the prompts; FieldError unless one has."""
        found = [
            name
            for name in ("text", "input_ids")
            if (raw := getattr(self, name)) is not UNSET and bytes(raw) != b"null"
        ]
        if not found:
            raise FieldError("text", "a text belongs here, or input_ids in its place")
        if len(found) > 1:
            raise FieldError("input_ids", "text stands beside it; give one of them")
        return found[0]

    @property
    def prompt(self) -> bytes:
        """The JSON of the prompts."""
        return bytes(getattr(self, self.name))

    @property
    def is_list(self) -> bool:
        """Whether the answer is a list."""
        nested = self.prompt[1:].lstrip()[:1] in (b"[", b'"') and self.prompt[:1] == b"["
        return nested or self.completion.num_choices > 1

    @property
    def completion(self) -> SampledCompletion:
        """The same as a completion."""
        asked = self.sampling_params or SamplingParams()
        return SampledCompletion(
            prompt=Raw(self.prompt),
            max_tokens=128 if asked.max_new_tokens is None else asked.max_new_tokens,
            min_tokens=asked.min_new_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            min_p=asked.min_p,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
            repetition_penalty=asked.repetition_penalty,
            logit_bias=asked.logit_bias,
            stop=asked.stop,
            stop_token_ids=asked.stop_token_ids,
            ignore_eos=asked.ignore_eos,
            n=asked.n,
            seed=asked.sampling_seed,
            json_schema=asked.json_schema,
            regex=asked.regex,
            ebnf=asked.ebnf,
            stream=self.stream,
            return_token_ids=True,
        )
