"""The trained model behind a server that follows grammars, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import openai
import pytest
from http_server import running
from pydantic import BaseModel
from trained_fixtures import TRAINED

from lostwax.backends.runtime.load import load
from lostwax.ir.contract.masks import num_masks
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.tokenizer_file import load_codec
from lostwax.server.grammar.grammars import Grammars


@dataclass(frozen=True)
class StructuredModel:
    """The trained model, what follows its grammars, and its tokenizer."""

    runtime: Any
    grammars: Grammars
    codec: Codec

    def core(self, drafts: int = 0, depth: int = 1) -> EngineCore:
        """An engine that drafts so many tokens."""
        options = EngineOptions(max_drafts=drafts)
        return EngineCore(self.runtime, options, depth=depth, grammars=self.grammars)


@pytest.fixture(scope="session")
def structured_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StructuredModel]:
    """Compiled with two drafts."""
    from lostwax.cli.compile import compile_checkpoint

    folder = tmp_path_factory.mktemp("drafting") / "artifact"
    compile_checkpoint(
        TRAINED, folder, target="cpu", dtype="fp32", max_context=1024, max_tokens=256, max_reqs=8,
        drafts=2,
    )  # fmt: skip
    runtime = load(folder, checkpoint=TRAINED, threads=1)
    limits = runtime.limits
    most = num_masks(limits.max_reqs, limits.max_drafts)
    eos = runtime.facts.eos_token_ids[0]
    grammars = Grammars([folder], limits.vocab_size, eos, most, log=FailureLog(), hang_s=10)
    yield StructuredModel(runtime, grammars, load_codec(folder))
    grammars.stop()


# Not for the session: other modules count the processes of the gateways that they start.
@pytest.fixture(scope="module")
def structured_client(structured_model: StructuredModel) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a server of it."""
    app = create_app(
        InProcessEngine(structured_model.core(2)), structured_model.codec, Settings(model="tiny")
    )
    with running(app) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def ask(client: openai.OpenAI, content: str, **asked: Any) -> Any:
    """One greedy answer to a question."""
    given: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 300, **asked}
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(messages=messages, **given)


class Sum(BaseModel):
    """What a client wants to have parsed."""

    answer: int
    unit: Literal["apples", "pears"]
    why: list[bool]


FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "sum", "schema": Sum.model_json_schema(), "strict": True},
}
SUM = "What is 17 + 25?"
