"""Answers an HTTP request that generates: parse, admit, run, stream. Knows no particular route."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError

from lostwax.server.engine.messages import EngineInfo, Submit
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.errors import ApiError, from_validation, json_response
from lostwax.server.gateway.generation import Form, Generation
from lostwax.server.gateway.limits import Admission
from lostwax.server.gateway.models import GenerationRequest
from lostwax.server.gateway.stream import ClientLeft, EventStream, unless_client_leaves
from lostwax.server.gateway.tokenizer import Codec

R = TypeVar("R", bound=GenerationRequest)
Prepare = Callable[[R, EngineInfo, Codec], tuple[list[Submit], Form[Any]]]
"""Checks a request and says what the engine is asked and how it is answered."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What all generating routes share. `model` replaces the checkpoint's name."""

    client: EngineClient
    codec: Codec
    admission: Admission
    model: str | None

    async def respond(self, http: Request, kind: type[R], prepare: Prepare[R]) -> Response:
        """The HTTP answer, whole or as a stream."""
        body = await http.body()
        info = self.ready_info()
        model = self.model or info.model

        def prepared() -> tuple[R, list[Submit], Form[Any]]:
            request = _parse(body, kind, model)
            return request, *prepare(request, info, self.codec)

        # Parsing and tokenizing a long prompt would block the loop.
        request, submits, form = await asyncio.to_thread(prepared)
        ticket = self.admission.admit(len(submits), sum(s.num_tokens for s in submits))
        generation = Generation(request, submits, form, self.client, model)
        if request.stream:
            return EventStream(generation.chunks(), ticket.release)
        try:
            return json_response(await unless_client_leaves(http.receive, generation.answer()))
        except ClientLeft:
            return Response(status_code=499)  # nobody reads it
        finally:
            ticket.release()

    def ready_info(self) -> EngineInfo:
        """Facts of the engine; ApiError while it takes no requests."""
        if self.client.state != "ready" or self.client.info is None:
            raise ApiError(503, f"the engine is {self.client.state}", code="engine_unavailable")
        return self.client.info


def _parse(body: bytes, kind: type[R], model: str) -> R:
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error
    if request.model not in (None, model):
        message = f"model {request.model!r} is not served here; use {model!r}"
        raise ApiError(404, message, code="model_not_found", param="model")
    return request
