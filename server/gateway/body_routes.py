"""The routes that take a body, by their path. Knows their shapes, and not how they are answered."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response

from lostwax.server.gateway.answer_models import (
    Chat,
    ChatPart,
    Completion,
    CompletionPart,
    Detokenized,
    Tokenized,
)
from lostwax.server.gateway.answering import Answering
from lostwax.server.gateway.api_schema import OF_ANSWERS, OF_BODIES, described
from lostwax.server.gateway.chat_models import ChatRequest
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.generate_answer import Generated, GeneratedAnswers
from lostwax.server.gateway.generate_models import GenerateRequest
from lostwax.server.gateway.messages_answer import (
    CountedTokens,
    MessageAnswer,
    MessageEvent,
    MessagesError,
)
from lostwax.server.gateway.messages_models import CountTokensRequest, MessagesRequest
from lostwax.server.gateway.models import CompletionRequest
from lostwax.server.gateway.ollama_answer import OllamaAnswer, OllamaError, OllamaPart
from lostwax.server.gateway.ollama_models import OllamaRequest
from lostwax.server.gateway.prepared import Route
from lostwax.server.gateway.responses_answer import ResponseAnswer, ResponseEvent
from lostwax.server.gateway.responses_models import ResponsesRequest
from lostwax.server.gateway.tokenize_models import DetokenizeRequest, TokenizeRequest

ROUTES: dict[str, tuple[Route, dict[str, Any]]] = {
    "/v1/completions": (
        "completions",
        described(Completion, OF_ANSWERS, body=CompletionRequest, event=CompletionPart),
    ),
    "/v1/chat/completions": (
        "chat",
        described(Chat, OF_ANSWERS, body=ChatRequest, event=ChatPart),
    ),
    "/v1/responses": (
        "responses",
        described(ResponseAnswer, OF_ANSWERS, body=ResponsesRequest, named_event=ResponseEvent),
    ),
    "/v1/messages": (
        "messages",
        described(
            MessageAnswer,
            OF_ANSWERS,
            body=MessagesRequest,
            named_event=MessageEvent,
            error=MessagesError,
        ),
    ),
    "/v1/messages/count_tokens": (
        "count_tokens",
        described(CountedTokens, OF_BODIES, body=CountTokensRequest, error=MessagesError),
    ),
    "/generate": (
        "generate",
        described(GeneratedAnswers, OF_ANSWERS, body=GenerateRequest, event=Generated),
    ),
    "/api/chat": (
        "ollama",
        described(
            OllamaAnswer,
            OF_ANSWERS,
            body=OllamaRequest,
            lines=(OllamaPart, OllamaAnswer, OllamaError),
            error=OllamaError,
        ),
    ),
    "/tokenize": ("tokenize", described(Tokenized, OF_BODIES, body=TokenizeRequest)),
    "/detokenize": ("detokenize", described(Detokenized, OF_BODIES, body=DetokenizeRequest)),
}


def add_body_routes(app: FastAPI, answering: Answering) -> None:
    """Add them all."""
    for path, (route, description) in ROUTES.items():
        _add(app, answering, path, route, description)

    @app.post("/v1/embeddings", include_in_schema=False)
    async def embeddings() -> Response:  # pyright: ignore[reportUnusedFunction]
        message = "this model writes text and gives no embeddings; ask a server of such a model"
        raise ApiError(400, message, code="unsupported_value")


def _add(
    app: FastAPI, answering: Answering, path: str, route: Route, description: dict[str, Any]
) -> None:
    async def answer(http: Request) -> Response:
        return await answering.respond(http, route)

    app.post(path, name=route, **description)(answer)
