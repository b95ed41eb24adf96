"""A loaded artifact's `submit`: on the host a ticket is done at once; a refused step is no step."""

from __future__ import annotations

import msgspec
import pytest
from known_state import fields_of
from small import PROMPT, batch, greedy, plan
from small_fixtures import Compiled
from step_oracle import plan_of

from lostwax.backends.runtime.load import Runtime, StepError, load

PER_ROW = (
    "temperature", "seeds", "counters", "top_k", "top_p", "min_p", "count_rows", "recent",
    "repetition", "frequency", "presence", "bias_rows", "mask_rows", "bias",
)  # fmt: skip
"""Fields of a batch with an entry a logit row."""


@pytest.fixture
def runtime(small_artifact: Compiled) -> Runtime:
    return load(small_artifact.artifact, checkpoint=small_artifact.checkpoint, num_pages=6)


def test_tickets_are_done_at_once_and_keep_their_results(runtime: Runtime) -> None:
    (token, _), (second, _) = greedy(runtime, PROMPT, 2)
    prompt = runtime.submit(plan(PROMPT, 0, head="score"))
    decode = runtime.submit(plan([token], len(PROMPT)))
    assert prompt.done
    assert decode.done
    assert decode.result().ids == [second]
    result = prompt.result()
    assert result.ids == [token] == [result.top_ids[0][0]]
    assert result.logprobs == [result.top_logprobs[0][0]]
    assert len(result.top_ids[0]) == len(result.top_logprobs[0]) > 1


def test_a_refused_step_changes_nothing(runtime: Runtime) -> None:
    (token, _), (second, _) = greedy(runtime, PROMPT, 2)
    ticket = runtime.submit(plan(PROMPT, 0))
    inputs = runtime.memory.body_inputs.array.copy()
    state = {name: array.copy() for name, array in fields_of(runtime).items()}
    with pytest.raises(StepError, match="no extend program fits"):
        runtime.submit(plan([1] * (runtime.limits.max_tokens + 1), 0))
    over = msgspec.structs.replace(plan([1, 2], len(PROMPT)), entering=())
    with pytest.raises(StepError, match="the extend step is refused: rows lie at or behind"):
        runtime.submit(over)
    assert (runtime.memory.body_inputs.array == inputs).all()
    assert all((array == state[name]).all() for name, array in fields_of(runtime).items())
    assert ticket.result().ids == [token]
    assert runtime.run(plan([token], len(PROMPT))).ids == [second]


def test_a_step_that_fails_raises_from_its_ticket(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = plan(PROMPT, 0)
    want = runtime.run(step).ids
    bound = runtime.bound(runtime.programs.pick(step)[0][0])

    def fail() -> None:
        raise ZeroDivisionError("bad")

    with monkeypatch.context() as patched:
        patched.setattr(bound, "replay", fail)
        ticket = runtime.submit(step)
    with pytest.raises(ZeroDivisionError, match="bad"):
        ticket.result()
    assert runtime.run(step).ids == want


def test_a_head_gives_all_rows_that_are_asked_for_in_their_order(
    torch_artifact: Compiled,
) -> None:
    """More rows than the largest head takes are as these rows asked for one at a time. Where
    kernels keep the state, no more of a sequence pick than can follow."""
    artifact, checkpoint = torch_artifact.artifact, torch_artifact.checkpoint
    runtime = load(artifact, checkpoint=checkpoint, num_pages=6)
    largest = max(ref.bucket.rows for ref in runtime.manifest.programs if ref.segment == "pick")
    whole = batch(PROMPT, 0)
    rows = len(PROMPT)
    assert rows > largest
    every = msgspec.structs.replace(
        whole,
        logit_rows=list(range(rows)),
        **{name: getattr(whole, name) * rows for name in PER_ROW},
    )
    every.targets = [-1] * rows
    found = runtime.run(plan_of(every))
    assert len(found.ids) == rows
    for row in range(rows):
        one = msgspec.structs.replace(whole, logit_rows=[row], targets=[-1])
        alone = runtime.run(plan_of(one))
        assert found.ids[row] == alone.ids[0], row
        assert found.logprobs[row] == pytest.approx(alone.logprobs[0], abs=1e-5)
