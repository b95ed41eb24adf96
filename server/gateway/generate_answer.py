"""The shapes of answers of `/generate`, for `/openapi.json`: nothing is built from them."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from lostwax.server.gateway.answer_models import Count


class LengthReason(Struct, forbid_unknown_fields=True, tag_field="type", tag="length"):
    """So many tokens were asked for."""

    length: Count


class StopReason(Struct, forbid_unknown_fields=True, tag_field="type", tag="stop"):
    """The stop string, or the token, that ended the answer."""

    matched: str | int | None


class MetaInfo(Struct, forbid_unknown_fields=True):
    """What is known of an answer."""

    id: str
    finish_reason: LengthReason | StopReason | None
    prompt_tokens: Count
    completion_tokens: Count
    cached_tokens: Count


class Generated(Struct, forbid_unknown_fields=True):
    """An answer; in a stream, all of it so far. One of a list has its index there."""

    text: str
    output_ids: list[Count]
    meta_info: MetaInfo
    index: Count | UnsetType = UNSET


GeneratedAnswers = Generated | list[Generated]
