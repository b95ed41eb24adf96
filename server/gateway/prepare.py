"""Reads a request's body: parse, check, render, tokenise. Knows no HTTP and no process.

Costs are bounded by the body's size and the model's context: see `decoding.py`, `prompts.py` and
`fitting.py`.
"""

from __future__ import annotations

from typing import TypeVar

from lostwax.server.gateway.anthropic_messages import counted_tokens, prepare_message
from lostwax.server.gateway.chat import prepare_chat
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.completions import prepare_completion
from lostwax.server.gateway.decoding import decode, require_few_strings, require_text
from lostwax.server.gateway.errors import model_not_found
from lostwax.server.gateway.generate import prepare_generate
from lostwax.server.gateway.generate_models import GenerateRequest
from lostwax.server.gateway.messages_models import CountTokensRequest, MessagesRequest
from lostwax.server.gateway.models import CompletionRequest, GenerationRequest
from lostwax.server.gateway.ollama import prepare_ollama
from lostwax.server.gateway.ollama_models import OllamaRequest
from lostwax.server.gateway.prepared import Answered, Job, Prepared
from lostwax.server.gateway.responses import prepare_response
from lostwax.server.gateway.responses_models import ResponsesRequest
from lostwax.server.gateway.templated_request import TemplatedChatRequest
from lostwax.server.gateway.tokenize import detokenized, tokenized
from lostwax.server.gateway.tokenize_models import DetokenizeRequest, TokenizeRequest
from lostwax.server.gateway.tokenizer import Codec

KINDS: dict[str, type[GenerationRequest | MessagesRequest | GenerateRequest | OllamaRequest]] = {
    "completions": CompletionRequest,
    "chat": ChatRequest,
    "responses": ResponsesRequest,
    "messages": MessagesRequest,
    "generate": GenerateRequest,
    "ollama": OllamaRequest,
}
"""The request of each route that generates."""
R = TypeVar(
    "R",
    bound=GenerationRequest
    | CountTokensRequest
    | GenerateRequest
    | OllamaRequest
    | TokenizeRequest
    | DetokenizeRequest,
)


def read_body(body: bytes, job: Job, codec: Codec) -> Prepared | Answered:
    """What a request asks of the engine, or its answer where none is needed; ApiError where it is
    wrong or not served."""
    if job.route == "tokenize":
        return tokenized(_decoded(body, TokenizeRequest, job), job.info, codec, job.chats)
    if job.route == "detokenize":
        return detokenized(_decoded(body, DetokenizeRequest, job), job.info, codec)
    if job.route == "count_tokens":
        return counted_tokens(_decoded(body, CountTokensRequest, job), job, codec)
    return prepare(body, job, codec)


def prepare(body: bytes, job: Job, codec: Codec) -> Prepared:
    """What a request asks of the engine; ApiError where it is wrong or not served."""
    kind = KINDS[job.route]
    if job.chats.template is not None and kind is ChatRequest:
        kind = TemplatedChatRequest  # its template may read any variable
    request = _decoded(body, kind, job)
    if isinstance(request, ChatRequest):
        return prepare_chat(request, job, codec)
    if isinstance(request, ResponsesRequest):
        return prepare_response(request, job, codec)
    if isinstance(request, MessagesRequest):
        return prepare_message(request, job, codec)
    if isinstance(request, GenerateRequest):
        return prepare_generate(request, job, codec)
    if isinstance(request, OllamaRequest):
        return prepare_ollama(request, job, codec)
    assert isinstance(request, CompletionRequest)
    return prepare_completion(request, job, codec)


def _decoded(body: bytes, kind: type[R], job: Job) -> R:
    require_text(body)
    require_few_strings(body)
    request = decode(body, kind)
    if request.model not in (None, job.model):
        raise model_not_found(request.model, job.model)
    return request
