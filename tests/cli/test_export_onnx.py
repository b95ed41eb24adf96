"""An exported model in plain onnxruntime gives what the runtime gives, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from command_line import lostwax, one_sentence
from small import PROMPT, batch
from small_fixtures import Compiled
from step_oracle import StepBatch, plan_of

from lostwax.backends.export_onnx import ExportError, export_artifact
from lostwax.backends.plan.variants import Variant
from lostwax.backends.runtime.load import Runtime, load
from lostwax.ir.contract.step import STEP_INPUTS, StepResult
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array

PAGES = 6
TOLERANCE = 1e-4
DECODE = Variant("decode", every=False)
VARIANTS = (
    Variant("extend", every=False),
    Variant("extend", every=True),
    DECODE,
    Variant("decode", every=True),
    Variant("pick", every=False),
    Variant("score", every=False),
)


@pytest.fixture(scope="module")
def models(small_artifact: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Sessions of some graphs; onnxruntime is untyped."""
    folder = tmp_path_factory.mktemp("onnx")
    sessions: dict[str, Any] = {}
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for variant in VARIANTS:
        file = folder / f"{variant.name}.onnx"
        export_artifact(
            small_artifact.artifact, file, variant, checkpoint=small_artifact.checkpoint
        )
        sessions[variant.name] = onnxruntime.InferenceSession(str(file), options)
    return sessions


@pytest.fixture
def runtime(small_artifact: Compiled) -> Runtime:
    return load(small_artifact.artifact, checkpoint=small_artifact.checkpoint, num_pages=PAGES)


def fields(step: StepBatch) -> Iterator[tuple[str, Array]]:
    for name, spec in STEP_INPUTS.items():
        value: Any = getattr(step, name, [])
        if name == "page_table":
            width = max(map(len, value))
            value = [[*row, *[0] * (width - len(row))] for row in value]
        yield name, np.array(value, NUMPY_DTYPES[spec.dtype])


def run_models(
    body: Any, head: Any, step: StepBatch, caches: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The head's results and the caches after the body."""
    results, after = run_model(body, step, caches)
    assert not results, "a body gives hidden rows alone"
    found, _ = run_model(head, step, {"past.hidden": after.pop("past.hidden")})
    return found, after


def run_model(
    session: Any, step: StepBatch, caches: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Results and what outlives the segment; missing caches are empty."""
    feed: dict[str, Array] = {}
    given = dict(fields(step))
    for value in session.get_inputs():
        if value.name.startswith("past."):
            shape = [PAGES, *value.shape[1:]]
            dtype = np.int32 if value.name in ("past.counts", "past.masks") else np.float32
            feed[value.name] = caches.get(value.name, np.zeros(shape, dtype))
        else:
            feed[value.name] = given[value.name]
    names = [o.name for o in session.get_outputs()]
    results = dict(zip(names, session.run(None, feed), strict=True))
    after = {f"past{n[7:]}": results.pop(n) for n in names if n.startswith("present.")}
    return results, after


def assert_same(results: Mapping[str, Array], want: StepResult) -> None:
    assert results["ids"].tolist() == want.ids
    for name in set(results) - {"ids"}:
        np.testing.assert_allclose(results[name], getattr(want, name), rtol=0, atol=TOLERANCE)


def together(first: StepBatch, second: StepBatch, page_shift: int) -> StepBatch:
    """Two requests as one step; the second one's pages come `page_shift` later."""

    def later(slots: Sequence[int]) -> list[int]:
        return [s + 64 * page_shift for s in slots]

    rows = len(first.tokens)
    return StepBatch(
        entry=first.entry,
        tokens=first.tokens + second.tokens,
        positions=first.positions + second.positions,
        slots=first.slots + later(second.slots),
        q_starts=first.q_starts + [rows + q for q in second.q_starts[1:]],
        kv_lens=first.kv_lens + second.kv_lens,
        page_table=[*first.page_table, [p + page_shift for p in second.page_table[0]]],
        logit_rows=first.logit_rows + [rows + r for r in second.logit_rows],
        temperature=[0.0, 0.7],
        seeds=[0, 5],
        counters=[0, 9],
        targets=[3, -1],
        top_k=[0, 9],
        top_p=[1.0, 0.5],
        min_p=[0.0, 0.1],
        count_rows=[-1, -1],
        recent=[[-1, -1, -1]] * 2,
        repetition=[1.0, 1.0],
        frequency=[0.0, 0.0],
        presence=[0.0, 0.0],
        bias_rows=[-1, -1],
        mask_rows=[-1, -1],
        bias=[{}, {}],
        head=first.head,
    )


def test_prefill_in_chunks_then_decode_equals_the_runtime(
    models: Mapping[str, Any], runtime: Runtime
) -> None:
    tokens, caches = PROMPT + PROMPT[::-1], dict[str, Array]()
    steps = [batch(tokens[:20], 0, head="score"), batch(tokens[20:], 20, head="score")]
    position = len(tokens)
    for index in range(5):  # two chunks, the second beyond index_topk, then tokens one by one
        step = steps[index]
        body, head = models[f"{step.entry}-chosen"], models[step.head]
        results, caches = run_models(body, head, step, caches)
        want = runtime.run(plan_of(step))
        assert_same(results, want)
        if index:
            steps.append(batch(want.ids, position))
            position += 1
    for name, cache in caches.items():
        _, plane, layer = name.split(".")
        held = runtime.memory.planes[plane, int(layer)].view(np.float32).reshape(cache.shape)
        np.testing.assert_allclose(cache[1], held[1], rtol=0, atol=TOLERANCE)


def test_requests_of_unequal_length_sampled_where_all_is_selected_equal_the_runtime(
    models: Mapping[str, Any], runtime: Runtime
) -> None:
    step = together(batch(PROMPT[:9], 0), batch(PROMPT[:14], 0), 2)
    results, caches = run_models(models["extend-all"], models["pick"], step, {})
    want = runtime.run(plan_of(step))
    assert want.program.split()[0].endswith("all")
    assert_same(results, want)
    first, second = ([i] for i in want.ids)
    step = together(
        batch(first, 9, entry="decode", head="score"), batch(second, 14, entry="decode"), 2
    )
    results, _ = run_models(models["decode-all"], models["score"], step, caches)
    assert_same(results, runtime.run(plan_of(step)))


def test_padded_rows_change_nothing(models: Mapping[str, Any]) -> None:
    step = batch(PROMPT, 0)
    session = models["extend-chosen"]
    alone, _ = run_models(session, models["score"], step, {})
    step.tokens, step.positions = [*step.tokens, -1, -1], [*step.positions, -1, -1]
    step.slots, step.q_starts = [*step.slots, 0, 0], [*step.q_starts, step.q_starts[-1]]
    step.page_table = [*step.page_table, [0]]
    padded, _ = run_models(session, models["score"], step, {})
    for name, value in alone.items():
        np.testing.assert_allclose(padded[name], value, rtol=0, atol=1e-5)


def test_the_command_writes_a_checked_model_that_says_what_it_is(
    small_artifact: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--checkpoint", str(small_artifact.checkpoint)]
    file = tmp_path / "m.onnx"
    status, out, err = lostwax(
        capsys, "export", small_artifact.artifact, "--onnx", "-o", file, *where
    )
    assert status == 0, err
    assert "extend-chosen" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    onnx.checker.check_model(str(file), full_check=True)
    model = onnx.load(str(file), load_external_data=False)
    told = {p.key: p.value for p in model.metadata_props}
    assert told["lostwax.artifact"] == small_artifact.manifest.digest
    assert told["lostwax.guard"] == "always"
    assert {f.domain for f in model.functions} == {n.domain for n in model.graph.node} - {""}
    assert {"T", "B", "B + 1", "P", "N"} == {
        d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param
    }


def test_the_same_artifact_gives_the_same_bytes(small_artifact: Compiled, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export_artifact(
            small_artifact.artifact,
            tmp_path / name / "m.onnx",
            DECODE,
            checkpoint=small_artifact.checkpoint,
        )
    for file in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_missing_graph_is_named_and_nothing_is_left(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="no graph draft-chosen; it has decode-all, "):
        export_artifact(
            small_artifact.artifact, tmp_path / "m.onnx", replace(DECODE, segment="draft")
        )
    assert not list(tmp_path.iterdir())


def test_an_export_needs_a_format(
    small_artifact: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = lostwax(capsys, "export", small_artifact.artifact, "-o", tmp_path / "m.onnx")
    assert status == 1
    assert "--onnx" in one_sentence(err)
