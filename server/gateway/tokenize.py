"""Answers `/tokenize` and `/detokenize`: what a prompt's tokens are, without running it.

Bounded as prompts are: a text is refused where it surely exceeds the context. Knows no HTTP.
"""

from __future__ import annotations

import msgspec

from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.chat_prompt import render_chat
from lostwax.server.gateway.decoding import decode
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.fitting import require_fitting
from lostwax.server.gateway.models import TokenId
from lostwax.server.gateway.prepared import Answered
from lostwax.server.gateway.tokenize_models import DetokenizeRequest, TokenizeRequest
from lostwax.server.gateway.tokenizer import Codec


def tokenized(request: TokenizeRequest, info: EngineInfo, codec: Codec) -> Answered:
    """`count`, `max_model_len`, `tokens` and, if they are asked for, `token_strs`."""
    ids = _ids(request, info, codec)
    names = [codec.piece(token) for token in ids] if request.return_token_strs else None
    body = {"count": len(ids), "max_model_len": info.max_context, "tokens": ids}
    return Answered(content=msgspec.json.encode(body | {"token_strs": names}))


def _ids(request: TokenizeRequest, info: EngineInfo, codec: Codec) -> list[int]:
    if (chat := request.chat) is not None:
        return render_chat(chat, info, codec).ids
    text = request.prompt
    assert text is not None, "a request has a text or messages"
    _require_tokenizer(codec, "prompt")
    require_fitting(text, info.max_context, codec, "prompt")
    return (
        codec.encode_rendered(text) if request.add_special_tokens is False else codec.encode(text)
    )


def detokenized(request: DetokenizeRequest, info: EngineInfo, codec: Codec) -> Answered:
    """`prompt`: the text of the ids, that of marks included."""
    _require_tokenizer(codec, "tokens")
    given = bytes(request.tokens)
    if (count := given.count(b",") + 1) > info.max_context:
        message = f"'tokens' holds {count} ids and a context {info.max_context}; send fewer"
        raise ApiError(400, message, code="context_length_exceeded", param="tokens")
    ids = decode(given, list[TokenId], "tokens")
    if ids and max(ids) >= info.vocab_size:
        message = f"tokens: id {max(ids)} lies outside 0..{info.vocab_size - 1}"
        raise ApiError(400, message, code="invalid_value", param="tokens")
    return Answered(content=msgspec.json.encode({"prompt": codec.decode_with_marks(ids)}))


def _require_tokenizer(codec: Codec, param: str) -> None:
    if not codec.can_encode:
        message = "this checkpoint has no tokenizer: it is served by token ids alone"
        raise ApiError(400, message, code="unsupported_value", param=param)
