"""Answers an HTTP request with a body: admit, read, run, stream. Knows no particular route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.admission import Admission, Ticket
from lostwax.server.gateway.anthropic_messages import MessageForm
from lostwax.server.gateway.body_reader import BodyReader
from lostwax.server.gateway.chat import ChatForm
from lostwax.server.gateway.chat_settings import OF_CHECKPOINT, ChatSettings
from lostwax.server.gateway.completions import CompletionForm
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.generate import GenerateForm
from lostwax.server.gateway.generation import Form, Generation
from lostwax.server.gateway.ollama import OllamaForm
from lostwax.server.gateway.prepared import CHAT_ROUTES, Answered, Job, Prepared, Route
from lostwax.server.gateway.readiness import require_engine
from lostwax.server.gateway.request_watch import record_of
from lostwax.server.gateway.responses import ResponseForm
from lostwax.server.gateway.stream import ClientLeft, EventStream, begun, unless_client_leaves
from lostwax.server.gateway.submits import MAX_PROMPT_TOKENS
from lostwax.server.gateway.tokenizer import Codec


@dataclass(frozen=True, slots=True)
class Answering:
    """What all routes with a body share. `model` replaces the checkpoint's name; a generation has
    `timeout_s` seconds to end; `chats` are rendered and read so."""

    client: EngineClient
    codec: Codec
    reader: BodyReader
    admission: Admission
    model: str | None
    timeout_s: float | None = None
    chats: ChatSettings = OF_CHECKPOINT

    async def respond(self, http: Request, route: Route) -> Response:
        """The HTTP answer, whole or as a stream."""
        body = await http.body()
        info = self.ready_info()
        most = max(MAX_PROMPT_TOKENS, info.max_context)
        job = Job(
            route=route,
            model=self.model or info.model,
            info=info,
            max_tokens=most,
            chats=self.chats if route in CHAT_ROUTES else OF_CHECKPOINT,
        )
        # A place before anything is read: a full queue costs its clients' bytes only.
        ticket = self.admission.admit(1, 1)
        try:
            response = await self._answer(http, body, job, ticket)
        except ClientLeft:
            response = Response(status_code=499)  # nobody reads it
        except BaseException:
            ticket.release()
            raise
        if not isinstance(response, EventStream):
            ticket.release()
        return response

    async def _answer(self, http: Request, body: bytes, job: Job, ticket: Ticket) -> Response:
        prepared = await unless_client_leaves(http.receive, self.reader.read(body, job))
        if isinstance(prepared, Answered):
            return Response(prepared.content, media_type="application/json")
        many = "n" if prepared.options.num_choices > 1 else "prompt"
        ticket.change(prepared.num_reqs, prepared.num_tokens, many)
        form = self._form(prepared)
        request_id: str = http.state.request_id
        record = record_of(http.scope)
        generation = Generation(
            prepared, form, self.client, job.model, request_id, record, self.timeout_s
        )
        if prepared.options.stream:
            chunks = generation.chunks()
            if prepared.options.format_param is not None:
                # What the engine says of a grammar is a status of its own, not an event. Whether
                # it is followed is known long before the first token.
                chunks = await unless_client_leaves(http.receive, begun(chunks))
            return EventStream(chunks, ticket.release, generation.framing)
        content = await unless_client_leaves(http.receive, generation.answer())
        return Response(content, media_type="application/json")

    def _form(self, prepared: Prepared) -> Form[Any]:
        options, turn = prepared.options, prepared.turn
        if prepared.interface == "generate":
            return GenerateForm(options, prepared.submits, self.codec)
        if turn is None:
            return CompletionForm(options, prepared.submits, self.codec)
        if prepared.interface == "responses":
            return ResponseForm(options, turn, self.codec, prepared.echo)
        if prepared.interface == "messages":
            return MessageForm(options, turn, self.codec)
        if prepared.interface == "ollama":
            return OllamaForm(options, turn, self.codec)
        return ChatForm(options, turn, self.codec)

    def ready_info(self) -> EngineInfo:
        """Facts of the engine; ApiError while it takes no requests."""
        return require_engine(self.client)
