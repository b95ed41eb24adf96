"""32 streaming clients on a compiled model for a minute, a third of them leaving half-way.

Prompts share prefixes, and pages are so scarce that requests give way. The artifact is
`--batch-invariant`, so each answer is bit for bit the request's answer alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import msgspec
import pytest
from drafting_models import SIZES, compiled, mostly_right
from http_server import running
from small import SMALL
from stream_clients import Manner, Question, Tally, ask

from lostwax.backends.runtime.load import Runtime
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.runtime import Limits, Ticket
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import IdCodec

pytestmark = pytest.mark.load
CLIENTS = 32
SECONDS = 60.0
MAX_REQS = 16
NUM_PAGES = 1 + MAX_REQS * 2
"""Most requests come to need six pages and more, of which they share some."""
MAX_GROWTH_BYTES = 8 << 20
MANNERS: tuple[Manner, ...] = ("at once", "slowly", "half")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Most of its drafts are right."""
    sizes = replace(SIZES, max_reqs=MAX_REQS)
    return compiled(tmp_path_factory.mktemp("load"), mostly_right, sizes, NUM_PAGES)


@dataclass(frozen=True, slots=True)
class _Late:
    """A ticket that is not done before somebody waits for it, as where a device runs the steps."""

    ticket: Ticket
    done = False

    def finish(self, masks: Masks) -> None:
        """Bring the masks."""
        self.ticket.finish(masks)

    def result(self) -> StepResult:
        """The step's."""
        return self.ticket.result()


@dataclass(frozen=True, slots=True)
class _Scarce:
    """The model with few pages, whose steps are heard of late."""

    runtime: Runtime
    overlaps = True
    pays_by_row = True

    @property
    def limits(self) -> Limits:
        return msgspec.structs.replace(self.runtime.limits, num_pages=NUM_PAGES)

    @property
    def facts(self) -> ModelFacts:
        return self.runtime.facts

    def submit(self, plan: StepPlan) -> Ticket:
        return _Late(self.runtime.submit(plan))


def _submits(count: int) -> list[Submit]:
    """Prompts of three stems, of up to 100 tokens, half of the answers sampled."""
    rng = random.Random(11)
    ids = SMALL["vocab_size"]
    stems = [[rng.randrange(ids) for _ in range(80)] for _ in range(3)]
    begins = [stems[i % 3][: rng.choice((16, 48, 80))] for i in range(count)]
    return [
        Submit(
            request=str(i),
            prompt=[*begins[i], *rng.choices(range(ids), k=1 + i % 20)],
            max_tokens=rng.randrange(8, 80),
            temperature=float(i % 2),
            seed=i,
            ignore_eos=True,
        )
        for i in range(count)
    ]


def _alone(model: Runtime, submit: Submit) -> Question:
    """What the request must be answered with: by an engine of its own, without cache and drafts."""
    core = EngineCore(model, EngineOptions(0, prefix_cache=False))
    assert core.handle(submit) == []
    want: list[int] = []
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output), event
            want += [score.token for score in event.tokens]
    names = ("prompt", "max_tokens", "temperature", "seed", "ignore_eos")
    return Question({name: getattr(submit, name) for name in names}, want)


@pytest.fixture(scope="module")
def questions(model: Runtime) -> list[Question]:
    return [_alone(model, submit) for submit in _submits(48)]


async def _stream(port: int, questions: list[Question], seconds: float) -> tuple[Tally, list[int]]:
    """What the clients saw, and this process's memory each half second."""
    tally, until = Tally(), time.monotonic() + seconds

    async def client(number: int) -> None:
        rng, manner = random.Random(number), MANNERS[number % 3]
        while time.monotonic() < until and not tally.wrong:
            await ask(port, rng.choice(questions), manner, tally)

    streaming = asyncio.gather(*map(client, range(CLIENTS)))
    sizes: list[int] = []
    while not streaming.done():
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        await asyncio.wait({streaming}, timeout=0.5)
    await streaming
    return tally, sizes


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("drafts", [0, 3])
def test_every_answer_is_the_answer_alone(
    model: Runtime,
    questions: list[Question],
    drafts: int,
    depth: int,
    request: pytest.FixtureRequest,
) -> None:
    seconds: float = request.config.getoption("--load-seconds") or SECONDS
    core = EngineCore(_Scarce(model), EngineOptions(drafts), depth=depth)
    app = create_app(InProcessEngine(core), IdCodec(), Settings())
    with running(app) as url:
        port = int(url.rpartition(":")[2])
        tally, sizes = asyncio.run(_stream(port, questions, seconds))
        until = time.monotonic() + 10
        while core.has_work and time.monotonic() < until:
            time.sleep(0.05)
        assert not core.has_work, "an answer that nobody waits for goes on"
    assert not tally.wrong, tally.wrong[0]
    assert tally.finished > CLIENTS / 2
    assert tally.left > CLIENTS / 4
    core.scheduler.check_integrity()
    assert core.scheduler.pages.num_free == core.scheduler.pages.num_usable
    assert core.scheduler.num_preempted > 0
    assert core.scheduler.num_prefix_tokens > 0
    assert (core.drafting.num_accepted > 0) == (drafts > 0)
    third = len(sizes) // 3
    early, late = mean(sizes[third : 2 * third]), mean(sizes[-third:])
    assert late - early < MAX_GROWTH_BYTES, f"{early} to {late} bytes"
