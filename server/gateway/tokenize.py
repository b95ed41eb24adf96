"""Answers `/tokenize` and `/detokenize`: what a prompt's tokens are, without running it.

Bounded as prompts are: a text is refused where it surely exceeds the context. What an answer may
cost is bounded beside that: names of tokens are made one by one, and a client may leave a text
unread for long. Knows no HTTP.
"""

from __future__ import annotations

import msgspec

from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.chat_prompt import render_chat
from lostwax.server.gateway.chat_settings import OF_CHECKPOINT, ChatSettings
from lostwax.server.gateway.decoding import decode
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.fitting import require_fitting
from lostwax.server.gateway.models import TokenId
from lostwax.server.gateway.prepared import Answered
from lostwax.server.gateway.tokenize_models import DetokenizeRequest, TokenizeRequest
from lostwax.server.gateway.tokenizer import Codec

MAX_NAMED = 4096
"""Tokens whose text is told one by one: some 10 ms of the interpreter."""
MAX_TEXT_BYTES = 1 << 20
"""Of the text of ids: with a long token each, a body of ids gives thirty times its size."""


def tokenized(
    request: TokenizeRequest,
    info: EngineInfo,
    codec: Codec,
    chats: ChatSettings = OF_CHECKPOINT,
) -> Answered:
    """`count`, `max_model_len`, `tokens` and, if they are asked for, `token_strs`."""
    ids = _ids(request, info, codec, chats)
    if request.return_token_strs and len(ids) > MAX_NAMED:
        message = f"'return_token_strs' takes at most {MAX_NAMED} tokens, and these are {len(ids)}"
        raise ApiError(400, message, code="invalid_value", param="return_token_strs")
    names = [codec.piece(token) for token in ids] if request.return_token_strs else None
    body = {"count": len(ids), "max_model_len": info.max_context, "tokens": ids}
    return Answered(content=msgspec.json.encode(body | {"token_strs": names}))


def _ids(
    request: TokenizeRequest, info: EngineInfo, codec: Codec, chats: ChatSettings
) -> list[int]:
    if (chat := request.chat) is not None:
        return render_chat(chat, info, codec, chats).ids
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
    content = msgspec.json.encode({"prompt": codec.decode_with_marks(ids)})
    if len(content) > MAX_TEXT_BYTES:
        message = f"the text of 'tokens' has more than {MAX_TEXT_BYTES} bytes; send fewer at a time"
        raise ApiError(400, message, code="invalid_value", param="tokens")
    return Answered(content=content)


def _require_tokenizer(codec: Codec, param: str) -> None:
    if not codec.can_encode:
        message = "this checkpoint has no tokenizer: it is served by token ids alone"
        raise ApiError(400, message, code="unsupported_value", param=param)
