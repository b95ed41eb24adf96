"""Connects to what is judged: a server by its URL, or an artifact in this process.

Both are an HTTP client; nothing behind this file tells one from the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx
import msgspec

from lostwax.evals.bounded_body import (
    MAX_LIST_BYTES,
    UNCOMPRESSED,
    BodyTooLong,
    BoundedBody,
)
from lostwax.evals.task import TaskError
from lostwax.ir.contract.canonical import canonical_json
from lostwax.server.engine.options import EngineOptions

if TYPE_CHECKING:
    from fastapi import FastAPI

IN_PROCESS = "http://in-process"
CONNECT_S = 10.0
"""Until there is a connection, and until the whole list of models is there."""
MAX_KEY_BYTES = 8192
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Served:
    """A model behind an HTTP client whose base URL ends in /v1."""

    http: httpx.AsyncClient
    model: str
    source: Literal["url", "in process"]


class CannotConnect(TaskError):
    """Nothing there that serves a model; the message says what was tried."""


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


def read_key(path: Path) -> str:
    """An API key from a file, so that it stands in no command line."""
    if not path.is_file() or path.stat().st_size > MAX_KEY_BYTES:
        raise TaskError(f"{path} is no file of at most {MAX_KEY_BYTES} bytes; put the key in one")
    # Of other bytes none decodes to ASCII: they are refused as other characters are.
    key = path.read_text(encoding="utf-8", errors="replace").strip()
    if not (key.isascii() and key.isprintable() and key):
        raise TaskError(f"{path} holds no API key: one line of printable ASCII is expected")
    return key


@contextlib.asynccontextmanager
async def by_url(
    url: str, *, model: str | None = None, key: str | None = None
) -> AsyncGenerator[Served]:
    """A server that speaks OpenAI's interface; its URL with or without /v1."""
    base = url.rstrip("/").removesuffix("/v1") + "/v1"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None)  # the runner's concurrency is the bound
    # No timeout here: each request has its own, over everything that it does.
    timeout = httpx.Timeout(None, connect=CONNECT_S)
    try:
        client = httpx.AsyncClient(base_url=base, headers=headers, timeout=timeout, limits=limits)
    except (httpx.InvalidURL, ValueError) as error:
        raise CannotConnect(
            f"{url!r} is no URL: {error}; give one like http://HOST:PORT"
        ) from error
    if (client.base_url.port or 0) > MAX_PORT:
        raise CannotConnect(f"{url!r} is no URL: ports end at {MAX_PORT}")
    async with client:
        yield await _served(client, url, model, "url")


def in_process(
    artifact: Path,
    *,
    checkpoint: Path | None = None,
    name: str | None = None,
    num_pages: int | None = None,
    threads: int | None = None,
    drafts: int | None = None,
    prefix_cache: bool = True,
) -> AbstractAsyncContextManager[Served]:
    """Gateway and engine of an artifact in this process, without a socket; `name` is the model's
    (default: the checkpoint's own), `drafts` and `prefix_cache` are EngineCore's.

    Loads when it is called: where no loop runs yet, Ctrl-C ends that at once.
    """
    # Imported here: asking a server by its URL needs no torch.
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.backends.runtime.boot_check import Admission
    from lostwax.backends.runtime.load import load
    from lostwax.backends.runtime.say import say
    from lostwax.server.engine.loop import EngineCore
    from lostwax.server.gateway.app import Settings, create_app
    from lostwax.server.gateway.in_process import InProcessEngine
    from lostwax.server.gateway.tokenizer_file import load_codec

    ranks = ArtifactReader(artifact).manifest.world_size
    if ranks > 1:
        raise CannotConnect(
            f"{artifact} runs on {ranks} ranks, one process each; start `lostwax serve {artifact}`"
            " and give its --url"
        )
    runtime = load(
        artifact,
        admission=Admission(None, False, lambda _: None),
        checkpoint=checkpoint,
        num_pages=num_pages,
        threads=threads,
    )
    if threads is None:
        chosen = runtime.choose_threads()
        if chosen is not None and chosen.timed:
            say(chosen)
    codec = load_codec(artifact, checkpoint)
    settings = Settings(model=name, host=httpx.URL(IN_PROCESS).host)
    core = EngineCore(runtime, EngineOptions(drafts, prefix_cache))
    app = create_app(InProcessEngine(core), codec, settings)
    return _of_app(app, str(artifact))


@contextlib.asynccontextmanager
async def _of_app(app: FastAPI, named: str) -> AsyncGenerator[Served]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=f"{IN_PROCESS}/v1", timeout=None) as client,
    ):
        yield await _served(client, named, None, "in process")


def artifact_facts(artifact: Path, checkpoint: Path | None) -> dict[str, str]:
    """What decides an artifact's answers: its digest, and that of its checkpoint's content.

    The first says nothing of the weights' values.
    """
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.backends.runtime.checkpoint_content import content_digests

    reader = ArtifactReader(artifact)
    folder = reader.checkpoint(checkpoint)
    content = content_digests(folder, (path.name for path in folder.glob("*.safetensors")))
    weights = hashlib.sha256(canonical_json(content)).hexdigest()[:16]
    return {"artifact": reader.manifest.digest, "weights": weights}


async def _served(
    client: httpx.AsyncClient, named: str, model: str | None, source: Literal["url", "in process"]
) -> Served:
    """Ask which model is there."""
    try:
        async with asyncio.timeout(CONNECT_S):
            status, content = await _listed(client)
        models = msgspec.json.decode(content, type=_Models).data if status == 200 else []
    except TimeoutError as error:
        raise CannotConnect(f"{named} lists no models within {CONNECT_S:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fault = str(error) or type(error).__name__
        raise CannotConnect(f"no server answers at {named}: {fault}") from error
    except (BodyTooLong, msgspec.DecodeError, RecursionError) as error:
        raise CannotConnect(f"{named}/models lists no models: {error}; is it the API?") from error
    if status != 200:
        raise CannotConnect(f"{named} answers {status} to GET /v1/models")
    for found in models:
        if model in (None, found.id):
            if model is None and len(models) > 1:
                break
            return Served(client, found.id, source)
    names = ", ".join(found.id for found in models[:8])
    raise CannotConnect(f"{named} serves {names or 'no model'}; name one of them with --model")


async def _listed(client: httpx.AsyncClient) -> tuple[int, bytes]:
    body = BoundedBody(MAX_LIST_BYTES)
    async with client.stream("GET", "/models", headers=UNCOMPRESSED) as answer:
        async for part in answer.aiter_raw():
            body.add(part)
    return answer.status_code, body.content()
