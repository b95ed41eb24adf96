"""An artifact for contexts shorter than a step's rows is whole, and answers up to their end."""

from __future__ import annotations

from pathlib import Path

import pytest
from drafting_models import PAGE, write_checkpoint
from small import options

from lostwax.backends.compile import compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.load import load
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="module")
def captured(checkpoint: Path) -> Captured:
    return capture(open_checkpoint(checkpoint), PAGE)


@pytest.mark.parametrize(("context", "drafts"), [(1, 0), (1, 3), (3, 3), (5, 1)])
def test_a_context_shorter_than_a_steps_rows_makes_a_whole_artifact(
    context: int, drafts: int, checkpoint: Path, captured: Captured, tmp_path: Path
) -> None:
    sizes = Sizes(max_context=context, max_tokens=64, max_reqs=2, max_drafts=drafts)
    artifact = tmp_path / "artifact"
    compile_module(
        captured.module, captured.facts, captured.weights, "cpu", artifact, options(sizes=sizes)
    )
    ArtifactReader(artifact).verify_all()
    core = EngineCore(load(artifact, checkpoint=checkpoint, threads=1), EngineOptions(drafts))
    core.warm_up()
    core.handle(Submit(request="a", prompt=[3], max_tokens=context - 1, ignore_eos=True))
    core.handle(Submit(request="b", prompt=[5] * context, max_tokens=0, score_prompt=True))
    tokens = {"a": 0, "b": 0}
    while core.has_work:
        for event in core.step():
            assert not isinstance(event, Failed), event
            tokens[event.request] += len(event.tokens)
    assert tokens == {"a": context - 1, "b": 0}
