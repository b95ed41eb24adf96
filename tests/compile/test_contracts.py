"""Each contract of the compile, shown by a model that needs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path

import pytest
import torch
from native_kernels import torch_alone
from small import PROMPT, greedy, plan
from small_fixtures import Compiled

from lostwax.backends import predicates as P
from lostwax.backends.plan.cover import Forced, NoCover
from lostwax.backends.plan.forced import UnknownLowering
from lostwax.backends.portable.lowerings.attention import ATTENTION
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.load import Runtime, load
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.program import HEADS, HostCall, Program, View
from lostwax.ir.contract.weights import WeightPlan

GATE_UP = ("quant.linear", "quant.linear", "core.silu_mul")
CompileSmall = Callable[..., Manifest]


def choices_of(artifact: Path) -> Choices:
    return ArtifactReader(artifact).structure("choices.json", Choices)


def programs_of(artifact: Path) -> Iterator[Program]:
    reader = ArtifactReader(artifact)
    return (reader.program(ref.file) for ref in reader.manifest.programs)


def weight_views(program: Program) -> Iterator[View]:
    for launches in program.blocks.values():
        for launch in launches:
            assert isinstance(launch, HostCall)
            yield from (v for v in launch.args if v is not None and v.space == "weight")


def answers(artifact: Path, checkpoint: Path) -> list[int]:
    return [token for token, _ in greedy(load(artifact, checkpoint=checkpoint), PROMPT, 12)]


@pytest.fixture(scope="module")
def runtime(small_artifact: Compiled) -> Runtime:
    return load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)


def test_a_region_of_three_ops_is_chosen_over_its_parts(small_artifact: Compiled) -> None:
    for program in choices_of(small_artifact.artifact).programs.values():
        for choice in (c for c in program if "core.silu_mul" in c.ops):
            assert choice.ops == GATE_UP
            assert choice.source == "estimate"
            losers = [x for x in choice.losers if x.lowering == "portable_silu_mul"]
            assert "its cover of these and other ops costs more" in {x.reason for x in losers}


def test_prefill_and_decode_want_one_weight_in_two_forms_and_get_one_copy(
    torch_artifact: Compiled,
) -> None:
    """One row reads a transposed weight faster, 64 rows a row-major one."""
    name = "self_attn.q_a_proj.weight"
    choices = choices_of(torch_artifact.artifact)
    plan = ArtifactReader(torch_artifact.artifact).structure("weights.json", WeightPlan)
    for tensors in plan.stored.values():
        parts = [p for t in tensors for p in t.parts if not t.is_scale]
        assert len(parts) == len(set(parts)), "a weight is stored once"
    prices: dict[str, dict[str, float]] = {}
    for program in ("decode-t1-b1-p8-chosen", "extend-t64-b2-p8-chosen"):
        choice = next(
            c
            for c in choices.programs[program]
            if c.block == "dense" and any(name in x.reason for x in c.losers)
        )
        (other,) = (x for x in choice.losers if x.lowering.startswith("portable_linear"))
        stored = name if choice.lowering == "portable_linear" else f"{name}@10"
        assert other.reason.endswith(f"the plan stores {stored}")
        assert other.us is not None
        prices[program] = {choice.lowering: choice.us, other.lowering: other.us}
    decode, extend = (min(p, key=p.__getitem__) for p in prices.values())
    assert (decode, extend) == ("portable_linear_transposed", "portable_linear")
    assert stored in choices.storage["dense"]
    (refused,) = {name, f"{name}@10"} - {stored}
    assert choices.storage_losses["dense"][refused] > 0


@pytest.mark.parametrize("lowering", ["portable_linear", "portable_linear_transposed"])
def test_either_form_gives_the_same_tokens(
    small_artifact: Compiled, compile_small: CompileSmall, tmp_path: Path, lowering: str
) -> None:
    forced = (Forced("quant.linear", lowering),)
    compile_small(tmp_path / "a", forced=forced)
    stored = {n for names in choices_of(tmp_path / "a").storage.values() for n in names}
    assert ("self_attn.o_proj.weight@10" in stored) is lowering.endswith("transposed")
    expected = answers(small_artifact.artifact, small_artifact.checkpoint)
    assert answers(tmp_path / "a", small_artifact.checkpoint) == expected


def test_two_forms_that_exclude_each_other_are_refused_when_compiling(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    forced = (
        Forced("quant.linear", "portable_linear_transposed", "decode"),
        Forced("quant.linear", "portable_linear", "extend"),
    )
    with pytest.raises(NoCover, match=r"wants weight stored as \S+, the plan stores \S+"):
        compile_small(tmp_path / "a", forced=forced)
    assert list(tmp_path.iterdir()) == []


def test_a_short_context_runs_programs_without_index_logits(small_artifact: Compiled) -> None:
    bodies = [p for p in programs_of(small_artifact.artifact) if p.segment not in HEADS]
    assert bodies
    for program in bodies:
        indexed = any("index" in x.op for c in program.blocks.values() for x in c)
        assert indexed is not program.guard.selects_all
        assert str(program.guard) == ("always" if indexed else "max_kv <= 32")
    for graph in sorted((small_artifact.artifact / "graphs").glob("*-*.mlir")):
        assert ("dsa.index_logits" in graph.read_text()) is ("chosen" in graph.name)
        assert "kv.append" in graph.read_text(), "the key append stays"


def test_the_program_changes_at_the_border_and_the_tokens_do_not(
    small_artifact: Compiled, runtime: Runtime
) -> None:
    found = greedy(runtime, PROMPT, 12)
    lengths = [len(PROMPT) + i for i in range(12)]
    assert [p.rsplit("-", 1)[1] for _, p in found] == [
        "all" if n <= 32 else "chosen" for n in lengths
    ]
    history = [*PROMPT, *(token for token, _ in found)]
    for i, (token, _) in enumerate(found):
        whole = runtime.run(plan(history[: len(PROMPT) + i], 0))
        assert whole.ids == [token]


def test_a_prepare_is_computed_once_a_step_and_read_by_every_layer(
    torch_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lostwax.backends.portable.kernels import cache as kernels

    for program in programs_of(torch_artifact.artifact):
        made = [(x.function, str(x.consts)) for x in program.prepare if isinstance(x, HostCall)]
        assert len(made) == len(set(made)), "equal step ops are one"
    real, calls = kernels.wide_slots, list[int]()

    @wraps(real)  # only functions of kernels packages are called
    def counted(slots: torch.Tensor, out: torch.Tensor) -> None:
        calls.append(1)
        real(slots, out)

    monkeypatch.setattr(kernels, "wide_slots", counted)
    runtime = load(torch_artifact.artifact, checkpoint=torch_artifact.checkpoint)
    runtime.run(plan(PROMPT, 0))
    assert len(calls) == 1
    bound = next(iter(runtime._bound.values()))  # pyright: ignore[reportPrivateUsage] - launches
    program = bound.program
    in_layers = sum(len(program.blocks[c.block]) for c in program.calls)
    assert len(bound.launches) == len(program.prepare) + in_layers
    readers = {
        block
        for block, launches in program.blocks.items()
        for x in launches
        if isinstance(x, HostCall) and "attend" in x.op
    }
    assert readers == {"dense", "moe"}


def test_a_forced_lowering_is_refused_with_the_predicate_named(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    name = "wgmma_attend"
    ours = next(low for low in ATTENTION if low.name == "portable_attend_absorbed")
    needs_wgmma = replace(ours, name=name, when=P.fact("matrix_units", "wgmma"))
    forced = (Forced("mla.attend", name, "decode"),)
    with pytest.raises(NoCover) as error:
        compile_small(tmp_path / "a", forced=forced, extra_lowerings=(needs_wgmma,))
    first, *lines = str(error.value).splitlines()
    assert first.startswith("dense: no lowering covers mla.attend in decode")
    refused = dict(line.strip().split(": ", 1) for line in lines)
    assert refused[name] == "target fact matrix_units is ('avx2',), wants ('wgmma',)"
    assert refused[ours.name] == f"--lowering asks for {name} on mla.attend"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            Forced("mla.attend", "portable_attend_absorbd"),
            "Did you mean 'portable_attend_absorbed'",
        ),
        (Forced("mla.attend", "portable_cast"), "does not cover mla.attend; it covers core.cast"),
        (Forced("mla.atend", "portable_cast"), r"an op 'mla.atend'. Did you mean 'mla.attend'\?"),
    ],
)
def test_a_forced_lowering_that_does_not_exist_is_refused_with_a_suggestion(
    compile_small: CompileSmall, tmp_path: Path, rule: Forced, message: str
) -> None:
    with pytest.raises(UnknownLowering, match=message):
        compile_small(tmp_path / "a", forced=(rule,))


def test_the_budget_makes_the_index_logits_tile(
    small_artifact: Compiled, compile_small: CompileSmall, tmp_path: Path
) -> None:
    """All rows at once need more than 2 MiB of index logits and temporaries; fewer rows fit."""
    with torch_alone():
        compile_small(tmp_path / "a", budget_bytes=2 << 20)
    (choice, _) = [
        c
        for c in choices_of(tmp_path / "a").programs["extend-t64-b2-p8-chosen"]
        if "dsa.topk" in c.ops
    ]
    assert choice.ops == ("dsa.index_logits", "dsa.topk")
    assert choice.knobs["row_tile"] < 64
    (big,) = [x for x in choice.losers if x.lowering == "portable_index_logits"]
    assert re.fullmatch(r"needs \d+ bytes of results.* budget is 2097152; .*--budget", big.reason)
    expected = answers(small_artifact.artifact, small_artifact.checkpoint)
    assert answers(tmp_path / "a", small_artifact.checkpoint) == expected


def test_a_budget_that_nothing_fits_is_refused_with_the_least_need(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    with pytest.raises(
        NoCover, match=r"needs \d+ bytes .* the budget is 100; give a larger --budget"
    ):
        compile_small(tmp_path / "a", budget_bytes=100)
